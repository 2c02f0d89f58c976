"""The Python API: keywords, lists, loaded networks, what an outcome can be asked, and its page."""

import json
import math
import re
import runpy
from dataclasses import fields, replace
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fake_runs import make_run, right_with
from fakes import StubModel, make_mme
from PIL import Image
from transformers import LlavaForConditionalGeneration

import cof
from cof import Box, CoF, Settings
from cof.cli import main
from cof.cli.ask import KEYS
from cof.config import schema
from cof.config.routing import route
from cof.config.settings import read_setup
from cof.errors import AnswerError, ConfigError, DataError, ModelError, RunError
from cof.locate import centre, file, prompt, whole
from cof.models import llava
from cof.models.base import Limits
from cof.models.common.embedded import embedded_model_path
from cof.models.llava import Config
from cof.refine import highlight, plain
from cof.regions.boxes import BoxConfig

ROOT = Path(__file__).resolve().parents[1]
SCENE = ROOT / "examples" / "scene.jpg"
QUESTION = "What color is the shape marked 8?"
YES_NO = "Is there a yellow star in this image?\nPlease answer yes or no."
BOX = (0.37, 0.58, 0.5, 0.68)


@pytest.fixture(scope="module")
def tiny():
    return CoF.from_pretrained("cof-tiny", device="cpu", max_new_tokens=8)


@pytest.fixture(scope="module")
def network():
    folder = embedded_model_path()
    return LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


class TestKeywords:
    def test_each_goes_to_the_part_that_has_it(self):
        options = {"weight": 2, "scope": "text", "expand": 1.5, "max_new_tokens": 32, "seed": 3}
        setup = route("m", None, {**options, "device": "cpu", "conv": "llava_v1", "stop": "never"})
        assert setup.model == Config("m", device="cpu", conv="llava_v1")
        assert setup.settings == Settings(
            prompt.Config(stop="never"),
            BoxConfig(expand=1.5),
            highlight.Config(2.0, "text"),
            Limits(32, seed=3),
        )

    def test_the_length_is_the_answers_and_a_stage_keeps_its_own(self):
        setup = route(None, None, {"max_new_tokens": 5, "locate": prompt.Config(max_new_tokens=9)})
        assert setup.settings.limits.max_new_tokens == 5
        assert setup.settings.locate.max_new_tokens == 9

    def test_without_keywords_it_is_the_papers_method(self):
        setup = route(None, None, {})
        assert setup.settings == Settings()
        assert setup.settings.locate == prompt.Config()
        assert setup.settings.refine == highlight.Config()
        assert setup.model == Config()

    def test_plugins_by_name_file_and_config(self, tmp_path):
        source = (ROOT / "cof" / "locate" / "centre.py").read_text()
        (tmp_path / "mine.py").write_text(source)
        by_name = route(None, None, {"locate": "whole", "refine": "plain", "family": "llava"})
        assert by_name.settings.locate == whole.Config()
        assert by_name.settings.refine == plain.Config()
        by_file = route(None, None, {"locate": tmp_path / "mine.py"})
        assert type(by_file.settings.locate).__name__ == "Config"
        assert type(by_file.settings.locate) is not centre.Config
        by_config = route(None, None, {"locate": file.Config("boxes.jsonl"), "family": Config("x")})
        assert by_config.settings.locate.path == "boxes.jsonl"
        assert by_config.model.path == "x"

    def test_settings_are_changed_by_keywords(self):
        base = Settings(boxes=BoxConfig(expand=2.0, square=True), refine=highlight.Config(3.0))
        changed = route(None, base, {"expand": 1.0, "scope": "text"}).settings
        assert changed.boxes == BoxConfig(square=True)
        assert changed.refine == highlight.Config(3.0, "text")

    def test_reference_rules_end_the_reply_at_their_box(self):
        assert route(None, None, {"rules": "reference"}).settings.locate.stop == "first"
        assert route(None, None, {"rules": "reference", "stop": "never"}).settings.locate.stop == (
            "never"
        )

    def test_names_of_torch_are_taken(self):
        options = {"dtype": torch.bfloat16, "device": torch.device("cpu")}
        model = route(None, None, options).model
        assert (model.dtype, model.device) == ("bfloat16", "cpu")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"weigth": 2}, r"^weigth: no such keyword; .*refine \(highlight\): weight, .*expand"),
            ({"weight": "2"}, "refine.weight: .*not '2'"),
            ({"weight": 0}, "refine.*positive"),
            ({"max_new_tokens": 0}, "max_new_tokens=0"),
            ({"expand": float("nan")}, "boxes.expand"),
            ({"refine": "nothing"}, "refine: unknown name 'nothing'; there is: .*highlight"),
            ({"locate": prompt.Config}, "locate: needs a name or a Config"),
            ({"family": 3}, "family: needs a name or a Config, not 3; there is: .*llava"),
            (
                {"refine": "plain", "weight": 2},
                r"weight: no such keyword; .*refine \(plain\): noth",
            ),
            ({"locate": "file"}, "locate.path: has no default"),
        ],
    )
    def test_wrong_ones_are_named(self, options, message):
        with pytest.raises(ConfigError, match=message) as caught:
            CoF.from_pretrained("cof-tiny", **options)
        assert "\n" not in str(caught.value)

    def test_a_name_that_two_parts_have_is_refused(self, tmp_path):
        source = (ROOT / "cof" / "refine" / "plain.py").read_text()
        mine = source.replace('"""Nothing to set."""', "seed: int = 0")
        (tmp_path / "mine.py").write_text(mine)
        with pytest.raises(ConfigError, match="seed: refine and limits have it"):
            route(None, None, {"refine": tmp_path / "mine.py", "seed": 1})


class TestConfigFile:
    TEXT = (
        "bench: {name: my_lab.gone, root: nowhere}\nmodel: {path: cof-tiny, device: cpu}\n"
        "refine: {weight: 3}\nlimits: {max_new_tokens: 4}\n"
    )

    def test_the_benchmark_is_not_needed(self, tmp_path):
        (tmp_path / "my.yaml").write_text(self.TEXT)
        made = CoF.from_config(tmp_path / "my.yaml", "boxes.expand=1.5", "locate.name=centre")
        assert made.settings.refine.weight == 3
        assert made.settings.boxes.expand == 1.5
        assert isinstance(made.settings.locate, centre.Config)
        assert made.settings.limits.max_new_tokens == 4

    def test_every_committed_config_is_read(self):
        for one in (ROOT / "examples" / "configs").glob("*.yaml"):
            if read_setup(one).family is not llava:
                continue
            made = CoF.from_config(one, "model.path=cof-tiny", "model.device=cpu")
            assert made.model.name == "cof-tiny"

    @pytest.mark.parametrize(
        ("override", "message"),
        [("refine.weigth=2", "refine.weigth: unknown key"), ("nonsense", "no override")],
    )
    def test_wrong_keys_are_named(self, override, message):
        with pytest.raises(ConfigError, match=message):
            CoF.from_config({}, override)


class TestLoadedNetwork:
    def test_it_answers_as_the_loaded_checkpoint(self, network, tiny):
        wrapped = CoF.from_model(network, max_new_tokens=8)
        for one in (wrapped, tiny):
            one.outcome = one(SCENE, QUESTION, plain=True)
        assert wrapped.outcome.text == tiny.outcome.text
        assert wrapped.outcome.logprobs == pytest.approx(tiny.outcome.logprobs, abs=1e-5)
        assert wrapped.model.describe()["frame"] == tiny.model.describe()["frame"]

    def test_its_weights_are_identified_by_their_values(self, network):
        first = CoF.from_model(network).model.identity()
        assert first == CoF.from_model(network, embedded_model_path()).model.identity()
        weight = network.model.language_model.norm.weight
        kept = weight.detach().clone()
        with torch.no_grad():
            weight[0] += 1
        try:
            other = CoF.from_model(network).model.identity()
        finally:
            with torch.no_grad():
                weight.copy_(kept)
        assert {key for key in first if first[key] != other[key]} == {"revision"}

    def test_others_are_refused(self, network, tmp_path):
        with pytest.raises(ModelError, match="has to be a LlavaForConditionalGeneration, not str"):
            CoF.from_model("llava-hf/llava-1.5-7b-hf")
        with pytest.raises(ModelError, match="not LlamaModel"):
            CoF.from_model(network.model.language_model)
        with pytest.raises(ModelError, match="device='cpu': the network is loaded already"):
            CoF.from_model(network, device="cpu")
        with pytest.raises(ModelError, match="conv 'x'"):
            CoF.from_model(network, conv="x")

    def test_a_path_that_speaks_of_another_network_is_refused(self, network, golden):
        with pytest.raises(ModelError, match=r"image_size is \d+, the network's 140; path="):
            CoF.from_model(network, golden / "checkpoint")

    def test_a_network_from_nowhere_needs_a_path(self, network):
        made = LlavaForConditionalGeneration(network.config).eval()
        made.config = network.config.__class__.from_dict(
            {**network.config.to_dict(), "_name_or_path": ""}
        )
        with pytest.raises(ModelError, match="path= names the folder"):
            CoF.from_model(made)


def pixels(seed=0, size=(60, 90, 3)):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


class TestCalling:
    def test_kinds_of_pictures_are_the_same_picture(self, tiny):
        rows = pixels()
        kinds = [rows, Image.fromarray(rows), torch.from_numpy(rows).permute(2, 0, 1)]
        outcomes = [tiny(one, QUESTION, box=BOX) for one in kinds]
        assert all(outcome.image.tobytes() == rows.tobytes() for outcome in outcomes)
        assert len({outcome.logprobs for outcome in outcomes}) == 1
        grey = pixels(size=(20, 30))
        same = [grey, grey[..., None], torch.from_numpy(grey), torch.from_numpy(grey)[None]]
        seen = {tiny(one, QUESTION, box=BOX).image.tobytes() for one in same}
        assert seen == {Image.fromarray(grey).convert("RGB").tobytes()}

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (pixels() / 255, r"array of float64 .*needs uint8.*\(x \* 255\).round"),
            (torch.zeros(3, 4, 4), "tensor of float32.*needs uint8"),
            (pixels(size=(4, 4, 2)), r"shape \(4, 4, 2\)"),
            (pixels(size=(2, 4, 4, 3)), r"shape \(2, 4, 4, 3\)"),
            (torch.zeros(9, 9, 3, dtype=torch.uint8), "channels x rows x columns"),
            (pixels(size=(0, 4)), "shape"),
            (None, "an image is a path.*not None"),
            (3, "an image is a path"),
            ("https://example.org/a.png", "is a URL and is not fetched unless asked"),
        ],
    )
    def test_no_picture(self, tiny, image, message):
        with pytest.raises(DataError, match=message):
            tiny(image, QUESTION)

    def test_lists_are_one_batch_and_each_image_is_seen_once(self, tiny):
        other = Image.fromarray(pixels())
        before = replace(tiny.model.counters)
        images = [SCENE, other, str(SCENE), other]
        asked = [QUESTION, QUESTION, YES_NO, YES_NO]
        outcomes = tiny(images, asked, plain=True)
        assert tiny.model.counters.images - before.images == 2
        assert tiny.model.counters.vision_calls - before.vision_calls == 1
        for outcome, image, question in zip(outcomes, images, asked, strict=True):
            alone = tiny(image, question, plain=True)
            assert (alone.text, alone.plain, alone.boxes) == (
                outcome.text,
                outcome.plain,
                outcome.boxes,
            )
            assert outcome.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
            assert outcome.question == question
        assert [o.result.question.image for o in outcomes][1] == "image 1"

    def test_one_image_and_many_questions_and_the_other_way_round(self, tiny):
        many = tiny(SCENE, [QUESTION, YES_NO])
        assert [outcome.question for outcome in many] == [QUESTION, YES_NO]
        assert len(tiny([SCENE, SCENE, SCENE], QUESTION)) == 3
        assert [type(one) for one in tiny([SCENE], QUESTION)] == [cof.outcome.Outcome]
        assert tiny([], []) == []
        with pytest.raises(DataError, match="2 images and 1 questions"):
            tiny([SCENE, SCENE], [QUESTION])

    def test_regions_are_given_one_or_many_or_for_some(self, tiny):
        two = tiny(SCENE, QUESTION, boxes=[BOX, Box(0.7, 0.1, 0.9, 0.3)])
        assert two.boxes == (Box(*BOX), Box(0.7, 0.1, 0.9, 0.3))
        assert two.region.source == "given"
        both = [tiny(SCENE, QUESTION, box=box).mask for box in two.boxes]
        assert torch.equal(two.mask, both[0] | both[1])
        shared = tiny(SCENE, [QUESTION, YES_NO], box=BOX)
        assert [one.boxes for one in shared] == [(Box(*BOX),)] * 2
        some = tiny(SCENE, [QUESTION, QUESTION, YES_NO], box=[BOX, None, Box(0, 0, 0.5, 0.5)])
        assert [one.region.source for one in some] == ["given", "prompt", "given"]
        assert some[1].boxes == tiny(SCENE, QUESTION).boxes
        lists = tiny(SCENE, [QUESTION, YES_NO], boxes=[[BOX, (0, 0, 0.1, 0.1)], None])
        assert len(lists[0].boxes) == 2
        assert not tiny(SCENE, QUESTION, boxes=[]).boxes

    @pytest.mark.parametrize(
        ("question", "regions", "message"),
        [
            (QUESTION, {"box": (0.1, 0.2, 0.3)}, "needs x0, y0, x1, y1"),
            (QUESTION, {"box": (0.5, 0.5, 0.1, 0.9)}, "0 <= x0 < x1"),
            (QUESTION, {"box": "a"}, "needs x0"),
            (QUESTION, {"box": 3}, "needs x0"),
            (QUESTION, {"box": [BOX, BOX]}, "several are `boxes`"),
            (QUESTION, {"boxes": BOX}, "list of boxes"),
            (QUESTION, {"boxes": Box(*BOX)}, "list of boxes"),
            (QUESTION, {"boxes": [[BOX]]}, "needs x0"),
            (QUESTION, {"box": BOX, "boxes": [BOX]}, "not both"),
            ([QUESTION] * 2, {"boxes": [BOX, BOX]}, "a question has a list of boxes"),
            ([QUESTION] * 2, {"box": [BOX]}, "but 2 questions"),
        ],
    )
    def test_wrong_regions(self, tiny, question, regions, message):
        with pytest.raises(ValueError, match=message):
            tiny(SCENE, question, **regions)

    def test_wrong_questions(self, tiny):
        for question in ("", " ", [QUESTION, ""], 3, None, [QUESTION, 3]):
            with pytest.raises(AnswerError):
                tiny(SCENE, question)

    def test_a_failure_among_several_is_its_own(self, tiny):
        long = "word " * 5000
        outcomes = tiny(SCENE, [QUESTION, long], plain=True)
        assert outcomes[0].text
        assert not outcomes[0].error
        assert "too long" in outcomes[1].error or outcomes[1].error
        assert outcomes[1].text == ""
        for ask in (outcomes[1].attention, lambda: outcomes[1].p_yes):
            with pytest.raises(AnswerError):
                ask()
        assert "failed" in repr(outcomes[1])
        json.dumps(outcomes[1].to_dict())
        with pytest.raises(AnswerError):
            tiny(SCENE, long)


class TestOutcome:
    def test_as_data_and_as_a_line(self, tiny):
        outcome = tiny(SCENE, QUESTION, plain=True)
        said = json.loads(json.dumps(outcome.to_dict(), allow_nan=False))
        assert said["answer"] == outcome.text
        assert said["plain"] == outcome.plain
        assert said["boxes"] == [list(box.as_tuple()) for box in outcome.boxes]
        assert said["cells"] == outcome.mask.nonzero().flatten().tolist()
        assert said["logprobs"]["cof"] == list(outcome.logprobs)
        assert said["reply"] == outcome.region.reply
        corners = ", ".join(f"{x:.3f}" for x in outcome.boxes[0].as_tuple())
        assert repr(outcome) == f"Outcome('{QUESTION}' -> '{outcome.text}', boxes: [{corners}])"
        assert outcome.logprob == pytest.approx(sum(outcome.logprobs))
        assert outcome._repr_png_().startswith(b"\x89PNG")

    def test_a_kept_outcome_holds_no_features(self, tiny):
        view = tiny(SCENE, QUESTION).view
        assert view.features is None
        assert view.shared is None

    def test_yes_against_no_is_that_of_the_first_token(self, tiny):
        outcome = tiny(SCENE, YES_NO, box=BOX)
        model = tiny.model
        encoded = model.encode(model.look([outcome.image]), [YES_NO])
        ids = [model.answer_ids(text)[0] for text in ("Yes", "No")]
        plan = highlight.plan(encoded, [outcome.mask], tiny.settings.refine)
        plainly = model.greedy(encoded, 1, keep_logits=True)[0].logits[0]
        with model.highlighted(plan):
            lit = model.greedy(encoded, 1, keep_logits=True)[0].logits[0]
        for found, logits in zip(outcome.yes_no, (plainly, lit), strict=True):
            wanted = logits[ids].float().softmax(0)[0].item()
            assert found == pytest.approx(wanted, abs=1e-5)
        assert outcome.p_yes == outcome.yes_no.cof
        assert (outcome.p_yes > 0.5) == (outcome.text == "Yes")

    def test_the_answer_itself_weighs_what_it_said(self, tiny):
        outcome = tiny(SCENE, QUESTION, box=BOX, plain=True)
        weighed = outcome.weigh([outcome.text, "nothing"])
        assert weighed.cof[0].logprobs == pytest.approx(outcome.logprobs, abs=1e-4)
        assert weighed.plain[0].logprob > weighed.plain[1].logprob
        for wrong in ("Yes", [], [3]):
            with pytest.raises(AnswerError, match="list of answers"):
                outcome.weigh(wrong)

    def test_a_family_that_cannot_weigh_says_so(self):
        outcome = CoF(StubModel())(Image.new("RGB", (8, 8)), YES_NO)
        with pytest.raises(ModelError, match="cannot weigh"):
            _ = outcome.yes_no

    def test_attention_moves_to_the_region_by_lambda(self, tiny):
        outcome = tiny(SCENE, QUESTION, box=BOX)
        found = outcome.attention()
        layers, tokens = tiny.model.layers, len(outcome.mask)
        assert found.plain.shape == found.cof.shape == (layers, tokens)
        assert (found.plain.sum(1) <= 1).all()
        assert found.mean().cof.shape == (tokens,)
        model, mask = tiny.model, outcome.mask
        assert found.mean().cof[mask].sum() > found.mean().plain[mask].sum()
        assert outcome.attention() is found
        encoded = model.encode(model.look([outcome.image]), [QUESTION])
        from cof.evaluate.probe import attention_mass

        mass = attention_mass(model, encoded, [mask])[0]
        assert torch.allclose(mass, found.plain[:, mask].sum(1), atol=1e-6)

    def test_in_the_first_layer_odds_are_times_lambda(self, tiny):
        """Queries of the first layer know nothing of the highlight: only its bias moves them."""
        one = CoF(tiny.model, Settings(refine=highlight.Config(3.0, heads=None)))
        outcome = one(SCENE, QUESTION, box=BOX)
        model, mask = tiny.model, outcome.mask
        from cof.models.common.recording import record_attention

        encoded = model.encode(model.look([outcome.image]), [QUESTION])
        with record_attention() as recorded:
            model.generate(encoded, Limits(1))
        heads = recorded[0][0]
        places = encoded.visual[0]
        lit = heads[:, places[mask]].sum(1)
        wanted = heads[:, places] / (1 + 2 * lit)[:, None]
        wanted[:, mask] *= 3
        assert torch.allclose(outcome.attention().cof[0], wanted.mean(0), atol=1e-6)

    def test_the_plain_stage_looks_as_the_plain_model(self, tiny):
        outcome = CoF(tiny.model, Settings(refine=plain.Config()))(SCENE, QUESTION, box=BOX)
        assert torch.equal(*outcome.attention())

    @pytest.mark.parametrize("size", [(1, 1), (640, 60), (60, 640)])
    def test_attention_is_drawn(self, tiny, size, tmp_path):
        outcome = tiny(Image.new("RGB", size, "red"), "Costs it $5 or $6?", box=(0, 0, 0.5, 0.5))
        figure = outcome.plot(attention=True)
        figure.savefig(tmp_path / "a.png")
        said = [text.get_text() for text in figure.texts]
        assert said[0] == "Costs it $5 or $6?"
        assert all("% of all attention on the image" in text for text in said[1:])
        assert [axes.get_title(loc="left") for axes in figure.axes][:2] == ["plain", "CoF"]


class TestRows:
    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory):
        root = tmp_path_factory.mktemp("rows")
        data = make_mme(root / "data", 6)
        return make_run(root, data, right_with(0.5, 0.7), scored=True)

    def test_one_row_a_question_with_the_scores_own_credits(self, run):
        rows = run.to_rows()
        assert [row["id"] for row in rows] == [one.question.id for one in run.results]
        for key in ("plain", "cof"):
            mean = math.fsum(row[f"{key}_credit"] for row in rows) / len(rows)
            assert mean == pytest.approx(run.scores["paired"][key])
        assert {"image", "category", "question", "reference", "boxes", "status", "error"} <= set(
            rows[0]
        )
        assert {"cof_seconds", "plain_logprob", "cof_logprob"} <= set(rows[0])
        json.dumps(rows)

    def test_a_benchmark_that_is_gone(self, run):
        lost = replace(run, config={**run.config, "bench": {"name": "my_lab.gone", "root": "x"}})
        with pytest.raises(ConfigError, match=r"my_lab.gone"):
            lost.to_rows()
        assert "cof_credit" not in lost.to_rows(credits=False)[0]

    def test_failed_passes_have_no_answer_and_no_credit(self, tmp_path):
        data = make_mme(tmp_path / "data", 2)
        failed = make_run(tmp_path, data, lambda question, rng: ("Yes", None))
        row = failed.to_rows()[0]
        assert (row["cof"], row["cof_credit"], row["cof_seconds"]) == (None, 0.0, None)
        assert row["error"]

    def test_as_a_frame(self, run):
        pytest.importorskip("pandas")
        frame = run.to_pandas()
        assert list(frame.columns) == list(run.to_rows()[0])
        assert len(frame) == len(run.results)
        assert frame.cof_credit.mean() == pytest.approx(run.scores["paired"]["cof"])

    def test_without_pandas_it_says_what_to_install(self, run, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "pandas", None)
        with pytest.raises(RunError, match="pip install pandas"):
            run.to_pandas()


class TestAsk:
    def ask(self, *options):
        return CliRunner().invoke(main, ["ask", str(SCENE), QUESTION, *map(str, options)])

    def test_a_config_and_overrides_choose_the_stages(self, tmp_path):
        file = tmp_path / "my.yaml"
        file.write_text("model: {path: cof-tiny, device: cpu}\nlocate: {name: centre}\n")
        said = json.loads(self.ask("--config", file, "--json").stdout)
        assert said["source"] == "centre"
        assert said["image"] == str(SCENE)
        said = json.loads(self.ask("--config", file, "locate.name=whole", "--json").stdout)
        assert (said["source"], said["status"]) == ("whole", "whole")
        said = json.loads(self.ask("refine.name=plain", "--compare", "--json").stdout)
        assert said["answer"] == said["plain"]

    def test_options_count_more_than_the_file(self, tmp_path):
        file = tmp_path / "my.yaml"
        file.write_text("boxes: {expand: 3}\nlocate: {name: centre}\n")
        wide = json.loads(self.ask("--config", file, "--json").stdout)["boxes"]
        usual = json.loads(self.ask("--config", file, "--expand", "1", "--json").stdout)["boxes"]
        assert wide != usual

    def test_defaults_are_the_configs_own(self):
        from cof.cli.ask import ask

        resolved = schema.resolve({"bench": {"name": "mme", "root": "."}}).as_dict()
        defaults = {
            option.name: option.get_default(click.Context(ask)) or False for option in ask.params
        }
        for name, key in KEYS.items():
            section, field = key.split(".")
            assert defaults[name] == resolved[section][field], name

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("nonsense",), "no override"),
            (("refine.weigth=2",), "unknown key"),
            (("locate.name=nowhere",), "there is"),
            (("--config", "gone.yaml"), "gone.yaml"),
        ],
    )
    def test_wrong_ones_in_one_line(self, options, message):
        done = self.ask(*options)
        assert done.exit_code == 2
        assert message in done.output
        assert len(done.output.strip().splitlines()) == 1


class TestPage:
    """docs/api.md: no keyword or name is left out (tests/test_docs.py runs its snippets)."""

    TEXT = (ROOT / "docs" / "api.md").read_text()

    def test_its_numbers_are_right(self):
        made = CoF.from_pretrained("cof-tiny", weight=4.5, expand=1.2, device="cpu")
        outcome = made(SCENE, "Is the object with the number 7 red?")
        plainly, lit = (f"{p:.2f}" for p in outcome.yes_no)
        assert f"# {plainly} and {lit}: p(Yes)" in self.TEXT
        assert repr(outcome)[:74] in self.TEXT

    @pytest.mark.parametrize("kind", [Config, highlight.Config, BoxConfig, Limits, prompt.Config])
    def test_every_keyword_is_on_it(self, kind):
        words = set(re.findall(r"`(\w+)`", self.TEXT))
        assert {one.name for one in fields(kind)} - words - {"path"} == set()

    def test_every_public_name_is_on_it_and_says_what_it_is(self):
        for name in cof.__all__:
            assert re.search(rf"`(cof\.)?{name}\b", self.TEXT), name
            assert getattr(cof, name).__doc__


def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "one_image.py"))
    assert (tmp_path / "two_stages.png").stat().st_size > 1000
