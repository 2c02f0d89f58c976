"""What a checkpoint may hold that makes its numbers those of another model: refused by name.

Everything here is decided from small files, before any weight is read.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaConfig

from cof.errors import ModelError
from cof.models.common.checkpoint import Checkpoint, read_json
from cof.models.common.shards import read_bin, tensors

_ADAPTERS = ("adapter_config.json", "adapter_model.*", "non_lora_trainables.bin")
_PROJECTOR = re.compile(r"(?:mm_projector\.|multi_modal_projector\.linear_)([012])\.(\w+)$")
_LIBRARIES = {
    "bitsandbytes": ("bitsandbytes",),
    "awq": ("gptqmodel",),
    "gptq": ("optimum", "gptqmodel"),
}
"""Quantisation method -> what transformers 5 loads it with."""
_CLASS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""Vision tower -> features it gives besides one a patch."""
_ROUNDING = 2.0**-7  # of bfloat16, in which projectors are saved beside float16 weights


def refuse(checkpoint: Checkpoint, config: LlavaConfig) -> None:
    """Refuse what would be ignored here but not elsewhere, or cannot work.

    Args:
        checkpoint: either layout.
        config: the same as transformers' config.

    Raises:
        ModelError: one line that names the file or key and says what to do.
    """
    _choices(checkpoint)
    for folder in checkpoint.folders:
        _adapters(folder)
    _quantized(checkpoint)
    _aspect(checkpoint)
    _grid(checkpoint.folder, config)
    _projector(checkpoint.folder)


def _choices(checkpoint: Checkpoint) -> None:
    """Keys by which transformers goes on to another file than the one that was hashed."""
    folder = checkpoint.folder
    chosen = (
        ("config.json", "configuration_files"),
        ("config.json", "transformers_weights"),
        ("tokenizer_config.json", "fast_tokenizer_files"),
    )
    for name, key in chosen:
        file = folder / name
        said = read_json(file).get(key) if file.is_file() else None
        if said:
            raise ModelError(
                f"{file}: {key} {said!r} lets transformers pick other files than the standard "
                "ones; remove the key and keep one file under its standard name"
            )


def _adapters(folder: Path) -> None:
    found = sorted(file for pattern in _ADAPTERS for file in folder.glob(pattern))
    if found:
        raise ModelError(
            f"{found[0]}: an adapter beside the weights, which some loaders apply and others do "
            "not; merge the LoRA into the weights first (peft's merge_and_unload, LLaVA's "
            "scripts/merge_lora_weights.py), or move the file away to measure the weights without"
        )


def _projector(folder: Path) -> None:
    """A projector file is no harm where the full weights hold the same."""
    file = folder / "mm_projector.bin"
    if not file.is_file():
        return
    full = tensors(folder, lambda name: _PROJECTOR.search(name) is not None)
    inside = {_layer(name): value for name, value in full}
    for name, value in read_bin(file):
        known = inside.get(_layer(name))
        if known is None or not _equal(known, value):
            raise ModelError(
                f"{file}: its {name} is not that of the full weights, which are what is loaded; "
                "write it into the weights (LLaVA's builder does so for a base model), or move "
                "the file away"
            )


def _layer(name: str) -> str:
    """A projector tensor's name in either layout (layers 0 and 2, or 1 and 2): `0.weight`."""
    found = _PROJECTOR.search(name)
    return f"{found[1].replace('1', '0')}.{found[2]}" if found else name


def _equal(left: Tensor, right: Tensor) -> bool:
    same = left.shape == right.shape
    return same and torch.allclose(left.float(), right.float(), rtol=_ROUNDING, atol=1e-6)


def _quantized(checkpoint: Checkpoint) -> None:
    method, file = checkpoint.quantization, checkpoint.folder / "config.json"
    if method is None:
        return
    if checkpoint.layout == "original":
        raise ModelError(
            f"{file}: weights quantised with {method} in the original layout; use the unquantised "
            "weights, or a quantised checkpoint of transformers' layout (llava-hf)"
        )
    missing = [name for name in _LIBRARIES.get(method, ()) if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"{file}: weights quantised with {method} need {' and '.join(missing)}, not installed "
            f"here; pip install {' '.join(missing)}, or use the unquantised weights"
        )


def _aspect(checkpoint: Checkpoint) -> None:
    said = checkpoint.config.get("image_aspect_ratio")
    if said not in (None, "pad", "square"):
        raise ModelError(
            f"{checkpoint.folder / 'config.json'}: image_aspect_ratio {said!r}; only 'pad' and "
            "'square' are supported (a model trained on tiles sees another image otherwise)"
        )


def _grid(folder: Path, config: LlavaConfig) -> None:
    """The features must be one for each cell of the grid that masks are made for."""
    file = folder / "config.json"
    vision: Any = config.vision_config
    kind, strategy = vision.model_type, config.vision_feature_select_strategy
    if kind not in _CLASS_TOKENS:
        known = ", ".join(sorted(_CLASS_TOKENS))
        raise ModelError(f"{file}: vision tower {kind!r}; supported are {known}")
    side, patch = vision.image_size, vision.patch_size
    if not (isinstance(side, int) and isinstance(patch, int) and 0 < patch <= side):
        raise ModelError(
            f"{file}: image_size {side!r} and patch_size {patch!r}; expected two whole numbers, "
            "the second not above the first"
        )
    cells = (side // patch) ** 2
    features = cells + _CLASS_TOKENS[kind] - (strategy == "default")
    if features != cells:
        right = "default" if _CLASS_TOKENS[kind] else "full"
        raise ModelError(
            f"{file}: vision_feature_select_strategy {strategy!r} gives {features} features of "
            f"{kind} for {cells} patches; this code needs one a patch, which is {right!r}"
        )
