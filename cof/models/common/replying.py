"""From decoded rows to answers: what a model says, what it weighs, and why a row has no answer."""

from __future__ import annotations

import math
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from cof.errors import ModelError
from cof.models import base
from cof.models.base import Encoded, Limits, Mix
from cof.models.common.checks import Watch, fail_together, overrun
from cof.models.common.decoding import Greedy, Row
from cof.models.common.scoring import continuation_logprobs
from cof.types import Answer

_BYTE_PIECES = {"<0x5D>", "<0x7D>"}

_MARKS = re.compile(r"<\|box_(?:start|end)\|>|</?box>|<loc\d{4}>")
"""Special tokens that say where a box is: Qwen2-VL's, InternVL's, PaliGemma's."""


class Replying(base.Model):
    """A model that decodes with `Greedy`, or with transformers' `generate`.

    Attributes:
        network: transformers' model; its generation config names the stops.
        tokenizer: a transformers tokenizer.
    """

    network: Any
    tokenizer: Any

    @abstractmethod
    def loop(
        self,
        encoded: Encoded,
        done: Callable[[str], bool] | None = None,
        keep_logits: bool = False,
        mix: Mix | None = None,
    ) -> Greedy:
        """Greedy decoding of these prompts."""

    @abstractmethod
    def generate_raw(self, encoded: Encoded, limits: Limits, **options: Any) -> Tensor:
        """Transformers' own `generate`: ids of the replies [B, n]; options go through."""

    @abstractmethod
    def answer_ids(self, text: str) -> list[int]:
        """Ids of a reply as they follow a prompt, the end of reply included."""

    def generate(
        self,
        encoded: Encoded,
        limits: Limits,
        done: Callable[[str], bool] | None = None,
        mix: Mix | None = None,
    ) -> list[Answer]:
        """Decode one answer a row; greedy, sampling or beams as `limits` says."""
        started = time.perf_counter()
        if limits.num_beams == 1 and limits.temperature == 0:
            rows = self.greedy(encoded, limits.max_new_tokens, done, mix=mix)
        elif mix is not None:
            raise ModelError("mixing the scores of rows needs num_beams=1 and temperature=0")
        else:
            watch = Watch(min(self.stops))
            tokens = self.generate_raw(encoded, limits, logits_processor=[watch]).tolist()
            sound = watch.sound(len(tokens))
            rows = [Row(i, one, sound=sound[i]) for i, one in enumerate(tokens)]
        share = (time.perf_counter() - started) / len(rows)
        answers = [self._answer(encoded, row, share) for row in rows]
        return answers if mix is None else fail_together(answers, getattr(mix, "rows", 2))

    def greedy(
        self,
        encoded: Encoded,
        max_new_tokens: int,
        done: Callable[[str], bool] | None = None,
        keep_logits: bool = False,
        mix: Mix | None = None,
    ) -> list[Row]:
        """Greedy decoding: tokens (and logits) of every row."""
        return self.loop(encoded, done, keep_logits, mix).run(encoded, max_new_tokens)

    def score(self, encoded: Encoded, texts: Sequence[str]) -> list[Answer]:
        """Weigh one given answer a row, its end of reply included."""
        started = time.perf_counter()
        ids = [self.answer_ids(text) for text in texts]
        whys = {row: overrun(len(one), encoded.room[row]) for row, one in enumerate(ids)}
        whys = {row: why for row, why in whys.items() if why} | dict(encoded.refused)
        asked = [ids[row][-1:] if row in whys else ids[row] for row in range(len(ids))]
        found = continuation_logprobs(self.loop(encoded), encoded, asked)
        share = (time.perf_counter() - started) / len(ids)
        for row, logprobs in enumerate(found):
            if row not in whys and not math.isfinite(sum(logprobs)):
                whys[row] = self.not_finite()
        return [
            Answer("", seconds=share, error=whys[row])
            if row in whys
            else Answer(text, tuple(ids[row]), share, logprobs=found[row])
            for row, text in enumerate(texts)
        ]

    @cached_property
    def stops(self) -> frozenset[int]:
        """Ids that end a reply."""
        stop = self.network.generation_config.eos_token_id
        return frozenset(stop if isinstance(stop, list) else [stop])

    @cached_property
    def closing(self) -> frozenset[int]:
        """Ids whose text holds a bracket that may close a box."""
        pieces = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        return frozenset(
            index
            for index, piece in enumerate(pieces)
            if piece and ("]" in piece or "}" in piece or piece in _BYTE_PIECES)
        )

    @cached_property
    def _special(self) -> tuple[frozenset[int], frozenset[int]]:
        """Ids of special tokens: those that mark boxes, and the others."""
        known = self.tokenizer.added_tokens_decoder.items()
        special = {index: one.content for index, one in known if one.special}
        marks = {index for index, content in special.items() if _MARKS.fullmatch(content)}
        return frozenset(marks), frozenset(special.keys() - marks)

    def text(self, tokens: list[int]) -> str:
        """Ids of a reply as text, special tokens dropped, but for those that mark boxes.

        Without its marks Qwen2-VL's box is two points in no bracket, which nobody could read.
        """
        marks, others = self._special
        if marks.isdisjoint(tokens):
            return str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        kept = [token for token in tokens if token not in others]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False))

    def _answer(self, encoded: Encoded, row: Row, seconds: float) -> Answer:
        tokens = row.tokens
        end = next((i + 1 for i, token in enumerate(tokens) if token in self.stops), len(tokens))
        error = encoded.refused.get(row.index) or ("" if row.sound else self.not_finite())
        error = error or overrun(end, encoded.room[row.index])
        if error:
            return Answer("", seconds=seconds, error=error)
        text, logprobs = self.text(tokens[:end]).strip(), tuple(row.logprobs[:end])
        margin = min(row.margins[:end], default=None)
        return Answer(text, tuple(tokens[:end]), seconds, logprobs=logprobs, margin=margin)


def token_ids_only(
    tokens: Any, said: int | Sequence[int] | None, *, add_end: bool = False
) -> GenerationConfig:
    """A generation config of ids: sampling settings that checkpoints ship must not leak in.

    Args:
        tokens: the tokenizer; its end of sequence is the stop where the checkpoint names none.
        said: stops that the checkpoint names.
        add_end: the tokenizer's end of sequence is a stop in any case.
    """
    end, pad = tokens.eos_token_id, tokens.pad_token_id
    stops = said or end
    if add_end:
        stops = sorted(({said} if isinstance(said, int) else {*(said or ())}) | ({end} - {None}))
    return GenerationConfig(
        bos_token_id=tokens.bos_token_id,
        eos_token_id=stops,
        pad_token_id=end if pad is None else pad,
    )
