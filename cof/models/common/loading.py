"""Load the transformers layout; names of devices and dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import LlavaForConditionalGeneration
from transformers.utils import logging

from cof.errors import ModelError
from cof.models.common.checkpoint import Checkpoint

Quantization = Literal["bnb4", "bnb8"]
"""How weights are quantised while they are loaded: by bitsandbytes, to 4 bits (NF4) or 8."""


@contextmanager
def without_bars() -> Iterator[None]:
    """Transformers draws no bars of its own inside; in a log they are one endless line."""
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


def load_transformers(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device_map: Any,
    kind: Any = LlavaForConditionalGeneration,
    quantization: Quantization | None = None,
) -> Any:
    """Load the transformers layout; tensors it would make up at random are an error.

    Args:
        checkpoint: of transformers' layout.
        dtype: of the weights.
        device_map: where they go.
        kind: transformers' class of the network, or an auto class.
        quantization: None leaves the weights as they are.
    """
    more = {} if quantization is None else _quantizing(quantization, dtype)
    folder = checkpoint.folder
    try:
        with without_bars():
            loaded: Any = kind.from_pretrained(
                folder, dtype=dtype, device_map=device_map, output_loading_info=True, **more
            )
        network, said = loaded  # the library's annotation knows the network alone
    except (OSError, RuntimeError, ValueError, ImportError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]})") from error
    wrong = {kind: said[kind] for kind in ("missing_keys", "mismatched_keys") if said[kind]}
    if wrong:
        raise ModelError(f"{folder}: weights do not fit the config: {wrong}")
    return network


def _quantizing(quantization: Quantization, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` is told of it."""
    from transformers import BitsAndBytesConfig

    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    how = {"load_in_8bit": True} if quantization == "bnb8" else {"load_in_4bit": True, **four}
    return {"quantization_config": BitsAndBytesConfig(**how)}


def quantized(checkpoint: Checkpoint, quantization: Quantization | None) -> Checkpoint:
    """The checkpoint as it will be loaded: its replies are those of quantised weights.

    Raises:
        ModelError: it cannot be quantised, or not here.
    """
    if quantization is None:
        return checkpoint
    asked, already = f"model.quantization: {quantization}", checkpoint.quantization
    if already:
        raise ModelError(f"{asked}: {checkpoint.folder} is quantised already ({already})")
    if checkpoint.layout == "original":
        raise ModelError(
            f"{asked}: {checkpoint.folder} is in the original layout, which is loaded as it is; "
            "use transformers' layout (llava-hf)"
        )
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"{asked} needs bitsandbytes, which is not installed here; pip install bitsandbytes, "
            "or leave it out"
        )
    told = {"quantization_config": {"quant_method": quantization}}
    return replace(checkpoint, config=checkpoint.config | told)


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
