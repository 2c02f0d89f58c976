"""From a config to a loaded InstructBLIP."""

from __future__ import annotations

import logging

from transformers import InstructBlipForConditionalGeneration

from cof.models.common.loading import load_transformers, pick_device
from cof.models.common.transformers_files import half, image_processor
from cof.models.instructblip.config import Config
from cof.models.instructblip.files import find, load_tokenizers
from cof.models.instructblip.model import InstructBlip

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
    checkpoint = find(config.path)
    device, dtype = pick_device(config.device), half(checkpoint, config)
    processor, tokenizers = image_processor(checkpoint.folder), load_tokenizers(checkpoint.folder)
    network = load_transformers(
        checkpoint, dtype, config.device_map or {"": device}, InstructBlipForConditionalGeneration
    ).eval()
    log.info("loaded %s (instructblip, %s, %s)", config.path, device, dtype)
    return InstructBlip(network, processor, tokenizers, checkpoint, config)
