"""The embedded model's tokenizer: byte-level BPE trained on the world's own sentences.

A piece carries the space before it (' red'), so a word is the same token in a question and in a
reply; a coordinate ('0.42') never does, so all four numbers of a box share their tokens. Bytes
are the fallback: any text can be encoded.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from cof.files import whole_folder
from cof_lab import wording
from cof_lab.question_context import QuestionContext, UnaskableError
from cof_lab.questions import WORD_KINDS, YES_NO_KINDS, ask, multiple_choice
from cof_lab.world import COLORS, GLYPHS, SHAPES, describe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIALS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
UNK, BOS, EOS, PAD, IMAGE = range(5)
# In this order: a coordinate, a digit, the comma before a coordinate, a word, JSON's brackets.
PIECES = r'\d\.\d+| ?\d|, (?=\d\.)| ?[A-Za-z]+| ?\{"|": \[?| ?\[|\]\}|\], \[| ?[^\sA-Za-z\d]|\n|\s'


def corpus(scenes: int = 300) -> list[str]:
    """Training text: every template and coordinate, and questions about some scenes."""
    lines = [wording.OPENING, wording.SUFFIX, *wording.GROUNDINGS]
    lines += [*wording.REFER, wording.YES_NO, wording.WORD, wording.LETTER]
    lines += [text for texts in wording.TEMPLATES.values() for text in texts] * 4
    lines += [f"{k / 100:.2f}" for k in range(101)] * 20
    words = itertools.chain(COLORS, SHAPES, GLYPHS, wording.NUMBERS, wording.SIDES, ("Yes", "No"))
    lines += [f" {word}" for word in [*words, "none", "yes", "no"]] * 20
    lines += [wording.bbox_reply([[0.1] * 4] * k) for k in range(4)] * 20
    batch = describe(range(scenes), "mixed", split="train")
    for row in range(scenes):
        context = QuestionContext(batch.things(row), Random(row))
        for kind in (*YES_NO_KINDS, *WORD_KINDS):
            try:
                question = ask(context, kind)
            except UnaskableError:
                continue
            lines.append(question.text)
            if question.options:
                lines.append(multiple_choice(question, context.random).text)
    return lines


def train_tokenizer(size: int = 1024) -> PreTrainedTokenizerFast:
    """Train the BPE; deterministic. `size` is the most pieces there may be."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(unk_token=None))
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, bytewise])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    bpe.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), SPECIALS, strict=False))
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        extra_special_tokens={"image_token": "<image>"},
        **names,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and its configuration."""
    with whole_folder(folder) as fresh:
        tokenizer.save_pretrained(fresh)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """What `save_tokenizer` wrote."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)
