"""The page's logic, without Gradio: answers over λ, boxes, uploads, HTML, runs."""

import ast
import asyncio
import math
import re
import socket
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from click.testing import CliRunner
from fake_runs import TRUE, make_run, right_with
from fakes import StubModel, make_mme
from PIL import Image

import cof.app
from cof import Box, CoF, Settings
from cof.app import answers, asking, pictures
from cof.app.browse import FILTERS, Browser
from cof.app.desk import Desk, at_layer, at_weight, box_of
from cof.app.guard import LOOPBACK, Guard, names_address
from cof.app.pictures import Picture
from cof.app.spelling import pieces
from cof.app.text import safe
from cof.app.uploads import Bounds, read_boxes, read_upload, write_boxes
from cof.cli import main
from cof.config.general import Gate
from cof.errors import AnswerError, DataError
from cof.locate import prompt, whole
from cof.models.base import Limits
from cof.refine import crop, highlight
from cof.regions.boxes import BoxConfig, expand
from cof.regions.mask import token_mask
from cof.types import Answer

ROOT = Path(__file__).resolve().parents[1]
SCENE = Image.open(ROOT / "examples" / "scene.jpg").convert("RGB")
QUESTION = "Is the object with the number 7 red?"
EVIL = "<img src=x onerror=alert(1)>\"' {{this}} ${alert(1)} `"


@pytest.fixture(scope="module")
def tiny():
    return CoF.from_pretrained("cof-tiny", device="cpu", max_new_tokens=32)


@pytest.fixture(scope="module")
def asked(tiny):
    return asking.ask(tiny, SCENE, QUESTION)


def stub(reply='{"box": [0.25, 0.25, 0.5, 0.5]}', **settings):
    return CoF(StubModel(reply), Settings(limits=Limits(16), **settings))


class TestAsking:
    @pytest.mark.parametrize("weight", [0.5, 1.0, 4.5, 10.0])
    def test_each_answer_is_the_pipelines_own_under_that_weight(self, tiny, asked, weight):
        settings = replace(tiny.settings, refine=highlight.Config(weight))
        alone = CoF(tiny.model, settings)(SCENE, QUESTION, plain=True)
        found = asked.at(weight)
        assert found.stage == settings.refine
        assert (found.text, found.plain, found.boxes) == (alone.text, alone.plain, alone.boxes)
        assert torch.equal(found.mask, alone.mask)
        assert found.logprobs == pytest.approx(alone.logprobs, abs=1e-4)

    def test_the_slider_holds_the_plain_model_and_the_settings_own_weight(self):
        weights = asking.weights_of(highlight.Config(7.25))
        assert weights == tuple(sorted(weights))
        assert {0.5, 1.0, 7.25, 10.0} <= set(weights)
        assert len(asking.weights_of(highlight.Config())) == 20

    def test_a_stage_without_a_weight_answers_once(self):
        asked = asking.ask(stub(refine=crop.Config()), SCENE, QUESTION)
        assert (asked.weights, len(asked.outcomes)) == ((), 1)
        assert asked.at(3.0) is asked.outcomes[0]
        assert "cof-line" not in answers.answers(asked, 3.0)

    def test_a_given_region_leaves_the_coarse_stage_out(self):
        cof, box = stub(), Box(0.5, 0.5, 0.9, 0.75)
        asked = asking.ask(cof, SCENE, QUESTION, asking.given([box]))
        assert not [one for one in cof.model.seen if "bounding box" in one.prompt]
        outcome = asked.outcomes[0]
        assert torch.equal(outcome.mask, token_mask([box], outcome.view.cells))
        assert asked.at(1.0).text == asked.outcomes[0].plain == "No"
        assert {asked.at(weight).text for weight in (0.5, 4.5, 10)} == {"Yes"}

    def test_alpha_is_the_pages_and_not_the_settings(self):
        cof = stub(boxes=BoxConfig(expand=3.0))
        asked = asking.ask(cof, SCENE, QUESTION, expand=1.5)
        assert asked.expand == 1.5
        assert asked.outcomes[0].boxes == (expand(Box(0.25, 0.25, 0.5, 0.5), 1.5),)

    def test_what_a_gate_keeps_is_plain_and_said(self, tiny):
        gated = CoF(tiny.model, replace(tiny.settings, gate=Gate(threshold=0.0)))
        asked = asking.ask(gated, SCENE, QUESTION)
        assert {one.text for one in asked.outcomes} == {asked.outcomes[0].plain}
        assert asked.region is None
        page = Tags(pictures.outcome_stages(Picture.of(SCENE), asked.outcomes[0]))
        assert "the gate kept the plain answer" in page.text
        replied = Desk(gated, Path()).again(Picture.of(SCENE), asked, 2.0, 4.5)
        assert replied.asked.region is None
        drawn = asking.ask(gated, SCENE, QUESTION, asking.given([Box(0.3, 0.3, 0.42, 0.44)]))
        assert drawn.at(4.5).text == "Yes"

    def test_fewer_rows_a_pass_give_the_same_answers(self, tiny, asked):
        again = asking.ask(tiny, SCENE, QUESTION, rows=7)
        assert [one.text for one in again.outcomes] == [one.text for one in asked.outcomes]

    def test_nothing_to_ask_and_nothing_answered_are_said(self, monkeypatch):
        with pytest.raises(AnswerError, match="question is empty"):
            asking.ask(stub(), SCENE, "  ")
        broken = stub(locate=whole.Config())
        failed = lambda *rows, **how: [Answer("", error="broke")] * len(rows[0])  # noqa: E731
        monkeypatch.setattr(broken.model, "generate", failed)
        with pytest.raises(AnswerError, match="broke"):
            asking.ask(broken, SCENE, QUESTION)


class TestSpelling:
    def test_tokens_add_up_to_the_answer(self, tiny, asked):
        said = asked.at(4.5).result.cof
        found = pieces(tiny.model, said)
        assert len(found) == len(said.tokens)
        assert "".join(one.text for one in found).replace("</s>", "").strip() == said.text
        assert [one.probability for one in found] == [math.exp(one) for one in said.logprobs]

    def test_half_a_character_waits_for_its_other_half(self):
        texts = {0: "", 1: "a", 2: "a\ufffd", 3: "aé"}
        decode = lambda tokens, **how: texts[len(tokens)]  # noqa: E731
        model = SimpleNamespace(tokenizer=SimpleNamespace(decode=decode))
        found = pieces(model, Answer("aé", (1, 2, 3)))
        assert [one.text for one in found] == ["a", "\ufffd", "é"]
        assert [one.probability for one in found] == [None] * 3

    def test_without_a_tokenizer_the_answer_is_one_piece(self):
        [piece] = pieces(SimpleNamespace(), Answer("Yes", (1, 2), logprobs=(-1.0, -0.5)))
        assert piece == ("Yes", math.exp(-1.5))


class TestUploads:
    def test_boxes_come_back_as_they_were_written(self):
        boxes = (Box(0.1, 0.2, 0.3, 0.45), Box(0, 0.5, 1, 1))
        assert read_boxes(write_boxes(boxes)) == boxes
        assert read_boxes(" [0.1, 0.2, 0.3, .45] ;(0,.5,1,1);") == boxes
        assert box_of([0.1, 0.2, 0.3, 0.45]) == write_boxes(boxes[:1])
        assert box_of([0, 0.5, 1, 1], write_boxes(boxes[:1])) == write_boxes(boxes)
        assert box_of([0, 0.5, 1, 1], " ") == write_boxes(boxes[1:])
        with pytest.raises(AnswerError, match="'half a box' is no box"):
            box_of([0, 0.5, 1, 1], "half a box")

    @pytest.mark.parametrize("text", ["", " ; ", "1", "a,b,c,d", "0,0,0,1", "0,0,2,1", "nan,0,1,1"])
    def test_what_is_no_box_is_refused(self, text):
        with pytest.raises(AnswerError, match="box"):
            read_boxes(text)

    @pytest.mark.parametrize("drawn", [None, "abc", [0, 0, 1], [0, 0, "x", 1], {"a": 1}, [1] * 4])
    def test_a_browser_is_not_trusted_with_boxes(self, drawn):
        with pytest.raises(AnswerError, match="box"):
            box_of(drawn)

    def test_only_files_among_the_uploads_are_read(self, tmp_path):
        (folder := tmp_path / "uploads").mkdir()
        SCENE.save(tmp_path / "secret.png")
        (folder / "link.png").symlink_to(tmp_path / "secret.png")
        for path in (tmp_path / "secret.png", folder / "../secret.png", folder / "link.png"):
            with pytest.raises(DataError, match="none of this page's uploads"):
                read_upload(path, folder, Bounds())
        with pytest.raises(DataError, match=r"^gone.png: "):  # deleted meanwhile
            read_upload(folder / "gone.png", folder, Bounds())

    def test_bounds_are_held_and_pictures_turned_upright(self, tmp_path):
        file = tmp_path / "a.jpg"
        exif = Image.Exif()
        exif[274] = 6
        Image.new("RGB", (40, 20)).save(file, exif=exif)
        assert read_upload(file, tmp_path, Bounds()).size == (20, 40)
        with pytest.raises(DataError, match=r"too large.*40 x 20 pixels, the limit is 799"):
            read_upload(file, tmp_path, Bounds(megapixels=799e-6))
        with pytest.raises(DataError, match=r"bytes, the limit is 10;.*--max-megabytes"):
            read_upload(file, tmp_path, Bounds(megabytes=1e-5))
        (tmp_path / "b.png").write_text("no picture")
        with pytest.raises(DataError, match=r"^image 'b.png' is not an image"):
            read_upload(tmp_path / "b.png", tmp_path, Bounds())


class TestGuard:
    def passes(self, path="/", hosts=LOOPBACK, **headers):
        seen, sent = [], []

        async def app(scope, receive, send):
            seen.append(scope)

        async def send(message):
            sent.append(message)

        encoded = [(name.encode(), text.encode()) for name, text in headers.items()]
        scope = {"type": "http", "path": path, "headers": encoded}
        asyncio.run(Guard(app, hosts)(scope, None, send))
        assert bool(seen) != bool(sent)
        assert not sent or sent[0]["status"] == 403
        return bool(seen)

    @pytest.mark.parametrize(
        ("host", "passes"),
        [
            *((host, True) for host in ("127.0.0.1:7860", "localhost", "LOCALHOST:1", "[::1]:80")),
            *((host, False) for host in ("evil.example:7860", "127.0.0.1.evil.example", "", "[::")),
        ],
    )
    def test_a_name_that_somebody_points_here_is_refused(self, host, passes):
        assert self.passes(host=host) == passes
        assert self.passes(host="localhost", origin=f"http://{host}") == passes
        assert self.passes(host=host, hosts=())

    def test_a_request_without_a_name_or_from_nowhere_is_refused(self):
        assert not self.passes()
        assert not self.passes(host="localhost", origin="null")

    def test_nothing_is_fetched(self):
        routes = ("file=http://a.b/c", "file=HTTPS://a.b", "proxy=http://a.b")
        for path in (*routes, "file/http://a.b/c", "file/HTTPS:/a.b"):
            assert not self.passes(f"/gradio_api/{path}", hosts=())
        assert self.passes("/gradio_api/file=/tmp/http/a.png", hosts=())

    @pytest.mark.parametrize("path", ["http://a.b/c.png", "HTTPS://a.b", " http:a"])
    def test_a_file_named_by_an_address_is_seen_wherever_it_is(self, path):
        named = {"path": path, "meta": {"_type": "gradio.FileData"}}
        assert all(map(names_address, (named, [1, [named]], {"a": {"b": [named]}})))

    def test_a_question_about_an_address_is_none(self):
        assert not names_address(["Is http://a.b/c.png red?", {"path": "/tmp/a.png"}, None, 1.5])


class Tags(HTMLParser):
    """Every tag with its attributes, and the text between them."""

    def __init__(self, html):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        self.text += data

    def of(self, name):
        return [attrs for tag, attrs in self.found if attrs.get("class") == name]


def harmless(html):
    """No tag, attribute or template of somebody else's text."""
    assert not re.search(r"\{\{|\$\{|`", html)
    for tag, attrs in Tags(html).found:
        assert tag not in ("script", "iframe", "a")
        assert not [name for name in attrs if name.startswith("on")]
        assert attrs.get("src", attrs.get("href", "data:")).startswith("data:")


class TestHtml:
    def test_boxes_and_tokens_lie_where_they_should(self):
        asked = asking.ask(stub(), Image.new("RGB", (400, 200)), QUESTION, expand=1.5)
        html = pictures.outcome_stages(Picture.of(asked.outcomes[0].image), asked.outcomes[0])
        page = Tags(html)
        [found], [used] = page.of("cof-found"), page.of("cof-used")
        assert [float(found[key]) for key in ("x", "y", "width", "height")] == [100, 50, 100, 50]
        assert [float(used[key]) for key in ("x", "y", "width", "height")] == [75, 37.5, 150, 75]
        lit = int(asked.outcomes[0].mask.sum())
        assert len(page.of("cof-cell")) == len(page.of("cof-hole")) == lit == 9
        assert f"{lit} of 16 visual tokens" in page.text
        assert len(page.of("cof-picture cof-draws")) == 1

    def test_without_a_box_nothing_fades_and_it_is_said(self):
        asked = asking.ask(stub("no idea"), SCENE, QUESTION)
        page = Tags(pictures.outcome_stages(Picture.of(SCENE), asked.outcomes[0]))
        assert not page.of("cof-fade")
        assert "0 of 16 visual tokens: no box in the reply" in page.text

    def test_the_published_rules_light_everything_without_a_box(self):
        cof = stub("no idea", boxes=BoxConfig("reference"), locate=prompt.Config(stop="first"))
        asked = asking.ask(cof, SCENE, QUESTION)
        page = Tags(pictures.outcome_stages(Picture.of(SCENE), asked.outcomes[0]))
        assert len(page.of("cof-cell")) == 16
        assert "16 of 16 visual tokens: no box in the reply" in page.text

    def test_answers_show_each_token_and_mark_other_answers(self, asked):
        page = Tags(answers.answers(asked, 4.5))
        assert "CoF, λ = 4.5" in page.text
        tokens = page.of("cof-token")
        both = (asked.at(4.5).result.plain, asked.at(4.5).result.cof)
        assert len(tokens) == sum(len(said.tokens) for said in both)
        other = [one for one in asked.outcomes if one.text != one.plain]
        assert 0 < len(other) < 20
        assert len([1 for _, a in page.found if "cof-other" in a.get("class", "")]) == len(other)
        assert len([1 for _, a in page.found if "cof-here" in a.get("class", "")]) == 1

    def test_text_of_others_does_nothing(self):
        cof = stub(f"[0.25, 0.25, 0.5, 0.5] {EVIL}")
        asked = asking.ask(cof, SCENE, EVIL)
        html = pictures.outcome_stages(Picture.of(SCENE), asked.outcomes[0])
        for one in (html, answers.answers(asked, 4.5)):
            harmless(one)
        assert "alert(1)" in Tags(html).text
        assert safe("<b>") == "&lt;b&gt;"
        assert len(safe("x" * 10_000)) < 5000

    def test_an_answer_that_failed_says_why(self, asked):
        broken = replace(asked.at(4.5).result, cof=None, error="CoF pass: broke")
        one = replace(asked.at(4.5), result=broken)
        html = answers.answers(replace(asked, outcomes=(one,), weights=(4.5,)), 4.5)
        assert "CoF pass: broke" in Tags(html).text


class TestRuns:
    @pytest.fixture(scope="class")
    def made(self, tmp_path_factory):
        root = tmp_path_factory.mktemp("browse")
        drawn = right_with(0.5, 0.6)

        def say(question, rng):
            plain, cof = drawn(question, rng)
            return plain, None if rng.random() < 0.1 else cof

        data = make_mme(root / "mme", 20)
        return make_run(root / "runs", data, say), data

    def test_filters_leave_what_the_records_say(self, made):
        run, _ = made
        rows = run.to_rows()
        wanted = {
            "all": range(len(rows)),
            "gained": [i for i, row in enumerate(rows) if row["cof_credit"] > row["plain_credit"]],
            "lost": [i for i, row in enumerate(rows) if row["cof_credit"] < row["plain_credit"]],
            "missed box": [i for i, row in enumerate(rows) if row["boxes"] != [TRUE.as_tuple()]],
            "no box": [],
            "failed": [i for i, row in enumerate(rows) if row["error"]],
        }
        found = Browser.of(run.path)
        assert {name: list(places) for name, places in found.places.items()} == {
            name: list(places) for name, places in wanted.items()
        }
        assert all(wanted[name] for name in FILTERS if name != "no box")

    def test_a_question_is_shown_with_its_boxes_and_answers(self, made):
        run, _ = made
        browser = Browser.of(run.path)
        entry = browser.show("gained", 1)
        page = Tags(entry.page)
        harmless(entry.page)
        assert entry.image.size == (8, 6)
        assert entry.result == run.results[browser.places["gained"][0]]
        assert len(page.of("cof-true")) == 1
        assert len(page.of("cof-cell")) == len(entry.result.cells)
        assert entry.result.question.text.replace("\n", " ") in page.text
        assert [one["class"] for _, one in page.found if "cof-mark" in one.get("class", "")] == [
            "cof-mark cof-wrong",
            "cof-mark cof-right",
        ]

    def test_numbers_beyond_the_ends_are_the_ends(self, made):
        desk = Desk(stub(), Path(), browsers={"r": Browser.of(made[0].path)})
        count = desk.browsers["r"].counts["lost"]
        turned = [desk.turn("r", "lost", at, step) for at, step in ((1, -1), (count, 1), (None, 0))]
        assert [one.number for one in turned] == [1, count, 1]
        assert desk.turn("r", "no box", 3)[:2] == (1, "none")
        with pytest.raises(AnswerError, match="no run 'x'; there is: r"):
            desk.turn("x", "all", 1)
        with pytest.raises(AnswerError, match="no filter 'x'; there is: all"):
            desk.turn("r", "x", 1)

    def test_pictures_outside_the_benchmark_are_not_read(self, made):
        run, data = made
        browser = Browser.of(run.path, images=data / "nowhere")
        assert "has moved; start the page with --images" in Tags(browser.show("all", 1).page).text
        browser = Browser.of(run.path, images=run.path)
        said = Tags(browser.show("all", 1).page).text
        assert "image 'existence/images/0000.png' does not exist" in said
        assert str(data.parent) not in said
        first = run.results[0]
        outside = replace(first, question=replace(first.question, image="../secret.png"))
        moved = replace(browser, run=replace(run, results=(outside,)), places={"all": [0]})
        entry = moved.show("all", 1)
        assert entry.image is None
        assert "not the name of a file inside" in Tags(entry.page).text

    def test_a_run_without_plain_answers_says_why_none_is_gained(self, tmp_path, made):
        alone = make_run(tmp_path, made[1], right_with(0.5, 0.5), plain=False)
        desk = Desk(stub(), Path(), browsers={"r": Browser.of(alone.path)})
        assert "no plain answers to compare" in desk.turn("r", "gained", 1).page
        assert "none" in Tags(desk.turn("r", "all", 1).page).text


class TestDesk:
    def test_who_answers_is_said_without_its_place_on_the_disk(self, monkeypatch):
        cof = stub(refine=crop.Config())
        monkeypatch.setattr(cof.model, "name", "/secret/my_model", raising=False)
        assert Desk(cof, Path()).asks == "my_model: prompt, then crop"

    def test_from_a_picture_to_its_answers(self, tmp_path):
        SCENE.save(tmp_path / "a.png")
        desk = Desk(stub(), tmp_path, remark=lambda image: "a <remark>")
        opened = desk.open(str(tmp_path / "a.png"))
        assert "a &lt;remark&gt;" in opened.remark
        assert "cof-draws" in opened.panels
        replied = desk.ask(opened.picture, QUESTION, 1.0, 4.5)
        assert replied.boxes == "0.250, 0.250, 0.500, 0.500"
        assert "λ = 4.5" in replied.answers
        assert "λ = 1<" in at_weight(replied.asked, 1.0)
        drawn = desk.ask(opened.picture, QUESTION, 1.0, 4.5, "0.5,0.5,0.6,0.6")
        assert drawn.asked.region.source == "given"
        wider = desk.again(opened.picture, drawn.asked, 2.0, 4.5)
        assert wider.boxes == drawn.boxes
        assert wider.asked.outcomes[0].boxes == (expand(Box(0.5, 0.5, 0.6, 0.6), 2.0),)
        calls = len(desk.cof.model.seen)
        assert desk.again(opened.picture, wider.asked, 2.0, 4.5) is None  # it is there already
        assert len(desk.cof.model.seen) == calls
        assert desk.open(None).picture is None

    def test_a_picture_that_cannot_be_opened_leaves_none_and_says_why(self, tmp_path):
        (tmp_path / "<b>.png").write_text("no picture")
        opened = Desk(stub(), tmp_path).open(str(tmp_path / "<b>.png"))
        assert (opened.picture, opened.panels, opened.asked) == (None, "", None)
        assert "cof-error" in opened.remark
        assert "image &#x27;&lt;b&gt;.png&#x27; is not an image" in opened.remark

    def test_too_early_is_said_or_passed_over(self):
        desk = Desk(stub(), Path())
        with pytest.raises(AnswerError, match="no picture"):
            desk.ask(None, QUESTION, 1.0, 4.5)
        with pytest.raises(AnswerError, match="ask first"):
            desk.attend(None, 4.5, 0)
        assert desk.again(None, None, 1.0, 4.5) is None
        assert at_weight(None, 1.0) == at_layer(None, 0) == ""

    def test_too_little_memory_is_said_and_a_bug_is_not_dressed_up(self, monkeypatch):
        desk = Desk(stub(), Path())
        for error, shown in (
            (MemoryError(), AnswerError),
            (RuntimeError("CUDA out of memory"), AnswerError),
            (RuntimeError("a bug"), RuntimeError),
        ):
            monkeypatch.setattr(desk.cof.model, "generate", Mock(side_effect=error))
            with pytest.raises(shown, match=r"fewer --rows|a bug"):
                desk.ask(Picture.of(SCENE), QUESTION, 1.0, 4.5)

    def test_attention_is_measured_once_for_all_layers(self, tiny, asked):
        desk = Desk(tiny, Path())
        outcome, first = desk.attend(asked, 4.5, 0)
        calls = replace(tiny.model.counters)
        second = at_layer(outcome, tiny.model.layers)
        assert tiny.model.counters == calls
        assert outcome.stage.weight == 4.5
        assert first.startswith('<img class="cof-figure"')
        assert first != second


def test_gradio_is_known_to_one_module_alone():
    for file in (ROOT / "cof").rglob("*.py"):
        tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        names = {
            alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names
        }
        assert ("gradio" in names) == (file.name == "page.py" and file.parent.name == "app"), file


def test_a_port_that_is_taken_is_said_at_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(main, ["app", "--port", str(port)])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"cof: cannot listen on 127.0.0.1 port {port} (Address already")
    nowhere = CliRunner().invoke(main, ["app", "--host", "192.0.2.1"])
    assert nowhere.stderr.startswith("cof: cannot listen on 192.0.2.1 (")


def test_without_gradio_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "cof.app.page", raising=False)
    monkeypatch.delattr(cof.app, "page", raising=False)
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):  # `cof app` sets them
        monkeypatch.setenv(name, "")
    done = CliRunner().invoke(main, ["app"])
    assert done.exit_code == 2
    assert re.fullmatch(r"cof: cof app needs Gradio: pip install .*\n", done.stderr)
