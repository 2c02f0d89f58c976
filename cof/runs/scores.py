"""From a run's results to scores.json and the table: pure functions of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal, get_args

from cof.runs.statistics import paired_difference
from cof.types import FocusStatus, Result

Pass = Literal["plain", "cof"]

STATUSES = get_args(FocusStatus)


def summary(
    bench: ModuleType, results: Sequence[Result], plainly: bool, seed: int, config: Any = None
) -> dict[str, Any]:
    """What scores.json holds. A question that failed counts as wrong in both passes.

    Keys: `cof` and `plain` (the benchmark's published metrics; plain is null where it was not
    asked), `paired` (see `paired_difference`, of the benchmark's credit a question, clustered by
    image), `status` (how regions became masks, failures aside), `questions`, `errors`.

    Args:
        bench: module of the benchmark.
        results: one a question.
        plainly: whether the questions were also asked without the highlight.
        seed: of the bootstrap.
        config: the benchmark's Config, for the rules that it names; None is its defaults.
    """
    questions = [result.question for result in results]
    cof = answers(bench, results, "cof")
    counts: Counter[str] = Counter(result.status for result in results if not result.error)
    scores: dict[str, Any] = {
        "questions": len(results),
        "errors": sum(bool(result.error) for result in results),
        "status": {status: counts[status] for status in STATUSES},
        "cof": bench.score(questions, cof, config),
        "plain": None,
        "paired": None,
    }
    if plainly:
        plain = answers(bench, results, "plain")
        before = [bench.credit(*row, config) for row in zip(questions, plain, strict=True)]
        after = [bench.credit(*row, config) for row in zip(questions, cof, strict=True)]
        clusters = [question.image for question in questions]
        scores["plain"] = bench.score(questions, plain, config)
        scores["paired"] = paired_difference(before, after, clusters, seed)
    return scores


def answers(bench: ModuleType, results: Sequence[Result], which: Pass) -> list[str | None]:
    """What the benchmark scores of one pass, None for a question that failed.

    That is the answer's text; for a benchmark of the coarse stage its region, in both passes.
    """
    if hasattr(bench, "region_answer"):
        regions = [result.region for result in results]
        return [bench.region_answer(region) if region else None for region in regions]
    found = [getattr(result, which) for result in results]
    return [answer.text if answer else None for answer in found]


def table(bench: ModuleType, scores: dict[str, Any], results: Sequence[Result]) -> str:
    """The scores as text: one row a metric, then accuracy with its interval, then the counts."""
    from tabulate import tabulate

    rows = [list(row) for row in bench.table(scores["cof"])]
    lines = [
        f"{scores['questions']} questions, {scores['errors']} failed; regions: {_counts(scores)}"
    ]
    if scores["plain"] is None:
        text = tabulate([[name, n, value] for name, value, n in rows], ["", "n", "CoF"], **_STYLE)
        return "\n".join([text, "", *lines, _seconds(results)])
    both = zip(rows, bench.table(scores["plain"]), strict=True)
    body = [[name, n, before, value, value - before] for (name, value, n), (_, before, _) in both]
    pair = scores["paired"]
    accuracy = [100 * pair[key] for key in ("plain", "cof", "difference")]
    body.append(["accuracy, %", scores["questions"], *accuracy])
    text = tabulate(body, ["", "n", "plain", "CoF", "difference"], **_STYLE)
    return "\n".join([text, "", _interval(pair), *lines, _seconds(results)])


def notes(scores: dict[str, Any]) -> list[str]:
    """What a reader of the numbers has to know: what the data lacks, what was left out."""
    absent = {**scores.get("cof", {}), **scores}.get("missing_subtasks")
    lines = [f"not in this data, and not in the sums: {', '.join(absent)}"] if absent else []
    left = scores.get("unanswered")
    lines += [f"{left} questions without an answer left out"] if left else []
    split = {**scores.get("cof", {}), **scores}.get("disputed")
    reads = f"{split} answers are read differently by extract=vlmevalkit and extract=clean"
    return [*lines, reads] if split else lines


_STYLE: dict[str, Any] = {"floatfmt": ("", "", ".2f", ".2f", "+.2f"), "tablefmt": "simple"}


def _interval(pair: dict[str, Any]) -> str:
    if pair["low"] is None:
        return "one image only: no interval for the difference"
    low, high = 100 * pair["low"], 100 * pair["high"]
    return (
        f"difference {100 * pair['difference']:+.2f} points of accuracy, 95 % interval "
        f"[{low:+.2f}, {high:+.2f}] (bootstrap over {pair['clusters']} images)"
    )


def _counts(scores: dict[str, Any]) -> str:
    return ", ".join(f"{status} {count}" for status, count in scores["status"].items())


def _seconds(results: Sequence[Result]) -> str:
    """Mean seconds a question of each part, over the questions that were answered."""
    answered = [result for result in results if result.cof and result.region]
    if not answered:
        return "no question was answered"
    parts = {
        "locating": [result.region.seconds for result in answered if result.region],
        "CoF answer": [result.cof.seconds for result in answered if result.cof],
        "plain answer": [result.plain.seconds for result in answered if result.plain],
    }
    means = [f"{name} {sum(part) / len(part):.3f}" for name, part in parts.items() if part]
    return f"seconds a question: {', '.join(means)}"
