"""From a run's results to scores.json and the table: pure functions of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, get_args

from cof.analyse.gather import (
    IMAGES,
    OVERVIEW,
    AnyTally,
    Overview,
    Pass,
    answer_of,
    answers_of,
    gather,
    overview,
)
from cof.analyse.significance import paired_difference
from cof.analyse.tables import plural, too_few
from cof.types import FocusStatus, Result

NAMES: dict[Pass, str] = {"plain": "plain", "cof": "CoF"}
"""What tables and messages call the passes."""

STATUSES = get_args(FocusStatus)


def summary(
    bench: ModuleType, results: Sequence[Result], plainly: bool, seed: int, config: Any = None
) -> dict[str, Any]:
    """What scores.json holds. A question counts as wrong in a pass that failed.

    Keys: `cof` and `plain` (the benchmark's published metrics; null where every answer of the pass
    failed, and plain where it was not asked), `paired` (see `paired_difference`, of the benchmark's
    credit a question, clustered by image; null where one of the two is), `status` (how regions
    became masks, where there was a region), `questions`, `errors` (questions of which some pass
    failed), `failed` (how many answers of each pass, null for a pass that was not asked).

    Args:
        bench: module of the benchmark.
        results: one a question.
        plainly: whether the questions were also asked without the highlight.
        seed: of the permutation test.
        config: the benchmark's Config, for the rules that it names; None is its defaults.
    """
    asked = _asked(plainly)
    wanted = {**OVERVIEW, **IMAGES, **answers_of(bench, config, asked)}
    seen, images, *tallies = gather(results, wanted)
    said: dict[Pass, AnyTally] = dict(zip(asked, tallies, strict=True))
    failed = {which: sum(tally.failed()) for which, tally in said.items()}
    scores: dict[str, Any] = {
        "questions": len(results),
        "errors": seen.errors,
        "failed": {"plain": None} | failed,
        "status": {status: seen.status[status] for status in STATUSES},
        "cof": None,
        "plain": None,
        "paired": None,
    }
    kept = [which for which in asked if not results or failed[which] < len(results)]
    scores |= {which: said[which].score() for which in kept}
    labelled = any(bench.table(scores[which]) for which in kept)  # a test split has no metrics
    if len(kept) == 2 and labelled:
        before, after = (said[which].credits() for which in asked)
        scores["paired"] = paired_difference(before, after, images, seed)
    return scores


def _asked(plainly: bool) -> tuple[Pass, ...]:
    return ("plain", "cof") if plainly else ("cof",)


def answers(bench: ModuleType, results: Sequence[Result], which: Pass) -> list[str | None]:
    """What the benchmark scores of one pass, see `cof.analyse.gather.answer_of`."""
    said = answer_of(bench, which)
    return [said(result) for result in results]


def table(bench: ModuleType, scores: dict[str, Any], results: Sequence[Result]) -> str:
    """The scores as text: one row a metric, then accuracy with its interval, then the counts."""
    from tabulate import tabulate

    body, pair = _body(bench, scores), scores["paired"]
    head = ["", "n", *(NAMES[which] for which in asked_of(scores)), "difference"]
    lines = [tabulate(body, head[: len(body[0])], **_STYLE), ""] if body else []
    lines += [_interval(pair)] if pair else []
    lines += [
        f"{scores['questions']} questions, {_failed(scores)}; regions: {_counts(scores)}",
        *(f"no {NAMES[which]} score: every answer failed" for which in without_answers(scores)),
    ]
    return "\n".join([*lines, _seconds(overview(results))])


def _change(row: Sequence[float | None]) -> list[float | None]:
    """CoF minus plain, None where one has no score; nothing where there is one pass only."""
    if len(row) < 2:
        return []
    before, after = row
    return [None if before is None or after is None else after - before]


def asked_of(scores: Mapping[str, Any]) -> list[Pass]:
    """The passes that were asked for, plain first."""
    return [which for which in NAMES if scores["failed"][which] is not None]


def without_answers(scores: Mapping[str, Any]) -> list[Pass]:
    """The passes of which every answer failed, so that they have no score."""
    return [which for which in asked_of(scores) if scores[which] is None]


def _body(bench: ModuleType, scores: dict[str, Any]) -> list[list[Any]]:
    """A row a metric and, of two passes, their accuracy; None for a pass without any answer."""
    asked = asked_of(scores)
    found = {which: bench.table(scores[which]) for which in asked if scores[which] is not None}
    if not found:
        return []
    body = []
    for place, (name, _, n) in enumerate(next(iter(found.values()))):
        row = [found[which][place][1] if which in found else None for which in asked]
        body.append([name, n, *row, *_change(row)])
    if scores["paired"]:
        accuracy = [100 * scores["paired"][key] for key in ("plain", "cof", "difference")]
        body.append(["accuracy, %", scores["questions"], *accuracy])
    return body


def notes(scores: dict[str, Any]) -> list[str]:
    """What a reader of the numbers has to know: what the data lacks, what was left out."""
    metrics = scores.get("cof") or scores.get("plain") or {}
    absent = {**metrics, **scores}.get("missing_subtasks")
    lines = [f"not in this data, and not in the sums: {', '.join(absent)}"] if absent else []
    left = scores.get("unanswered")
    lines += [f"{plural(left, 'question')} without an answer left out"] if left else []
    lines += _of_groups({**metrics, **scores})
    lines += _of_blanks(scores)
    split = {**(scores.get("cof") or {}), **scores}.get("disputed")
    reads = f"{split} answers are read differently by extract=vlmevalkit and extract=clean"
    return [*lines, reads] if split else lines


def _of_blanks(scores: Mapping[str, Any]) -> list[str]:
    """How many answers said nothing, by pass, where the parser takes that for a yes."""
    passes = {name: scores[which] for which, name in NAMES.items() if scores.get(which)}
    said = {name: one["blank_yes"] for name, one in passes.items() if "blank_yes" in one}
    counts = [f"{name} {count}" for name, count in said.items()]
    counts = counts or ([str(scores["blank_yes"])] if "blank_yes" in scores else [])
    why = "this parser takes for a yes (parser=word for neither yes nor no)"
    return [f"empty answers, which {why}: {', '.join(counts)}"] if counts else []


def _of_groups(metrics: Mapping[str, Any]) -> list[str]:
    """What to know of answers that are judged several together, where some are not there."""
    lines = []
    for name, lost in metrics.get("incomplete", {}).items():
        none = "" if metrics[name] is not None else "; none is complete, so it has no value"
        lines.append(f"{name}: {plural(lost, 'group')} with a question missing left out{none}")
    if metrics.get("unchecked_groups"):
        lines.append("the benchmark's folder cannot be read: groups are taken for complete")
    return lines


_STYLE: dict[str, Any] = {
    "floatfmt": ("", "", ".2f", ".2f", "+.2f"),
    "tablefmt": "simple",
    "missingval": "failed",
}


def _interval(pair: dict[str, Any]) -> str:
    change = f"difference {100 * pair['difference']:+.2f} points of accuracy, 95 % interval"
    if pair["reason"] is None:
        ends = f"[{100 * pair['low']:+.2f}, {100 * pair['high']:+.2f}]"
    else:
        ends = too_few(pair["clusters"])
    over = plural(pair["clusters"], "image")
    return f"{change} {ends}, p = {pair['p']:.3f} (permutation over {over})"


def _failed(scores: dict[str, Any]) -> str:
    """`0 failed`, or how many answers of each pass, in one pass or in both."""
    if not scores["errors"]:
        return "0 failed"
    each = ", ".join(f"{NAMES[which]} {scores['failed'][which]}" for which in asked_of(scores))
    return f"{scores['errors']} failed, counted as wrong in the pass that failed ({each})"


def _counts(scores: dict[str, Any]) -> str:
    return ", ".join(f"{status} {count}" for status, count in scores["status"].items())


def _seconds(seen: Overview) -> str:
    """Mean seconds a question of each part, over the questions in which it did not fail."""
    names = {"region": "locating", "cof": "CoF answer", "plain": "plain answer"}
    sums = {name: seen.seconds[part] for part, name in names.items() if part in seen.seconds}
    means = [f"{name} {total / count:.3f}" for name, (total, count) in sums.items()]
    kept = (
        f"; the gate kept {plural(seen.kept, 'plain answer')}, for which the first two were not run"
    )
    told = f"seconds a question: {', '.join(means)}" if means else "no question was answered"
    return told + (kept if seen.kept else "")
