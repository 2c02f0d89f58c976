"""What a config says of a LLaVA that its own package loads."""

from __future__ import annotations

from dataclasses import dataclass

from cof.models.llava.config import Config as Llava


@dataclass(frozen=True)
class Config(Llava):
    """Which checkpoint to load; see `cof.models.llava.Config`.

    Attributes:
        path: a folder or a hub name, in the original layout; cof-tiny once it is exported to it.
    """
