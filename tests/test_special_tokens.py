"""Texts that hold `<s>`, `</s>`, `<unk>`: the ids of the original LLaVA's tokenizer.

Two oracles: sentencepiece itself, and ids recorded from the published code's own version of
transformers (`data/special_token_ids.json`).
"""

import json
import re
import shutil
from itertools import chain

import pytest
from sentencepiece import SentencePieceProcessor

from cof.models.common.checkpoint import find
from cof.models.llava.tokenizer import encoder, load_tokenizer

PLAIN = {key: f"<{name}>" for key, name in (("bos_token", "s"), ("eos_token", "/s"))}
PLAIN |= {"unk_token": "<unk>", "pad_token": "<unk>"}


def edit(folder, name, **values):
    file = folder / name
    said = json.loads(file.read_text()) if file.is_file() else {}
    said = {key: value for key, value in (said | values).items() if value is not None}
    file.write_text(json.dumps(said))


def set_legacy(value):
    return lambda folder: edit(folder, "tokenizer_config.json", legacy=value)


def plain_names(folder):
    edit(folder, "special_tokens_map.json", **PLAIN)


def no_map(folder):
    (folder / "special_tokens_map.json").unlink()


def added_tokens(folder):
    edit(folder, "added_tokens.json", **{"<im_start>": 1280, "<im_end>": 1281})


VARIANTS = {
    "legacy false": (),
    "legacy true": (set_legacy(True),),
    "legacy absent": (set_legacy(None),),
    "plain names": (set_legacy(True), plain_names),
    "no map": (set_legacy(True), no_map),
    "added tokens": (set_legacy(True), added_tokens),
}


@pytest.fixture
def encode(golden, tmp_path):
    """The recorded checkpoint's tokenizer, after changes to its files."""

    def load(*changes, resaved=False):
        folder = shutil.copytree(golden / "checkpoint", tmp_path / "checkpoint")
        for change in changes:
            change(folder)
        tokenizer = load_tokenizer(find(str(folder)))
        if resaved:  # tokenizer.json alone, as transformers 5 writes it
            (folder / "tokenizer.model").unlink()
            tokenizer.save_pretrained(folder)
            set_legacy(True)(folder)
            tokenizer = load_tokenizer(find(str(folder)))
        return encoder(tokenizer, folder)

    return load


@pytest.fixture(scope="module")
def recorded(golden):
    said = json.loads((golden.parent / "special_token_ids.json").read_text(encoding="utf-8"))
    return {row["variant"]: row["ids"] for row in said["variants"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_ids_are_those_of_the_published_codes_tokenizer(encode, recorded, variant):
    ids = encode(*VARIANTS[variant])
    assert {text: ids(text) for text, _ in recorded[variant]} == dict(recorded[variant])


@pytest.mark.parametrize("resaved", [False, True])
def test_a_text_is_split_at_special_tokens_and_its_parts_are_sentencepieces(
    encode, golden, recorded, resaved
):
    pieces = SentencePieceProcessor(model_file=str(golden / "checkpoint" / "tokenizer.model"))
    special = {"<unk>": 0, "<s>": 1, "</s>": 2}
    ids = encode(set_legacy(True), resaved=resaved)
    more = ["no special token at all, 12.5 %", "<s></s><unk>", "A </s>  two\n\nlines <s>\n"]
    for text in [*(text for text, _ in recorded["legacy true"]), *more]:
        parts = re.split("(<unk>|</?s>)", text)
        wanted = [[special[part]] if part in special else pieces.encode(part) for part in parts]
        assert ids(text) == list(chain.from_iterable(wanted)), text


def test_prompts_with_special_tokens_are_the_published_ones(llava, golden, monkeypatch):
    rows = json.loads((golden / "prompts.json").read_text(encoding="utf-8"))
    rows = [row for row in rows if "</s>" in row["question"]]
    assert len(rows) == 4
    for row in rows:
        monkeypatch.setattr(llava, "conv", row["conv_mode"])
        before, after = llava.token_ids(row["question"])
        assert [*before, -200, *after] == row["input_ids_answer"]


def test_answers_that_are_weighed_hold_the_same_ids(llava):
    assert llava.answer_ids("a</s>b")[-3:] == [2, 1210, 2]  # as recorded, then the end of reply
