"""Your own questions: read, asked, scored; and `cof answer`, which needs no right answers."""

import json

import pytest
from click.testing import CliRunner
from fakes import StubPipeline
from mme_folders import write_jsonl
from PIL import Image

from cof.bench import jsonl
from cof.cli import main
from cof.config import schema
from cof.errors import DataError
from cof.evaluate import runner
from cof.store.dataset import read_questions

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
ROWS = [
    {"image": "a.jpg", "question": "Is it on?", "answer": "Yes", "category": "state"},
    {"image": "b.jpg", "question": "What colour?", "answer": "blue", "options": ["red", "blue"]},
    {"image": "b.jpg", "question": "What does it say?", "answer": ["stop", "STOP sign"], "id": "s"},
    {"image": "a.jpg", "question": "Which shop?", "answer": ["kiosk"] * 7 + ["stall"] * 2 + ["x"]},
]


def make(folder, rows=ROWS):
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        Image.new("RGB", (8, 6)).save(folder / "pictures" / f"{name}.jpg")
    return write_jsonl(folder / "questions.jsonl", rows)


def questions_of(file, **options):
    return jsonl.read(jsonl.Config(str(file), **options))


def cof(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_questions_are_asked_as_llava_does_or_as_they_are(tmp_path):
    file = make(tmp_path)
    asked = questions_of(file)
    assert asked == questions_of(tmp_path)
    assert [one.id for one in asked] == ["1", "2", "s", "4"]
    assert asked[0].text == "Is it on?" + SHORT
    assert asked[1].text == "What colour?\nA. red\nB. blue" + LETTER
    assert json.loads(asked[1].reference) == ["B"]
    as_they_are = questions_of(file, suffix="none")
    assert [one.text for one in as_they_are[:2]] == [
        "Is it on?",
        "What colour?\nA. red\nB. blue",
    ]


def test_an_answer_that_names_two_options_is_refused(tmp_path):
    row = {"image": "a.jpg", "question": "Which?"}
    file = make(tmp_path, [{**row, "options": ["A", "B"], "answer": "A"}])
    assert json.loads(questions_of(file)[0].reference) == ["A"]
    make(tmp_path, [{**row, "options": ["B", "A"], "answer": "A"}])
    with pytest.raises(
        DataError, match=r"jsonl:1: answer .*'A'.* is one option's letter .*; give options texts"
    ):
        questions_of(file)


def test_hand_scored_set(tmp_path):
    questions = questions_of(make(tmp_path))
    scores = jsonl.score(questions, ["Yes, it is.", "(B)", " Stop sign. ", "stall"])
    # stall: two of ten; each of those two leaves one match, each other leaves two
    soft = (2 * (1 / 3) + 8 * (2 / 3)) / 10
    assert scores["rules"] == {"choice": 1, "yes_no": 1, "vqa": 1, "exact": 1}
    assert scores["accuracy"] == pytest.approx((3 + soft) / 4)
    assert scores["categories"] == {"state": {"n": 1, "accuracy": 1.0}}
    assert [row[0] for row in jsonl.table(scores)] == ["accuracy", "state"]
    wrong = jsonl.score(questions, ["yes or no", "red and blue", "a stop sign", "shop"])
    assert (wrong["accuracy"], wrong["unresolved"]) == (0.0, 2)
    assert jsonl.score(questions, [None] * 4)["accuracy"] == 0.0


def test_a_rule_may_be_chosen(tmp_path):
    file = make(tmp_path, [ROWS[0]])
    exact = jsonl.Config(str(file), score="exact")
    question = jsonl.read(exact)[0]
    assert [jsonl.credit(question, text, exact) for text in ("yes.", "Yes, it is")] == [1, 0]
    assert jsonl.credit(question, "Yes, it is") == 1
    for rule, needs in (("choice", "needs options"), ("vqa", "needs ten answers")):
        with pytest.raises(DataError, match=rf"jsonl:1: score={rule} .*{needs}"):
            questions_of(file, score=rule)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, r"jsonl:2: 'image' is None, expected text"),
        ({"image": "../b.jpg"}, "jsonl:2: .* is not the name of a file inside"),
        ({"question": " "}, "jsonl:2: 'question' is empty"),
        ({"answer": "green"}, "jsonl:2: answer .'green'. names none of the 2 options"),
        ({"answer": "C"}, "names none of the 2 options"),
        ({"options": ["red"]}, r"jsonl:2: options \['red'\], expected two or more"),
        ({"id": "1"}, "jsonl: '1' occurs twice"),
        ({"answer": None}, "1 of 4 questions have no answer; give all or none"),
        ({"answer": True, "options": None}, "jsonl:2: answer True, expected a text, a number or"),
        ({"answer": {"a": 1}}, r"jsonl:2: answer {'a': 1}, expected a text, a number or a list"),
        (
            {"answer": " ", "options": None},
            "answer ' ', expected a text, .* leave the key",
        ),
        ({"answer": ["stop", " "], "options": None}, "none of them blank"),
        ({"answer": float("nan"), "options": None}, "jsonl:2: answer nan, expected"),
        ({"answer": ["red", 2]}, "jsonl:2: 'answer' is 2, expected text"),
        ({"boxes": [[0, 0, 9, 9]]}, "jsonl:2: box .*look like pixels"),
    ],
)
def test_a_bad_line_is_named(tmp_path, change, message):
    file = make(tmp_path, [ROWS[0], {**ROWS[1], **change}, *ROWS[2:]])
    with pytest.raises(DataError, match=message):
        questions_of(file)


def test_no_file_says_what_to_give(tmp_path):
    with pytest.raises(DataError, match=r"nothing; looked for a .jsonl file, or a folder with q"):
        questions_of(tmp_path)


def test_scoring_an_export_gives_the_same_scores(tmp_path):
    config = jsonl.Config(str(make(tmp_path)))
    questions = jsonl.read(config)
    texts = ["no", "B", "stop", "kiosk"]
    (file,) = jsonl.export(questions, texts, tmp_path / "out", config)
    found = jsonl.read_answers(file, config)
    assert jsonl.score(found.questions, found.texts, config) == jsonl.score(questions, texts)
    result = cof("score", "jsonl", file, "--ground-truth", config.root, "--json")
    assert json.loads(result.stdout)["accuracy"] == jsonl.score(questions, texts)["accuracy"]


def test_images_elsewhere_are_named(tmp_path):
    bench = {"name": "jsonl", "root": str(make(tmp_path))}
    with pytest.raises(DataError, match=r"4 of 4|2 of 2 .*set bench.images=pictures$"):
        read_questions(schema.resolve({"bench": bench}))
    found = read_questions(schema.resolve({"bench": {**bench, "images": "pictures"}}))
    assert [one.image for one in found] == ["a.jpg", "b.jpg", "b.jpg", "a.jpg"]


class Stub(StubPipeline):
    """Notes what it is asked; stops as Ctrl-C does at a question that it is told."""

    asked: list
    stop_at = ""

    def answer_batch(self, questions, images):
        if any(question.id == Stub.stop_at for question in questions):
            raise KeyboardInterrupt
        Stub.asked += [question.id for question in questions]
        return super().answer_batch(questions, images)


@pytest.fixture
def asked(monkeypatch):
    Stub.asked, Stub.stop_at = [], ""
    monkeypatch.setattr(runner, "build_pipeline", lambda settings: Stub(settings.general.plain))
    return Stub.asked


def bare(rows=ROWS):
    return [
        {key: row[key] for key in ("image", "question", "options") if key in row} for row in rows
    ]


def lines_of(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def test_answers_need_no_right_answers(tmp_path, asked):
    out = tmp_path / "out" / "answers.jsonl"
    call = ("answer", make(tmp_path, bare()), tmp_path / "pictures", "--out", out)
    done = cof(*call)
    assert done.exit_code == 0, done.output
    lines = lines_of(out)
    assert [line["id"] for line in lines] == ["1", "2", "3", "4"]
    assert set(lines[0]) == {"id", "image", "question", "text", "boxes"}
    assert lines[0]["question"] == "Is it on?"
    assert all(0 <= value <= 1 for line in lines for box in line["boxes"] for value in box)
    assert len(asked) == 4
    before = out.read_bytes()
    assert cof(*call).exit_code == 0
    assert (len(asked), out.read_bytes()) == (4, before), "nothing is asked twice"
    other = cof(*call, "refine.weight=2")
    assert other.exit_code == 2
    assert "made with another config (refine.weight: 4.5 there, 2.0 here)" in other.stderr
    assert cof(*call, "refine.weight=2", "--plain", "--overwrite").exit_code == 0
    assert set(lines_of(out)[0]) == {"id", "image", "question", "text", "plain", "boxes"}


def test_a_stopped_call_goes_on(tmp_path, asked):
    file = make(tmp_path, bare())
    call = ("answer", file, tmp_path / "pictures", "batch_size=1", "--out")
    assert cof(*call, tmp_path / "whole.jsonl").exit_code == 0
    asked.clear()
    Stub.stop_at = "2"
    assert cof(*call, tmp_path / "parts.jsonl").exit_code != 0
    assert asked == ["1", "4"], "batches are planned by image"
    assert not (tmp_path / "parts.jsonl").exists()
    Stub.stop_at = ""
    assert cof(*call, tmp_path / "parts.jsonl").exit_code == 0
    assert asked == ["1", "4", "2", "3"]
    assert lines_of(tmp_path / "parts.jsonl") == lines_of(tmp_path / "whole.jsonl")


def test_a_failing_image_is_said_and_asked_again(tmp_path, asked):
    out = tmp_path / "answers.jsonl"
    file = make(tmp_path, bare())
    (tmp_path / "pictures" / "b.jpg").write_bytes(b"no image")
    call = ("answer", file, tmp_path / "pictures", "--out", out)
    done = cof(*call)
    assert done.exit_code == 1
    assert "4 answers, 2 failed" in done.output
    failed = [line for line in lines_of(out) if "error" in line]
    assert [(line["id"], line["text"]) for line in failed] == [("2", None), ("3", None)]
    assert "b.jpg" in failed[0]["error"]
    truth = make(tmp_path / "truth", [{**row, "id": str(n)} for n, row in enumerate(ROWS, 1)])
    scored = ("score", "jsonl", out, "--ground-truth", truth, "--json")
    assert "2 of 4 questions have no answer, the first is 2" in cof(*scored).stderr
    assert json.loads(cof(*scored, "--allow-missing").stdout)["unanswered"] == 2
    Image.new("RGB", (8, 6)).save(tmp_path / "pictures" / "b.jpg")
    assert cof(*call, "--retry-failed").exit_code == 0
    assert not any("error" in line for line in lines_of(out))


def test_a_number_is_an_answer_and_so_is_nought(tmp_path):
    rows = [
        {"image": "a.jpg", "question": "How many?", "answer": answer}
        for answer in (3, 0, -1, 3.0, 0.5)
    ]
    questions = questions_of(make(tmp_path, rows))
    assert [json.loads(one.reference) for one in questions] == [
        ["3"],
        ["0"],
        ["-1"],
        ["3"],
        ["0.5"],
    ]
    assert jsonl.score(questions, ["3", "0.", "1", "3", "0.5"])["accuracy"] == 4 / 5


def test_the_questions_are_not_overwritten_by_their_answers(tmp_path, asked):
    file = make(tmp_path, bare())
    before = file.read_bytes()
    for out in (file, tmp_path / "pictures" / ".." / "questions.jsonl"):
        result = cof("answer", file, tmp_path / "pictures", "--out", out, "--overwrite")
        assert result.exit_code == 2
        assert "--out is the file of the questions" in result.stderr
    assert (file.read_bytes(), asked) == (before, [])


def test_what_answer_is_given_has_to_be_there(tmp_path):
    file = make(tmp_path, bare())
    for questions, images, say in (
        (tmp_path / "no.jsonl", tmp_path, "no such file; QUESTIONS is a file"),
        (file, tmp_path / "no", "no such folder; IMAGES is the folder"),
    ):
        result = cof("answer", questions, images, "--out", tmp_path / "x.jsonl")
        assert result.exit_code == 2
        assert say in result.stderr
