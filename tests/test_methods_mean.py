"""The mean of two fine stages, and several stages in one batch, against the same by hand."""

from dataclasses import replace

import pytest
import torch
from stage_cases import BOXES, batch_of, spots_of, tokens

from cof.errors import ConfigError
from cof.models.base import Limits
from cof.pipeline import CoF, Settings
from cof.refine import crop, highlight, mean, overlay, plain
from cof.refine.base import Look


@pytest.fixture(scope="module")
def batch(llava):
    return batch_of(llava)


@pytest.fixture(scope="module")
def spots(batch):
    return spots_of(batch)


def logits_of(llava, batch, row, look, said):
    """Next-token logits of one row's look behind given tokens: nothing cached, nothing shared."""
    from cof.refine.base import light

    encoded, lit = light(batch.take([row]), [look])
    embeds = llava.embeds(encoded)
    more = llava.network.get_input_embeddings()(torch.tensor([said]).long())
    if lit is not None:  # nothing of the reply is lit, all of it sees
        behind = torch.zeros(1, len(said))
        seen = lit.queries
        lit = replace(
            lit,
            bias=torch.cat([lit.bias, behind], 1),
            queries=None if seen is None else torch.cat([seen, behind == 0], 1),
        )
    with llava.highlighted(lit):
        hidden = llava.decoder(inputs_embeds=torch.cat([embeds, more], 1), use_cache=False)
    return llava.network.lm_head(hidden.last_hidden_state)[0, -1].float()


PAIRS = [
    (mean.Plain(), mean.Crop(2.0, 0.3)),
    (mean.Highlight(20.0), mean.Crop(2.0, 0.3)),
    (mean.Highlight(20.0, "text", (1, 2), perturb=0.5), mean.Overlay("darken", dark=1.0)),
    (mean.Highlight(20.0), mean.Highlight(0.1, "text")),
]


class TestMean:
    @torch.inference_mode()
    @pytest.mark.parametrize("parts", PAIRS)
    def test_tokens_are_the_best_of_the_mean_by_hand(self, llava, batch, spots, parts):
        config = mean.Config(*parts)
        found = mean.refine(batch, spots, config)
        assert found[1] == batch.plain[1]
        looks = [mean.stage_of(part).prepare(batch, spots, part) for part in parts]
        for row in (0, 2):
            said, logprobs = [], []
            for token in found[row].tokens:
                both = [logits_of(llava, batch, row, one[row], said) for one in looks]
                scores = sum(one.log_softmax(-1) for one in both) / 2
                assert int(scores.argmax()) == token
                said.append(token)
                logprobs.append(float(scores.log_softmax(-1)[token]))
            assert found[row].logprobs == pytest.approx(logprobs, abs=1e-3)
            alone = mean.refine(batch.take([row]), [spots[row]], config)
            assert tokens(alone) == [found[row].tokens]

    def test_of_a_stage_and_itself_it_is_that_stage(self, batch, spots):
        for part, stage in [
            (mean.Plain(), plain),
            (mean.Highlight(20.0), highlight),
        ]:
            found = mean.refine(batch, spots, mean.Config(part, part))
            assert tokens(found) == tokens(stage.refine(batch, spots, part))
        drawn, seen = mean.Config(mean.Crop(2.0, 0.3), mean.Crop(2.0, 0.3)), batch.model.counters
        before = seen.images
        found = mean.refine(batch, spots, drawn)
        assert seen.images == before + 2  # and not four
        alone = crop.refine(batch, spots, drawn.first)
        assert [one.logprobs for one in found] == [one.logprobs for one in alone]
        two = mean.Config(drawn.first, crop.Config(2.0, 0.3))  # two cuts of one window
        assert tokens(mean.refine(batch, spots, two)) == tokens(alone)

    def test_it_says_what_its_parts_say(self, batch, spots):
        found = mean.refine(batch, spots, mean.Config())
        assert found[0].notes.keys() == {"window"}
        assert not found[1].notes

    def test_options_are_weighed_by_the_mean_of_the_losses(self, batch, spots):
        asked = [
            replace(one, options=("red", "a cup", "four"), choose=True) for one in batch.questions
        ]
        other = replace(batch, questions=asked)
        found = mean.refine(other, spots, mean.Config(mean.Highlight(50.0), mean.Crop(2.0, 0.3)))
        parts = [
            stage.prepare(other, spots, part)
            for stage, part in [(highlight, highlight.Config(50.0)), (crop, crop.Config(2.0, 0.3))]
        ]
        from cof.refine.base import light

        for row in (0, 2):
            losses = []
            for looks in parts:
                one = other.take([row])
                encoded, lit = light(one, [looks[row]])
                with one.model.highlighted(lit):
                    [weighed] = one.weigh(encoded)
                losses.append([-sum(a.logprobs) / len(a.logprobs) for a in weighed])
            means = [(a + b) / 2 for a, b in zip(*losses, strict=True)]
            assert found[row].text == asked[row].options[means.index(min(means))]
            loss = -sum(found[row].logprobs) / len(found[row].logprobs)
            assert loss == pytest.approx(min(means), abs=1e-4)

    def test_a_pair_fails_as_a_whole_and_alone(self, batch, spots):
        asked = [replace(batch.questions[0], text="what is <image>?"), *batch.questions[1:]]
        config = mean.Config(second=mean.Crop(2.0, 0.3))
        found = mean.refine(replace(batch, questions=asked), spots, config)
        assert "<image>" in found[0].error
        assert not found[0].notes
        assert found[2].tokens == mean.refine(batch, spots, config)[2].tokens

    def test_any_stage_that_prepares_can_be_a_part(self, batch, spots):
        bare = mean.Config(plain.Config(), crop.Config(2.0, 0.3))
        named = mean.Config(mean.Plain(), mean.Crop(2.0, 0.3))
        assert tokens(mean.refine(batch, spots, bare)) == tokens(mean.refine(batch, spots, named))
        with pytest.raises(ConfigError, match="has no prepare"):
            mean.refine(batch, spots, mean.Config(mean.Config(), plain.Config()))

    def test_beams_and_sampling_and_layers_that_differ_are_refused(self, llava):
        with pytest.raises(ConfigError, match=r"refine.name=mean needs limits"):
            CoF(llava, Settings(refine=mean.Config(), limits=Limits(num_beams=2)))
        with pytest.raises(ConfigError, match=r"layers \[9\]"):
            CoF(llava, Settings(refine=mean.Config(mean.Highlight(layers=(9,)))))
        with pytest.raises(ValueError, match="different layers or heads"):
            mean.Config(mean.Highlight(layers=(1,)), mean.Highlight(2.0))


def test_looks_that_ask_the_same(batch):
    view, other = batch.views[0], batch.views[2]
    some, none = torch.zeros(576, dtype=torch.bool), torch.zeros(576, dtype=torch.bool)
    some[5] = True
    assert Look(view).same(Look(view, some)) is True  # weight 1 lights nothing
    assert Look(view).same(Look(view, none, 4.5)) is True
    assert Look(view).same(Look(other)) is False
    assert Look(view).same(Look(view, some, 4.5)) is False
    assert Look(view, some, 4.5).same(Look(view, some.clone(), 4.5)) is True
    assert Look(view, some, 4.5).same(Look(view, ~some, 4.5)) is False
    assert Look(view, some, 4.5).same(Look(view, some, 4.5, "text")) is False


@pytest.mark.parametrize("stage", [crop.Config(2.0, 0.3), overlay.Config(), mean.Config()])
def test_several_settings_share_a_batch(llava, batch, stage):
    """As in a sweep: each variant's answers are what it gives alone."""
    from cof.locate import oracle

    asked = [replace(one, boxes=boxes) for one, boxes in zip(batch.questions, BOXES, strict=True)]
    variants = [
        Settings(oracle.Config(), refine=one, limits=Limits(4))
        for one in (highlight.Config(20.0), stage, plain.Config())
    ]
    pipeline = CoF(llava, variants[0])
    together = pipeline.answer_many(asked, batch.images, variants)
    for settings, results in zip(variants, together, strict=True):
        alone = CoF(llava, settings).answer_batch(asked, batch.images)
        assert [one.cof.tokens for one in alone] == [one.cof.tokens for one in results]
