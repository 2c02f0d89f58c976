"""A tiny random InstructBLIP, built offline, and what transformers makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from families import TEXT, Tiny, make_tokenizer
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BlipImageProcessorPil,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedTokenizerFast,
)

QUERIES = 6
SIDE, PATCH = 56, 14


def asking_tokenizer() -> PreTrainedTokenizerFast:
    """BERT's way with letters for words."""
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789?.,:'"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{one}" for one in letters)]
    ids = {word: number for number, word in enumerate(words)}
    inner = Tokenizer(models.WordPiece(vocab=ids, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad_token", "unk_token", "cls_token", "sep_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, **dict(zip(names, words[:4], strict=True))
    )


def text_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte behind the beginning of the sequence."""
    special = ("</s>", "<pad>", "<image>", "<s>")
    tiny: Any = Tiny("instructblip", special, None, ("", {}), ("", {}), "", (), bos="<s>")
    made = make_tokenizer(tiny)
    made.chat_template = None
    start = ("<s>", made.convert_tokens_to_ids("<s>"))
    made._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[start]
    )
    return made


def build(folder: Path, seed: int = 0, **text: Any) -> Path:
    """A checkpoint in `folder`, as `from_pretrained` reads it."""
    tokenizer, asking = text_tokenizer(), asking_tokenizer()
    config = InstructBlipConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
            "initializer_range": 0.2,
        },
        qformer_config={
            "vocab_size": len(asking),
            "hidden_size": 24,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "intermediate_size": 32,
            "max_position_embeddings": 96,
            "initializer_range": 0.3,
        },
        text_config={
            "model_type": "llama",
            **TEXT,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **text,
        },
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    network = InstructBlipForConditionalGeneration(config).eval()
    with torch.no_grad():
        network.query_tokens.normal_()
        network.language_projection.weight.mul_(3)
        for name, weight in network.qformer.named_parameters():
            if "crossattention" in name and "query" in name:
                weight.mul_(4)  # queries that look somewhere
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    asking.save_pretrained(folder / "qformer_tokenizer")
    BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


class Stock:
    """The checkpoint as transformers alone runs it."""

    def __init__(self, folder: Path) -> None:
        self.network = InstructBlipForConditionalGeneration.from_pretrained(folder).eval()
        self.processor = InstructBlipProcessor(
            BlipImageProcessorPil.from_pretrained(folder),
            PreTrainedTokenizerFast.from_pretrained(folder),
            PreTrainedTokenizerFast.from_pretrained(folder / "qformer_tokenizer"),
            num_query_tokens=QUERIES,
        )

    def inputs(self, image: Image.Image, question: str) -> dict[str, Any]:
        """What transformers' own processor makes of one question, unpadded."""
        return dict(self.processor(images=image, text=question, return_tensors="pt"))
