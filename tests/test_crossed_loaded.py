"""InstructBLIP and Llama 3.2 Vision: networks that are given, spread over devices, quantised."""

import pytest
import tiny_instructblip
import tiny_mllama
import torch
from crossed import PICTURES, TEXTS, logits, masks_of, worst
from transformers import AutoModelForImageTextToText, InstructBlipForConditionalGeneration

from cof import CoF
from cof.config import plugins
from cof.errors import ModelError
from cof.models.common import loading
from cof.refine import highlight

TINY = {
    "instructblip": (tiny_instructblip, InstructBlipForConditionalGeneration),
    "mllama": (tiny_mllama, AutoModelForImageTextToText),
}


@pytest.fixture(scope="module", params=TINY)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return TINY[family][0].build(tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def model(family, folder):
    return load(family, folder)


def load(family, folder, **more):
    module = plugins.load("models", family)
    return module.load(module.Config(str(folder), **{"device": "cpu", **more}))


def network_of(family, folder, **where):
    return TINY[family][1].from_pretrained(folder, dtype=torch.float32, **where)


def taken(network, family):
    return CoF.from_model(network, family=family, locate="whole", max_new_tokens=3)


def rows_of(model, weight=20.0):
    """Logits of the questions about the pictures, highlighted unless the weight is 1."""
    views = model.look(PICTURES)
    encoded = model.encode(views, TEXTS)
    chosen = highlight.plan(encoded, masks_of(views), highlight.Config(weight))
    with model.highlighted(chosen if weight != 1 else None):
        return logits(model.greedy(encoded, 3, keep_logits=True))


def test_a_loaded_network_is_taken(family, folder, model):
    cof = taken(network_of(family, folder), family)
    assert worst(rows_of(cof.model), rows_of(model)) == 0
    ours, theirs = cof.model.identity(), model.identity()
    assert ours.pop("revision").startswith("network:")
    assert ours.items() < theirs.items()


def test_what_is_no_network_of_the_family_is_refused(family, folder, tmp_path):
    network = network_of(family, folder)
    for wrong in ("a name", network.language_model if family != "mllama" else network.model):
        with pytest.raises(ModelError, match="has to be transformers' whole"):
            CoF.from_model(wrong, family=family)
    with pytest.raises(ModelError, match="loaded already"):
        CoF.from_model(network, family=family, quantization="bnb4")
    network.config.vision_config.patch_size += 1
    with pytest.raises(ModelError, match="own folder"):
        CoF.from_model(network, family=family)


def parts_of(network, chosen):
    """A device map: parts whose name begins with one of the chosen on disk, the rest on the CPU."""
    outer = [*network.named_parameters(recurse=False)]
    names = [name for name, _ in network.named_children()]
    if "model" in names:
        names = [n for n in names if n != "model"]
        names += [f"model.{name}" for name, _ in network.model.named_children()]
    split = [name for name in names if any(one.startswith(f"{name}.") for one in chosen)]
    for name in split:
        names += [f"{name}.{one}" for one, _ in network.get_submodule(name).named_children()]
    names = [name for name in names if name not in split]
    found = {name: "disk" if name in chosen else "cpu" for name in names}
    assert set(chosen) <= set(found)
    return found | {name: "cpu" for name, _ in outer}


PARTS = {
    "instructblip": [
        ("vision_model",),
        ("qformer", "language_projection"),
        ("vision_model", "qformer", "language_projection", "language_model"),
    ],
    "mllama": [("model.vision_model",), ("model.language_model",)],
}


@pytest.mark.filterwarnings("ignore:The following device_map keys")
def test_parts_on_disk_change_nothing(family, folder, model, tmp_path):
    """Embeddings, vision tower, Q-Former: only the hooks know where they compute."""
    for number, chosen in enumerate(PARTS[family]):
        where = parts_of(network_of(family, folder), chosen)
        network = network_of(
            family, folder, device_map=where, offload_folder=tmp_path / str(number)
        )
        assert next(network.get_submodule(chosen[0]).parameters()).is_meta
        placed = taken(network, family).model
        assert placed.describe()["device"] == "cpu"
        for weight in (1.0, 20.0):
            assert worst(rows_of(placed, weight), rows_of(model, weight)) <= 1e-5


def test_everything_on_disk_changes_nothing(family, folder, model, tmp_path):
    where = {"": "disk"} if family == "instructblip" else {"model": "disk", "lm_head": "cpu"}
    network = network_of(family, folder, device_map=where, offload_folder=tmp_path)
    placed = taken(network, family).model
    assert worst(rows_of(placed), rows_of(model)) <= 1e-5


def test_a_device_map_is_a_key(family, folder, model):
    assert worst(rows_of(load(family, folder, device_map="auto")), rows_of(model)) <= 1e-5


def test_quantisation_without_its_library_is_one_line(family, folder, monkeypatch):
    monkeypatch.setattr(loading, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="needs bitsandbytes, which is not installed") as raised:
        load(family, folder, quantization="bnb4")
    assert "\n" not in str(raised.value)


def test_quantised_weights_are_highlighted_as_any(family, folder, model):
    pytest.importorskip("bitsandbytes")
    eight = load(family, folder, quantization="bnb8")
    assert eight.identity()["quantization"] == "bnb8"
    first = [[one[:1] for one in rows_of(eight, weight)] for weight in (1.0, 20.0)]
    assert worst(*first) > 1e-2
    assert 1e-4 < worst(first[0], [one[:1] for one in rows_of(model, 1.0)]) < 5
