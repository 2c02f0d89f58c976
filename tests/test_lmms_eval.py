"""lmms-eval's plug-in on a stand-in of its base class; test_lmms_eval_cli.py has the real one."""

import importlib
import io
import json
import logging
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from cof import CoF
from cof.bench import mme
from cof.errors import AnswerError, ConfigError, DataError, RunError
from cof.harness.arguments import read_arguments
from cof.harness.lmms_eval.requests import decoding
from cof.models.base import Limits
from cof.store.records import from_record

GREEDY = {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "do_sample": False, "num_beams": 1}


class Lmms:
    """What the plug-in needs of `lmms_eval.api.model.lmms`."""

    def __init__(self):
        self._rank, self._world_size, self.task_dict = 0, 1, {}
        self.cached = []
        self.cache_hook = self

    def add_partial(self, name, request, answer):
        self.cached.append((name, request[0], answer))

    def clean(self):
        self.cleaned = True


@dataclass(frozen=True)
class Request:
    args: tuple
    metadata: dict = field(default_factory=dict)


@dataclass
class GenerationResult:
    text: object
    token_counts: object = None


@pytest.fixture
def plugin(monkeypatch, tmp_path):
    """The plug-in's module, on stand-ins of lmms-eval's."""
    modules = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.api.instance": {},
        "loguru": {"logger": logging.getLogger("lmms_eval")},
    }
    for name, parts in modules.items():
        module = ModuleType(name)
        vars(module).update(parts)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["lmms_eval.api"].instance = sys.modules["lmms_eval.api.instance"]
    monkeypatch.delitem(sys.modules, "cof.harness.lmms_eval.models.cof", raising=False)
    monkeypatch.setattr(sys, "argv", ["lmms-eval", "--output_path", str(tmp_path / "out")])
    yield importlib.import_module("cof.harness.lmms_eval.models.cof")
    sys.modules.pop("cof.harness.lmms_eval.models.cof", None)


@pytest.fixture
def asked(mini):
    """Questions of MiniMME, and a function that makes documents and requests of them."""
    root = mini / "MiniMME"
    questions = mme.read(mme.Config(str(root)))[:6]
    documents = [{"image": Image.open(root / one.image)} for one in questions]

    def requests(model, kwargs=None, visual=lambda doc: [doc["image"].convert("RGB")]):
        model.task_dict = {"mini": {"test": documents}}
        rest = (visual, "mini", "test")
        given = GREEDY if kwargs is None else kwargs
        return [
            Request((one.text, given, rest[0], row, *rest[1:])) for row, one in enumerate(questions)
        ]

    return questions, root, requests


def made(plugin, **given):
    return plugin.CofModel(**{"pretrained": "cof-tiny", "device": "cpu", **given})


def records(tmp_path):
    [file] = (tmp_path / "out").glob("cof-records-*/records.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_answers_records_and_vision_are_those_of_the_pipeline(plugin, asked, tmp_path):
    questions, root, requests = asked
    model = made(plugin, batch_size="4", weight=2, expand=1.5)
    said = model.generate_until(requests(model))
    cof = CoF.from_pretrained("cof-tiny", weight=2, expand=1.5, max_new_tokens=16, device="cpu")
    outcomes = cof([root / one.image for one in questions], [one.text for one in questions])
    assert said == [one.text for one in outcomes]
    kept = [from_record(record) for record in records(tmp_path)]
    for result, outcome in zip(kept, outcomes, strict=True):
        assert result.question.text == outcome.question
        assert (result.region.reply, result.region.boxes) == (
            outcome.region.reply,
            outcome.region.boxes,
        )
        assert (result.cells, result.cof.tokens) == (
            outcome.result.cells,
            outcome.result.cof.tokens,
        )
    first = records(tmp_path)[0]
    assert (first["task"], first["doc_id"], first["limits"]["max_new_tokens"]) == ("mini", 0, 16)
    # two questions an image, each with a decoded picture of its own; batches of 4 and 2
    assert model.session.pipeline.model.counters.images == 3
    assert model.cached == [
        ("generate_until", one.text, answer) for one, answer in zip(questions, said, strict=True)
    ]


def test_repeated_and_padding_requests_are_asked_once_and_answered_in_order(
    plugin, asked, tmp_path
):
    model = made(plugin)
    one, two, *_ = asked[2](model)
    said = model.generate_until([two, one, two, Request(one.args, {"__padding_only__": True})])
    assert said[0] == said[2]
    assert said[1] == said[3]
    assert [record["doc_id"] for record in records(tmp_path)] == [1, 0]


def test_the_plain_model_is_asked_once(plugin, asked):
    questions, root, requests = asked
    model = made(plugin, refine="plain", locate="whole", batch_size=6)
    said = model.generate_until(requests(model))
    counters = model.session.pipeline.model.counters
    cof = CoF.from_pretrained("cof-tiny", max_new_tokens=16, device="cpu")
    names, texts = [root / one.image for one in questions], [one.text for one in questions]
    before = cof.model.counters.forwards
    plain = [one.plain for one in cof(names, texts, box=(0, 0, 1, 1), plain=True)]
    assert said == plain
    assert counters.forwards < cof.model.counters.forwards - before


def test_an_answer_ends_before_the_first_text_of_until(plugin, asked, tmp_path):
    model = made(plugin)
    full = model.generate_until(asked[2](model))
    cut = model.generate_until(asked[2](model, {**GREEDY, "until": ["\n\n", full[0][1:]]}))
    assert cut[0] == full[0][:1]
    model.clean()
    noted = json.loads(next((tmp_path / "out").glob("*/noted.json")).read_text())
    assert noted == {"answers cut at `until`": full.count(full[0])}
    manifest = json.loads(next((tmp_path / "out").glob("*/manifest.json")).read_text())
    assert manifest["identity"]["dtype"] == "float32"
    assert model.cleaned


def test_losses_are_those_of_weigh_and_the_lowest_wins(plugin, asked):
    questions, root, requests = asked
    model = made(plugin)
    texts = [" Yes", " No"]
    given = [
        Request((one.args[0], text if row % 2 else (lambda doc, text=text: text), *one.args[2:]))
        for row, one in enumerate(requests(model)[:2])
        for text in texts
    ]
    pairs = model.loglikelihood(given)
    cof = CoF.from_pretrained("cof-tiny", device="cpu")
    for row, question in enumerate(questions[:2]):
        outcome = cof(root / question.image, question.text)
        for (loss, greedy), weighed in zip(
            pairs[2 * row : 2 * row + 2], outcome.weigh(["Yes", "No"]).cof, strict=True
        ):
            assert loss == pytest.approx(-sum(weighed.logprobs) / len(weighed.logprobs), abs=1e-5)
            assert greedy == (outcome.text == weighed.text)
    plugin.instance.GenerationResult = GenerationResult
    assert [one.text for one in model.loglikelihood(given[:2])] == pairs[:2]


def test_what_cannot_be_done_is_said(plugin, asked, caplog):
    model = made(plugin)
    requests = asked[2]
    with pytest.raises(ConfigError, match=r"temperature=0\.7.*not offered"):
        model.generate_until(requests(model, {"temperature": 0.7}))
    twice = [Image.new("RGB", (9, 9))] * 2
    with pytest.raises(DataError, match=r"task mini, document 0: .* this has 2 \(Image, Image\)"):
        model.generate_until(requests(model, visual=lambda doc: twice))
    with pytest.raises(DataError, match="this has 0"):
        model.generate_until(requests(model, visual=lambda doc: None))
    with pytest.raises(DataError, match=r"this has 1 \(str"):
        model.generate_until(requests(model, visual=lambda doc: ["film.mp4"]))
    damaged = partial(Image.open, io.BytesIO(b"no picture"))
    with pytest.raises(DataError, match=r"document 0: its picture cannot be read \(cannot ident"):
        model.generate_until(requests(model, visual=lambda doc: [damaged()]))
    with pytest.raises(DataError, match=r"a request of 2 parts.*acc_mutual_info"):
        model.loglikelihood([Request(("", "Yes"))])
    with pytest.raises(ConfigError, match="several rounds"):
        model.generate_until_multi_round([])
    model.generate_until(requests(model, {**GREEDY, "repetition_penalty": 1.2})[:2])
    assert caplog.text.count("repetition_penalty=1.2 is not known here, and ignored") == 1
    assert "2 requests with gen_kwargs repetition_penalty=1.2, ignored" in model.session.close()


def test_a_question_that_fails_is_empty_and_counted_or_stops_a_strict_run(plugin, asked, caplog):
    for strict in (False, True):
        model = made(plugin, strict=strict, name=f"strict-{strict}")
        good, bad, *_ = asked[2](model)
        bad = Request((f"{bad.args[0]} <image>", *bad.args[1:]))
        if strict:
            with pytest.raises(AnswerError, match=r"mini/test/1.*strict"):
                model.generate_until([good, bad])
        else:
            said = model.generate_until([good, bad])
            assert said[0] in ("Yes", "No")
            assert said[1] == ""
            assert "mini/test/1" in caplog.text
            assert "; 1 failed" in model.session.close()
            asked_of = Request((bad.args[0], "Yes", *bad.args[2:]))
            with pytest.raises(AnswerError, match="mini/test/1"):
                model.loglikelihood([asked_of])


def test_the_place_of_the_picture_at_the_head_of_a_context_is_the_pictures_own(
    plugin, asked, tmp_path
):
    model = made(plugin)
    one, *_ = asked[2](model)
    marked = Request((f"<image>\n{one.args[0]}", *one.args[1:]))
    assert model.generate_until([one]) == model.generate_until([marked])
    assert len({record["question"] for record in records(tmp_path)}) == 1


def test_records_of_another_run_are_not_added_to(plugin, asked):
    model = made(plugin, name="mine")
    model.generate_until(asked[2](model)[:1])
    with pytest.raises(RunError, match="holds records already"):
        made(plugin, name="mine")


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"pretrained": "there"}, ("model", "path"), "there"),
        ({"weight": 2}, ("refine", "weight"), 2),
        ({"refine.weight": 2.0}, ("refine", "weight"), 2),
        ({"layers": "[0, 1]"}, ("refine", "layers"), (0, 1)),
        ({"expand": 1.5}, ("boxes", "expand"), 1.5),
        ({"locate": "random", "seed": None}, None, "other tool"),
        ({"locate.max_new_tokens": 7}, ("locate", "max_new_tokens"), 7),
        ({"max_new_tokens": 7}, ("limits", "max_new_tokens"), 7),
        ({"stop": "first"}, ("locate", "stop"), "first"),
        ({"plain": True}, ("general", "plain"), True),
        ({}, ("general", "plain"), False),
        ({"bench.limit": 3}, None, "chooses the questions"),
        ({"wieght": 3}, None, "no such option.*refine: weight"),
        ({"weight": -1}, None, "positive"),
    ],
)
def test_options_are_keys_of_a_config(given, key, value):
    if key is None:
        with pytest.raises(ConfigError, match=value):
            read_arguments(given)
        return
    config = read_arguments(given)
    assert getattr(getattr(config, key[0]), key[1]) == value


def test_options_change_a_config_file(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("locate: {name: oracle}\nrefine: {weight: 3}\nbench: {name: pope, root: x}\n")
    config = read_arguments({"config": str(file), "expand": 2, "locate": "whole"})
    assert config.names["locate"] == "whole"
    assert (config.refine.weight, config.boxes.expand) == (3, 2)


@pytest.mark.parametrize(
    ("given", "limits", "until", "ignored"),
    [
        (None, Limits(), (), ()),
        (GREEDY, Limits(16), (), ()),
        ({"until": "\n", "max_new_tokens": "9"}, Limits(9), ("\n",), ()),
        ({"until": None, "num_beams": 3}, Limits(num_beams=3), (), ()),
        ({"do_sample": True, "temperature": 0}, Limits(), (), ()),
        ({"do_sample": False, "temperature": 0.2, "top_p": 0.9}, Limits(), (), ()),
        ({"length_penalty": 2}, Limits(), (), ("length_penalty=2",)),
    ],
)
def test_gen_kwargs(given, limits, until, ignored):
    found = decoding(given, Limits())
    assert (found.limits, found.until, found.ignored) == (limits, until, ignored)


@pytest.mark.parametrize(
    "given", [{"do_sample": True}, {"temperature": 1}, {"max_new_tokens": 0}, {"num_beams": "x"}]
)
def test_gen_kwargs_that_are_refused(given):
    with pytest.raises(ConfigError, match="gen_kwargs"):
        decoding(given, Limits())


def test_the_manifest_module_imports_nothing_heavy():
    code = "import sys, cof.harness.lmms_eval, cof.harness.lmms_eval.models, cof.harness.lmms_eval"
    heavy = "{'torch', 'transformers', 'PIL', 'yaml', 'pydantic', 'lmms_eval'}"
    code += f".tasks; assert not {heavy} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
