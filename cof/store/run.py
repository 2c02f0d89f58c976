"""A run folder as somebody reads it: config, manifest, results, scores.

Config, manifest and records are held against each other: files of different runs are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof.errors import RunError
from cof.store import manifest_check, origin, record_files
from cof.store.dataset import questions_hash
from cof.store.folder import CONFIG, MIXED, SCORES, RunFolder
from cof.store.places import Places
from cof.store.record_check import result_of
from cof.store.record_files import MADE
from cof.store.record_view import HeldResults, RecordView
from cof.store.rows import rows
from cof.types import Result

HELD = 5000
"""Most results that `load_run` keeps in memory; those of larger runs are read when asked for."""


@dataclass(frozen=True)
class Run:
    """A run as it lies on disk, finished or not.

    Attributes:
        path: its folder.
        config: the resolved config, as plain data (`cof.config.schema.resolve` checks it).
        manifest: under what it was made; empty where the run was stopped before its first batch.
        results: one per finished question, in dataset order; of a large run a sequence that
            reads them from disk, see `cof.store.record_view`.
        scores: see `cof.analyse.scores.summary`; empty where the run is not finished.
    """

    path: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    results: Sequence[Result]
    scores: dict[str, Any]

    @property
    def failed(self) -> tuple[Result, ...]:
        """Results without an answer; their `error` says why."""
        return tuple(result for result in self.results if result.error)

    def to_rows(self, credits: bool = True) -> list[dict[str, Any]]:
        """One flat row a question: id, image, category, question, reference, answers, and so on.

        `plain` and `cof` are the answers, None where a pass failed; `plain_credit` and
        `cof_credit` their credit in [0, 1] by the benchmark's own rule, unless `credits` is false;
        `boxes` those of the coarse stage, in fractions of the image.

        Raises:
            ConfigError: `credits` of a benchmark that cannot be imported.
        """
        return rows(self.config, self.results, credits)

    def to_pandas(self, credits: bool = True) -> Any:
        """`to_rows` as a pandas DataFrame.

        Raises:
            RunError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise RunError("to_pandas needs pandas: pip install pandas, or cof[pandas]") from error
        return pandas.DataFrame(self.to_rows(credits))


def load_run(path: str | Path) -> Run:
    """Read a run folder, also one that is still being written.

    Raises:
        RunError: no run folder, a file in it that is damaged, or files of different runs.
        DiskError: a file cannot be read, or is none.
    """
    folder = RunFolder(Path(path))
    config = folder.config()
    if config is None:
        raise RunError(f"{path}: not a run folder (no {CONFIG})")
    results, made, last = _read(folder.path)
    manifest = folder.manifest(bool(results))
    run = Run(
        path=folder.path,
        config=config,
        manifest=manifest,
        results=results,
        scores=folder.read_json(SCORES),
    )
    if results:
        _check_origin(run, made, last)
    return run


def _read(folder: Path) -> tuple[Sequence[Result], origin.Made | None, int]:
    """All results, each checked, what they say of their origin, and the highest index."""
    places, held, made, last = Places(), dict[int, Result](), None, 0
    for line in record_files.read(folder, places):
        result, index = _result(line), line.record["index"]
        made, last = made or line.record.get(MADE), max(last, index)
        if len(places) <= HELD:
            held[index] = result
        else:
            held.clear()
    if len(places) > HELD:
        return RecordView(places), made, last
    return HeldResults(held[index] for index in sorted(held)), made, last


def _result(line: record_files.RecordLine) -> Result:
    try:
        return result_of(line.record)
    except ValueError as error:
        raise RunError(f"{line.file}: line {line.number}: damaged ({error})") from None


def _check_origin(run: Run, made: origin.Made | None, last: int) -> None:
    """Refuse records that config.yaml and the manifest do not speak of."""
    origin.check(str(run.path), made, origin.made_of(run.config, run.manifest), MIXED)
    dataset = manifest_check.latest(run.manifest)["dataset"]
    total = dataset["question_count"]
    if last >= total:
        raise RunError(f"{run.path}: a record of question {last}, but there are {total}; {MIXED}")
    if made is None and len(run.results) == total:  # older records, which do not say it themselves
        asked = questions_hash([result.question for result in run.results])
        if asked != dataset["questions"]:
            raise RunError(f"{run.path}: records of other questions; {MIXED}")


def unfinished(run: Run) -> int:
    """How many questions of the dataset have no record yet.

    Raises:
        RunError: no question has, and there is no manifest to tell.
    """
    if not run.manifest:
        raise RunError(f"{run.path}: no records yet")
    return int(manifest_check.latest(run.manifest)["dataset"]["question_count"]) - len(run.results)


def run_hash(run: Run) -> str:
    """Eight hex digits of settings, weights and dataset: those that end a made-up folder name."""
    return origin.digest(origin.made_of(run.config, run.manifest))
