"""Families: networks that the caller has loaded, placed on several devices, or quantised."""

import pytest
import torch
from families import SIZES, TEXTS, TINY, build, lit, logits, maker, picture, worst
from transformers import AutoModelForImageTextToText

from cof import CoF
from cof.config import identity, plugins, schema
from cof.errors import ModelError
from cof.models.common import loading

FAMILIES = [one for one in TINY if one not in ("llava_onevision_whole", "smolvlm")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """name -> folder, stock, model; each built once."""
    return maker(tmp_path_factory)


def rows_of(model, chosen=True):
    """Decoded rows of two questions about two images, highlighted or not."""
    views = model.look([picture(size, i) for i, size in enumerate(SIZES)])
    encoded = model.encode(views, TEXTS)
    with model.highlighted(lit(model, encoded, views) if chosen else None):
        return model.greedy(encoded, 3, keep_logits=True)


def load_network(folder, **where):
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, **where)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_loaded_network_is_taken(made, name):
    folder, _, model = made(name)
    family = TINY[name].family
    cof = CoF.from_model(load_network(folder), family=family, max_new_tokens=3)
    assert worst(logits(rows_of(cof.model)), logits(rows_of(model))) == 0
    ours, theirs = cof.model.identity(), model.identity()
    assert ours.pop("revision").startswith("network:")
    assert ours.items() < theirs.items()
    assert cof(picture(SIZES[0]), TEXTS[0]).text is not None


def test_other_weights_are_another_identity(made):
    folder = made("qwen3_vl")[0]
    network = load_network(folder)
    first = CoF.from_model(network, family="qwen_vl").model.identity()
    assert CoF.from_model(network, folder, family="qwen_vl").model.identity() == first
    network.lm_head.weight.data[0, 0] += 1
    assert CoF.from_model(network, family="qwen_vl").model.identity() != first


def test_what_is_no_network_of_the_family_is_refused(made, tmp_path):
    folder = made("qwen3_vl")[0]
    network = load_network(folder)
    for wrong in ("Qwen/Qwen3-VL", network.model, network.model.language_model):
        with pytest.raises(ModelError, match="has to be transformers' whole"):
            CoF.from_model(wrong, family="qwen_vl")
    with pytest.raises(ModelError, match="has to be transformers' whole internvl"):
        CoF.from_model(network, family="internvl")
    for option in ({"device": "cpu"}, {"quantization": "bnb4"}, {"device_map": "auto"}):
        with pytest.raises(ModelError, match="loaded already"):
            CoF.from_model(network, family="qwen_vl", **option)
    other = build("qwen2_5_vl", tmp_path / "other")
    with pytest.raises(ModelError, match=r"model_type is .*own folder"):
        CoF.from_model(network, other, family="qwen_vl")
    network.config._name_or_path = ""
    with pytest.raises(ModelError, match="where it was loaded from"):
        CoF.from_model(network, family="qwen_vl")


def spread(network):
    """A device map of a checkpoint: a decoder layer on disk, the rest on the CPU."""
    inner = network.model
    names = [name for name, module in network.named_modules() if module in decoder_layers(network)]
    parts = {f"model.{name}": "cpu" for name, _ in inner.named_children()}
    parts |= {f"model.{name}": "cpu" for name, _ in inner.named_parameters(recurse=False)}
    text = next(name for name, module in network.named_modules() if module is network.get_decoder())
    del parts[text]
    parts |= {f"{text}.{name}": "cpu" for name, _ in network.get_decoder().named_children()}
    del parts[f"{text}.layers"]
    return {**parts, "lm_head": "cpu", **dict.fromkeys(names, "cpu"), names[1]: "disk"}


def decoder_layers(network):
    return list(network.get_decoder().layers)


@pytest.mark.filterwarnings("ignore:The following device_map keys")  # a parameter, no submodule
@pytest.mark.parametrize("name", FAMILIES)
def test_a_layer_on_disk_changes_nothing(made, name, tmp_path):
    """As `device_map` has it: the weights come in for their layer's turn, through hooks."""
    folder, stock, model = made(name)
    where = spread(stock.network)
    network = load_network(folder, device_map=where, offload_folder=tmp_path)
    assert next(decoder_layers(network)[1].parameters()).is_meta
    cof = CoF.from_model(network, family=TINY[name].family)
    assert worst(logits(rows_of(cof.model)), logits(rows_of(model))) <= 1e-5
    bright, plain = (logits(rows_of(cof.model, chosen)) for chosen in (True, False))
    assert worst([one[:1] for one in bright], [one[:1] for one in plain]) > 1e-3


@pytest.mark.parametrize("name", ["qwen3_vl", "gemma3"])
def test_everything_on_disk_changes_nothing(made, name, tmp_path):
    """Embeddings and vision tower too, of which only the hooks know where they compute."""
    folder, _, model = made(name)
    where = {"model": "disk", "lm_head": "cpu"}
    network = load_network(folder, device_map=where, offload_folder=tmp_path)
    cof = CoF.from_model(network, family=TINY[name].family)
    assert worst(logits(rows_of(cof.model)), logits(rows_of(model))) <= 1e-5


def test_device_map_is_a_key_of_every_family(made):
    for name in FAMILIES:
        folder, _, model = made(name)
        module = plugins.load("models", TINY[name].family)
        spread_out = module.load(module.Config(str(folder), device_map="auto"))
        assert worst(logits(rows_of(spread_out)), logits(rows_of(model))) <= 1e-5


def run_config(**model):
    bench = {"name": "mme", "root": "."}
    return schema.resolve({"model": {"name": "qwen_vl", **model}, "bench": bench})


def test_quantisation_tells_runs_and_replies_apart(made, monkeypatch):
    plain, four = (
        identity.content_hash(run_config(**more).as_dict(), {})
        for more in ({}, {"quantization": "bnb4"})
    )
    assert plain != four
    monkeypatch.setattr(loading, "find_spec", lambda _: object())
    checkpoint = made("qwen3_vl")[2].checkpoint
    found = [loading.quantized(checkpoint, how).quantization for how in (None, "bnb4", "bnb8")]
    assert found == [None, "bnb4", "bnb8"]
    with pytest.raises(ModelError, match=r"quantised already \(bnb8\)"):
        loading.quantized(loading.quantized(checkpoint, "bnb8"), "bnb4")


@pytest.mark.parametrize(("name", "family"), [("qwen3_vl", "qwen_vl"), ("cof-tiny", "llava")])
def test_quantisation_without_its_library_is_one_line(made, name, family, monkeypatch):
    folder = "cof-tiny" if name == "cof-tiny" else made(name)[0]
    monkeypatch.setattr(loading, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="needs bitsandbytes, which is not installed") as raised:
        CoF.from_pretrained(folder, family=family, device="cpu", quantization="bnb4")
    assert "\n" not in str(raised.value)


def test_the_original_layout_is_not_quantised(golden):
    with pytest.raises(ModelError, match="original layout"):
        CoF.from_pretrained(golden / "checkpoint", device="cpu", quantization="bnb8")


@pytest.mark.parametrize("name", FAMILIES)
def test_quantised_weights_are_highlighted_as_any(made, name):
    """To 8 bits on the CPU: other numbers than in full, and the highlight does its work on them."""
    pytest.importorskip("bitsandbytes")
    folder, _, model = made(name)
    module = plugins.load("models", TINY[name].family)
    eight = module.load(module.Config(str(folder), device="cpu", quantization="bnb8"))
    assert eight.identity()["quantization"] == "bnb8"
    plain, lit_up = rows_of(eight, False), rows_of(eight)
    first = [[one[:1] for one in logits(rows)] for rows in (plain, lit_up, rows_of(model, False))]
    assert worst(first[0], first[1]) > 1e-2
    assert 1e-4 < worst(first[0], first[2]) < 5
    views = eight.look([picture(SIZES[0])])
    encoded = eight.encode(views, TEXTS[:1])
    with eight.highlighted(lit(eight, encoded, views, weight=1.0)):
        [same] = eight.greedy(encoded, 1, keep_logits=True)
    [usual] = eight.greedy(encoded, 1, keep_logits=True)
    assert worst(logits([same]), logits([usual])) <= 5e-2  # rounding of 8 bits, per batch
