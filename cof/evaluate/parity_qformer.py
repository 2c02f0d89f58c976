"""Compare the highlighted Q-Former with recorded numbers of the published code.

The folder holds a tiny Q-Former by LAVIS's names (`config.json`, `qformer.safetensors`, the learned
queries among the weights), and for each case an image's embeddings, the lit patches, and what came
out: the last states, and those behind each cross-attention, of a plain pass and of the two branches
of Prompt Highlighter. They are compared in the published arithmetic (attention step by step). A
folder may hold the first layers alone: then there are no last states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel

from cof.errors import DataError
from cof.models.base import Encoded
from cof.models.common.checkpoint import read_json
from cof.models.common.crossed import scaled
from cof.models.instructblip.qformer import states
from cof.refine import guided

if TYPE_CHECKING:
    from cof.evaluate.comparison import Comparison

FOLDER = "qformer"
"""Folder, inside one of recorded numbers, of a Q-Former's."""

CHECKS = ("qformer dimmed", "qformer plain", "qformer highlighted")
"""Embeddings after `perturb`; states of the plain pass; states of both branches."""

_KEYS = {
    "encoder_hidden_size": "encoder_width",
    "cross_attention_frequency": "cross_attention_freq",
    **{
        key: key
        for key in (
            *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
            *("intermediate_size", "max_position_embeddings", "hidden_act", "layer_norm_eps"),
            "pad_token_id",
        )
    },
}
"""Of a config: transformers' name -> LAVIS's."""


@torch.inference_mode()
def check(
    folder: Path, cases: Sequence[dict[str, Any]], checks: dict[str, Comparison], like: Any
) -> None:
    """Compare every case.

    Args:
        folder: of recorded numbers, `FOLDER` in it.
        cases: of its cases.json.
        checks: where what is found is added.
        like: a network, whose device and dtype are taken.

    Raises:
        DataError, ModelError: a file is missing or damaged.
    """
    place = folder / FOLDER
    qformer, queries = load(place)
    qformer, queries = qformer.to(like.device, like.dtype), queries.to(like.device, like.dtype)
    for case in cases:
        recorded = _tensors(place / f"{case['id']}.safetensors")
        given = {name: tensor.to(like.device) for name, tensor in recorded.items()}
        image = given["image_embeds"].to(like.dtype)[None]
        found = run(qformer, queries, image, given.get("text_ids"))
        _compare(checks["qformer plain"], found, recorded, "plain")
        pair, bias = branches(image.expand(2, -1, -1), given["mask"].bool(), case)
        if "perturbed_negative_embeds" in recorded:
            dimmed = recorded["perturbed_negative_embeds"]
            checks["qformer dimmed"].numbers(pair[1], dimmed)
        found = run(qformer, queries, pair, given.get("text_ids"), bias)
        _compare(checks["qformer highlighted"], found, recorded, "hl")


def load(place: Path) -> tuple[Any, Tensor]:
    """The Q-Former of a folder and its queries, float32, attention step by step.

    Raises:
        DataError, ModelError: a file is missing or damaged, or weights do not fit the config.
    """
    said, weights = read_json(place / "config.json"), _tensors(place / "qformer.safetensors")
    try:
        config = InstructBlipQFormerConfig(**{ours: said[name] for ours, name in _KEYS.items()})
        qformer = InstructBlipQFormerModel._from_config(config, attn_implementation="eager")
        queries = weights.pop("query_tokens").float()
        named = {_name(name): tensor for name, tensor in weights.items()}
        qformer.load_state_dict(named)
    except (KeyError, RuntimeError) as error:
        raise DataError(f"{place}: config and weights are of no Q-Former ({error})") from error
    return qformer.eval(), queries


def branches(images: Tensor, lit: Tensor, case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Prompt Highlighter's two branches as `refine.guided` makes them: images, and the bias.

    Args:
        images: float [2, K, E], the same twice.
        lit: bool [K].
        case: its weight and perturb.
    """
    every = torch.arange(len(lit), device=lit.device)
    config = guided.Config(case["attention_weight"], perturb=case["perturb_weight"])
    encoded = Encoded({}, lit.new_ones(2, 1, dtype=torch.long), (every, every), len(lit))
    encoded, plan = guided.branches(encoded, [lit, lit], config)
    if encoded.scale:
        images = scaled(images, encoded.scale, encoded.visual)
    return images, plan.bias


def run(
    qformer: Any, queries: Tensor, images: Tensor, ids: Tensor | None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """States of one pass: the last [B, T, D], those behind each cross-attention [layers, B, Q, D].

    Args:
        qformer: the model.
        queries: float [1, Q, D].
        images: float [B, K, E].
        ids: of the question, int64 [L], for every row; None asks without.
        bias: float [B, K] or None.
    """
    text = (
        None if ids is None else (ids.expand(len(images), -1), ids.new_ones(len(images), len(ids)))
    )
    with _crossed(qformer) as crossed:
        last = states(qformer, queries, images, text, bias)
    return last, torch.stack(crossed)


@contextmanager
def _crossed(qformer: Any) -> Iterator[list[Tensor]]:
    """What comes out of each cross-attention inside the block."""
    found: list[Tensor] = []
    hooks = [
        layer.crossattention.register_forward_hook(lambda *given: found.append(given[-1]))
        for layer in qformer.encoder.layer
        if layer.has_cross_attention
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _compare(
    check: Comparison, found: tuple[Tensor, Tensor], recorded: dict[str, Tensor], key: str
) -> None:
    for ours, name in zip(found, (f"{key}_last_hidden", f"{key}_cross_outputs"), strict=True):
        if name in recorded:
            theirs = recorded[name]
            check.numbers(ours if ours.ndim == theirs.ndim else ours.squeeze(-3), theirs)


def _name(name: str) -> str:
    """Transformers' name of a LAVIS weight."""
    return name.replace(".self.", ".attention.").replace("gs.LayerNorm", "gs.layernorm")


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file}: missing or damaged, but cases.json needs it") from error
