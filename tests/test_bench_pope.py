"""POPE: both versions, every file shape, the parsers, and LLaVA's published number."""

import json
import random

import oracles
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from mme_folders import write_jsonl

from cof.analyse.scores import notes
from cof.bench import pope
from cof.bench.common import yes_no
from cof.cli import main
from cof.errors import DataError
from cof.types import Question

SUFFIX = "\nAnswer the question using a single word or phrase."
SIZES = {"adversarial": (1500, 1500), "random": (1500, 1410), "popular": (1500, 1500)}
OFFSETS = {"adversarial": 0, "random": 10_000_000, "popular": 20_000_000}

# Setting -> TP, FP, TN, FN of LLaVA-1.5-13B on the 2910 version.
LLAVA_13B = {
    "random": (1182, 31, 1379, 318),
    "popular": (1182, 59, 1441, 318),
    "adversarial": (1182, 117, 1383, 318),
}


def labels(setting, yes, no):
    """Label rows with made-up objects, yes and no mixed as in the files."""
    truths = ["yes"] * yes + ["no"] * no
    random.Random(setting).shuffle(truths)
    return [
        {
            "question_id": number,
            "image": f"COCO_val2014_{number // 6:012d}.jpg",
            "text": f"Is there a {setting} thing {number} in the image?",
            "label": truth,
        }
        for number, truth in enumerate(truths, start=1)
    ]


def make(root, sizes=None):
    """Write label files and LLaVA's question file; returns {setting: label rows}."""
    sizes = sizes or dict.fromkeys(SIZES, (6, 6))
    rows = {name: labels(name, *sizes[name]) for name in SIZES}
    (root / "coco").mkdir(parents=True)
    for name in SIZES:
        write_jsonl(root / "coco" / f"coco_pope_{name}.json", rows[name])
    questions = [
        {
            "question_id": OFFSETS[name] + row["question_id"],
            "image": row["image"],
            "text": row["text"] + SUFFIX,
            "category": name,
        }
        for name in SIZES
        for row in rows[name]
    ]
    write_jsonl(root / "llava_pope_test.jsonl", questions)
    return rows


def answer_rows(rows, answer):
    """LLaVA's answers; `answer(setting, row)` is the text."""
    return [
        {
            "question_id": OFFSETS[name] + row["question_id"],
            "prompt": row["text"] + SUFFIX,
            "text": answer(name, row),
        }
        for name in SIZES
        for row in rows[name]
    ]


def cof(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_published_number_to_all_digits_from_the_command_line(tmp_path):
    rows = make(tmp_path, SIZES)
    given = {
        name: {"yes": iter(["Yes"] * tp + ["No"] * fn), "no": iter(["Yes"] * fp + ["No"] * tn)}
        for name, (tp, fp, tn, fn) in LLAVA_13B.items()
    }
    answers = answer_rows(rows, lambda name, row: next(given[name][row["label"]]))
    random.Random(0).shuffle(answers)
    file = write_jsonl(tmp_path / "answers.jsonl", answers)
    for extra in ([], ["--questions", tmp_path / "llava_pope_test.jsonl"]):
        result = cof("score", "pope", file, "--labels", tmp_path / "coco", "--json", *extra)
        assert result.exit_code == 0, result.output
        scores = json.loads(result.stdout)
        assert scores["data"] == "pope-2910"
        assert scores["parser"] == "llava"
        assert scores["mean"]["f1"] == 0.8594688090539114
        assert scores["pooled"]["f1"] == pytest.approx(0.8593239, abs=5e-8)
        assert scores["pooled"]["accuracy"] == pytest.approx(0.8696970, abs=5e-8)
        assert scores["settings"]["random"]["yes_ratio"] == pytest.approx(0.4168385, abs=5e-8)
        for name, counts in LLAVA_13B.items():
            found = scores["settings"][name]
            assert tuple(found[key] for key in ("tp", "fp", "tn", "fn")) == counts


# --- reading ---


def test_questions_come_in_llavas_order_with_its_suffix(tmp_path):
    rows = make(tmp_path)
    questions = pope.read(pope.Config(str(tmp_path)))
    assert [q.category for q in questions] == [name for name in SIZES for _ in rows[name]]
    first = questions[0]
    assert first.text == rows["adversarial"][0]["text"] + SUFFIX
    assert first.image == "val2014/COCO_val2014_000000000000.jpg"
    assert first.id == "adversarial/1"
    assert len({q.id for q in questions}) == len(questions)
    assert [q.reference for q in questions[:12]] == [row["label"] for row in rows["adversarial"]]


def test_json_arrays_are_read_like_json_lines(tmp_path):
    rows = make(tmp_path)
    as_lines = pope.read(pope.Config(str(tmp_path)))
    for name, labelled in rows.items():
        text = json.dumps(labelled, indent=4)
        (tmp_path / "coco" / f"coco_pope_{name}.json").write_text(text)
    assert pope.read(pope.Config(str(tmp_path))) == as_lines


@pytest.mark.parametrize("folder", ["", "coco", "output/coco"])
def test_label_files_are_found_where_the_releases_have_them(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    write_jsonl(tmp_path / folder / "coco_pope_random.json", labels("random", 6, 6))
    assert len(pope.read(pope.Config(str(tmp_path)))) == 12


def test_llavas_question_file_gives_the_order(tmp_path):
    make(tmp_path)
    file = tmp_path / "llava_pope_test.jsonl"
    asked = pope.read(pope.Config(str(tmp_path), questions=str(file)))
    assert asked == pope.read(pope.Config(str(tmp_path)))
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[12:] + lines[:12]))
    asked = pope.read(pope.Config(str(tmp_path), questions=str(file)))
    assert [q.category for q in asked] == ["random"] * 12 + ["popular"] * 12 + ["adversarial"] * 12


@pytest.mark.parametrize(
    ("random_rows", "name"),
    [((1500, 1410), "pope-2910"), ((1500, 1500), "pope-3000"), ((6, 6), "pope-other")],
)
def test_versions_are_told_apart(tmp_path, random_rows, name):
    make(tmp_path, {**SIZES, "random": random_rows})
    questions = pope.read(pope.Config(str(tmp_path)))
    scores = pope.score(questions, ["Yes"] * len(questions))
    assert scores["data"] == name


# --- parsers and metrics ---


@pytest.mark.parametrize(
    ("answer", "llava", "strict", "word"),
    [
        ("Yes", "yes", "yes", "yes"),
        ("No", "no", "no", "no"),
        (" no ", "no", "no", "no"),
        ("NO", "yes", "no", "no"),
        ("No\n", "yes", "no", "no"),
        ("It isn't there", "yes", "other", "other"),
        ("There is not a dog. Yes", "no", "other", "yes"),
        ("No, there is no dog", "no", "other", "no"),
        ("Yes. There is no cat", "yes", "other", "other"),
        ("", "yes", "other", "other"),
        ("I cannot say", "yes", "other", "other"),
        ("yes!", "yes", "other", "yes"),
        ("Yes:", "yes", "other", "other"),
        ("**Yes**", "yes", "other", "other"),
        ("'Yes'", "yes", "other", "other"),
        ("No\u2014absolutely", "yes", "other", "other"),
        ("Yes.", "yes", "other", "yes"),
        ("Yes.It is", "yes", "other", "other"),  # a period goes, and the words grow together
        ("yes,no", "yes", "other", "other"),
        ("(No)", "yes", "other", "no"),
        ("No-one is there", "yes", "other", "no"),
        ("No- one is there", "yes", "other", "no"),
        ("yes/it is", "yes", "other", "yes"),
        ("1,000 dogs: no/yes", "yes", "other", "other"),  # in thousands every mark goes
        ("Yes, it is the no. 1", "no", "other", "other"),
        ('"Yes"', "yes", "other", "yes"),
    ],
)
def test_parsers(answer, llava, strict, word):
    found = (yes_no.parse_llava(answer), yes_no.parse_strict(answer), yes_no.parse_word(answer))
    assert found == (llava, strict, word)
    assert oracles.pope_prediction(answer) == llava


def yes_or_no(output):
    """VLMEvalKit's extraction, the slow and obvious way."""
    text = output.lower()
    thousands = any(
        text[k].isdigit() and text[k + 1] == "," and text[k + 2].isdigit()
        for k in range(len(text) - 2)
    )
    out = text
    for mark in [*";/[]", '"', *"{}()=+\\_-><@`,?!"]:
        alone = (mark + " ") in text or (" " + mark) in text
        out = out.replace(mark, "" if alone or thousands else " ")
    kept, gone = "", 0
    for k, sign in enumerate(out):
        if sign == "." and not out[k + 1 : k + 2].isdigit() and gone < 32:
            gone += 1
        else:
            kept += sign
    words = kept.split()
    found = [word for word in ("yes", "no") if word in words]
    return found[0] if len(found) == 1 else "other"


@given(st.text(st.sampled_from("yesnoYESNO .,:;-_/!?()*'1 2"), max_size=14))
@example("yes" + "." * 40)
def test_the_word_parser_is_vlmevalkits(answer):
    assert yes_no.parse_word(answer) == yes_or_no(answer)


WORDS = ["Yes", "No", "no", "Yes, it is", "There is not. yes", "NO", "", "None", "No.", "Yes."]


@pytest.mark.parametrize("seed", range(5))
def test_equals_llavas_script(tmp_path, seed):
    rows = make(tmp_path, dict.fromkeys(SIZES, (50, 40)))
    rng = random.Random(seed)
    questions = pope.read(pope.Config(str(tmp_path)))
    answers = [rng.choice(WORDS) for _ in questions]
    scores = pope.score(questions, answers)
    for place, name in enumerate(SIZES):
        mine = [oracles.pope_prediction(text) for text in answers[90 * place : 90 * place + 90]]
        expected = oracles.pope_setting(mine, [row["label"] for row in rows[name]])
        found = scores["settings"][name]
        keys = ("tp", "fp", "tn", "fn", "accuracy", "precision", "recall", "f1", "yes_ratio")
        assert tuple(found[key] for key in keys) == expected
    f1 = [scores["settings"][name]["f1"] for name in SIZES]
    assert scores["mean"]["f1"] == pytest.approx(sum(f1) / 3, abs=1e-15)


def test_hand_scored_with_answers_that_are_neither():
    truths = ["yes", "yes", "yes", "no", "no", "no"]
    given = ["yes", "no", "perhaps", "yes", "no", "perhaps"]
    asked = [
        Question(f"random/{k}", "i", "?", "random", truth)
        for k, truth in enumerate(truths, start=1)
    ]
    config = pope.Config("", parser="strict")
    found = pope.score(asked, given, config)["settings"]["random"]
    assert found == {
        **{"n": 6, "tp": 1, "fp": 1, "tn": 1, "fn": 1, "other": 2},
        **{"accuracy": 1 / 3, "precision": 1 / 2, "recall": 1 / 3, "f1": 0.4, "yes_ratio": 1 / 3},
    }
    credits = [pope.credit(q, a, config) for q, a in zip(asked, given, strict=True)]
    assert credits == [1, 0, 0, 0, 1, 0]


def test_nothing_predicted_yes_is_no_division_by_zero():
    asked = [Question("random/1", "i", "?", "random", "yes")]
    found = pope.score(asked, ["no"])["settings"]["random"]
    assert (found["precision"], found["recall"], found["f1"]) == (0, 0, 0)


# --- foreign files ---


@pytest.mark.parametrize("parser", ["llava", "strict", "word"])
def test_scoring_an_export_gives_the_same_scores(tmp_path, parser):
    make(tmp_path)
    config = pope.Config(str(tmp_path), parser=parser)
    questions = pope.read(config)
    answers = [random.Random(k).choice(WORDS) for k, _ in enumerate(questions)]
    written = pope.export(questions, answers, tmp_path / "out")
    assert [file.name for file in written] == [
        *("llava_pope_answers.jsonl", "pope_random.json"),
        *("pope_popular.json", "pope_adversarial.json"),
    ]
    found = pope.read_answers(written[0], config)
    scores = pope.score(found.questions, found.texts, config)
    assert scores == pope.score(questions, answers, config)
    official = [json.loads(line) for line in written[1].read_text().splitlines()]
    rows = [(q, a) for q, a in zip(questions, answers, strict=True) if q.category == "random"]
    assert official == [{"question": q.text.removesuffix(SUFFIX), "answer": a} for q, a in rows]


def unknown(folder, answers):
    answers[4]["question_id"] = 999
    return "answers.jsonl:5: '999' is not among the questions"


def twice(folder, answers):
    answers[4] = answers[3]
    return "answers.jsonl:5: '4' occurs once too often"


def missing(folder, answers):
    del answers[4]
    return "answers.jsonl: 1 of 36 questions have no answer, the first is adversarial/5"


def other_prompt(folder, answers):
    answers[4]["prompt"] = "Is there a walrus in the image?" + SUFFIX
    return "answers.jsonl:5: asks 'Is there a walrus"


def fewer_labels(folder, answers):
    write_jsonl(folder / "coco" / "coco_pope_random.json", labels("random", 6, 6)[:-1])
    return "llava_pope_test.jsonl:24: more random questions than its 11 labels"


def more_labels(folder, answers):
    rows = labels("random", 6, 6)
    write_jsonl(folder / "coco" / "coco_pope_random.json", [*rows, rows[0]])
    return "llava_pope_test.jsonl: 12 random questions for 13 labels; mixed versions"


def other_labels(folder, answers):
    rows = labels("random", 6, 6)
    rows[0], rows[7] = rows[7], rows[0]
    write_jsonl(folder / "coco" / "coco_pope_random.json", rows)
    return "llava_pope_test.jsonl:13: asks 'is there random thing 1 in image?'"


def bad_label(folder, answers):
    rows = labels("random", 6, 6)
    rows[2]["label"] = "maybe"
    write_jsonl(folder / "coco" / "coco_pope_random.json", rows)
    return "coco_pope_random.json:3: label 'maybe', expected 'yes' or 'no'"


def no_labels(folder, answers):
    (folder / "coco" / "coco_pope_random.json").unlink()
    return "llava_pope_test.jsonl:13: category 'random' has no label file"


def same_id_twice(folder, answers):
    file = folder / "llava_pope_test.jsonl"
    text = file.read_text()
    file.write_text(text.replace('"question_id": 2,', '"question_id": 1,'))
    return "llava_pope_test.jsonl: '1' occurs twice"


@pytest.mark.parametrize(
    "damage",
    [
        *(unknown, twice, missing, other_prompt, fewer_labels, more_labels, other_labels),
        *(bad_label, no_labels, same_id_twice),
    ],
)
def test_bad_input_is_refused_by_name(tmp_path, damage):
    rows = make(tmp_path)
    answers = answer_rows(rows, lambda name, row: "Yes")
    message = damage(tmp_path, answers)
    file = write_jsonl(tmp_path / "answers.jsonl", answers)
    config = pope.Config(str(tmp_path), questions=str(tmp_path / "llava_pope_test.jsonl"))
    with pytest.raises(DataError) as error:
        pope.read_answers(file, config)
    assert message in str(error.value)


def test_command_line_options(tmp_path):
    rows = make(tmp_path)
    answers = answer_rows(rows, lambda name, row: "NO")
    file = write_jsonl(tmp_path / "answers.jsonl", answers[:-2])
    given = ("score", "pope", file, "--labels", tmp_path)
    assert "2 of 36 questions have no answer" in cof(*given).stderr
    result = cof(*given, "--allow-missing", "--json", "parser=word")
    scores = json.loads(result.stdout)
    assert (scores["parser"], scores["unanswered"], scores["pooled"]["n"]) == ("word", 2, 34)
    assert scores["pooled"]["yes_ratio"] == 0
    refused = cof(*given, "colour=red")
    assert refused.exit_code == 2
    assert "pope.colour: unknown key (value 'red'); there is: images, parser" in refused.stderr
    assert "needs --labels" in cof("score", "pope", file).stderr


def test_empty_answers_that_count_as_yes_are_said(tmp_path):
    """As a model without a word answers: recall 1, and half of the questions right."""
    rows = make(tmp_path)
    answers = answer_rows(rows, lambda name, row: " " if name == "random" else "Yes")
    file = write_jsonl(tmp_path / "answers.jsonl", answers)
    given = ("score", "pope", file, "--labels", tmp_path, "--json")
    result = cof(*given)
    scores = json.loads(result.stdout)
    assert (scores["blank_yes"], scores["settings"]["random"]["recall"]) == (12, 1)
    assert "note: empty answers, which this parser takes for a yes (parser=word" in result.stderr
    assert result.stderr.endswith("yes nor no): 12\n")
    other = cof(*given, "parser=word")
    assert json.loads(other.stdout)["settings"]["random"]["other"] == 12
    assert other.stderr == ""
    passes = {"plain": {"blank_yes": 3, "pooled": {}}, "cof": {"pooled": {}}}
    assert notes(passes)[0].endswith(": plain 3")
    passes["cof"]["blank_yes"] = 36
    assert notes(passes)[0].endswith(": plain 3, CoF 36")
    questions = pope.read(pope.Config(str(tmp_path)))
    assert "blank_yes" not in pope.score(questions, [None] * 36)
