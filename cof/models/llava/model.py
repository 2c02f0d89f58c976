"""LLaVA-1.5: one adapter for the transformers layout, the original layout and cof-tiny.

Preprocessing, prompt and tokenization are the original code's, whatever the source: the image is
padded to a square before CLIP's resize, the text before and after the image is tokenized apart,
and the beginning-of-sequence token stands once. Boxes in replies are fractions of that square.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import set_seed

from cof import prompts
from cof.attention import NAME, attach, highlighted
from cof.errors import ModelError
from cof.models.base import Counters, Encoded, Limits, Mix
from cof.models.common.checkpoint import Checkpoint, find
from cof.models.common.decoding import Greedy
from cof.models.common.graphs import graphs_for
from cof.models.common.loading import load_transformers, pick_device, pick_dtype, quantized
from cof.models.common.replying import token_ids_only
from cof.models.common.saliency import saliency
from cof.models.llava.config import Config
from cof.models.llava.inputs import Inputs, read_inputs
from cof.models.llava.original import load_original
from cof.models.llava.showing import Showing
from cof.regions.bias import Highlight
from cof.regions.boxes import named_frame
from cof.regions.frame import BoxForm, Frame
from cof.types import Quad

IDENTITY = ("revision", "dtype", "quantization", "conv", "pixels", "stops")
"""Of what a LLaVA says about itself, what a greedy reply depends on."""

BOX_FORM = (
    BoxForm("[", "]"),
    BoxForm("[", "]", "[", "]", ", "),
    BoxForm('{"bbox": [', "]}"),
    BoxForm('{"bbox": [', "]}", "[", "]", ", "),
)
"""LLaVA-1.5 is trained on bare lists; asked for JSON, checkpoints name them (cof-tiny). One box is
flat, several are nested; which of the four it is, the model chooses by its own scores."""

log = logging.getLogger(__name__)


def identify(config: Config) -> dict[str, str]:
    """`weights` (a digest of the files), `dtype` and kind of `device` that `load` would give.

    Raises:
        ModelError: no such checkpoint, not LLaVA, an unknown device or dtype.
    """
    device, dtype = pick_device(config.device), pick_dtype(config.dtype, config.device)
    return {
        "weights": find(config.path).revision,
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device).partition(":")[0],
    }


def load(config: Config) -> Llava:
    """Load the model that a config names.

    Raises:
        ModelError: no such checkpoint, not LLaVA, one that would be measured as another model
            than it is, an unknown device, dtype or chat template.
    """
    checkpoint = quantized(find(config.path), config.quantization)
    device, dtype = pick_device(config.device), pick_dtype(config.dtype, config.device)
    check_conv(config.conv)
    inputs = read_inputs(checkpoint, config.conv)
    if checkpoint.layout == "original":
        network = load_original(checkpoint, dtype, device, config.device_map)
    else:
        where, quantization = config.device_map or {"": device}, config.quantization
        network = load_transformers(checkpoint, dtype, where, quantization=quantization)
    log.info("loaded %s (%s layout, %s, %s)", config.path, checkpoint.layout, device, dtype)
    return Llava(network.eval(), inputs, checkpoint, config)


def check_conv(conv: str) -> None:
    """Raise ModelError for a chat template that is unknown."""
    if conv not in prompts.SYSTEMS:
        raise ModelError(f"conv {conv!r}: there is {', '.join(sorted(prompts.SYSTEMS))}")


class Llava(Showing):
    """A loaded LLaVA.

    Attributes:
        network: transformers' LlavaForConditionalGeneration, in eval mode; with a `decoder` given
            whatever has its embeddings, `lm_head`, generation config and `generate`.
        inputs: tokenizer, image settings.
        frame: `padded_square`, or `centre_crop` for checkpoints that do not pad.
        positions: most positions that prompt and reply may take together.
    """

    box_form = BOX_FORM
    lights_words = "inputs"
    joins = True

    def __init__(
        self,
        network: Any,
        inputs: Inputs,
        checkpoint: Checkpoint,
        config: Config,
        decoder: Any = None,
    ) -> None:
        self.network, self.inputs, self.checkpoint = network, inputs, checkpoint
        self.tokenizer, self.pixels = inputs.tokenizer, inputs.pixels
        self.name, self.conv = config.path, config.conv
        self.frame = Frame("padded_square" if self.pixels.pad else "centre_crop")
        self.start_end = bool(checkpoint.config.get("mm_use_im_start_end", False))
        self.dtype = str(network.dtype).removeprefix("torch.")
        self.counters = Counters()
        self.decoder = network.model.language_model if decoder is None else decoder
        text = attach(self.decoder)
        self.layers, self.heads = text.num_hidden_layers, text.num_attention_heads
        self.positions = int(text.max_position_embeddings)
        self.tokenizer.model_max_length = sys.maxsize  # `encode` holds lengths against the model's
        said = network.generation_config.eos_token_id
        network.generation_config = token_ids_only(self.tokenizer, said)
        self.graphs = graphs_for(network, self.decoder, config.decode)

    def gradient(self, encoded: Encoded) -> Tensor:
        """How much the first token depends on each visual token, see `saliency`."""
        embeds = encoded.inputs["inputs_embeds"].clone().requires_grad_(True)
        prompt = replace(encoded, inputs={"inputs_embeds": embeds}, shared=None)
        return saliency(self.loop(prompt), prompt, embeds)[0, encoded.visual[0].cpu()]

    def highlighted(self, highlight: Highlight | None) -> AbstractContextManager[None]:
        """Highlight the decoder's attention inside the `with` block."""
        return highlighted(self.decoder, highlight)

    def answer_ids(self, text: str) -> list[int]:
        """Ids of an answer as it follows the prompt, its end included.

        As V*Bench's published script weighs: the tokens that the chat template puts behind
        `ASSISTANT:`, the end-of-sequence token among them.
        """
        return [*self.reply_ids(text), self.tokenizer.eos_token_id]

    def reply_ids(self, text: str) -> list[int]:
        """Ids of a text as it follows the prompt; tokenized behind its last word."""
        head, both = map(self.inputs.encode, ("ASSISTANT:", f"ASSISTANT: {text}"))
        return both[len(head) :]

    def embeds(self, encoded: Encoded) -> Tensor:
        """Input embeddings of the prompts, float [B, S, D], as the decoder gets them."""
        return self.loop(encoded).prompt(encoded)

    def loop(
        self,
        encoded: Encoded,
        done: Callable[[str], bool] | None = None,
        keep_logits: bool = False,
        mix: Mix | None = None,
    ) -> Greedy:
        """Greedy decoding, on the keys and values that the prompts share."""
        return Greedy(
            self.network,
            self.decoder,
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
        if limits.temperature > 0:
            set_seed(limits.seed)
            options |= {"do_sample": True, "temperature": limits.temperature, "top_k": 0}
        return self.network.generate(  # type: ignore[no-any-return]
            inputs_embeds=self.embeds(encoded),
            attention_mask=encoded.attention_mask,
            max_new_tokens=limits.max_new_tokens,
            num_beams=limits.num_beams,
            **options,
        )

    def rectangle(self, size: tuple[int, int]) -> Quad:
        """The rectangle that the model sees of an image, in fractions of it."""
        return named_frame(self.frame.name, size, self.pixels.side)

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
            "layout": self.checkpoint.layout,
            "revision": self.checkpoint.revision,
            "device": str(self.network.device),
            "dtype": self.dtype,
            "attention": f"sdpa ({NAME})",
            "conv": self.conv,
            "frame": self.frame.name,
            "decode": "eager" if self.graphs is None else "graph",
            "quantization": self.checkpoint.quantization,
            "pixels": self.pixels.to_json(),
            "chat_template": self.inputs.chat_template,
            "stops": sorted(self.stops),
        }
