"""`cof eval`: a benchmark through the pipeline into a run folder, resumable at any moment."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof import config as configs
from cof import plugins
from cof.config import RunConfig
from cof.errors import DataError, RunError
from cof.images import load_image
from cof.runs import manifest
from cof.runs.folder import ANSWERS, SCORES, WAY_OUT, Run, RunFolder, load_run
from cof.runs.plan import Batch, fingerprint, plan_batches, read_questions
from cof.runs.records import to_record
from cof.runs.scores import Pass, answers, summary
from cof.types import Result

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof.pipeline import CoF


@dataclass(frozen=True)
class Options:
    """How a run goes about it; none of it changes an answer.

    Attributes:
        strict: stop at the first question that fails.
        overwrite: forget what the folder holds and start anew.
        retry_failed: ask the questions again that failed; their images may have been mended.
        command: the command line, for the manifest.
    """

    strict: bool = False
    overwrite: bool = False
    retry_failed: bool = False
    command: str = ""


def run(config: RunConfig, options: Options | None = None) -> Run:
    """Ask every question that has no record yet, then score; a finished run is only scored.

    Raises:
        ConfigError, DataError, ModelError: see the parts.
        RunError: the folder belongs to another config or dataset, is being written by another
            process, or, with `strict`, a question failed.
    """
    options = options or Options()
    questions = read_questions(config)
    dataset = fingerprint(questions, Path(config.bench.root))
    folder = RunFolder(Path(config.general.out) / (config.general.name or _name(config, dataset)))
    with folder.locked():
        _prepare(folder, config, dataset, options)
        batches = plan_batches(questions, config.general.batch_size)
        if options.retry_failed:
            _drop_failed(folder, batches)
        done = folder.records().keys()
        open_batches = [batch for batch in batches if any(index not in done for index, _ in batch)]
        if open_batches:
            pipeline = build_pipeline(config)
            here = manifest.describe(config, dataset, pipeline.model, options.command)
            manifest.write(folder, here, len(done))
            (folder.path / SCORES).unlink(missing_ok=True)
            _answer_all(pipeline, folder, open_batches, len(questions), config, options)
        _score(folder, config)
    return load_run(folder.path)


def build_pipeline(config: RunConfig) -> CoF:
    """Load the model and put the two stages around it."""
    from cof.cache import ReplyCache
    from cof.pipeline import CoF, Settings

    model = plugins.load("models", config.names["model"]).load(config.model)
    stages = (config.locate, config.boxes, config.refine)
    cache = ReplyCache(Path(config.general.cache)) if config.general.cache else None
    return CoF(model, Settings(*stages, config.limits, config.general.plain), cache)


def _score(folder: RunFolder, config: RunConfig) -> None:
    """Write scores.json, and the answers in the benchmark's published formats."""
    bench, general = plugins.load("bench", config.names["bench"]), config.general
    results = load_run(folder.path).results
    questions = [result.question for result in results]
    passes: list[Pass] = ["plain", "cof"] if general.plain else ["cof"]
    for which in passes:
        given = answers(bench, results, which)
        bench.export(questions, given, folder.path / ANSWERS / which, config.bench)
    scores = summary(bench, results, general.plain, general.seed, config.bench)
    folder.write_json(SCORES, scores)


def _name(config: RunConfig, dataset: Mapping[str, Any]) -> str:
    """`<bench>-<model>-<refine>-<hash>`, the same for the same config and questions."""
    digest = hashlib.sha256(f"{config.hash} {dataset['questions']}".encode()).hexdigest()[:8]
    model = Path(str(config.model.path)).name
    parts = [config.names["bench"], model, config.names["refine"], digest]
    return "-".join(re.sub(r"[^\w.-]", "_", part) for part in parts)


def _prepare(
    folder: RunFolder, config: RunConfig, dataset: Mapping[str, Any], options: Options
) -> None:
    """Make the folder this run's own, or find that it is; drop what a kill left half-written."""
    if options.overwrite:
        folder.clear()
    resolved = config.as_dict()
    there = folder.config()
    if there is None:
        folder.write_config(resolved)
    elif configs.content_hash(there) != config.hash:
        keys = "; ".join(configs.differences(there, resolved))
        raise RunError(f"{folder.path}: made with another config ({keys}); {WAY_OUT}")
    changes = "; ".join(manifest.dataset_changes(folder, dataset, options.retry_failed))
    if changes:
        raise RunError(f"{folder.path}: made with another dataset ({changes}); {WAY_OUT}")
    folder.repair()


def _drop_failed(folder: RunFolder, batches: Sequence[Batch]) -> None:
    """Drop the whole batches of failed questions: the others in them were answered without."""
    failed = {index for index, record in folder.records().items() if record["error"]}
    grouped = [{index for index, _ in batch} for batch in batches]
    folder.drop(set().union(*(group for group in grouped if group & failed)))


def _answer_all(
    pipeline: CoF,
    folder: RunFolder,
    batches: Sequence[Batch],
    total: int,
    config: RunConfig,
    options: Options,
) -> None:
    """Answer batch after batch and write each before the next begins.

    A batch of which a part was written before a kill is answered again as a whole, so that every
    question is answered in the company that it has in an undisturbed run; only what is missing is
    written.
    """
    from tqdm import tqdm

    done = set(folder.records())
    bar = tqdm(total=total, initial=len(done), unit="question", desc=folder.path.name)
    root = Path(config.bench.root)
    opened = functools.lru_cache(maxsize=2)(load_image)
    with bar:
        for batch in batches:
            results = _answer(pipeline, batch, root, opened)
            rows = [row for row in zip(batch, results, strict=True) if row[0][0] not in done]
            failed = next((result for _, result in rows if result.error), None)
            if failed and options.strict:
                raise RunError(f"question {failed.question.id}: {failed.error} (--strict)")
            folder.append([to_record(index, result) for (index, _), result in rows])
            bar.update(len(rows))


def _answer(
    pipeline: CoF, batch: Batch, root: Path, opened: Callable[[Path], Image]
) -> list[Result]:
    """One result a question, in order; an image that cannot be opened fails its own alone."""
    results: dict[int, Result] = {}
    pictures: dict[int, Image] = {}
    for index, question in batch:
        try:
            pictures[index] = opened(root / question.image)
        except DataError as error:
            results[index] = Result(question, error=str(error))
    asked = {index: question for index, question in batch if index in pictures}
    if asked:
        answered = pipeline.answer_batch(list(asked.values()), list(pictures.values()))
        results |= zip(asked, answered, strict=True)
    return [results[index] for index, _ in batch]
