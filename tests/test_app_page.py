"""The page as it is served, and in a headless browser; needs Gradio, and for most a Chromium.

pip install "cof[app]" playwright; apt install chromium
"""

import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from fake_runs import make_run, right_with
from fakes import make_mme
from PIL import Image

from cof import CoF
from cof.app.browse import Browser
from cof.app.desk import Desk
from cof.app.uploads import Bounds

gradio = pytest.importorskip("gradio")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SCENE = ROOT / "examples" / "scene.jpg"
QUESTION = "Is the object with the number 7 red?"
BOUNDS = Bounds(megabytes=0.2, megapixels=1.0)
NUMBER = "document.querySelector('#number input').value"
TOTAL = "document.querySelector('#total textarea, #total input').value"
WAIT = 60_000
"""Milliseconds that something on the page may take."""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page around cof-tiny and a drawn run, on this machine alone."""
    from cof.app import page

    root = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(root / "uploads"))
        run = make_run(root / "runs", make_mme(root / "mme", 20), right_with(0.5, 0.6), "a")
        cof = CoF.from_pretrained("cof-tiny", device="cpu", max_new_tokens=32)
        browsers = {"a": Browser.of(run.path)}
        built = page.build(Desk(cof, root / "uploads", BOUNDS, browsers))
        yield page.start(built, "127.0.0.1", None, BOUNDS, browser=False)
        built.close()


def fetched(address, path, data=None, **headers):
    """Status of a request."""
    asked = urllib.request.Request(address + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


class TestServed:
    def test_it_listens_on_this_machine_alone(self, address):
        assert address.startswith("http://127.0.0.1:")
        assert fetched(address, "") == 200

    @pytest.mark.parametrize("path", ["/etc/passwd", SCENE, ROOT / "setup.py", "../setup.py"])
    def test_no_file_of_the_disk_is_served(self, address, path):
        for route in ("gradio_api/file=", "file="):
            assert fetched(address, f"{route}{path}") in (403, 404)

    def test_a_large_upload_is_refused(self, address):
        def upload(size):
            body = (
                b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
                + bytes(size)
                + b"\r\n--x--\r\n"
            )
            kind = "multipart/form-data; boundary=x"
            return fetched(address, "gradio_api/upload", body, **{"Content-Type": kind})

        assert upload(1000) == 200
        assert upload(BOUNDS.bytes + 1) == 413

    def test_nothing_is_offered_to_other_programs(self, address):
        with urllib.request.urlopen(f"{address}gradio_api/info", timeout=30) as reply:
            said = reply.read().decode()
        assert said == '{"named_endpoints":{},"unnamed_endpoints":{}}'


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as engine:
        found = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, address):
    """The page in the browser; it asks nobody else for anything, and nothing breaks in it."""
    shown = browser.new_page(viewport={"width": 1280, "height": 900})
    shown.set_default_timeout(WAIT)
    asked, broken = [], []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("pageerror", lambda error: broken.append(str(error)))
    shown.goto(address)
    shown.wait_for_selector("#file input[type=file]", state="attached")
    yield shown
    shown.close()
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not broken


def upload(page, file=SCENE):
    page.set_input_files("#file input[type=file]", str(file))
    page.wait_for_selector("#panels svg")


def ask(page):
    page.fill("#question textarea", QUESTION)
    page.click("#do-ask")
    page.wait_for_selector("#answers .cof-card")


def set_number(page, name, value):
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.press("Enter")


def card(page, text):
    page.wait_for_selector(f"#answers .cof-card:has-text('{text}')")
    return page.inner_text("#answers .cof-card >> nth=1").split()


class TestBrowser:
    def test_upload_ask_and_move_lambda(self, page):
        upload(page)
        ask(page)
        assert page.inner_text("#answers .cof-card >> nth=0").startswith("plain\nNo")
        assert "Yes" in " ".join(card(page, "λ = 4.5"))
        assert page.locator("#panels rect.cof-found").count() == 1
        set_number(page, "weight", 1)
        assert "No" in " ".join(card(page, "λ = 1"))

    def test_alpha_widens_the_box(self, page):
        upload(page)
        ask(page)
        place = page.locator("#expand input[type=range]").bounding_box()
        page.mouse.move(place["x"] + 0.2 * place["width"], place["y"] + place["height"] / 2)
        page.mouse.down()
        page.mouse.move(place["x"] + 0.7 * place["width"], place["y"] + place["height"] / 2)
        page.mouse.up()
        page.wait_for_selector("#panels rect.cof-used")
        found, used = (
            float(page.locator(f"#panels rect.cof-{name}").get_attribute("width"))
            for name in ("found", "used")
        )
        alpha = float(page.input_value("#expand input[type=number]"))
        assert alpha > 1.5
        assert used / found == pytest.approx(alpha, abs=0.02)

    def test_a_box_is_drawn_and_answered(self, page):
        upload(page)
        ask(page)
        place = page.locator("#panels svg.cof-draws").bounding_box()
        corner, side = (place["x"], place["y"]), (place["width"], place["height"])
        first, last = (
            [low + share * length for low, length in zip(corner, side, strict=True)]
            for share in (0.4, 0.6)
        )
        page.mouse.move(*first)
        page.mouse.down()
        page.mouse.move(*last, steps=4)
        page.mouse.up()
        page.wait_for_selector("#panels figure:first-child figcaption:not(:has(code))")  # no reply
        boxes = page.input_value("#boxes textarea, #boxes input")
        assert [float(one) for one in boxes.split(",")] == pytest.approx(
            [0.4] * 2 + [0.6] * 2, abs=0.01
        )

    def test_attention_layer_by_layer(self, page):
        upload(page)
        ask(page)
        page.click("text=Attention: where")
        page.click("#do-attend")
        first = page.wait_for_selector("#maps img").get_attribute("src")
        set_number(page, "layer", 2)
        page.wait_for_function(
            "(old) => document.querySelector('#maps img').src !== old", arg=first
        )

    def test_what_cannot_be_is_said(self, page, tmp_path):
        page.fill("#question textarea", QUESTION)
        page.click("#do-ask")
        page.wait_for_selector("text=there is no picture to ask about")
        Image.new("RGB", (1001, 1001)).save(tmp_path / "large.png")
        page.set_input_files("#file input[type=file]", str(tmp_path / "large.png"))
        page.wait_for_selector("text=is too large")

    def test_a_run_is_browsed_and_a_question_taken_over(self, page):
        page.get_by_role("tab", name="Browse a run").last.click()
        page.wait_for_selector("#entry svg")
        page.click("#kind >> text=/^gained/")
        page.wait_for_function(f"() => {TOTAL} !== '40'")
        total = int(page.input_value("#total textarea, #total input"))
        page.click("text=Next")
        page.wait_for_function(f"() => {NUMBER} === '2'")
        assert page.inner_text("#entry .cof-record").count("right") >= 2  # the row, and CoF
        assert f"gained ({total})" in page.inner_text("#kind")
        page.click("text=Ask this one")
        page.wait_for_selector("#panels svg.cof-draws", state="visible")
        assert "thing" in page.input_value("#question textarea")
