"""The highlight in decoders with sliding windows and several masks a pass; what is refused.

The oracle recomputes the whole sequence every step: eager attention, hand-made masks, no cache.
"""

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
)

from cof.attention import NAME, attach, highlighted
from cof.errors import ModelError
from cof.models.common.recording import record_attention
from cof.regions.bias import Highlight

WINDOW, LENGTH, STEPS, LAYERS = 8, 11, 14, 4
TOLERANCE = 2e-5
COMMON = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "initializer_range": 0.3,
    "sliding_window": WINDOW,
}
SLIDING = {"mistral": range(LAYERS), "gemma3": (0, 2)}


def build(family, attention="sdpa"):
    torch.manual_seed(0)
    options = {**COMMON, "attn_implementation": attention}
    if family == "mistral":
        model = MistralForCausalLM(MistralConfig(**options))
    else:
        kinds = ["sliding_attention", "full_attention"] * (LAYERS // 2)
        model = Gemma3ForCausalLM(Gemma3TextConfig(**options, layer_types=kinds))
    model.generation_config.eos_token_id = None
    return model.eval()


@pytest.fixture(scope="module")
def prompt():
    ids = torch.randint(2, 61, (2, LENGTH), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    bias = torch.zeros(2, LENGTH)
    bias[0, 2:5], bias[1, 5:8] = 2.0, -1.0
    return ids, mask, bias


def run(model, ids, mask, **options):
    with torch.no_grad():
        out = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=STEPS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            **options,
        )
    return torch.stack(out.logits, 1), out.sequences


def masks(seen, bias, window, heads):
    """Additive [B, 4, T, T] without and with the bias, in some heads."""
    total = seen.shape[1]
    back = torch.arange(total)[:, None] - torch.arange(total)
    allowed = (back >= 0) & (back < window) & seen.bool()[:, None, :]
    lowest = torch.finfo(torch.float32).min
    keyed = torch.zeros(len(seen), 1, total)
    keyed[:, 0, :LENGTH] = bias
    plain = torch.where(allowed, 0.0, lowest)[:, None].expand(-1, 4, -1, -1)
    lit = torch.where(allowed, keyed.expand_as(allowed), lowest)[:, None].expand(-1, 4, -1, -1)
    chosen = torch.tensor([head in heads for head in range(4)])[None, :, None, None]
    return plain, torch.where(chosen, lit, plain)


def oracle(family, sequences, mask, plan):
    """Logits [B, n, V] behind each prompt position from the last on."""
    model = build(family, "eager")
    seen = torch.cat([mask, mask.new_ones(2, sequences.shape[1] - LENGTH)], 1)[:, :-1]
    for index, layer in enumerate(model.model.layers):
        window = WINDOW if index in SLIDING[family] else sequences.shape[1]
        plain, lit = masks(seen, plan.bias, window, plan.heads or range(4))
        chosen = lit if plan.layers is None or index in plan.layers else plain

        def hook(_module, args, kwargs, chosen=chosen):
            return args, kwargs | {"attention_mask": chosen}

        layer.self_attn.register_forward_pre_hook(hook, with_kwargs=True)
    places = (seen.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        out = model(sequences[:, :-1], attention_mask=seen, position_ids=places, use_cache=False)
    return out.logits[:, LENGTH - 1 :]


NARROW = [
    {},
    {"layers": (1, 3)},
    {"layers": (0,)},
    {"heads": (0, 3)},
    {"layers": (2,), "heads": (1,)},
]


@pytest.mark.parametrize("narrow", NARROW, ids=str)
@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_equals_the_oracle_long_after_the_window_has_left_the_prompt(family, narrow, prompt):
    ids, mask, bias = prompt
    model, plan = build(family), Highlight(bias, **narrow)
    with highlighted(model.model, plan):
        logits, sequences = run(model, ids, mask)
    expected = oracle(family, sequences, mask, plan)
    assert (logits - expected).abs().max() < TOLERANCE
    unlit = oracle(family, sequences, mask, Highlight(torch.zeros_like(bias)))
    assert (logits - unlit).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_inactive_is_bitwise_the_stock_model(family, prompt):
    ids, mask, _ = prompt
    model = build(family)
    attach(model.model)
    assert torch.equal(run(model, ids, mask)[0], run(build(family), ids, mask)[0])


def test_a_copied_mask_is_refused_where_it_could_be_one_of_several(prompt):
    ids, mask, bias = prompt
    model = build("gemma3")
    for layer in model.model.layers:  # as a decoder spread over several devices does
        layer.self_attn.register_forward_pre_hook(
            lambda _m, args, kw: (args, kw | {"attention_mask": kw["attention_mask"].clone()}),
            with_kwargs=True,
        )
    with (
        highlighted(model.model, Highlight(bias, layers=(1,))),
        pytest.raises(RuntimeError, match="2 masks in one pass"),
    ):
        run(model, ids, mask)
    model = build("mistral")
    with highlighted(model.model, Highlight(bias, layers=(1,))):
        expected, _ = run(model, ids, mask)
        for layer in model.model.layers:
            layer.self_attn.register_forward_pre_hook(
                lambda _m, args, kw: (args, kw | {"attention_mask": kw["attention_mask"].clone()}),
                with_kwargs=True,
            )
        found, _ = run(model, ids, mask)
    assert torch.equal(found, expected)


def test_softcapped_scores_are_refused():
    model = Gemma2ForCausalLM(Gemma2Config(**COMMON))
    with pytest.raises(ModelError, match=r"attn_logit_softcapping=50\.0"):
        attach(model.model)


class DecoderWithTower(LlamaModel):
    """LLaVA's own package keeps its vision tower inside the decoder."""

    def __init__(self, config):
        super().__init__(config)
        vision = CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        )
        self.tower = CLIPVisionModel(vision)


def test_a_vision_tower_inside_the_decoder_is_left_alone(prompt):
    _, _, bias = prompt
    torch.manual_seed(0)
    decoder = DecoderWithTower(LlamaConfig(**COMMON)).eval()
    pixels = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        before = decoder.tower(pixels).last_hidden_state
        with highlighted(decoder, Highlight(bias)), record_attention() as seen:
            inside = decoder.tower(pixels).last_hidden_state
    assert decoder.config._attn_implementation == NAME
    assert decoder.tower.config._attn_implementation == "sdpa"
    assert torch.equal(before, inside)
    assert not seen


def test_untouched_reaches_back_to_the_start_of_a_block_that_sees_both_ways():
    """Brute force: the first query that sees a highlighted key."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        length = int(torch.randint(2, 9, (1,), generator=generator))
        start, end = sorted(torch.randint(0, length, (2,), generator=generator).tolist())
        sees = torch.arange(length).repeat(2, 1)
        sees[:, start : end + 1] = end
        bias = (torch.rand(2, length, generator=generator) < 0.3).float()
        queries = torch.rand(2, length, generator=generator) < 0.7
        touched = [
            query
            for row in range(2)
            for query in range(length)
            if queries[row, query] and bias[row, : sees[row, query] + 1].any()
        ]
        expected = min(touched, default=length)
        assert Highlight(bias, queries).untouched(sees) == expected
