"""From a config, or a loaded network, to a Llama 3.2 Vision."""

from __future__ import annotations

import logging
from typing import Any

from transformers import AutoModelForImageTextToText

from cof.models.common import transformers_files
from cof.models.common.chat import Chat, chat_template, load_tokenizer
from cof.models.common.checkpoint import Checkpoint
from cof.models.common.loaded import taken
from cof.models.common.loading import load_transformers, pick_device, quantized
from cof.models.common.transformers_files import half, image_processor
from cof.models.mllama.config import Config
from cof.models.mllama.model import MARK, Mllama

KINDS = ("mllama",)

_SAME = (
    *("model_type", "text_config.vocab_size", "text_config.hidden_size"),
    *("vision_config.image_size", "vision_config.patch_size", "vision_config.max_num_tiles"),
)
"""What the config of a loaded network and that of its tokenizer's folder have to agree on."""

log = logging.getLogger(__name__)


def chat(question: str) -> str:
    """Llama 3's turns, for checkpoints without a chat template."""
    start, end = "<|start_header_id|>", "<|end_header_id|>\n\n"
    return f"<|begin_of_text|>{start}user{end}{MARK}{question}<|eot_id|>{start}assistant{end}"


def identify(config: Config) -> dict[str, str]:
    """`weights` (a digest of the files), `dtype` and kind of `device` that `load` would give."""
    return transformers_files.identify(KINDS, config)


def find(path: str) -> Checkpoint:
    """A checkpoint of this family.

    Raises:
        ModelError: see `cof.models.common.transformers_files.find`.
    """
    return transformers_files.find(path, KINDS)


def load(config: Config) -> Mllama:
    """Load the model that a config names.

    Raises:
        ModelError: no such checkpoint, another family, an unknown device or dtype, files that are
            missing or damaged, a chat template that shows no image.
    """
    checkpoint = quantized(find(config.path), config.quantization)
    device, dtype = pick_device(config.device), half(checkpoint, config)
    parts = _files(checkpoint)
    where, kind = config.device_map or {"": device}, AutoModelForImageTextToText
    network = load_transformers(checkpoint, dtype, where, kind, config.quantization).eval()
    log.info("loaded %s (mllama, %s, %s)", config.path, device, dtype)
    return Mllama(network, *parts, checkpoint, config)


def wrap(network: Any, config: Config) -> Mllama:
    """Take a network that the caller has loaded.

    Raises:
        ModelError: see `cof.models.common.loaded.taken`.
    """
    checkpoint, config = taken(network, config, KINDS, ("lm_head", "model"), _SAME, find)
    return Mllama(network.eval(), *_files(checkpoint), checkpoint, config)


def _files(checkpoint: Checkpoint) -> tuple[Any, Chat]:
    """Image processor and prompts; damaged ones are found before the weights are loaded."""
    folder = checkpoint.folder
    processor = image_processor(folder)
    prompts = Chat(load_tokenizer(folder), chat_template(folder), MARK, chat)
    prompts.check(folder)
    return processor, prompts
