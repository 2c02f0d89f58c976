"""`cof eval`: a benchmark through the pipeline into a run folder, resumable at any moment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof.analyse.gather import Pass, answer_of
from cof.analyse.scores import summary
from cof.config import plugins
from cof.config.schema import RunConfig, exif_of
from cof.config.settings import settings_of
from cof.errors import ConfigError
from cof.evaluate.answering import RunSetting, answer_all
from cof.evaluate.prepare import note_failed, prepare
from cof.store import manifest, origin
from cof.store.dataset import (
    benchmark_hash,
    described,
    first_tagged,
    pictures,
    plan_batches,
    read_questions,
)
from cof.store.folder import ANSWERS, CONFIG, FLIPS, SCORES, RunFolder
from cof.store.hashing import PENDING, ImageHash
from cof.store.launch import Meeting, Ranks
from cof.store.run import Run, load_run
from cof.types import Question

if TYPE_CHECKING:
    from cof.models.base import Model
    from cof.pipeline import CoF


@dataclass(frozen=True)
class Options:
    """How a run goes about it; none of it changes an answer.

    Attributes:
        strict: stop at the first question that fails.
        overwrite: forget what the folder holds and start anew.
        retry_failed: ask the questions again that failed; their images may have been mended.
        command: the command line, for the manifest.
        rows: of several settings at once, most rows in one fine pass; None puts all into one.
    """

    strict: bool = False
    overwrite: bool = False
    retry_failed: bool = False
    command: str = ""
    rows: int | None = None


def run(config: RunConfig, options: Options | None = None) -> Run:
    """Ask every question that has no record yet, then score; a finished run is only scored.

    Raises:
        ConfigError, DataError, ModelError: see the parts.
        RunError: the folder belongs to another config or dataset, is being written by another
            process, or, with `strict`, a question failed.
    """
    return run_cells([config], options)[0]


def run_cells(settings: Sequence[RunConfig], options: Options | None = None) -> list[Run]:
    """`run` for several settings over the same questions, each in its own folder.

    Settings that differ in `locate`, `boxes` and `refine` only are answered together, batch by
    batch. Answers may differ by rounding from those of a setting that runs alone. Several
    processes of one launch (`cof.store.launch`) share the batches; the runs are returned in each.

    Raises:
        ConfigError: settings that ask different questions.
        RunError: as `run`; or a process of the launch ended early.
    """
    options = options or Options()
    first = settings[0]
    if any(_asks(one) != _asks(first) for one in settings):
        raise ConfigError("bench: settings that are compared must ask the same questions")
    questions = read_questions(first)
    for one in settings:
        check(one, questions)
    ranks = Ranks.here()
    with (
        contextlib.closing(ImageHash(questions, pictures(first))) as images,
        contextlib.ExitStack() as locks,
    ):
        if ranks.leads:
            images.start()
        identities = {_model(one): origin.identify(one) for one in settings}
        asked = described(questions, PENDING)
        cells = [
            _open(one, asked | origin.regions(one), images, identities[_model(one)], ranks, locks)
            for one in settings
        ]
        meeting = Meeting(ranks)
        meeting.gather("locked")
        for cell in cells if ranks.leads else []:
            prepare(cell, questions, options.overwrite, options.retry_failed)
        meeting.release("prepared")
        for number, group in enumerate(_together(cells)):
            _fill(group, questions, options, partial(meeting.release, f"go-{number}"))
        for cell in cells if ranks.leads else []:
            cell.folder.join()
            cell.folder.merge(len(questions))
            note_failed(cell, questions)
            _score(cell.folder, cell.config, questions)
            cell.folder.tidy()
    for cell in cells if not ranks.leads else []:
        cell.folder.join()
    return [load_run(cell.folder.path) for cell in cells]


def _asks(config: RunConfig) -> tuple[Any, ...]:
    return config.names["bench"], config.bench, config.subset


def check(config: RunConfig, questions: Sequence[Question]) -> None:
    """Let both stages refuse the benchmark, before anything is loaded or written."""
    for kind in ("locate", "refine"):
        stage = plugins.load(kind, config.names[kind])
        check_dataset = getattr(stage, "check_dataset", None)
        if check_dataset is not None:
            check_dataset(config.names["bench"], questions, getattr(config, kind))
    _check_chosen(config)
    _check_frame(config, questions)
    _check_gate(config)


def _check_gate(config: RunConfig) -> None:
    """Refuse a gate where no answers are kept."""
    bench = config.names["bench"]
    if config.gate and hasattr(plugins.load("bench", bench), "region_answer"):
        raise ConfigError(f"gate: {bench} scores regions, and a gate keeps plain answers instead")


def _check_chosen(config: RunConfig) -> None:
    """Refuse a part that these very questions chose."""
    for key, what in (("gate", "threshold"), ("locate", "setting")):
        chosen_on = getattr(getattr(config, key), "chosen_on", "")
        if chosen_on and chosen_on == benchmark_hash(config):
            raise ConfigError(
                f"{key}.chosen_on: {config.bench.root} holds the questions that chose this {what}; "
                "its numbers on them would flatter it: report on other questions"
            )


def _check_frame(config: RunConfig, questions: Sequence[Question]) -> None:
    """Refuse another run's boxes where that run showed the pictures otherwise (`images.exif`)."""
    for key in ("path", "of"):
        place = Path(getattr(config.locate, key, "") or "")
        is_records = place.name.startswith("records") and place.is_file()
        if not is_records and not (place.name and place.is_dir()):  # boxes of no run
            continue
        folder = RunFolder(place.parent if is_records else place)
        there = folder.config() if (folder.path / CONFIG).is_file() else None
        if there is None or exif_of(there) == config.images.exif:
            continue
        name = first_tagged(config, questions)
        if name:
            raise ConfigError(
                f"locate.{key}: {place} was made with images.exif={exif_of(there)}, this run has "
                f"{config.images.exif}, and {name} has an EXIF orientation: boxes would be turned"
            )


def _model(config: RunConfig) -> tuple[str, Any]:
    return config.names["model"], config.model


def _open(
    config: RunConfig,
    asked: Mapping[str, Any],
    images: ImageHash,
    identity: Mapping[str, str],
    ranks: Ranks,
    locks: contextlib.ExitStack,
) -> RunSetting:
    """The setting's folder, locked."""
    made = origin.made(config.as_dict(), identity, asked)
    folder = RunFolder(run_path(config, made), ranks)
    locks.enter_context(folder.locked())
    return RunSetting(config, folder, asked, images, identity)


def _together(cells: Sequence[RunSetting]) -> list[list[RunSetting]]:
    """Cells that can share batches, group by group."""
    groups: dict[tuple[Any, ...], list[RunSetting]] = {}
    for cell in cells:
        one = cell.config
        fed = (one.general.plain, one.general.batch_size)
        key = (one.names["model"], one.model, one.limits, one.gate, *fed)
        groups.setdefault(key, []).append(cell)
    return list(groups.values())


def _fill(
    cells: Sequence[RunSetting],
    questions: Sequence[Question],
    options: Options,
    go: Callable[[], None],
) -> None:
    """Answer what has no record yet; rank 0 holds the others' records (`go`) until the manifest is
    whole.

    Cells that are complete but not scored stay in the company: a kill fell into the last batch.
    """
    batches = plan_batches(questions, cells[0].config.general.batch_size)
    cells = [cell for cell in cells if not cell.scored or cell.lacks(len(questions))]
    if not any(cell.lacks(len(questions)) for cell in cells):
        return
    from cof.stages import check_model

    pipeline = build_pipeline(cells[0].config)
    for cell in cells:
        check_model(pipeline.model, settings_of(cell.config))
    for cell in cells if cells[0].folder.ranks.leads else []:
        here = manifest.describe(
            cell.config, cell.dataset, cell.identity, pipeline.model, options.command
        )
        manifest.write(cell.folder, here, len(cell.folder.indexes()))
        (cell.folder.path / SCORES).unlink(missing_ok=True)
    seal = cache(partial(_seal, cells, go))
    if cells[0].images.known:
        seal()
    answer_all(pipeline, cells, batches, seal, options.strict, options.rows)
    for cell in cells if cells[0].folder.ranks.leads else []:
        _measure_flips(pipeline.model, cell)


def _measure_flips(model: Model, cell: RunSetting) -> None:
    """In half precision ask some questions again, one at a time: `flips.json`."""
    from cof.evaluate import flips
    from cof.pipeline import CoF

    if flips.due(cell.config, cell.identity):
        results = load_run(cell.folder.path).results
        found = flips.measure(CoF(model, settings_of(cell.config)), cell.config, results)
        cell.folder.write_json(FLIPS, found)


def _seal(cells: Sequence[RunSetting], go: Callable[[], None]) -> None:
    """Wait for what the manifests lack; behind this, records may be written by every process."""
    for cell in cells if cells[0].folder.ranks.leads else []:
        manifest.write_images(cell.folder, cell.images.wait())
    go()


def build_pipeline(config: RunConfig) -> CoF:
    """Load the model and put the two stages around it."""
    from cof.models.common.determinism import make_deterministic
    from cof.pipeline import CoF
    from cof.store.replies import ReplyCache

    Ranks.here().take_gpu(config.model.device)
    if config.general.deterministic:
        make_deterministic()
    model = plugins.load("models", config.names["model"]).load(config.model)
    cache = ReplyCache(Path(config.general.cache)) if config.general.cache else None
    return CoF(model, settings_of(config), cache)


def _score(
    folder: RunFolder, config: RunConfig, questions: Sequence[Question] | None = None
) -> None:
    """Write scores.json, and the answers in the benchmark's published formats.

    Args:
        folder: of the run, finished.
        config: of the run.
        questions: all of them where they are in memory; None takes them out of the records.
    """
    bench, general = plugins.load("bench", config.names["bench"]), config.general
    results = load_run(folder.path).results
    passes: list[Pass] = ["plain", "cof"] if general.plain else ["cof"]
    questions = questions or [result.question for result in results]
    for which in passes:
        said = map(answer_of(bench, which), results)
        pairs = zip(questions, said, strict=True)
        given = [(question, text) for question, text in pairs if text is not None]
        asked, texts = ([pair[place] for pair in given] for place in (0, 1))
        bench.export(asked, texts, folder.path / ANSWERS / which, config.bench)
    scores = summary(bench, results, general.plain, general.seed, config.bench)
    folder.write_json(SCORES, scores)


def run_path(config: RunConfig, made: origin.Made) -> Path:
    """The folder of a run: named, or after what it is made of."""
    named = origin.run_name(config, config.names["refine"], origin.digest(made))
    return Path(config.general.out) / (config.general.name or named)
