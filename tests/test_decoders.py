"""`cof.highlighted` on decoders for which there is no line of code: Qwen2, Gemma 3, Phi-3, ...

The oracle is an eager model of the same weights, in which every layer gets a mask written by hand:
causal, cut to the layer's window, log(lambda) on the keys that count more.
"""

import math

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from cof import Highlight, highlighted

LENGTH, WINDOW, LAYERS = 14, 5, 4
TOLERANCE = 1e-4
SIZES = {
    "vocab_size": 67,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "initializer_range": 0.3,
}
GEMMA = {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2)}
KINDS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}, ()),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}, ()),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": WINDOW}, range(LAYERS)),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, {"sliding_window": WINDOW, **GEMMA}, (0, 2)),
    "phi3": (Phi3ForCausalLM, Phi3Config, {}, ()),
}


def build(name, attention="sdpa"):
    kind, config, options, _ = KINDS[name]
    torch.manual_seed(0)
    model = kind(config(**SIZES, **options, attn_implementation=attention)).eval()
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture(scope="module", params=KINDS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return build(name)


IDS = torch.randint(2, 67, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def bias_of(weight):
    bias = torch.zeros(2, LENGTH)
    bias[0, 3:7], bias[1, 8:10] = math.log(weight), -math.log(weight)
    return bias


@torch.no_grad()
def logits(model, bias=None):
    if bias is None:
        return model(IDS).logits
    with highlighted(model.model, Highlight(bias)):
        return model(IDS).logits


@torch.no_grad()
def oracle(name, ids, bias):
    """Logits of an eager model whose masks are written by hand."""
    eager, windowed = build(name, "eager"), KINDS[name][3]
    length = ids.shape[1]
    back = torch.arange(length)[:, None] - torch.arange(length)
    added = torch.zeros(len(ids), 1, 1, length)
    added[:, 0, 0, : bias.shape[1]] = bias

    def swap(layer):
        seen = (back >= 0) & (back < (WINDOW if layer in windowed else length))
        mask = torch.where(seen, added, torch.finfo(torch.float32).min)
        return lambda _module, args, kwargs: (args, {**kwargs, "attention_mask": mask})

    for layer, block in enumerate(eager.model.layers):
        block.self_attn.register_forward_pre_hook(swap(layer), with_kwargs=True)
    return eager(ids, use_cache=False).logits


def test_outside_a_block_it_is_sdpa_bit_by_bit(name, model):
    stock = logits(build(name))
    logits(model, bias_of(4.5))
    assert torch.equal(logits(model), stock)


def test_weight_one_is_the_plain_model(model):
    assert torch.allclose(logits(model, bias_of(1.0)), logits(model), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("weight", [4.5, 0.3])
def test_logits_are_those_of_the_mask_written_by_hand(name, model, weight):
    found, wanted = logits(model, bias_of(weight)), oracle(name, IDS, bias_of(weight))
    assert (found - wanted).abs().max() <= TOLERANCE
    assert (found - logits(model)).abs().max() > 100 * TOLERANCE


def test_decode_steps_are_highlighted_too(name, model):
    bias = bias_of(4.5)
    with highlighted(model, Highlight(bias)):  # the whole model names its decoder as well
        out = model.generate(
            IDS,
            attention_mask=torch.ones_like(IDS),
            max_new_tokens=4,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    wanted = oracle(name, out.sequences[:, :-1], bias)[:, LENGTH - 1 :]
    assert (torch.stack(out.logits, 1) - wanted).abs().max() <= TOLERANCE


def test_an_exception_ends_the_block(model):
    before = logits(model)
    with pytest.raises(RuntimeError, match="stop"), highlighted(model.model, Highlight(bias_of(9))):
        raise RuntimeError("stop")
    assert torch.equal(logits(model), before)
