"""Flat keyword arguments -> the part of the settings that has a field of that name.

    route("cof-tiny", None, {"weight": 2, "expand": 1.5, "device": "cpu"})

`weight` is the fine stage's, `expand` the boxes', `device` the model's. A name that several parts
have is refused, but for the coarse stage: it gets what nobody else has, so that `max_new_tokens`
is always the answer's length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cof.config import plugins
from cof.config.build import build
from cof.config.sections import DEFAULT_NAMES, KINDS
from cof.config.settings import Settings, Setup
from cof.errors import ConfigError, shown
from cof.models.base import Limits
from cof.regions.boxes import BoxConfig

PLUGINS = {"family": "model", "refine": "refine", "locate": "locate"}
"""Keyword that names a plug-in, or is its `Config` -> section of a config."""


@dataclass
class _Part:
    """One dataclass that keywords may go to.

    Attributes:
        section: what a config calls it.
        kind: the dataclass.
        base: the instance whose fields stay what they are; None is the dataclass's defaults.
        name: of its plug-in, "" for none.
        given: field -> value.
    """

    section: str
    kind: type[Any]
    base: Any = None
    name: str = ""
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Its fields."""
        return [one.name for one in fields(self.kind)]

    @property
    def made(self) -> Any:
        """The instance with what was given, types and ranges checked."""
        if self.base is not None and not self.given:
            return self.base
        kept = {} if self.base is None else {key: getattr(self.base, key) for key in self.names}
        return build(self.kind, {**kept, **self.given}, self.section)

    def __str__(self) -> str:
        title = f"{self.section} ({self.name})" if self.name else self.section
        return f"{title}: {', '.join(self.names) or 'nothing'}"


def route(path: Any, settings: Settings | None, options: Mapping[str, Any]) -> Setup:
    """A model's config and the settings.

    Args:
        path: of the model; None is the family's own default.
        settings: what the keywords change; None is the paper's method.
        options: fields of the family's `Config`, of the fine stage's, of `BoxConfig` and `Limits`,
            and of the coarse stage's; and the keywords of `PLUGINS`, each the name of a plug-in
            (or of a module, or a `.py` file) or an instance of its `Config`.

    Raises:
        ConfigError: a name that no part has, or several; a wrong type, or an impossible value.
    """
    options, known = dict(options), settings or Settings()
    family, model = _plugin("family", options.pop("family", DEFAULT_NAMES["model"]))
    _, refine = _plugin("refine", options.pop("refine", known.refine))
    _, locate = _plugin("locate", options.pop("locate", known.locate))
    boxes = _Part("boxes", BoxConfig, known.boxes)
    limits = _Part("limits", Limits, known.limits)
    for name, value in options.items():
        _owner(name, [model, refine, boxes, limits], locate).given[name] = _plain(value)
    if path is not None:
        model.given["path"] = str(path)
    if boxes.given.get("rules") == "reference" and "stop" in locate.names:
        locate.given.setdefault("stop", "first")  # the box that these rules read ends the reply
    stages = (locate.made, boxes.made, refine.made)
    chosen = Settings(*stages, limits.made, known.plain, known.gate)
    return Setup(family, model.made, chosen)


def _plugin(keyword: str, given: Any) -> tuple[ModuleType, _Part]:
    """The module that is named, or that a `Config` belongs to, and the part to fill."""
    section = PLUGINS[keyword]
    kind = KINDS[section]
    if isinstance(given, str | Path):
        module, base = plugins.load(kind, str(given)), None
    elif is_dataclass(given) and not isinstance(given, type):
        module, base = plugins.owner(kind, given), given
    else:
        there = ", ".join(plugins.names(kind))
        needs = f"needs a name or a Config, not {shown(given)}; there is: {there}"
        raise ConfigError(f"{keyword}: {needs}")
    return module, _Part(section, module.Config, base, plugins.label(module.__name__))


def _owner(name: str, parts: Sequence[_Part], last: _Part) -> _Part:
    """The part that has a field of a name."""
    found = [part for part in parts if name in part.names] or [last] * (name in last.names)
    if len(found) == 1:
        return found[0]
    if found:
        both = " and ".join(part.section for part in found)
        raise ConfigError(f"{name}: {both} have it; give the one that you mean a Config")
    there = "; ".join(map(str, [*parts, last]))
    raise ConfigError(f"{name}: no such keyword; there is {', '.join(PLUGINS)}, settings; {there}")


def _plain(value: Any) -> Any:
    """A value as a config has it: `torch.float16` and `torch.device` by their names."""
    foreign = type(value).__module__ == "torch"
    return str(value).removeprefix("torch.") if foreign else value
