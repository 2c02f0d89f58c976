"""The published script, end to end: every reply, mask and answer that it gave comes out again.

The rows are what the official code said (see tests/data/official_mini/README.md). Images are drawn
anew; settings are those of examples/configs/mme_llava13b_published.yaml, on cof-tiny in float32.
"""

import json
from pathlib import Path

import pytest
from own_package import need_own_package

from cof.bench import mme
from cof.config import schema
from cof.config.settings import settings_of
from cof.images import load_image
from cof.models import llava_package
from cof.models.llava.model import load
from cof.pipeline import CoF
from cof_lab import examine
from cof_lab.export import export_checkpoint
from cof_lab.mini import mme as mini_mme
from cof_lab.mini.common import MiniConfig

TESTS = Path(__file__).parent
ROWS = TESTS / "data" / "official_mini" / "lambda4.5_alpha1.jsonl"
PUBLISHED = TESTS.parent / "examples" / "configs" / "mme_llava13b_published.yaml"
BATCH = 20


@pytest.fixture(scope="module")
def recorded():
    """What the published script said, by image; two questions each."""
    rows: dict[str, list[dict]] = {}
    for line in ROWS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows.setdefault(row["image"], []).append(row)
    return rows


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The published settings, over freshly drawn images."""
    root = tmp_path_factory.mktemp("official") / "MiniMME"
    mini_mme.write(root, MiniConfig(size=60, difficulty="fine"))
    model = ["model.path=cof-tiny", "model.dtype=float32", "model.device=cpu"]
    return schema.load(PUBLISHED, [*model, f"bench.root={json.dumps(str(root))}"])


@pytest.fixture(scope="module")
def pipeline(settings):
    assert (settings.refine.weight, settings.boxes.rules) == (4.5, "reference")
    return CoF(load(settings.model), settings_of(settings))


def ours(settings, pipeline, images):
    """Our results about some images, in the dataset's order."""
    asked = [one for one in mme.read(settings.bench) if one.image in images]
    found = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        seen = {one.image: load_image(Path(settings.bench.root) / one.image) for one in part}
        found += pipeline.answer_batch(part, [seen[one.image] for one in part])
    return found


def check(settings, pipeline, recorded, images):
    """Every row is equal; returns how many answers the highlight changed."""
    results = ours(settings, pipeline, set(images))
    expected = {(row["image"], row["question"]): row for name in images for row in recorded[name]}
    assert len(results) == len(expected)
    for result in results:
        row = expected.pop((result.question.image, result.question.text))
        said = (result.region.reply, list(result.cells), result.cof.text)
        assert said == (row["reply"], row["cells"], row["answer"]), result.question.id
    return sum(result.cof.text != result.plain.text for result in results)


def number(image):
    return int(Path(image).stem)


def test_a_third_of_the_published_answers_come_out_again(settings, pipeline, recorded):
    images = [image for image in recorded if number(image) % 6 == 0]
    assert len(images) == 50
    assert check(settings, pipeline, recorded, images) > 2, "else the highlight was not on"


@pytest.mark.slow
def test_the_other_published_answers_come_out_again(settings, pipeline, recorded):
    assert sum(map(len, recorded.values())) == 300
    images = [image for image in recorded if number(image) % 6]
    assert check(settings, pipeline, recorded, images) > 5


@pytest.mark.slow
def test_so_do_all_with_llavas_own_package(settings, recorded, tmp_path):
    """On cof-tiny as `cof tiny export --layout original` writes it."""
    need_own_package()
    network, tokenizer = examine.load(TESTS.parent / "base_models" / "cof-tiny")
    export_checkpoint(network, tokenizer, tmp_path / "tiny", "original")
    config = llava_package.Config(str(tmp_path / "tiny"), "cpu", "float32")
    pipeline = CoF(llava_package.load(config), settings_of(settings))
    assert check(settings, pipeline, recorded, list(recorded)) > 5
