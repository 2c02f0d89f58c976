"""The page as it is served, and in a headless browser; needs Gradio, and for most a Chromium.

pip install "cof[app]" playwright; apt install chromium
"""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_runs import make_run, right_with
from fakes import make_mme
from PIL import Image

from cof import CoF, Settings
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
WIDENED = """(alpha) => {
  const width = (name) => document.querySelector(`#panels rect.cof-${name}`)?.width.baseVal.value;
  return Math.abs(width('used') / width('found') - alpha) < 0.02;
}"""
ANSWERED = """(count) => {
  const coarse = document.querySelector('#panels figure'), replied = coarse.querySelector('code');
  return !replied && coarse.querySelectorAll('rect.cof-found').length === count;
}"""
WAIT = 60_000
"""Milliseconds that something on the page may take."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder of the uploads, a run and its benchmark."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def tiny():
    return CoF.from_pretrained("cof-tiny", device="cpu", max_new_tokens=32)


@pytest.fixture(scope="module")
def address(root, tiny):
    """The page around cof-tiny and a drawn run, on this machine alone."""
    from cof.app import page

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(root / "uploads"))
        run = make_run(root / "runs", make_mme(root / "mme", 20), right_with(0.5, 0.6), "a")
        browsers = {"a": Browser.of(run.path)}
        built = page.build(Desk(tiny, root / "uploads", BOUNDS, browsers))
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


def upload_bytes(address, content):
    """Status of an upload, and the path that it was given."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    body = head + content + b"\r\n--x--\r\n"
    asked = urllib.request.Request(f"{address}gradio_api/upload", data=body, headers=kind)
    try:
        with urllib.request.urlopen(asked, timeout=30) as reply:
            return reply.status, Path(json.load(reply)[0])
    except urllib.error.HTTPError as error:
        return error.code, None


def opened(address, named):
    """What the page says to a call that names a file to open."""
    with urllib.request.urlopen(f"{address}config", timeout=30) as reply:
        calls = json.load(reply)["dependencies"]
    [call] = [one["id"] for one in calls for target in one["targets"] if target[1] == "upload"]
    data = [{"path": str(named), "meta": {"_type": "gradio.FileData"}}]
    session = f"s{time.monotonic_ns()}"
    body = json.dumps({"data": data, "fn_index": call, "session_hash": session}).encode()
    assert fetched(address, "gradio_api/queue/join", body, **{"Content-Type": "application/json"})
    said = f"{address}gradio_api/queue/data?session_hash={session}"
    with urllib.request.urlopen(said, timeout=30) as lines:
        return next(text for line in lines if "process_completed" in (text := line.decode()))


class TestServed:
    def test_it_listens_on_this_machine_alone(self, address):
        assert address.startswith("http://127.0.0.1:")
        assert fetched(address, "") == 200

    @pytest.mark.parametrize(
        "path",
        [
            *("/etc/passwd", SCENE, ROOT / "setup.py", "../setup.py"),
            *("%2Fetc%2Fpasswd", "..%2F..%2Fetc/passwd", "//etc/passwd", "file:///etc/passwd"),
        ],
    )
    def test_no_file_of_the_disk_is_served(self, address, root, path):
        for route in ("gradio_api/file=", "file=", "static/", "assets/", "gradio_api/file/"):
            assert fetched(address, f"{route}{path}") in (403, 404)
        assert fetched(address, f"gradio_api/file={root}/runs/a/records.jsonl") == 403

    def test_no_file_of_the_disk_is_opened(self, address, root):
        _, sent = upload_bytes(address, SCENE.read_bytes())
        assert "data:image/jpeg" in opened(address, sent)
        for path in ("/etc/passwd", SCENE, root / "mme"):
            said = opened(address, path)
            assert '"success":false' in said
            assert "data:image" not in said

    def test_nothing_is_fetched_from_the_net(self, address):
        for path in ("http://a.invalid/b.png", "HTTPS://a.invalid/b.png"):
            assert fetched(address, f"gradio_api/file={path}") == 403
            assert "this page fetches nothing" in opened(address, path)
        assert fetched(address, "gradio_api/proxy=http://a.invalid/b.png") == 403

    def test_other_sites_are_refused(self, address):
        assert fetched(address, "", Host="evil.example") == 403
        for origin, status in (("http://evil.example", 403), (address.rstrip("/"), 200)):
            assert fetched(address, "config", Origin=origin) == status

    def test_no_run_history_is_kept(self, address):
        assert fetched(address, "gradio_api/runs") == 404

    def test_a_large_upload_is_refused(self, address):
        assert upload_bytes(address, bytes(1000))[0] == 200
        assert upload_bytes(address, bytes(BOUNDS.bytes + 1))[0] == 413

    def test_uploads_are_deleted(self, tmp_path, monkeypatch):
        from cof.app import page

        monkeypatch.setattr(page, "KEPT", 1)
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
        cof = SimpleNamespace(settings=Settings(), model=SimpleNamespace(layers=2, name="m"))
        built = page.build(Desk(cof, tmp_path))
        try:
            served = page.start(built, "127.0.0.1", None, BOUNDS, browser=False)
            _, sent = upload_bytes(served, SCENE.read_bytes())
            assert sent.read_bytes() == SCENE.read_bytes()
            end = time.monotonic() + 30
            while sent.exists() and time.monotonic() < end:
                time.sleep(0.2)
            assert not sent.exists()
        finally:
            built.close()

    def test_nothing_is_offered_to_other_programs(self, address):
        with urllib.request.urlopen(f"{address}gradio_api/info", timeout=30) as reply:
            said = reply.read().decode()
        assert said == '{"named_endpoints":{},"unnamed_endpoints":{}}'


def test_what_is_typed_beside_a_slider_is_held_within_its_ends():
    from cof.app.page import within

    slider = gradio.Slider(0.5, 10, 4.5)
    typed = [99, -1, 3.25, None]
    assert [within(slider, one) for one in typed] == [10, 0.5, 3.25, 4.5]
    assert [within(gradio.Number(), one) for one in typed] == typed


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
    shown.on("console", lambda said: broken.append(said.text) if said.type == "error" else None)
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
    page.press("#question textarea", "Enter")
    page.wait_for_selector("#answers .cof-card")


def draw(page, first, last):
    """Drag from one place in the left picture to another, in fractions of it."""
    place = page.locator("#panels svg.cof-draws image").bounding_box()
    corner, side = (place["x"], place["y"]), (place["width"], place["height"])
    ends = [
        [low + share * length for low, share, length in zip(corner, end, side, strict=True)]
        for end in (first, last)
    ]
    page.mouse.move(*ends[0])
    page.mouse.down()
    page.mouse.move(*ends[1], steps=4)
    page.mouse.up()


def answered_with(page, count):
    """The boxes in their field, once the answer with so many of them is there."""
    page.wait_for_function(ANSWERED, arg=count)
    text = page.input_value("#boxes textarea, #boxes input")
    return [[float(one) for one in box.split(",")] for box in text.split(";")]


def set_number(page, name, value):
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.press("Enter")


def card(page, text):
    page.wait_for_selector(f"#answers .cof-card:has-text('{text}')")
    return page.inner_text("#answers .cof-card >> nth=1").split()


class TestBrowser:
    def test_upload_ask_and_move_lambda(self, page, tiny):
        upload(page)
        ask(page)
        assert page.inner_text("#answers .cof-card >> nth=0").startswith("plain\nNo")
        assert "Yes" in " ".join(card(page, "λ = 4.5"))
        assert page.locator("#panels rect.cof-found").count() == 1
        calls = replace(tiny.model.counters)
        set_number(page, "weight", 1)
        assert "No" in " ".join(card(page, "λ = 1"))
        page.focus("#weight input[type=range]")
        page.keyboard.press("ArrowRight")
        card(page, "λ = 1.5")
        set_number(page, "weight", 99)
        assert "Yes" in " ".join(card(page, "λ = 10"))
        assert tiny.model.counters == calls  # nobody was asked

    def test_alpha_widens_the_box(self, page):
        upload(page)
        ask(page)
        place = page.locator("#expand input[type=range]").bounding_box()
        page.mouse.move(place["x"] + 0.2 * place["width"], place["y"] + place["height"] / 2)
        page.mouse.down()
        page.mouse.move(place["x"] + 0.7 * place["width"], place["y"] + place["height"] / 2)
        page.mouse.up()
        page.wait_for_selector("#panels rect.cof-used")
        alpha = float(page.input_value("#expand input[type=number]"))
        assert alpha > 1.5
        page.wait_for_function(WIDENED, arg=alpha)
        set_number(page, "expand", 2)
        page.wait_for_function(WIDENED, arg=2)

    def test_a_box_is_drawn_and_answered(self, page):
        upload(page)
        ask(page)
        draw(page, (0.4, 0.6), (0.6, 0.4))
        [box] = answered_with(page, 1)
        assert box == pytest.approx([0.4, 0.4, 0.6, 0.6], abs=0.01)
        page.keyboard.down("Shift")
        draw(page, (0.7, 0.8), (1.2, 1.2))  # out of the picture
        page.keyboard.up("Shift")
        first, second = answered_with(page, 2)
        assert first == box
        assert second == pytest.approx([0.7, 0.8, 1, 1], abs=0.01)

    def test_a_box_waits_for_its_question(self, page):
        upload(page)
        draw(page, (0.1, 0.1), (0.3, 0.3))
        page.wait_for_selector("text=Write a question")
        page.fill("#question textarea", QUESTION)
        page.click("#do-use")
        [box] = answered_with(page, 1)
        assert box == pytest.approx([0.1, 0.1, 0.3, 0.3], abs=0.01)

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
        page.wait_for_selector(".cof-error >> text=is too large")
        assert not page.locator("svg.cof-picture").count()  # the one before is gone

    def test_a_field_that_was_refused_can_be_mended(self, page):
        upload(page)
        page.fill("#question textarea", QUESTION)
        page.fill("#boxes textarea, #boxes input", "0.1, 0.2")
        page.click("#do-use")
        page.wait_for_selector(".toast-body >> text=is no box")
        page.click("#boxes textarea, #boxes input")  # fails where something lies over it
        page.fill("#boxes textarea, #boxes input", "0.1, 0.2, 0.3, 0.4")
        page.click("#do-use")
        assert answered_with(page, 1) == [[0.1, 0.2, 0.3, 0.4]]

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


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_ended_and_leaves_no_upload(tmp_path, ending):
    command = [sys.executable, "-m", "cof.cli", "app", "--image", str(SCENE)]
    place = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the
    how = {"env": place, "stdout": subprocess.PIPE, "text": True, "preexec_fn": heard}  # background
    with subprocess.Popen(command, **how) as running:  # of a shell is deaf to Ctrl-C
        try:
            address = running.stdout.readline().split()[0]
            status, sent = upload_bytes(address, SCENE.read_bytes())
            assert (status, sent.exists(), tmp_path in sent.parents) == (200, True, True)
            running.send_signal(ending)
            running.wait(60)
        finally:
            running.kill()
    assert not list(tmp_path.glob("cof-app-*"))
