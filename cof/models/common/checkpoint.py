"""Find a checkpoint and tell what it is: a folder, the embedded model, or a name on the hub."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cof.errors import ModelError

EMBEDDED = "cof-tiny"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
_BESIDE = ("mm_projector.bin", "non_lora_trainables.bin")
"""Weights beside the weights: never loaded, but looked at (see `cof.models.llava.refuse`)."""
_IDENTITY = (
    *("config.json", "preprocessor_config.json"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json"),
)
PROCESSOR = "processor_config.json"
FAMILY_OF = {
    "llava": "llava",
    "qwen2_vl": "qwen_vl",
    "qwen2_5_vl": "qwen_vl",
    "qwen3_vl": "qwen_vl",
    "internvl": "internvl",
    "llava_next": "llava_next",
    "llava_onevision": "llava_onevision",
    "idefics3": "idefics3",
    "smolvlm": "idefics3",
    "gemma3": "gemma3",
    "instructblip": "instructblip",
    "mllama": "mllama",
}
"""`model_type` of a checkpoint -> the family (`model.name`) that loads it."""

_BLOCK, _WHOLE = 1 << 16, 1 << 26

Layout = Literal["transformers", "original"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        folder: where its files are.
        layout: `transformers` (llava-hf) or `original` (liuhaotian).
        config: its config.json.
        revision: a digest of the files (see `digest`).
        tower: the CLIP tower's folder in the original layout, else None.
    """

    folder: Path
    layout: Layout
    config: dict[str, Any]
    revision: str
    tower: Path | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder that files are read from; the image settings are in the last one."""
        return (self.folder,) if self.tower is None else (self.folder, self.tower)

    @property
    def quantization(self) -> str | None:
        """How the weights are quantised (`bitsandbytes`, `awq`, `gptq`, ...), None where not."""
        for config in (self.config, self.config.get("text_config")):
            said = config.get("quantization_config") if isinstance(config, dict) else None
            if said:  # old bitsandbytes checkpoints name no method
                named = said.get("quant_method") if isinstance(said, dict) else said
                return str(named or "bitsandbytes")
        return None


def find(path: str) -> Checkpoint:
    """Resolve what a user calls a model.

    Args:
        path: `cof-tiny`, a folder, or a hub name such as `llava-hf/llava-1.5-7b-hf`.

    Raises:
        ModelError: nothing is there, it cannot be downloaded, or it is no LLaVA checkpoint.
    """
    folder = locate(path, (*_SMALL_FILES, *_WEIGHTS, *_BESIDE))
    config = read_json(folder / "config.json")
    layout = _layout(folder, config)
    tower = _tower(folder, config) if layout == "original" else None
    folders = [folder] if tower is None else [folder, tower]
    return Checkpoint(folder, layout, config, digest(*folders), tower)


def locate(path: str, patterns: tuple[str, ...]) -> Path:
    """The folder of a checkpoint, downloaded from the hub where it is not a local one."""
    if path == EMBEDDED:
        from cof.models.common.embedded import embedded_model_path

        return embedded_model_path()
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise ModelError(
            f"no model at {path!r}: give {EMBEDDED!r}, a folder that exists, or a hub name "
            "like 'llava-hf/llava-1.5-7b-hf'"
        )
    return _download(path, patterns)


def _download(name: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # network, unknown name, login: hub errors are OSError
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"cannot get {name!r} from the hub: {reason}") from error


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: missing or not a JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: not a readable JSON file ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: expected a JSON object, found {type(content).__name__}")
    return content


def _layout(folder: Path, config: dict[str, Any]) -> Layout:
    kind = config.get("model_type")
    if kind == "llava" and "vision_config" in config:
        return "transformers"
    if kind in ("llava", "llava_llama") and "mm_vision_tower" in config:
        return "original"
    raise ModelError(
        f"{folder}: model_type {kind!r} is not a LLaVA-1.5 checkpoint; {hint(kind, 'llava')}"
        "config.json needs model_type 'llava' with vision_config (transformers layout) or "
        "mm_vision_tower (original layout)"
    )


def hint(kind: Any, own: str = "") -> str:
    """Which family loads a `model_type`, with how to name it; "" for `own` and for unknown ones."""
    family = FAMILY_OF.get(str(kind), own)
    return "" if family == own else f"use model.name={family} (in Python family={family!r}); "


def _tower(folder: Path, config: dict[str, Any]) -> Path:
    """The CLIP tower of an original checkpoint: a folder in it, or a model of its own."""
    name = str(config["mm_vision_tower"])
    inside = _inside(folder, name) or folder / name
    return inside if inside.is_dir() else locate(name, (*_SMALL_FILES, *_WEIGHTS))


def _inside(folder: Path, name: str) -> Path | None:
    """The tower in a checkpoint whose config names its whole path, which may be that of before.

    LLaVA's own code needs such a path (`cof_lab.original_layout`); it says where, not what.
    """
    inside = folder / Path(name).name
    return inside if Path(name).is_absolute() and inside.is_dir() else None


def digest(*folders: Path) -> str:
    """Identify what was loaded: a digest of config, tokenizer, preprocessor and weight files.

    Files of up to `_WHOLE` bytes are read in full; of larger ones the size and blocks at even
    distances, the first and the last included, so that it takes a moment for 13B parameters too.
    Where a checkpoint lies does not count, though its config may say it (see `_inside`).
    """
    seen = hashlib.sha256()
    for folder in folders:
        found = {file for pattern in (*_WEIGHTS, *_IDENTITY) for file in folder.glob(pattern)}
        if image_processor(folder):
            found.add(folder / PROCESSOR)
        for file in sorted(found):
            if placeless := _placeless(file):
                seen.update(placeless)
                continue
            size = file.stat().st_size
            seen.update(f"{file.name}:{size}:".encode())
            with file.open("rb") as stream:
                for start in _starts(size):
                    stream.seek(start)
                    seen.update(stream.read(_BLOCK))
    return f"sha256:{seen.hexdigest()[:16]}"


def _placeless(file: Path) -> bytes:
    """A config.json with a whole path of a tower in its folder, without the path; else nothing."""
    config = read_json(file) if file.name == "config.json" else {}
    name = str(config.get("mm_vision_tower", ""))
    inside = _inside(file.parent, name)
    return json.dumps({**config, "mm_vision_tower": inside.name}).encode() if inside else b""


def image_processor(folder: Path) -> dict[str, Any]:
    """The image settings that transformers 5 keeps in processor_config.json; empty without any."""
    file = folder / PROCESSOR
    said = read_json(file).get("image_processor") if file.is_file() else None
    return said if isinstance(said, dict) else {}


def _starts(size: int) -> list[int]:
    """Where the blocks that identify a file begin."""
    if size <= _WHOLE:
        return list(range(0, size, _BLOCK))
    count = _WHOLE // _BLOCK
    return [index * (size - _BLOCK) // (count - 1) for index in range(count)]
