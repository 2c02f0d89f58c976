"""Greedy decoding with everything shared that stays exact; the loop behind both stages.

`Greedy` decodes a batch on top of the keys and values that its images share, and ends a row once
its text is complete. One rambling reply does not keep the other rows busy: the eager loop drops
finished rows once they are half of the batch, captured steps (`cof.models.common.graphs`) once the
others fit a smaller shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from cof.attention import current, highlighted, step_masks
from cof.models.base import Counters, Encoded, Mix
from cof.models.common.graphs import Graphs, size_for
from cof.models.common.kv_cache import forward, roomy
from cof.models.common.step import Entry, choose
from cof.regions.bias import Highlight


@dataclass
class Row:
    """One row of a batch while it is being decoded.

    Attributes:
        index: its place in the batch.
        tokens: ids so far.
        logits: of each step, where they are kept.
        logprobs: of each token.
        margins: by how much each is above that of the second best token.
        closed: a bracket has been closed.
        sound: no logits held NaN or inf; a row where they did ends there, and is no reply.
        ended: it needs no further token.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    closed: bool = False
    sound: bool = True
    ended: bool = False


@dataclass
class State:
    """Where a batch is between two decode steps.

    Attributes:
        rows: of the batch; finished ones among them.
        mask: int64 [B, S], 0 for padding, of the positions in the cache.
        places: int64 [B, 1] or [axes, B, 1], where each row's newest token stands.
        cache: keys and values; not those of the newest tokens.
        left: tokens that may still follow.
        like: float [0], in the dtype and on the device of the prompts' embeddings.
    """

    rows: list[Row]
    mask: Tensor
    places: Tensor
    cache: Cache
    left: int
    like: Tensor

    @property
    def live(self) -> list[int]:
        """Places in the batch of the rows that go on; none when nothing may follow."""
        return [place for place, row in enumerate(self.rows) if self.left and not row.ended]

    @property
    def newest(self) -> Tensor:
        """The newest token of each row, int64 [B, 1]."""
        return torch.tensor([[row.tokens[-1]] for row in self.rows], device=self.mask.device)

    def went(self, steps: int) -> None:
        """So many more tokens of each row are in the cache."""
        self.places = self.places + steps
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), steps)], dim=1)

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows only; their cache is the caller's business."""
        self.rows = [self.rows[row] for row in rows.tolist()]
        self.mask, self.places = self.mask[rows], self.places[..., rows, :]


@dataclass
class Greedy:
    """Greedy decoding of one batch.

    Attributes:
        network: the whole model (its `lm_head` and embeddings are used).
        decoder: its language model.
        counters: where forward passes are counted.
        stops: ids that end a reply.
        text: ids -> text, for `done`.
        closing: ids whose text holds `]` or `}`; `done` is first asked after one of them.
        done: None, or true of a text that needs no continuation.
        keep_logits: keep each step's logits.
        mix: None, or what becomes of each step's scores before the best is taken.
        graphs: None, or the captured decode steps; what they cannot do is decoded eagerly.
    """

    network: Any
    decoder: Any
    counters: Counters
    stops: frozenset[int]
    text: Callable[[list[int]], str]
    closing: frozenset[int] = frozenset()
    done: Callable[[str], bool] | None = None
    keep_logits: bool = False
    mix: Mix | None = None
    graphs: Graphs | None = None

    @torch.inference_mode()
    def run(self, encoded: Encoded, max_new_tokens: int) -> list[Row]:
        """Decode every row to its end, at most `max_new_tokens` tokens.

        Args:
            encoded: B prompts; a highlight that is active here applies to them.
            max_new_tokens: at least 1.

        Returns:
            The B rows in order; the ending id is included.
        """
        try:
            return self._run(encoded, max_new_tokens)
        except torch.OutOfMemoryError:
            if self.graphs is None or not self.graphs.held:
                raise
        self.graphs.drop()  # behind the block, where the exception holds no tensors any more
        return self._run(encoded, max_new_tokens)

    def _run(self, encoded: Encoded, limit: int) -> list[Row]:
        rows = [Row(index) for index in range(len(encoded))]
        with ExitStack() as narrowed:
            state = self._prefill(encoded, list(rows), limit)
            while state.live:
                if not self._replay(state, narrowed):
                    self._eager(state, narrowed)
        return rows

    def _prefill(self, encoded: Encoded, rows: list[Row], limit: int) -> State:
        """Run the prompts and take the first tokens."""
        mask, cache = encoded.attention_mask, self.start(encoded, limit)
        known = cache.get_seq_length()
        embeds, places = self.prompt(encoded)[:, known:], positions(encoded)[..., known:]
        state = State(rows, mask, places[..., -1:] + 1, cache, limit, embeds.new_empty(0))
        self._pass(state, embeds, places)
        return state

    def _eager(self, state: State, narrowed: ExitStack) -> None:
        """Decode to the end; finished rows leave when they are half of the batch."""
        while live := state.live:
            if len(live) <= len(state.rows) // 2:
                self._drop(state, live, narrowed)
            places = state.places
            state.went(1)
            self._pass(state, self.embed(state.newest, state.like), places)

    def _pass(self, state: State, embeds: Tensor, places: Tensor) -> None:
        """One forward pass, and each row's best token behind it."""
        inputs = {"inputs_embeds": embeds, "position_ids": places, "attention_mask": state.mask}
        hidden = forward(self.decoder, self.counters, state.cache, **inputs)
        given = self.network.lm_head(hidden[:, -1])
        if self.mix is None:
            self._take(state, given, choose(given).tolist())
        else:
            mixed = self.mix(given.float())
            self._take(state, mixed, choose(mixed, given, self.mix).tolist())

    def _replay(self, state: State, narrowed: ExitStack) -> bool:
        """Decode with one captured step as long as it fits; False where there is none.

        Where the rows that go on fit a smaller step, or the memory is full, they are taken out.
        """
        if self.graphs is None:
            return False
        if size_for(len(state.live)) < size_for(len(state.rows)):
            self._drop(state, state.live, narrowed)
        step = self.graphs.begin(self._entry(state), state.left)
        if step is None:
            return False
        state.cache, before = Cache(layers=[]), state.left  # its memory is not needed any more
        while step.room and state.live and size_for(len(state.live)) == step.size:
            self.counters.forwards += 1
            self.counters.positions += step.size
            self._take(state, *step.run(len(state.rows), self.mix))
        if live := state.live:
            state.went(before - state.left)
            empty = roomy(self.decoder, step.filled, state.left)
            state.cache = step.unload(torch.tensor(live), empty)
            self._keep(state, torch.tensor(live), narrowed)
        return True

    def _entry(self, state: State) -> Entry:
        masks = step_masks(self.decoder, state.mask.bool(), state.like.dtype)
        return Entry(state.cache, masks, state.newest, state.places)

    def start(self, encoded: Encoded, reply: int) -> Cache:
        """The keys and values that the batch may start from; at most `reply` follow the prompt."""
        prompt, start = encoded.attention_mask.shape[1], encoded.shared
        if start is None:
            return roomy(self.decoder, prompt, reply)
        plan, usable = current(self.decoder), start.length
        usable = min(usable, unscaled(encoded)) if encoded.scale else usable
        usable = usable if plan is None else min(usable, plan.untouched(encoded.sees))
        return start.take(usable, prompt, reply)  # type: ignore[no-any-return]

    def prompt(self, encoded: Encoded) -> Tensor:
        """Input embeddings of the prompts, float [B, S, D], visual tokens scaled where asked."""
        embeds = encoded.inputs["inputs_embeds"]
        if not encoded.scale:
            return embeds
        embeds = embeds.clone()
        for row, (factor, places) in enumerate(zip(encoded.scale, encoded.visual, strict=True)):
            if factor is not None:
                scaled = embeds[row, places] * factor.to(embeds.device)[:, None]  # in float32
                embeds[row, places] = scaled.to(embeds.dtype)
        return embeds

    def embed(self, ids: Tensor, like: Tensor) -> Tensor:
        """Input embeddings of ids, on the device and in the dtype of the prompt's."""
        return self.network.get_input_embeddings()(ids).to(like)  # type: ignore[no-any-return]

    def _drop(self, state: State, live: Sequence[int], narrowed: ExitStack) -> None:
        """Go on with some rows only."""
        rows = torch.tensor(live)
        state.cache.batch_select_indices(rows)
        self._keep(state, rows, narrowed)

    def _keep(self, state: State, rows: Tensor, narrowed: ExitStack) -> None:
        """What else belongs to some rows: their state, and their part of the highlight."""
        state.keep(rows)
        plan = current(self.decoder)
        if plan is not None:
            narrowed.enter_context(highlighted(self.decoder, plan.take(rows)))

    def _take(self, state: State, logits: Tensor, read: Sequence[Sequence[float]]) -> None:
        """Append the best token of each row that goes on.

        Args:
            state: of B rows.
            logits: [B or more, V].
            read: `choose` of them, as lists.
        """
        state.left -= 1
        for row, token, sound, logprob, margin, kept in zip(
            state.rows, *read, logits, strict=False
        ):
            if row.ended:
                continue
            row.sound = bool(sound)
            row.tokens.append(int(token))
            row.logprobs.append(logprob)
            row.margins.append(margin)
            row.logits += [kept.to("cpu", torch.float32, copy=True)] if self.keep_logits else []
            row.closed |= row.tokens[-1] in self.closing
            row.ended = self._ended(row)

    def _ended(self, row: Row) -> bool:
        if not row.sound or row.tokens[-1] in self.stops:
            return True
        return row.closed and self.done is not None and self.done(self.text(row.tokens))


def unscaled(encoded: Encoded) -> int:
    """How many leading positions see no embedding that `scale` changes, in every row."""
    changed = torch.zeros(encoded.attention_mask.shape)
    for row, (factor, places) in enumerate(zip(encoded.scale, encoded.visual, strict=True)):
        if factor is not None:
            changed[row, places] = (factor != 1).to(changed)
    return Highlight(changed).untouched(encoded.sees)


def positions(encoded: Encoded) -> Tensor:
    """Positions of the prompts, int64 [B, S] or [axes, B, S]; counted where none are given."""
    if encoded.positions is not None:
        return encoded.positions
    return (encoded.attention_mask.cumsum(1) - 1).clamp(min=0)
