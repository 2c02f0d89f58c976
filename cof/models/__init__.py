"""Model families, one file or folder each; `base.py` says what a `Model` is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cof.models import (
        gemma3,
        idefics3,
        instructblip,
        internvl,
        llava,
        llava_next,
        llava_onevision,
        llava_package,
        mllama,
        qwen_vl,
    )
    from cof.models.base import Model


class Contract(Protocol):
    """What a model family is."""

    @property
    def Config(self) -> type[Any]:  # noqa: N802
        """A frozen dataclass, `cof.models.base.Config` or one that adds to it."""

    def load(self, config: Any) -> Model:
        """The model that a config names."""

    def identify(self, config: Any) -> dict[str, str]:
        """`weights` (a digest), `dtype` and kind of `device` that `load` would give, unloaded."""


class MayHave(Protocol):
    """What a model family may have beside it."""

    def wrap(self, network: Any, config: Any) -> Model:
        """The model around a network that the caller has loaded (`CoF.from_model`)."""


if TYPE_CHECKING:
    _HELD: tuple[Contract, ...] = (
        *(llava, llava_package),
        *(qwen_vl, llava_next, llava_onevision, internvl, idefics3, gemma3),
        *(instructblip, mllama),
    )
