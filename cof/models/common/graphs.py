"""Captured decode steps of one model: few shapes, made when they are first needed, kept bounded.

A batch runs in the smallest shape that holds it. All steps lie on the same keys and values, as much
as the largest needs: only one of them is in use at a time.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from cof.attention import is_watched
from cof.models.common.step import Entry, Step

Decode = Literal["auto", "graph", "eager"]
"""How greedy decoding runs; `auto` is `graph` on CUDA, `eager` elsewhere."""

MOST = 24
"""Steps that are kept; the one that was used longest ago goes first."""

_LARGEST = 64
_BLOCK = 128
_REPLY = 32
"""Positions of a reply for which there is room at first; most replies are shorter."""

log = logging.getLogger(__name__)


class CaptureError(Exception):
    """A step could not be captured; the message is why."""


def size_for(rows: int) -> int:
    """Rows of the step for so many: 1, 2, 4, ... 64, then in steps of 64."""
    if rows > _LARGEST:
        return -(-rows // _LARGEST) * _LARGEST
    return 1 << (rows - 1).bit_length()


def length_for(length: int, left: int) -> int:
    """Positions, in steps of 128, of a step that has `length` and is to get `left` at most."""
    return -(-(length + max(1, min(left, _REPLY))) // _BLOCK) * _BLOCK


class Graphs:
    """The decode steps of one model.

    Args:
        network: the whole model.
        decoder: its language model.
        capture: capture them; False runs the same steps as they are.

    Attributes:
        steps: by shape, the latest used last.
        off: a capture has failed, so no step is given out any more.
    """

    def __init__(self, network: Any, decoder: Any, capture: bool) -> None:
        self.network, self.decoder, self.capture = network, decoder, capture
        self.steps: OrderedDict[Any, Step] = OrderedDict()
        self.off = False
        self.window = window_of(decoder.config)
        self._memory: list[Tensor] = []
        self._origin: Any = None
        self._said = False

    def begin(self, entry: Entry, left: int) -> Step | None:
        """A step, loaded with an entry; None where the rows are to be decoded eagerly.

        Args:
            entry: what the rows start from.
            left: most tokens that follow.
        """
        if self.off or is_watched() or (self.capture and _hooked(self.network, self.decoder)):
            return None
        if self.window is not None and length_for(entry.length, left) > self.window:
            self._say_once()
            return None
        for _ in range(2):
            try:
                return self._begin(entry, left)
            except torch.OutOfMemoryError:
                pass  # behind the block, where the exception holds no tensors any more
            except CaptureError as error:
                self.off = True
                log.warning("decoding without CUDA graphs, which could not be captured: %s", error)
                break
            self.drop()
        else:
            log.info("no memory for captured decoding: %d rows go on without", len(entry.tokens))
        self.drop()
        return None

    def _say_once(self) -> None:
        if not self._said:
            log.warning(
                "decoding eagerly what may outgrow the window of %d positions that some layers see",
                self.window,
            )
        self._said = True

    @property
    def held(self) -> bool:
        """Whether there is memory to be had by `drop`."""
        return bool(self._memory)

    def drop(self) -> None:
        """Forget all steps and give their memory back."""
        self.steps.clear()
        self._memory = []
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _begin(self, entry: Entry, left: int) -> Step:
        origin = _origin(self.network, self.decoder)
        if origin != self._origin:  # other weights, at other addresses
            self.drop()
            self._origin = origin
        size, length = size_for(len(entry.tokens)), length_for(entry.length, left)
        kind = [part.shape[1] for part in entry.masks.parts], entry.masks.layers
        key = (size, length, str(kind), entry.places.shape[:-2])
        memories = self._memories(entry, size, length)
        step = self.steps.pop(key, None) or self._make(memories, entry)
        self.steps[key] = step
        step.load(entry)
        return step

    def _make(self, memories: list[Tensor], entry: Entry) -> Step:
        while len(self.steps) >= MOST:
            self.steps.popitem(last=False)
        step = Step(self.network, self.decoder, memories, entry)
        if self.capture:
            graph = next((one.graph for one in self.steps.values()), None)
            try:
                step.capture(graph and graph.pool())
            except RuntimeError as error:
                full = torch.OutOfMemoryError
                if isinstance(error, full) or isinstance(error.__context__, full):
                    raise full(str(error)) from None  # at its end a capture hides what broke it
                raise CaptureError(" ".join(str(error).split())[:300]) from error
        return step

    def _memories(self, entry: Entry, size: int, length: int) -> list[Tensor]:
        """Keys and values of each layer, [2, B, H, K, D], all of one memory."""
        layers: list[Any] = entry.cache.layers
        shapes = [(2, size, one.keys.shape[1], length, one.keys.shape[3]) for one in layers]
        needed = max(map(prod, shapes))
        if not self._memory or needed > len(self._memory[0]):
            self.drop()
            self._memory = [one.keys.new_empty(needed) for one in layers]
        pairs = zip(self._memory, shapes, strict=True)
        return [memory[: prod(shape)].view(shape) for memory, shape in pairs]


def graphs_for(network: Any, decoder: Any, decode: Decode) -> Graphs | None:
    """The captured steps of a model, None where it decodes eagerly."""
    cuda = network.device.type == "cuda"
    if decode == "eager" or (decode == "auto" and not cuda):
        return None
    if len({parameter.device for parameter in network.parameters()}) > 1:
        log.warning("decoding eagerly: the model is on several devices")
        return None
    if window_of(decoder.config) == 0:
        log.warning("decoding eagerly: some layers see chunks, or no keys at all")
        return None
    return Graphs(network, decoder, capture=cuda)


def window_of(config: Any) -> int | None:
    """How many keys a query sees in the layers that see fewest; None where each sees all.

    One mask serves all layers, and padding does not matter, as long as no more is there. With
    layers of other kinds (chunks, linear attention) it is 0.
    """
    kinds = set(getattr(config, "layer_types", None) or [])
    window: int | None = getattr(config, "sliding_window", None)
    if kinds <= {"full_attention"}:
        return None if kinds else window
    return (window or 0) if kinds <= {"full_attention", "sliding_attention"} else 0


def _hooked(network: Any, decoder: Any) -> bool:
    """Whether somebody's hooks are to run in each pass; a replay would pass them by.

    Those of transformers collect outputs where they are asked for, which nobody does here.
    """
    modules = [*decoder.modules(), network.get_input_embeddings(), network.lm_head]
    hooks = (
        hook
        for one in modules
        for kind in (one._forward_hooks, one._forward_pre_hooks)
        for hook in kind.values()
    )
    return any(not getattr(hook, "__module__", "").startswith("transformers.") for hook in hooks)


def _origin(network: Any, decoder: Any) -> Any:
    """What a captured step depends on beside its inputs: weights where they lie, attention."""
    parts = [*decoder.parameters(), *network.lm_head.parameters()]
    places = tuple(part.data_ptr() for part in parts)
    return id(network.lm_head), decoder.config._attn_implementation, places
