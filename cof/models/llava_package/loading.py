"""Load a checkpoint with LLaVA's own builder, and make sure that it is all there.

Traps of the builder (llava-torch 1.2.2.post1). It asks for float16 whatever is wanted, but `dtype`,
transformers 5's name for the argument, wins; its CLIP tower comes as the file has it, or on another
device. It chooses the class by the folder's name, so it is told "llava". It takes the tower's path
from the current folder. The tower's weights are those of `mm_vision_tower`; those within the
checkpoint, which other loaders prefer, are dropped without a word. So are, as always in
`from_pretrained`, weights that are missing: they are made up at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.hooks import remove_hook_from_submodules
from safetensors import SafetensorError
from torch import Tensor
from transformers.utils import logging

from cof.errors import ModelError
from cof.models.common.checkpoint import Checkpoint
from cof.models.common.shards import tensors

_TOWER = "model.vision_tower.vision_tower."
_ROUNDING = 2.0**-7
"""Relative; of bfloat16, the coarsest that checkpoints are saved in."""


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, and no reports of tensors: what matters of them is checked here."""
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def build(
    load: Callable[..., Any], checkpoint: Checkpoint, dtype: torch.dtype, device: str, spread: bool
) -> Any:
    """The package's network, in eval mode, all of it in one dtype.

    Args:
        load: the package's `load_pretrained_model`.
        checkpoint: of the original layout.
        dtype: of all weights.
        device: where everything goes.
        spread: let the builder spread it over all GPUs instead.

    Raises:
        ModelError: the builder fails, weights are missing, or the vision tower is not that of the
            checkpoint's weights.
    """
    network = _built(load, checkpoint, dtype, "cuda" if spread else device)
    if network.dtype != dtype:
        raise ModelError(
            f"{checkpoint.folder}: LLaVA's own code loads {network.dtype} where dtype is {dtype}; "
            "take the version of transformers in requirements.txt, or model.name=llava"
        )
    tower = network.get_vision_tower()
    if not spread:
        remove_hook_from_submodules(tower)
        tower.to(device)
    tower.to(dtype)
    _check_names(checkpoint, network)
    _check_tower(checkpoint, tower.vision_tower.state_dict())
    return network.eval()


def _built(
    load: Callable[..., Any], checkpoint: Checkpoint, dtype: torch.dtype, device: str
) -> Any:
    """What the builder returns; `cuda` without a number is all GPUs to it."""
    folder, options = checkpoint.folder, {"dtype": dtype, "mm_vision_tower": str(checkpoint.tower)}
    try:
        with quiet():
            _, network, *_ = load(str(folder), None, "llava", device=device, **options)
    except (OSError, RuntimeError, ValueError, ImportError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: LLaVA's own code cannot load it ({reason})") from error
    return network


def _check_names(checkpoint: Checkpoint, network: Any) -> None:
    """Every parameter has come from a file."""
    names = dict(network.named_parameters())  # a tied head once, as the embedding
    wanted = {name for name in names if not name.startswith(_TOWER)}
    absent = wanted - set(_names(checkpoint.folder))
    tower = {_bare(name) for name in names if name.startswith(_TOWER)}
    absent |= tower - {_bare(name) for name in _names(checkpoint.folders[-1])}
    if absent:
        shown = ", ".join(sorted(absent)[:8])
        raise ModelError(f"{checkpoint.folder}: {len(absent)} missing tensors: {shown}")


def _names(folder: Path) -> list[str]:
    """Names of a folder's tensors; no tensor is read."""
    found: list[str] = []

    def note(name: str) -> bool:
        found.append(name)
        return False

    list(tensors(folder, note))
    return found


def _check_tower(checkpoint: Checkpoint, loaded: dict[str, Tensor]) -> None:
    """Vision weights within the checkpoint are no harm where the tower's are the same."""
    own = {_bare(name): value for name, value in loaded.items()}
    for name, value in tensors(checkpoint.folder, lambda name: name.startswith(_TOWER)):
        known = own.get(_bare(name))
        if known is not None and not _equal(known, value):
            raise ModelError(
                f"{checkpoint.folder}: its {name} is not that of {checkpoint.tower}, which LLaVA's "
                "own code would take; use model.name=llava, which takes the checkpoint's, or name "
                "another tower in config.json (mm_vision_tower)"
            )


def _bare(name: str) -> str:
    """A tower's tensor without what the two libraries put before its name."""
    return name.removeprefix(_TOWER).removeprefix("vision_model.")


def _equal(left: Tensor, right: Tensor) -> bool:
    same = left.shape == right.shape
    return same and torch.allclose(left.float().cpu(), right.float(), rtol=_ROUNDING, atol=1e-6)
