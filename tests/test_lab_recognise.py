"""The embedded model says that it knows drawn shapes only, about every picture that is none."""

import io

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import DATA
from PIL import Image

from cof.cli import main
from cof.cli.ask import DRAWN_ONLY
from cof.models.common.embedded import embedded_model_path
from cof_lab.recognise import is_drawn
from cof_lab.render import crop, render
from cof_lab.world import DIFFICULTIES, describe

SCENE = DATA.parents[1] / "examples" / "scene.jpg"


def scenes(difficulty, count, side=140):
    described = describe(range(7000, 7000 + count), difficulty, split="test", side=side)
    pixels = render(described)
    return [Image.fromarray(crop(pixels, described, row)) for row in range(count)]


def as_jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cloud(seed, grey=False):
    """Noise at every scale, as natural pictures have it."""
    rng, size = np.random.default_rng(seed), (320, 240)
    total = np.zeros((240, 320, 3))
    for octave in range(1, 8):
        values = rng.normal(size=(2**octave, 2**octave, 1 if grey else 3)).astype(np.float32)
        layers = [Image.fromarray(layer).resize(size) for layer in np.moveaxis(values, -1, 0)]
        total += np.stack([np.asarray(layer) for layer in layers], -1) / octave
    total -= total.min()
    return Image.fromarray((total / total.max() * 255).astype(np.uint8))


def gradient(*ends):
    """From one colour to another, top to bottom, with a little noise."""
    line = np.linspace(0, 1, 240)[:, None, None]
    first, last = (np.array(end)[None, None] for end in ends)
    picture = (
        (1 - line) * first + line * last + np.random.default_rng(0).normal(0, 4, (240, 320, 3))
    )
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_every_scene_is_known_again_however_it_was_kept(difficulty):
    found = scenes(difficulty, 70)
    assert len(found) * len(DIFFICULTIES) >= 500
    assert [row for row, image in enumerate(found) if not is_drawn(image)] == []
    for image in found[:8]:
        assert is_drawn(as_jpeg(image, 60))
        assert is_drawn(image.resize((3 * image.width, 3 * image.height)))
        assert is_drawn(image.resize((image.width // 2, image.height // 2)))
    assert all(map(is_drawn, scenes(difficulty, 4, side=420)))


def test_other_pictures_are_not_taken_for_scenes():
    strange = [cloud(seed, grey) for seed in range(30) for grey in (False, True)]
    strange += [gradient((90, 150, 240), (40, 90, 30)), gradient((20, 20, 20), (240, 240, 240))]
    strange += [
        Image.new("RGB", (200, 150), colour) for colour in ("white", "black", "grey", "red")
    ]
    assert [row for row, image in enumerate(strange) if is_drawn(image)] == []
    small = [as_jpeg(image.resize((140, 105)), 75) for image in strange]
    assert [row for row, image in enumerate(small) if is_drawn(image)] == []


def photograph():
    pytest.importorskip("matplotlib")
    from matplotlib.cbook import get_sample_data

    return Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB")


def test_a_photograph_and_its_parts_are_not_taken_for_scenes():
    image, rng = photograph(), np.random.default_rng(0)
    taken = 0
    for _ in range(60):
        width, height = (int(rng.uniform(0.3, 1) * side) for side in image.size)
        left, top = (
            int(rng.uniform(0, whole - part))
            for whole, part in zip(image.size, (width, height), strict=True)
        )
        taken += is_drawn(image.crop((left, top, left + width, top + height)))
    assert taken <= 1
    assert not is_drawn(image)
    assert not is_drawn(image.resize((119, 140)))
    assert not is_drawn(image.convert("L").convert("RGB"))


@pytest.fixture
def ask():
    def run(image, *options):
        fixed = ["Is there a red circle?", "--device", "cpu", "--max-new-tokens", "4"]
        return CliRunner().invoke(main, ["ask", str(image), *fixed, *options])

    return run


def test_ask_warns_of_pictures_from_elsewhere(ask, tmp_path, golden):
    file = tmp_path / "cloud.png"
    cloud(1).save(file)
    for model in ("cof-tiny", str(embedded_model_path())):
        done = ask(file, "--model", model, "--json")
        assert done.exit_code == 0
        assert done.stderr == f"note: {DRAWN_ONLY}\n"
        assert done.stdout.startswith("{"), "what is printed stays JSON"
    assert ask(SCENE).stderr == ""
    assert ask(file, "--model", str(golden / "checkpoint")).stderr == ""
