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
from cof.models.base import Counters, Encoded
from cof.models.common.checks import finite
from cof.models.common.kv_cache import forward, roomy, static


@dataclass
class Row:
    """One row of a batch while it is being decoded.

    Attributes:
        index: its place in the batch.
        tokens: ids so far.
        logits: of each step, where they are kept.
        closed: a bracket has been closed.
        sound: no logits held NaN or inf; a row where they did ends there, and is no reply.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
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
        rows = [Row(index) for index in range(len(encoded.embeds))]
        with ExitStack() as narrowed:
            self._steps(encoded, rows, max_new_tokens, narrowed)
        return rows

    def _steps(self, encoded: Encoded, rows: list[Row], limit: int, narrowed: ExitStack) -> None:
        mask = encoded.attention_mask
        cache: Cache = self.start(encoded, limit if self.step is None else 0)
        known = cache.get_seq_length()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        embeds, places = encoded.embeds[:, known:], positions[:, known:]
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
                mask, places = mask[keep], places[keep]
                self._drop(cache, keep, narrowed)
            newest = torch.tensor([[row.tokens[-1]] for row in active], device=mask.device)
            embeds, places = self.embed(newest, encoded), places[:, -1:] + 1
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
        prompt = encoded.embeds.shape[1]
        if encoded.prefix is None:
            return roomy(self.decoder, prompt, reply)
        plan = current(self.decoder)
        usable = encoded.prefix.length if plan is None else plan.untouched()
        return encoded.prefix.take(encoded.rows, min(usable, encoded.prefix.length), prompt, reply)

    def embed(self, ids: Tensor, encoded: Encoded) -> Tensor:
        """Input embeddings of ids, like the prompt's."""
        return self.network.get_input_embeddings()(ids).to(encoded.embeds)  # type: ignore[no-any-return]

    def _drop(self, cache: Cache, keep: Tensor, narrowed: ExitStack) -> None:
        """Go on with some rows only: their cache, and their part of the highlight."""
        cache.batch_select_indices(keep)
        plan = current(self.decoder)
        if plan is not None:
            narrowed.enter_context(highlighted(self.decoder, plan.take(keep)))

    def _take(self, active: list[Row], logits: Tensor) -> list[bool]:
        """Append each row's best token; True where the row goes on.

        Whether its logits are finite is read back together with the token.
        """
        best = torch.stack([logits.argmax(-1), finite(logits).long()]).tolist()
        going = []
        for row, token, sound, scores in zip(active, *best, logits, strict=True):
            ended = bool(row.tokens) and self._ended(row)
            if not ended:
                row.sound = bool(sound)
                row.tokens.append(token)
                row.logits += [scores.float().cpu()] if self.keep_logits else []
                row.closed |= token in self.closing
            going.append(not ended and not self._ended(row))
        return going

    def _ended(self, row: Row) -> bool:
        if not row.sound or row.tokens[-1] in self.stops:
            return True
        return row.closed and self.done is not None and self.done(self.text(row.tokens))
