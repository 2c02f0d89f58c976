"""The same checks of a family whose visual tokens are keys of a cross-attention.

There is no oracle of it here: the tests hold a highlight against one, on tiny checkpoints.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import InstructBlipProcessor, MllamaProcessor

from cof.evaluate.family.checks import QUESTION, Checks, noise
from cof.evaluate.family.stock import asked, switched
from cof.models.instructblip import InstructBlip
from cof.models.instructblip.files import load_tokenizers
from cof.models.mllama import Mllama
from cof.regions.bias import Highlight
from cof.types import View


def checks_of(model: Any, image: Image.Image | None, tolerance: float) -> Checks:
    """Checks of a loaded model of any family that can be checked.

    Raises:
        ModelError: see `Checks.of`.
    """
    kinds: dict[Any, type[Checks]] = {InstructBlip: Asking, Mllama: Tiled}
    return kinds.get(type(model), Checks).of(model, image, tolerance)


class Across(Checks, ABC):
    """The checks of one model with a cross-attention."""

    model: Any

    @classmethod
    def of(cls, model: Any, image: Image.Image | None, tolerance: float) -> Checks:
        """As `Checks.of`, with a processor made of the model's own parts."""
        return cls(model, image or noise(), tolerance, cls.made(model))

    @classmethod
    @abstractmethod
    def made(cls, model: Any) -> Any:
        """Transformers' processor of this family."""

    @property
    def eyes(self) -> Any:
        """The model, its features those of the patches alone."""
        return Patches(self)

    @property
    def blur(self) -> float:
        """A patch hears of its own pixels."""
        return 0.0

    @abstractmethod
    def stock_inputs(self, image: Image.Image) -> dict[str, Any]:
        """What transformers' processor makes of the question about an image, unpadded."""

    @abstractmethod
    def patches(self, given: dict[str, Any]) -> int:
        """How many patches there are in what the processor makes."""

    @abstractmethod
    def tokens(self, view: View) -> Tensor:
        """All keys of an image, float [K, D]."""

    def given(self) -> dict[str, Any]:
        """One prompt as stock transformers takes it."""
        moved = {k: v.to(self.model.device) for k, v in self.stock_inputs(self.image).items()}
        return moved | {"pixel_values": moved["pixel_values"].to(self.network.dtype)}

    @torch.no_grad()
    def inactive(self) -> tuple[bool, str]:
        """Without a highlight, and the adapter's own pass under one of zeros."""
        given = self.given()
        with self.stock() as network:
            stock = network(**given).logits[0, -1]
        ours = self.network(**given).logits[0, -1]
        encoded = self.model.encode(self.model.look([self.image]), [QUESTION])
        with self.model.highlighted(Highlight(torch.zeros(1, encoded.keys))):
            [row] = self.model.greedy(encoded, 1, keep_logits=True)
        zeros = float((row.logits[0].to(stock) - stock).abs().max())
        far = float((ours - stock).abs().max())
        said = f"max |difference| {far:.1e}, with lambda 1 {zeros:.1e}"
        return torch.equal(ours, stock) and zeros <= self.tolerance, said

    def highlighted(self) -> tuple[None, str]:
        """Not here."""
        return None, "no oracle for cross-attention here (tiny checkpoints have one in the tests)"

    def counted(self) -> tuple[bool, str]:
        """On pictures of several shapes, which the model looks at."""
        wrong = []
        for size in ((64, 48), (40, 200), (31, 31), (300, 90), (97, 260)):
            picture = Image.new("RGB", size)
            ours = len(self.model.look([picture])[0].cells)
            theirs = self.patches(self.stock_inputs(picture))
            wrong += [f"{size[0]} x {size[1]}: {ours}, not {theirs}"] if ours != theirs else []
        return not wrong, "; ".join(wrong[:3]) or "as many as the processor on all sizes tried"


@dataclass(frozen=True)
class Patches:
    """Looks as a model does, its features those of the patches alone."""

    checks: Across

    def look(self, images: Sequence[Image.Image]) -> list[View]:
        """Views whose `features.tokens` are float [T, D], in the order of the cells."""
        model = self.checks.model
        views = model.look(images)
        places = model.encode(views, [""] * len(views)).visual
        return [
            replace(view, features=SimpleNamespace(tokens=self.checks.tokens(view)[where]))
            for view, where in zip(views, places, strict=True)
        ]


class Asking(Across):
    """InstructBLIP: the Q-Former looks at a square of patches."""

    @classmethod
    def made(cls, model: InstructBlip) -> Any:
        """Its tokenizers are read anew, since the processor adds a token."""
        text, asking = load_tokenizers(model.checkpoint.folder)
        return InstructBlipProcessor(model.processor, text, asking, num_query_tokens=model.queries)

    @property
    def network(self) -> Any:
        """The whole, of which the model's `network` is the language model."""
        return self.model.whole

    @contextmanager
    def stock(self) -> Iterator[Any]:
        """The Q-Former's attention too."""
        with super().stock() as network, switched(network.qformer.config, "sdpa"):
            yield network

    def stock_inputs(self, image: Image.Image) -> dict[str, Any]:
        """The prompt is what the config asks."""
        text = self.model.config.ask(QUESTION)
        return dict(self.processor(images=image, text=text, return_tensors="pt"))

    def patches(self, given: dict[str, Any]) -> int:
        """Of the square that the image is stretched to."""
        edge = self.network.config.vision_config.patch_size
        high, wide = given["pixel_values"].shape[2:]
        return int(high // edge * (wide // edge))

    def tokens(self, view: View) -> Tensor:
        """Of the vision tower."""
        return view.features  # type: ignore[no-any-return]


class Tiled(Across):
    """Llama 3.2 Vision: the decoder looks at tiles."""

    @classmethod
    def made(cls, model: Mllama) -> Any:
        """With the checkpoint's chat template."""
        return MllamaProcessor(model.processor, model.tokenizer, chat_template=model.chat.template)

    def stock_inputs(self, image: Image.Image) -> dict[str, Any]:
        """One turn of the user's, in the family's words where the checkpoint has no template."""
        if self.processor.chat_template:
            return asked(self.processor, image, QUESTION)
        text = self.model.chat.text(QUESTION)
        given = {"add_special_tokens": False, "return_tensors": "pt"}
        return dict(self.processor(images=image, text=text, **given))

    def patches(self, given: dict[str, Any]) -> int:
        """Of the tiles that the image has."""
        return int(given["aspect_ratio_mask"].sum()) * self.model.side**2  # type: ignore[no-any-return]

    def tokens(self, view: View) -> Tensor:
        """Of all tiles."""
        return view.features.states  # type: ignore[no-any-return]
