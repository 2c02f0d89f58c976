"""What a config says of a LLaVA beyond what every model has."""

from __future__ import annotations

from dataclasses import dataclass

from cof.models import base
from cof.models.common.graphs import Decode
from cof.models.common.loading import Quantization


@dataclass(frozen=True)
class Config(base.Config):
    """Which LLaVA to load and how; see `cof.models.base.Config` for the rest.

    Attributes:
        conv: chat template, `vicuna_v1` or `llava_v1`.
        decode: how greedy replies are decoded: `graph` replays a captured CUDA graph of the whole
            step (on the CPU the same step runs uncaptured), `eager` does not; `auto` is `graph` on
            CUDA. Beams and sampling are always eager.
        quantization: None, or `bnb4`, `bnb8`: bitsandbytes quantises the weights while they are
            loaded, to 4 bits (NF4) or 8; transformers' layout only.
    """

    conv: str = "vicuna_v1"
    decode: Decode = "auto"
    quantization: Quantization | None = None
