"""What a reply with boxes may be, token by token (ours, not the paper's).

A reply is written in slots: its opening with the first number, then a comma with the next number,
then the closing or another box. Each slot is a trie over the canonical tokenizations of all that
may stand there. Where a trie does not branch, tokens are forced; they are what all continuations
have in common, so no piece of the tokenizer is split. `box_decoding` feeds them in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random
from typing import NamedTuple

from cof.errors import ModelError
from cof.regions.frame import BoxForm, Frame
from cof.types import View

MOST = 16
"""Boxes of a reply, at most."""

WORTH = 0.3
"""A token that leads to this share of what may follow is fed before it is chosen (`0`, of 0.00 to
1.00; another box). That costs a position, and saves a pass where the model does choose it."""

_COMMA = ", "
_TRIALS = 8


class Then(NamedTuple):
    """What follows an option: the slot behind the first `numbers` (1 to 4) numbers of a box."""

    form: int
    numbers: int


@dataclass
class Node:
    """A place in the trie of a slot.

    Attributes:
        number: which number of its box the slot writes, 0 to 3.
        children: token -> the place behind it.
        ends: what follows the options that end here; None is the end of the reply.
        least: lowest number that can be written from here on, -1 where none need be.
        weight: how many options lead through here, for `WORTH`; a closing counts as half of all
            numbers.
    """

    number: int
    children: dict[int, Node] = field(default_factory=dict)
    ends: list[Then | None] = field(default_factory=list)
    least: int = 1 << 30
    weight: int = 0

    def add(self, path: Sequence[int], then: Then | None, value: int, weight: int) -> None:
        """Add an option: its tokens, what follows, the number that it writes."""
        node = self
        for token in path:
            node = node.children.setdefault(token, Node(self.number))
            node.least, node.weight = min(node.least, value), node.weight + weight
        if then not in node.ends:
            node.ends.append(then)

    @property
    def depth(self) -> int:
        """Tokens of the longest option from here on."""
        return max((1 + child.depth for child in self.children.values()), default=0)


class Place(NamedTuple):
    """Where a reply may be: a place in a slot, behind so many complete boxes."""

    node: Node
    boxes: int


class Grammar:
    """The replies of one family in one frame.

    Args:
        forms: how the family writes boxes; the model chooses among them by its own scores.
        frame: what coordinates are.
        top: largest number of any image: 100 (hundredths) for fractions, else the unit.
        encode: a whole reply -> its ids behind the prompt, without the end of the reply.
        stop: the id that ends a reply.

    Raises:
        ModelError: the tokenizer joins a number with what stands beside it in some way that slots
            cannot follow.
    """

    def __init__(
        self,
        forms: Sequence[BoxForm],
        frame: Frame,
        top: int,
        encode: Callable[[str], Sequence[int]],
        stop: int,
    ) -> None:
        self.forms, self.frame, self.encode, self.stop = forms, frame, encode, stop
        self.numbers = numbers(frame, top)
        self._paths: dict[str, list[tuple[int, ...]]] = {}
        self._slots: dict[tuple[Then, bool], Node] = {}
        self.start = self._opening()
        self._check()

    def cursor(self, bounds: Sequence[int], boxes: int = MOST) -> Cursor:
        """The beginning of a reply of at most so many boxes; largest numbers as of `bounds`."""
        return Cursor(self, tuple(bounds), boxes, (Place(self.start, 0),))

    def fits(self, tokens: int) -> int:
        """Boxes for which a reply of so many tokens has room, at most `MOST`.

        Raises:
            ModelError: not even one.
        """
        forms = range(len(self.forms))
        comma = 3 * self.slot(Then(0, 1), more=False).depth
        closing = max(self.slot(Then(form, 4), more=False).depth for form in forms)
        another = max(self.slot(Then(form, 4), more=True).depth for form in forms) + comma
        least = self.start.depth + comma + closing
        if tokens < least:
            raise ModelError(
                f"locate.max_new_tokens: {tokens} tokens are too few for a box; needs {least}"
            )
        return min(MOST, 1 + (tokens - least) // another)

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Whether these are the tokens of a whole reply."""
        cursor = self.cursor([len(self.numbers)] * 4)
        for token in tokens:
            if token not in cursor.allowed:
                return False
            cursor = cursor.step(token)
        return cursor.ended

    def slot(self, then: Then, more: bool) -> Node:
        """What may stand behind some numbers of a box; `more` boxes only where there may be."""
        key = (then, more)
        if key not in self._slots:
            self._slots[key] = self._closing(then, more) if then.numbers == 4 else self._next(then)
        return self._slots[key]

    def _opening(self) -> Node:
        slot = Node(0)
        for index, form in enumerate(self.forms):
            slot.add(self.encode(form.write([])), None, -1, len(self.numbers) // 2)
            self._numbered(slot, "", form.opening + form.before, Then(index, 1))
        return slot

    def _next(self, then: Then) -> Node:
        form, slot = self.forms[then.form], Node(then.numbers)
        context = form.opening + form.before + self.numbers[0]
        self._numbered(slot, context, _COMMA, Then(then.form, then.numbers + 1))
        return slot

    def _closing(self, then: Then, more: bool) -> Node:
        form, slot = self.forms[then.form], Node(0)
        context = form.opening + form.before + _COMMA.join([self.numbers[0]] * 4)
        slot.add(self._path(context, form.after + form.closing), None, -1, len(self.numbers) // 2)
        if more and form.between is not None:
            literal = form.after + form.between + form.before
            self._numbered(slot, context, literal, Then(then.form, 1))
        return slot

    def _numbered(self, slot: Node, context: str, literal: str, then: Then) -> None:
        """Add every number with the literal in front of it."""
        if literal not in self._paths:
            self._paths[literal] = [self._path(context, literal + text) for text in self.numbers]
        for value, path in enumerate(self._paths[literal]):
            slot.add(path, then, value, 1)

    def _path(self, context: str, text: str) -> tuple[int, ...]:
        """Tokens of a text behind a context."""
        begin = len(self.encode(context)) if context else 0
        return tuple(self.encode(context + text)[begin:])

    def _check(self) -> None:
        for text in self._samples():
            if not self.accepts(self.encode(text)):
                raise ModelError(
                    f"the tokenizer joins numbers with what is beside them ({text!r}), which the "
                    "grammar of boxes cannot follow; use locate.decode=free"
                )

    def _samples(self) -> Iterator[str]:
        """Replies with random numbers."""
        draw = Random(0)
        for form in self.forms:
            for boxes in range(2 if form.between is None else 4):
                for _ in range(_TRIALS):
                    yield form.write([draw.choices(self.numbers, k=4) for _ in range(boxes)])


@dataclass(frozen=True)
class Cursor:
    """How far a reply has come.

    Attributes:
        bounds: largest value of each of a box's four numbers, in the order of the text.
        most: boxes at most.
        places: where in the tries it may be; several where one number is the beginning of another.
        ended: it is a whole reply.
    """

    grammar: Grammar
    bounds: tuple[int, ...]
    most: int
    places: tuple[Place, ...]
    ended: bool = False

    @cached_property
    def allowed(self) -> tuple[int, ...]:
        """Tokens that may follow, ascending; () behind the end."""
        return tuple(sorted(self._weights))

    @property
    def forced(self) -> int | None:
        """The token that has to follow; None where there is a choice, or nothing to follow."""
        return self.allowed[0] if len(self.allowed) == 1 else None

    def step(self, token: int) -> Cursor:
        """Behind one of the tokens that are allowed."""
        places: list[Place] = []
        ended = False
        for node, boxes in self.places:
            child = node.children.get(token)
            if child is None or child.least > self.bounds[child.number]:
                continue
            places += [Place(child, boxes)] if child.children else []
            places += [self._behind(then, boxes) for then in child.ends if then is not None]
            ended = ended or None in child.ends
        return replace(self, places=tuple(places), ended=ended or token == self.grammar.stop)

    def ahead(self) -> list[int]:
        """Tokens that must follow, or are `WORTH` a try, up to a choice among many.

        None behind which all is settled: nobody would ask what follows it.
        """
        cursor, tokens = self, list[int]()
        while (token := cursor._likely()) is not None:
            cursor = cursor.step(token)
            if cursor.tail() is not None:
                break
            tokens.append(token)
        return tokens

    def tail(self) -> list[int] | None:
        """All tokens up to the end, where there is no choice any more; else None."""
        cursor, tokens = self, list[int]()
        while (token := cursor.forced) is not None:
            tokens.append(token)
            cursor = cursor.step(token)
        return None if cursor.allowed else tokens

    def _behind(self, then: Then, boxes: int) -> Place:
        written = boxes + (then.numbers == 4)
        return Place(self.grammar.slot(then, more=written < self.most), written)

    @cached_property
    def _weights(self) -> dict[int, int]:
        """Of each allowed token; an end that leaves a choice is a token too."""
        weights: dict[int, int] = {}
        for node, _ in self.places:
            for token, child in node.children.items():
                if child.least <= self.bounds[child.number]:
                    weights[token] = weights.get(token, 0) + child.weight
        if self.ended and weights:
            weights[self.grammar.stop] = len(self.grammar.numbers) // 2
        return weights

    def _likely(self) -> int | None:
        if not self._weights:
            return None
        best = max(self._weights, key=self._weights.__getitem__)
        return best if self._weights[best] >= WORTH * sum(self._weights.values()) else None


def numbers(frame: Frame, top: int) -> tuple[str, ...]:
    """Every number of a frame as text, in order: hundredths, or the integers up to `top`."""
    if frame.unit == (1.0, 1.0):
        return tuple(f"{value / 100:.2f}" for value in range(101))
    return tuple(str(value) for value in range(top + 1))


def bounds(frame: Frame, view: View) -> tuple[int, ...]:
    """The largest value of each of a box's four numbers, in the order in which they are written."""
    width, height = frame.unit or view.shown or view.size
    if frame.unit == (1.0, 1.0):
        return (100,) * 4
    pair = (int(width), int(height)) if frame.order == "xyxy" else (int(height), int(width))
    return pair * 2
