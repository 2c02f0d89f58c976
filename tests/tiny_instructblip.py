"""A tiny random InstructBLIP, built offline, and what transformers makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from families import TEXT, Tiny, make_tokenizer
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AttentionInterface,
    BlipImageProcessorPil,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedTokenizerFast,
)
from transformers.masking_utils import AttentionMaskInterface, eager_mask

QUERIES = 6
SIDE, PATCH = 56, 14
WIDTH = 16
"""Of the vision tower."""


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
            "hidden_size": WIDTH,
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
        network.language_projection.weight.mul_(2)
        for name, weight in network.qformer.named_parameters():
            if "crossattention" in name and "query" in name:
                weight.mul_(2)  # queries that look somewhere
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


def oracle(stock: Stock, place: str, rows: Any) -> list[torch.Tensor]:
    """Logits in double precision behind the prompt and each token but the last of a reply.

    Args:
        stock: the checkpoint.
        place: of the highlight.
        rows: per row (image, question, bias [K], factors [K], tokens); each is recomputed whole.
    """
    whole, shares = stock.network, []
    configs = whole.qformer.config, whole.language_model.get_decoder().config
    bias = factors = torch.zeros(0)

    def attention(module, query, key, value, mask, scaling=None, **_):
        groups = query.shape[1] // key.shape[1]
        key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
        scores = query.double() @ key.double().transpose(2, 3) * scaling
        if module.config is configs[1] and place != "qformer":
            mean = sum(shares) / len(shares)
            scores[..., :QUERIES] += (mean * bias.exp()).sum(-1).log()
        elif module.config is configs[0] and module.key.in_features == WIDTH:
            shares.append(scores.softmax(-1).mean(1)[0])
            if place != "llm":
                scores = scores + bias
        scores = scores if mask is None else scores + mask
        return (scores.softmax(-1) @ value.double()).transpose(1, 2).contiguous(), None

    def scale(module, given, output):
        output.last_hidden_state = output.last_hidden_state * factors[:, None]

    AttentionInterface.register("oracle", attention)
    AttentionMaskInterface.register("oracle", eager_mask)
    before = [config._attn_implementation for config in configs]
    hook, found = whole.double().vision_model.register_forward_hook(scale), []
    try:
        for config in configs:
            config._attn_implementation = {"": "oracle"}
        for image, question, added, multiplied, tokens in rows:
            bias, factors = added.double(), multiplied.double()
            shares.clear()
            given = stock.inputs(image, question)
            length = given["input_ids"].shape[1]
            tail = torch.tensor([tokens[:-1]], dtype=torch.long)
            given["input_ids"] = torch.cat([given["input_ids"], tail], 1)
            given["attention_mask"] = torch.ones_like(given["input_ids"])
            given["pixel_values"] = given["pixel_values"].double()
            with torch.no_grad():
                found.append(whole(**given, use_cache=False).logits[0, length - 1 :])
    finally:
        hook.remove()
        whole.float()
        for config, old in zip(configs, before, strict=True):
            config._attn_implementation = {"": old}
    return found
