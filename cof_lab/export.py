"""Write a trained model as a checkpoint folder: transformers' layout, or the original LLaVA's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from cof.files import whole_folder, write_whole
from cof_lab.model import IMAGE_MEAN, IMAGE_STD

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

TOWER = "vision_tower"  # folder of the CLIP tower inside an original-layout checkpoint
# transformers' parameter names -> the original code's; first match wins.
ORIGINAL = (
    (r"^model\.language_model\.", "model."),
    (r"^model\.multi_modal_projector\.linear_1\.", "model.mm_projector.0."),
    (r"^model\.multi_modal_projector\.linear_2\.", "model.mm_projector.2."),
    (r"^model\.vision_tower\.(vision_model\.)?", "model.vision_tower.vision_tower.vision_model."),
)


def export_checkpoint(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    layout: Literal["transformers", "original"] = "transformers",
) -> None:
    """Save weights in float16, tokenizer and image settings.

    Args:
        model: float32 or float16, on any device; left as it is.
        tokenizer: of cof_lab.tokenizer.
        folder: made if need be; files of the same names are overwritten.
        layout: `original` is what liuhaotian/llava-v1.5-7b looks like, with the CLIP tower's
            settings in a folder beside.
    """
    write = _transformers if layout == "transformers" else _original
    with whole_folder(folder) as fresh:
        tokenizer.save_pretrained(fresh)
        write(model, fresh)


def _half(model: LlavaForConditionalGeneration) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: value.detach().to("cpu", torch.float16).clone() for name, value in state.items()}


def _write(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=2) + "\n")


def _transformers(model: LlavaForConditionalGeneration, folder: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    config: Any = type(model.config).from_dict(model.config.to_dict())
    clone = LlavaForConditionalGeneration(config).half()
    clone.load_state_dict(_half(model))
    clone.save_pretrained(folder)
    text = config.text_config
    ids = {name: getattr(text, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write(folder / "generation_config.json", {**ids, "do_sample": False})
    side = config.vision_config.image_size
    _write(folder / "preprocessor_config.json", image_settings(side))
    _write(
        folder / "processor_config.json",
        {
            "processor_class": "LlavaProcessor",
            "image_token": "<image>",
            "num_additional_image_tokens": 1,
            "patch_size": config.vision_config.patch_size,
            "vision_feature_select_strategy": "default",
        },
    )


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


def _original(model: LlavaForConditionalGeneration, folder: Path) -> None:
    from safetensors.torch import save_file

    state = {original_name(name): value for name, value in _half(model).items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config: Any = model.config
    text, vision = config.text_config, config.vision_config
    _write(folder / "config.json", {**_llama(text), **_multimodal(vision.hidden_size)})
    ids = {name: getattr(text, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write(folder / "generation_config.json", ids)
    tower = folder / TOWER
    tower.mkdir(exist_ok=True)
    keep = (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("image_size", "patch_size", "hidden_act", "projection_dim", "layer_norm_eps"),
    )
    settings = {name: getattr(vision, name) for name in keep}
    _write(tower / "config.json", {"model_type": "clip_vision_model", **settings})
    _write(tower / "preprocessor_config.json", image_settings(vision.image_size))


def original_name(name: str) -> str:
    """A transformers parameter's name in the original code."""
    for pattern, target in ORIGINAL:
        renamed, count = re.subn(pattern, target, name)
        if count:
            return renamed
    return name


def _llama(text: Any) -> dict[str, Any]:
    keep = (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "vocab_size"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "hidden_act", "initializer_range"),
    )
    values = {name: getattr(text, name) for name in keep}
    return {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        **values,
    }


def _multimodal(width: int) -> dict[str, Any]:
    return {
        "image_aspect_ratio": "pad",
        "mm_hidden_size": width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": TOWER,
        "use_mm_proj": True,
    }
