"""A zero-shot detector as a coarse stage, against its own network."""

import re
from dataclasses import replace

import pytest
import torch
from stage_cases import resized_batch_of
from tiny_detectors import DETECTORS

from cof.config import schema
from cof.errors import ConfigError, ModelError
from cof.locate import detector
from cof.models.base import Limits
from cof.pipeline import CoF, Settings


@pytest.fixture(scope="module")
def batch(llava):
    return resized_batch_of(llava, 4)


@pytest.fixture(scope="module", params=DETECTORS)
def folder(request, tmp_path_factory):
    return DETECTORS[request.param](tmp_path_factory.mktemp(request.param))


class TestDetector:
    def test_boxes_are_the_best_of_the_network(self, folder, batch):
        config = detector.Config(str(folder), ("red cup", "dog"), 0.001, most=2, device="cpu")
        regions = detector.locate(batch, config)
        assert [region.boxes == () for region in regions] == [True, False, True]
        region, image = regions[1], batch.images[1]
        assert region.notes["queries"] == ["red cup"]
        assert region.notes["scores"] == sorted(region.notes["scores"], reverse=True)
        found = detector.load(str(folder), "cpu")
        given = found.processor(images=image, text=[["red cup"]], return_tensors="pt")
        with torch.inference_mode():
            said = found.network(**given)
        scores, order = said.logits[0].max(-1).values.sigmoid().sort(descending=True)
        x, y, width, height = said.pred_boxes[0][order].unbind(-1)
        corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], -1)
        best = [score for score in scores[:2].tolist() if score > 0.001]
        assert region.notes["scores"] == pytest.approx(best, abs=1e-4)
        for box, wanted in zip(region.boxes, corners.clamp(0, 1), strict=False):
            assert box.as_tuple() == pytest.approx(wanted.tolist(), abs=1e-4)

    def test_it_leads_the_pipeline(self, folder, llava, batch):
        config = detector.Config(str(folder), ("cup",), 0.001, device="cpu")
        results = CoF(llava, Settings(config, limits=Limits(2))).answer_batch(
            batch.questions, batch.images
        )
        assert results[1].region.source == "detector"
        assert results[1].cells
        assert results[0].status == "no_box"

    def test_the_question_itself_is_looked_for_and_never_cut(self, folder, batch):
        config = detector.Config(str(folder), (), 0.001, device="cpu")
        asked = [
            replace(batch.questions[0], text="red cup?\nAnswer shortly."),
            replace(batch.questions[1], text="cup " * 80),
        ]
        short, long = detector.locate(replace(batch.take([0, 1]), questions=asked), config)
        assert short.notes["queries"] == ["red cup?"]
        assert re.search(
            r"the detector takes \d+ tokens; name what .* in locate.queries", long.error
        )
        assert not long.boxes

    def test_its_files_are_what_a_run_rests_on(self, folder, tmp_path):
        config = detector.Config(str(folder))
        digest = detector.source(config)
        for file in folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        assert detector.source(replace(config, path=str(tmp_path))) == digest
        weights = bytearray((tmp_path / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (tmp_path / "model.safetensors").write_bytes(weights)
        assert detector.source(replace(config, path=str(tmp_path))) != digest


def test_what_is_no_detector_is_refused(llava, golden):
    for path, said in ((golden / "checkpoint", "cannot be loaded"), ("nowhere", "no model at")):
        with pytest.raises(ModelError, match=said):
            CoF(llava, Settings(detector.Config(str(path), device="cpu")))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"name": "detector"}, "locate.path: has no default"),
        ({"name": "detector", "path": "x", "threshold": 1.0}, "threshold=1.0 must be between"),
        ({"name": "detector", "path": "x", "most": 0}, "most=0 at least 1"),
        ({"name": "detector", "path": "x", "queries": [" "]}, "holds one that is blank"),
        ({"name": "gradient", "threshold": 0}, "threshold=0.0 must be above 0"),
    ],
)
def test_bad_configs_are_one_line(section, said):
    with pytest.raises(ConfigError, match=said) as caught:
        schema.resolve({"bench": {"name": "mme", "root": "."}, "locate": section})
    assert "\n" not in str(caught.value)
