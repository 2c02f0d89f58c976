"""The example of highlighted facts, on a tiny random language model: spans, bias, table."""

import importlib.util
import math
import sys

import pytest
import torch
from committed import ROOT
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def facts():
    spec = importlib.util.spec_from_file_location("text_facts", ROOT / "examples/text_facts.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["text_facts"] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small(facts):
    """A model and a tokenizer whose tokens are words."""
    words = [*facts.NAMES.split(), *facts.CITIES.split(), "lives", "in", "Facts", ".", ":", "?"]
    words += ["Question", "Answer", "Where", "does", "live", "Who", "The", "one", "who", "is"]
    vocab = {"[UNK]": 0} | {word: place for place, word in enumerate(words, 1)}
    core = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")
    return LlamaForCausalLM(config).eval(), tokenizer


@pytest.mark.parametrize(("template", "half"), [("city", 3), ("name", 0)])
def test_spans_are_the_facts_and_the_question_is_about_the_right_one(facts, template, half):
    for task in facts.tasks(template, 1, 20):
        lines = [task.text[first:last] for first, last in task.spans]
        assert len(set(lines)) == 12
        assert all(line.endswith(".") and " lives in " in line for line in lines)
        assert task.text.startswith("Facts:\n" + "\n".join(lines) + "\nQuestion: ")
        asked, kept = task.text.rpartition("Question:")[2], lines[task.right].rstrip(".").split()
        assert kept[3 - half] in asked
        assert task.answers[task.right] == kept[half]
        assert kept[half] not in asked
        assert task.wrong != task.right
    again = [one.text for one in facts.tasks(template, 1, 20)]
    assert again == [one.text for one in facts.tasks(template, 1, 20)]
    assert again != [one.text for one in facts.tasks(template, 2, 20)]


def test_the_choice_is_that_of_a_mask_by_hand(facts, small):
    """transformers' own attention, given a mask with log(weight) in the fact's columns."""
    model, tokenizer = small
    other = LlamaForCausalLM(model.config).eval()
    other.load_state_dict(model.state_dict())
    other.set_attn_implementation("eager")
    changed = 0
    for task in facts.tasks("city", 3, 10):
        found = tokenizer(task.text)
        firsts = tokenizer.convert_tokens_to_ids(list(task.answers))
        plain = facts.chosen(model, tokenizer, task)
        for which in facts.LIT:
            wanted = {"right fact": [task.right], "wrong fact": [task.wrong]}.get(which, range(12))
            begins = [2 + 5 * place for place in wanted]  # behind "Facts" and its colon
            bias = torch.zeros(len(found.input_ids))
            for begin in begins:
                assert found.input_ids[begin] == tokenizer.convert_tokens_to_ids(
                    task.text[task.spans[(begin - 2) // 5][0] :].split()[0]
                )
                bias[begin : begin + 5] = math.log(8.0)
            mask = torch.full((len(bias), len(bias)), torch.finfo(torch.float32).min).triu(1) + bias
            with torch.no_grad():
                logits = other(
                    input_ids=torch.tensor([found.input_ids]), attention_mask=mask[None, None]
                ).logits
            expected = int(logits[0, -1, firsts].argmax())
            assert facts.chosen(model, tokenizer, task, which, 8.0) == expected
            changed += expected != plain
    assert changed


def test_answers_that_cannot_be_told_apart_are_refused(facts, small):
    model, _ = small
    core = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    blind = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")
    task = next(facts.tasks("city", 1, 1))
    with pytest.raises(ValueError, match="begin with the same token"):
        facts.chosen(model, blind, task)


def test_the_table_is_paired_and_corrected(facts, small):
    found = facts.credits(*small, list(facts.tasks("name", 5, 4)))
    assert list(found) == ["plain", *(f"{one}, λ {w:g}" for w in (4.5, 2) for one in facts.LIT)]
    plain, better = [1.0, 0.0] * 20, [1.0, 1.0, 1.0, 0.0] * 10
    rows = facts.table("drawn", {"plain": plain, "a": better, "b": plain}).rows
    assert [row[0] for row in rows] == ["plain", "a", "b"]
    assert rows[0][1].estimate.value == 50.0
    assert rows[1][2].estimate.value == 25.0
    assert rows[1][3:5] == (10, 0)
    assert rows[1][5] == pytest.approx(2 * 2 / 2**10)  # all ten signs alike, Holm over two
    assert rows[2][2:] == (rows[2][2], 0, 0, 1.0)
