"""What models, data and folders are called stands on our pages as text, in every format."""

import csv
import io
import re
import shutil

import pytest
from fake_runs import make_run, right_with
from fakes import make_mme
from hypothesis import given
from hypothesis import strategies as st

from cof import load_run
from cof.analyse import escape, gallery
from cof.analyse.figures import forest
from cof.analyse.page import write_page
from cof.analyse.report import ReportOptions, write_report
from cof.analyse.statistics import Estimate
from cof.analyse.tables import Table, percent, points
from cof.types import Answer, Question, Result

EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![pixel](http://example.org/p.png)",
    "[click](javascript:alert(1))",
    "a | b | c",
    "`code` *stars*",
    "line\nend\r\n# heading",
    "para\u2028graph",
    "abc\u202edcba\u202c \u2066x\u2069",
    "bell\x07 escape\x1b[31m red",
    "half \ud800 sign",
    "# heading",
    "> quotation",
    "&lt;b&gt;",
    "<!-- comment",
    r"\input{secret} $x$ 50 % #1 a_b ~ ^",
]
SIGNS = "\x07\x1b\r\u202e\u202c\u2066\u2069\u2028\ud800"
NUMBER = Estimate(0.5, 0.25, 0.75, 8, 40)


def table(text):
    return Table("t", text, (text, "share"), ((text, percent(NUMBER)),))


@pytest.mark.parametrize("text", EVIL)
def test_markdown_shows_it_and_does_nothing(text):
    page = table(text).markdown()
    assert not set(page) & set(SIGNS)
    assert "<" not in page
    assert not re.search(r"^\s*[#>]", page, re.M)
    assert not re.search(r"(?<!\\)\]\(", page)
    assert not re.search(r"(?<!\\)!\[", page.replace(r"!\[", ""))
    assert "50.0 [25.0, 75.0]" in page
    _, _, *rows = page.rstrip("\n").split("\n")
    assert len(rows) == 3
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)


@pytest.mark.parametrize("text", EVIL)
def test_latex_and_terminal_have_no_signs_that_do_something(text):
    for shown in (table(text).latex(), table(text).text()):
        assert not set(shown) & set(SIGNS)
    tex = table(text).latex()
    assert not re.search(r"(?<!\\)[%#$](?!-\$|$)", re.sub(r"\$[-\\a-z]+\$", "", tex))
    assert r"\input" not in tex


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "＝1"])
def test_csv_has_no_formulas(text):
    rows = list(csv.reader(io.StringIO(table(text).csv())))
    assert rows[0][0] == rows[1][0] == f"'{text}"


@pytest.mark.parametrize("text", ["-0.5", "+1", "-1e-3", "+5 %".replace(" ", ""), "a=b", "1-2", ""])
def test_csv_keeps_numbers_and_plain_text(text):
    assert escape.cell(text) == text


def test_csv_numbers_stay_numbers():
    made = Table("t", "", ("a", "b", "c"), ((-3, -0.5, points(NUMBER.times(-1))),))
    row = list(csv.reader(io.StringIO(made.csv())))[1]
    assert [float(cell) for cell in row] == [-3, -0.5, -50, -25, -75, 8]


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs", "Cf", "Zl", "Zp"])))
def test_plain_text_is_itself(text):
    assert escape.clean(text) == text
    if not set(text) & set("\\|`*[]&<") and text[:1] not in "#>+-":
        assert escape.markdown(text) == text


def test_letters_that_need_joiners_keep_them():
    assert escape.clean("می\u200cخواهم 👩\u200d🔬") == "می\u200cخواهم 👩\u200d🔬"


def test_a_page_escapes_its_caption_and_its_notes(tmp_path):
    evil = "![x](http://example.org) <b>"
    figure = forest({"a": NUMBER}, "x", "h")
    page = write_page(tmp_path, "p", table(evil), figure, [evil])[1].read_text(encoding="utf-8")
    assert "<b>" not in page
    assert re.findall(r"(?<!\\)\]\((.*?)\)", page) == ["p.png"]


def test_the_gallery_cannot_be_broken_out_of():
    asked = Question("a`<b>\n# x\u202e", "i.png", "Why?\n```\n<script>\u202e", reference="r\x1b")
    lines = gallery._entry(Result(asked, cof=Answer("```", ())), gallery.Path("p.png"))
    page = "\n".join(lines)
    assert page.count("```") == 2
    assert lines[0].count("`") == 2
    assert lines[0] == "### `a'<b> # x\ufffd`"
    assert not set(page) & set(SIGNS)


@pytest.mark.slow
def test_a_whole_report_of_a_run_with_an_evil_name(tmp_path):
    made = make_run(tmp_path / "runs", make_mme(tmp_path / "mme", 4), right_with(0.5, 0.7))
    place = tmp_path / "![x](y) <img src=x>"
    shutil.copytree(made.path, place)
    page, *_ = write_report([load_run(place)], tmp_path / "out", ReportOptions(csv=True, gallery=1))
    for file in (page, tmp_path / "out" / "gallery.md"):
        text = file.read_text(encoding="utf-8")
        assert "<img" not in text
        links = re.findall(r"(?<!\\)\]\((.*?)\)", text)
        assert all(
            re.fullmatch(r"(figures|gallery)/[\w.=+-]+\.png|gallery.md", one) for one in links
        )
