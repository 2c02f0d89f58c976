"""`Settings`: everything that decides an answer, the model aside; and a config without its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from cof.config import plugins, schema
from cof.config.general import Gate
from cof.config.sections import DEFAULT_NAMES, changed, parse_override, plugin_config
from cof.config.yaml import parse_yaml
from cof.errors import ModelError
from cof.models.base import Limits, Model
from cof.regions.boxes import BoxConfig

_ANY_BENCH = {"name": "mme", "root": "."}
"""`schema.resolve` wants a benchmark; one question asks none, so that its data may be anywhere."""


def _default(section: str) -> Any:
    return plugin_config(section, DEFAULT_NAMES[section])()


@dataclass(frozen=True)
class Settings:
    """Everything that decides an answer, the model aside.

    Attributes:
        locate: the coarse stage, as the `Config` of a module in `cof.locate`.
        boxes: how a region becomes a mask.
        refine: the fine stage, as the `Config` of a module in `cof.refine`.
        limits: how answers are decoded, plain and highlighted alike.
        plain: a run also answers without the highlight, for the comparison.
        gate: which questions are located and refined; None is all.
    """

    locate: Any = field(default_factory=partial(_default, "locate"))
    boxes: BoxConfig = field(default_factory=BoxConfig)
    refine: Any = field(default_factory=partial(_default, "refine"))
    limits: Limits = field(default_factory=Limits)
    plain: bool = True
    gate: Gate | None = None


def settings_of(config: schema.RunConfig) -> Settings:
    """The pipeline's part of a run's config."""
    stages = (config.locate, config.boxes, config.refine)
    return Settings(*stages, config.limits, config.general.plain, config.gate)


class Setup(NamedTuple):
    """A model that is not loaded yet, and the settings.

    Attributes:
        family: the module of its family.
        model: the family's `Config`.
    """

    family: ModuleType
    model: Any
    settings: Settings

    def load(self) -> Model:
        """Load the model."""
        return self.family.load(self.model)  # type: ignore[no-any-return]

    def wrap(self, network: Any) -> Model:
        """The same around a network that the caller has loaded.

        Raises:
            ModelError: not of a kind that the family can take, or the family takes none.
        """
        if not hasattr(self.family, "wrap"):
            name = plugins.label(self.family.__name__)
            raise ModelError(f"family {name}: takes no loaded network; load it by its path")
        return self.family.wrap(network, self.model)  # type: ignore[no-any-return]


def read_setup(config: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Setup:
    """Model and settings of a run's config, the benchmark left aside.

    Args:
        config: a YAML file, or what one holds.
        overrides: `refine.weight=2`, in their order.

    Raises:
        ConfigError: as `cof.config.schema.load`.
    """
    data = dict(config) if isinstance(config, Mapping) else parse_yaml(Path(config))
    for override in overrides:
        data = changed(data, *parse_override(override))
    run = schema.resolve({**data, "bench": _ANY_BENCH})
    return Setup(plugins.load("models", run.names["model"]), run.model, settings_of(run))
