"""Loading LLaVA: every layout gives the same model, and every broken folder one clear error."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cof.errors import ModelError
from cof.models.base import Limits
from cof.models.llava import Config
from cof.models.llava.model import load, pick_device, pick_dtype

QUESTION = "What color is the red square?\nAnswer the question using a single word or phrase."


def logits(model, question=QUESTION):
    image = Image.linear_gradient("L").convert("RGB").resize((90, 60))
    encoded = model.encode(model.look([image]), [question])
    out = model.generate_raw(encoded, Limits(4), output_logits=True, return_dict_in_generate=True)
    return torch.cat(out.logits)


def open_model(folder, **options):
    return load(Config(str(folder), **({"device": "cpu", "dtype": "float32"} | options)))


@pytest.fixture
def copy(golden, tmp_path):
    """A copy of the recorded checkpoint that a test may change."""
    return shutil.copytree(golden / "checkpoint", tmp_path / "checkpoint")


@pytest.fixture(scope="module")
def expected(golden):
    model = open_model(golden / "checkpoint")
    return logits(model), model.network.state_dict()


def assert_same(model, expected):
    """Every weight to the bit, logits to rounding: where tensors lie in memory picks kernels."""
    wanted, weights = expected
    found = model.network.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert torch.allclose(logits(model), wanted, atol=1e-5, rtol=0)


def take(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    return tensors


def shards(tensors, count=3):
    names = sorted(tensors)
    return [{name: tensors[name] for name in names[i::count]} for i in range(count)]


def write_index(folder, parts, pattern, index):
    names = {pattern.format(i): part for i, part in enumerate(parts)}
    weight_map = {key: name for name, part in names.items() for key in part}
    (folder / index).write_text(json.dumps({"weight_map": weight_map}))
    return names


def as_single_bin(folder):
    torch.save(take(folder), folder / "pytorch_model.bin")


def as_legacy_bin(folder):
    torch.save(take(folder), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def as_sharded_bin(folder):
    parts = shards(take(folder))
    files = write_index(folder, parts, "pytorch_model-{}-of-3.bin", "pytorch_model.bin.index.json")
    for name, part in files.items():
        torch.save(part, folder / name)


def as_sharded_safetensors(folder):
    parts = shards(take(folder))
    files = write_index(folder, parts, "model-{}-of-3.safetensors", "model.safetensors.index.json")
    for name, part in files.items():
        save_file(part, folder / name)


def as_separate_tower(folder):
    """Vision weights only in the CLIP tower, which also has a text half, as OpenAI's does."""
    tensors = take(folder)
    prefix = "model.vision_tower.vision_tower."
    tower = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    tower |= {"text_model.embeddings.weight": torch.zeros(2, 2), "logit_scale": torch.zeros(())}
    torch.save(tower, folder / "vision_tower" / "pytorch_model.bin")
    config = json.loads((folder / "vision_tower" / "config.json").read_text())
    whole = {"model_type": "clip", "vision_config": config}
    (folder / "vision_tower" / "config.json").write_text(json.dumps(whole))
    rest = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
    save_file(rest, folder / "model.safetensors")


def as_transformers(folder):
    model = open_model(folder)
    model.network.save_pretrained(folder.parent / "hf")
    model.tokenizer.save_pretrained(folder.parent / "hf")
    shutil.copy(folder / "vision_tower" / "preprocessor_config.json", folder.parent / "hf")
    shutil.rmtree(folder)
    (folder.parent / "hf").rename(folder)


@pytest.mark.parametrize(
    "change",
    [
        as_single_bin,
        as_legacy_bin,
        as_sharded_bin,
        as_sharded_safetensors,
        as_separate_tower,
        as_transformers,
    ],
)
def test_every_layout_is_the_same_model(copy, expected, change):
    change(copy)
    assert_same(open_model(copy), expected)


def test_device_map_auto_is_the_same_model(copy, expected):
    assert_same(open_model(copy, device_map="auto"), expected)


def test_grouped_query_attention_and_rope_base_come_from_the_config(copy):
    config = json.loads((copy / "config.json").read_text())
    config |= {"num_key_value_heads": 2, "rope_theta": 5000.0}
    (copy / "config.json").write_text(json.dumps(config))
    tensors = take(copy)
    for name in tensors:
        if "vision" not in name and ("k_proj" in name or "v_proj" in name):
            tensors[name] = tensors[name][:32].clone()
    save_file(tensors, copy / "model.safetensors")
    model = open_model(copy)
    attention = model.decoder.layers[0].self_attn
    assert attention.k_proj.weight.shape == (32, 64)
    assert attention.num_key_value_groups == 2
    assert torch.equal(attention.k_proj.weight, tensors["model.layers.0.self_attn.k_proj.weight"])
    expected = 1 / 5000 ** (torch.arange(0, 16, 2) / 16)
    assert torch.allclose(model.decoder.rotary_emb.inv_freq, expected)
    assert torch.isfinite(logits(model)).all()


def test_sampling_settings_of_a_checkpoint_do_not_leak(copy, expected):
    settings = {"do_sample": True, "temperature": 0.9, "top_p": 0.6, "repetition_penalty": 2.0}
    settings |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (copy / "generation_config.json").write_text(json.dumps(settings))
    assert_same(open_model(copy), expected)


def test_dtype_is_honoured(golden):
    model = open_model(golden / "checkpoint", dtype="bfloat16")
    assert {p.dtype for p in model.network.parameters()} == {torch.bfloat16}
    assert model.describe()["dtype"] == "bfloat16"


def test_digest_follows_the_weights(copy, golden):
    before = open_model(copy).describe()["revision"]
    assert before == open_model(golden / "checkpoint").describe()["revision"]
    tensors = take(copy)
    tensors["lm_head.weight"] += 1
    save_file(tensors, copy / "model.safetensors")
    changed = open_model(copy).describe()["revision"]
    settings = json.loads((copy / "vision_tower" / "preprocessor_config.json").read_text())
    (copy / "vision_tower" / "preprocessor_config.json").write_text(json.dumps(settings))
    assert len({before, changed, open_model(copy).describe()["revision"]}) == 3


def test_only_padding_checkpoints_pad(copy):
    assert open_model(copy).frame.name == "padded_square"
    drop_key("image_aspect_ratio")(copy)
    assert open_model(copy).frame.name == "centre_crop"


def drop_tensor(folder):
    tensors = take(folder)
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")


def add_tensor(folder):
    save_file(take(folder) | {"model.image_newline": torch.zeros(2)}, folder / "model.safetensors")


def reshape_tensor(folder):
    tensors = take(folder) | {"model.norm.weight": torch.zeros(3)}
    save_file(tensors, folder / "model.safetensors")


def drop_shard(folder):
    as_sharded_bin(folder)
    (folder / "pytorch_model-1-of-3.bin").unlink()


def cut_file(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def cut_bin(folder):
    take(folder)
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 cut off")


def pointer_bin(folder):
    take(folder)
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "pytorch_model.bin").write_text(text)


def empty_bin(folder):
    take(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")


def drop_tokenizer(folder):
    (folder / "tokenizer.model").unlink()


def pointer_tokenizer(folder):
    (folder / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\n")


def drop_key(key):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        del config[key]
        (folder / "config.json").write_text(json.dumps(config))

    return change


def set_config(**values):
    def change(folder):
        config = json.loads((folder / "config.json").read_text()) | values
        (folder / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_tensor, r"1 missing tensors: model.language_model.norm.weight"),
        (add_tensor, r"1 unknown tensors: model.image_newline"),
        (reshape_tensor, r"model.norm.weight: shape \(3,\), the config says \(64,\)"),
        (drop_shard, r"shards are missing: pytorch_model-1-of-3.bin"),
        (cut_file, r"model.safetensors: damaged"),
        (cut_bin, r"pytorch_model.bin: damaged"),
        (pointer_bin, r"pytorch_model.bin: damaged, or not fully downloaded"),
        (empty_bin, r"pytorch_model.bin: damaged"),
        (drop_tokenizer, r"no tokenizer.model and no tokenizer.json"),
        (pointer_tokenizer, r"the tokenizer cannot be loaded"),
        (drop_key("mm_vision_select_layer"), r"no mm_vision_select_layer"),
        (take, r"no \*.safetensors and no pytorch_model"),
        (set_config(model_type="opt"), r"model_type 'opt' is not a LLaVA"),
        (set_config(mm_projector_type="linear"), r"mm_projector_type 'linear'"),
        (set_config(mm_vision_tower="./nowhere"), r"no model at './nowhere'"),
    ],
)
def test_a_broken_checkpoint_is_named(copy, change, message):
    change(copy)
    with pytest.raises(ModelError, match=message):
        open_model(copy)


def test_a_broken_transformers_folder_is_named(copy):
    as_transformers(copy)
    tensors = take(copy)
    removed = next(name for name in tensors if name.endswith("norm.weight"))
    kept = {name: tensor for name, tensor in tensors.items() if name != removed}
    save_file(kept, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"missing_keys.*norm.weight"):
        open_model(copy)
    cut_file(copy)
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_model(copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"device": "abacus"}, "device 'abacus'"),
        ({"device": "meta"}, "device 'meta'"),
        ({"conv": "mpt"}, "conv 'mpt'.*llava_v1, vicuna_v1"),
    ],
)
def test_wrong_options_are_named(golden, options, message):
    with pytest.raises(ModelError, match=message):
        open_model(golden / "checkpoint", **options)


def test_a_path_that_is_no_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="no model at"):
        open_model(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"config.json: not a readable JSON"):
        open_model(tmp_path)


def test_device_and_dtype_defaults():
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    assert pick_device("auto") == device
    assert pick_dtype("auto", "cpu") is torch.float32
    if device == "cpu":
        with pytest.raises(ModelError, match="0 CUDA devices"):
            pick_device("cuda:0")
        with pytest.raises(ModelError, match="0 CUDA devices"):
            pick_device("cuda")
