"""Keys and values of a batch: transformers' own numbers, memory in blocks, never shared."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import DynamicCache

from cof.models.base import Counters
from cof.models.common.kv_cache import Prefix, Start, cached, fixed, load, roomy, unload

LAYERS, HEADS, WIDTH = 2, 3, 4
DECODER = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=LAYERS))


def parts(rows, length):
    """New keys and values of one layer."""
    return torch.rand(rows, HEADS, length, WIDTH), torch.rand(rows, HEADS, length, WIDTH)


def feed(caches, rows, length):
    """Give every cache the same new positions; what each layer of each cache then returned."""
    new = [parts(rows, length) for _ in range(LAYERS)]
    return [[cache.update(*new[layer], layer) for layer in range(LAYERS)] for cache in caches]


def same(ours, theirs):
    return all(torch.equal(*pair) for pair in zip(sum(ours, ()), sum(theirs, ()), strict=True))


def test_it_returns_what_the_growing_cache_returns():
    caches = roomy(DECODER, 5, 150), DynamicCache()
    for length in (3, 2, *[1] * 70, 80):
        assert same(*feed(caches, 3, length))
        assert caches[0].get_seq_length() == caches[1].get_seq_length()


def test_memory_is_taken_with_the_prompt_and_then_by_doubling_the_reply():
    """Everything returned is kept, so that no address can be given out a second time."""
    cache = roomy(DECODER, 5, 300)
    kept = [feed([cache], 2, 5), *(feed([cache], 2, 1) for _ in range(300))]
    for layer in range(LAYERS):
        places = [step[0][layer][0].data_ptr() for step in kept]
        moved = [at for at in range(1, 301) if places[at] != places[at - 1]]
        assert moved == [65, 129, 257]
        assert len(set(places)) == 4
        assert cache.layers[layer].memory.shape[3] == 305


@pytest.mark.parametrize(("reply", "room"), [(0, 6), (10, 16), (2048, 6 + 64)])
def test_a_batch_first_takes_room_for_its_prompt_and_a_short_reply(reply, room):
    prefix = Prefix(DECODER, torch.zeros(2, 4, WIDTH), (), Counters())
    prefix._cache = roomy(DECODER, 4)
    feed([prefix._cache], 2, 4)
    for cache in (
        Start(((prefix, 0), (prefix, 1), (prefix, 1))).take(4, 6, reply),
        roomy(DECODER, 6, reply),
    ):
        feed([cache], 3, 2)
        assert [layer.memory.shape[3] for layer in cache.layers] == [room] * LAYERS


def test_fixed_memory_goes_on_from_a_cache_and_back_into_one():
    """Whatever an earlier batch left behind it; the steps write where `at` says."""
    memories = [torch.full((2, 4, HEADS, 16, WIDTH), torch.nan) for _ in range(LAYERS)]
    caches, at = (roomy(DECODER, 5, 20), DynamicCache()), torch.zeros(1, dtype=torch.long)
    feed(caches, 3, 5)
    still = fixed(memories, at)
    load(still, caches[0])
    at.fill_(5)
    for _ in range(3):
        new = [parts(3, 1) for _ in range(LAYERS)]
        for layer, pair in enumerate(new):
            caches[1].update(*pair, layer)
            keys, values = still.update(*(torch.cat([part, part[:1]]) for part in pair), layer)
            assert keys.data_ptr() == memories[layer].data_ptr()
            assert values.shape == (4, HEADS, 16, WIDTH)
        at += 1
    for layer, memory in enumerate(memories):
        assert not memory.isnan().any()
        assert not memory[:, :, :, 8:].any()
        assert torch.equal(memory[0, :3, :, :8], caches[1].layers[layer].keys)
    out = unload(still, torch.tensor([0, 2]), 8, roomy(DECODER, 8, 20))
    caches[1].batch_select_indices(torch.tensor([0, 2]))
    assert same(*feed((out, caches[1]), 2, 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: cache.batch_select_indices(torch.tensor([0, 2])),
        lambda cache: cache.reorder_cache(torch.tensor([2, 0, 1])),
        lambda cache: cache.batch_repeat_interleave(2),
        lambda cache: cache.get_seq_length() and cache.crop(-2),  # 5.20 cannot crop nothing
        lambda cache: cache.reset(),
    ],
)
def test_what_changes_a_cache_changes_it_like_transformers_own(change):
    caches = roomy(DECODER, 5, 80), DynamicCache()
    for cache in caches:
        change(cache)  # of nothing: nothing
    feed(caches, 3, 5)
    for cache in caches:
        change(cache)
    rows = len(caches[1].layers[0].keys) if caches[1].get_seq_length() else 3
    for length in (1, 70):
        assert same(*feed(caches, rows, length))


def test_it_is_not_offloaded():
    cache = roomy(DECODER, 4)
    feed([cache], 1, 4)
    for move in (cache.layers[0].offload, cache.layers[0].prefetch):
        with pytest.raises(NotImplementedError, match="stays on its device"):
            move()


@pytest.mark.parametrize("rows", [1, 3])
def test_another_number_of_rows_is_an_error(rows):
    cache = roomy(DECODER, 4, 4)
    feed([cache], 2, 4)
    with pytest.raises(ValueError, match=r"goes on with \(2, 3, 1, 4\)"):
        feed([cache], rows, 1)
    with pytest.raises(ValueError, match="goes on with"):
        cache.update(parts(2, 1)[0], parts(1, 1)[0], 0)


def test_more_than_the_room_is_an_error():
    cache = roomy(DECODER, 4)
    feed([cache], 1, 4)
    with pytest.raises(RuntimeError, match="5 positions for a cache of at most 4"):
        feed([cache], 1, 1)


@pytest.mark.parametrize("rows", [(0, 1), (1, 1, 0)])
def test_what_a_batch_appends_or_drops_leaves_the_prefix_alone(rows):
    prefix = Prefix(DECODER, torch.zeros(2, 6, WIDTH), (), Counters())
    prefix._cache = roomy(DECODER, 6)
    [given] = feed([prefix._cache], 2, 6)
    before = [part.clone() for pair in given for part in pair]
    taken = Start(tuple((prefix, at) for at in rows)).take(4, 4, 5)
    assert torch.equal(taken.layers[1].keys, given[1][0][list(rows), :, :4])
    feed([taken], len(rows), 5)
    taken.batch_select_indices(torch.tensor([1]))
    taken.layers[0].keys.zero_()
    assert all(map(torch.equal, before, [part for pair in given for part in pair]))


def old(inputs_embeds, past_key_values=None, use_cache=None):
    """A forward's parameters up to transformers 5.23."""


def new(inputs_embeds, cache=None, use_cache=None):
    """The same from 5.24 on, where the old name warns, and fails from 5.40 on."""


@pytest.mark.parametrize(("run", "name"), [(old, "past_key_values"), (new, "cache")])
def test_the_cache_goes_by_the_name_that_the_decoder_has(run, name):
    class Decoder(torch.nn.Module):
        forward = run

    for decoder in (Decoder(), run):
        assert cached(decoder, "keys") == {name: "keys", "use_cache": True}


def test_the_installed_decoder_is_called_without_a_warning(llava):
    image = Image.new("RGB", (30, 20))
    encoded = llava.encode(llava.look([image]), ["Is it red?"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        llava.greedy(encoded, 2)
        llava.score(encoded, ["yes, it is"])
