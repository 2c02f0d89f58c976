"""Questions with exact answers and exact regions, asked about a list of Things.

A question names things by phrases; `Ref` remembers which things a phrase means, so that the
trainer can supervise where the model looks. Everything is drawn from the caller's `Random`.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from cof_lab import wording
from cof_lab.question_context import GeneratedQuestion, QuestionContext, Ref, UnaskableError
from cof_lab.world import COLORS, GLYPHS, SHAPES, Thing

GAP = 4.0  # pixels between two boxes' centres, beyond half their extents, to call a side


def _existence(context: QuestionContext, truth: bool) -> GeneratedQuestion:
    if truth:
        index = context.thing()
        ref, fact = context.name(index), context.things[index].glyph
    else:
        ref, fact = Ref(absent_name(context), ()), "none"
    text = context.say("existence", a=ref.phrase, an=wording.article(ref.phrase))
    return GeneratedQuestion("existence", text, "Yes" if truth else "No", ref.things, (ref,), fact)


def absent_name(context: QuestionContext, style: str | None = None) -> str:
    """A colour+shape that is not there; 'adversarial' recombines what is, 'random' need not."""
    style = style or context.pick(("adversarial", "adversarial", "popular", "random"))
    there = {thing.name for thing in context.things}
    colors = {t.color for t in context.things} if style != "random" else set(COLORS)
    shapes = {t.shape for t in context.things} if style == "adversarial" else set(SHAPES)
    names = sorted(f"{c} {s}" for c in colors for s in shapes)
    return context.pick([name for name in names if name not in there])


def _count(context: QuestionContext, truth: bool) -> GeneratedQuestion:
    ref = context.group()
    number = len(ref.things)
    claim = number if truth else number + context.pick((-1, 1) if number > 1 else (1,))
    if claim == 1:
        one = singular(ref.phrase)
        ref = Ref(one, ref.things)
        text = context.say("count_one", many=one)
    else:
        text = context.say("count", n=wording.NUMBERS[claim], many=ref.phrase)
    return GeneratedQuestion(
        "count", text, "Yes" if truth else "No", ref.things, (ref,), str(number)
    )


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


def _two(context: QuestionContext) -> tuple[Ref, Ref, str]:
    a, b = context.thing(), context.thing()
    if a == b:
        raise UnaskableError
    side = context.pick(side_of(context.things[a], context.things[b]))
    return context.name(a), context.name(b), side


def _position(context: QuestionContext, truth: bool) -> GeneratedQuestion:
    a, b, side = _two(context)
    claim = side if truth else wording.OPPOSITE[side]
    words = context.pick(wording.SIDES[claim])
    text = context.say("position", a=a.phrase, b=b.phrase, side=words)
    return GeneratedQuestion(
        "position", text, "Yes" if truth else "No", a.things + b.things, (a, b), side
    )


def _which_side(context: QuestionContext, truth: bool) -> GeneratedQuestion:
    a, b, side = _two(context)
    pair = [side, wording.OPPOSITE[side]][:: 1 if truth else -1]
    one = "to the " + pair[0] if pair[0] in ("left", "right") else pair[0]
    other = f"to the {pair[1]} of" if pair[1] in ("left", "right") else pair[1]
    text = context.say("which_side", a=a.phrase, b=b.phrase, one=one, other=other)
    return GeneratedQuestion(
        "which_side", text, side, a.things + b.things, (a, b), side, tuple(sorted(pair))
    )


def _reference(context: QuestionContext) -> tuple[int, Ref]:
    """By glyph, or by shape alone when only one thing has that shape."""
    shapes = [thing.shape for thing in context.things]
    lonely = [k for k, shape in enumerate(shapes) if shapes.count(shape) == 1]
    if lonely and context.random.random() < 0.3:
        index = context.pick(lonely)
        return index, Ref(shapes[index], (index,))
    return context.by_glyph()


def _color(context: QuestionContext, truth: bool) -> GeneratedQuestion:
    index, ref = _reference(context)
    real = context.things[index].color
    near = [t.color for t in context.things if t.color != real] or list(COLORS)
    others = sorted(set(near if context.random.random() < 0.7 else COLORS) - {real})
    color = real if truth else context.pick(others)
    text = context.say("color", a=ref.phrase, color=color)
    return GeneratedQuestion("color", text, "Yes" if truth else "No", (index,), (ref,), real)


def _ocr(context: QuestionContext, truth: bool) -> GeneratedQuestion:
    index = context.thing()
    ref, real = context.name(index), context.things[index].glyph
    near = [t.glyph for t in context.things if t.glyph != real] or list(GLYPHS)
    others = sorted(set(near if context.random.random() < 0.6 else GLYPHS) - {real})
    glyph = real if truth else context.pick(others)
    text = context.say("OCR", a=ref.phrase, g=glyph)
    return GeneratedQuestion("OCR", text, "Yes" if truth else "No", (index,), (ref,), real)


def _what_color(context: QuestionContext, truth: bool) -> GeneratedQuestion:
    index, ref = _reference(context)
    color = context.things[index].color
    text = context.say("what_color", a=ref.phrase)
    return GeneratedQuestion("what_color", text, color, (index,), (ref,), color, tuple(COLORS))


def _what_shape(context: QuestionContext, truth: bool) -> GeneratedQuestion:
    index, _ = context.by_glyph()
    thing = context.things[index]
    text = context.say("what_shape", g=thing.glyph)
    ref = Ref(thing.glyph, (index,))
    return GeneratedQuestion("what_shape", text, thing.shape, (index,), (ref,), thing.shape, SHAPES)


def _what_digit(context: QuestionContext, truth: bool) -> GeneratedQuestion:
    index = context.thing()
    ref, glyph = context.name(index), context.things[index].glyph
    text = context.say("what_digit", a=ref.phrase)
    return GeneratedQuestion("what_digit", text, glyph, (index,), (ref,), glyph, tuple(GLYPHS))


def _how_many(context: QuestionContext, truth: bool) -> GeneratedQuestion:
    ref = context.group()
    number = str(len(ref.things))
    text = context.say("how_many", many=ref.phrase)
    return GeneratedQuestion(
        "how_many", text, number, ref.things, (ref,), number, tuple("123456789")
    )


KINDS: dict[str, Callable[[QuestionContext, bool], GeneratedQuestion]] = {
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


def ask(context: QuestionContext, kind: str, truth: bool | None = None) -> GeneratedQuestion:
    """A question of this kind; for yes/no kinds `truth` fixes the answer.

    Raises:
        UnaskableError: no such question can be asked about this scene.
    """
    if truth is None:
        truth = context.random.random() < 0.5
    return KINDS[kind](context, truth)


def multiple_choice(
    question: GeneratedQuestion, random: Random, most: int = 4
) -> GeneratedQuestion:
    """The same question with lettered options; the answer becomes a letter."""
    wrong = [option for option in question.options if option != question.answer]
    options = [*random.sample(wrong, min(most - 1, len(wrong))), question.answer]
    random.shuffle(options)
    text = question.text + wording.choices(options)
    letter = "ABCD"[options.index(question.answer)]
    return GeneratedQuestion(
        question.kind, text, letter, question.region, question.refs, question.fact, tuple(options)
    )
