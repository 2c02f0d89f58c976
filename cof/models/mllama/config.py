"""What a config says of a Llama 3.2 Vision."""

from __future__ import annotations

from dataclasses import dataclass

from cof.models.common import family


@dataclass(frozen=True)
class Config(family.Config):
    """Which Llama 3.2 Vision to load and how; see `cof.models.common.family.Config`."""

    path: str = "meta-llama/Llama-3.2-11B-Vision-Instruct"
