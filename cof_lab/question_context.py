"""What a question is made with: one scene and one source of chance; and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from cof_lab import wording
from cof_lab.world import Thing

Option = TypeVar("Option")


@dataclass(frozen=True)
class Ref:
    """A phrase of the question and the indices of the things it names (empty: none is there)."""

    phrase: str
    things: tuple[int, ...]


@dataclass(frozen=True)
class GeneratedQuestion:
    """A bare question (no suffix). `region`: indices of the things that hold the answer.

    `fact` is the word that decides the answer (the true digit behind a yes/no about a digit).
    """

    kind: str
    text: str
    answer: str
    region: tuple[int, ...]
    refs: tuple[Ref, ...] = ()
    fact: str = ""
    options: tuple[str, ...] = ()


class UnaskableError(Exception):
    """The scene offers no question of this kind; the caller picks another kind."""


@dataclass(frozen=True)
class QuestionContext:
    """Draws questions about one scene. `held_out` uses the wordings kept out of training."""

    things: Sequence[Thing]
    random: Random
    held_out: bool = False

    def say(self, kind: str, **words: str) -> str:
        """Fill a template of this kind."""
        return wording.template(kind, self.random.random(), self.held_out).format(**words)

    def pick(self, options: Sequence[Option]) -> Option:
        """One of the options; UnaskableError if there are none."""
        if not options:
            raise UnaskableError
        return options[self.random.randrange(len(options))]

    def thing(self) -> int:
        """Index of any thing."""
        return self.pick(range(len(self.things)))

    def name(self, index: int) -> Ref:
        """Refer to a thing by colour and shape, or by shape alone where that is enough."""
        thing = self.things[index]
        return Ref(thing.name, (index,))

    def by_glyph(self) -> tuple[int, Ref]:
        """A thing whose glyph is unique in the scene, referred to by that glyph.

        One whose glyph is plain to see, where there is one.
        """
        glyphs = [thing.glyph for thing in self.things]
        unique = [k for k, glyph in enumerate(glyphs) if glyphs.count(glyph) == 1]
        index = self.pick([k for k in unique if self.things[k].legible] or unique)
        words = self.pick(wording.BY_GLYPH).format(g=glyphs[index])
        return index, Ref(words, (index,))

    def group(self, most: int = 9) -> Ref:
        """Some things by a plural phrase ('red shapes', 'circles', 'shapes'), at most `most`."""
        thing = self.things[self.thing()]
        noun = self.pick(("shapes", "objects"))
        style = self.random.random()
        if style < 0.45:
            phrase, test = f"{thing.color} {noun}", lambda t: t.color == thing.color
        elif style < 0.9:
            phrase, test = plural_shape(thing.shape), lambda t: t.shape == thing.shape
        else:
            phrase, test = noun, lambda t: True
        members = [k for k, t in enumerate(self.things) if test(t)]
        members.sort(key=lambda k: self.things[k].box[0])
        if len(members) > most:
            raise UnaskableError
        return Ref(phrase, tuple(members))


def plural_shape(shape: str) -> str:
    """'crosses', 'stars'."""
    return shape + ("es" if shape.endswith("s") else "s")
