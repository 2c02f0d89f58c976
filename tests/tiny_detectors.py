"""Tiny random zero-shot detectors, built offline: OWL-ViT and Grounding DINO."""

from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessorPil,
    OwlViTProcessor,
    SwinConfig,
)

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def owlvit(folder: Path) -> Path:
    """Letters as tokens, queries of at most 16 of them as in the released models."""
    letters = [*map(chr, range(97, 123)), "?"]
    pieces = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=16)
    end = vocab["<|endoftext|>"]
    ids = {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    config = OwlViTConfig(
        text_config={**SMALL, **ids, "vocab_size": len(vocab), "max_position_embeddings": 16},
        vision_config={**SMALL, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(0)
    side = {"height": 32, "width": 32}
    network = OwlViTForObjectDetection(config)
    network.box_head.dense2.weight.data *= 1e-3  # or random boxes have no area
    network.save_pretrained(folder)
    OwlViTProcessor(OwlViTImageProcessorPil(size=side, crop_size=side), tokenizer).save_pretrained(
        folder
    )
    return folder


def grounding_dino(folder: Path) -> Path:
    """Words as tokens."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "red", "cup", "dog"]
    tokenizer = BertTokenizer(vocab={word: place for place, word in enumerate(words)})
    swin = SwinConfig(
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=BertConfig(**SMALL, vocab_size=len(words), max_position_embeddings=64),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=10,
        max_text_len=64,
    )
    torch.manual_seed(0)
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    pixels = GroundingDinoImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 144})
    GroundingDinoProcessor(pixels, tokenizer).save_pretrained(folder)
    return folder


DETECTORS = {"owlvit": owlvit, "grounding_dino": grounding_dino}
