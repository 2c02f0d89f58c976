"""TextVQA: soft accuracy, EvalAI's normalisation, prompts with and without OCR tokens."""

import json
import random

import oracles
import pytest
from fakes import StubModel
from mme_folders import write_jsonl
from PIL import Image

from cof.batch import Batch
from cof.bench import textvqa
from cof.bench.common.vqa_words import normalise
from cof.errors import DataError
from cof.locate import prompt

SUFFIX = "\nAnswer the question using a single word or phrase."


@pytest.fixture
def root(tmp_path):
    rng = random.Random(0)
    data = [
        {
            "question_id": 34600 + k,
            "image_id": f"{k // 2:016x}",
            "question": f"what does sign {k} say?",
            "answers": [rng.choice(["stop", "go", "exit"]) for _ in range(10)],
        }
        for k in range(12)
    ]
    data[7] |= {"image_id": data[6]["image_id"], "question": data[6]["question"]}
    (tmp_path / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": data}))
    rows = [
        {
            "question_id": item["image_id"],
            "image": item["image_id"] + ".jpg",
            "text": item["question"].capitalize() + "\nReference OCR token: A, b" + SUFFIX,
        }
        for item in reversed(data)
    ]
    write_jsonl(tmp_path / "llava.jsonl", rows)
    return tmp_path


def questions_of(root, **options):
    return textvqa.read(textvqa.Config(str(root), **options))


def test_questions_without_and_with_ocr_tokens(root):
    plain = questions_of(root)
    assert plain[0].id == "34600"
    assert plain[0].image == "train_images/0000000000000000.jpg"
    assert plain[0].text == "what does sign 0 say?" + SUFFIX
    asked = questions_of(root, questions=str(root / "llava.jsonl"))
    assert asked[-1].text == "What does sign 0 say?\nReference OCR token: A, b" + SUFFIX
    assert len({q.id for q in asked}) == 12, "a question that is asked twice keeps two ids"
    assert {q.id for q in asked} == {q.id for q in plain}
    answers = ["stop"] * 12
    assert textvqa.score(plain, answers)["ocr"] == "without"
    assert textvqa.score(asked, answers)["ocr"] == "with"
    assert textvqa.score([plain[0], asked[0]], ["stop"] * 2)["ocr"] == "mixed"


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        *(("Stop", "stop"), ("the stop", "stop"), ("STOP!", "stop"), ("two", "2")),
        *(("a dont walk", "don't walk"), ("1,000", "1000"), ("3.5", "3.5"), ("stop.", "stop")),
        *(("coca-cola", "coca cola"), ("coca - cola", "coca cola"), ("joe's", "joe 's")),
        *(("none", "0"), ("\n stop\t", "stop"), ("", ""), ("somebody'd", "somebodyd")),
        *(("shouldntve", "shouldntve"), ("shouldn'tve", "shouldn't've"), ("ow's'at", "ow 's'at")),
    ],
)
def test_normalisation(answer, normal):
    assert normalise(answer) == normal


def test_soft_accuracy_equals_the_definition(root):
    questions = questions_of(root)
    for question in questions:
        truths = json.loads(question.reference)
        for answer in ("stop", "go", "exit", "walk"):
            credit = textvqa.credit(question, answer)
            assert credit == pytest.approx(oracles.vqa_accuracy(answer, truths), abs=1e-12)


def test_hand_scored(root):
    truths = json.dumps(["stop"] * 2 + ["go"] + ["exit"] * 7)
    question = questions_of(root)[0]
    question = type(question)(question.id, question.image, question.text, reference=truths)
    credits = {"stop": (8 * 2 / 3 + 2 * 1 / 3) / 10, "go": 9 * (1 / 3) / 10, "exit": 1.0}
    for answer, credit in credits.items():
        assert textvqa.credit(question, answer) == pytest.approx(credit, abs=1e-12)
    scores = textvqa.score([question] * 2, ["EXIT", "no"])
    assert scores["accuracy"] == 0.5


@pytest.mark.parametrize("ocr", [False, True])
def test_scoring_an_export_gives_the_same_scores(root, ocr):
    config = textvqa.Config(str(root), questions=str(root / "llava.jsonl") if ocr else "")
    questions = textvqa.read(config)
    answers = [random.Random(k).choice(["Stop", "the go", "exit."]) for k in range(12)]
    scores = textvqa.score(questions, answers)
    llava, submission = textvqa.export(questions, answers, root / "out")
    for file in (llava, submission):
        found = textvqa.read_answers(file, config)
        assert textvqa.score(found.questions, found.texts) == scores
    found = textvqa.read_answers(llava, textvqa.Config(str(root)))
    assert textvqa.score(found.questions, found.texts) == scores, "the prompts tell about tokens"
    sent = json.loads(submission.read_text())
    assert sent[0] == {"question_id": int(questions[0].id), "answer": answers[0]}


def test_bad_input_is_refused_by_name(root):
    questions = questions_of(root)
    file, _ = textvqa.export(questions, ["stop"] * 12, root / "out")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    write_jsonl(file, rows[1:])
    with pytest.raises(DataError, match="1 of 12 questions have no answer, the first is 34600"):
        textvqa.read_answers(file, textvqa.Config(str(root)))
    rows[2]["prompt"] = "why?" + SUFFIX
    write_jsonl(file, rows)
    with pytest.raises(DataError, match=r"answers.jsonl:3: .* 'why\?' is not among the questions"):
        textvqa.read_answers(file, textvqa.Config(str(root)))
    with pytest.raises(DataError, match="no such folder or file; looked for TextVQA"):
        questions_of(root / "nowhere")
    annotation = root / "TextVQA_0.5.1_val.json"
    data = json.loads(annotation.read_text())
    data["data"][2]["answers"].pop()
    annotation.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"data 3: answers .* expected ten"):
        questions_of(root)


def test_a_test_split_has_no_accuracy(root):
    annotation = root / "TextVQA_0.5.1_val.json"
    data = json.loads(annotation.read_text())
    for item in data["data"]:
        del item["answers"]
    annotation.write_text(json.dumps(data))
    scores = textvqa.score(questions_of(root), ["stop"] * 12)
    assert scores["accuracy"] is None
    assert textvqa.table(scores) == []


def test_ten_empty_answers_are_none(root):
    annotation = root / "TextVQA_0.5.1_val.json"
    data = json.loads(annotation.read_text())
    for item in data["data"]:
        item["answers"] = ["", " "] * 5
    annotation.write_text(json.dumps(data))
    questions = questions_of(root)
    assert {question.reference for question in questions} == {""}
    assert textvqa.score(questions, [""] * 12)["accuracy"] is None


def test_the_coarse_stage_is_asked_about_the_question_where_the_tokens_stand_first(root):
    file = root / "llava.jsonl"
    assert {q.core for q in questions_of(root, questions=str(file))} == {""}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        question, tokens, suffix = row["text"].split("\n")
        row["text"] = "\n".join([tokens, question, suffix])
    write_jsonl(file, rows)
    asked = questions_of(root, questions=str(file))
    assert asked[-1].text == "Reference OCR token: A, b\nWhat does sign 0 say?" + SUFFIX
    assert asked[-1].core == "What does sign 0 say?"
    model = StubModel()
    prompt.locate(Batch.of(model, asked[-1:], [Image.new("RGB", (8, 6))]), prompt.Config())
    assert model.seen[0].prompt.startswith("What does sign 0 say?\n")
    answers, _ = textvqa.export(asked, ["stop"] * 12, root / "out")
    found = textvqa.read_answers(answers, textvqa.Config(str(root)))
    assert {q.id: q.core for q in found.questions} == {q.id: q.core for q in asked}
