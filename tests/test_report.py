"""Reports: from records alone and byte for byte, escaped, counted, with pictures that exist."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_runs import make_run, right_with
from fakes import StubModel, make_mme
from PIL import Image

from cof import load_run
from cof.analyse import gallery
from cof.analyse.figures import Curve, Panel, curves, forest, save
from cof.analyse.metrics import paired, published
from cof.analyse.naming import hash_names
from cof.analyse.report import ReportOptions, write_report
from cof.analyse.sections import coarse_table, scores_table
from cof.analyse.statistics import FEW, Estimate
from cof.analyse.tables import Number, Table, metric, percent, points
from cof.cli import main
from cof.config import schema
from cof.errors import DataError, RunError
from cof.evaluate.runner import _score, run
from cof.regions.boxes import iou
from cof.store.run import run_hash
from cof.types import NOWHERE, Answer, Question, Result
from cof_lab.mini import grounding
from cof_lab.mini.common import MiniConfig

CONFIGS = Path(__file__).resolve().parents[1] / "examples" / "configs"
HALF = Estimate(0.5, 0.25, 0.75, 60, 40)
NONE = Estimate(0.5, None, None, 8, 4, FEW)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def data(root):
    return make_mme(root / "mme", 40)


@pytest.fixture(scope="module")
def runs(root, data):
    return [
        make_run(
            root / "runs",
            data,
            right_with(0.5, 0.5 + weight / 10),
            f"w{weight:g}",
            seed=int(weight),
            scored=True,
            refine={"name": "highlight", "weight": weight},
        )
        for weight in (1.0, 4.5)
    ]


@pytest.fixture(scope="module")
def report(root, runs):
    out = root / "report"
    written = write_report(runs, out, ReportOptions(latex=True, csv=True, gallery=2))
    assert all(path.is_file() for path in written)
    return out


def contents(folder):
    kept = sorted(path for path in folder.rglob("*") if path.suffix in (".md", ".tex", ".csv"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


class TestFromRecordsAlone:
    def test_tables_are_rebuilt_byte_for_byte(self, root, runs, report):
        copies = []
        for one in runs:
            copy = root / "again" / one.path.name
            shutil.copytree(one.path, copy)
            (copy / "scores.json").unlink()
            copies.append(load_run(copy))
        write_report(copies, root / "second", ReportOptions(latex=True, csv=True, gallery=2))
        assert contents(root / "second") == contents(report)

    def test_scores_json_is_rebuilt_byte_for_byte(self, root, runs):
        from cof.store.folder import RunFolder

        copy = root / "rescored" / "w1"
        shutil.copytree(runs[0].path, copy)
        before = (copy / "scores.json").read_bytes()
        (copy / "scores.json").unlink()
        _score(RunFolder(copy), schema.resolve(runs[0].config))
        assert (copy / "scores.json").read_bytes() == before

    def test_published_metrics_are_those_of_scores_json(self, runs):
        got = published(runs[1], "cof", 0)
        scores = runs[1].scores["cof"]
        assert got["perception"].value == scores["perception"]
        assert got["color"].value == scores["subtasks"]["color"]["score"]
        both = paired(runs[1], 0)["perception"]
        assert (both.plain.value, both.cof) == (
            runs[1].scores["plain"]["perception"],
            got["perception"],
        )
        assert both.difference.value == pytest.approx(both.cof.value - both.plain.value)
        assert both.difference.low < both.difference.value < both.difference.high


class TestRange:
    def test_no_interval_of_a_score_leaves_what_is_possible(self, root, data):
        """All right but one answer: a symmetric interval would pass 200 and 400."""
        one = make_run(root / "runs", data, right_with(1, 1), "best")
        wrong = replace(one.results[0], cof=Answer("No"), plain=Answer("Yes"))
        run = replace(one, results=(wrong, *one.results[1:]))
        got = published(run, "cof", 0)["perception"]
        assert 340 < got.low < got.value < got.high < 400
        assert published(run, "cof", 0)["color"].reason == FEW
        change = paired(run, 0)["perception"].difference
        assert -400 < change.low < change.value < 0 < change.high < 400

    def test_a_benchmark_that_does_not_say_its_range_is_named(self, runs, monkeypatch):
        monkeypatch.delattr("cof.bench.mme.ranges")
        with pytest.raises(RunError, match=r"perception is .*, but should lie between 0 and 100"):
            published(runs[1], "cof", 0)


class TestPage:
    def test_every_measured_number_has_an_interval_and_an_n(self, report):
        rows = list(csv.DictReader((report / "tables" / "1-settings.csv").open(encoding="utf-8")))
        assert [row["λ"] for row in rows] == ["plain", "1", "4.5"]
        for row in rows:
            assert float(row["CoF, % low"]) <= float(row["CoF, %"]) <= float(row["CoF, % high"])
            assert row["CoF, % n"] == row["n"] == "80"
        page = (report / "report.md").read_text(encoding="utf-8")
        for line in page.splitlines():
            cells = [cell.strip() for cell in line.split("|")[2:-1]]
            measured = [cell for cell in cells if re.match(r"[+-]?\d+\.\d+( |$)", cell)]
            with_ends = [cell for cell in measured if re.search(r"\[|too few \(\d+\)", cell)]
            tests = [cell for cell in measured if re.fullmatch(r"[01]\.\d{3}", cell)]
            assert len(measured) == len(with_ends) + len(tests), line

    def test_every_table_stands_in_all_formats(self, report):
        tables = {path.stem for path in (report / "tables").iterdir()}
        assert {"1-settings", "1-coarse", "1-effect", "1-status", "1-against-first"} <= tables
        assert "1-scores-lambda-4.5" in tables
        for path in (report / "tables").glob("*.tex"):
            text = path.read_text(encoding="utf-8")
            assert text.isascii(), path
            assert r"\toprule" in text
            assert not re.search(r"(?<!\\)[%&#_](?![^{]*})(?!\s)", re.sub(r"[ ]&[ ]", "", text)), (
                path
            )

    def test_the_figures_exist_and_carry_the_hash(self, runs, report):
        page = (report / "report.md").read_text(encoding="utf-8")
        pictures = re.findall(r"\]\((figures/.*?)\)", page)
        assert "figures/1-settings.png" in pictures
        assert all(Image.open(report / picture).width > 500 for picture in pictures)
        assert (report / "figures" / "1-settings.pdf").read_bytes().startswith(b"%PDF")
        assert all(run_hash(run) in page for run in runs)

    def test_the_gallery_shows_gained_and_lost(self, runs, report):
        page = (report / "gallery.md").read_text(encoding="utf-8")
        pictures = re.findall(r"\]\((gallery/.*?)\)", page)
        assert len(pictures) == 8
        for picture in pictures:
            assert Image.open(report / picture).width > 800
            assert run_hash(runs[0]) in picture or run_hash(runs[1]) in picture
        assert "right:" in page
        assert "plain:" in page

    @pytest.mark.slow
    def test_a_brief_one_has_only_tables_over_all_runs(self, root, runs):
        out = root / "brief"
        write_report(runs, out, ReportOptions(csv=True, gallery=0, brief=True))
        names = {path.stem for path in (out / "tables").iterdir()}
        assert not [name for name in names if "categories" in name or "scores" in name]
        assert {"1-settings", "1-against-first", "1-coarse", "1-effect"} <= names
        assert [path.name for path in (out / "figures").iterdir()] == ["1-settings.png"]

    @pytest.mark.slow
    def test_runs_over_other_questions_have_their_own_section(self, root, data, runs):
        bench = {"name": "mme", "root": str(data), "limit": 4}
        other = make_run(root / "runs", data, right_with(1, 1), "other", bench=bench)
        write_report([runs[0], other], root / "two", ReportOptions(gallery=0))
        page = (root / "two" / "report.md").read_text(encoding="utf-8")
        assert re.findall("^## (.*)$", page, re.M) == [
            "mme: 80 questions, 40 images",
            "mme: 8 questions, 4 images",
        ]
        assert "No gallery." in page

    def test_a_run_without_the_plain_pass(self, root, data):
        alone = make_run(root / "runs", data, right_with(1, 0.7), "alone", plain=False)
        write_report([alone], root / "alone", ReportOptions())
        page = (root / "alone" / "report.md").read_text(encoding="utf-8")
        assert "difference" not in page
        assert "perception" in page

    def test_an_unfinished_run_is_refused(self, root, data):
        cut = make_run(root / "runs", data, right_with(1, 1), "cut", keep=78)
        with pytest.raises(RunError, match="2 of 80 questions have no record yet"):
            write_report([cut], root / "cut")


class TestGallery:
    @pytest.mark.slow
    def test_images_that_moved_can_be_named_and_missing_ones_are_said(self, root, data, runs):
        moved = root / "moved"
        data.rename(moved)
        try:
            write_report(runs[:1], root / "without", ReportOptions(gallery=1))
            page = (root / "without" / "report.md").read_text(encoding="utf-8")
            assert re.search(r"No gallery: .*\.png", page)
            write_report(runs[:1], root / "with", ReportOptions(gallery=1, images=moved))
            assert (root / "with" / "gallery.md").is_file()
        finally:
            moved.rename(data)

    def test_answers_cannot_break_the_page(self):
        from cof.types import Answer, Question

        asked = Question("a`b", "i.png", "Why?\n```\n# Title " + "x" * 900, reference="r")
        lines = gallery._entry(Result(asked, cof=Answer("```", ())), gallery.Path("p.png"))
        block = "\n".join(lines)
        assert block.count("```") == 2
        assert max(map(len, lines)) < 450

    def test_a_model_that_is_no_grid_is_said(self, runs):
        with pytest.raises(DataError, match=r"17 tokens in the frame 'image' are no square grid"):
            gallery.cells(runs[0], Result(Question("q", "i", "?"), tokens=17), (8, 6))

    def test_tokens_are_drawn_where_the_record_says(self, runs):
        quads = ((0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.25))
        asked = Question("q", "i", "?")
        loose = Result(asked, tokens=5, cells=(1, 4), lit=quads)
        found = gallery.cells(runs[0], loose, (8, 6))
        assert found[[1, 4]].tolist() == [list(quad) for quad in quads]
        assert set(map(tuple, found[[0, 2, 3]].tolist())) == {NOWHERE}
        grid = Result(asked, tokens=6, grid=(2, 3), frame=(0.0, -0.5, 1.0, 1.5))
        found = gallery.cells(runs[0], grid, (8, 6))
        assert found[3].tolist() == pytest.approx([0.0, 0.5, 1 / 3, 1.5])


class TestTables:
    table = Table(
        "t",
        "50 % of λ",
        ("name", "n", "share", "p"),
        (("a|b_c\\d", 8, percent(HALF), 0.0004), ("<x>", 8, None, 0.5)),
    )

    def test_markdown_escapes_its_own_signs(self):
        assert r"a\|b_c\\d" in self.table.markdown()
        assert "&lt;x>" in self.table.markdown()
        assert "50.0 [25.0, 75.0]" in self.table.markdown()
        assert "&lt;0.001" in self.table.markdown()

    def test_latex_is_ready_to_paste(self):
        text = self.table.latex()
        assert r"\caption{50 \% of $\lambda$}" in text
        assert r"a|b\_c\textbackslash{}d" in text
        assert text.startswith(r"\begin{table}")
        negative = Table("t", "c", ("x",), ((points(HALF.times(-1)),),))
        assert "$-$50.0 [$-$25.0, $-$75.0]" in negative.latex()

    def test_csv_has_all_digits(self):
        third = Estimate(1 / 3, None, None, 3, 3, FEW)
        rows = list(
            csv.reader(io.StringIO(Table("t", "", ("a", "b"), ((1, metric(third)),)).csv()))
        )
        assert rows == [["a", "b", "b low", "b high", "b n"], ["1", repr(1 / 3), "", "", "3"]]

    def test_csv_has_the_p_of_a_tested_number(self):
        tested = ((points(HALF, p=0.25),), (points(NONE),), (None,))
        rows = list(csv.DictReader(io.StringIO(Table("t", "", ("x",), tested).csv())))
        assert [row["x p"] for row in rows] == ["0.25", "", ""]
        assert [row["x low"] for row in rows] == ["25.0", "", ""]

    @pytest.mark.parametrize(
        ("number", "shown"),
        [
            (points(Estimate(-0.0001, -0.1, 0.1, 50, 50)), "+0.0 [-10.0, +10.0]"),
            (percent(HALF, n=True), "50.0 [25.0, 75.0] (n = 60)"),
            (Number(Estimate(1531.319, None, None, 2, 1, FEW), 2), "1531.32 too few (1)"),
            (points(NONE, n=True), "+50.0 too few (4) (n = 8)"),
            (points(HALF, p=0.04), "+50.0 [+25.0, +75.0], p 0.040"),
            (metric(Estimate(0.0, -0.5, 0.5, 50, 50)), "0.00 [-0.50, 0.50]"),
        ],
    )
    def test_how_numbers_are_shown(self, number, shown):
        assert str(number) == shown


class TestFigures:
    def test_the_hash_is_written_into_every_figure(self, tmp_path):
        line = Curve("α 1", (1.0, 2.0), (HALF, HALF))
        for figure in (
            curves([Panel("a", [line], HALF), Panel("b", [line])], "λ", "%", "run 1a2b3c4d"),
            forest({"own": HALF, "$x$": NONE}, "points", "run 1a2b3c4d"),
        ):
            assert any(text.get_text() == "run 1a2b3c4d" for text in figure.texts)
            assert Image.open(save(figure, tmp_path / "f.png")).width > 500

    def test_no_interval_is_no_bar_no_band_and_claims_nothing(self):
        (axes,) = forest({"own": HALF, "few": NONE}, "points", "h").axes
        _, bar, certain, cross = axes.lines
        assert list(bar.get_ydata()) == [0, 0]
        assert certain.get_markerfacecolor() != "white"
        assert (cross.get_marker(), list(cross.get_ydata())) == ("x", [1])
        figure = curves([Panel("", [Curve("few", (1.0, 2.0), (NONE, NONE))])], "λ", "%", "h")
        (band,) = figure.axes[0].collections
        assert sum(len(path.vertices) for path in band.get_paths()) == 0

    @pytest.mark.parametrize("panels", [[], [Panel("a", [])], [Panel("a", []), Panel("b", [])]])
    def test_nothing_to_draw_is_a_figure_without_legend(self, tmp_path, panels):
        figure = curves(panels, "λ", "%", "h")
        assert not figure.legends
        assert save(figure, tmp_path / "f.png").is_file()

    @pytest.mark.parametrize("turn", [1, -1])
    def test_an_empty_panel_takes_nothing_from_its_neighbour(self, turn):
        line = Curve("α 1", (1.0, 3.0), (HALF, HALF))
        figure = curves([Panel("a", []), Panel("b", [line])][::turn], "λ", "%", "h")
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["α 1"]
        for plot in figure.axes:
            assert (plot.get_xscale(), list(plot.get_xticks())) == ("log", [1.0, 3.0])

    def test_a_long_name_makes_room_for_itself(self):
        short, long = (forest({"x" * count: HALF}, "x", "h") for count in (3, 60))
        assert long.get_figwidth() > short.get_figwidth() + 2

    def test_equal_figures_are_equal_files(self, tmp_path):
        for kind in ("png", "pdf"):
            files = [save(forest({"a": HALF}, "x", "h"), tmp_path / f"{i}.{kind}") for i in "ab"]
            assert files[0].read_bytes() == files[1].read_bytes()

    def test_many_runs_have_one_hash_together(self):
        assert hash_names(["a"]) == "run a"
        assert hash_names(["a", "b"]) == "runs a b"
        assert re.fullmatch(r"4 runs, together [0-9a-f]{8}", hash_names(list("abcd")))


def test_measures_of_the_coarse_stage_and_scores_are_tables(runs):
    table = coarse_table(runs, ["a", "b"])
    assert len(table.head) == len(table.rows[0]) == 8
    names = [row[0] for row in scores_table(runs[0], "a", 0).rows]
    assert names == ["perception", "existence", "color"]


def test_a_benchmark_of_the_coarse_stage_has_its_own_metrics_and_no_difference(
    tmp_path, monkeypatch
):
    grounding.write(tmp_path / "data", MiniConfig(size=3))
    monkeypatch.setattr("cof.models.llava.load", lambda settings: StubModel())
    overrides = [f"bench.root={tmp_path / 'data'}", f"out={tmp_path / 'runs'}", "name=r"]
    done = run(schema.load(CONFIGS / "grounding.yaml", overrides))
    twin = run(schema.load(CONFIGS / "grounding.yaml", [*overrides, "name=s", "locate.stop=never"]))
    written = write_report([done, twin], tmp_path / "report", ReportOptions(csv=True))
    page = written[0].read_text(encoding="utf-8")
    assert "## refcoco: 3 questions, 3 images" in page
    assert re.search(r"\| metric +\| +n \| +coarse stage \|", page)
    assert "plain, %" not in page
    assert "No gallery." in page
    rows = list(csv.DictReader((tmp_path / "report/tables/1-coarse.csv").open(encoding="utf-8")))
    expected = [iou(result.region.boxes, result.question.boxes) for result in done.results]
    assert float(rows[0]["IoU, %"]) == pytest.approx(100 * sum(expected) / 3)
    scores = list(csv.DictReader(next((tmp_path / "report/tables").glob("1-scores*")).open()))
    assert float(scores[1]["coarse stage"]) == pytest.approx(100 * sum(expected) / 3)


@pytest.mark.slow
def test_the_command_names_what_it_wrote(root, runs):
    out = root / "cli"
    done = CliRunner().invoke(main, ["report", str(runs[0].path), "--out", str(out), "--csv"])
    assert done.exit_code == 0, done.output
    files = [line for line in done.output.splitlines() if line]
    assert files[0] == str(out / "report.md")
    assert str(out / "tables" / "1-settings.csv") in files
    assert json.loads((runs[0].path / "manifest.json").read_text())["config_hash"][:8] in (
        out / "report.md"
    ).read_text(encoding="utf-8")
