"""What parts together could get wrong without a word: sampling, swapped images, frames, units."""

import pytest
from fakes import StubPipeline, make_mme
from PIL import Image

from cof.analyse.passes import scored_pass
from cof.analyse.scores import summary, table
from cof.bench import refcoco, textvqa
from cof.bench.common.units import Annotated, Claim, pixels
from cof.config import identity, schema
from cof.errors import ConfigError, DataError, RunError
from cof.evaluate import runner
from cof.evaluate.runner import Options, run
from cof.types import Answer, Question, Region, Result

FULL = {"weights": "w", "dtype": "float32", "device": "cpu"}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr("cof.models.llava.identify", lambda settings: dict(FULL))
    monkeypatch.setattr(runner, "build_pipeline", lambda one: StubPipeline(one.general.plain))
    data = make_mme(tmp_path / "mme", 4)

    def make(**top):
        base = {"bench": {"name": "mme", "root": str(data)}, "refine": {"name": "plain"}}
        return schema.resolve({**base, "name": "r", "out": str(tmp_path / "runs"), **top})

    return make


@pytest.mark.parametrize(("temperature", "same"), [(0.0, True), (0.7, False)])
def test_sampled_answers_depend_on_the_batch_in_float32_too(settings, temperature, same):
    runs = [settings(limits={"temperature": temperature}, batch_size=size) for size in (1, 8)]
    one, other = (identity.content_hash(each.as_dict(), FULL) for each in runs)
    assert (one == other) is same


def test_images_may_change_only_where_a_question_failed(settings, tmp_path):
    done = run(settings())
    assert not done.failed
    for file in (tmp_path / "mme").rglob("*.png"):
        Image.new("RGB", (8, 6)).save(file)
    with pytest.raises(RunError, match="another dataset"):
        run(settings(), Options(retry_failed=True))


def test_boxes_of_a_run_that_turned_its_pictures_are_not_taken_by_one_that_did_not(
    settings, tmp_path
):
    made = run(settings(name="own", images={"exif": "apply"})).path
    for name, key in (("file", "path"), ("shuffled", "of"), ("random", "of")):
        for place in (made, made / "records.jsonl"):
            locate = {"name": name, key: str(place)}
            assert run(settings(name=f"{name}-{place.name}", locate=locate)).results
    file = next((tmp_path / "mme").rglob("*.png"))
    picture = Image.open(file)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.load()
    picture.save(file, exif=exif)
    for name, key in (("file", "path"), ("shuffled", "of"), ("random", "of")):
        locate = {"name": name, key: str(made)}
        with pytest.raises(ConfigError, match=rf"locate.{key}: .*exif=apply, this run has ignore"):
            run(settings(name=f"{name}-turned", locate=locate))


def test_fractions_with_one_corner_beyond_the_edge_are_no_pixels():
    boxes = [(0.1, 0.2, 0.5, 0.6), (0.3, 0.1, 1.02, 0.9), (0.2, 0.2, 0.4, 0.4)]
    found = [Annotated(box, (640, 480), "f:1") for box in boxes]
    with pytest.raises(DataError, match="cannot be"):
        pixels(found, Claim("corners"))
    kept = [Annotated(box, (640, 480), "f:1") for box in [(0, 0, 1, 1), (10, 10, 90, 90)]]
    assert len(pixels(kept, Claim("corners"))) == 2


def test_data_without_labels_have_no_accuracy(settings):
    results = [
        Result(
            Question(str(k), f"{k}.jpg", "?"),
            region=Region((), "stub"),
            cof=Answer("a"),
            plain=Answer("b"),
        )
        for k in range(4)
    ]
    scores = summary(textvqa, results, True, 0)
    assert scores["paired"] is None
    assert "accuracy" not in table(textvqa, scores, results)
    done = run(settings())
    unlabelled = [Question(q.id, q.image, q.text) for q in (one.question for one in done.results)]
    stripped = [Result(question, cof=Answer("Yes"), plain=Answer("Yes")) for question in unlabelled]
    bare = type(done)(done.path, done.config, done.manifest, tuple(stripped), done.scores)
    with pytest.raises(RunError, match="no right answers"):
        scored_pass(bare, "cof")


def test_a_unit_that_would_not_be_used_is_refused(tmp_path):
    (tmp_path / "grounding.jsonl").write_text("{}\n")
    bench = {"name": "refcoco", "root": str(tmp_path), "unit": "per_mille"}
    chosen = schema.resolve({"bench": bench}).bench
    with pytest.raises(DataError, match="unit=per_mille is for"):
        refcoco.read(chosen)


def test_a_strange_config_beside_a_file_of_boxes_is_no_run(settings, tmp_path, monkeypatch):
    for folder in (tmp_path / "here", tmp_path / "boxes"):
        folder.mkdir()
        (folder / "config.yaml").write_text("x: [")
    monkeypatch.chdir(tmp_path / "here")
    assert run(settings()).results
    ids = [result.question.id for result in run(settings()).results]
    boxes = tmp_path / "boxes" / "mine.jsonl"
    rows = (f'{{"id": "{name}", "boxes": [[0.1, 0.1, 0.5, 0.5]]}}\n' for name in ids)
    boxes.write_text("".join(rows))
    assert run(settings(name="own", locate={"name": "file", "path": str(boxes)})).results
