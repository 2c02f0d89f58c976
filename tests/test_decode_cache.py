"""The memory of a batch's keys and values: transformers' own numbers, taken once, never shared."""

from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache

from cof.models._cache import Prefix, roomy
from cof.models.base import Counters

LAYERS, HEADS, WIDTH = 2, 3, 4
DECODER = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=LAYERS))


def parts(rows, length):
    """New keys and values of one layer."""
    return torch.rand(rows, HEADS, length, WIDTH), torch.rand(rows, HEADS, length, WIDTH)


def feed(caches, rows, length):
    """Give every cache the same new positions; what each layer of each cache then returned."""
    new = [parts(rows, length) for _ in range(LAYERS)]
    return [[cache.update(*new[layer], layer) for layer in range(LAYERS)] for cache in caches]


def test_it_returns_what_the_growing_cache_returns_and_takes_its_memory_once():
    caches = roomy(DECODER, 10), DynamicCache()
    for length in (5, 1, 1):
        ours, theirs = feed(caches, 3, length)
        assert all(torch.equal(*pair) for pair in zip(sum(ours, ()), sum(theirs, ()), strict=True))
        place = caches[0].layers[0].keys.data_ptr()
        assert place == caches[0].layers[0].memory.data_ptr()
        assert caches[0].get_seq_length() == caches[1].get_seq_length()
    assert caches[0].layers[0].memory.shape[3] == 10


def test_rows_that_stay_keep_their_positions():
    caches = roomy(DECODER, 8), DynamicCache()
    feed(caches, 3, 5)
    for cache in caches:
        cache.batch_select_indices(torch.tensor([0, 2]))
    ours, theirs = feed(caches, 2, 1)
    assert all(torch.equal(*pair) for pair in zip(sum(ours, ()), sum(theirs, ()), strict=True))


def test_more_than_the_room_is_an_error():
    cache = roomy(DECODER, 4)
    feed([cache], 1, 4)
    with pytest.raises(RuntimeError):
        feed([cache], 1, 1)


@pytest.mark.parametrize("rows", [(0, 1), (1, 1, 0)])
def test_what_a_batch_appends_or_drops_leaves_the_prefix_alone(rows):
    prefix = Prefix(DECODER, torch.zeros(2, 6, WIDTH), (), Counters())
    prefix._cache = roomy(DECODER, 6)
    [given] = feed([prefix._cache], 2, 6)
    before = [part.clone() for pair in given for part in pair]
    taken = prefix.take(rows, 4, 9)
    assert torch.equal(taken.layers[1].keys, given[1][0][list(rows), :, :4])
    feed([taken], len(rows), 5)
    taken.batch_select_indices(torch.tensor([1]))
    taken.layers[0].keys.zero_()
    assert all(map(torch.equal, before, [part for pair in given for part in pair]))
