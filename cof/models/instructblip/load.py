"""From a config to a loaded InstructBLIP."""

from __future__ import annotations

import logging
from typing import Any

from transformers import InstructBlipForConditionalGeneration

from cof.models.common.loaded import taken
from cof.models.common.loading import load_transformers, pick_device, quantized
from cof.models.common.transformers_files import half, image_processor
from cof.models.instructblip.config import Config
from cof.models.instructblip.files import KINDS, find, load_tokenizers
from cof.models.instructblip.model import InstructBlip

_SAME = (
    *("model_type", "num_query_tokens", "text_config.vocab_size", "text_config.hidden_size"),
    *("qformer_config.vocab_size", "vision_config.image_size", "vision_config.patch_size"),
)
"""What the config of a loaded network and that of its tokenizers' folder have to agree on."""

log = logging.getLogger(__name__)


def identify(config: Config) -> dict[str, str]:
    """`weights` (a digest of the files), `dtype` and kind of `device` that `load` would give."""
    checkpoint, device = find(config.path), pick_device(config.device)
    return {
        "weights": checkpoint.revision,
        "dtype": str(half(checkpoint, config)).removeprefix("torch."),
        "device": str(device).partition(":")[0],
    }


def load(config: Config) -> InstructBlip:
    """Load the model that a config names.

    Raises:
        ModelError: no such checkpoint, another family, a T5 inside, an unknown device or dtype,
            files that are missing or damaged.
    """
    checkpoint = quantized(find(config.path), config.quantization)
    device, dtype = pick_device(config.device), half(checkpoint, config)
    processor, tokenizers = image_processor(checkpoint.folder), load_tokenizers(checkpoint.folder)
    where, kind = config.device_map or {"": device}, InstructBlipForConditionalGeneration
    network = load_transformers(checkpoint, dtype, where, kind, config.quantization).eval()
    log.info("loaded %s (instructblip, %s, %s)", config.path, device, dtype)
    return InstructBlip(network, processor, tokenizers, checkpoint, config)


def wrap(network: Any, config: Config) -> InstructBlip:
    """Take a network that the caller has loaded.

    Raises:
        ModelError: see `cof.models.common.loaded.taken`.
    """
    parts = ("vision_model", "qformer", "language_model")
    checkpoint, config = taken(network, config, KINDS, parts, _SAME, find)
    processor, tokenizers = image_processor(checkpoint.folder), load_tokenizers(checkpoint.folder)
    return InstructBlip(network.eval(), processor, tokenizers, checkpoint, config)
