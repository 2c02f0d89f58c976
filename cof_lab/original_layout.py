"""A checkpoint as LLaVA's own code reads it, that of 2023 (transformers 4.31) as well as today's.

The CLIP tower is a model of its own, in the folder `TOWER` of the checkpoint. LLaVA's code takes a
tower's name as a path from the current folder, so config.json names the whole path; where the
checkpoint has moved since, cof finds the tower in it by the path's last part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cof.files import write_whole
from cof_lab.model import IMAGE_MEAN, IMAGE_STD

TOWER = "vision_tower"
_VISION = "model.vision_tower."
_LANGUAGE = (
    ("model.language_model.", "model."),
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
)
"""Transformers' parameter names -> the original code's."""

_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


def write_original(config: Any, state: Mapping[str, Tensor], folder: Path, home: Path) -> None:
    """Write weights and settings of a LLaVA; tokenizer files that are there are made readable.

    Args:
        config: transformers' LlavaConfig.
        state: parameters by transformers' names.
        folder: where to write.
        home: where the folder's files will be; absolute.
    """
    text, vision = config.text_config, config.vision_config
    _save(language_weights(state), folder)
    multimodal = _multimodal(vision.hidden_size, home / TOWER)
    write_json(folder / "config.json", {**_llama(text), **multimodal})
    ids = {name: getattr(text, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "generation_config.json", ids)
    _tokenizer(folder)
    (folder / TOWER).mkdir(exist_ok=True)
    _save(tower_weights(state), folder / TOWER)
    write_json(folder / TOWER / "config.json", _clip(vision))
    write_json(folder / TOWER / "preprocessor_config.json", image_settings(vision.image_size))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_whole(path, json.dumps(content, indent=2) + "\n")


def _save(state: dict[str, Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def language_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Decoder and projector by the original code's names."""
    return {original_name(name): state[name] for name in state if not name.startswith(_VISION)}


def tower_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vision tower by the names of a CLIP checkpoint."""
    inside = {
        name.removeprefix(_VISION).removeprefix("vision_model."): value
        for name, value in state.items()
        if name.startswith(_VISION)
    }
    return {f"vision_model.{name}": value for name, value in inside.items()}


def original_name(name: str) -> str:
    """The original code's name of a parameter of decoder or projector."""
    for ours, theirs in _LANGUAGE:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def image_settings(side: int) -> dict[str, Any]:
    """preprocessor_config.json in CLIP's form.

    Like LLaVA-1.5's it crops the centre; the original code pads to a square first, with colour
    (122, 116, 104), and so was this model trained: pad before this processor.
    """
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
    }


def _tokenizer(folder: Path) -> None:
    """Tokenizer files without what only newer libraries read: class name, keys, form of merges."""
    file = folder / "tokenizer_config.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    kept = ("model_max_length", "padding_side", "clean_up_tokenization_spaces", *_TOKENS)
    named = {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(file, {**{key: said[key] for key in kept}, **named})
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    merges = content["model"]["merges"]
    content["model"]["merges"] = [one if isinstance(one, str) else " ".join(one) for one in merges]
    write_whole(file, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def _clip(vision: Any) -> dict[str, Any]:
    keep = (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("image_size", "patch_size", "hidden_act", "projection_dim", "layer_norm_eps"),
    )
    kind = {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model"}
    return {**kind, "torch_dtype": "float16", **{name: getattr(vision, name) for name in keep}}


def _llama(text: Any) -> dict[str, Any]:
    keep = (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "vocab_size"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "hidden_act", "initializer_range"),
    )
    return {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        **{name: getattr(text, name) for name in keep},
    }


def _multimodal(width: int, tower: Path) -> dict[str, Any]:
    return {
        "image_aspect_ratio": "pad",
        "mm_hidden_size": width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": str(tower),
        "use_mm_proj": True,
    }
