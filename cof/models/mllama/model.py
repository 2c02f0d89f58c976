"""Llama 3.2 Vision (Mllama): tiles of an image as keys of the decoder's cross-attentions.

The image is resized into a canvas of up to four tiles, at its top left. Every tile gives a class
token and its patches; they are not in the sequence of the prompt, but keys of cross-attentions in
some layers of the decoder, where text behind the image's mark sees them. A highlight acts there, in
all of them. No request for boxes and no frame of theirs is documented: `frame` is an assumption.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import align_module_device
from PIL.Image import Image
from torch import Tensor
from transformers import set_seed

from cof.attention import NAME, attach, highlighted
from cof.errors import DataError, ModelError
from cof.models.base import Counters, Encoded, Limits, Mix
from cof.models.common.chat import Chat
from cof.models.common.chatting import Chatting
from cof.models.common.checkpoint import Checkpoint
from cof.models.common.checks import refusal
from cof.models.common.crossed import active_bias, check_whole, scaled
from cof.models.common.family import ASSUMED, FRAMES
from cof.models.common.loading import runs_on
from cof.models.common.outer import Prompts, padded
from cof.models.common.replying import token_ids_only
from cof.models.mllama.config import Config
from cof.models.mllama.crossing import Crossing, CrossingLoop, crossed
from cof.models.mllama.places import keys_of, shape
from cof.prompts import with_suffix
from cof.regions.bias import Highlight
from cof.types import View

MARK = "<|image|>"
IDENTITY = (
    "family",
    "revision",
    "dtype",
    "quantization",
    "chat_template",
    "images",
    "frame",
    "suffix",
)
"""Of what a model says about itself, what a greedy reply depends on, its stops aside."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tiles:
    """One image: what `View.features` holds.

    Attributes:
        states: float [K, D], of all tiles that there may be.
        present: how many of them the image has.
    """

    states: Tensor
    present: int


class Mllama(Chatting):
    """A loaded Llama 3.2 Vision.

    Attributes:
        network: transformers' MllamaForConditionalGeneration, in eval mode.
        decoder: its language model, the cross-attentions of which are highlighted.
        chat: questions to prompts.
        layers: cross-attentions of the decoder.
        side: patches along an edge of a tile.
        positions: most positions that prompt and reply may take together.
    """

    space = "cross"
    narrows = False

    def __init__(
        self, network: Any, processor: Any, prompts: Chat, checkpoint: Checkpoint, config: Config
    ) -> None:
        self.network, self.processor, self.chat = network, processor, prompts
        self.checkpoint, self.name, self.tokenizer = checkpoint, config.path, prompts.tokenizer
        self.frame = FRAMES[config.frame] if config.frame else ASSUMED
        self.suffix = config.suffix
        self.dtype = str(network.dtype).removeprefix("torch.")
        self.counters = Counters()
        self.decoder = network.model.language_model
        text = attach(self.decoder)
        self.layers, self.heads = len(text.cross_attention_layers), text.num_attention_heads
        if 0 in text.cross_attention_layers:
            raise ModelError(f"{self.name}: its first layer is a cross-attention")
        self.positions = int(text.max_position_embeddings)
        vision = network.config.vision_config
        self.side, self.tiles = vision.image_size // vision.patch_size, vision.max_num_tiles
        self.tokenizer.model_max_length = sys.maxsize  # `encode` holds lengths against the model's
        self.token_id = int(network.config.image_token_index)
        said = network.generation_config.eos_token_id
        network.generation_config = token_ids_only(self.tokenizer, said, add_end=True)
        self.warn_of_frame()

    def look(self, images: Sequence[Image]) -> list[View]:
        """Run the vision tower over RGB images of any sizes, one at a time.

        Raises:
            DataError: an image that has other tiles than its size asks for.
        """
        return [self._look(image) for image in images]

    @torch.inference_mode()
    def _look(self, image: Image) -> View:
        network, where = self.network, shape(image.size, self.processor, self.side)
        tower = network.model.vision_model
        device = runs_on(tower.patch_embedding)
        given = self.processor([[image]], return_tensors="pt").to(device)
        present = int(given["aspect_ratio_mask"].sum())
        if present * self.side**2 != len(where.cells):
            raise DataError(
                f"an image of {image.width} x {image.height}: {present} tiles, but "
                f"{len(where.cells)} places for patches"
            )
        with align_module_device(tower.patch_embedding, device):  # the tower asks where it is
            seen = tower(
                pixel_values=given["pixel_values"].to(network.dtype),
                aspect_ratio_ids=given["aspect_ratio_ids"],
                aspect_ratio_mask=given["aspect_ratio_mask"],
            ).last_hidden_state
        states = network.model.multi_modal_projector(seen.flatten(0, -2))
        self.counters.images += 1
        self.counters.vision_calls += 1
        return View(Tiles(states, present), where.cells, where.grid, image.size, where.shown)

    @torch.inference_mode()
    def encode(self, views: Sequence[View], questions: Sequence[str]) -> Prompts:
        """Chat prompts, padded on the left; a question that cannot be asked is left empty."""
        asked = [with_suffix(question, self.suffix) for question in questions]
        texts = ["" if MARK in question else question for question in asked]
        rows = [self.chat.ids(self.chat.text(text)) for text in texts]
        whys = {
            row: refusal(question, len(rows[row]), self.positions, MARK)
            for row, question in enumerate(questions)
        }
        refused = {row: why for row, why in whys.items() if why}
        for row in refused:
            rows[row] = self.chat.ids(self.chat.text(""))
        embed = self.network.get_input_embeddings()
        pad = self.network.generation_config.pad_token_id
        ids, mask = padded(rows, pad, self.device)
        return Prompts(
            {
                "input_ids": ids,
                "inputs_embeds": embed(ids),
                "opened": (ids == self.token_id).cummax(1).values,
            },
            mask,
            tuple(keys_of(view.features.present, self.side) for view in views),
            keys=self.tiles * (self.side**2 + 1),
            refused=refused,
            room=tuple(self.positions - len(row) for row in rows),
            views=tuple(views),
        )

    def highlighted(self, highlight: Highlight | None) -> AbstractContextManager[None]:
        """Highlight patches in every cross-attention inside the `with` block.

        Raises:
            ModelError: a highlight of some queries, layers or heads.
        """
        check_whole(self.name, highlight)
        return highlighted(self.decoder, highlight)

    def loop(
        self,
        encoded: Encoded,
        done: Callable[[str], bool] | None = None,
        keep_logits: bool = False,
        mix: Mix | None = None,
    ) -> CrossingLoop:
        """Greedy decoding of these prompts."""
        assert isinstance(encoded, Prompts)
        active_bias(self.decoder, encoded)  # it has to be of these prompts
        closing = self.closing if done else frozenset()
        given = (self.network, self._crossing(encoded), self.counters, self.stops, self.text)
        return CrossingLoop(*given, closing, done, keep_logits, mix)

    def _crossing(self, encoded: Prompts) -> Crossing:
        """The decoder, with the images of these prompts."""
        views, opened = encoded.views, encoded.inputs["opened"]
        states = torch.stack([view.features.states for view in views]).to(opened.device)
        if encoded.scale:
            states = scaled(states, encoded.scale, encoded.visual)
        counts = torch.tensor([view.features.present for view in views], device=opened.device)
        tile = torch.arange(encoded.keys, device=opened.device) // (self.side**2 + 1)
        return Crossing(self.decoder, states, tile < counts[:, None], opened)

    @torch.inference_mode()
    def generate_raw(self, encoded: Encoded, limits: Limits, **options: Any) -> Tensor:
        """Transformers' own `generate`: ids of the replies [B, n]; options go through."""
        assert isinstance(encoded, Prompts)
        if limits.temperature > 0:
            set_seed(limits.seed)
            options |= {"do_sample": True, "temperature": limits.temperature, "top_k": 0}
        eyes, ids = self._crossing(encoded), encoded.inputs["input_ids"]
        shown = eyes.opened[..., None] & eyes.present[:, None, :: self.side**2 + 1]
        with crossed(self.decoder, active_bias(self.decoder, encoded)):
            said = self.network.generate(
                input_ids=ids,
                attention_mask=encoded.attention_mask,
                cross_attention_states=eyes.states,
                cross_attention_mask=shown[:, :, None].long(),
                max_new_tokens=limits.max_new_tokens,
                num_beams=limits.num_beams,
                **options,
            )
        return said[:, ids.shape[1] :]  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """Where ids go."""
        return runs_on(self.network.get_input_embeddings())

    def identity(self) -> dict[str, Any]:
        """Everything of the model that a greedy reply depends on."""
        said = self.describe()
        return {name: said[name] for name in (*IDENTITY, "stops")}

    def describe(self) -> dict[str, Any]:
        """What the manifest records about the model."""
        return {
            "name": self.name,
            "family": self.network.config.model_type,
            "layout": self.checkpoint.layout,
            "revision": self.checkpoint.revision,
            "device": str(self.device),
            "dtype": self.dtype,
            "attention": f"sdpa ({NAME}), highlighted: cross-attention",
            "frame": self.frame.label,
            "suffix": self.suffix,
            "quantization": self.checkpoint.quantization,
            "images": json.loads(self.processor.to_json_string()),
            "chat_template": self.chat.source,
            "stops": sorted(self.stops),
        }
