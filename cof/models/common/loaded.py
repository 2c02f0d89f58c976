"""A network that the caller has loaded (quantised, trained, placed by hand), and what it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoConfig

from cof.errors import ModelError, shown
from cof.models.common.checkpoint import Checkpoint

_SAMPLE = 64
"""Values of each tensor that identify the weights, at even distances."""

_LOADING = {"device": "auto", "dtype": "auto", "device_map": None, "quantization": None}
"""Keys of a config that say how to load -> the value at which they say nothing."""


def taken(
    network: Any,
    config: Any,
    kinds: Sequence[str],
    parts: Sequence[str],
    keys: tuple[str, ...],
    find: Callable[[str], Checkpoint],
) -> tuple[Checkpoint, Any]:
    """The checkpoint that a loaded network stands for, and its config with the path filled in.

    Args:
        network: what the caller has loaded.
        config: of the family; its path "" is where transformers loaded the network from.
        kinds: `model_type` of the family's checkpoints.
        parts: attributes that the whole network has.
        keys: dotted, what its config and that of the tokenizer's folder have to agree on.
        find: from a path to a checkpoint.

    Raises:
        ModelError: something else, no path, or a path that speaks of another network.
    """
    said = getattr(getattr(network, "config", None), "model_type", None)
    whole = all(hasattr(network, part) for part in parts)
    if said not in kinds or not whole or hasattr(network, "merge_and_unload"):
        raise ModelError(
            f"a loaded network has to be transformers' whole {' or '.join(kinds)}, not "
            f"{kind_of(network)}"
        )
    path = origin(network, config)
    checkpoint = find(path)
    theirs = AutoConfig.from_pretrained(checkpoint.folder)
    check_same(facts(network.config, keys), facts(theirs, keys), path)
    return as_loaded(checkpoint, network), replace(config, path=path)


def origin(network: Any, config: Any) -> str:
    """Where the tokenizer and image settings of a loaded network are.

    Raises:
        ModelError: the config says how to load it, or nobody says where it is from.
    """
    for name, nothing in _LOADING.items():
        if (value := getattr(config, name)) != nothing:
            said = f"{name}={shown(value)}"
            raise ModelError(f"{said}: the network is loaded already; move it yourself")
    path = config.path or network.config._name_or_path
    if not path:
        raise ModelError(
            "the network does not say where it was loaded from; path= names the folder or hub "
            "name of its tokenizer and image settings"
        )
    return str(path)


def as_loaded(checkpoint: Checkpoint, network: Any) -> Checkpoint:
    """A folder's checkpoint, with the network's weights in place of its own."""
    told = {**checkpoint.config, "quantization_config": _quantized(network.config)}
    return replace(checkpoint, config=told, revision=weights(network))


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


def kind_of(network: Any) -> str:
    """What somebody took for a network."""
    kind = type(network).__name__
    return f"{kind} (merge_and_unload it first)" if hasattr(network, "merge_and_unload") else kind


def check_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str) -> None:
    """Hold what a network's config says against that of its tokenizer's folder, key by key.

    Raises:
        ModelError: they differ.
    """
    for key, value in ours.items():
        if value != theirs[key]:
            raise ModelError(
                f"{path}: its {key} is {shown(theirs[key])}, the network's {shown(value)}; "
                "path= has to name the network's own folder"
            )


def facts(config: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """What a config says under dotted keys; None where it has no such key."""
    found = {}
    for key in keys:
        value = config
        for part in key.split("."):
            value = getattr(value, part, None)
        found[key] = value
    return found


def _quantized(config: Any) -> dict[str, str] | None:
    said = getattr(config, "quantization_config", None)
    if said is None:
        return None
    named = said.get("quant_method") if isinstance(said, dict) else said.quant_method
    return {"quant_method": str(getattr(named, "value", named) or "bitsandbytes")}
