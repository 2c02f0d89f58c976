"""Read the tensors of a checkpoint folder, one shard open at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from cof.errors import ModelError
from cof.models.common.checkpoint import read_json

Wanted = Callable[[str], bool]


def _every(name: str) -> bool:
    return True


def tensors(folder: Path, wanted: Wanted = _every) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every wanted tensor; safetensors where there are both formats.

    Raises:
        ModelError: there are no weights, a shard that the index names is missing, or one is
            damaged.
    """
    safe = sorted(folder.glob("*.safetensors"))
    shards = safe or sorted(folder.glob("pytorch_model*.bin"))
    if not shards:
        raise ModelError(f"{folder}: no *.safetensors and no pytorch_model*.bin with weights")
    for index in folder.glob("*.index.json"):
        _check_shards(index, {shard.name for shard in shards})
    for shard in shards:
        yield from _read_safe(shard, wanted) if safe else read_bin(shard, wanted)


def _check_shards(index: Path, present: set[str]) -> None:
    named = set(read_json(index).get("weight_map", {}).values())
    suffix = {Path(name).suffix for name in present}
    absent = sorted(name for name in named - present if Path(name).suffix in suffix)
    if absent:
        raise ModelError(f"{index}: shards are missing: {', '.join(absent)}")


def _read_safe(shard: Path, wanted: Wanted) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, "pt") as file:
            for name in filter(wanted, file.keys()):
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise ModelError(f"{shard}: damaged file ({error})") from error


def read_bin(shard: Path, wanted: Wanted = _every) -> Iterator[tuple[str, Tensor]]:
    """The wanted tensors of one file of `torch.save`.

    Raises:
        ModelError: not a file of tensors; a download that git-lfs left as a pointer, for example.
    """
    try:
        values = _load(shard, mmap=True)
    except RuntimeError:  # files older than torch 1.6 cannot be mapped
        values = _load(shard, mmap=False)
    for name in filter(wanted, list(values)):
        yield name, values.pop(name)


def _load(shard: Path, mmap: bool) -> dict[str, Tensor]:
    try:
        return torch.load(shard, map_location="cpu", weights_only=True, mmap=mmap)  # type: ignore[no-any-return]
    except (RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        if mmap and isinstance(error, RuntimeError):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{shard}: damaged, or not fully downloaded ({reason})") from error
