"""The attention highlight: softmax(log(lambda) * M + A), the only file that touches attention.

Source: CoF (arXiv 2412.16869) with the hook of Prompt Highlighter (arXiv 2312.04302):
`log(lambda)` is added to the pre-softmax scores of the highlighted keys in every layer and head,
for every query, in prefill and in each decode step. Generated tokens are never highlighted and the
vision tower is never touched.

Life of a highlight. `attach` registers an attention function and a mask function under a private
name and switches a language model to it, once; outside a `with` block both are transformers' own
`sdpa`, bit by bit. Inside `with highlighted(model, h)` a `ContextVar` entry, keyed by the model's
config, makes the mask function return `where(keep, bias, finfo.min)`: one mask a forward pass.
Blocks nest (the innermost counts), end with an exception, and do not leak into other models. A
child thread does not inherit the block: start it with `contextvars.copy_context().run`.

A model that mixes sliding-window and full attention makes several masks a pass; each layer finds
the biased one that belongs to its own, by the identity of the mask.

A decode step on fixed memory brings its masks along: `step_masks` makes them once, of the highlight
that is active then, and inside `with stepping(model, masks)` each layer is given its own.

Traps: registering the attention function without the mask function silently drops padding; a name
containing "flash" takes another path; softcapped scores are refused, since `sdpa` cannot cap them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from cof.errors import ModelError
from cof.regions.bias import Highlight

NAME = "cof_highlight"


@dataclass(frozen=True)
class _Active:
    """One `with` block."""

    config: PreTrainedConfig
    highlight: Highlight | None


_ACTIVE: ContextVar[tuple[_Active, ...]] = ContextVar("cof_highlight_active", default=())
_BIASED: ContextVar[Any] = ContextVar("cof_highlight_biased", default=None)
"""Of a narrowed highlight: each mask of the forward pass -> the same mask with the bias in it.

Held weakly: a mask is forgotten when the pass is over.
"""

Watch = Callable[[Any, Tensor, Tensor, Any, float | None], None]
"""Told of an attention call: module, query [B, H, Q, d], key [B, H', K, d], mask, scaling."""

_WATCH: ContextVar[Watch | None] = ContextVar("cof_watch", default=None)


@dataclass(frozen=True)
class StepMasks:
    """What one new token of each row may see: added to its scores, `finfo.min` where hidden.

    Attributes:
        usual: float [B, 1, 1, K]; holds the bias of a highlight that is not narrowed.
        lit: the same with the bias of a narrowed one, [B, 1, 1, K] or [B, heads, 1, K], else None.
        layers: those that get `lit`; None is all of them.
    """

    usual: Tensor
    lit: Tensor | None = None
    layers: tuple[int, ...] | None = None

    @property
    def parts(self) -> Sequence[Tensor]:
        """The one or two tensors."""
        return (self.usual,) if self.lit is None else (self.usual, self.lit)

    def of(self, layer: int) -> Tensor:
        """The mask of one layer."""
        chosen = self.layers is None or layer in self.layers
        return self.lit if self.lit is not None and chosen else self.usual


_STEP: ContextVar[tuple[PreTrainedConfig, StepMasks] | None] = ContextVar("cof_step", default=None)


@contextmanager
def highlighted(language_model: nn.Module, highlight: Highlight | None) -> Iterator[None]:
    """Highlight inside the block; prefill, decode steps, beams and sampling alike.

    Args:
        language_model: the decoder whose attention is meant (a transformers text model).
        highlight: bias for the prompts that will be run inside the block; None is no highlight,
            whatever is on around the block.

    Raises:
        ValueError: a layer or head that the model does not have.
        ModelError: see `attach`.
    """
    config = attach(language_model)
    if highlight is not None:
        highlight.check(config.num_hidden_layers, config.num_attention_heads)
    token = _ACTIVE.set((*_ACTIVE.get(), _Active(config, highlight)))
    masks = _BIASED.set(WeakIdKeyDictionary())
    try:
        yield
    finally:
        _ACTIVE.reset(token)
        _BIASED.reset(masks)


def current(language_model: nn.Module) -> Highlight | None:
    """The highlight that a decoder runs under here and now, None outside any block."""
    return _find(language_model.config)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Tell `watch` of every attention call of attached decoders inside the block."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


def is_watched() -> bool:
    """Whether somebody is told of attention calls here and now."""
    return _WATCH.get() is not None


def step_masks(language_model: nn.Module, keep: Tensor, dtype: torch.dtype) -> StepMasks:
    """The masks of a decode step behind a prompt and what was generated so far.

    Args:
        language_model: the decoder; the highlight that is active here goes into them.
        keep: bool [B, K], the keys that are no padding.
        dtype: of queries and keys.
    """
    keep, highlight = keep[:, None, None, :], current(language_model)
    lowest = torch.finfo(dtype).min
    usual = torch.zeros(keep.shape, dtype=dtype, device=keep.device).masked_fill(~keep, lowest)
    if highlight is None:
        return StepMasks(usual)
    bias = _bias(highlight, keep, keep.shape[-1], 0).to(dtype)
    biased = torch.where(keep, bias, lowest)
    if not highlight.narrowed:
        return StepMasks(biased)
    if highlight.heads is not None:
        heads: int = language_model.config.num_attention_heads  # type: ignore[union-attr, assignment]
        biased = torch.where(_chosen_heads(highlight.heads, heads, keep.device), biased, usual)
    return StepMasks(usual, biased, highlight.layers)


@contextmanager
def stepping(language_model: nn.Module, masks: StepMasks) -> Iterator[None]:
    """Give every layer its mask of `masks` inside the block, whatever highlight is active."""
    token = _STEP.set((language_model.config, masks))  # type: ignore[arg-type]
    try:
        yield
    finally:
        _STEP.reset(token)


def attach(language_model: nn.Module) -> PreTrainedConfig:
    """Switch a decoder to the highlightable attention; bitwise `sdpa` while nothing is active.

    The decoder alone: modules inside it that have a config of their own (a vision tower, as in
    LLaVA's own package) keep their attention.

    Raises:
        ModelError: the decoder's attention cannot be replaced, or its scores are softcapped.
    """
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)
    config: Any = language_model.config
    if config._attn_implementation != NAME:
        _refuse(language_model, config)
        config._attn_implementation = {"": NAME}  # a plain name would switch its sub-configs too
    return config  # type: ignore[no-any-return]


def _refuse(language_model: Any, config: Any) -> None:
    kind = type(language_model).__name__
    if not language_model._can_set_attn_implementation():
        raise ModelError(f"{kind}: its attention cannot be replaced, so it cannot be highlighted")
    if getattr(config, "attn_logit_softcapping", None) is not None:
        raise ModelError(
            f"{kind}: attn_logit_softcapping={config.attn_logit_softcapping} caps attention "
            "scores, which the highlighted attention (sdpa) cannot do"
        )


def _find(config: Any) -> Highlight | None:
    """The innermost highlight of a decoder, by its config."""
    return next((a.highlight for a in reversed(_ACTIVE.get()) if a.config is config), None)


def _mask(*args: Any, config: Any = None, dtype: torch.dtype = torch.float32, **kw: Any) -> Any:
    """Mask function: transformers' own mask, or the float mask with the bias in it."""
    active = _find(config)
    if active is None:
        return sdpa_mask(*args, config=config, dtype=dtype, **kw)
    kw["allow_is_causal_skip"] = False
    keep: Any = sdpa_mask(*args, config=config, dtype=dtype, **kw)
    lowest = torch.finfo(dtype).min
    bias = _bias(active, keep, kw.get("q_offset", 0), kw.get("kv_offset", 0)).to(dtype)
    biased = torch.where(keep, bias, lowest)
    if not active.narrowed:
        return biased
    plain = torch.where(keep, torch.zeros((), dtype=dtype, device=keep.device), lowest)
    _BIASED.get()[plain] = biased
    return plain


def _bias(highlight: Highlight, keep: Tensor, q_offset: int | Tensor, kv_offset: int) -> Tensor:
    """Bias [B, 1, Q or 1, K] for the queries and keys of one forward pass.

    Args:
        highlight: bias of the prompt.
        keep: bool [B * n, 1, Q, K], the mask of this pass.
        q_offset: position of the first query.
        kv_offset: position of the first key.
    """
    batch, _, length, keys = keep.shape
    rows, known = highlight.bias.shape
    prefill = length > 1 and int(q_offset) < known
    if batch % rows or (prefill and int(q_offset) + length != known):
        raise ValueError(
            f"the highlight is for {rows} rows of {known} positions, "
            f"the forward pass has {batch} rows of {int(q_offset) + length}"
        )
    kept = highlight.bias[:, kv_offset : kv_offset + keys]  # none left of it outside the window
    by_key = F.pad(kept.to(keep.device), (0, keys - kept.shape[1]))
    bias = by_key.repeat_interleave(batch // rows, dim=0)[:, None, None, :]
    if highlight.queries is None:
        return bias
    seen = F.pad(highlight.queries.to(keep.device), (0, keys + kv_offset), value=True)
    which = torch.arange(length, device=keep.device) + q_offset
    gate = seen[:, which].repeat_interleave(batch // rows, dim=0)
    return bias * gate[:, None, :, None]


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kw: Any
) -> tuple[Tensor, None]:
    """Attention function: `sdpa`, on the biased mask in the chosen layers and heads."""
    config, step = getattr(module, "config", None), _STEP.get()
    active = _find(config)
    if step is not None and step[0] is config:
        attention_mask = step[1].of(module.layer_idx)
    elif active is not None and active.narrowed:
        attention_mask = _narrow(active, module.layer_idx, query.shape[1], attention_mask)
    watch = _WATCH.get()
    if watch is not None:
        watch(module, query, key, attention_mask, kw.get("scaling"))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kw)


def _narrow(chosen: Highlight, layer: int, heads: int, plain: Tensor) -> Tensor:
    """Mask [B, 1 or heads, Q, K] of one layer when only some layers or heads are biased."""
    if chosen.layers is not None and layer not in chosen.layers:
        return plain
    biased = _biased(plain).to(plain.device)
    if chosen.heads is None:
        return biased
    return torch.where(_chosen_heads(chosen.heads, heads, plain.device), biased, plain)


def _chosen_heads(chosen: Sequence[int], heads: int, device: torch.device) -> Tensor:
    """Which of the heads see the bias, bool [1, heads, 1, 1]."""
    lit = torch.zeros(heads, dtype=torch.bool)
    lit[list(chosen)] = True
    return lit[None, :, None, None].to(device)


def _biased(plain: Tensor) -> Tensor:
    """The biased mask that belongs to a layer's own.

    Raises:
        RuntimeError: several GPUs hold copies of the masks, and it cannot be told which this is.
    """
    masks = _BIASED.get()
    if plain in masks:
        return masks[plain]  # type: ignore[no-any-return]
    if len(masks) == 1:  # a copy on another device, of the only mask there is
        return next(iter(masks.values()))  # type: ignore[no-any-return]
    raise RuntimeError(
        f"{len(masks)} masks in one pass, and a layer has a copy of one: a highlight narrowed to "
        "layers or heads needs this model on one device"
    )
