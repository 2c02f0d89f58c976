"""A checkpoint's files: two tokenizers, the Q-Former's in a folder of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cof.errors import ModelError
from cof.models.common import transformers_files
from cof.models.common.chat import load_tokenizer
from cof.models.common.checkpoint import Checkpoint, digest

KINDS = ("instructblip",)
QFORMER = "qformer_tokenizer"
TEXT = ("llama",)
"""Language models that it may have inside."""


class Tokenizers(NamedTuple):
    """Of the language model, and of the Q-Former (BERT's)."""

    text: Any
    asking: Any


def find(path: str) -> Checkpoint:
    """A checkpoint of transformers' layout; its revision is of the Q-Former's tokenizer too.

    Raises:
        ModelError: nothing is there, it is no InstructBLIP, or one with a language model that is
            not LLaMA's.
    """
    checkpoint = transformers_files.find(path, KINDS)
    inside = (checkpoint.config.get("text_config") or {}).get("model_type")
    if inside not in TEXT:
        raise ModelError(
            f"{checkpoint.folder}: its language model is {inside!r}; an InstructBLIP here needs "
            f"one that only decodes ({', '.join(TEXT)}), such as "
            "Salesforce/instructblip-vicuna-7b; Flan-T5 is not supported"
        )
    folders = (checkpoint.folder, checkpoint.folder / QFORMER)
    return replace(checkpoint, revision=digest(*folders))


def load_tokenizers(folder: Path) -> Tokenizers:
    """Both tokenizers.

    Raises:
        ModelError: files of one are missing or damaged.
    """
    if not (folder / QFORMER).is_dir():
        raise ModelError(f"{folder}: no {QFORMER}/, the tokenizer of the Q-Former's questions")
    return Tokenizers(load_tokenizer(folder), load_tokenizer(folder / QFORMER))
