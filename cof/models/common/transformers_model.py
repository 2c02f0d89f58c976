"""Any `AutoModelForImageTextToText` whose family is filled in: one adapter for all of them.

Vision once, and keys and values of an image once (`common/encoding.py`, `common/opening.py`). Where
attention slides in windows (Gemma 3), these count padding: there the questions of a batch share if
they are equally long.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, set_seed

from cof.attention import NAME, attach, highlighted
from cof.models.base import Counters, Encoded, Limits, Mix
from cof.models.common.chat import Chat, chat_template, load_tokenizer
from cof.models.common.checkpoint import Checkpoint
from cof.models.common.encoding import Encoding
from cof.models.common.family import FRAMES, Config, Family
from cof.models.common.graphs import graphs_for, window_of
from cof.models.common.loaded import taken
from cof.models.common.loading import load_transformers, pick_device, quantized
from cof.models.common.outer import Loop, Outer, Prompts, joined
from cof.models.common.replying import token_ids_only
from cof.models.common.saliency import saliency
from cof.models.common.transformers_files import find, half, identify, image_processor
from cof.models.common.words import chat_offsets, places
from cof.prompts import Span, with_suffix
from cof.regions.bias import Highlight

IDENTITY = (
    *("family", "revision", "dtype", "quantization", "chat_template", "images"),
    *("frame", "grounding", "suffix", "stops"),
)
"""Of what a model says about itself, what a greedy reply (or its request) depends on."""

_SAME = (
    *("model_type", "text_config.vocab_size", "text_config.hidden_size", "image_grid_pinpoints"),
    *("vision_config.image_size", "vision_config.patch_size", "vision_config.spatial_merge_size"),
    *("mm_tokens_per_image", "downsample_ratio", "scale_factor", "vision_aspect_ratio"),
)
"""What the config of a loaded network and that of its tokenizer's folder have to agree on."""

__all__ = ["Transformers", "identify", "load", "wrap"]

log = logging.getLogger(__name__)


def load(kind: type[Family], config: Config) -> Transformers:
    """Load the model that a config names.

    Raises:
        ModelError: no such checkpoint, another family, an unknown device or dtype, files that are
            missing or damaged, a chat template that shows no image.
    """
    checkpoint = quantized(find(config.path, kind.kinds), config.quantization)
    device, dtype = pick_device(config.device), half(checkpoint, config)
    parts = _files(checkpoint)
    where, quantization = config.device_map or {"": device}, config.quantization
    network = load_transformers(checkpoint, dtype, where, AutoModelForImageTextToText, quantization)
    log.info("loaded %s (%s, %s, %s)", config.path, network.config.model_type, device, dtype)
    return _assembled(kind, network, parts, checkpoint, config)


def wrap(kind: type[Family], network: Any, config: Config) -> Transformers:
    """Take a loaded network; tokenizer and image settings are those of `config.path`.

    The network is put into eval mode, its decoder's attention is replaced (`cof.attention.attach`)
    and so is its generation config, as `load` does with a network of its own.

    Args:
        kind: its family.
        network: transformers' `...ForConditionalGeneration`, adapters merged.
        config: `path` "" is where transformers loaded the network from; device, dtype, device_map
            and quantization are the network's own business.

    Raises:
        ModelError: something else, no path, or a path that speaks of another network.
    """
    kinds, parts = kind.kinds, ("lm_head", "model")
    checkpoint, config = taken(network, config, kinds, parts, _SAME, lambda path: find(path, kinds))
    return _assembled(kind, network, _files(checkpoint), checkpoint, config)


def _files(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """Image processor and tokenizer; damaged ones are found before the weights are loaded."""
    return image_processor(checkpoint.folder), load_tokenizer(checkpoint.folder)


def _assembled(
    kind: type[Family], network: Any, parts: tuple[Any, Any], checkpoint: Checkpoint, config: Config
) -> Transformers:
    processor, tokenizer = parts
    family = kind(network.config, processor, config)
    chat = Chat(tokenizer, chat_template(checkpoint.folder), family.mark, family.chat)
    chat.check(checkpoint.folder)
    return Transformers(network.eval(), family, chat, checkpoint, config)


class Transformers(Encoding):
    """A loaded model of one of the families.

    Attributes:
        network: transformers' model, in eval mode.
        decoder: its language model, the attention of which is highlighted.
        family: what its family has of its own.
        chat: questions to prompts.
        positions: most positions that prompt and reply may take together.
    """

    lights_words = "keys"

    def __init__(
        self, network: Any, family: Family, chat: Chat, checkpoint: Checkpoint, config: Config
    ) -> None:
        self.network, self.family, self.chat = network, family, chat
        self.checkpoint, self.name = checkpoint, config.path
        self.tokenizer = chat.tokenizer
        self.frame = FRAMES[config.frame] if config.frame else family.frame
        self.grounding, self.suffix = family.grounding, config.suffix
        self.dtype = str(network.dtype).removeprefix("torch.")
        self.counters = Counters()
        self.decoder = network.get_decoder()
        text = attach(self.decoder)
        self.layers, self.heads = text.num_hidden_layers, text.num_attention_heads
        self.positions = int(text.max_position_embeddings)
        self.tokenizer.model_max_length = sys.maxsize  # `encode` holds lengths against the model's
        self.token_id = int(self.tokenizer.convert_tokens_to_ids(family.token))
        said = network.generation_config.eos_token_id
        network.generation_config = token_ids_only(self.tokenizer, said)
        self.graphs = graphs_for(network, self.decoder, config.decode)
        self.windows = window_of(text) is not None
        if self.windows:
            log.info("%s: questions of a batch share an image if equally long", self.name)
        self.warn_of_frame()

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
            self.graphs,
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

    def words(
        self, encoded: Encoded, questions: Sequence[str], spans: Sequence[Sequence[Span]]
    ) -> list[Tensor]:
        """Positions of the tokens that hold some characters of the questions, per row int64 [n]."""
        assert isinstance(encoded, Prompts)
        begins, offsets, kept = [], [], []
        for view, asked, wanted in zip(encoded.views, questions, spans, strict=True):
            question = self._safe(asked)
            said = with_suffix(question, self.suffix)
            begin, some = chat_offsets(self.tokenizer, self.asked(view, question), said)
            begins.append(begin)
            offsets.append(some)
            kept.append([one for one in wanted if said[slice(*one)] == question[slice(*one)]])
        return places(encoded, begins, offsets, kept)

    def gradient(self, encoded: Encoded) -> Tensor:
        """How much the first token depends on each visual token, see `saliency`."""
        assert isinstance(encoded, Prompts)
        [view] = encoded.views
        tokens = view.features.tokens.clone().requires_grad_(True)
        seen = replace(view, features=replace(view.features, tokens=tokens))
        prompt = replace(encoded, views=(seen,), shared=None)
        return saliency(self.loop(prompt), prompt, tokens)

    def identity(self) -> dict[str, Any]:
        """Everything of the model that a greedy reply depends on.

        In half precision that is the way of decoding too: another one's kernels round differently.
        """
        said = self.describe()
        rounds = self.graphs is not None and self.dtype != "float32"
        return {name: said[name] for name in (*IDENTITY, *(["decode"] if rounds else []))}

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
            "frame": self.frame.label,
            "grounding": self.grounding,
            "suffix": self.suffix,
            "decode": "eager" if self.graphs is None else "graph",
            "quantization": self.checkpoint.quantization,
            "images": json.loads(self.family.processor.to_json_string()),
            "chat_template": self.chat.source,
            "stops": sorted(self.stops),
        }
