"""Pictures with EXIF orientations: pixels, boxes and sizes in one frame, in every stage."""

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fakes import StubModel
from PIL import Image

import cof
from cof.analyse.gallery import _draw
from cof.bench import refcoco, vstar
from cof.cli import main
from cof.config import identity, schema
from cof.errors import DataError
from cof.exif import turned
from cof.images import header, load_image
from cof.pipeline import CoF
from cof.store.dataset import read_questions
from cof.types import Box

COF = Path(cof.__file__).parent
TAGS = range(1, 9)
SIZE = (40, 24)
BOX = (10, 4, 30, 12)  # pixels


def tag(path, number, **options):
    """Give a picture an EXIF orientation; its pixels stay as they are."""
    exif = Image.Exif()
    exif[0x0112] = number
    with Image.open(path) as image:
        image.load()
        image.save(path, exif=exif, **options)


def spotted(path, number=1, size=SIZE, box=BOX, **options):
    """Black with a white box."""
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), box)
    image.save(path)
    tag(path, number, **options)
    return path


def white(image):
    """The white part of an image as a box."""
    x0, y0, x1, y1 = image.convert("L").getbbox()
    return Box(x0 / image.width, y0 / image.height, x1 / image.width, y1 / image.height)


def close(one, other):
    return one.as_tuple() == pytest.approx(other.as_tuple(), abs=1e-9)


STORED = Box(10 / 40, 4 / 24, 30 / 40, 12 / 24)


@pytest.mark.parametrize("kind", ["a.png", "a.tiff", "packed.tiff"])
@pytest.mark.parametrize("number", TAGS)
def test_pixels_boxes_and_header_are_in_one_frame(tmp_path, number, kind):
    options = {"compression": "tiff_lzw"} if kind == "packed.tiff" else {}
    file = spotted(tmp_path / kind, number, **options)
    ignored = load_image(file, exif="ignore")
    assert ignored.size == SIZE
    assert close(white(ignored), STORED)
    applied = load_image(file, exif="apply")
    assert applied.size == (SIZE if number < 5 else SIZE[::-1])
    assert close(turned(STORED, number), white(applied))
    assert header(file) == (SIZE, number)


def test_a_broken_tag_turns_nothing(tmp_path):
    Image.new("RGB", SIZE, "red").save(tmp_path / "a.jpg", exif=b"Exif\0\0" + b"no such thing")
    for rule in ("ignore", "apply"):
        assert load_image(tmp_path / "a.jpg", exif=rule).size == SIZE


def test_every_caller_says_which_frame_it_means():
    for file in COF.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1]
            partial = called == "partial" and ast.unparse(node.args[0]) == "load_image"
            if called == "load_image" or partial:
                assert "exif" in [key.arg for key in node.keywords], f"{file}:{node.lineno}"


# --- benchmarks ---


def make_refcoco(root):
    (root / "train2014").mkdir(parents=True)
    rows = []
    for number in range(8):
        box = (2 + number, 3, 20 + 2 * number, 9 + number)
        spotted(root / "train2014" / f"{number}.png", box=box)
        rows.append({"image": f"{number}.png", "sent": f"spot {number}", "bbox": list(box)})
    rows = [{**row, "width": SIZE[0], "height": SIZE[1]} for row in rows]
    (root / "refcoco_val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def make_vstar(root):
    for number in range(8):
        folder = root / vstar.TYPES[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        box = (2 + number, 3, 20 + 2 * number, 9 + number)
        spotted(folder / f"{number}.png", box=box)
        note = {"bbox": [[box[0], box[1], box[2] - box[0], box[3] - box[1]]]}
        note |= {"question": "Where?", "options": ["left", "right"]}
        (folder / f"{number}.json").write_text(json.dumps(note))
    return root


MAKE = {"refcoco": make_refcoco, "vstar": make_vstar}


@pytest.fixture(params=MAKE)
def stored(request, tmp_path):
    """(benchmark, folder as it is, the same with all eight tags)."""
    MAKE[request.param](tmp_path / "plain")
    shutil.copytree(tmp_path / "plain", tmp_path / "tagged")
    for number, file in enumerate(sorted((tmp_path / "tagged").rglob("*.png"))):
        tag(file, number + 1)
    return request.param, tmp_path / "plain", tmp_path / "tagged"


def settings(name, root, exif=None):
    images = {"images": {"exif": exif}} if exif else {}
    return schema.resolve({"bench": {"name": name, "root": str(root)}, **images})


def oracle(name, root, exif=None):
    """Masks of the true boxes on what the model sees, and the boxes' overlap with the white."""
    chosen = settings(name, root, exif)
    questions = read_questions(chosen)
    images = [load_image(root / q.image, exif=chosen.images.exif) for q in questions]
    for question, image in zip(questions, images, strict=True):
        assert close(question.boxes[0], white(image))
    located = schema.resolve({**chosen.as_dict(), "locate": {"name": "oracle"}})
    from cof.config.settings import settings_of

    results = CoF(StubModel(), settings_of(located)).answer_batch(questions, images)
    return questions, images, results


def test_benchmarks_show_the_picture_as_stored(stored):
    name, plain, tagged = stored
    before, after = oracle(name, plain), oracle(name, tagged)
    assert before[0] == after[0]
    assert [np.asarray(a).tolist() for a in before[1]] == [np.asarray(a).tolist() for a in after[1]]
    assert [one.cells for one in before[2]] == [one.cells for one in after[2]]
    assert all(one.cells == one.target for one in after[2])


def test_apply_turns_pictures_and_boxes(stored):
    name, _, tagged = stored
    questions, images, results = oracle(name, tagged, "apply")
    assert {image.size for image in images} == {SIZE, SIZE[::-1]}
    assert all(one.cells == one.target for one in results)
    if name == "refcoco":
        said = [refcoco.region_answer(one.region) for one in results]
        assert refcoco.score(questions, said)["acc@0.5"] == 1


def test_refcoco_scores_stay_and_exports_of_a_turned_run_are_told_apart(tmp_path):
    root = make_refcoco(tmp_path / "data")
    for number, file in enumerate(sorted((root / "train2014").iterdir())):
        tag(file, number + 1)
    for exif, same in (("ignore", True), ("apply", False)):
        questions, _, results = oracle("refcoco", root, exif)
        said = [refcoco.region_answer(one.region) for one in results]
        assert refcoco.score(questions, said)["mean_iou"] == pytest.approx(1)
        file = refcoco.export(questions, said, tmp_path / exif)[0]
        if same:
            found = refcoco.read_answers(file, refcoco.Config(str(root)))
            assert refcoco.score(found.questions, found.texts)["mean_iou"] == pytest.approx(1)
        else:
            with pytest.raises(DataError, match=r"jsonl:2: for the true box .*images.exif=apply"):
                refcoco.read_answers(file, refcoco.Config(str(root)))


def test_a_picture_of_another_size_than_annotated_is_refused_by_name(tmp_path):
    root = make_refcoco(tmp_path)
    spotted(root / "train2014" / "3.png", size=(24, 40))
    with pytest.raises(DataError, match=r"3.png: 24 x 40 pixels, annotated as 40 x 24 \(.*jsonl:4"):
        refcoco.read(refcoco.Config(str(root)))
    tag(root / "train2014" / "3.png", 6)
    with pytest.raises(DataError, match=r"annotated as its EXIF tag turns it: store it turned"):
        refcoco.read(refcoco.Config(str(root)))
    for name in ("3.png", "4.png"):
        (root / "train2014" / name).unlink()  # fail their own questions
    assert len(refcoco.read(refcoco.Config(str(root)))) == 8


# --- one question, runs ---


@pytest.mark.parametrize("number", TAGS)
def test_one_question_is_asked_upright_and_a_given_box_is_on_the_upright_picture(tmp_path, number):
    file = spotted(tmp_path / "a.png", number)
    pipeline = CoF(StubModel())
    seen = white(load_image(file, exif="apply"))
    from_path = pipeline(file, "What?", box=seen)
    with Image.open(file) as opened:
        from_image = pipeline(opened, "What?", box=seen)
    for outcome in (from_path, from_image):
        assert close(white(outcome.image), seen)
        assert outcome.boxes == (seen,)
    assert from_path.mask.tolist() == from_image.mask.tolist()


def test_the_command_line_asks_upright(tmp_path, monkeypatch):
    file = spotted(tmp_path / "a.png", 6)
    monkeypatch.setattr(CoF, "from_config", lambda *config: CoF(StubModel()))
    seen = white(load_image(file, exif="apply"))
    box = ",".join(map(str, seen.as_tuple()))
    said = CliRunner().invoke(main, ["ask", str(file), "What?", "--box", box, "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["boxes"] == [pytest.approx(list(seen.as_tuple()))]


def test_the_rule_is_part_of_the_config_and_of_its_hash(tmp_path):
    one, other = settings("mme", tmp_path), settings("mme", tmp_path, "apply")
    assert one.as_dict()["images"] == {"exif": "ignore"}
    assert schema.resolve(one.as_dict()) == one
    cpu = {"dtype": "float32", "device": "cpu"}
    hashes = [identity.content_hash(run.as_dict(), cpu) for run in (one, other)]
    assert hashes[0] != hashes[1]
    old = {key: value for key, value in one.as_dict().items() if key != "images"}
    assert schema.resolve(old) == one
    assert schema.exif_of(old) == "apply", "runs before there was the key turned their pictures"
    assert schema.exif_of(other.as_dict()) == "apply"
    assert schema.exif_of(one.as_dict()) == "ignore"


def test_the_gallery_opens_pictures_as_the_run_did(tmp_path, monkeypatch):
    from types import SimpleNamespace

    import cof.plot
    from cof.analyse import gallery
    from cof.types import Question, Result

    spotted(tmp_path / "a.png", 6)
    drawn = []
    monkeypatch.setattr(
        cof.plot, "draw_two_stages", lambda image, *rest, **more: drawn.append(image)
    )
    monkeypatch.setattr(gallery, "stamp", lambda *parts: None)
    monkeypatch.setattr(gallery, "run_hash", lambda run: "0")
    for images in ({"images": {"exif": "ignore"}}, {"images": {"exif": "apply"}}, {}):
        manifest = {"model": {"frame": "image"}}
        run = SimpleNamespace(
            config={"refine": {"name": "highlight"}, **images}, manifest=manifest, path=tmp_path
        )
        _draw(run, Result(Question("1", "a.png", "?"), tokens=16), tmp_path)
    assert [image.size for image in drawn] == [SIZE, SIZE[::-1], SIZE[::-1]]
