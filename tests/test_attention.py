"""The highlight against a slow eager oracle: identity, equality, locality, restoration, decoding.

The oracle shares nothing with the mechanism: eager attention, a hand-made 4D mask, no cache, every
step recomputed from the start. Logits are compared, not only tokens.
"""

import contextvars
import threading

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cof.attention import attach, highlighted
from cof.regions.bias import Highlight, log_weight

STEPS, BATCH, LENGTH, WIDTH = 5, 3, 17, 32
TOLERANCE = 2e-5
CONFIG = {
    "vocab_size": 61,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "initializer_range": 0.3,
}


def build(attention="sdpa", seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(**CONFIG, attn_implementation=attention)
    model = LlamaForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def eager():
    return build("eager")


@pytest.fixture(scope="module")
def prompt():
    """Embeddings [B, S, D] and attention mask [B, S]; rows 1 and 2 are left-padded."""
    generator = torch.Generator().manual_seed(1)
    embeds = torch.randn(BATCH, LENGTH, WIDTH, generator=generator) * 0.5
    mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
    mask[1, :4], mask[2, :2] = 0, 0
    return embeds, mask


@pytest.fixture(scope="module")
def bias():
    """A different region and weight in every row."""
    out = torch.zeros(BATCH, LENGTH)
    out[0, 5:9], out[1, 6:12], out[2, 3:4] = log_weight(4.5), log_weight(2), log_weight(0.5)
    return out


def run(model, prompt, **options):
    embeds, mask = prompt
    settings = {"max_new_tokens": STEPS, "do_sample": False, "use_cache": True} | options
    with torch.no_grad():
        out = model.generate(
            inputs_embeds=embeds,
            attention_mask=mask,
            output_logits=True,
            return_dict_in_generate=True,
            **settings,
        )
    return torch.stack(out.logits, 1), out.sequences


def spread(bias, queries, total):
    """The bias as [B, total, total]: by key, everywhere a query is meant; generated keys 0."""
    out = torch.zeros(len(bias), total, total)
    for row in range(len(bias)):
        for query in range(total):
            meant = query >= LENGTH or queries is None or bool(queries[row, query])
            for key in range(LENGTH):
                out[row, query, key] = bias[row, key] if meant else 0.0
    return out


def oracle(eager, prompt, tokens, extra, layers=None, heads=None):
    """Logits [B, n, V] of given tokens by one full eager pass without a cache."""
    embeds, mask = prompt
    grown = torch.cat([embeds, eager.get_input_embeddings()(tokens[:, :-1])], 1)
    seen = torch.cat([mask, torch.ones(len(mask), tokens.shape[1] - 1, dtype=torch.long)], 1)
    total = grown.shape[1]
    allowed = torch.ones(total, total, dtype=torch.bool).tril()[None] & seen.bool()[:, None, :]
    lowest = torch.finfo(torch.float32).min
    plain = torch.where(allowed, 0.0, lowest)[:, None].expand(-1, 4, -1, -1)
    biased = torch.where(allowed, extra, lowest)[:, None].expand(-1, 4, -1, -1).clone()
    for head in set(range(4)) - set(range(4) if heads is None else heads):
        biased[:, head] = plain[:, head]
    chosen = range(3) if layers is None else layers

    def swap(layer):
        def hook(_module, args, kwargs):
            return args, kwargs | {"attention_mask": biased if layer in chosen else plain}

        return hook

    hooks = [
        layer.self_attn.register_forward_pre_hook(swap(index), with_kwargs=True)
        for index, layer in enumerate(eager.model.layers)
    ]
    positions = (seen.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = eager(
            inputs_embeds=grown, attention_mask=plain, position_ids=positions, use_cache=False
        ).logits
    for hook in hooks:
        hook.remove()
    return logits[:, LENGTH - 1 :]


def compare(model, eager, prompt, plan, extra=None, **options):
    """Largest difference between the highlighted run and the oracle on the same tokens."""
    with highlighted(model.model, plan):
        logits, tokens = run(model, prompt, **options)
    extra = spread(plan.bias, plan.queries, LENGTH + STEPS - 1) if extra is None else extra
    expected = oracle(eager, prompt, tokens, extra, plan.layers, plan.heads)
    return (logits - expected).abs().max().item()


def test_inactive_is_bitwise_the_stock_model(model, prompt):
    stock_logits, stock_tokens = run(build(), prompt)
    attach(model.model)
    logits, tokens = run(model, prompt)
    assert torch.equal(logits, stock_logits)
    assert torch.equal(tokens, stock_tokens)


def test_weight_one_is_the_identity(model, prompt):
    plain, tokens = run(model, prompt)
    with highlighted(model.model, Highlight(torch.full((BATCH, LENGTH), log_weight(1)))):
        same, same_tokens = run(model, prompt)
    assert torch.equal(tokens, same_tokens)
    assert torch.allclose(same, plain, atol=TOLERANCE)


def test_equals_the_oracle_in_prefill_and_every_decode_step(model, eager, prompt, bias):
    assert compare(model, eager, prompt, Highlight(bias)) < TOLERANCE


def test_the_highlight_matters(model, prompt, bias):
    plain, _ = run(model, prompt)
    with highlighted(model.model, Highlight(bias)):
        lit, _ = run(model, prompt)
    assert ((lit - plain)[:, 0].abs().amax(-1) > 100 * TOLERANCE).all()


def test_text_scope_equals_the_oracle(model, eager, prompt, bias):
    queries = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    queries[:, 3:12] = False
    assert compare(model, eager, prompt, Highlight(bias, queries)) < TOLERANCE
    assert compare(model, eager, prompt, Highlight(bias, queries), spread(bias, None, 21)) > 1e-3


@pytest.mark.parametrize(
    "narrow", [{"layers": (1,)}, {"heads": (0, 3)}, {"layers": (0, 2), "heads": (1,)}]
)
def test_chosen_layers_and_heads_equal_the_oracle(model, eager, prompt, bias, narrow):
    assert compare(model, eager, prompt, Highlight(bias, **narrow)) < TOLERANCE


def test_static_cache_equals_the_oracle(model, eager, prompt, bias):
    options = {"cache_implementation": "static", "disable_compile": True}
    assert compare(model, eager, prompt, Highlight(bias), **options) < TOLERANCE


def test_sampling_equals_the_oracle(model, eager, prompt, bias):
    torch.manual_seed(3)
    assert compare(model, eager, prompt, Highlight(bias), do_sample=True, top_k=0) < TOLERANCE


@pytest.mark.parametrize("beams", [2, 3])
def test_beams_of_a_batch_equal_each_row_alone(model, prompt, bias, beams):
    options = {"num_beams": beams, "length_penalty": 0.0}
    with highlighted(model.model, Highlight(bias)):
        together = run(model, prompt, **options)[1]
    for row in range(BATCH):
        real = prompt[1][row].bool()
        alone = prompt[0][row : row + 1, real], prompt[1][row : row + 1, real]
        with highlighted(model.model, Highlight(bias[row : row + 1, real])):
            assert torch.equal(run(model, alone, **options)[1][0], together[row])


def wrong_last_query(bias):
    out = torch.zeros(BATCH, LENGTH + STEPS - 1, LENGTH + STEPS - 1)
    out[:, -STEPS:, :LENGTH] = bias[:, None, :]
    return out


def wrong_prefill_only(bias):
    out = spread(bias, None, LENGTH + STEPS - 1)
    out[:, LENGTH:] = 0
    return out


def wrong_shifted(bias):
    return spread(bias.roll(1, 1), None, LENGTH + STEPS - 1)


@pytest.mark.parametrize("wrong", [wrong_last_query, wrong_prefill_only, wrong_shifted])
def test_negative_controls_fail_the_comparison(model, eager, prompt, bias, wrong):
    assert compare(model, eager, prompt, Highlight(bias), wrong(bias)) > 100 * TOLERANCE


def test_one_layer_missing_fails_the_comparison(model, eager, prompt, bias):
    extra = spread(bias, None, LENGTH + STEPS - 1)
    with highlighted(model.model, Highlight(bias)):
        logits, tokens = run(model, prompt)
    wrong = oracle(eager, prompt, tokens, extra, layers=(0, 1))
    assert (logits - wrong).abs().max() > 100 * TOLERANCE


def test_locality_other_rows_are_untouched(model, prompt, bias):
    plain, _ = run(model, prompt)
    only = torch.zeros_like(bias)
    only[0] = bias[0]
    with highlighted(model.model, Highlight(only)):
        lit, _ = run(model, prompt)
    assert torch.allclose(lit[1:], plain[1:], atol=TOLERANCE)
    assert not torch.allclose(lit[0], plain[0], atol=100 * TOLERANCE)


def test_another_model_is_untouched(model, prompt, bias):
    other = build(seed=7)
    before, _ = run(other, prompt)
    attach(other.model)
    with highlighted(model.model, Highlight(bias)):
        inside, _ = run(other, prompt)
        with highlighted(other.model, Highlight(-bias)):
            run(other, prompt)
            lit, _ = run(model, prompt)
    with highlighted(model.model, Highlight(bias)):
        alone, _ = run(model, prompt)
    assert torch.equal(inside, before)
    assert torch.equal(lit, alone)


def test_restored_after_an_exception(model, prompt, bias):
    before, _ = run(model, prompt)
    with pytest.raises(KeyError), highlighted(model.model, Highlight(bias)):
        raise KeyError("half-way")
    assert torch.equal(run(model, prompt)[0], before)


def test_blocks_nest_and_the_innermost_counts(model, prompt, bias):
    with highlighted(model.model, Highlight(bias)):
        outer, _ = run(model, prompt)
        with highlighted(model.model, Highlight(bias.flip(1))):
            inner, _ = run(model, prompt)
        again, _ = run(model, prompt)
    assert torch.equal(outer, again)
    assert not torch.allclose(outer, inner, atol=100 * TOLERANCE)


def test_threads_have_their_own_highlight(model, prompt, bias):
    plain, _ = run(model, prompt)
    results = {}

    def work(name):
        results[name] = run(model, prompt)[0]

    with highlighted(model.model, Highlight(bias)):
        lit, _ = run(model, prompt)
        context = contextvars.copy_context()
        threads = [
            threading.Thread(target=work, args=("bare",)),
            threading.Thread(target=context.run, args=(work, "copied")),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert torch.equal(results["bare"], plain)
    assert torch.equal(results["copied"], lit)


def test_threads_do_not_share_the_mask_of_narrowed_layers(model, prompt, bias):
    """Two batches with different padding in one block, each in its own copy of the context."""
    embeds, mask = prompt
    other = (embeds.flip(0), mask.flip(0))
    plan = Highlight(torch.ones_like(bias), layers=(1,))
    with highlighted(model.model, plan):
        alone = run(model, prompt)[0], run(model, other)[0]
        found = [None, None]

        def work(slot, batch):
            for _ in range(3):
                found[slot] = run(model, batch)[0]

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(work, slot, batch))
            for slot, batch in enumerate((prompt, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for ours, expected in zip(found, alone, strict=True):
        assert torch.allclose(ours, expected, atol=TOLERANCE)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_impossible_weights_are_named(weight):
    with pytest.raises(ValueError, match=f"positive.*{weight}"):
        log_weight(weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (3,)}, "layers.*3.*0 to 2"),
        ({"heads": (-1,)}, "heads.*-1"),
        ({"heads": ()}, "empty"),
    ],
)
def test_layers_and_heads_out_of_range_are_named(model, bias, options, message):
    with (
        pytest.raises(ValueError, match=message),
        highlighted(model.model, Highlight(bias, **options)),
    ):
        pass


def test_a_highlight_for_another_prompt_is_refused(model, prompt, bias):
    for length in (LENGTH + 1, LENGTH - 7):
        with (
            highlighted(model.model, Highlight(torch.zeros(BATCH, length))),
            pytest.raises(ValueError, match=f"{length} positions"),
        ):
            run(model, prompt)
    with (
        highlighted(model.model, Highlight(bias[:2])),
        pytest.raises(ValueError, match="2 rows"),
    ):
        run(model, prompt)


def test_bias_must_be_finite_and_two_dimensional(bias):
    with pytest.raises(ValueError, match="finite"):
        Highlight(torch.full((1, 3), float("inf")))
    with pytest.raises(ValueError, match="queries"):
        Highlight(bias, torch.ones(1, 2, dtype=torch.bool))
