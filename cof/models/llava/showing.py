"""Images to visual tokens, questions to prompts: the half of LLaVA's adapter before decoding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from cof import prompts
from cof.errors import ModelError
from cof.images import frame_bytes, normalised
from cof.models.base import Counters, Encoded
from cof.models.common.boxing import Boxing
from cof.models.common.checks import refusal
from cof.models.common.feeding import side_by_side, stacked
from cof.models.common.kv_cache import Prefix, Start, together
from cof.models.common.words import places
from cof.models.llava.inputs import Inputs
from cof.models.llava.pixels import Pixels
from cof.regions.mask import cells_of_part, grid_cells
from cof.types import Box, View

Chunks = tuple[list[int], list[int]]
"""Ids before the image and after it."""


class Showing(Boxing):
    """A LLaVA that is shown images and asked questions.

    Attributes:
        inputs: tokenizer, image settings.
        pixels: the image settings.
        decoder: its language model.
        conv: name of the chat template.
        start_end: whether tokens stand around the image.
        positions: most positions that prompt and reply may take together.
    """

    inputs: Inputs
    pixels: Pixels
    decoder: Any
    conv: str
    start_end: bool
    positions: int
    counters: Counters

    def prepare(self, image: Image) -> Tensor:
        """The image at the tower's size, uint8 [side, side, 3]."""
        return frame_bytes(image, self.pixels.side, self.pixels.mean, pad=self.pixels.pad)

    @torch.inference_mode()
    def look(self, images: Sequence[Image], prepared: Sequence[Tensor] | None = None) -> list[View]:
        """Run the vision tower and projector once over RGB images of any sizes."""
        frames = side_by_side(self.prepare, images) if prepared is None else prepared
        features = self.features(frames)
        self.counters.images += len(images)
        self.counters.vision_calls += 1
        return self._views(features, images)

    def features(self, frames: Sequence[Tensor]) -> Tensor:
        """Visual tokens of what `prepare` made of B images, float [B, T, D]."""
        tower = self.network.model.vision_tower
        pixels = normalised(stacked(frames, tower.device), self.pixels.mean, self.pixels.std)
        found = self.network.get_image_features(pixel_values=pixels.to(tower.dtype))
        return torch.stack(list(found.pooler_output))

    def _views(self, features: Tensor, images: Sequence[Image]) -> list[View]:
        """Views of the images, which share the keys and values of their prompts' beginnings."""
        pixels, side = self.pixels.side, math.isqrt(features.shape[1])
        before = self.token_ids("")[0]
        opening = self._embed(before).expand(len(images), -1, -1)
        start = torch.cat([opening, features.to(opening)], dim=1)
        prefix = Prefix(self.decoder, start, tuple(before), self.counters)
        return [
            View(
                feature,
                grid_cells((side, side), self.rectangle(image.size)),
                (side, side),
                image.size,
                (pixels, pixels),
                Start(((prefix, row),)),
            )
            for row, (feature, image) in enumerate(zip(features, images, strict=True))
        ]

    def token_ids(self, question: str) -> Chunks:
        """Ids before and after the image, the two chunks tokenized apart, BOS once."""
        before, after = prompts.around_image(question, self.conv, self.start_end)
        opening = [self.tokenizer.bos_token_id, *self.inputs.encode(before)]
        return opening, self.inputs.encode(after)

    def _embed(self, ids: Sequence[int]) -> Tensor:
        embed = self.network.get_input_embeddings()
        return embed(torch.tensor(ids, device=embed.weight.device))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def encode(self, views: Sequence[View], questions: Sequence[str]) -> Encoded:
        """Chat prompts with the images' features in place.

        Rows are padded between the image and the question, so that the prompt starts (system
        prompt and image) that rows of equal images share stay aligned. A
        question that cannot be asked is left empty: it must not make the others' padding long.
        """
        ids = [self.token_ids(question) for question in questions]
        refused = self._refused(views, questions, ids)
        ids = [self.token_ids("") if row in refused else pair for row, pair in enumerate(ids)]
        longest = max(
            len(view.features) + len(after) for view, (_, after) in zip(views, ids, strict=True)
        )
        rows = [self._row(view, *pair, longest) for view, pair in zip(views, ids, strict=True)]
        embeds, mask = (torch.stack(parts) for parts in zip(*rows, strict=True))
        begin = len(ids[0][0])
        visual = tuple(torch.arange(begin, begin + len(view.features)) for view in views)
        return Encoded(
            {"inputs_embeds": embeds},
            mask,
            visual,
            keys=mask.shape[1],
            shared=together([view.shared for view in views], ids[0][0]),
            refused=refused,
            room=tuple(self.positions - _length(*pair) for pair in zip(views, ids, strict=True)),
        )

    def _refused(
        self, views: Sequence[View], questions: Sequence[str], ids: Sequence[Chunks]
    ) -> dict[int, str]:
        """Rows that cannot be asked, and why."""
        rows = enumerate(zip(views, questions, ids, strict=True))
        whys = {
            row: refusal(question, _length(view, pair), self.positions)
            for row, (view, question, pair) in rows
        }
        return {row: why for row, why in whys.items() if why}

    def _row(
        self, view: View, before: list[int], after: list[int], longest: int
    ) -> tuple[Tensor, Tensor]:
        """Embeddings [S, D] and mask [S] of a prompt, image and question padded to `longest`."""
        text = self._embed([*before, *after])
        opening, question = text[: len(before)], text[len(before) :]
        padding = text.new_zeros(longest - len(view.features) - len(after), text.shape[1])
        row = torch.cat([opening, view.features.to(text), padding, question])
        mask = torch.ones(len(row), dtype=torch.long, device=row.device)
        mask[len(row) - len(after) - len(padding) : len(row) - len(after)] = 0
        return row, mask

    def words(
        self,
        encoded: Encoded,
        questions: Sequence[str],
        spans: Sequence[Sequence[prompts.Span]],
    ) -> list[Tensor]:
        """Positions of the tokens that hold some characters of the questions, per row int64 [n]."""
        texts = [prompts.around_image(one, self.conv, self.start_end)[1] for one in questions]
        for text, question in zip(texts, questions, strict=True):
            if self.inputs.encode(text) != self.token_ids(question)[1]:
                raise ModelError(f"{self.name}: its prompt of {question!r} is not {text!r}")
        begins = [text.index("\n") + 1 for text in texts]
        return places(encoded, begins, [self.inputs.offsets(text) for text in texts], spans)

    def join(self, whole: View, part: View, window: Box) -> View:
        """Both images' tokens behind each other, nothing between them, in the image's place.

        LLaVA-1.5 was trained on one image a prompt; ViCrop (arXiv 2502.17422) asks it so. The
        prompt begins with the whole image, whose keys and values are shared as ever.
        """
        return View(
            torch.cat([whole.features, part.features.to(whole.features)]),
            torch.cat([whole.cells, cells_of_part(part.cells, window).to(whole.cells)]),
            None,
            whole.size,
            whole.shown,
            whole.shared,
        )


def _length(view: View, ids: Chunks) -> int:
    """Positions of a prompt without padding."""
    return len(view.features) + sum(map(len, ids))
