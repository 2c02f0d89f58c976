"""Any `AutoModelForImageTextToText` whose family is filled in: one adapter for all of them.

Vision once: an image's tokens are computed in `look`, one image at a time, so that they do not
depend on the company, and given to the network as `mm_encoder_outputs`. Prompts are the
checkpoint's own chat template, tokenized whole, the placeholder repeated for each visual token.
Keys and values are not shared between the prompts of an image yet: every prompt is a full pass.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, GenerationConfig, set_seed

from cof.attention import NAME, attach, highlighted
from cof.errors import DataError, ModelError
from cof.models.base import Counters, Encoded, Limits, Mix
from cof.models.common.chat import Chat, chat_template, load_tokenizer
from cof.models.common.checkpoint import Checkpoint
from cof.models.common.checks import refusal
from cof.models.common.family import FRAMES, Config, Family, Seen
from cof.models.common.loading import load_transformers, pick_device
from cof.models.common.outer import Loop, Outer, Prompts, joined, padded
from cof.models.common.replying import Replying
from cof.models.common.transformers_files import find, half, identify, image_processor
from cof.regions.bias import Highlight
from cof.regions.boxes import padded_square
from cof.types import Quad, View

IDENTITY = (
    *("family", "revision", "dtype", "quantization", "chat_template", "images"),
    *("frame", "grounding", "stops"),
)
"""Of what a model says about itself, what a greedy reply (or its request) depends on."""

__all__ = ["Transformers", "identify", "load"]

log = logging.getLogger(__name__)


def load(kind: type[Family], config: Config) -> Transformers:
    """Load the model that a config names.

    Raises:
        ModelError: no such checkpoint, another family, an unknown device or dtype, files that are
            missing or damaged, a chat template that shows no image.
    """
    checkpoint = find(config.path, kind.kinds)
    device, dtype = pick_device(config.device), half(checkpoint, config)
    folder = checkpoint.folder
    processor = image_processor(folder)
    tokenizer = load_tokenizer(folder)
    network = load_transformers(
        checkpoint, dtype, config.device_map or {"": device}, AutoModelForImageTextToText
    ).eval()
    family = kind(network.config, processor, config)
    chat = Chat(tokenizer, chat_template(folder), family.mark, family.chat)
    chat.check(folder)
    log.info("loaded %s (%s, %s, %s)", config.path, network.config.model_type, device, dtype)
    return Transformers(network, family, chat, checkpoint, config)


class Transformers(Replying):
    """A loaded model of one of the families.

    Attributes:
        network: transformers' model, in eval mode.
        decoder: its language model, the attention of which is highlighted.
        family: what its family has of its own.
        chat: questions to prompts.
        positions: most positions that prompt and reply may take together.
    """

    def __init__(
        self, network: Any, family: Family, chat: Chat, checkpoint: Checkpoint, config: Config
    ) -> None:
        self.network, self.family, self.chat = network, family, chat
        self.checkpoint, self.name = checkpoint, config.path
        self.tokenizer = chat.tokenizer
        self.frame = FRAMES[config.frame] if config.frame else family.frame
        self.grounding = family.grounding
        self.dtype = str(network.dtype).removeprefix("torch.")
        self.counters = Counters()
        self.decoder = network.get_decoder()
        text = attach(self.decoder)
        self.layers, self.heads = text.num_hidden_layers, text.num_attention_heads
        self.positions = int(text.max_position_embeddings)
        self.tokenizer.model_max_length = sys.maxsize  # `encode` holds lengths against the model's
        self.token_id = int(self.tokenizer.convert_tokens_to_ids(family.token))
        network.generation_config = self._generation_config()
        if self.frame.assumed:
            log.warning(
                "%s: how this family writes boxes, and how to ask it for them, is documented "
                "nowhere; replies are taken as fractions of the image (model.frame declares it)",
                self.name,
            )

    def _generation_config(self) -> GenerationConfig:
        """Token ids only: sampling settings that checkpoints ship must not leak in."""
        tokens = self.tokenizer
        stop = self.network.generation_config.eos_token_id or tokens.eos_token_id
        pad = tokens.pad_token_id if tokens.pad_token_id is not None else tokens.eos_token_id
        return GenerationConfig(
            bos_token_id=tokens.bos_token_id, eos_token_id=stop, pad_token_id=pad
        )

    def look(self, images: Sequence[Image]) -> list[View]:
        """Run the vision tower over RGB images of any sizes, one at a time.

        Raises:
            DataError: an image that the family cannot be shown.
        """
        return [self._look(image) for image in images]

    @torch.inference_mode()
    def _look(self, image: Image) -> View:
        family = self.family
        try:
            shape = family.shape(image.size)
        except ValueError as error:
            raise DataError(f"an image of {image.width} x {image.height}: {error}") from error
        given = family.processor(family.images(image), return_tensors="pt", **family.options()).to(
            self.network.device
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
        return View(seen, shape.cells, shape.grid, image.size, shape.shown)

    def ids(self, view: View, question: str) -> list[int]:
        """Ids of one prompt, the placeholder once for each visual token."""
        shown = self.family.image_text(view.size, len(view.features))
        return self.chat.ids(self.chat.text(question).replace(self.family.mark, shown, 1))

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
        pad = self.network.generation_config.pad_token_id
        ids, mask = padded(rows, pad, self.network.get_input_embeddings().weight.device)
        shown = ids == self.token_id
        inputs = self._inputs(ids, shown, views)
        return Prompts(
            inputs,
            mask,
            tuple(row.nonzero()[:, 0].cpu() for row in shown),
            keys=mask.shape[1],
            positions=self.family.positions(self.network, inputs, mask),
            sees=self.family.sees(shown),
            refused=refused,
            room=tuple(self.positions - len(row) for row in rows),
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

    def highlighted(self, highlight: Highlight | None) -> AbstractContextManager[None]:
        """Highlight the decoder's attention inside the `with` block."""
        return highlighted(self.decoder, highlight)

    def loop(
        self,
        encoded: Encoded,
        done: Callable[[str], bool] | None = None,
        keep_logits: bool = False,
        mix: Mix | None = None,
    ) -> Loop:
        """Greedy decoding of these prompts."""
        assert isinstance(encoded, Prompts)
        return Loop(
            self.network,
            Outer(self.network, self.decoder, self.family, encoded),
            self.counters,
            self.stops,
            self.text,
            self.closing if done else frozenset(),
            done,
            keep_logits,
            mix,
        )

    @torch.inference_mode()
    def generate_raw(self, encoded: Encoded, limits: Limits, **options: Any) -> Tensor:
        """Transformers' own `generate`: ids of the replies [B, n]; options go through."""
        assert isinstance(encoded, Prompts)
        if limits.temperature > 0:
            set_seed(limits.seed)
            options |= {"do_sample": True, "temperature": limits.temperature, "top_k": 0}
        said = self.network.generate(
            **encoded.inputs,
            attention_mask=encoded.attention_mask,
            mm_encoder_outputs=joined(self.family, encoded),
            max_new_tokens=limits.max_new_tokens,
            num_beams=limits.num_beams,
            **options,
        )
        return said[:, encoded.keys :]  # type: ignore[no-any-return]

    def answer_ids(self, text: str) -> list[int]:
        """Ids of a reply as they follow a prompt, the end of reply included."""
        end = self.tokenizer.eos_token_id
        return [*self.chat.reply_ids(text), end if end in self.stops else min(self.stops)]

    def rectangle(self, size: tuple[int, int]) -> Quad:
        """The rectangle that replies speak of, in fractions of an image of (width, height)."""
        return (
            padded_square(size) if self.frame.name == "padded_square" else super().rectangle(size)
        )

    def identity(self) -> dict[str, Any]:
        """Everything of the model that a greedy reply depends on."""
        said = self.describe()
        return {name: said[name] for name in IDENTITY}

    def describe(self) -> dict[str, Any]:
        """What the manifest records about the model."""
        return {
            "name": self.name,
            "family": self.network.config.model_type,
            "layout": self.checkpoint.layout,
            "revision": self.checkpoint.revision,
            "device": str(self.network.device),
            "dtype": self.dtype,
            "attention": f"sdpa ({NAME})",
            "frame": f"{self.frame.name} (assumed)" if self.frame.assumed else self.frame.name,
            "grounding": self.grounding,
            "quantization": self.checkpoint.quantization,
            "images": json.loads(self.family.processor.to_json_string()),
            "chat_template": self.chat.source,
            "stops": sorted(self.stops),
        }
