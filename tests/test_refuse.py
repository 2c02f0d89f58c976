"""Checkpoints whose numbers would be another model's: refused by name before weights are read."""

import json
import logging
import re
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cof.errors import ModelError
from cof.models.common.checkpoint import find
from cof.models.llava import Config, inputs
from cof.models.llava import model as llava
from cof.models.llava.inputs import read_inputs
from cof.models.llava.pixels import CLIP_MEAN

PROJECTOR = {
    "original": {"model.mm_projector.": "model.mm_projector."},
    "transformers": {
        "multi_modal_projector.linear_1.": "model.mm_projector.0.",
        "multi_modal_projector.linear_2.": "model.mm_projector.2.",
    },
}


@pytest.fixture(scope="module")
def layouts(golden, tmp_path_factory):
    """The recorded checkpoint in both layouts."""
    folder = tmp_path_factory.mktemp("layouts")
    shutil.copytree(golden / "checkpoint", folder / "original")
    model = llava.load(Config(str(folder / "original"), "cpu", "float32"))
    model.network.save_pretrained(folder / "transformers")
    model.tokenizer.save_pretrained(folder / "transformers")
    tower = folder / "original" / "vision_tower"
    shutil.copy(tower / "preprocessor_config.json", folder / "transformers")
    return folder


@pytest.fixture(params=["original", "transformers"])
def layout(request):
    return request.param


@pytest.fixture
def folder(layouts, layout, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(layouts / layout, tmp_path / "checkpoint")


def images(folder):
    """The folder of the image settings."""
    return folder / "vision_tower" if (folder / "vision_tower").is_dir() else folder


def edit(file, **values):
    """Set keys of a JSON file; None removes one."""
    said = json.loads(file.read_text()) | values if file.is_file() else values
    file.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


def read(folder):
    return read_inputs(find(str(folder)), "vicuna_v1")


def refused(folder, message):
    with pytest.raises(ModelError, match=message) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_both_layouts_are_taken_as_they_are(folder):
    inputs = read(folder)
    assert inputs.pixels.mean == CLIP_MEAN
    assert inputs.pixels.side == 336
    assert inputs.chat_template is None


def test_refusing_comes_before_reading_weights(folder, monkeypatch):
    (folder / "adapter_config.json").write_text("{}")
    for name in ("load_original", "load_transformers"):
        monkeypatch.setattr(llava, name, lambda *_: pytest.fail("weights were read"))
    with pytest.raises(ModelError, match="an adapter beside the weights"):
        llava.load(Config(str(folder), "cpu"))


@pytest.mark.parametrize(
    "name",
    [
        "adapter_config.json",
        "adapter_model.bin",
        "adapter_model.safetensors",
        "non_lora_trainables.bin",
    ],
)
def test_an_adapter_is_refused(folder, name):
    (folder / name).write_bytes(b"{}")
    refused(folder, rf"checkpoint/{name}: an adapter .* merge the LoRA")


def test_an_adapter_of_the_tower_is_refused(layouts, tmp_path):
    copy = shutil.copytree(layouts / "original", tmp_path / "checkpoint")
    (copy / "vision_tower" / "adapter_config.json").write_text("{}")
    refused(copy, "vision_tower/adapter_config.json: an adapter")


def projector(folder, layout, change=lambda value: value):
    """The weights' own projector as LLaVA saves it, in bfloat16."""
    names, found = PROJECTOR[layout], {}
    for name, value in load_file(folder / "model.safetensors").items():
        for begin, original in names.items():
            if begin in name:
                found[original + name.split(begin)[1]] = change(value).bfloat16()
    assert len(found) == 4
    torch.save(found, folder / "mm_projector.bin")


def test_a_projector_file_that_repeats_the_weights_is_no_harm(folder, layout):
    projector(folder, layout)
    read(folder)


def test_a_projector_file_that_differs_is_refused(folder, layout):
    projector(folder, layout, lambda value: value * 1.1)
    refused(folder, r"mm_projector.bin: its model.mm_projector.\d.\w+ is not that of the full")


def test_a_projector_of_other_tensors_is_refused(folder):
    torch.save({"model.mm_projector.weight": torch.zeros(2, 2)}, folder / "mm_projector.bin")
    refused(folder, r"mm_projector.bin: its model.mm_projector.weight is not that")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("config.json", "configuration_files"),
        ("config.json", "transformers_weights"),
        ("tokenizer_config.json", "fast_tokenizer_files"),
    ],
)
def test_files_that_transformers_would_pick_instead_are_refused(folder, name, key):
    edit(folder / name, **{key: ["other.4.0.0.json"]})
    refused(folder, rf"{name}: {key} .*other.4.0.0.json.* one file under its standard name")


def test_without_image_statistics_nothing_is_assumed(folder):
    (images(folder) / "preprocessor_config.json").unlink()
    refused(folder, r"no image_mean in preprocessor_config.json, nor in processor_config.json's")


@pytest.mark.parametrize("key", ["image_mean", "image_std"])
def test_one_missing_statistic_is_refused(folder, key):
    edit(images(folder) / "preprocessor_config.json", **{key: None})
    refused(folder, f"no {key} in preprocessor_config.json")


@pytest.mark.parametrize("value", [[0.5, 0.5], 0.5, [0.5, 0.5, "a"], [0.5, float("nan"), 0.5]])
def test_statistics_are_three_numbers(folder, value):
    edit(images(folder) / "preprocessor_config.json", image_mean=value)
    refused(folder, "image_mean is .*; expected one number for each of R, G, B")


def test_a_deviation_of_zero_is_refused(folder):
    edit(images(folder) / "preprocessor_config.json", image_std=[0.5, 0.0, 0.5])
    refused(folder, "image_std is")


def nest(folder, **values):
    """Move the settings where transformers 5 writes them."""
    file = images(folder) / "preprocessor_config.json"
    said = json.loads(file.read_text()) | values
    (images(folder) / "processor_config.json").write_text(json.dumps({"image_processor": said}))
    return file


def test_settings_of_transformers_5_are_read_and_identify_the_checkpoint(folder):
    nest(folder, image_mean=[0.5, 0.4, 0.3]).unlink()
    assert read(folder).pixels.mean == (0.5, 0.4, 0.3)
    before = find(str(folder)).revision
    file = images(folder) / "processor_config.json"
    said = json.loads(file.read_text())
    said["image_processor"]["image_mean"] = [0.5, 0.4, 0.2]
    file.write_text(json.dumps(said))
    assert find(str(folder)).revision != before


def test_two_files_that_agree_are_one(folder):
    nest(folder, size=336, crop_size={"height": 336, "width": 336})
    assert read(folder).pixels.side == 336


@pytest.mark.parametrize("change", [{"image_mean": [0.5, 0.5, 0.5]}, {"resample": 2}])
def test_two_files_that_disagree_are_refused(folder, change):
    nest(folder, **change)
    ((key, value),) = change.items()
    said = re.escape(repr(value))
    refused(folder, rf"{key} is .* in preprocessor_config.json, but {said} in processor_config")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", {"shortest_edge": 224}),
        ("size", 224),
        ("size", {"height": 336, "width": 224}),
        ("size", {"shortest_edge": 336, "longest_edge": 672}),
        ("crop_size", {"height": 224, "width": 224}),
        ("do_resize", False),
        ("do_rescale", False),
        ("do_normalize", False),
        ("rescale_factor", 1.0),
        ("resample", 2),
    ],
)
def test_steps_that_give_other_pixels_are_refused(folder, key, value):
    edit(images(folder) / "preprocessor_config.json", **{key: value})
    refused(folder, rf"preprocessor_config.json: {key} is .*, but LLaVA-1.5's")


@pytest.mark.parametrize(
    "values",
    [
        {"size": 336, "crop_size": 336},
        {"size": {"height": 336, "width": 336}, "do_center_crop": False},
        {"do_convert_rgb": False},
        {"resample": None, "rescale_factor": None, "do_resize": None},
    ],
)
def test_other_ways_to_say_the_same_are_taken(folder, values):
    edit(images(folder) / "preprocessor_config.json", **values)
    assert read(folder).pixels.pad


@pytest.mark.parametrize(
    ("key", "value"), [("do_center_crop", False), ("size", {"height": 336, "width": 336})]
)
def test_without_padding_a_crop_and_no_distortion_matter(folder, key, value):
    edit(folder / "config.json", image_aspect_ratio="square")
    assert not read(folder).pixels.pad
    edit(images(folder) / "preprocessor_config.json", **{key: value})
    refused(folder, rf"{key} is ")


@pytest.mark.parametrize("value", ["anyres", "anyres_max_9", "crop"])
def test_other_ways_to_show_an_image_are_refused(folder, value):
    edit(folder / "config.json", image_aspect_ratio=value)
    refused(folder, f"config.json: image_aspect_ratio '{value}'; only 'pad' and 'square'")


def test_image_wrappers_without_their_tokens_are_refused(folder):
    edit(folder / "config.json", mm_use_im_start_end=True)
    refused(folder, r"sets mm_use_im_start_end, but .* no <im_start> and no <im_end>")


def vision(folder, **values):
    file = images(folder) / "config.json"
    said = json.loads(file.read_text())
    if "vision_config" in said:
        values = {"vision_config": said["vision_config"] | values}
    edit(file, **values)


def test_features_that_are_no_grid_are_refused(layouts, tmp_path):
    new = shutil.copytree(layouts / "transformers", tmp_path / "new")
    edit(new / "config.json", vision_feature_select_strategy="full")
    refused(new, r"vision_feature_select_strategy 'full' gives 577 features .* for 576 patches")
    old = shutil.copytree(layouts / "original", tmp_path / "old")
    edit(old / "config.json", mm_vision_select_feature="cls_patch")
    refused(old, r"mm_vision_select_feature 'cls_patch'; only 'patch'")


def test_a_grid_of_odd_sizes_is_refused(folder):
    vision(folder, image_size=10)
    refused(folder, "image_size 10 and patch_size 14; expected two whole numbers")


def test_settings_and_vision_tower_of_two_sizes_are_refused(folder):
    vision(folder, image_size=224)
    refused(folder, r"size is \{'shortest_edge': 336\}.*image_size is 224")


def test_another_vision_tower_is_refused(layouts, tmp_path):
    new = shutil.copytree(layouts / "transformers", tmp_path / "new")
    edit(new / "config.json", vision_config={"model_type": "pixtral", "hidden_size": 32})
    refused(new, "vision tower 'pixtral'; supported are clip_vision_model, siglip")


def test_a_config_that_transformers_cannot_read_is_one_line(folder):
    vision(folder, image_size="large")
    refused(folder, r"config.json: cannot be read \(Validation error for field 'image_size'")


@pytest.mark.parametrize(
    ("key", "token"), [("bos_token", "<begin>"), ("eos_token", "<end>"), ("bos_token", "null")]
)
def test_a_tokenizer_without_begin_or_end_is_refused(folder, key, token):
    for file in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
        said = json.loads(file.read_text()) if file.is_file() else {}
        said[key] = None if token == "null" else token
        file.write_text(json.dumps(said))
    refused(folder, f"the tokenizer's {key} is .* name it in tokenizer_config.json")


QUANTIZED = [
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", "bitsandbytes"),
    ({"load_in_8bit": True}, "bitsandbytes", "bitsandbytes"),
    ({"quant_method": "awq", "bits": 4}, "awq", "gptqmodel"),
    ({"quant_method": "gptq", "bits": 4}, "gptq", "optimum and gptqmodel"),
]


@pytest.mark.parametrize(("said", "method", "library"), QUANTIZED)
def test_quantised_weights_without_their_library(
    folder, layout, said, method, library, monkeypatch
):
    monkeypatch.setattr("cof.models.llava.refuse.find_spec", lambda name: None)
    edit(folder / "config.json", quantization_config=said)
    assert find(str(folder)).quantization == method
    wanted = f"need {library}, not installed" if layout == "transformers" else "original layout"
    refused(folder, f"config.json: weights quantised with {method} .*{wanted}")


@pytest.mark.parametrize("said", ["int4", {"quant_method": "awq"}])
def test_quantisation_of_the_decoder_alone_counts(layouts, tmp_path, said):
    new = shutil.copytree(layouts / "transformers", tmp_path / "new")
    text = json.loads((new / "config.json").read_text())["text_config"]
    edit(new / "config.json", text_config=text | {"quantization_config": said})
    assert find(str(new)).quantization == (said if isinstance(said, str) else "awq")


def test_quantised_weights_are_loaded_highlighted_and_described(tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig, LlavaForConditionalGeneration

    from cof.models.common.embedded import embedded_model_path
    from cof.refine import highlight

    folder, place = embedded_model_path(), {"": "cpu"}
    how = BitsAndBytesConfig(load_in_8bit=True)
    network = LlavaForConditionalGeneration.from_pretrained(
        folder, quantization_config=how, device_map=place, dtype=torch.float32
    )
    network.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(folder / name, tmp_path)
    model = llava.load(Config(str(tmp_path), "cpu", "float32"))
    assert model.describe()["quantization"] == "bitsandbytes"
    assert type(model.decoder.layers[0].self_attn.q_proj).__name__ == "Linear8bitLt"
    encoded = model.encode(model.look([Image.new("RGB", (30, 20))]), ["Is it red?"])
    plan = highlight.plan(encoded, [torch.arange(100) < 20], highlight.Config(4.5))
    plain = model.greedy(encoded, 1, keep_logits=True)[0].logits[0]
    with model.highlighted(plan):
        lit = model.greedy(encoded, 1, keep_logits=True)[0].logits[0]
    assert torch.isfinite(lit).all()
    assert not torch.allclose(lit, plain, atol=1e-3)


def test_unquantised_weights_are_described_so(golden):
    assert find(str(golden / "checkpoint")).quantization is None


def test_a_library_that_transformers_misses_is_one_line(layouts, tmp_path, monkeypatch):
    """Of a method that is not in our list, transformers itself says what it needs."""
    new = shutil.copytree(layouts / "transformers", tmp_path / "new")
    edit(new / "config.json", quantization_config={"quant_method": "hqq", "quant_config": {}})
    with pytest.raises(ModelError, match=r"cannot be loaded \(.*[Hh][Qq][Qq]"):
        llava.load(Config(str(new), "cpu"))


def byte_level(folder):
    """cof-tiny's tokenizer in a folder, under the name of sentencepiece's."""
    from cof.models.common.embedded import embedded_model_path

    for name in ("tokenizer.model", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded_model_path() / name, folder)
    edit(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    edit(folder / "config.json", rope_scaling=None)  # an old key, of which transformers 5.24 warns


def test_a_byte_level_tokenizer_under_llamas_name_is_refused(folder):
    byte_level(folder)
    refused(folder, r"tokenizer.json: 'red square' has the ids \[.*\], but .* LlamaTokenizer .* \[")
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    inputs = read(folder)
    assert inputs.tokenizer.decode(inputs.encode("red square")) == "red square"


def test_two_tokenizers_in_one_folder_must_agree(layouts, tmp_path):
    copy = shutil.copytree(layouts / "original", tmp_path / "checkpoint")
    shutil.copy(layouts / "transformers" / "tokenizer.json", copy)
    read(copy)
    said = json.loads((copy / "tokenizer.json").read_text())
    vocabulary = said["model"]["vocab"]
    red, other = "▁red", "▁square"
    vocabulary[red], vocabulary[other] = vocabulary[other], vocabulary[red]
    (copy / "tokenizer.json").write_text(json.dumps(said))
    refused(copy, r"tokenizer.(json|model): 'red square' has the ids")


LLAVA_HF = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}"
    "{% endfor %}{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ c['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
VICUNA = (
    "A chat between a curious user and an assistant. {% for m in messages %}"
    "{{ 'USER: ' + m['content'] + ' ' }}{% endfor %}ASSISTANT:"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)
MISTRAL = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
BROKEN = "{{ raise_exception('no') }}"


@pytest.mark.parametrize("template", [LLAVA_HF, VICUNA])
@pytest.mark.parametrize("place", ["chat_template.jinja", "chat_template.json", "settings", "list"])
def test_a_template_like_vicunas_is_no_news(folder, template, place, caplog):
    put(folder, place, template)
    assert read(folder).chat_template == "vicuna"
    assert not caplog.records


@pytest.mark.parametrize("template", [CHATML, MISTRAL, BROKEN])
@pytest.mark.parametrize("place", ["chat_template.jinja", "chat_template.json", "settings", "list"])
def test_another_chats_template_is_one_warning(folder, template, place, caplog):
    put(folder, place, template)
    with caplog.at_level(logging.WARNING):
        assert read(folder).chat_template == "other"
    (line,) = [record.getMessage() for record in caplog.records]
    assert "chat template is not Vicuna's" in line
    assert "conv: vicuna_v1" in line


def put(folder, place, template):
    if place == "chat_template.jinja":
        (folder / place).write_text(template)
    elif place == "chat_template.json":
        (folder / place).write_text(json.dumps({"chat_template": template}))
    else:
        named = [{"name": "rag", "template": "x"}, {"name": "default", "template": template}]
        value = template if place == "settings" else named
        edit(folder / "tokenizer_config.json", chat_template=value)


def test_what_was_found_is_described(folder):
    put(folder, "chat_template.jinja", MISTRAL)
    said = llava.load(Config(str(folder), "cpu", "float32")).describe()
    assert said["chat_template"] == "other"
    assert said["quantization"] is None
    assert said["stops"] == [2]
    assert said["pixels"]["mean"] == list(CLIP_MEAN)
    assert said["pixels"]["pad"] is True
    assert json.loads(json.dumps(said)) == said


def test_special_tokens_belong_to_the_revision(folder):
    before = find(str(folder)).revision
    edit(folder / "added_tokens.json", **{"<x>": 1280})
    assert find(str(folder)).revision != before


def test_the_embedded_model_keeps_its_revision():
    assert find("cof-tiny").revision == "sha256:85aebdb5369cff8b"
    assert inputs.read_inputs(find("cof-tiny"), "vicuna_v1").chat_template == "vicuna"
