"""Codes of places: neighbours are alike, sums keep every place, tokens start as their numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cof_lab.mixed_precision import multiply_in_bfloat16
from cof_lab.position_code import WAVES, coordinate_table, position_code
from cof_lab.reply_tokens import token_kinds
from cof_lab.train import TrainConfig, fresh


def test_the_nearest_code_is_the_nearest_place():
    grid = torch.arange(101)[:, None] / 100
    codes = position_code(grid)
    assert codes.shape == (101, 2 * len(WAVES))
    for value in torch.rand(50, generator=torch.Generator().manual_seed(0)):
        best = int((codes @ position_code(value[None])).argmax())
        assert best == pytest.approx(float(value) * 100, abs=0.51)


def test_a_sum_of_codes_still_tells_its_places():
    """The mean of linear coordinates 0.2 and 0.7 is 0.45, where nothing is."""
    codes = position_code(torch.arange(101)[:, None] / 100)
    both = position_code(torch.tensor([[0.2], [0.7]])).mean(0)
    likeness = codes @ both
    assert int(likeness[:45].argmax()) == pytest.approx(20, abs=1)
    assert 45 + int(likeness[45:].argmax()) == pytest.approx(70, abs=1)
    assert likeness[45] < 0.5 * likeness.max()


def test_boxes_keep_their_four_corners_apart():
    box = torch.tensor([0.1, 0.2, 0.3, 0.9])
    assert torch.equal(position_code(box), torch.cat([position_code(value[None]) for value in box]))


def test_coordinate_tokens_start_alike_when_their_numbers_are():
    model, tokenizer = fresh(TrainConfig())
    ids = token_kinds(tokenizer)[1].ids
    for layer in (model.model.get_input_embeddings(), model.lm_head):
        rows = layer.weight[ids].detach()
        likeness = torch.cosine_similarity(rows[50:51], rows, dim=-1)
        assert likeness[51] > 0.8
        assert likeness[51] > likeness[54] > likeness[80]
        other = layer.weight.detach().std()
        assert rows.std() == pytest.approx(float(other), rel=0.15)
    assert not torch.equal(coordinate_table(8, 1.0, 0), coordinate_table(8, 1.0, 1))


def test_half_products_are_close_and_leave_no_trace_in_the_weights():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 16, bias=False))
    half = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 16, bias=False))
    half.load_state_dict(plain.state_dict())
    multiply_in_bfloat16(half)
    x = torch.randn(3, 50, 64)
    for module in (plain, half):
        module(x).square().sum().backward()
    assert half(x).dtype == torch.float32
    assert (half(x) - plain(x)).abs().max() < 0.02
    assert (half(x) - plain(x)).abs().max() > 0  # it was in use
    for a, b in zip(plain.parameters(), half.parameters(), strict=True):
        assert (a.grad - b.grad).norm() < 0.01 * a.grad.norm()
    assert half.state_dict().keys() == plain.state_dict().keys()
