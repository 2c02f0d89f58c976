"""A family's checkpoint on disk: found and identified, its dtype, its image settings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor

from cof.errors import ModelError
from cof.models.base import Config
from cof.models.common.checkpoint import Checkpoint, digest, hint, locate, read_json
from cof.models.common.loading import pick_device, pick_dtype

FILES = ("*.json", "*.model", "*.txt", "*.jinja", "*.safetensors", "pytorch_model*.bin")


def find(path: str, kinds: Sequence[str]) -> Checkpoint:
    """A checkpoint of transformers' layout.

    Raises:
        ModelError: nothing is there, it cannot be downloaded, or it is of none of the `kinds`.
    """
    if not path:
        raise ModelError(f"model.path: name a folder or a hub name of {' or '.join(kinds)}")
    folder = locate(path, FILES)
    config = read_json(folder / "config.json")
    if config.get("model_type") not in kinds:
        raise ModelError(
            f"{folder}: model_type {config.get('model_type')!r}; "
            f"{hint(config.get('model_type'))}this family is of {', '.join(kinds)}"
        )
    seen = hashlib.sha256(digest(folder).encode())
    for file in sorted(folder.glob("chat_template*")):
        seen.update(file.read_bytes())
    return Checkpoint(folder, "transformers", config, f"sha256:{seen.hexdigest()[:16]}")


def identify(kinds: Sequence[str], config: Config) -> dict[str, str]:
    """`weights` (a digest of the files), `dtype` and kind of `device` that `load` would give."""
    checkpoint, device = find(config.path, kinds), pick_device(config.device)
    return {
        "weights": checkpoint.revision,
        "dtype": str(half(checkpoint, config)).removeprefix("torch."),
        "device": str(device).partition(":")[0],
    }


def half(checkpoint: Checkpoint, config: Config) -> torch.dtype:
    """What a config's dtype comes down to; `auto` on CUDA is the checkpoint's own, or bfloat16."""
    if config.dtype != "auto" or pick_device(config.device) == "cpu":
        return pick_dtype(config.dtype, config.device)
    said = [checkpoint.config.get(key) for key in ("dtype", "torch_dtype")]
    return torch.float16 if "float16" in said else torch.bfloat16


def image_processor(folder: Path) -> Any:
    """Transformers' image processor on Pillow, the same with and without torchvision.

    Raises:
        ModelError: its settings are missing or damaged.
    """
    try:
        return AutoImageProcessor.from_pretrained(folder, backend="pil")
    except Exception as error:  # whatever a damaged file makes transformers raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: no usable image settings ({reason})") from error
