"""What families share whose visual tokens are keys of a cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cof.attention import current
from cof.errors import ModelError
from cof.models.base import Encoded
from cof.regions.bias import Highlight


def check_whole(name: str, highlight: Highlight | None) -> None:
    """Refuse a highlight of some queries, layers or heads.

    Raises:
        ModelError: it is one.
    """
    if highlight is not None and (highlight.narrowed or highlight.queries is not None):
        raise ModelError(
            f"{name}: a highlight in a cross-attention is for all of its queries, layers and heads"
        )


def active_bias(module: Any, encoded: Encoded) -> Tensor | None:
    """What the highlight that is on for a module adds to the visual keys, float [B, K].

    Raises:
        ValueError: it is one of other prompts.
    """
    chosen = current(module)
    if chosen is None:
        return None
    if chosen.bias.shape != (len(encoded), encoded.keys):
        raise ValueError(
            f"a highlight of {tuple(chosen.bias.shape)} for {len(encoded)} prompts over "
            f"{encoded.keys} visual keys"
        )
    return chosen.bias.to(encoded.attention_mask.device)


def scaled(images: Tensor, factors: Sequence[Tensor | None], places: Sequence[Tensor]) -> Tensor:
    """Images [B, K, E], some of whose tokens are multiplied.

    Args:
        images: one row a prompt.
        factors: per row float [T], or None.
        places: per row int64 [T], which keys the factors are of.
    """
    images = images.clone()
    for row, (factor, where) in enumerate(zip(factors, places, strict=True)):
        if factor is not None:
            product = images[row, where] * factor.to(images.device)[:, None]  # in float32
            images[row, where] = product.to(images.dtype)
    return images


def nobody(*_: Any) -> None:
    """Watches no attention: see `cof.attention.watched`."""
