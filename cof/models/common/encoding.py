"""Images to visual tokens, questions to prompts: the half of a family's adapter before decoding.

An image's tokens are computed in `look`, one image at a time, so that they do not depend on the
company. Prompts are the checkpoint's own chat template, tokenized whole, the placeholder repeated
for each visual token; see `cof.models.common.opening` for what prompts about one image share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import Cache

from cof.attention import highlighted
from cof.errors import DataError, ModelError
from cof.models.base import Counters
from cof.models.common.chatting import Chatting
from cof.models.common.checks import refusal
from cof.models.common.decoding import positions
from cof.models.common.family import Family, Seen, Shape
from cof.models.common.kv_cache import forward, roomy
from cof.models.common.loading import runs_on
from cof.models.common.opening import Opening, Side
from cof.models.common.outer import Prompts, padded
from cof.prompts import with_suffix
from cof.types import View


class Encoding(Chatting):
    """A model that is shown images and asked questions as its family writes them.

    Attributes:
        family: what its family has of its own.
        decoder: its language model.
        counters: what it has computed so far.
        positions: most positions that prompt and reply may take together.
        token_id: of the placeholder.
        windows: some layers see a window of the positions, and count padding.
        suffix: see `cof.models.common.family.Config`.
    """

    family: Family
    decoder: Any
    counters: Counters
    positions: int
    token_id: int
    windows: bool
    suffix: str | None

    def prepare(self, image: Image) -> Shape:
        """Where an image's visual tokens will be.

        Raises:
            DataError: an image that the family cannot be shown.
        """
        try:
            return self.family.shape(image.size)
        except ValueError as error:
            raise DataError(
                f"an image of {image.width} x {image.height} cannot be shown to this model: {error}"
            ) from error

    def look(self, images: Sequence[Image], prepared: Sequence[Shape] | None = None) -> list[View]:
        """Run the vision tower over RGB images of any sizes, one at a time.

        Raises:
            DataError: an image that the family cannot be shown.
        """
        shapes = map(self.prepare, images) if prepared is None else prepared
        return [self._look(image, shape) for image, shape in zip(images, shapes, strict=True)]

    @torch.inference_mode()
    def _look(self, image: Image, shape: Shape) -> View:
        family = self.family
        given = family.processor(family.images(image), return_tensors="pt", **family.options()).to(
            self.device
        )
        wanted = {name: given[name] for name in family.features}
        wanted["pixel_values"] = wanted["pixel_values"].to(self.network.dtype)
        output = self.network.model.get_image_features(**wanted, return_dict=True)
        tokens, deep = family.split(output)
        self.counters.images += 1
        self.counters.vision_calls += 1
        if len(tokens) != len(shape.cells):
            raise ModelError(
                f"{self.name}: {len(tokens)} visual tokens of an image of {image.size}, "
                f"but {len(shape.cells)} places for them; are its image settings its own?"
            )
        seen = Seen(tokens, deep, {name: given[name] for name in family.kept})
        return self._opened(View(seen, shape.cells, shape.grid, image.size, shape.shown))

    def _opened(self, view: View) -> View:
        """The view, with what every prompt about it begins with."""
        ids = self.ids(view, "")
        begin = ids[: len(ids) - ids[::-1].index(self.token_id)]
        return replace(view, shared=Opening(begin, partial(self._begin, view, begin)))

    @torch.inference_mode()
    def _begin(self, view: View, ids: Sequence[int]) -> Cache:
        """Keys and values of a prompt's beginning."""
        encoded = self._prompts([view], *padded([ids], 0, self.device))
        loop, cache = self.loop(encoded), roomy(self.decoder, len(ids))
        with highlighted(self.decoder, None):
            forward(
                loop.decoder,
                self.counters,
                cache,
                inputs_embeds=loop.prompt(encoded),
                attention_mask=encoded.attention_mask,
                position_ids=positions(encoded),
            )
        return cache

    def ids(self, view: View, question: str) -> list[int]:
        """Ids of one prompt, the placeholder once for each visual token."""
        return self.chat.ids(self.asked(view, question))

    def asked(self, view: View, question: str) -> str:
        """The text of one prompt, the placeholder once for each visual token."""
        shown = self.family.image_text(view.size, len(view.features))
        text = self.chat.text(with_suffix(question, self.suffix))
        return text.replace(self.family.mark, shown, 1)

    @torch.inference_mode()
    def encode(self, views: Sequence[View], questions: Sequence[str]) -> Prompts:
        """Chat prompts, padded on the left; a question that cannot be asked is left empty."""
        pairs = list(zip(views, questions, strict=True))
        rows = [self.ids(view, self._safe(question)) for view, question in pairs]
        whys = {
            row: self._refusal(question, len(ids))
            for row, (question, ids) in enumerate(zip(questions, rows, strict=True))
        }
        refused = {row: why for row, why in whys.items() if why}
        for row in refused:
            rows[row] = self.ids(views[row], "")
        ids, mask, shared = self._laid_out(views, rows)
        return replace(
            self._prompts(views, ids, mask),
            shared=shared,
            refused=refused,
            room=tuple(self.positions - len(row) for row in rows),
        )

    def _laid_out(
        self, views: Sequence[View], rows: Sequence[list[int]]
    ) -> tuple[Tensor, Tensor, Side | None]:
        """Ids and mask [B, S], and the openings where the rows can begin with theirs."""
        pad = self.network.generation_config.pad_token_id
        openings = tuple(view.shared for view in views)
        if any(one is None for one in openings) or not self._open(openings, rows):
            return *padded(rows, pad, self.device), None
        heads = padded([one.ids for one in openings], pad, self.device)
        pairs = zip(openings, rows, strict=True)
        tails = padded([row[len(one.ids) :] for one, row in pairs], pad, self.device)
        ids, mask = (torch.cat(both, dim=1) for both in zip(heads, tails, strict=True))
        whole = self.family.sees(ids == self.token_id) is not None
        return ids, mask, Side(self.decoder, openings, whole)

    def _open(self, openings: Sequence[Opening], rows: Sequence[list[int]]) -> bool:
        """Whether the rows begin with their images' openings, and padding behind does no harm."""
        pairs = list(zip(openings, rows, strict=True))
        if any(tuple(row[: len(one.ids)]) != one.ids for one, row in pairs):
            return False
        return not self.windows or len({len(row) - len(one.ids) for one, row in pairs}) == 1

    def _prompts(self, views: Sequence[View], ids: Tensor, mask: Tensor) -> Prompts:
        shown = ids == self.token_id
        inputs = self._inputs(ids, shown, views)
        return Prompts(
            inputs,
            mask,
            tuple(row.nonzero()[:, 0].cpu() for row in shown),
            keys=mask.shape[1],
            positions=self.family.positions(self.network, inputs, mask),
            sees=self.family.sees(shown),
            views=tuple(views),
        )

    def _inputs(self, ids: Tensor, shown: Tensor, views: Sequence[View]) -> Mapping[str, Tensor]:
        kept = {
            name: torch.cat([view.features.extras[name] for view in views]).to(ids.device)
            for name in self.family.kept
        }
        types = {self.family.types: shown.to(ids.dtype)} if self.family.types else {}
        return {"input_ids": ids, **types, **kept}

    def _safe(self, question: str) -> str:
        """The question, nothing where it holds what stands for an image."""
        return "" if self._refusal(question, 0) else question

    def _refusal(self, question: str, length: int) -> str:
        for mark in (self.family.mark, self.family.token):
            why = refusal(question, length, self.positions, mark)
            if why:
                return why
        return ""

    @property
    def device(self) -> torch.device:
        """Where ids go."""
        return runs_on(self.network.get_input_embeddings())
