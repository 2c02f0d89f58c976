"""What a config says of a LLaVA beyond what every model has."""

from __future__ import annotations

from dataclasses import dataclass

from cof.models import base


@dataclass(frozen=True)
class Config(base.Config):
    """Which LLaVA to load and how; see `cof.models.base.Config` for the rest.

    Attributes:
        conv: chat template, `vicuna_v1` or `llava_v1`.
        compile: decode on a static cache through `torch.compile`; pays on CUDA with long replies.
    """

    conv: str = "vicuna_v1"
    compile: bool = False
