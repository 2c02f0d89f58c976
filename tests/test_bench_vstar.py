"""V*Bench: reading, shuffled options, both ways to choose, foreign answers."""

import json

import pytest
from click.testing import CliRunner
from mme_folders import write_jsonl
from PIL import Image

from cof.bench import vstar
from cof.cli import main
from cof.errors import DataError
from cof.types import Question

COLOURS = ["The cup is red.", "The cup is blue.", "The cup is green.", "The cup is white."]
SIDES = ["left of it", "right of it"]


def annotate(folder, name, options, boxes):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (200, 100)).save(folder / f"{name}.jpg")
    note = {"target_object": ["cup"], "bbox": boxes, "question": f"What of {name}?"}
    (folder / f"{name}.json").write_text(json.dumps({**note, "options": options}))


@pytest.fixture
def root(tmp_path):
    for k in range(20):
        annotate(tmp_path / "direct_attributes", f"sa_{k}", COLOURS, [[20, 10, 40, 30]])
    for k in range(10):
        boxes = [[0, 0, 50, 50], [190, 90, 20, 20]]
        annotate(tmp_path / "relative_position", f"sa_{k}", SIDES, boxes)
    return tmp_path


def questions_of(root, **options):
    return vstar.read(vstar.Config(str(root), **options))


def test_options_are_shuffled_by_the_seed_and_the_letter_follows(root):
    questions = questions_of(root)
    first = questions[0]
    assert first.id == "direct_attributes/sa_0"
    assert sorted(first.options) == sorted(COLOURS)
    lines = [f"{'ABCD'[k]}. {option}" for k, option in enumerate(first.options)]
    suffix = "Answer with the option's letter from the given choices directly."
    assert first.text == "\n".join(["What of sa_0?", *lines, suffix])
    assert all(q.options["ABCD".index(q.reference)] in (COLOURS[0], SIDES[0]) for q in questions)
    assert len({q.reference for q in questions}) > 1, "not always the same letter"
    assert questions == questions_of(root), "the same order every time"
    other = questions_of(root, shuffle=1)
    assert [q.options for q in questions] != [q.options for q in other]


def test_boxes_are_fractions_clipped_to_the_image(root):
    questions = questions_of(root)
    assert [box.as_tuple() for box in questions[0].boxes] == [(0.1, 0.1, 0.3, 0.4)]
    assert [box.as_tuple() for box in questions[-1].boxes] == [(0, 0, 0.25, 0.5), (0.95, 0.9, 1, 1)]


def test_likelihood_shows_no_options_and_keeps_their_order(root):
    question = questions_of(root, mode="likelihood")[0]
    assert question.text == "What of sa_0?"
    assert question.options == tuple(COLOURS)
    assert question.reference == COLOURS[0]
    assert question.choose
    assert not questions_of(root)[0].choose
    assert vstar.credit(question, COLOURS[0]) == 1
    assert vstar.credit(question, COLOURS[1]) == 0
    assert vstar.credit(question, "A") == 0


@pytest.mark.parametrize("mode", ["generate", "likelihood"])
def test_hand_scored(root, mode):
    config = vstar.Config(str(root), mode=mode, shuffle=3)
    questions = vstar.read(config)
    answers = [q.reference if k < 22 else "nothing" for k, q in enumerate(questions)]
    scores = vstar.score(questions, answers, config)
    assert scores["mode"] == mode
    assert scores["shuffle"] == (3 if mode == "generate" else None)
    assert scores["overall"] == {"n": 30, "accuracy": 22 / 30, "unresolved": 8}
    assert scores["types"] == {
        "direct_attributes": {"n": 20, "accuracy": 1.0, "unresolved": 0},
        "relative_position": {"n": 10, "accuracy": 0.2, "unresolved": 8},
    }


@pytest.mark.parametrize("mode", ["generate", "likelihood"])
def test_scoring_an_export_gives_the_same_scores(root, mode):
    config = vstar.Config(str(root), mode=mode)
    questions = vstar.read(config)
    answers = [q.reference if k % 3 else "?" for k, q in enumerate(questions)]
    file = vstar.export(questions, answers, root / "out")[0]
    found = vstar.read_answers(file, config)
    scores = vstar.score(found.questions, found.texts, config)
    assert scores == vstar.score(questions, answers, config)
    if mode == "generate":
        with pytest.raises(DataError, match=r"answers.jsonl:\d+: options .* give the shuffle=SEED"):
            vstar.read_answers(file, vstar.Config(str(root), shuffle=5))


@pytest.mark.parametrize("mode", ["generate", "likelihood"])
def test_results_of_the_official_script(root, mode):
    questions = questions_of(root, mode="likelihood")
    results = {"direct_attributes": [], "relative_position": []}
    for k, q in enumerate(questions):
        image = q.image.split("/")[1]
        row = {"image": image, "options": list(q.options), "option_chosen": int(k % 4 == 0)}
        results[q.category].append(row)
    file = root / "eval_result.json"
    file.write_text(json.dumps(results))
    command = ["score", "vstar", str(file), "--ground-truth", str(root), f"mode={mode}", "--json"]
    scores = json.loads(CliRunner().invoke(main, command).stdout)
    assert scores["overall"]["accuracy"] == 22 / 30


def without_note(root):
    (root / "direct_attributes/sa_3.json").unlink()
    return "direct_attributes/sa_3.jpg: has no .json"


def without_image(root):
    (root / "direct_attributes/sa_3.jpg").unlink()
    return "direct_attributes/sa_3.json: has no image"


def one_option(root):
    annotate(root / "direct_attributes", "sa_3", ["red"], [])
    return "direct_attributes/sa_3.json: options ['red'], expected two or more"


def empty_option(root):
    annotate(root / "direct_attributes", "sa_3", ["red", " "], [])
    return "direct_attributes/sa_3.json: options ['red', ' '], expected two or more"


def options_of_another_kind(root):
    annotate(root / "direct_attributes", "sa_3", [["red"], 3], [])
    return "direct_attributes/sa_3.json: 'options' is ['red'], expected text"


def box_outside(root):
    annotate(root / "direct_attributes", "sa_3", COLOURS, [[300, 0, 10, 10]])
    return "direct_attributes/sa_3.json: bbox [300, 0, 10, 10]"


@pytest.mark.parametrize(
    "damage",
    [
        without_note,
        without_image,
        one_option,
        empty_option,
        options_of_another_kind,
        box_outside,
    ],
)
def test_a_damaged_folder_is_refused_by_file_name(root, damage):
    message = damage(root)
    with pytest.raises(DataError) as error:
        questions_of(root)
    assert str(error.value).startswith(str(root / message.split(":")[0]))
    assert message in str(error.value)


def test_what_is_no_image_is_refused_by_name(root):
    (root / "direct_attributes/sa_3.jpg").write_text("text")
    with pytest.raises(DataError, match=r"direct_attributes/sa_3.jpg' is not an image"):
        questions_of(root)


def test_bad_answers_are_refused_by_name(root):
    questions = questions_of(root)
    rows = [{"question_id": q.id, "text": "A"} for q in questions]
    file = write_jsonl(root / "answers.jsonl", rows[:-1])
    with pytest.raises(DataError, match="1 of 30 questions have no answer, the first is relative"):
        vstar.read_answers(file, vstar.Config(str(root)))
    write_jsonl(file, [*rows, rows[0]])
    with pytest.raises(DataError, match=r"answers.jsonl:31: 'direct_attributes/sa_0' occurs once"):
        vstar.read_answers(file, vstar.Config(str(root)))
    with pytest.raises(DataError, match=r"looked for the folders direct_attributes"):
        questions_of(root / "direct_attributes")


def test_options_that_are_letters_themselves_are_compared_whole():
    question = Question("0", "a.jpg", "?", reference="D", options=("D", "E", "F", "G"), choose=True)
    right = [vstar.credit(question, said) for said in ("D", "G", "DE", "", None)]
    assert right == [1, 0, 0, 0, 0]
