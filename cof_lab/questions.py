"""Questions with exact answers and exact regions, asked about a list of Things.

A question names things by phrases; `Ref` remembers which things a phrase means, so that the
trainer can supervise where the model looks. Everything is drawn from the caller's `Random`.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from cof_lab import wording
from cof_lab.question_context import Asker, Question, Ref, UnaskableError
from cof_lab.world import COLORS, GLYPHS, SHAPES, Thing

GAP = 4.0  # pixels between two boxes' centres, beyond half their extents, to call a side


def _existence(asker: Asker, truth: bool) -> Question:
    if truth:
        index = asker.thing()
        ref, fact = asker.name(index), asker.things[index].glyph
    else:
        ref, fact = Ref(absent_name(asker), ()), "none"
    text = asker.say("existence", a=ref.phrase, an=wording.article(ref.phrase))
    return Question("existence", text, "Yes" if truth else "No", ref.things, (ref,), fact)


def absent_name(asker: Asker, style: str | None = None) -> str:
    """A colour+shape that is not there; 'adversarial' recombines what is, 'random' need not."""
    style = style or asker.pick(("adversarial", "adversarial", "popular", "random"))
    there = {thing.name for thing in asker.things}
    colors = {t.color for t in asker.things} if style != "random" else set(COLORS)
    shapes = {t.shape for t in asker.things} if style == "adversarial" else set(SHAPES)
    names = sorted(f"{c} {s}" for c in colors for s in shapes)
    return asker.pick([name for name in names if name not in there])


def _count(asker: Asker, truth: bool) -> Question:
    ref = asker.group()
    number = len(ref.things)
    claim = number if truth else number + asker.pick((-1, 1) if number > 1 else (1,))
    if claim == 1:
        one = singular(ref.phrase)
        ref = Ref(one, ref.things)
        text = asker.say("count_one", many=one)
    else:
        text = asker.say("count", n=wording.NUMBERS[claim], many=ref.phrase)
    return Question("count", text, "Yes" if truth else "No", ref.things, (ref,), str(number))


def singular(phrase: str) -> str:
    """'red shapes' -> 'red shape'."""
    return phrase[:-2] if phrase.endswith("crosses") else phrase.removesuffix("s")


def side_of(a: Thing, b: Thing) -> list[str]:
    """On which sides of b the thing a clearly lies."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = _middle(a), _middle(b)
    sides = []
    if abs(ax - bx) > (aw + bw) / 2 + GAP:
        sides.append("left" if ax < bx else "right")
    if abs(ay - by) > (ah + bh) / 2 + GAP:
        sides.append("above" if ay < by else "below")
    return sides


def _middle(thing: Thing) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = thing.box
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def _two(asker: Asker) -> tuple[Ref, Ref, str]:
    a, b = asker.thing(), asker.thing()
    if a == b:
        raise UnaskableError
    side = asker.pick(side_of(asker.things[a], asker.things[b]))
    return asker.name(a), asker.name(b), side


def _position(asker: Asker, truth: bool) -> Question:
    a, b, side = _two(asker)
    claim = side if truth else wording.OPPOSITE[side]
    words = asker.pick(wording.SIDES[claim])
    text = asker.say("position", a=a.phrase, b=b.phrase, side=words)
    return Question("position", text, "Yes" if truth else "No", a.things + b.things, (a, b), side)


def _which_side(asker: Asker, truth: bool) -> Question:
    a, b, side = _two(asker)
    pair = [side, wording.OPPOSITE[side]][:: 1 if truth else -1]
    one = "to the " + pair[0] if pair[0] in ("left", "right") else pair[0]
    other = f"to the {pair[1]} of" if pair[1] in ("left", "right") else pair[1]
    text = asker.say("which_side", a=a.phrase, b=b.phrase, one=one, other=other)
    return Question(
        "which_side", text, side, a.things + b.things, (a, b), side, tuple(sorted(pair))
    )


def _reference(asker: Asker) -> tuple[int, Ref]:
    """By glyph, or by shape alone when only one thing has that shape."""
    shapes = [thing.shape for thing in asker.things]
    lonely = [k for k, shape in enumerate(shapes) if shapes.count(shape) == 1]
    if lonely and asker.random.random() < 0.3:
        index = asker.pick(lonely)
        return index, Ref(shapes[index], (index,))
    return asker.by_glyph()


def _color(asker: Asker, truth: bool) -> Question:
    index, ref = _reference(asker)
    real = asker.things[index].color
    near = [t.color for t in asker.things if t.color != real] or list(COLORS)
    others = sorted(set(near if asker.random.random() < 0.7 else COLORS) - {real})
    color = real if truth else asker.pick(others)
    text = asker.say("color", a=ref.phrase, color=color)
    return Question("color", text, "Yes" if truth else "No", (index,), (ref,), real)


def _ocr(asker: Asker, truth: bool) -> Question:
    index = asker.thing()
    ref, real = asker.name(index), asker.things[index].glyph
    near = [t.glyph for t in asker.things if t.glyph != real] or list(GLYPHS)
    others = sorted(set(near if asker.random.random() < 0.6 else GLYPHS) - {real})
    glyph = real if truth else asker.pick(others)
    text = asker.say("OCR", a=ref.phrase, g=glyph)
    return Question("OCR", text, "Yes" if truth else "No", (index,), (ref,), real)


def _what_color(asker: Asker, truth: bool) -> Question:
    index, ref = _reference(asker)
    color = asker.things[index].color
    text = asker.say("what_color", a=ref.phrase)
    return Question("what_color", text, color, (index,), (ref,), color, tuple(COLORS))


def _what_shape(asker: Asker, truth: bool) -> Question:
    index, _ = asker.by_glyph()
    thing = asker.things[index]
    text = asker.say("what_shape", g=thing.glyph)
    ref = Ref(thing.glyph, (index,))
    return Question("what_shape", text, thing.shape, (index,), (ref,), thing.shape, SHAPES)


def _what_digit(asker: Asker, truth: bool) -> Question:
    index = asker.thing()
    ref, glyph = asker.name(index), asker.things[index].glyph
    text = asker.say("what_digit", a=ref.phrase)
    return Question("what_digit", text, glyph, (index,), (ref,), glyph, tuple(GLYPHS))


def _how_many(asker: Asker, truth: bool) -> Question:
    ref = asker.group()
    number = str(len(ref.things))
    text = asker.say("how_many", many=ref.phrase)
    return Question("how_many", text, number, ref.things, (ref,), number, tuple("123456789"))


KINDS: dict[str, Callable[[Asker, bool], Question]] = {
    "existence": _existence,
    "count": _count,
    "position": _position,
    "color": _color,
    "OCR": _ocr,
    "what_color": _what_color,
    "what_shape": _what_shape,
    "what_digit": _what_digit,
    "how_many": _how_many,
    "which_side": _which_side,
}
YES_NO_KINDS = ("existence", "count", "position", "color", "OCR")
WORD_KINDS = ("what_color", "what_shape", "what_digit", "how_many", "which_side")


def ask(asker: Asker, kind: str, truth: bool | None = None) -> Question:
    """A question of this kind; for yes/no kinds `truth` fixes the answer.

    Raises:
        UnaskableError: no such question can be asked about this scene.
    """
    if truth is None:
        truth = asker.random.random() < 0.5
    return KINDS[kind](asker, truth)


def multiple_choice(question: Question, random: Random, most: int = 4) -> Question:
    """The same question with lettered options; the answer becomes a letter."""
    wrong = [option for option in question.options if option != question.answer]
    options = [*random.sample(wrong, min(most - 1, len(wrong))), question.answer]
    random.shuffle(options)
    text = question.text + wording.choices(options)
    letter = "ABCD"[options.index(question.answer)]
    return Question(
        question.kind, text, letter, question.region, question.refs, question.fact, tuple(options)
    )
