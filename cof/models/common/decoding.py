"""Greedy decoding with everything shared that stays exact; the loop behind both stages.

`Greedy` decodes a batch on top of the keys and values that its images share, ends a row once its
text is complete, and drops finished rows from the batch, so that one rambling reply does not keep
the other rows busy.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.masking_utils import create_causal_mask

from cof.attention import current, highlighted
from cof.models.base import Counters, Encoded, Mix
from cof.models.common.checks import finite
from cof.models.common.kv_cache import forward, roomy, static


@dataclass
class Row:
    """One row of a batch while it is being decoded.

    Attributes:
        index: its place in the batch.
        tokens: ids so far.
        logits: of each step, where they are kept.
        logprobs: of each token.
        closed: a bracket has been closed.
        sound: no logits held NaN or inf; a row where they did ends there, and is no reply.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    closed: bool = False
    sound: bool = True


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
        step: None, or a compiled forward of the decoder: decoding then runs on a static cache, in
            which finished rows stay, so that shapes do not change.
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
    step: Callable[..., Any] | None = None

    @torch.inference_mode()
    def run(self, encoded: Encoded, max_new_tokens: int) -> list[Row]:
        """Decode every row to its end, at most `max_new_tokens` tokens.

        Args:
            encoded: B prompts; a highlight that is active here applies to them.
            max_new_tokens: at least 1.

        Returns:
            The B rows in order; the ending id is included.
        """
        rows = [Row(index) for index in range(len(encoded))]
        with ExitStack() as narrowed:
            self._steps(encoded, rows, max_new_tokens, narrowed)
        return rows

    def _steps(self, encoded: Encoded, rows: list[Row], limit: int, narrowed: ExitStack) -> None:
        mask = encoded.attention_mask
        cache: Cache = self.start(encoded, limit if self.step is None else 0)
        known = cache.get_seq_length()
        embeds, places = self.prompt(encoded)[:, known:], positions(encoded)[..., known:]
        active = list(rows)
        for step in range(limit):
            hidden = self._forward(step, embeds, mask, places, cache)
            going = self._take(active, self.network.lm_head(hidden[:, -1]))
            if not any(going) or step == limit - 1:
                return
            if step == 0 and self.step is not None:
                cache = static(self.decoder.config, cache, limit)
            if sum(going) <= len(active) // 2 and self.step is None:
                keep = torch.tensor([i for i, go in enumerate(going) if go])
                active = [row for row, go in zip(active, going, strict=True) if go]
                mask, places = mask[keep], places[..., keep, :]
                self._drop(cache, keep, narrowed)
            newest = torch.tensor([[row.tokens[-1]] for row in active], device=mask.device)
            embeds, places = self.embed(newest, embeds), places[..., -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)

    def _forward(
        self, step: int, embeds: Tensor, mask: Tensor, places: Tensor, cache: Cache
    ) -> Tensor:
        """Prefill as it is; decode steps through the compiled forward, if there is one.

        The mask is made outside the compiled code: there, a highlight would be baked in.
        """
        inputs = {"inputs_embeds": embeds, "position_ids": places}
        if step == 0 or self.step is None:
            return forward(self.decoder, self.counters, cache, attention_mask=mask, **inputs)
        full = create_causal_mask(self.decoder.config, embeds, mask, cache, places)
        return forward(self.step, self.counters, cache, attention_mask=full, **inputs)

    def start(self, encoded: Encoded, reply: int) -> Cache:
        """The keys and values that the batch may start from; at most `reply` follow the prompt."""
        prompt, start = encoded.keys, encoded.shared
        if start is None or encoded.scale:
            return roomy(self.decoder, prompt, reply)
        plan = current(self.decoder)
        usable = start.length if plan is None else plan.untouched(encoded.sees)
        return start.take(min(usable, start.length), prompt, reply)  # type: ignore[no-any-return]

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

    def _drop(self, cache: Cache, keep: Tensor, narrowed: ExitStack) -> None:
        """Go on with some rows only: their cache, and their part of the highlight."""
        cache.batch_select_indices(keep)
        plan = current(self.decoder)
        if plan is not None:
            narrowed.enter_context(highlighted(self.decoder, plan.take(keep)))

    def _take(self, active: list[Row], logits: Tensor) -> list[bool]:
        """Append each row's best token; True where the row goes on.

        Its log-probability, and whether the logits are finite, are read back together with it.
        """
        if self.mix is not None:
            logits = self.mix(logits.float())
        best, scores = logits.argmax(-1), logits.float()
        weight = scores.gather(-1, best[:, None])[:, 0] - scores.logsumexp(-1)
        read = torch.stack([best.double(), finite(logits).double(), weight.double()]).tolist()
        going = []
        for row, token, sound, logprob, kept in zip(active, *read, logits, strict=True):
            ended = bool(row.tokens) and self._ended(row)
            if not ended:
                row.sound = bool(sound)
                row.tokens.append(int(token))
                row.logprobs.append(logprob)
                row.logits += [kept.float().cpu()] if self.keep_logits else []
                row.closed |= row.tokens[-1] in self.closing
            going.append(not ended and not self._ended(row))
        return going

    def _ended(self, row: Row) -> bool:
        if not row.sound or row.tokens[-1] in self.stops:
            return True
        return row.closed and self.done is not None and self.done(self.text(row.tokens))


def positions(encoded: Encoded) -> Tensor:
    """Positions of the prompts, int64 [B, S] or [axes, B, S]; counted where none are given."""
    if encoded.positions is not None:
        return encoded.positions
    return (encoded.attention_mask.cumsum(1) - 1).clamp(min=0)
