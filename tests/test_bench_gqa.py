"""GQA: exact match after LLaVA's converter, and the official parts."""

import json

import pytest
from mme_folders import write_jsonl

from cof.bench import gqa
from cof.errors import DataError

SUFFIX = "\nAnswer the question using a single word or phrase."
ITEMS = {
    "201307251": ("Is it red?", "n1", "no", "verify", "attr"),
    "201307252": ("What is it?", "n1", "cup", "query", "obj"),
    "201307253": ("Is it left or right?", "n2", "left", "choose", "rel"),
    "201307254": ("Who is it?", "n2", "woman", "query", "rel"),
}


@pytest.fixture
def root(tmp_path):
    content = {
        name: {
            "question": text,
            "imageId": image,
            "answer": answer,
            "isBalanced": True,
            "types": {"structural": structural, "semantic": semantic, "detailed": None},
        }
        for name, (text, image, answer, structural, semantic) in ITEMS.items()
    }
    (tmp_path / "testdev_balanced_questions.json").write_text(json.dumps(content))
    rows = [
        {"question_id": name, "image": f"{item[1]}.jpg", "text": item[0] + SUFFIX}
        for name, item in reversed(ITEMS.items())
    ]
    write_jsonl(tmp_path / "llava.jsonl", rows)
    return tmp_path


def questions_of(root, **options):
    return gqa.read(gqa.Config(str(root), **options))


def test_questions_and_their_order(root):
    questions = questions_of(root)
    assert [q.id for q in questions] == list(ITEMS)
    assert questions[0].text == "Is it red?" + SUFFIX
    assert questions[0].image == "images/n1.jpg"
    assert questions[0].category == "verify/attr"
    asked = questions_of(root, questions=str(root / "llava.jsonl"))
    assert asked == questions[::-1]


@pytest.mark.parametrize(
    ("answer", "right"),
    [("cup", 1), ("Cup.", 1), ("CUP..", 1), (" cup", 0), ("cup. ", 0), ("a cup", 0), ("", 0)],
)
def test_match_is_exact_after_the_converter(root, answer, right):
    assert gqa.credit(questions_of(root)[1], answer) == right


def test_hand_scored(root):
    scores = gqa.score(questions_of(root), ["No.", "mug", "left", "Woman"])
    assert scores == {
        **{"benchmark": "gqa", "version": "1", "all": {"n": 4, "accuracy": 0.75}},
        "answer_types": {
            "binary": {"n": 2, "accuracy": 1.0},
            "open": {"n": 2, "accuracy": 0.5},
        },
        "structural": {
            "choose": {"n": 1, "accuracy": 1.0},
            "query": {"n": 2, "accuracy": 0.5},
            "verify": {"n": 1, "accuracy": 1.0},
        },
        "semantic": {
            "attr": {"n": 1, "accuracy": 1.0},
            "obj": {"n": 1, "accuracy": 0.0},
            "rel": {"n": 2, "accuracy": 1.0},
        },
    }
    assert gqa.table(scores)[0] == ("accuracy", 75.0, 4)


def test_scoring_an_export_gives_the_same_scores(root):
    config = gqa.Config(str(root))
    questions, answers = questions_of(root), ["No.", "mug", "left", "Woman"]
    llava, official = gqa.export(questions, answers, root / "out")
    for file in (llava, official):
        found = gqa.read_answers(file, config)
        assert gqa.score(found.questions, found.texts) == gqa.score(questions, answers)
    assert json.loads(official.read_text())[3] == {
        **{"questionId": "201307254", "prediction": "woman"},
    }


def test_bad_input_is_refused_by_name(root):
    rows = [{"question_id": name, "text": "no"} for name in ITEMS]
    file = write_jsonl(root / "answers.jsonl", [*rows, {"question_id": "5", "text": "no"}])
    with pytest.raises(DataError, match=r"answers.jsonl:5: '5' is not among the questions"):
        gqa.read_answers(file, gqa.Config(str(root)))
    write_jsonl(file, rows[:3])
    with pytest.raises(DataError, match="1 of 4 questions have no answer, the first is 201307254"):
        gqa.read_answers(file, gqa.Config(str(root)))
    asked = [{"question_id": "201307251", "text": "Is it blue?" + SUFFIX}]
    write_jsonl(root / "llava.jsonl", asked)
    with pytest.raises(DataError, match=r"llava.jsonl:1: asks 'Is it blue.* has 'Is it red"):
        questions_of(root, questions=str(root / "llava.jsonl"))
    write_jsonl(root / "llava.jsonl", [{"question_id": "7", "text": "?"}])
    with pytest.raises(DataError, match=r"llava.jsonl:1: asks 7, which the question file"):
        questions_of(root, questions=str(root / "llava.jsonl"))
    content = {"1": {"question": "?", "imageId": "n", "answer": "a", "isBalanced": False}}
    (root / "testdev_balanced_questions.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"questions.json: 1: not of the balanced set"):
        questions_of(root)
