"""Token segments of many scenes as one rectangular packed batch, with everything the loss needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cof_lab.packing import Layout, Probe
from cof_lab.position_code import position_code
from cof_lab.segments import Tokens
from cof_lab.tokenizer import PAD
from cof_lab.world import Scenes

# Loss weight of one reply token, by what it is.
WEIGHT = {"yes_no": 3.0, "word": 1.0, "coordinate": 1.5, "syntax": 0.05, "eos": 0.1}


@dataclass(frozen=True)
class Rows:
    """Positions (image, row) of the packed batch that should predict `target`, int64 [R] each."""

    image: Tensor
    row: Tensor
    target: Tensor
    weight: Tensor  # float [R]


@dataclass(frozen=True)
class Look:
    """Where some rows should look: `target` float [R, prefix], rows sum to one."""

    probe: Probe
    target: Tensor


@dataclass(frozen=True)
class Packed:
    """One training batch for B images."""

    layout: Layout
    ids: Tensor  # int64 [B, length]; the prefix's image tokens included
    replies: Rows
    hints: Rows  # the last hint of each segment: the fact behind a question, if it has one
    names: Rows  # the hints before it: attributes at the end of an object phrase
    looks: tuple[Look, Look]  # at the end of object phrases; while boxes are written
    points: tuple[Tensor, Tensor, Tensor]  # image [R], row [R], code [R, BOX_CODE] of what is named
    answers: list[tuple[int, int, Tokens]]  # (image, first reply row - 1, segment)


def coverage(scenes: Scenes, patch: int) -> np.ndarray:
    """Share of each object that lies in each patch: [B, K, T]; rows of present objects sum to 1."""
    edge = np.arange(scenes.side // patch) * patch
    low, high = scenes.boxes[..., None, :2], scenes.boxes[..., None, 2:]
    span = (np.minimum(high, edge[:, None] + patch) - np.maximum(low, edge[:, None])).clip(min=0)
    area = (span[:, :, :, None, 1] * span[:, :, None, :, 0]).reshape(*span.shape[:2], -1)
    return area / area.sum(-1, keepdims=True).clip(min=1e-6)


def pack_segments(
    groups: Sequence[Sequence[Sequence[Tokens]]],
    prefix: Sequence[int],
    scenes: Scenes,
    patch: int,
    first_image: int,
    kinds: dict[int, str],
    probe_layers: tuple[int, int],
    probe_heads: int = 2,
    silent: Sequence[bool] | None = None,
) -> Packed:
    """Lay segments out.

    Args:
        groups: [group][image][segment]; every image has as many segments in a group.
        prefix: tokens up to and including the image tokens.
        scenes: what the images show.
        patch: side of a visual token, in pixels.
        first_image: index of the first image token in the prefix.
        kinds: token id -> key of WEIGHT, for reply tokens that are not plain words.
        probe_layers: whose attention is supervised at object phrases, and while boxes are written.
        probe_heads: on so many heads, from the first.
        silent: images about which only locating is taught (variant `gap`).
    """
    layout = Layout(
        len(prefix),
        tuple((len(g[0]), max(len(t.ids) for image in g for t in image)) for g in groups),
    )
    batch = len(groups[0])
    ids = torch.full((batch, layout.length), PAD)
    ids[:, : layout.prefix] = torch.tensor(list(prefix))
    replies, hints, names, answers = [], [], [], []
    looks: tuple[list, list] = [], []
    for group, starts in zip(groups, layout.starts(), strict=True):
        for image, segments in enumerate(group):
            for start, tokens in zip(starts, segments, strict=True):
                ids[image, start : start + len(tokens.ids)] = torch.tensor(tokens.ids)
                quiet = bool(silent and silent[image] and tokens.sample.reading)
                answers.append((image, start + tokens.labels - 1, tokens))
                if not (silent and silent[image]):  # what is known at a place is reading, too
                    facts = tokens.hints
                    hints += [(image, start + at, word, 1.0) for at, word in facts[-1:]]
                    names += [(image, start + at, word, 1.0) for at, word in facts[:-1]]
                if not quiet:
                    replies += _reply_rows(tokens, image, start, kinds)
                    looks[0].extend((image, start + at, start, ref) for at, ref in tokens.refs)
                    looks[1].extend(_box_looks(tokens, image, start, kinds))
    cover = coverage(scenes, patch)
    phrases, boxes = (
        _looks(rows, layout, cover, scenes, first_image, layer, probe_heads)
        for rows, layer in zip(looks, probe_layers, strict=True)
    )
    return Packed(
        layout, ids, _rows(replies), _rows(hints), _rows(names),
        (phrases, boxes), _points(looks[0], scenes), answers,
    )  # fmt: skip


def _reply_rows(tokens: Tokens, image: int, start: int, kinds: dict[int, str]) -> list[tuple]:
    """One row a reply token: the position before it predicts it."""
    return [
        (image, start + k - 1, tokens.ids[k], WEIGHT[kinds.get(tokens.ids[k], "word")])
        for k in range(tokens.labels, len(tokens.ids))
    ]


def _box_looks(tokens: Tokens, image: int, start: int, kinds: dict[int, str]) -> list[tuple]:
    """The rows that predict a box's coordinates look at the thing in the box.

    Where a phrase names several things, a box's first row looks at all that are left: which of
    them comes next is read from the sum of their codes, the other rows know where it begins.
    """
    at = [
        k for k in range(tokens.labels, len(tokens.ids)) if kinds.get(tokens.ids[k]) == "coordinate"
    ]
    boxes = tokens.sample.boxes
    group = any(things == boxes for _, things in tokens.refs)
    things = [
        boxes[k:] if group and corner == 0 else (boxes[k],)
        for k in range(len(boxes))
        for corner in range(4)
    ]
    return [(image, start + k - 1, start, told) for k, told in zip(at, things, strict=bool(things))]


def _rows(rows: list[tuple[int, int, int, float]]) -> Rows:
    *index, weight = zip(*rows, strict=True) if rows else ((), (), (), ())
    image, row, target = (torch.tensor(values, dtype=torch.long) for values in index)
    return Rows(image, row, target, torch.tensor(weight, dtype=torch.float32))


def _looks(
    looks: list[tuple],
    layout: Layout,
    cover: np.ndarray,
    scenes: Scenes,
    first_image: int,
    layer: int,
    heads: int,
) -> Look:
    """Rows to supervise and their target distributions; nothing there -> the first token."""
    slots = [np.flatnonzero(present) for present in scenes.present]
    target = np.zeros((len(looks), layout.prefix), dtype=np.float32)
    tokens = cover.shape[-1]
    for k, (image, _, _, things) in enumerate(looks):
        if things:
            chosen = slots[image][list(things)]
            target[k, first_image : first_image + tokens] = cover[image, chosen].mean(0)
        else:
            target[k, 0] = 1
    where = np.array([look[:3] for look in looks], dtype=np.int64).reshape(-1, 3)
    images, rows, starts = torch.from_numpy(where).unbind(1)
    reach = int((rows - starts).max()) + 1 if looks else 0
    return Look(Probe(layer, heads, images, rows, starts, reach), torch.from_numpy(target))


def _points(looks: list[tuple], scenes: Scenes) -> tuple[Tensor, Tensor, Tensor]:
    """Where phrases that name something end, and the mean code of the boxes of what they name."""
    slots = [np.flatnonzero(present) for present in scenes.present]
    named = [look for look in looks if look[3]]
    image, row = np.array([look[:2] for look in named], dtype=np.int64).reshape(-1, 2).T.copy()
    codes = position_code(torch.from_numpy((scenes.boxes / scenes.side).astype(np.float32)))
    chosen = [codes[k, slots[k][list(things)]].mean(0) for k, _, _, things in named]
    code = torch.stack(chosen) if chosen else codes.new_zeros(0, codes.shape[-1])
    return torch.from_numpy(image), torch.from_numpy(row), code
