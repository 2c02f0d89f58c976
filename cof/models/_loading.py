"""What loading a LLaVA needs besides its weights: device, dtype, tokenizer, image settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, LlamaTokenizer, LlavaForConditionalGeneration
from transformers.utils import logging

from cof.errors import ModelError
from cof.models._checkpoint import Checkpoint, read_json, tower_folder

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Pixels:
    """How an image becomes pixel values: side in pixels, channel statistics, padded or cropped."""

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad: bool


def load_transformers(checkpoint: Checkpoint, dtype: torch.dtype, device_map: Any) -> Any:
    """Load the transformers layout; tensors it would make up at random are an error."""
    folder, bars = checkpoint.folder, logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        loaded: Any = LlavaForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, device_map=device_map, output_loading_info=True
        )
        network, said = loaded  # the library's annotation knows the network alone
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]})") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    wrong = {kind: said[kind] for kind in ("missing_keys", "mismatched_keys") if said[kind]}
    if wrong:
        raise ModelError(f"{folder}: weights do not fit the config: {wrong}")
    return network


def pick_device(name: str) -> str:
    """`auto` is CUDA where there is one, else the CPU; `auto` and `cuda` are the current GPU.

    Its number is spelled out: safetensors, for one, takes a bare `cuda` for GPU 0. Anything else is
    passed through, checked.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    if name == "auto":
        return "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"device {name!r}: use auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ModelError(f"device {name!r}: there are {count} CUDA devices here; or use auto, cpu")
    return name


def pick_dtype(name: str, device: str) -> torch.dtype:
    """`auto` is float16 on CUDA, as published, and float32 on the CPU."""
    if name == "auto":
        return torch.float32 if pick_device(device) == "cpu" else torch.float16
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    if name not in dtype:
        raise ModelError(f"dtype {name!r}: use auto, {', '.join(dtype)}")
    return dtype[name]


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's own tokenizer.

    `AutoTokenizer` on an original LLaVA folder drops the leading-space piece, and every id that
    starts a chunk is wrong; sentencepiece files are therefore read by `LlamaTokenizer`.
    """
    folder = checkpoint.folder
    settings = folder / "tokenizer_config.json"
    kind = read_json(settings).get("tokenizer_class", "") if settings.is_file() else ""
    pieces = (folder / "tokenizer.model").is_file()
    if not pieces and not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder}: no tokenizer.model and no tokenizer.json")
    llama = pieces or str(kind).startswith("LlamaTokenizer")
    try:
        return (LlamaTokenizer if llama else AutoTokenizer).from_pretrained(folder)
    except Exception as error:  # whatever a damaged file makes the tokenizer libraries raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: the tokenizer cannot be loaded ({reason})") from error


def read_pixels(checkpoint: Checkpoint, side: int) -> Pixels:
    """Image settings: the tower's preprocessor_config.json, CLIP's statistics where it has none."""
    original = checkpoint.layout == "original"
    where = checkpoint.folder
    folder = tower_folder(where, checkpoint.config) if original else where
    file = folder / "preprocessor_config.json"
    said = read_json(file) if file.is_file() else {}
    mean, std = said.get("image_mean", CLIP_MEAN), said.get("image_std", CLIP_STD)
    pad = checkpoint.config.get("image_aspect_ratio", None if original else "pad") == "pad"
    return Pixels(side, tuple(mean), tuple(std), pad)
