"""What a config says of a Llama 3.2 Vision beyond what every model has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cof.models import base
from cof.models.common.loading import Quantization


@dataclass(frozen=True)
class Config(base.Config):
    """Which Llama 3.2 Vision to load and how; see `cof.models.base.Config` for the rest.

    Attributes:
        dtype: `auto` is the checkpoint's own half precision on CUDA, float32 on the CPU.
        frame: what the coordinates of box replies are; "" assumes fractions of the image, which is
            logged and recorded as an assumption.
        quantization: None, or `bnb4`, `bnb8`: bitsandbytes quantises the weights while they are
            loaded, to 4 bits (NF4) or 8.
        suffix: None asks questions as they come; else this stands in place of the line that
            benchmarks put behind them for LLaVA (`cof.prompts.SUFFIXES`).
    """

    path: str = "meta-llama/Llama-3.2-11B-Vision-Instruct"
    frame: Literal["", "image", "padded_square", "thousandths"] = ""
    suffix: str | None = None
    quantization: Quantization | None = None
