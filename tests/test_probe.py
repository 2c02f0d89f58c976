"""Recorded attention against an eager model's own, and the mass that `cof probe` makes of it."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fakes import make_mme
from PIL import Image
from test_attention import BATCH, LENGTH, build, prompt  # noqa: F401

from cof.attention import attach, highlighted
from cof.cli import main
from cof.config import schema
from cof.evaluate.probe import attention_mass
from cof.evaluate.runner import run
from cof.models.common.recording import record_attention
from cof.refine.highlight import Config, plan
from cof.regions.bias import Highlight, log_weight
from cof.regions.mask import token_mask
from cof.types import Box


@pytest.fixture(scope="module")
def model():
    made = build()
    attach(made.model)
    return made


@pytest.fixture(scope="module")
def eager():
    return build("eager")


@pytest.fixture
def bias():
    out = torch.zeros(BATCH, LENGTH)
    out[0, 5:9], out[1, 6:12], out[2, 3:4] = log_weight(4.5), log_weight(2), log_weight(0.5)
    return out


def wanted(eager, embeds, mask, bias=None):
    """The eager model's own attentions of the last query: per layer [B, heads, S]."""
    total = mask.shape[1]
    allowed = torch.ones(total, total, dtype=torch.bool).tril()[None] & mask.bool()[:, None, :]
    extra = torch.zeros(len(mask), total) if bias is None else bias
    seen = torch.where(allowed, extra[:, None, :], torch.finfo(torch.float32).min)[:, None]
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        out = eager.model(
            inputs_embeds=embeds, attention_mask=seen, position_ids=places, output_attentions=True
        )
    return [layer[:, :, -1] for layer in out.attentions]


def recorded(model, embeds, mask, highlight=None):
    places = (mask.cumsum(1) - 1).clamp(min=0)
    inputs = {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": places}
    with torch.no_grad(), record_attention() as found:
        if highlight is None:
            model.model(**inputs)
        else:
            with highlighted(model.model, highlight):
                model.model(**inputs)
    return [found[layer] for layer in sorted(found)]


def close(got, expected):
    assert len(got) == len(expected) == 3
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one, other, atol=2e-5), (one - other).abs().max()
        assert torch.allclose(one.sum(-1), torch.ones(one.shape[:2]), atol=1e-5)


class TestRecording:
    def test_it_is_the_eager_models_attention(self, model, eager, prompt):  # noqa: F811
        close(recorded(model, *prompt), wanted(eager, *prompt))

    def test_without_padding_no_mask_is_needed(self, model, eager, prompt):  # noqa: F811
        embeds, mask = prompt[0], torch.ones_like(prompt[1])
        close(recorded(model, embeds, mask), wanted(eager, embeds, mask))

    def test_the_highlight_is_part_of_it(self, model, eager, prompt, bias):  # noqa: F811
        got = recorded(model, *prompt, Highlight(bias))
        close(got, wanted(eager, *prompt, bias))
        assert not torch.allclose(got[0], recorded(model, *prompt)[0], atol=1e-3)

    def test_layers_that_are_left_out_see_none(self, model, prompt, bias):  # noqa: F811
        got = recorded(model, *prompt, Highlight(bias, layers=(2,)))
        plain = recorded(model, *prompt)
        assert torch.equal(got[0], plain[0])
        assert torch.equal(got[1], plain[1])
        assert not torch.allclose(got[2], plain[2], atol=1e-3)

    def test_it_changes_nothing_and_ends_with_its_block(self, model, prompt):  # noqa: F811
        embeds, mask = prompt
        with torch.no_grad():
            before = model.model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
            with record_attention() as found:
                inside = model.model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
            kept = dict(found)
            model.model(inputs_embeds=embeds[:1], attention_mask=mask[:1])
        assert torch.equal(before, inside)
        assert found.keys() == kept.keys()
        assert all(found[layer] is kept[layer] for layer in kept)


class TestMass:
    @pytest.fixture
    def encoded(self, llava):
        views = llava.look([Image.new("RGB", (64, 48), "red"), Image.new("RGB", (40, 80), "blue")])
        masks = [token_mask([Box(0.2, 0.2, 0.6, 0.7)], view.cells) for view in views]
        return llava.encode(views, ["What is it?", "Is the thing on the left red?"]), masks

    def test_a_shared_prefix_changes_nothing(self, llava, encoded):
        from dataclasses import replace

        batch, masks = encoded
        alone = replace(batch, shared=None)
        shared = attention_mass(llava, batch, masks)
        assert shared.shape == (2, llava.decoder.config.num_hidden_layers)
        assert torch.allclose(shared, attention_mass(llava, alone, masks), atol=5e-5)

    def test_the_first_layer_follows_the_formula(self, llava, encoded):
        batch, masks = encoded
        weight, heads = 3.0, []
        with record_attention() as found:
            llava.generate(batch, _one())
        for row, (mask, places) in enumerate(zip(masks, batch.visual, strict=True)):
            lit = found[0][row][:, places[mask]].sum(-1)  # each head's mass, layer 0
            heads.append((weight * lit / (1 + (weight - 1) * lit)).mean())
        after = attention_mass(llava, batch, masks, plan(batch, masks, Config(weight)))
        assert torch.allclose(after[:, 0], torch.stack(heads), atol=2e-5)

    def test_nothing_has_no_mass_and_everything_at_most_all(self, llava, encoded):
        batch, masks = encoded
        none = attention_mass(llava, batch, [torch.zeros_like(mask) for mask in masks])
        every = attention_mass(llava, batch, [torch.ones_like(mask) for mask in masks])
        assert none.eq(0).all()
        assert (attention_mass(llava, batch, masks) < every).all()
        assert (every < 1).all()


def _one():
    from cof.models.base import Limits

    return Limits(max_new_tokens=1)


class TestCommand:
    @pytest.fixture
    def folder(self, llava, tmp_path, monkeypatch):
        data = make_mme(tmp_path / "mme", 2)
        monkeypatch.setattr("cof.models.llava.load", lambda settings: llava)

        def make(**parts):
            bench = {"name": "mme", "root": str(data)}
            settings = {"bench": bench, "out": str(tmp_path), "name": "r", "plain": False}
            settings |= {"locate": {"name": "centre"}, "limits": {"max_new_tokens": 1}}
            settings |= {"model": {"path": llava.name}}
            return run(schema.resolve({**settings, **parts})).path

        return make

    def test_it_writes_a_row_a_layer(self, folder, llava):
        done = CliRunner().invoke(main, ["probe", str(folder()), "--limit", "3"])
        assert done.exit_code == 0, done.output
        assert "3 of 4 questions with a highlight" in done.output
        layers = llava.decoder.config.num_hidden_layers
        path = next(line for line in done.output.splitlines() if line.startswith("written: "))
        table = Path(path.removeprefix("written: ").split(", ")[0])
        assert len(table.read_text(encoding="utf-8").splitlines()) == 1 + layers

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"refine": {"name": "plain"}}, "refine.name is 'plain'; probes highlight only"),
            ({"locate": {"name": "prompt", "max_new_tokens": 1}}, "no question of which"),
        ],
    )
    def test_what_cannot_be_probed_is_said(self, folder, parts, message):
        done = CliRunner().invoke(main, ["probe", str(folder(**parts))])
        assert (done.exit_code, len(done.stderr.splitlines()[-1:])) == (2, 1)
        assert message in done.stderr

    def test_other_weights_than_the_runs_are_refused(self, folder, monkeypatch):
        path = folder()
        other = {"weights": "sha256:two", "dtype": "float32", "device": "cpu"}
        monkeypatch.setattr("cof.models.llava.identify", lambda settings: other)
        done = CliRunner().invoke(main, ["probe", str(path)])
        assert done.exit_code == 2
        assert "made with other weights" in done.stderr
