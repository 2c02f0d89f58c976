"""A run's results as a table: one flat row a question, for pandas and whatever else reads rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from cof.config import plugins
from cof.config.build import build
from cof.types import Answer, Result

BESIDES = ("name", "limit", "sha256")
"""Keys of a run's section `bench` that are none of the benchmark's own `Config`."""


def rows(
    config: Mapping[str, Any], results: Sequence[Result], credits: bool = True
) -> list[dict[str, Any]]:
    """One row a question, in dataset order.

    Args:
        config: the run's, as plain data.
        results: the run's.
        credits: also score each answer, which needs the run's benchmark to be importable.

    Raises:
        ConfigError: the benchmark cannot be imported.
    """
    bench, options = _bench(config) if credits else (None, None)
    found = []
    for result in results:
        row = _row(result)
        if bench is not None:
            row |= _credits(bench, options, result, bool(config["plain"]))
        found.append(row)
    return found


def _bench(config: Mapping[str, Any]) -> tuple[ModuleType, Any]:
    data = {key: value for key, value in config["bench"].items() if key not in BESIDES}
    module = plugins.load("bench", config["bench"]["name"])
    return module, build(module.Config, data, "bench")


def _row(result: Result) -> dict[str, Any]:
    asked, region = result.question, result.region
    passes = {"plain": result.plain, "cof": result.cof}
    return {
        "id": asked.id,
        "image": asked.image,
        "category": asked.category,
        "question": asked.text,
        "reference": asked.reference,
        **{name: said.text if said else None for name, said in passes.items()},
        "boxes": [box.as_tuple() for box in region.boxes] if region else [],
        "status": result.status,
        "tokens": result.tokens,
        "highlighted": len(result.cells),
        "error": result.error,
        "region_seconds": region.seconds if region else None,
        **{f"{name}_seconds": said.seconds if said else None for name, said in passes.items()},
        **{f"{name}_logprob": said.logprob if said else None for name, said in passes.items()},
        **({"margin": result.gate.margin, "asked": result.gate.asked} if result.gate else {}),
    }


def _credits(bench: ModuleType, options: Any, result: Result, plainly: bool) -> dict[str, Any]:
    """Credit of each pass in [0, 1]; 0 where it failed, None where nobody asked or can tell."""
    asked = result.question
    if not (asked.reference or asked.boxes):
        return {"plain_credit": None, "cof_credit": None}
    plain = _credit(bench, options, result, result.plain) if plainly else None
    return {"plain_credit": plain, "cof_credit": _credit(bench, options, result, result.cof)}


def _credit(bench: ModuleType, options: Any, result: Result, answer: Answer | None) -> float:
    if hasattr(bench, "region_answer"):  # the coarse stage is scored, in both passes
        said = bench.region_answer(result.region) if result.region else None
    else:
        said = answer.text if answer else None
    return float(bench.credit(result.question, said, options))
