"""A benchmark's Config from a command line."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from cof.config.build import build
from cof.config.yaml import parse_value
from cof.errors import ConfigError


def bench_config(
    bench: ModuleType, name: str, named: dict[str, Any], options: Sequence[str] = ()
) -> Any:
    """The Config of a benchmark.

    Args:
        bench: its module.
        name: what to call it in messages.
        named: values of keys; None was not given.
        options: `key=value`, the value as YAML; these win.

    Raises:
        ConfigError: not key=value, an unknown key, or a value that the key cannot have.
    """
    given = {key: value for key, value in named.items() if value is not None}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"{option!r} is not KEY=VALUE")
        given[key] = parse_value(value, key)
    return build(bench.Config, given, name)
