"""MME: what is read, how it is scored, what is written, and what is refused."""

import json
import random
import shutil
from pathlib import Path

import mme_folders
import oracles
import pytest
from click.testing import CliRunner
from mme_folders import COGNITION, LLAVA, PERCEPTION

from cof.bench import mme
from cof.cli import main
from cof.errors import DataError
from cof.types import Question

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "scorers" / "mme"

# Subtask -> (questions, acc in percent, acc+ in percent) of LLaVA-1.5-13B, rounded as published.
PUBLISHED = {
    "existence": (60, 95.00, 90.00),
    "count": (60, 85.00, 70.00),
    "position": (60, 76.67, 56.67),
    "color": (60, 90.00, 80.00),
    "posters": (294, 86.39, 74.15),
    "celebrity": (340, 83.53, 69.41),
    "scene": (400, 86.75, 74.50),
    "landmark": (400, 90.00, 80.50),
    "artwork": (400, 70.75, 47.00),
    "OCR": (40, 75.00, 50.00),
    "commonsense_reasoning": (140, 73.57, 54.29),
    "numerical_calculation": (40, 37.50, 5.00),
    "text_translation": (40, 57.50, 20.00),
    "code_reasoning": (40, 42.50, 5.00),
}


@pytest.fixture
def release(tmp_path):
    truths = mme_folders.make(tmp_path / "mme")
    (tmp_path / "mme" / "README.md").write_text("not a subtask")
    (tmp_path / "mme" / "eval_tool").mkdir()
    return tmp_path / "mme", truths


def questions_of(root, **options):
    return mme.read(mme.Config(str(root), **options))


def oracle(truths, rows):
    keyed = {(s, Path(path).stem + ".txt", text): t for (s, path, text), t in truths.items()}
    return oracles.mme_scores(oracles.mme_convert(keyed, rows))


def assert_equals_oracle(scores, expected):
    found = {
        name: (task["n"], task["acc"], task["acc_plus"], task["score"])
        for name, task in scores["subtasks"].items()
    }
    assert found == expected
    for name, members in (("perception", PERCEPTION), ("cognition", COGNITION)):
        total = 0
        for member in members:
            total += expected[member][3]
        assert scores[name] == total


# --- reading ---


@pytest.mark.parametrize("level", [".", "MME_Benchmark", "MME_Benchmark_release_version"])
def test_reads_both_folder_shapes_at_every_known_level(tmp_path, level):
    truths = mme_folders.make(tmp_path / level)
    questions = questions_of(tmp_path)
    prefix = "" if level == "." else level + "/"
    expected = [(s, prefix + path, mme_folders.prompt(text)) for s, path, text in truths]
    assert [(q.category, q.image, q.text) for q in questions] == expected
    assert [q.reference for q in questions] == list(truths.values())
    assert all((tmp_path / q.image).is_file() for q in questions)


def test_question_is_verbatim_but_for_the_suffix(release):
    root, _ = release
    texts = [q.text for q in questions_of(root) if q.category == "color"]
    assert texts[0] == "Is color 1 so? " + LLAVA, "the second space before the suffix stays"
    assert texts[4] == "Is color 3 so？" + LLAVA, "full-width question mark"
    assert LLAVA == "\nAnswer the question using a single word or phrase."


def test_ids_are_unique_and_do_not_depend_on_where_the_release_lies(release, tmp_path):
    root, _ = release
    mme_folders.make(tmp_path / "deep" / "MME_Benchmark")
    ids = [q.id for q in questions_of(root)]
    assert len(set(ids)) == len(ids) == 14 * 8
    assert ids == [q.id for q in questions_of(tmp_path / "deep")]
    assert ids[8] == "count/0001.jpg#1"


def test_llava_questions_keep_their_order_and_take_answers_from_the_release(release, tmp_path):
    root, truths = release
    shuffled = list(truths)
    random.Random(3).shuffle(shuffled)
    rows = [
        {"question_id": path, "image": path, "text": mme_folders.prompt(text), "category": s}
        for s, path, text in shuffled
    ]
    file = mme_folders.write_jsonl(tmp_path / "llava_mme.jsonl", rows)
    questions = questions_of(root, questions=str(file))
    assert [q.text for q in questions] == [row["text"] for row in rows]
    assert [q.reference for q in questions] == [truths[key] for key in shuffled]
    assert {q.id for q in questions} == {q.id for q in questions_of(root)}
    mme_folders.write_jsonl(file, [*rows, rows[3]])
    with pytest.raises(DataError, match=r"llava_mme.jsonl:113: '.*' occurs once too often"):
        questions_of(root, questions=str(file))
    mme_folders.write_jsonl(file, rows[1:])
    with pytest.raises(DataError, match=r"llava_mme.jsonl: \d questions about .*; MME asks two"):
        questions_of(root, questions=str(file))
    shutil.rmtree(root / "OCR")
    mme_folders.write_jsonl(file, [row for row in rows if row["category"] == "OCR"])
    with pytest.raises(
        DataError, match=r"llava_mme.jsonl:1: 'OCR' '.*' is not among the questions"
    ):
        questions_of(root, questions=str(file))


def test_regions_beside_the_release_become_boxes(release):
    root, truths = release
    rows = [
        {"image": path, "question": text, "boxes": [[0.1, 0.2, 0.3, k / 1000 + 0.5]]}
        for k, (_, path, text) in enumerate(truths)
    ]
    mme_folders.write_jsonl(root / "regions.jsonl", reversed(rows))
    tops = [question.boxes[0].y1 for question in questions_of(root)]
    assert tops == [row["boxes"][0][3] for row in rows]
    mme_folders.write_jsonl(root / "regions.jsonl", rows[1:])
    with pytest.raises(
        DataError, match=r"regions.jsonl: no line for question existence/0001.jpg#1"
    ):
        questions_of(root)
    rows[3]["boxes"] = [[0.1, 0.2, 0.1, 0.4]]
    mme_folders.write_jsonl(root / "regions.jsonl", rows)
    with pytest.raises(DataError, match=r"regions.jsonl:4: box \(0.1, 0.2, 0.1, 0.4\) needs"):
        questions_of(root)


def test_some_subtasks_are_enough_and_the_others_are_named(tmp_path):
    mme_folders.make(tmp_path, subtasks=("OCR", "count"))
    questions = questions_of(tmp_path)
    scores = mme.score(questions, [q.reference for q in questions])
    assert list(scores["subtasks"]) == ["count", "OCR"]
    assert scores["perception"] == 400
    assert scores["cognition"] is None
    assert scores["missing_subtasks"] == [
        name for name in (*PERCEPTION, *COGNITION) if name not in ("count", "OCR")
    ]


def remove_text(root):
    (root / "count/0002.txt").unlink()
    return "count/0002.jpg: has no text"


def remove_image(root):
    (root / "artwork/images/0003.jpg").unlink()
    return "artwork/questions_answers_YN/0003.txt: has no image"


def drop_a_question(root):
    (root / "color/0001.txt").write_text("Is it red? Please answer yes or no.\tYes\n")
    return "color/0001.txt: 1 questions"


def empty_text(root):
    (root / "color/0001.txt").write_text("\n")
    return "color/0001.txt: 0 questions"


def forget_the_tab(root):
    (root / "OCR/0001.txt").write_text("Is it so?\tYes\nIs it not so? No\n")
    return "OCR/0001.txt:2: 'Is it not so? No' is not question TAB Yes|No"


def answer_maybe(root):
    (root / "OCR/0001.txt").write_text("Is it so?\tMaybe\nIs it not so?\tNo\n")
    return "OCR/0001.txt:1"


def other_encoding(root):
    (root / "OCR/0001.txt").write_bytes("Is it ä?\tYes\nIs it ü?\tNo\n".encode("latin-1"))
    return "OCR/0001.txt: not UTF-8"


def same_stem(root):
    (root / "OCR/0001.png").write_bytes(b"image")
    return "OCR/0001.png: 0001.jpg has the same stem"


def lose_the_texts(root):
    shutil.rmtree(root / "scene/questions_answers_YN")
    return "scene/questions_answers_YN: no such folder"


def lose_the_images(root):
    shutil.rmtree(root / "scene/images")
    return "scene/questions_answers_YN/0001.txt: has no image"


@pytest.mark.parametrize(
    "damage",
    [
        *(remove_text, remove_image, drop_a_question, empty_text, forget_the_tab, answer_maybe),
        *(other_encoding, same_stem, lose_the_texts, lose_the_images),
    ],
)
def test_a_damaged_release_is_refused_by_file_name(release, damage):
    root, _ = release
    message = damage(root)
    with pytest.raises(DataError) as error:
        questions_of(root)
    assert str(error.value).startswith(str(root / message.split(":")[0]))
    assert message in str(error.value)


def test_what_is_not_mme_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"holds nothing; looked for subtask folders \(existence, count"
    ):
        questions_of(tmp_path)
    with pytest.raises(DataError, match="no such folder or file; looked for"):
        questions_of(tmp_path / "nowhere")


# --- scoring ---


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        *(("Yes", "yes"), ("NO", "no"), ("yes, it is", "yes"), ("no.", "no")),
        *(("not sure", "no"), ("none", "no"), ("Now", "no"), ("eyes", "yes")),
        *(("  yes", "other"), (" yes", "yes"), ("", "other"), ("Religious", "other")),
        *(("It is no", "other"), ("noyes", "no"), ("nyes", "yes"), ("\nno", "no")),
    ],
)
def test_label_is_the_published_rule(answer, label):
    assert mme.label(answer) == label == oracles.mme_label(answer)


def test_hand_scored_set():
    asked = [
        Question(f"count/{image}.jpg#{k}", f"count/{image}.jpg", "?", "count", truth)
        for image in "abcd"
        for k, truth in ((1, "Yes"), (2, "No"))
    ]
    given = ["Yes", "No", "Yes", "Yes", "church", "no", "No", "Yes"]  # both, one, one, none
    task = mme.score(asked, given)["subtasks"]["count"]
    assert task == {"n": 8, "acc": 0.5, "acc_plus": 0.25, "score": 75.0, "other": 1}
    assert [mme.credit(q, a) for q, a in zip(asked, given, strict=True)] == [1, 1, 1, 0, 0, 1, 0, 0]


def test_published_totals_to_all_digits():
    """Right and doubly right answers counted back from the rounded table give the exact sums."""
    asked, given = [], []
    for name, (n, acc, acc_plus) in PUBLISHED.items():
        both = round(acc_plus / 100 * n / 2)
        single = round(acc / 100 * n) - 2 * both
        for image in range(n // 2):
            for k, truth in ((1, "Yes"), (2, "No")):
                right = image < both or (image < both + single and k == 1)
                asked.append(Question(f"{name}/{image}#{k}", f"{name}/{image}", "?", name, truth))
                given.append(truth if right else "Church")
    scores = mme.score(asked, given)
    assert scores["perception"] == 1531.3187274909965
    assert scores["cognition"] == 295.3571428571429


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_published_converter_and_scorer(release, seed):
    root, truths = release
    rows = mme_folders.answers(truths, seed)
    by_prompt = {(row["question_id"], row["prompt"]): row["text"] for row in rows}
    questions = questions_of(root)
    answers = [by_prompt[(q.image, q.text)] for q in questions]
    assert_equals_oracle(mme.score(questions, answers), oracle(truths, rows))


def test_score_does_not_depend_on_the_order_of_questions(release):
    root, truths = release
    questions = questions_of(root)
    pairs = list(zip(questions, [r["text"] for r in mme_folders.answers(truths)], strict=True))
    ordered = mme.score(*zip(*pairs, strict=True))
    random.Random(0).shuffle(pairs)
    assert json.dumps(mme.score(*zip(*pairs, strict=True))) == json.dumps(ordered)


# --- foreign answers ---


def ground_truth(kind, folder):
    """A ground truth of that kind; returns where it is and its answers."""
    if kind in ("release", "release without images"):
        return folder, mme_folders.make(folder, with_images=kind == "release")
    truths = mme_folders.make(folder / "release")
    root = folder / "tool"
    mme_folders.make_template(root / ("Your_Results" if kind == "eval_tool" else "."), truths)
    return root, truths


@pytest.mark.parametrize("kind", ["release", "release without images", "template", "eval_tool"])
@pytest.mark.parametrize("strip", [False, True])
def test_llava_answers_against_every_kind_of_ground_truth(tmp_path, kind, strip):
    root, truths = ground_truth(kind, tmp_path / "truth")
    rows = mme_folders.answers(truths)
    if strip:  # the converter finds questions whose second space was lost
        rows = [{**row, "prompt": row["prompt"].replace("? \n", "?\n")} for row in rows]
    file = mme_folders.write_jsonl(tmp_path / "answers.jsonl", rows)
    found = mme.read_answers(file, mme.Config(str(root)))
    assert_equals_oracle(mme.score(found.questions, found.texts), oracle(truths, rows))


def test_result_folder_is_paired_by_consecutive_lines(tmp_path):
    lines = ["a.txt\tq1?\tYes\tyes", "b.txt\tq2?\tNo\tno", "a.txt\tq3?\tNo\tyes", "c\tq\tyes\t"]
    (tmp_path / "OCR.txt").write_text("\n".join(lines) + "\n")
    found = mme.read_answers(tmp_path, mme.Config(""))
    task = mme.score(found.questions, found.texts)["subtasks"]["OCR"]
    assert task == {"n": 4, "acc": 0.5, "acc_plus": 0.5, "score": 100.0, "other": 1}


@pytest.mark.parametrize(
    ("kind", "with_truth"),
    [("llava_mme_answers.jsonl", True), ("eval_tool", True), ("eval_tool", False)],
)
def test_scoring_an_export_gives_the_same_scores(release, tmp_path, kind, with_truth):
    root, truths = release
    questions = questions_of(root)
    answers = [row["text"] for row in mme_folders.answers(truths)]
    answers[:4] = ["yes\tor\nno", "\tyes", "\r\nno", "n\to"]
    assert len(mme.export(questions, answers, tmp_path / "out")) == 15
    config = mme.Config(str(root) if with_truth else "")
    found = mme.read_answers(tmp_path / "out" / kind, config)
    assert mme.score(found.questions, found.texts) == mme.score(questions, answers)


def test_export_has_the_published_columns(release, tmp_path):
    root, truths = release
    questions = questions_of(root)
    mme.export(questions, ["Yes"] * len(questions), tmp_path)
    lines = (tmp_path / "eval_tool" / "artwork.txt").read_text(encoding="utf-8").splitlines()
    mine = [(path, text, truth) for (s, path, text), truth in truths.items() if s == "artwork"]
    assert lines == [f"{Path(path).name}\t{text}\t{truth}\tYes" for path, text, truth in mine]
    first = json.loads((tmp_path / "llava_mme_answers.jsonl").read_text().split("\n")[0])
    assert list(first) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]


def test_export_of_the_same_answers_is_the_same_bytes(release, tmp_path):
    questions = questions_of(release[0])
    names = []
    for folder in ("a", "b"):
        names.append(mme.export(questions, ["Yes"] * len(questions), tmp_path / folder))
    for first, second in zip(*names, strict=True):
        assert first.read_bytes() == second.read_bytes()


def broken(rows, how):
    if how == "unknown":
        rows[5] = {**rows[5], "prompt": "Is the moon cheese?"}
        return "answers.jsonl:6: 'existence' '0003' 'Is the moon cheese?' is not among"
    if how == "twice":
        rows.append(rows[5])
        return f"answers.jsonl:{len(rows)}: 'existence' '0003'"
    if how == "missing":
        del rows[5]
        return "answers.jsonl: 1 of 112 questions have no answer, the first is existence/0003.jpg#2"
    if how == "no text":
        del rows[5]["text"]
        return "answers.jsonl:6: no 'text'; there is: question_id, prompt"
    rows[5]["text"] = None
    return "answers.jsonl:6: 'text' is None, expected text"


@pytest.mark.parametrize("how", ["unknown", "twice", "missing", "no text", "null"])
def test_wrong_answer_files_are_refused_by_line(release, tmp_path, how):
    root, truths = release
    rows = mme_folders.answers(truths)
    message = broken(rows, how)
    file = mme_folders.write_jsonl(tmp_path / "answers.jsonl", rows)
    with pytest.raises(DataError) as error:
        mme.read_answers(file, mme.Config(str(root)))
    assert message in str(error.value)


def test_a_line_break_in_a_result_file_is_refused_by_line(tmp_path):
    (tmp_path / "OCR.txt").write_text("a\tq\tYes\tyes\na\tq\tNo\tno\nmatter\n")
    with pytest.raises(DataError, match=r"OCR.txt:3: 1 TAB-separated fields"):
        mme.read_answers(tmp_path, mme.Config(""))
    (tmp_path / "OCR.txt").write_text("a\tq\tYes\tyes\n")
    with pytest.raises(DataError, match=r"OCR.txt: 1 lines"):
        mme.read_answers(tmp_path, mme.Config(""))
    (tmp_path / "OCR.txt").write_text("a\tq\tMaybe\tyes\n")
    with pytest.raises(DataError, match=r"OCR.txt:1: ground truth 'Maybe'"):
        mme.read_answers(tmp_path, mme.Config(""))


# --- command line ---


def cof(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_command_prints_every_digit(release, tmp_path):
    root, truths = release
    rows = mme_folders.answers(truths)
    file = mme_folders.write_jsonl(tmp_path / "answers.jsonl", rows)
    result = cof("score", "mme", file, "--ground-truth", root, "--json")
    assert result.exit_code == 0
    assert_equals_oracle(json.loads(result.stdout), oracle(truths, rows))
    table = cof("score", "mme", file, "--ground-truth", root).stdout
    assert all(name in table for name in ("perception", "cognition", *PERCEPTION, *COGNITION))


def test_command_says_how_many_are_missing(release, tmp_path):
    root, truths = release
    file = mme_folders.write_jsonl(tmp_path / "answers.jsonl", mme_folders.answers(truths)[:-3])
    refused = cof("score", "mme", file, "--ground-truth", root)
    assert refused.exit_code == 2
    assert "3 of 112 questions have no answer" in refused.stderr
    allowed = cof("score", "mme", file, "--ground-truth", root, "--json", "--allow-missing")
    assert json.loads(allowed.stdout)["unanswered"] == 3
    assert json.loads(allowed.stdout)["subtasks"]["code_reasoning"]["n"] == 5
    assert "3 questions without an answer" in allowed.stderr


def test_command_names_what_it_needs(release, tmp_path):
    file = mme_folders.write_jsonl(tmp_path / "answers.jsonl", mme_folders.answers(release[1]))
    result = cof("score", "mme", file)
    assert result.exit_code == 2
    assert "needs --ground-truth" in result.stderr
    assert cof("score", "nonsense", file).exit_code == 2


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the recorded MME answers are not here")
def test_real_answers_give_the_published_totals():
    answers = next(f for f in GOLDEN.rglob("*.jsonl") if '"prompt"' in f.open().readline())
    truth = next(f.parent for f in GOLDEN.rglob("existence*") if f.name != answers.name)
    found = mme.read_answers(answers, mme.Config(str(truth)))
    scores = mme.score(found.questions, found.texts)
    assert len(found.questions) == 2374
    assert scores["perception"] == 1531.3187274909965
    assert scores["cognition"] == 295.3571428571429
    assert sum(task["other"] for task in scores["subtasks"].values()) == 11
