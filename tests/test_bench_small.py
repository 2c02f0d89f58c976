"""HallusionBench, MMVP, HR-Bench, SEED-Bench, ScienceQA-IMG, CV-Bench: read, scored by hand."""

import json

import pytest
import small_benchmarks
from click.testing import CliRunner
from fakes import StubPipeline

from cof.bench.common.choice import extract
from cof.bench.common.containers import places
from cof.cli import main
from cof.config import plugins, schema
from cof.errors import DataError
from cof.evaluate import runner
from cof.images import load_image
from cof.store.dataset import questions_hash

LETTER = "\nAnswer with the option's letter from the given choices directly."
CASES = [(name, kind) for name, kinds in small_benchmarks.KINDS.items() for kind in kinds]
COUNTS = {
    **{"hallusionbench": 6, "mmvp": 4, "hrbench": 8, "seedbench": 3, "scienceqa": 2},
    "cvbench": 5,
}


def loaded(name, folder, kind=None, **options):
    kind = kind or small_benchmarks.KINDS[name][0]
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    root = small_benchmarks.write(name, kind, folder)
    bench = plugins.load("bench", name)
    config = bench.Config(str(root), **options)
    return bench, config, bench.read(config)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_contract(name, kind, tmp_path):
    bench, config, questions = loaded(name, tmp_path, kind)
    assert len(questions) == len({one.id for one in questions}) == COUNTS[name]
    assert all(load_image(places(bench, config) / one.image).size == (8, 6) for one in questions)
    right = [one.reference for one in questions]
    assert all(bench.credit(*pair, config) == 1 for pair in zip(questions, right, strict=True))
    assert all(bench.credit(one, None, config) == 0 for one in questions)
    scores = bench.score(questions, right, config)
    assert list(scores)[:2] == ["benchmark", "version"]
    assert scores["benchmark"] == name
    assert {value for _, value, _ in bench.table(scores)} == {100.0}
    assert {value for _, value, _ in bench.table(bench.score(questions, [None] * len(right)))} == {
        0
    }
    for file in bench.export(questions, right, tmp_path / "out", config):
        if file.name != "mmvp_answers.jsonl":  # for a judge
            found = bench.read_answers(file, config)
            assert bench.score(found.questions, found.texts, config) == scores
    with pytest.raises(DataError, match="needs --ground-truth"):
        bench.read_answers(file, bench.Config(""))


@pytest.mark.parametrize("name", ["hallusionbench", "mmvp", "hrbench", "seedbench"])
def test_the_same_questions_in_every_container(name, tmp_path):
    pytest.importorskip("pyarrow")
    kinds = [kind for kind in small_benchmarks.KINDS[name] if (name, kind) != ("seedbench", "tsv")]
    found = {questions_hash(loaded(name, tmp_path / kind, kind)[2]) for kind in kinds}
    assert len(found) == 1


@pytest.mark.parametrize("name", COUNTS)
def test_an_unknown_folder_says_what_helps(name, tmp_path):
    bench = plugins.load("bench", name)
    with pytest.raises(DataError, match=rf"looked for .*; `cof data fetch {name} FOLDER` gets it"):
        bench.read(bench.Config(str(tmp_path)))


@pytest.mark.parametrize("name", COUNTS)
def test_a_run_is_scored_and_rescored_alike(name, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "build_pipeline", lambda settings: StubPipeline(True))
    _, config, _ = loaded(name, tmp_path / "data")
    bench = {"name": name, "root": config.root, "limit": 2}
    settings = schema.resolve({"bench": bench, "refine": {"name": "plain"}, "out": str(tmp_path)})
    done = runner.run(settings)
    result = CliRunner().invoke(main, ["score", name, str(done.path), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == done.scores


def test_boxes_of_ones_own_may_lie_beside_any_of_them(tmp_path):
    bench, config, questions = loaded("seedbench", tmp_path)
    lines = [json.dumps({"id": one.id, "boxes": [[0, 0, 0.5, 1]]}) for one in questions]
    (tmp_path / "regions.jsonl").write_text("\n".join(lines))
    assert [one.boxes[0].x1 for one in bench.read(config)] == [0.5] * 3


# --- hand-scored sets ---


def test_hallusionbench(tmp_path):
    bench, config, questions = loaded("hallusionbench", tmp_path)
    assert questions[0].id == "VD_figure_1_0_0_0"
    # in order: figure 0, figure 1 of question 0; of question 1; two charts of one question
    answers = ["Yes.", "Yes, it is", "yes", "Yes", "No", "unclear"]
    scores = bench.score(questions, answers, config)
    assert (scores["aAcc"], scores["fAcc"], scores["qAcc"]) == (4 / 6, 2 / 4, 1 / 3)
    assert scores["other"] == 1
    figure = scores["subcategories"]["VD/figure"]
    assert (figure["aAcc"], figure["fAcc"], figure["qAcc"]) == (3 / 4, 1 / 2, 1 / 2)
    assert scores["categories"]["VS"]["fAcc"] == 1 / 2
    strict = bench.Config(config.root, parser="strict")
    assert bench.credit(questions[0], "Yes.", config) == 1
    assert bench.credit(questions[0], "Yes.", strict) == 0
    sent = json.loads(bench.export(questions, answers, tmp_path / "out")[1].read_text())
    assert sent[1]["model_prediction"] == "Yes, it is"
    assert (sent[1]["gt_answer"], sent[1]["figure_id"]) == ("0", "1")
    assert sent[1]["filename"] == "./hallusion_bench/VD/figure/0_1.png"


def test_mmvp_counts_pairs(tmp_path):
    bench, _, questions = loaded("mmvp", tmp_path)
    assert questions[2].text == "How many (whole)?\nA. One\nB. Two" + LETTER
    scores = bench.score(questions, ["A", "B", "B", "B"])
    assert (scores["pairs"], scores["accuracy"]) == (0.5, 0.75)
    file = bench.export(questions, ["A", "B", "(b)", "one"], tmp_path / "out")[1]
    sent = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["response"] for row in sent] == ["(a)", "(b)", "(b)", "one"]
    assert [row["answer"] for row in sent] == ["(a)", "(b)", "(b)", "(a)"]
    rows = (tmp_path / "Questions.csv").read_text().splitlines()
    damaged = {
        "pair 2 has 1 question, expected two": rows[:-1],
        "'1/1' occurs twice": [*rows[:2], rows[1]],
        "pair 1 has 1 question": [*rows[:2], *rows[3:]],
        "no questions": rows[:1],
    }
    for message, lines in damaged.items():
        (tmp_path / "Questions.csv").write_text("\n".join(lines))
        with pytest.raises(DataError, match=message):
            bench.read(bench.Config(str(tmp_path)))


def test_hrbench_is_the_mean_over_permutations(tmp_path):
    bench, _, questions = loaded("hrbench", tmp_path)
    assert [one.reference for one in questions[:4]] == ["B", "A", "D", "C"]
    assert [one.image for one in questions] == ["images/0.jpg"] * 4 + ["images/4.jpg"] * 4
    scores = bench.score(questions, ["B", "A", "D", "C", "B", "B", "D", "C"])
    assert scores["accuracy"] == 7 / 8
    assert scores["categories"]["single"]["accuracy"] == 1
    assert scores["categories"]["cross"]["accuracy"] == 3 / 4
    assert scores["circular"] == 1 / 2


def test_hrbench_tells_questions_apart_that_read_alike(tmp_path):
    """Two pictures with one question and options: the k-th rows of each cycle belong together."""
    root = small_benchmarks.write("hrbench", "tsv", tmp_path)
    table = root / "hr_bench_4k.tsv"
    table.write_text(table.read_text().replace("\tcross\t", "\tsingle\t"))
    bench = plugins.load("bench", "hrbench")
    questions = bench.read(bench.Config(str(root)))
    assert [one.id.partition("/")[0] for one in questions] == ["0"] * 4 + ["4"] * 4


def test_seedbench_leaves_videos_out(tmp_path):
    bench, config, questions = loaded("seedbench", tmp_path)
    assert [one.id for one in questions] == ["100", "101", "103"]
    scores = bench.score(questions, ["A", "C", "D"])
    assert scores["accuracy"] == 2 / 3
    assert scores["categories"] == {
        "Instances Counting": {"n": 1, "accuracy": 1.0},
        "Scene Understanding": {"n": 2, "accuracy": 0.5},
    }
    sent = bench.export(questions, ["A", "two", "a shop"], tmp_path / "out", config)[1]
    rows = [json.loads(line) for line in sent.read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ["A", "B", "Z"]


def test_scienceqa_is_scored_as_llava_does(tmp_path):
    bench, config, questions = loaded("scienceqa", tmp_path)
    assert [one.id for one in questions] == ["3", "9"]
    asked = "Context: Read it.\nWhich 3?\nA. one\nB. two\nC. three" + LETTER
    assert (questions[0].text, questions[0].core) == (asked, "Which 3?")
    assert questions[1].text.startswith("Which 9?\nA. one")
    scores = bench.score(questions, ["B. two", "three"], config)
    assert (scores["accuracy"], scores["unresolved"], scores["extract"]) == (0.5, 1, "llava")
    assert scores["categories"]["natural science"]["accuracy"] == 1
    matching = bench.Config(config.root, extract="vlmevalkit")
    assert bench.score(questions, ["B. two", "three"], matching)["accuracy"] == 1


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *(("B", "B"), ("B. two", "B"), ("B.", "Z"), (" B", "Z"), ("b", "Z"), ("two", "Z")),
        *(("D", "Z"), ("D. four", "Z"), ("The answer is C.", "C"), ("The answer is C", "Z")),
        ("The answer is A. No: The answer is B.", "Z"),
        ("The answer is F.", "Z"),
    ],
)
def test_llavas_rule_for_letters(answer, letter):
    """Its eval_science_qa.py, with three options."""
    assert extract(answer, ("one", "two", "three"), "llava") == letter


def test_cvbench_is_a_mean_of_means(tmp_path):
    bench, _, questions = loaded("cvbench", tmp_path)
    scores = bench.score(questions, ["A", "A", "C", "A", "A"])
    assert (scores["2D"], scores["3D"], scores["overall"]) == (0.75, 0.5, 0.625)
    assert scores["accuracy"] == 3 / 5
    assert scores["tasks"]["Count"] == {"n": 2, "accuracy": 0.5}
    half = bench.score(questions[:3], ["A", "B", "C"])
    assert (half["2D"], half["3D"], half["overall"]) == (1.0, None, None)
    assert [row[0] for row in bench.table(half)][:2] == ["2D", "all questions"]


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("hallusionbench", "HallusionBench.json", ('"gt_answer": "1"', '"gt_answer": "2"'), "0 or"),
        ("hallusionbench", "HallusionBench.json", ("VD/figure/0_0", "../0_0"), "inside"),
        ("mmvp", "Questions.csv", ("(a) Left (b) Right", "(a) Left"), r"Questions.csv:2: answer"),
        ("mmvp", "Questions.csv", ("2,Which", "0,Which"), "Questions.csv:3: index 0"),
        ("hrbench", "hr_bench_4k.tsv", ("\tB\tcycle_0", "\tE\tcycle_0"), "hr_bench_4k.tsv:2: answ"),
        ("seedbench", "SEED-Bench.json", ('"answer": "B"', '"answer": "F"'), "questions 2: answer"),
        ("seedbench", "SEED-Bench.json", ('"3.jpg"', '"../3.jpg"'), "questions 4: .*inside"),
        (
            "scienceqa",
            "problems.json",
            ('"answer": 1', '"answer": 4'),
            "problems.json: '3': answer",
        ),
        ("scienceqa", "pid_splits.json", ('"9"', '"8"'), "no '8'"),
    ],
)
def test_a_damaged_row_is_named(name, file, change, message, tmp_path):
    root = small_benchmarks.write(name, small_benchmarks.KINDS[name][0], tmp_path)
    text = (root / file).read_text()
    assert change[0] in text
    (root / file).write_text(text.replace(*change))
    bench = plugins.load("bench", name)
    with pytest.raises(DataError, match=message):
        bench.read(bench.Config(str(root)))
