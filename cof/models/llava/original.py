"""Load a checkpoint in the ORIGINAL LLaVA layout straight into transformers' LLaVA.

Tensors are renamed and set one by one, shard by shard, so that the peak is the model plus one
shard. The vision tower comes from the checkpoint where it is in there, else from the CLIP tower
that `mm_vision_tower` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import dispatch_model, infer_auto_device_map, init_empty_weights
from accelerate.utils import get_balanced_memory, set_module_tensor_to_device
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from cof.errors import ModelError
from cof.models.common.checkpoint import Checkpoint, read_json
from cof.models.common.shards import tensors

_RENAMES = (
    (r"^(?:model\.)?vision_tower\.vision_tower\.vision_model\.", "model.vision_tower."),
    (r"^vision_model\.", "model.vision_tower."),
    (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
)
_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|position_ids)$")
_TEXT_TOWER = re.compile(r"^(text_model\.|text_projection|visual_projection|logit_scale)")


def load_original(
    checkpoint: Checkpoint, dtype: torch.dtype, device: str, device_map: str | None
) -> LlavaForConditionalGeneration:
    """Build the model on the meta device, then fill it from the shards.

    Args:
        checkpoint: in the original layout.
        dtype: of all parameters.
        device: where everything goes, unless `device_map` is given.
        device_map: None, or "auto" to spread over the GPUs there are.

    Raises:
        ModelError: an unsupported projector or feature choice, tensors that are unknown, missing
            or of the wrong shape (all listed).
    """
    with init_empty_weights():
        model = LlavaForConditionalGeneration(original_config(checkpoint))
    places = _places(model, dtype, device, device_map)
    _fill(model, checkpoint.folders, dtype, places)
    if device_map is None:
        return model.to(device)  # type: ignore[arg-type, no-any-return]
    return dispatch_model(model, places)  # type: ignore[no-any-return]


def original_config(checkpoint: Checkpoint) -> LlavaConfig:
    """The original config and its tower's as transformers' config.

    Raises:
        ModelError: an unsupported projector or feature choice.
    """
    raw = checkpoint.config
    wanted = {"mm_projector_type": "mlp2x_gelu", "mm_vision_select_feature": "patch"}
    for key, value in wanted.items():
        if raw.get(key, value) != value:
            raise ModelError(
                f"{checkpoint.folder}: {key} {raw[key]!r}; only {value!r} is supported"
            )
    if "mm_vision_select_layer" not in raw:
        raise ModelError(f"{checkpoint.folder}: config.json has no mm_vision_select_layer")
    clip = read_json(checkpoint.folders[-1] / "config.json")
    return LlavaConfig(
        text_config=LlamaConfig.from_dict({**raw, "model_type": "llama"}),
        vision_config=CLIPVisionConfig.from_dict(clip.get("vision_config", clip)),
        vision_feature_layer=raw["mm_vision_select_layer"],
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
    )


def _places(
    model: LlavaForConditionalGeneration, dtype: torch.dtype, device: str, device_map: str | None
) -> dict[str, Any]:
    if device_map is None:
        return {"": device}
    whole = ["LlamaDecoderLayer", "CLIPEncoderLayer"]
    room = get_balanced_memory(model, dtype=dtype, no_split_module_classes=whole)
    places = infer_auto_device_map(
        model, max_memory=room, no_split_module_classes=whole, dtype=dtype
    )
    if "disk" in places.values():
        raise ModelError("the model does not fit into the memory of GPUs and CPU together")
    return dict(places)


def _fill(
    model: LlavaForConditionalGeneration,
    folders: tuple[Path, ...],
    dtype: torch.dtype,
    places: dict[str, Any],
) -> None:
    folder, tower = folders
    missing = {name: parameter.shape for name, parameter in model.named_parameters()}
    unknown: list[str] = []
    for source, value in tensors(folder):
        unknown += _place(model, source, value, dtype, places, missing)
    if any(name.startswith("model.vision_tower.") for name in missing):
        for source, value in tensors(tower):
            if not _TEXT_TOWER.match(source) and _rename(source) in missing:
                _place(model, source, value, dtype, places, missing)
    if model.config.tie_word_embeddings and missing.pop("lm_head.weight", None) is not None:
        model.tie_weights()
    if unknown or missing:
        raise ModelError(f"{folder}: {_listing('unknown', unknown)}{_listing('missing', missing)}")


def _place(
    model: LlavaForConditionalGeneration,
    source: str,
    value: Tensor,
    dtype: torch.dtype,
    places: dict[str, Any],
    missing: dict[str, torch.Size],
) -> list[str]:
    """Set one tensor; returns its name where the model has no such tensor left to fill."""
    if _BUFFERS.search(source):
        return []
    name = _rename(source)
    shape = missing.pop(name, None)
    if shape is None:
        return [source]
    if shape != value.shape:
        raise ModelError(f"{source}: shape {tuple(value.shape)}, the config says {tuple(shape)}")
    where = next((places[key] for key in _prefixes(name) if key in places), "cpu")
    set_module_tensor_to_device(model, name, where, value, dtype)
    return []


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    yield ""


def _rename(source: str) -> str:
    for pattern, target in _RENAMES:
        renamed, count = re.subn(pattern, target, source)
        if count:
            return renamed
    return source


def _listing(what: str, names: Any) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return f"{len(shown)} {what} tensors: {', '.join(shown[:8])}{more}. " if shown else ""
