"""Many questions behind one image prefix: the image is paid for once.

A packed sequence is [prefix | S1 segments of L1 tokens | S2 segments of L2 tokens | ...]. A
segment sees the prefix and itself, never another segment, and its positions restart after the
prefix, so each segment is computed as if it stood alone (tests hold this to 1e-5). The library's
model runs unchanged: only its attention function is named here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

ATTENTION = "cof_tiny_packed"


@dataclass(frozen=True)
class Layout:
    """Shape of a packed sequence: tokens in the prefix, and (segments, tokens each) by group."""

    prefix: int
    groups: tuple[tuple[int, int], ...]

    @property
    def length(self) -> int:
        """Tokens in all."""
        return self.prefix + sum(count * size for count, size in self.groups)

    def starts(self) -> list[list[int]]:
        """First position of every segment, by group."""
        result, at = [], self.prefix
        for count, size in self.groups:
            result.append([at + k * size for k in range(count)])
            at += count * size
        return result

    def positions(self, device: str | torch.device = "cpu") -> Tensor:
        """Position ids [1, length]; they restart at `prefix` in every segment."""
        parts = [torch.arange(self.prefix)]
        parts += [self.prefix + torch.arange(size).repeat(count) for count, size in self.groups]
        return torch.cat(parts)[None].to(device)


@dataclass
class Probe:
    """Which attention rows of one layer to keep: the log-probabilities of `heads` heads.

    batch, row, start: int64 [R]; the query position and the first position of its segment.
    Filled in by the forward pass: `log_mass` [R, heads, prefix], over all keys the row can see.
    """

    layer: int
    heads: int
    batch: Tensor
    row: Tensor
    start: Tensor
    reach: int  # tokens of a segment that can precede any probed row
    log_mass: Tensor | None = field(default=None)


_active: ContextVar[tuple[Layout, tuple[Probe, ...]]] = ContextVar("cof_tiny_layout")


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_others: object,
) -> tuple[Tensor, None]:
    """Transformers' attention interface; tensors [B, H, T, d], result [B, T, H, d]."""
    layout, probes = _active.get()
    sizes = [layout.prefix] + [count * size for count, size in layout.groups]
    # split, not slices: the backward of a split is one concatenation
    (q, *queries), (k, *keys), (v, *values) = (x.split(sizes, 2) for x in (query, key, value))
    outputs = [F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)]
    for own, (count, _) in zip(zip(queries, keys, values, strict=True), layout.groups, strict=True):
        outputs.append(_group(own, k, v, count, scaling))
    for probe in probes:
        if module.layer_idx == probe.layer:
            probe.log_mass = _probe(probe, query, key, layout.prefix, scaling)
    return torch.cat(outputs, 2).transpose(1, 2).contiguous(), None


def _group(
    own: tuple[Tensor, Tensor, Tensor], key: Tensor, value: Tensor, count: int, scaling: float
) -> Tensor:
    """Attention of `count` equal segments side by side.

    own: their queries, keys and values, [B, H, count * L, d]; key, value: the prefix's.
    """
    batch, heads, total, width = own[0].shape
    prefix, size = key.shape[2], total // count

    def segments(x: Tensor) -> Tensor:  # [B, H, S*L, d] -> [B*S, H, L, d]
        return x.unflatten(2, (count, size)).transpose(1, 2).flatten(0, 1)

    def shared(x: Tensor) -> Tensor:  # the prefix, once for each segment
        return x[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)

    q, k, v = (segments(x) for x in own)
    k, v = torch.cat([shared(key), k], 2), torch.cat([shared(value), v], 2)
    mask = torch.ones(size, prefix + size, dtype=torch.bool, device=q.device).tril(prefix)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
    return out.view(batch, count, heads, size, width).transpose(1, 2).flatten(2, 3)


def _probe(probe: Probe, query: Tensor, key: Tensor, prefix: int, scaling: float) -> Tensor:
    """Log attention of the probed rows on the prefix, [R, heads, prefix]."""
    heads = slice(0, probe.heads)
    q = query[probe.batch, heads, probe.row]  # [R, h, d]
    near = key[:, heads, :prefix].transpose(2, 3)[probe.batch]  # [R, h, d, prefix]
    scores = (q[:, :, None] @ near)[:, :, 0]
    offset = torch.arange(probe.reach, device=q.device)
    own = (probe.start[:, None] + offset).clamp(max=key.shape[2] - 1)  # [R, reach]
    keys = key[probe.batch[:, None], heads, own]  # [R, reach, h, d]
    local = torch.einsum("rhd,rjhd->rhj", q, keys)
    visible = offset[None] <= (probe.row - probe.start)[:, None]
    local = local.masked_fill(~visible[:, None], torch.finfo(q.dtype).min)
    return (torch.cat([scores, local], -1) * scaling).log_softmax(-1)[..., :prefix]


def _no_mask(*_: object, **__: object) -> None:
    """The packed attention builds its own masks."""


def install(model: LlavaForConditionalGeneration) -> None:
    """Let the language model use packed attention (training only; saved weights do not know)."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION, packed_attention)
    AttentionMaskInterface.register(ATTENTION, _no_mask)
    model.model.language_model.config._attn_implementation = ATTENTION


@contextmanager
def packed(layout: Layout, probes: tuple[Probe, ...] = ()) -> Iterator[None]:
    """The layout that forward passes inside the block follow, and the attention to keep."""
    token = _active.set((layout, probes))
    try:
        yield
    finally:
        _active.reset(token)
