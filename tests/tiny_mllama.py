"""A tiny random Llama 3.2 Vision, built offline, and what transformers makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from families import TEXT, Tiny, make_tokenizer
from PIL import Image
from transformers import (
    AttentionInterface,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessorPil,
    MllamaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.masking_utils import AttentionMaskInterface, eager_mask

SIDE, PATCH, TILES = 28, 7, 4
PATCHES = (SIDE // PATCH) ** 2
KEYS = TILES * (1 + PATCHES)
SPECIAL = ("<|eot_id|>", "<|finetune_right_pad_id|>", "<|image|>", "<|begin_of_text|>")
TURNS = ("<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% for c in m.content %}{% if c.type == 'image' %}<|image|>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}<|eot_id|>{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)


def build(folder: Path, seed: int = 0) -> Path:
    """A checkpoint in `folder`, as `from_pretrained` reads it."""
    tiny: Any = Tiny(
        *("mllama", (*SPECIAL, *TURNS), None, ("", {}), ("", {}), TEMPLATE, ()), bos=SPECIAL[3]
    )
    tokenizer = make_tokenizer(tiny)
    image = tokenizer.convert_tokens_to_ids("<|image|>")
    config = MllamaConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_global_layers": 1,
            "attention_heads": 2,
            "vision_output_dim": 16 * 3,
            "image_size": SIDE,
            "patch_size": PATCH,
            "max_num_tiles": TILES,
            "intermediate_layers_indices": [0, 1],
            "initializer_range": 0.2,
        },
        text_config={
            **TEXT,
            "num_hidden_layers": 5,
            "cross_attention_layers": [1, 3],
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        image_token_index=image,
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    network = MllamaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "gate" in name and "gate_proj" not in name:  # zero before training
                weight.fill_(0.7)
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    network.generation_config.pad_token_id = tokenizer.pad_token_id
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    MllamaImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, max_image_tiles=TILES
    ).save_pretrained(folder)
    return folder


class Stock:
    """The checkpoint as transformers alone runs it."""

    def __init__(self, folder: Path) -> None:
        self.network = MllamaForConditionalGeneration.from_pretrained(folder).eval()
        self.processor = MllamaProcessor(
            MllamaImageProcessorPil.from_pretrained(folder),
            PreTrainedTokenizerFast.from_pretrained(folder),
            chat_template=TEMPLATE,
        )

    def inputs(self, image: Image.Image, question: str) -> dict[str, Any]:
        """What transformers' own processor makes of one question, unpadded."""
        content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        return dict(
            self.processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        )


def oracle(stock: Stock, rows: Any) -> list[torch.Tensor]:
    """Logits in double precision behind the prompt and each token but the last of a reply.

    Args:
        stock: the checkpoint.
        rows: per row (image, question, bias [K], factors [K], tokens); each is recomputed whole.
    """
    whole = stock.network
    config = whole.model.language_model.config
    bias = factors = opened = torch.zeros(0)

    def attention(module, query, key, value, mask, scaling=None, **_):
        groups = query.shape[1] // key.shape[1]
        key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
        scores = query.double() @ key.double().transpose(2, 3) * scaling + mask
        if "CrossAttention" in type(module).__name__:
            scores = scores + bias * opened  # text before the image is as it was
        return (scores.softmax(-1) @ value.double()).transpose(1, 2).contiguous(), None

    def scale(module, given, output):
        return output * factors.view(TILES, -1, 1)

    AttentionInterface.register("oracle", attention)
    AttentionMaskInterface.register("oracle", eager_mask)
    before, found = config._attn_implementation, []
    hook = whole.double().model.multi_modal_projector.register_forward_hook(scale)
    try:
        config._attn_implementation = {"": "oracle"}
        for image, question, added, multiplied, tokens in rows:
            bias, factors = added.double(), multiplied.double()
            given = stock.inputs(image, question)
            length = given["input_ids"].shape[1]
            tail = torch.tensor([tokens[:-1]], dtype=torch.long)
            given["input_ids"] = torch.cat([given["input_ids"], tail], 1)
            given["attention_mask"] = torch.ones_like(given["input_ids"])
            seen = given["cross_attention_mask"]
            more = seen[:, -1:].expand(-1, tail.shape[1], -1, -1)
            given["cross_attention_mask"] = seen = torch.cat([seen, more], 1)
            opened = seen[0].flatten(1).any(1)[:, None]
            given["pixel_values"] = given["pixel_values"].double()
            with torch.no_grad():
                found.append(whole(**given, use_cache=False).logits[0, length - 1 :])
    finally:
        hook.remove()
        whole.float()
        config._attn_implementation = {"": before}
    return found
