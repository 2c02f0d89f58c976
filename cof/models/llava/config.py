"""What a config says of a LLaVA beyond what every model has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cof.models import base


@dataclass(frozen=True)
class Config(base.Config):
    """Which LLaVA to load and how; see `cof.models.base.Config` for the rest.

    Attributes:
        conv: chat template, `vicuna_v1` or `llava_v1`.
        decode: how greedy replies are decoded: `graph` replays a captured CUDA graph of the whole
            step (on the CPU the same step runs uncaptured), `eager` does not; `auto` is `graph` on
            CUDA. Beams and sampling are always eager.
    """

    conv: str = "vicuna_v1"
    decode: Literal["auto", "graph", "eager"] = "auto"
