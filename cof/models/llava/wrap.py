"""A LLaVA around a network that the caller has loaded: quantised, trained, or placed by hand."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import torch
from transformers import LlavaForConditionalGeneration

from cof.errors import ModelError, shown
from cof.models.base import Config as Base
from cof.models.common.checkpoint import find
from cof.models.llava.config import Config
from cof.models.llava.inputs import read_config, read_inputs
from cof.models.llava.model import Llava, check_conv

_SAME = (
    *("vision_config.image_size", "vision_config.patch_size", "text_config.vocab_size"),
    "vision_feature_layer",
    "vision_feature_select_strategy",
)
"""What the network's config and that of its tokenizer's folder have to agree on."""

_SAMPLE = 64
"""Values of each tensor that identify the weights, at even distances."""


def wrap(network: Any, config: Config) -> Llava:
    """Take a loaded network; tokenizer and image settings are those of `config.path`.

    The network is put into eval mode, its decoder's attention is replaced (`cof.attention.attach`)
    and so is its generation config, as `load` does with a network of its own.

    Args:
        network: transformers' `LlavaForConditionalGeneration`, adapters merged.
        config: `path` "" is where transformers loaded the network from; device, dtype and
            device_map are the network's own business.

    Raises:
        ModelError: something else, no path, or a path that speaks of another network.
    """
    if not isinstance(network, LlavaForConditionalGeneration):
        raise ModelError(
            f"a loaded network has to be a LlavaForConditionalGeneration, not {_kind(network)}"
        )
    for name in ("device", "dtype", "device_map"):
        if getattr(config, name) != getattr(Base(), name):
            value = shown(getattr(config, name))
            raise ModelError(f"{name}={value}: the network is loaded already; move it yourself")
    path = config.path or network.config._name_or_path
    if not path:
        raise ModelError(
            "the network does not say where it was loaded from; path= names the folder or hub "
            "name of its tokenizer and image settings"
        )
    check_conv(config.conv)
    checkpoint = find(path)
    inputs = read_inputs(checkpoint, config.conv)
    _check_same(network.config, read_config(checkpoint), path)
    told = {**checkpoint.config, "quantization_config": _quantized(network.config)}
    checkpoint = replace(checkpoint, config=told, revision=weights(network))
    return Llava(network.eval(), inputs, checkpoint, replace(config, path=path))


def weights(network: torch.nn.Module) -> str:
    """Identify the weights as they are: a digest of names, shapes and values at even distances."""
    seen = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        seen.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}:".encode())
        if tensor.is_meta:  # its values are on disk
            continue
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // _SAMPLE)].cpu().contiguous()
        seen.update(some.view(torch.uint8).numpy().tobytes())
    return f"network:{seen.hexdigest()[:16]}"


def _kind(network: Any) -> str:
    """What somebody took for a network."""
    kind = type(network).__name__
    return f"{kind} (merge_and_unload it first)" if hasattr(network, "merge_and_unload") else kind


def _check_same(ours: Any, theirs: Any, path: str) -> None:
    for key in _SAME:
        values = []
        for value in (ours, theirs):
            for part in key.split("."):
                value = getattr(value, part)
            values.append(value)
        if values[0] != values[1]:
            raise ModelError(
                f"{path}: its {key} is {shown(values[1])}, the network's {shown(values[0])}; "
                "path= has to name the network's own folder"
            )


def _quantized(config: Any) -> dict[str, str] | None:
    said = getattr(config, "quantization_config", None)
    if said is None:
        return None
    named = said.get("quant_method") if isinstance(said, dict) else said.quant_method
    return {"quant_method": str(getattr(named, "value", named) or "bitsandbytes")}
