"""MMBench: table, images, prompt, extraction, circular accuracy, the submission sheet."""

import base64
import csv
import io
import json
import random
from dataclasses import replace

import oracles
import pytest
from click.testing import CliRunner
from fakes import StubModel
from mme_folders import write_jsonl
from openpyxl import load_workbook
from PIL import Image

from cof.batch import Batch
from cof.bench import _mmbench_files as mmbench_files
from cof.bench import mmbench
from cof.bench.common import choice
from cof.cli import main
from cof.errors import ConfigError, DataError
from cof.images import load_image
from cof.locate import prompt
from cof.store.records import from_record, to_record
from cof.types import Question, Result

NAME = "mmbench_dev_20230712.tsv"
COLUMNS = [
    *("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "source"),
    *("l2-category", "comment", "split", "image"),
]
INSTRUCTION = "\nAnswer with the option's letter from the given choices directly."


def picture(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def rotations(base, options, answer, **columns):
    """Rows of one question, one a rotation, as the published table holds them."""
    rows = []
    for turn in range(len(options)):
        shown = options[turn:] + options[:turn]
        place = ("ABCD".index(answer) - turn) % len(options)
        letters = dict(zip("ABCD", shown, strict=False))
        index = turn * 1_000_000 + base
        rows.append({"index": index, **letters, "answer": "ABCD"[place], **columns})
    return rows


def write_tsv(path, rows, columns=COLUMNS):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, delimiter="\t", restval="", extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.fixture
def rows():
    common = {"source": "s", "comment": "", "split": "dev"}
    return [
        *rotations(
            *(7, ["red", "green", "blue", "a deep, dark grey"], "B"),
            **{**common, "question": "What colour?", "hint": 'The "big"\none.'},
            **{"category": "attribute", "l2-category": "fine (instance-level)"},
            image=picture("red"),
        ),
        *rotations(
            *(9, ["yes", "no"], "A"),
            **{**common, "question": "Is it so?", "category": "logic", "l2-category": "logic"},
            image=picture("blue"),
        ),
    ]


@pytest.fixture
def root(tmp_path, rows):
    write_tsv(tmp_path / NAME, rows)
    return tmp_path


def questions_of(root, **options):
    return mmbench.read(mmbench.Config(str(root), **options))


def cof(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


# --- reading ---


def test_every_row_is_asked_as_llava_does(root):
    questions = questions_of(root)
    assert [q.id for q in questions] == ["7", "1000007", "2000007", "3000007", "9", "1000009"]
    assert questions[1].text == (
        'The "big"\none.\nWhat colour?\nA. green\nB. blue\nC. a deep, dark grey\nD. red'
        + INSTRUCTION
    )
    assert [q.reference for q in questions] == ["B", "A", "D", "C", "A", "B"]
    assert questions[4].options == ("yes", "no")
    assert questions[0].category == "fine (instance-level)/attribute"


def test_the_coarse_stage_is_asked_about_the_question_and_not_about_its_hint(root):
    questions = questions_of(root, rotate=True)
    assert {q.core for q in questions} == {"What colour?", ""}
    model = StubModel()
    pictures = [Image.new("RGB", (8, 6))] * 2
    prompt.locate(Batch.of(model, [questions[0], questions[-1]], pictures), prompt.Config())
    asked = [seen.prompt.split("\n")[0] for seen in model.seen]
    assert asked == ["What colour?", "Is it so?"]  # the published rule, where there is no hint
    record = to_record(0, Result(questions[0]))
    assert from_record(record).question == questions[0]
    del record["core"]
    assert from_record(record).question == replace(questions[0], core="")


def opened(root, question):
    return load_image(mmbench.pictures(mmbench.Config(str(root))) / question.image)


def test_images_stay_in_the_table_and_are_shared_by_rotations(root):
    questions = questions_of(root)
    assert {q.image for q in questions} == {
        "mmbench_dev_20230712_images/7.jpg",
        "mmbench_dev_20230712_images/9.jpg",
    }
    red, blue = (opened(root, q).getpixel((3, 3)) for q in (questions[1], questions[4]))
    assert (red[0] > 250, blue[2] > 250) == (True, True)
    assert [file.name for file in root.iterdir()] == [NAME]


def test_an_image_cell_may_point_to_another_row(root, rows):
    for row in rows[1:4]:
        row["image"] = "7"
    write_tsv(root / NAME, rows)
    assert len({q.image for q in questions_of(root)}) == 2


@pytest.mark.parametrize("empty", ["", "NA", "nan", "None", "none", "NULL"])
def test_options_end_at_the_first_that_pandas_reads_as_empty(root, rows, empty):
    rows[0]["C"] = empty
    write_tsv(root / NAME, rows)
    assert questions_of(root)[0].options == ("red", "green")


def test_rotations_can_be_made_here(root, rows):
    asked = questions_of(root)
    write_tsv(root / NAME, [rows[0], rows[4]])
    turned = questions_of(root, rotate=True)
    assert [q.id for q in turned] == ["7", "7r1", "7r2", "7r3", "9", "9r1"]
    assert [(q.text, q.options, q.reference) for q in turned] == [
        (q.text, q.options, q.reference) for q in asked
    ]


CHINESE = "\n请直接回答选项字母。"


@pytest.mark.parametrize(
    ("file", "chinese"),
    [
        *(("mmbench_dev_cn_20231003.tsv", True), ("MMBench_DEV_CN.tsv", True)),
        *(("MMBench_DEV_CN_V11.tsv", True), ("MMBench_TEST_CN.tsv", True), ("CCBench.tsv", True)),
        *(("MMBench_DEV_EN.tsv", False), ("MMBench_cnn.tsv", False), ("acne.tsv", False)),
    ],
)
def test_chinese_tables_are_known_by_name(root, rows, file, chinese):
    write_tsv(root / file, rows)
    assert questions_of(root, file=file)[0].text.endswith(CHINESE) == chinese
    assert questions_of(root, file=file, lang="cn")[0].text.endswith(CHINESE)
    assert questions_of(root, file=file, lang="en")[0].text.endswith(INSTRUCTION)


def test_chinese_tables_are_known_by_most_of_their_questions(root, rows):
    for row, share in ((rows[0], "什么颜色？"), (rows[1], "“红” 是什么 colour?")):
        row["question"] = share
    write_tsv(root / NAME, rows)
    assert questions_of(root)[0].text.endswith(INSTRUCTION)  # two of six
    for row in rows:
        row["question"] = "图中是什么？"
    write_tsv(root / NAME, rows)
    assert questions_of(root)[0].text.endswith(CHINESE)


def test_cells_may_be_as_long_as_any_system_lets_them(root, rows, monkeypatch):
    asked = []
    limit = csv.field_size_limit
    monkeypatch.setattr(csv, "field_size_limit", lambda *new: asked.append(new) or limit(*new))
    questions_of(root)
    assert max(new[0] for new in asked) < 2**31, "a C long has 32 bits on Windows"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"image": ""}, "row 2000007 has no image"),
        ({"answer": "E"}, "answer 'E' is none of the 4 options"),
        ({"B": ""}, "row 2000007 lacks its question or options"),
        ({"question": ""}, "row 2000007 lacks its question or options"),
        ({"index": "seven"}, "index 'seven' is no number"),
        ({"index": 7}, "mmbench_dev_20230712.tsv:7: index '7' occurs twice"),
    ],
)
def test_a_broken_table_is_refused_by_row(root, rows, cells, message):
    rows[2].update(cells)
    write_tsv(root / NAME, rows)
    with pytest.raises(DataError) as error:
        questions_of(root)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("####", "mmbench_dev_20230712.tsv: image of 2000007 is not base64"),
        (base64.b64encode(b"some text").decode(), "image of 2000007' is not an image"),
        (picture("red")[:400], "image of 2000007' is damaged or cut off"),
    ],
)
def test_a_broken_image_fails_its_own_question(root, rows, cell, message):
    rows[2]["image"] = cell
    write_tsv(root / NAME, rows)
    questions = questions_of(root)
    assert opened(root, questions[3]).size == (8, 6)
    with pytest.raises(DataError) as error:
        opened(root, questions[2])
    assert message in str(error.value)


def test_the_newest_table_is_found(root, rows):
    def found(*names):
        for name in names:
            write_tsv(root / name, rows)
        return mmbench_files.tables(str(root))[0].name

    assert found() == NAME
    assert found("mmbench_test_20230712.tsv", "MMBench_DEV_CN_V11.tsv") == NAME
    assert found("mmbench_dev_en_20231003.tsv") == "mmbench_dev_en_20231003.tsv"
    assert found("MMBench_TEST_EN_V11.tsv", "notes.tsv") == "mmbench_dev_en_20231003.tsv"
    assert found("MMBench_DEV_EN_V11.tsv") == "MMBench_DEV_EN_V11.tsv"
    assert mmbench_files.tables(str(root), NAME)[0].name == NAME


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds nothing; looked for mmbench"):
        questions_of(tmp_path)
    (tmp_path / NAME).write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match="has the columns a, b; looked for index, question"):
        questions_of(tmp_path)


# --- extraction ---

ANIMALS = ("cat", "dog", "a blue bird")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *(("A", "A"), ("B.", "B"), ("(C)", "C"), (" b ", "Z"), ("D", "Z"), ("", "Z")),
        ("The answer is B", "B"),
        ("the answer is (C), because of its colour and of its many feathers", "Z"),
        ("the correct answer is C because of its colour and of its many feathers", "C"),
        ("A cat sits there", "A"),  # only with VERBOSE may A be an article
        ("A dog sits there", "A"),
        ("The answer is dark", "Z"),  # D, which is none of three options
        ("The answer is certain", "C"),  # any case, not necessarily a word
        ("one two B four five six", "B"),
        ("B two three four five", "Z"),  # index > n - 5
        ("Z", "Z"),
        ("I'm sorry, but without the image provided I say B", "Z"),
        ("A bird of some kind", "Z"),
        ("A and B", "Z"),
        ("B is what a careful look at the picture shows", "Z"),  # too far from the end
        ("dog", "B"),
        ("It is a DOG.", "B"),
        ("cat or dog", "Z"),
        ("dog " * 20, "Z"),  # longer than twice all options
        ("It shows C", "C"),
    ],
)
def test_extraction(answer, letter):
    assert choice.extract(answer, ANIMALS) == letter


# --- scoring ---


def test_hand_scored_set(root):
    questions = questions_of(root)
    scores = mmbench.score(questions, ["B", "A", "D", "green", "A", "I cannot tell"])
    assert scores == {
        **{"benchmark": "mmbench", "version": "3", "rows": 6},
        **{"extract": "vlmevalkit", "unresolved": 1, "disputed": 0},
        **{"groups": 2, "circular_right": 1, "circular": 0.5, "base_rows": 2, "vanilla": 1.0},
        "l2_categories": {
            "fine (instance-level)": {
                **{"groups": 1, "circular_right": 1, "circular": 1.0},
                **{"base_rows": 1, "vanilla": 1.0},
            },
            "logic": {
                **{"groups": 1, "circular_right": 0, "circular": 0.0},
                **{"base_rows": 1, "vanilla": 1.0},
            },
        },
        "categories": {
            "attribute": {
                **{"groups": 1, "circular_right": 1, "circular": 1.0},
                **{"base_rows": 1, "vanilla": 1.0},
            },
            "logic": {
                **{"groups": 1, "circular_right": 0, "circular": 0.0},
                **{"base_rows": 1, "vanilla": 1.0},
            },
        },
    }
    assert mmbench.credit(questions[5], "B") == 1
    assert mmbench.credit(questions[5], "A") == 0


def published_shape():
    """The published number of rows: 1176 questions in 4377 rows, some rotations absent."""
    rows, base = [], 0
    for size, count in ((2, 89), (3, 149), (4, 938)):
        for _ in range(count):
            options = ["one", "two", "three", "four"][: 4 if size > 2 and base % 3 else size]
            rows += rotations(base, options, "AB"[base % 2], question="?", split="dev")[:size]
            base += 1
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("where", ["--tsv", "beside", "in the answers", "xlsx"])
def test_published_number_to_all_digits_from_the_command_line(tmp_path, where):
    rows = published_shape()
    assert len(rows) == 4377
    answers = []
    for row in rows:
        base = row["index"] % 1_000_000
        wrong = base >= 796 and (base >= 887 or row["index"] >= 1_000_000)
        text = "AB"[row["answer"] == "A"] if wrong else row["answer"]
        options = [row[letter] for letter in "ABCD" if letter in row]
        answers.append(
            {"question_id": row["index"], "round_id": 0, "text": text, "options": options}
        )
    folder = tmp_path / "answers" / NAME.removesuffix(".tsv")
    folder.mkdir(parents=True)
    truth = ["index", "question", "A", "B", "C", "D", "answer"]
    extra = []
    if where == "--tsv":
        extra = ["--tsv", write_tsv(tmp_path / "elsewhere.tsv", rows, ["index", "answer"])]
    elif where == "in the answers":
        answers = [{**a, "answer": r["answer"]} for a, r in zip(answers, rows, strict=True)]
    elif where == "beside":
        write_tsv(tmp_path / NAME, rows, truth)
    file = write_jsonl(folder / "llava-v1.5-13b.jsonl", answers)
    if where == "xlsx":
        write_tsv(tmp_path / NAME, rows, [*truth, "split"])
        found = mmbench.read_answers(file, mmbench.Config(str(tmp_path)))
        config = mmbench.Config(str(tmp_path))
        file = mmbench.export(found.questions, found.texts, tmp_path / "out", config)[1]
    result = cof("score", "mmbench", file, "--json", *extra)
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert (scores["circular_right"], scores["groups"]) == (796, 1176)
    assert scores["circular"] == 0.6768707482993197
    assert scores["vanilla"] == 0.7542517006802721


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_obvious_computation(root, rows, seed):
    rng = random.Random(seed)
    questions = questions_of(root)
    answers = [q.reference if rng.random() < 0.8 else rng.choice("ABCD") for q in questions]
    scores = mmbench.score(questions, answers)
    given = {row["index"]: answer for row, answer in zip(rows, answers, strict=True)}
    assert (scores["circular"], scores["vanilla"]) == oracles.mmbench_scores(rows, given)


def test_test_splits_have_no_accuracy(root, rows):
    for row in rows:
        row["answer"] = ""
    write_tsv(root / NAME, rows)
    questions = questions_of(root)
    scores = mmbench.score(questions, ["A"] * 6)
    assert scores["circular"] is None
    assert scores["vanilla"] is None
    assert mmbench.table(scores) == []


# --- foreign files ---


def llava_rows(questions, texts):
    return [
        {
            **{"question_id": int(q.id), "round_id": 0, "prompt": q.text, "text": text},
            **{"options": list(q.options), "option_char": list("ABCD"[: len(q.options)])},
        }
        for q, text in zip(questions, texts, strict=True)
    ]


def test_circular_leaves_out_a_question_that_lacks_a_row(root, rows, tmp_path):
    """Of four rows three right ones and none: nobody knows; of two rows one is wrong."""
    questions = questions_of(root)
    answers = ["B", "A", "D", "", "A", "A"]
    kept = [place for place in range(6) if place != 3]
    file = write_jsonl(
        tmp_path / "a.jsonl", llava_rows([questions[k] for k in kept], [answers[k] for k in kept])
    )
    call = ("score", "mmbench", file, "--tsv", write_tsv(tmp_path / "bare.tsv", rows, COLUMNS[:-1]))
    assert "1 of 6 questions have no answer" in cof(*call).stderr
    result = cof(*call, "--allow-missing", "--json")
    scores = json.loads(result.stdout)
    assert (scores["circular"], scores["groups"], scores["incomplete"]) == (0, 1, {"circular": 1})
    assert (scores["vanilla"], scores["base_rows"]) == (1, 2)
    assert scores["categories"]["attribute"]["circular"] is None
    assert "note: circular: 1 group with a question missing left out" in result.stderr
    printed = cof(*call, "--allow-missing").stdout
    assert "attribute" not in printed
    assert "logic" in printed


def test_circular_of_local_rotations_and_of_a_table_that_is_gone(root, rows):
    write_tsv(root / NAME, [rows[0], rows[4]])
    config = mmbench.Config(str(root), rotate=True)
    questions = mmbench.read(config)
    right = [one.reference for one in questions]
    assert mmbench.score(questions, right, config)["groups"] == 2
    scores = mmbench.score(questions[1:], right[1:], config)
    assert (scores["circular"], scores["incomplete"]) == (1, {"circular": 1})
    (root / NAME).unlink()
    scores = mmbench.score(questions[1:], right[1:], config)
    assert (scores["groups"], scores["unchecked_groups"]) == (2, True)


def test_groups_that_a_newer_table_names_must_be_those_of_the_index(root, rows):
    for row in rows:
        row["g_index"] = row["index"] % 1_000_000
    columns = [*COLUMNS, "g_index"]
    write_tsv(root / NAME, rows, columns)
    assert len(questions_of(root)) == 6
    rows[1]["g_index"] = 8
    write_tsv(root / NAME, rows, columns)
    with pytest.raises(DataError, match="index 1000007 with g_index '8', expected k "):
        questions_of(root)


def test_scoring_an_export_gives_the_same_scores(root):
    config = mmbench.Config(str(root))
    questions = mmbench.read(config)
    answers = ["B", "A\x0b", "=D", "a deep, dark grey", "NA", "A"]
    answers_file, sheet = mmbench.export(questions, answers, root / "out", config)
    for file in (answers_file, sheet):
        found = mmbench.read_answers(file, config)
        assert mmbench.score(found.questions, found.texts) == mmbench.score(questions, answers)


def test_sheet_has_exactly_the_published_columns(root):
    config = mmbench.Config(str(root))
    questions = mmbench.read(config)
    _, sheet = mmbench.export(questions, list("BADCAB"), root / "out", config)
    book = load_workbook(sheet)
    assert len(book.worksheets) == 1
    found = [list(row) for row in book.worksheets[0].iter_rows(values_only=True)]
    assert found[0] == [
        *("index", "question", "A", "B", "C", "D", "prediction", "answer", "split"),
    ]
    assert found[1] == [
        *(7, "What colour?", "red", "green", "blue", "a deep, dark grey", "B", "B", "dev"),
    ]
    assert found[5] == [9, "Is it so?", "yes", "no", None, None, "A", "A", "dev"]
    assert len(found) == 7
    with pytest.raises(ConfigError, match="needs the config"):
        mmbench.export(questions, list("BADCAB"), root / "out")


def test_answers_that_llava_rotated_itself(root, rows):
    write_tsv(root / NAME, [rows[0], rows[4]])
    questions = questions_of(root, rotate=True)
    config = mmbench.Config(str(root), rotate=True)
    file = mmbench.export(questions, ["B", "A", "D", "C", "A", "A"], root / "out", config)[0]
    first = json.loads(file.read_text().splitlines()[1])
    assert (first["question_id"], first["round_id"]) == (7, 1)
    assert first["option_char"] == ["B", "C", "D", "A"]
    found = mmbench.read_answers(file, mmbench.Config(str(root)))
    scores = mmbench.score(found.questions, found.texts)
    assert (scores["circular"], scores["vanilla"]) == (0.5, 1.0)


def unknown(answers):
    answers[2]["question_id"] = 12
    return "answers.jsonl:3: 12 0 is not among the questions"


def twice(answers):
    answers[2] = answers[1]
    return "answers.jsonl:3: 1000007 0 occurs once too often"


def missing(answers):
    del answers[2]
    return "answers.jsonl: 1 of 6 questions have no answer, the first is 2000007"


def other_options(answers):
    answers[2]["options"] = ["red", "green", "blue", "grey"]
    return "answers.jsonl:3: options ['red', 'green', 'blue', 'grey'] of 2000007, the table has"


def strange_id(answers):
    answers[2]["question_id"] = "x"
    return "answers.jsonl:3: question_id 'x' is no number"


def strange_round(answers):
    answers[2]["round_id"] = "x"
    return "answers.jsonl:3: round_id 'x' is no number"


@pytest.mark.parametrize(
    "damage", [unknown, twice, missing, other_options, strange_id, strange_round]
)
def test_bad_answers_are_refused_by_name(root, damage):
    answers = llava_rows(questions_of(root), list("BADCAB"))
    message = damage(answers)
    file = write_jsonl(root / "answers.jsonl", answers)
    with pytest.raises(DataError) as error:
        mmbench.read_answers(file, mmbench.Config(str(root)))
    assert message in str(error.value)


def test_without_right_answers_it_says_what_to_give(root, tmp_path):
    answers = llava_rows(questions_of(root), list("BADCAB"))
    (root / NAME).unlink()
    file = write_jsonl(tmp_path / "answers.jsonl", answers)
    result = cof("score", "mmbench", file)
    assert result.exit_code == 2
    assert "give --tsv, the MMBench table" in result.stderr


def test_rows_that_are_all_rotated_have_no_vanilla_accuracy():
    """One image of the published table, asked alone, as the intervals do."""
    question = Question("1000005", "5.jpg", "?", "a/b", "A", options=("x", "y"))
    scores = mmbench.score([question], ["A"])
    assert (scores["vanilla"], scores["circular"]) == (None, 1.0)
    assert [name for name, _, _ in mmbench.table(scores)] == ["circular", "a", "b"]
