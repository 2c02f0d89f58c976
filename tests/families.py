"""Tiny random checkpoints of every family, built offline, and what transformers makes of them.

Byte-level tokenizers, float32, logits of a scale of 3 to 5 (small ones would hide differences).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.processing_utils import ProcessorMixin

from cof.config import plugins
from cof.evaluate.family.stock import asked
from cof.refine.highlight import Config, plan
from cof.regions.mask import token_mask
from cof.types import Box

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,
}
SIZES = ((97, 61), (83, 120))
TEXTS = ("What is it?", "Where is the red cup?")
BOX = Box(0.1, 0.3, 0.55, 0.8)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}IMAGE{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}


@dataclass(frozen=True)
class Tiny:
    """One tiny checkpoint.

    Attributes:
        family: name of the plug-in.
        special: tokens that are never split, the first three being the end, padding, placeholder.
        config: model_type and the rest, given the ids of the special tokens.
        pixels: the image processor's class and settings.
        processor: transformers' processor class, and its further arguments.
        template: chat template.
        settings: of transformers' processor, at the call.
        bos: the token that prompts begin with.
        blur: cells beyond its own that a token sees of a shrunk grid.
        named: special tokens that the processor asks the tokenizer for by name.
    """

    family: str
    special: tuple[str, ...]
    config: Callable[[Callable[[str], int]], dict[str, Any]]
    pixels: tuple[str, dict[str, Any]]
    processor: tuple[str, dict[str, Any]]
    template: str
    settings: dict[str, Any] = field(default_factory=dict)
    bos: str | None = None
    blur: float = 0.0
    named: dict[str, str] = field(default_factory=dict)


def _qwen(kind: str, vision: dict[str, Any], text: dict[str, Any]) -> Any:
    return lambda token: {
        "model_type": kind,
        "text_config": {**TEXT, "rope_parameters": MROPE, **text},
        "vision_config": {
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "out_hidden_size": 32,
            "initializer_range": 0.2,
            **vision,
        },
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }


_QWEN = ("<|im_end|>", "<|endoftext|>", "<|image_pad|>", "<|video_pad|>", "<|im_start|>")
_QWEN_TEMPLATE = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")

TINY = {
    "qwen2_vl": Tiny(
        "qwen_vl",
        (*_QWEN, "<|vision_start|>", "<|vision_end|>", "<|box_start|>", "<|box_end|>"),
        _qwen("qwen2_vl", {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}, {}),
        ("Qwen2VLImageProcessorPil", {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 24}),
        ("Qwen2VLProcessor", {"video_processor": None}),
        _QWEN_TEMPLATE,
    ),
    "qwen2_5_vl": Tiny(
        "qwen_vl",
        (*_QWEN, "<|vision_start|>", "<|vision_end|>"),
        _qwen("qwen2_5_vl", {"window_size": 56, "fullatt_block_indexes": [1]}, {}),
        ("Qwen2VLImageProcessorPil", {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 24}),
        ("Qwen2_5_VLProcessor", {"video_processor": None}),
        _QWEN_TEMPLATE,
    ),
    "qwen3_vl": Tiny(
        "qwen_vl",
        (*_QWEN, "<|vision_start|>", "<|vision_end|>"),
        _qwen(
            "qwen3_vl",
            {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
            {"head_dim": 8},
        ),
        (
            "Qwen2VLImageProcessorPil",
            {"patch_size": 16, "min_pixels": 32 * 32 * 2, "max_pixels": 32 * 32 * 20},
        ),
        ("Qwen3VLProcessor", {"video_processor": None}),
        _QWEN_TEMPLATE,
    ),
}

_PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
_CLIP = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
    "initializer_range": 0.2,
}
_SQUARE = {"height": 28, "width": 28}
_VICUNA = (
    "{% for m in messages %}USER: {% for c in m.content %}{% if c.type == 'image' %}<image>\n"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
)
_GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}<start_of_image>{% else %}{{ c.text | trim }}{% endif %}{% endfor %}"
    "<end_of_turn>\n{% endfor %}{{ '<start_of_turn>model\n' }}"
)
_SMOL = (
    "<|im_start|>{% for m in messages %}User:{% for c in m.content %}{% if c.type == 'image' %}"
    "<image>{% else %}{{ c.text }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}Assistant:"
)
_TAGS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))

TINY |= {
    "llava_next": Tiny(
        "llava_next",
        ("</s>", "<pad>", "<image>", "<s>"),
        lambda token: {
            "model_type": "llava_next",
            "text_config": {"model_type": "llama", **TEXT},
            "vision_config": {"model_type": "clip_vision_model", **_CLIP},
            "image_token_index": token("<image>"),
            "image_grid_pinpoints": _PINPOINTS,
        },
        (
            "LlavaNextImageProcessorPil",
            {
                "size": {"shortest_edge": 28},
                "crop_size": _SQUARE,
                "image_grid_pinpoints": _PINPOINTS,
            },
        ),
        (
            "LlavaNextProcessor",
            {
                "patch_size": 7,
                "vision_feature_select_strategy": "default",
                "num_additional_image_tokens": 1,
            },
        ),
        _VICUNA,
        bos="<s>",
    ),
    "llava_onevision": Tiny(
        "llava_onevision",
        ("<|im_end|>", "<|endoftext|>", "<image>", "<video>", "<|im_start|>"),
        lambda token: {
            "model_type": "llava_onevision",
            "text_config": {"model_type": "qwen2", **TEXT},
            "vision_config": {
                "model_type": "siglip_vision_model",
                "vision_use_head": False,
                **{k: v for k, v in _CLIP.items() if k != "initializer_range"},
            },
            "image_token_index": token("<image>"),
            "video_token_index": token("<video>"),
            "image_grid_pinpoints": _PINPOINTS,
            "vision_aspect_ratio": "anyres_max_2",
        },
        ("LlavaOnevisionImageProcessorPil", {"size": _SQUARE, "image_grid_pinpoints": _PINPOINTS}),
        (
            "LlavaOnevisionProcessor",
            {
                "video_processor": None,
                "num_image_tokens": 16,
                "vision_feature_select_strategy": "full",
                "vision_aspect_ratio": "anyres_max_2",
            },
        ),
        CHATML.replace("IMAGE", "<image>"),
        blur=1.0,
    ),
    "internvl": Tiny(
        "internvl",
        (
            *("<|im_end|>", "<|endoftext|>", "<IMG_CONTEXT>", "<img>", "</img>", "<|im_start|>"),
            *("<ref>", "</ref>", "<box>", "</box>"),
        ),
        lambda token: {
            "model_type": "internvl",
            "text_config": {"model_type": "qwen2", **TEXT},
            "vision_config": {**_CLIP, "image_size": [28, 28], "patch_size": [7, 7]},
            "image_token_id": token("<IMG_CONTEXT>"),
            "image_seq_length": 4,
        },
        ("GotOcr2ImageProcessorPil", {"size": _SQUARE, "max_patches": 6}),
        ("InternVLProcessor", {"video_processor": None, "image_seq_length": 4}),
        CHATML.replace("IMAGE", "<IMG_CONTEXT>\n"),
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "idefics3": Tiny(
        "idefics3",
        (
            *("<end_of_utterance>", "<pad>", "<image>", "<|im_start|>"),
            *("<fake_token_around_image>", "<global-img>", *_TAGS),
        ),
        lambda token: {
            "model_type": "idefics3",
            "text_config": {"model_type": "llama", **TEXT},
            "vision_config": _CLIP,
            "image_token_id": token("<image>"),
            "scale_factor": 2,
        },
        (
            "Idefics3ImageProcessorPil",
            {"size": {"longest_edge": 84}, "max_image_size": {"longest_edge": 28}},
        ),
        ("Idefics3Processor", {"image_seq_len": 4}),
        _SMOL,
    ),
    "gemma3": Tiny(
        "gemma3",
        (
            *("<end_of_turn>", "<pad>", "<image_soft_token>", "<bos>"),
            *("<start_of_turn>", "<start_of_image>", "<end_of_image>"),
        ),
        lambda token: {
            "model_type": "gemma3",
            "text_config": {
                **TEXT,
                "head_dim": 8,
                "query_pre_attn_scalar": 8,
                "sliding_window": 12,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                "tie_word_embeddings": False,
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "vision_use_head": False,
                **{k: v for k, v in _CLIP.items() if k != "initializer_range"},
                "image_size": 56,
            },
            "image_token_index": token("<image_soft_token>"),
            "boi_token_index": token("<start_of_image>"),
            "eoi_token_index": token("<end_of_image>"),
            "mm_tokens_per_image": 16,
            "tie_word_embeddings": False,  # tied, random weights repeat the last token
            "initializer_range": 0.2,
        },
        ("Gemma3ImageProcessorPil", {"size": {"height": 56, "width": 56}}),
        ("Gemma3Processor", {"image_seq_length": 16}),
        _GEMMA,
        bos="<bos>",
        named={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
    ),
}

TINY["llava_onevision_whole"] = replace(  # a grid that is never shrunk
    TINY["llava_onevision"],
    config=lambda token: {
        **TINY["llava_onevision"].config(token),
        "vision_aspect_ratio": "anyres_max_9",
    },
    processor=(
        "LlavaOnevisionProcessor",
        {**TINY["llava_onevision"].processor[1], "vision_aspect_ratio": "anyres_max_9"},
    ),
    blur=0.0,
)

TINY["smolvlm"] = replace(  # its own processor wants num2words; the text is Idefics3's
    TINY["idefics3"],
    config=lambda token: {**TINY["idefics3"].config(token), "model_type": "smolvlm"},
    pixels=("SmolVLMImageProcessorPil", TINY["idefics3"].pixels[1]),
)


def make_tokenizer(tiny: Tiny) -> PreTrainedTokenizerFast:
    """One token a byte, and the special ones behind."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    end, pad, *_ = tiny.special
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=end,
        pad_token=pad,
        bos_token=tiny.bos,
        extra_special_tokens=tiny.named,
    )
    made.add_special_tokens({"additional_special_tokens": list(tiny.special)})
    made.chat_template = tiny.template
    return made


def build(name: str, folder: Path, seed: int = 0) -> Path:
    """A checkpoint in `folder`, as `from_pretrained` reads it."""
    import transformers

    tiny = TINY[name]
    tokenizer = make_tokenizer(tiny)
    values = tiny.config(tokenizer.convert_tokens_to_ids)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    values["text_config"] |= {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        **ids,
    }
    config = AutoConfig.for_model(**values)
    torch.manual_seed(seed)
    network = AutoModelForImageTextToText.from_config(config).eval()
    for part, weight in network.named_parameters():
        if "mm_input_projection" in part:  # Gemma 3's is zero before training
            weight.data.normal_(std=0.3)
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    network.generation_config.pad_token_id = tokenizer.pad_token_id
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kind, settings = tiny.pixels
    getattr(transformers, kind)(**settings).save_pretrained(folder)
    return folder


class Stock:
    """The checkpoint as transformers alone runs it."""

    def __init__(self, name: str, folder: Path) -> None:
        import transformers

        self.tiny = TINY[name]
        self.network = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")
        kind, options = self.tiny.processor
        template = {"chat_template": self.tiny.template}
        # without torchvision there is no video processor, which some of these insist on
        with patch.object(ProcessorMixin, "check_argument_for_proper_class", lambda *_: None):
            self.processor = getattr(transformers, kind)(
                image_processor=pixels, tokenizer=self.tokenizer, **options, **template
            )

    def inputs(self, image: Image.Image, question: str) -> dict[str, Any]:
        """What transformers' own processor makes of one question, unpadded."""
        return asked(self.processor, image, question, **self.tiny.settings)


def maker(tmp_path_factory: Any) -> Callable[[str], Any]:
    """A function: name -> folder, stock, model; each built once."""

    @cache
    def make(name: str) -> Any:
        folder = build(name, tmp_path_factory.mktemp(name))
        module = plugins.load("models", TINY[name].family)
        return folder, Stock(name, folder), module.load(module.Config(str(folder), device="cpu"))

    return make


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Noise: every pixel matters."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def logits(rows: Any) -> list[torch.Tensor]:
    """Of each decoded row, double [steps, V]."""
    return [torch.stack(row.logits).double() for row in rows]


def worst(some: Any, others: Any) -> float:
    """The largest difference."""
    return max(float((a - b).abs().max()) for a, b in zip(some, others, strict=True))


def lit(model: Any, encoded: Any, views: Any, weight: float = 20.0, **narrow: Any) -> Any:
    """The highlight of `BOX` in every row."""
    masks = [token_mask([BOX], view.cells) for view in views]
    assert all(mask.any() and not mask.all() for mask in masks)
    return plan(encoded, masks, Config(weight, **narrow))
