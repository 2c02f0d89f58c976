"""LLaVA of a given shape with random weights, built directly on the device: true costs, no weights.

Costs depend on shapes and lengths alone, so the tokenizer is a stand-in with one id a word.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from cof.models.common.checkpoint import Checkpoint
from cof.models.common.graphs import Decode
from cof.models.llava import Config
from cof.models.llava.inputs import Inputs
from cof.models.llava.model import Llava
from cof.models.llava.pixels import CLIP_MEAN, CLIP_STD, Pixels

_CLIP_L: dict[str, Any] = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mid": (
        {"hidden_size": 384, "num_hidden_layers": 9, "num_attention_heads": 6}
        | {"intermediate_size": 1536},
        {"hidden_size": 768, "num_hidden_layers": 8, "num_attention_heads": 12}
        | {"intermediate_size": 2048, "vocab_size": 8192},
    ),
    "llava-1.5-7b": (
        _CLIP_L | {"intermediate_size": 4096},
        {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
        | {"intermediate_size": 11008, "vocab_size": 32064},
    ),
    "llava-1.5-13b": (
        _CLIP_L | {"intermediate_size": 4096},
        {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40}
        | {"intermediate_size": 13824, "vocab_size": 32064},
    ),
}
"""Name -> (vision tower, decoder). `mid` is for two CPU cores: its tower takes about 30 %."""


class WordTokenizer:
    """One id a word, the same for the same word; enough for lengths."""

    bos_token_id, eos_token_id, pad_token_id = 1, 2, 0

    def __init__(self, size: int) -> None:
        self.size = size
        self.added_tokens_decoder: dict[int, Any] = {}  # no id of a reply is special

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        """Ids of a text's words, from 3 on."""
        ids = [3 + sum(word.encode()) % (self.size - 3) for word in text.split()]
        return SimpleNamespace(input_ids=ids)

    def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
        """The ids themselves."""
        return " ".join(map(str, tokens))


def random_llava(
    shape: str, device: str, dtype: torch.dtype, seed: int = 0, decode: Decode = "auto"
) -> Llava:
    """A LLaVA with random weights of a shape in `SHAPES`, 336 px and 576 visual tokens."""
    vision, text = SHAPES[shape]
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=336, patch_size=14, **vision),
        text_config=LlamaConfig(max_position_embeddings=4096, **text),
        vision_feature_layer=-2,
    )
    torch.manual_seed(seed)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            network = LlavaForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(default)
    checkpoint = Checkpoint(Path(), "transformers", {}, f"random {shape}, seed {seed}")
    tokenizer, pixels = WordTokenizer(text["vocab_size"]), Pixels(336, CLIP_MEAN, CLIP_STD, True)
    inputs = Inputs(tokenizer, lambda chunk: list(tokenizer(chunk).input_ids), pixels)
    return Llava(network, inputs, checkpoint, Config(path=shape, decode=decode))
