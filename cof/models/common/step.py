"""One greedy decode step of a batch on memory that never moves, and its capture as a CUDA graph.

A step launches some thousand small kernels; on a GPU the launches cost several times what the
kernels do. Captured once, the whole step is one launch. Life of a `Step`: made for a number of rows
and positions, captured on whatever its memory holds, then for each batch `load` and as many `run`
as there is room. On the CPU the same code runs without capture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from cof.attention import StepMasks, stepping
from cof.models.base import Mix
from cof.models.common.checks import finite
from cof.models.common.kv_cache import cached, fixed, load, unload

_WARM_UPS = 2
"""Steps before the capture: libraries set themselves up at the first, which cannot be captured."""


def choose(logits: Tensor, given: Tensor | None = None, mix: Mix | None = None) -> Tensor:
    """What the host wants to know of logits [B, V], float64 [4, B]: read back in one copy.

    The best token, whether the numbers are sound, the token's log-probability, and by how much that
    is above the second best's.

    Args:
        logits: to choose from.
        given: the model's own, where `logits` were mixed from them. Those must be finite; mixed
            ones may rule tokens out with -inf, but not all of them.
        mix: what mixed them; it says how they are read as probabilities, see `Mix`.
    """
    best, scores = logits.argmax(-1), logits.float()
    if getattr(mix, "shares", False):
        scores = scores.clamp(min=torch.finfo(scores.dtype).tiny).log()
    highest = scores.gather(-1, best[:, None])[:, 0]
    second = scores.scatter(-1, best[:, None], -torch.inf).amax(-1)
    sound = finite(logits) if given is None else finite(given) & scores.amax(-1).isfinite()
    parts = (best, sound, highest - scores.logsumexp(-1), highest - second)
    return torch.stack([part.double() for part in parts])


@dataclass(frozen=True)
class Entry:
    """What the decode steps of n rows start from.

    Attributes:
        cache: keys and values of S positions.
        masks: what the next token may see of them, over S keys.
        tokens: int64 [n, 1], the newest token of each row; not in the cache yet.
        places: int64 [n, 1] or [axes, n, 1], their positions.
    """

    cache: Cache
    masks: StepMasks
    tokens: Tensor
    places: Tensor

    @property
    def length(self) -> int:
        """S."""
        return int(self.masks.usual.shape[-1])


class Step:
    """One decode step: embedding, decoder, lm_head, choice, next input.

    Rows that are not in use compute too, on zeros. A batch's `mix` is any Python function, so it
    runs behind the captured step, which is then chosen from anew.

    Args:
        network: the whole model.
        decoder: its language model.
        memories: of each layer, [2, B, H, K, D].
        entry: an example of what will be loaded: its masks' kind and its positions' axes.

    Attributes:
        size: B.
        room: positions that are left.
        logits: of the latest step, [B, V].
    """

    def __init__(self, network: Any, decoder: Any, memories: list[Tensor], entry: Entry) -> None:
        self.network, self.decoder = network, decoder
        _, self.size, _, self.length, _ = memories[0].shape
        new = entry.tokens.new_zeros
        self.at, self.tokens = new(1), new(self.size, 1)
        self.places = new(*entry.places.shape[:-2], self.size, 1)
        self.cache = fixed(memories, self.at)
        usual, lit = (_like(part, self.size, self.length) for part in _both(entry.masks))
        self.masks = StepMasks(usual, lit, entry.masks.layers)
        self.read = torch.zeros(4, self.size, dtype=torch.float64, device=self.tokens.device)
        self.logits: Any = None  # as wide as the first step says
        self.graph: Any = None
        self.room = self.filled = 0

    def load(self, entry: Entry) -> None:
        """Begin with n <= B rows of S < K positions."""
        rows, length = len(entry.tokens), entry.length
        load(self.cache, entry.cache)
        for mask, part in zip(self.masks.parts, entry.masks.parts, strict=True):
            mask.fill_(torch.finfo(mask.dtype).min)
            mask[:rows, :, :, :length] = part
        for memory, part in ((self.tokens, entry.tokens), (self.places, entry.places)):
            memory.zero_()
            memory[..., :rows, :] = part
        self.at.fill_(length)
        self.filled, self.room = length, self.length - length

    def run(self, rows: int, mix: Mix | None = None) -> tuple[Tensor, list[list[float]]]:
        """One step: the logits [rows or B, V], valid until the next, and `choose` as lists.

        Args:
            rows: how many there are, from the first.
            mix: what becomes of their scores.
        """
        if self.graph is None:
            self._compute()
        else:
            self.graph.replay()
        self.filled, self.room = self.filled + 1, self.room - 1
        if mix is None:
            return self.logits, self.read.tolist()
        given = self.logits[:rows]
        mixed = mix(given.float())
        self.read[:, :rows] = choose(mixed, given, mix)
        self.tokens.copy_(self.read[0][:, None])
        return mixed, self.read.tolist()

    def unload(self, rows: Tensor, into: Cache) -> Cache:
        """Copy the keys and values of some rows into another cache."""
        return unload(self.cache, rows, self.filled, into)

    def capture(self, pool: Any = None) -> None:
        """Make `run` a replay; what the memory holds is lost.

        Args:
            pool: of graph memory; shared with other graphs, since they run one after the other.
        """
        with torch.cuda.device(self.tokens.device):
            side, here = torch.cuda.Stream(), torch.cuda.current_stream()
            side.wait_stream(here)
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    self._compute()
            here.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                self._compute()
        self.graph = graph

    def _compute(self) -> None:
        """The step itself; nothing in it waits for the host."""
        for mask in self.masks.parts:
            mask.index_copy_(3, self.at, mask.new_zeros(*mask.shape[:3], 1))
        with stepping(self.decoder, self.masks):
            hidden = self.decoder(
                inputs_embeds=self.network.get_input_embeddings()(self.tokens).to(self.masks.usual),
                attention_mask=self.masks.usual,
                position_ids=self.places,
                **cached(self.decoder, self.cache),
            ).last_hidden_state
        logits = self.network.lm_head(hidden[:, -1])
        if self.logits is None:
            self.logits = torch.empty_like(logits)
        self.logits.copy_(logits)
        self.read.copy_(choose(self.logits))
        self.tokens.copy_(self.read[0][:, None])
        self.places.add_(1)
        self.at.add_(1)


def _both(masks: StepMasks) -> tuple[Tensor, Tensor | None]:
    return masks.usual, masks.lit


def _like(mask: Tensor | None, rows: int, keys: int) -> Any:
    return None if mask is None else mask.new_zeros(rows, mask.shape[1], 1, keys)
