"""Decoding by a grammar of boxes: what could not be otherwise costs no pass of its own.

A pass feeds each row the token that it chose last and those that must, or may well, follow; the
model chooses among what the grammar allows behind each of them. Where it chooses otherwise, what
was fed behind is taken back. Rows need different numbers of tokens: shorter ones are padded, and
padding, like what was fed in vain, is masked for good. Positions count what a row has said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Cache

from cof.attention import current
from cof.models.base import Encoded
from cof.models.common.checks import finite
from cof.models.common.decoding import Greedy, Row, positions
from cof.models.common.grammar import Cursor
from cof.models.common.kv_cache import forward
from cof.models.common.scoring import padded


class Choice(NamedTuple):
    """The best token of a place.

    Attributes:
        token: its id.
        sound: whether the logits are finite.
        logprob: its log-probability without the grammar.
        allowed: the log-probability of all that the grammar allows there together.
    """

    token: float
    sound: float
    logprob: float
    allowed: float


@dataclass
class Writer:
    """A row while its reply is written.

    Attributes:
        row: what it has said.
        cursor: how far it has come.
        allowed: for each token that was asked, the log-probability, without the grammar, of all
            that it allows there together.
        ahead: tokens fed behind its last one, before they are chosen.
        over: nothing is left to choose, or its logits are not finite.
    """

    row: Row
    cursor: Cursor
    allowed: list[float] = field(default_factory=list)
    ahead: list[int] = field(default_factory=list)
    over: bool = False

    def __post_init__(self) -> None:
        self.ahead = self.cursor.ahead()

    def asked(self) -> list[tuple[int, ...]]:
        """What is allowed behind the last token, and behind each of those ahead."""
        cursor, found = self.cursor, [self.cursor.allowed]
        for token in self.ahead:
            cursor = cursor.step(token)
            found.append(cursor.allowed)
        return found

    def take(self, choices: Sequence[Choice]) -> int:
        """Say what was chosen; returns how many of the tokens ahead were right."""
        right = 0
        for choice in choices:
            if not choice.sound:
                self.row.sound, self.over, self.ahead = False, True, []
                return right
            self._say(choice)
            if right == len(self.ahead) or self.ahead[right] != choice.token:
                break
            right += 1
        tail = self.cursor.tail()
        if tail is not None:
            self.row.tokens += tail
        self.over = tail is not None
        self.ahead = self.cursor.ahead()
        return right

    def notes(self) -> dict[str, float]:
        """How much the grammar had to say, see `Model.generate_boxes`; four decimals."""
        asked = self.row.logprobs
        least = {"least_logprob": min(asked), "least_allowed": min(self.allowed)}
        found = {**least, "mean_logprob": sum(asked) / len(asked)}
        return {name: round(value, 4) for name, value in found.items()}

    def _say(self, choice: Choice) -> None:
        self.row.tokens.append(int(choice.token))
        self.row.logprobs.append(choice.logprob)
        self.allowed.append(choice.allowed)
        self.cursor = self.cursor.step(int(choice.token))


@dataclass
class _Pass:
    """What the passes of a batch share.

    Attributes:
        loop: the model's decoding.
        cache: keys and values of all that was fed.
        mask: int64 [B, K], 0 for padding and for what was fed in vain.
        last: position of each row's last token, int64 [..., B, 1].
    """

    loop: Greedy
    cache: Cache
    mask: Tensor
    last: Tensor

    def first(self, encoded: Encoded, fed: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, 1 + Q, V] behind the prompts, and behind each of the tokens fed with them."""
        known = self.cache.get_seq_length()
        ids, real = padded(fed, self.mask)
        embeds, places = self.loop.prompt(encoded), positions(encoded)
        embeds = torch.cat([embeds, self.loop.embed(ids, embeds)], dim=1)
        places = torch.cat([places, self._places(ids.shape[1])], dim=-1)
        hidden = self._hidden(embeds[:, known:], places[..., known:], real)
        return self.loop.network.lm_head(hidden[:, -1 - ids.shape[1] :])  # type: ignore[no-any-return]

    def next(self, fed: Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, Q, V] behind each of the tokens."""
        ids, real = padded(fed, self.mask)
        embeds = self.loop.network.get_input_embeddings()(ids)
        hidden = self._hidden(embeds, self._places(ids.shape[1]), real)
        return self.loop.network.lm_head(hidden)  # type: ignore[no-any-return]

    def keep(self, counts: Sequence[int]) -> None:
        """Of the tokens fed last, each row's first so many have been said."""
        width = int(self.cache.get_seq_length()) - self.mask.shape[1]
        said = torch.tensor(counts, device=self.mask.device)[:, None]
        kept = torch.arange(width, device=self.mask.device) < said
        self.mask = torch.cat([self.mask, kept.to(self.mask)], dim=1)
        self.last = self.last + said.to(self.last.device)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with some rows only."""
        chosen = torch.tensor(rows)
        self.cache.batch_select_indices(chosen)
        self.mask, self.last = self.mask[chosen], self.last[..., chosen, :]

    def _places(self, count: int) -> Tensor:
        return self.last + torch.arange(1, count + 1, device=self.last.device)

    def _hidden(self, embeds: Tensor, places: Tensor, real: Tensor) -> Tensor:
        return forward(
            self.loop.decoder,
            self.loop.counters,
            self.cache,
            inputs_embeds=embeds,
            attention_mask=torch.cat([self.mask, real], dim=1),
            position_ids=places,
        )


@torch.inference_mode()
def write_boxes(
    loop: Greedy, encoded: Encoded, cursors: Sequence[Cursor], limit: int
) -> list[Writer]:
    """Decode a reply of boxes a row.

    Args:
        loop: the model's decoding; its prefix and counters are used, no compiled step.
        encoded: B prompts.
        cursors: where each of the B replies begins; they see to it that replies end in time.
        limit: most tokens of a reply.

    Returns:
        The B rows. Their `logprobs` are those of the tokens that were asked, without the grammar:
        the last tokens of a row have none where they were forced.

    Raises:
        ValueError: a highlight is active.
    """
    if current(loop.decoder) is not None:
        raise ValueError("boxes are asked for without a highlight")
    # Every pass adds a token to each row at least, and feeds none more than a reply has.
    cache = loop.start(encoded, limit * limit)
    shared = _Pass(loop, cache, encoded.attention_mask, positions(encoded)[..., -1:])
    writers = active = [Writer(Row(index), cursor) for index, cursor in enumerate(cursors)]
    logits = shared.first(encoded, [writer.ahead for writer in active])
    begun = 0
    while True:
        counts = [begun + right for right in _take(active, logits)]
        shared.keep(counts)
        going = [number for number, one in enumerate(active) if not one.over]
        if not going:
            return writers
        if len(going) <= len(active) // 2:
            shared.select(going)
            active = [active[number] for number in going]
        fed = [[] if one.over else [one.row.tokens[-1], *one.ahead] for one in active]
        logits, begun = shared.next(fed), 1


def _take(active: Sequence[Writer], logits: Tensor) -> list[int]:
    """Let each row say its best tokens; how many of those ahead were right."""
    asked = [[] if one.over else one.asked() for one in active]
    choices = _choose(logits, asked)
    return [
        one.take(some[: len(places)]) if places else 0
        for one, some, places in zip(active, choices, asked, strict=True)
    ]


def _choose(logits: Tensor, asked: Sequence[Sequence[Sequence[int]]]) -> list[list[Choice]]:
    """The best of what is allowed at each place, in one readback.

    Args:
        logits: [B, P, V].
        asked: per row, for at most P places, the tokens that are allowed there.
    """
    most = max(len(tokens) for places in asked for tokens in places)
    empty = [[-1] * most] * logits.shape[1]
    rows = [
        ([[*tokens, *[-1] * (most - len(tokens))] for tokens in places] + empty)[: len(empty)]
        for places in asked
    ]
    allowed = torch.tensor(rows, device=logits.device)
    few = logits.float().gather(-1, allowed.clamp(min=0)).where(allowed >= 0, -torch.inf)
    score, best = few.max(-1)
    token, total = allowed.gather(-1, best[..., None])[..., 0], logits.float().logsumexp(-1)
    parts = (token, finite(logits), score - total, few.logsumexp(-1) - total)
    read = torch.stack([part.double() for part in parts], dim=-1).tolist()
    return [[Choice(*place) for place in row] for row in read]
