"""`cof tiny train`: presets, the two stages in order, and the folder they leave behind."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from cof.files import write_whole
from cof_lab.curriculum import LanguageConfig
from cof_lab.language import LanguageStage
from cof_lab.loop import Schedule, fit
from cof_lab.mixed_precision import multiply_in_bfloat16
from cof_lab.model import ModelConfig, build, llava_config
from cof_lab.optim import OptimConfig
from cof_lab.position_code import coordinate_table
from cof_lab.reply_tokens import token_kinds
from cof_lab.tokenizer import BOS, EOS, IMAGE, PAD, load_tokenizer, save_tokenizer, train_tokenizer
from cof_lab.vision import VisionStage

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """One training run; the same configuration and seed give the same data, step by step."""

    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    vision: Schedule = field(default_factory=lambda: Schedule(3000, 32))
    language: Schedule = field(default_factory=lambda: Schedule(2400, 8, decay=0.5))
    teaching: LanguageConfig = field(default_factory=LanguageConfig)
    precision: Literal["float32", "bfloat16"] = (
        "float32"  # of matrix products, see cof_lab.mixed_precision
    )


PRESETS: dict[str, TrainConfig] = {
    "cpu": TrainConfig(),
    "study": TrainConfig(  # one object a question; for variants and seeds at an equal budget
        vision=Schedule(1800, 32),
        language=Schedule(800, 8, decay=0.5),
        teaching=LanguageConfig(
            kinds=("existence", "color", "OCR", "what_color", "what_shape", "what_digit")
        ),
    ),
    "smoke": TrainConfig(vision=Schedule(120, 16, dev=16), language=Schedule(10, 8, dev=4)),
}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {  # what differs from the preset, part by part
    "default": {},
    "gap": {"teaching": {"reader": "easy"}},
    "control": {"teaching": {"attention": 0.0}},
    "coarse": {"model": {"patch": 20}},
}


def preset_config(
    name: str,
    variant: str = "default",
    seed: int = 0,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> TrainConfig:
    """A preset with a declared variant, a key of `VARIANTS`.

    precision: of matrix products; bfloat16 pays on CPUs that multiply it natively
        (`cof_lab.mixed_precision`).
    """
    config = PRESETS[name]
    parts = {name: replace(getattr(config, name), **to) for name, to in VARIANTS[variant].items()}
    return replace(config, seed=seed, precision=precision, **parts)


def fresh(
    config: TrainConfig, tokenizer: PreTrainedTokenizerFast | None = None
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """An untrained model and its tokenizer, which is trained too unless it is given."""
    tokenizer = tokenizer or train_tokenizer(config.model.vocabulary)
    sizes = replace(config.model, vocabulary=len(tokenizer))
    model = build(llava_config(sizes, IMAGE, BOS, EOS, PAD), config.seed)
    _begin_coordinates(model, token_kinds(tokenizer)[1].ids, config.seed)
    return model, tokenizer


@torch.no_grad()
def _begin_coordinates(model: LlavaForConditionalGeneration, ids: Tensor, seed: int) -> None:
    """Tokens 0.00 .. 1.00 start as codes of their numbers, read and written."""
    for salt, layer in enumerate((model.model.get_input_embeddings(), model.lm_head)):
        spread = float(layer.weight.std())
        layer.weight[ids] = coordinate_table(layer.weight.shape[1], spread, 2 * seed + salt)


def train_model(
    config: TrainConfig, folder: Path, device: str = "cpu", stop_at: int | None = None
) -> None:
    """Train both stages in `folder`, or go on where it stands.

    Args:
        config: what to train; it is written to the folder and must match it later.
        folder: checkpoints, logs and config.json; made if need be.
        device: a torch device.
        stop_at: leave the language stage after so many steps (one sitting of several).

    Raises:
        ValueError: the folder holds a run with another configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _pin(config, folder / "config.json")
    model, tokenizer = fresh(config)
    _pin_tokenizer(tokenizer, folder)
    model.to(device)  # type: ignore[arg-type]  # the library's wrapper loses `self`
    if config.precision == "bfloat16":
        multiply_in_bfloat16(model.model.vision_tower)
        multiply_in_bfloat16(model.model.language_model)
    vision = VisionStage(model, config.model, config.vision, config.seed, device)
    fit(vision, folder, config.optim)
    language = LanguageStage(
        model, vision.readout, tokenizer, config.model, config.teaching, config.language,
        config.seed, device,
    )  # fmt: skip
    fit(language, folder, config.optim, stop_at=stop_at)


def _pin_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Keep the tokenizer beside the weights, or check that it still is the one they learned."""
    if not (folder / "tokenizer.json").exists():
        save_tokenizer(tokenizer, folder)
    elif load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"{folder / 'tokenizer.json'} differs from what the world's sentences give now; "
            "train in another folder, or with the code that this one was begun with"
        )


def _pin(config: TrainConfig, path: Path) -> None:
    """Write the configuration, or check that it is the one already there."""
    text = json.dumps(dataclasses.asdict(config), indent=1)
    if path.exists() and json.loads(path.read_text()) != json.loads(text):
        raise ValueError(f"{path} is of another run; choose another folder or remove it")
    write_whole(path, text)


def load_trained(
    folder: Path,
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast, int]:
    """Model, tokenizer and language step of a run folder's newest checkpoint."""
    config = read_config(folder)
    kept = (folder / "tokenizer.json").exists()
    model, tokenizer = fresh(config, load_tokenizer(folder) if kept else None)
    state = torch.load(folder / "language.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(state["modules"]["model"])
    return model, tokenizer, state["step"]


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that they were."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}


def read_config(folder: Path) -> TrainConfig:
    """The configuration that a run folder was trained with."""
    raw = json.loads((folder / "config.json").read_text())
    parts: dict[str, Any] = {
        "model": ModelConfig(**raw["model"]),
        "optim": OptimConfig(**_tuples(raw["optim"])),
        "vision": Schedule(**raw["vision"]),
        "language": Schedule(**raw["language"]),
        "teaching": LanguageConfig(**_tuples(raw["teaching"])),
    }
    return TrainConfig(raw["seed"], **parts, precision=raw.get("precision", "float32"))
