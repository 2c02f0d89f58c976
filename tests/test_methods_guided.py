"""Guided decoding: two branches of one question against masks and scores written by hand."""

import json
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from cof.attention import highlighted
from cof.batch import Batch
from cof.errors import ConfigError, ModelError
from cof.evaluate.parity import Parity
from cof.models.base import Limits
from cof.pipeline import CoF, Settings
from cof.refine import guided
from cof.regions.bias import Highlight
from cof.types import Answer, Focus, Question

TEXTS = ["What is it?", "Where is the red cup, and what is beside it?", "Is it?"]


@pytest.fixture(scope="module")
def batch(llava):
    ramp = Image.linear_gradient("L").convert("RGB")
    asked = [Question(str(i), f"{i}.png", text) for i, text in enumerate(TEXTS)]
    return Batch.of(
        llava, asked, [ramp.resize(s) for s in [(90, 60), (40, 70), (64, 64)]], Limits(5)
    )


def spot(*cells):
    mask = torch.zeros(576, dtype=torch.bool)
    mask[list(cells)] = True
    return Focus(mask, (), "boxes" if cells else "no_box")


@pytest.fixture(scope="module")
def spots():
    return [spot(*range(100, 300)), spot(), spot(3, 4, 570)]


def test_parity_holds_and_is_held(golden, tmp_path):
    cases = json.loads((golden / "prompt_highlighter/cases.json").read_text())
    for name in ("checkpoint", "images"):
        (tmp_path / name).symlink_to(golden / name)
    (tmp_path / "cases.json").write_text("[]")
    folder = tmp_path / "prompt_highlighter"
    folder.mkdir()
    for case in cases:
        file = f"{case['id']}.safetensors"
        (folder / file).symlink_to(golden / "prompt_highlighter" / file)

    def verdicts(**changes):
        (folder / "cases.json").write_text(json.dumps([{**one, **changes} for one in cases]))
        report = Parity(tmp_path, device="cpu").run()
        return {n: (cases, v) for n, cases, *_, v in report.rows() if n.startswith("guided")}

    assert set(verdicts().values()) == {(4, "ok")}
    assert verdicts(attention_weight=3.0)["guided branches"] == (4, "FAILED")
    assert verdicts(guidance_scale=1.31)["guided scores"] == (4, "FAILED")


@torch.inference_mode()
@pytest.mark.parametrize("log", [True, False])
def test_answers_are_those_of_two_passes_by_hand(llava, batch, spots, log):
    config = guided.Config(3.0, 1.7, log, 0.25)
    found = guided.refine(batch, spots, config)
    assert found[1] == replace(batch.plain[1], notes=guided.SURE)  # nothing is lit
    for row in (0, 2):
        encoded = batch.take([row]).encode()
        lit, places = spots[row].mask, encoded.visual[0]
        clean = encoded.inputs["inputs_embeds"]
        dimmed = clean.clone()
        dimmed[0, places[lit]] *= 0.25
        biases = torch.zeros(2, encoded.keys + 5)
        biases[0, places[lit]] = math.log(3.0)
        biases[1, places[lit]] = -(2 + math.log(3.0))
        tokens, logprobs, gaps = [], [], []
        for token in found[row].tokens:
            said = []
            for embeds, bias in zip((clean, dimmed), biases, strict=True):
                more = llava.network.get_input_embeddings()(torch.tensor([tokens]).long())
                with highlighted(
                    llava.decoder, Highlight(bias[None, : encoded.keys + len(tokens)])
                ):
                    whole = torch.cat([embeds, more], dim=1)
                    hidden = llava.decoder(inputs_embeds=whole, use_cache=False)
                logits = llava.network.lm_head(hidden.last_hidden_state)[0, -1].float()
                said.append(logits.log_softmax(-1) if log else logits.softmax(-1))
            scores = 1.7 * (said[0] - said[1]) + said[1]
            assert int(scores.argmax()) == token
            tokens.append(token)
            shares = scores.softmax(-1) if log else scores.clamp(min=1e-37)
            best, second = (shares / shares.sum()).log().topk(2).values.tolist()
            logprobs.append(best)
            gaps.append(best - second)
        assert found[row].logprobs == pytest.approx(logprobs, abs=1e-3)
        assert found[row].margin == pytest.approx(min(gaps), abs=1e-3)
        alone = guided.refine(batch.take([row]), [spots[row]], config)[0]
        assert alone.tokens == found[row].tokens


class ByHand:
    """The decoder written out in float64, nothing of this package or of transformers' in it."""

    def __init__(self, llava):
        self.config = llava.decoder.config
        state = {name: one.detach().double() for name, one in llava.decoder.state_dict().items()}
        self.of = lambda layer, name: state[f"layers.{layer}.{name}.weight"]
        self.last, self.words = state["norm.weight"], state["embed_tokens.weight"]
        self.head = llava.network.lm_head.weight.detach().double()

    def norm(self, x, weight):
        return x / (x.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps).sqrt() * weight

    def turned(self, x):
        """Rotary positions of [heads, S, d]."""
        half, base = x.shape[-1] // 2, self.config.rope_parameters["rope_theta"]
        speed = base ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * speed
        one, two = x[..., :half], x[..., half:]
        return torch.cat(
            [one * angle.cos() - two * angle.sin(), two * angle.cos() + one * angle.sin()], -1
        )

    def attended(self, x, layer, bias):
        heads = self.config.num_attention_heads
        query, key, value = (
            (x @ self.of(layer, f"self_attn.{name}_proj").T)
            .unflatten(-1, (-1, self.config.hidden_size // heads))
            .transpose(0, 1)
            for name in "qkv"
        )
        query, key = self.turned(query), self.turned(key)
        key, value = (one.repeat_interleave(heads // len(one), 0) for one in (key, value))
        scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5 + bias
        later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        seen = scores.masked_fill(later, -math.inf).softmax(-1) @ value
        return seen.transpose(0, 1).flatten(1) @ self.of(layer, "self_attn.o_proj").T

    def logits(self, x, bias):
        """Of the token behind embeddings [S, D], with `bias` [S] added to the keys' scores."""
        for layer in range(self.config.num_hidden_layers):
            near = self.norm(x, self.of(layer, "input_layernorm"))
            x = x + self.attended(near, layer, bias)
            near = self.norm(x, self.of(layer, "post_attention_layernorm"))
            up, gate = (near @ self.of(layer, f"mlp.{name}_proj").T for name in ("up", "gate"))
            x = x + (torch.nn.functional.silu(gate) * up) @ self.of(layer, "mlp.down_proj").T
        return self.norm(x, self.last)[-1] @ self.head.T

    def guided(self, embeds, lit, config, steps):
        """Both branches' first logits; tokens, and scores of each step."""
        plus = torch.where(lit, math.log(config.weight), 0.0).double()
        minus = torch.where(lit, -(2 + math.log(config.weight)), 0.0).double()
        dimmed = torch.where(lit[:, None], embeds * config.perturb, embeds)
        tokens, scores, first = [], [], []
        for _ in range(steps):
            more, none = self.words[tokens], torch.zeros(len(tokens), dtype=torch.float64)
            both = [
                self.logits(torch.cat([start, more]), torch.cat([bias, none]))
                for start, bias in ((embeds, plus), (dimmed, minus))
            ]
            first = first or both
            one, two = (x.log_softmax(-1) if config.log else x.softmax(-1) for x in both)
            scores.append(config.guidance * (one - two) + two)
            tokens.append(int(scores[-1].argmax()))
        return first, tokens, scores


@torch.inference_mode()
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_branches_scores_and_tokens_are_an_oracles(llava, batch, seed):
    """Settings that nobody recorded, on the decoder written out by hand."""
    draw = torch.Generator().manual_seed(seed)
    weight, guidance, perturb = (1 + 4 * torch.rand(3, generator=draw)).tolist()
    config = guided.Config(weight, 1 + guidance / 5, bool(seed % 2), (perturb - 1) / 4)
    row = seed % 3
    mask = torch.rand(576, generator=draw) < 0.2
    twice = batch.take([row, row]).encode()
    encoded, plan = guided.branches(twice, [mask, mask], config)
    with llava.highlighted(plan):
        branches = [one.logits[0] for one in llava.greedy(encoded, 1, keep_logits=True)]
        said = llava.greedy(encoded, 4, keep_logits=True, mix=guided.guide(config))[0]
    lit = torch.zeros(encoded.keys, dtype=torch.bool)
    lit[encoded.visual[0][mask]] = True
    embeds = twice.inputs["inputs_embeds"][0].double()
    first, tokens, scores = ByHand(llava).guided(embeds, lit, config, len(said.tokens))
    assert torch.allclose(torch.stack(branches).double(), torch.stack(first), atol=1e-4, rtol=0)
    assert torch.allclose(torch.stack(said.logits).double(), torch.stack(scores), atol=1e-4, rtol=0)
    assert said.tokens == tokens


def test_without_guidance_and_without_weight_it_is_the_plain_model(batch, spots):
    same = guided.refine(batch, spots, guided.Config(1.0, 1.0, True, 1.0))
    assert [one.tokens for one in same] == [one.tokens for one in batch.plain]
    for one, plain in zip(same, batch.plain, strict=True):
        assert one.logprobs == pytest.approx(plain.logprobs, abs=1e-4)
    other = guided.refine(batch, spots, guided.Config(5.0, 2.0, True, 0.01))
    assert [one.tokens for one in other] != [one.tokens for one in batch.plain]


def test_a_pair_fails_as_a_whole_and_alone(llava, batch, spots):
    asked = [replace(batch.questions[0], text="what is <image>?"), *batch.questions[1:]]
    other = replace(batch, questions=asked)
    first, second, third = guided.refine(other, [spots[0]] * 3, guided.Config())
    assert "<image>" in first.error
    assert not first.tokens
    assert not second.error
    assert third.tokens == guided.refine(batch, [spots[0]] * 3, guided.Config())[2].tokens


def test_either_pass_can_fail_an_answer():
    from cof.refine.base import whole

    good, bad = Answer("Yes", (1,), 0.5, logprobs=(-0.1,)), Answer("", seconds=0.25, error="broken")
    for pair in [(good, bad), (bad, good)]:
        assert whole(*pair) == Answer("", seconds=0.75, error="broken")
    assert whole(good, good) == replace(good, seconds=1.0)


@pytest.mark.parametrize("change", [{"num_beams": 2}, {"temperature": 0.5}])
def test_beams_and_sampling_are_refused_before_any_question(llava, batch, spots, change):
    settings = Settings(refine=guided.Config(), limits=Limits(3, **change))
    with pytest.raises(ConfigError, match=r"refine.name=guided needs limits.num_beams=1"):
        CoF(llava, settings)
    with pytest.raises(ModelError, match="num_beams=1 and temperature=0"):
        guided.refine(replace(batch, limits=settings.limits), spots, guided.Config())


def test_weighed_options_are_refused(batch, spots):
    asked = [replace(one, options=("a", "b"), choose=True) for one in batch.questions]
    with pytest.raises(ModelError, match="whose options are weighed"):
        guided.refine(replace(batch, questions=asked), spots, guided.Config())


@pytest.mark.parametrize("values", [{"weight": 0.0}, {"guidance": math.inf}, {"perturb": math.nan}])
def test_numbers_that_cannot_be_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        guided.Config(**values)
