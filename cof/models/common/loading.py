"""Load the transformers layout; names of devices and dtypes."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from transformers import LlavaForConditionalGeneration
from transformers.utils import logging

from cof.errors import ModelError
from cof.models.common.checkpoint import Checkpoint


def load_transformers(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device_map: Any,
    kind: Any = LlavaForConditionalGeneration,
) -> Any:
    """Load the transformers layout; tensors it would make up at random are an error.

    Args:
        checkpoint: of transformers' layout.
        dtype: of the weights.
        device_map: where they go.
        kind: transformers' class of the network, or an auto class.
    """
    folder, bars = checkpoint.folder, logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        loaded: Any = kind.from_pretrained(
            folder, dtype=dtype, device_map=device_map, output_loading_info=True
        )
        network, said = loaded  # the library's annotation knows the network alone
    except (OSError, RuntimeError, ValueError, ImportError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]})") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    wrong = {kind: said[kind] for kind in ("missing_keys", "mismatched_keys") if said[kind]}
    if wrong:
        raise ModelError(f"{folder}: weights do not fit the config: {wrong}")
    return network


def runs_on(module: Any) -> torch.device:
    """Where a module with a `weight` computes; weights that are offloaded say `meta`."""
    hook = getattr(module, "_hf_hook", None)
    where = getattr(hook, "execution_device", None)
    return module.weight.device if where is None else torch.device(where)  # type: ignore[no-any-return]


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
