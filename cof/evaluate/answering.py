"""The loop of every run: batch after batch, one setting or several, each record on disk at once.

A cell is one setting with its run folder. Cells that are answered together share images, vision,
plain pass and coarse stages (`CoF.answer_many`); `cof eval` is a single cell, `cof sweep` a grid.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof.config.schema import RunConfig
from cof.config.settings import settings_of
from cof.errors import DataError, RunError, cut
from cof.evaluate.memory import Ask, Fitted
from cof.evaluate.prefetch import feed
from cof.evaluate.progress import progress
from cof.files import Member
from cof.images import load_image
from cof.store import manifest, origin
from cof.store.dataset import PlannedBatch, batch_limit, pictures
from cof.store.folder import SCORES, RunFolder
from cof.store.hashing import ImageHash
from cof.store.records import to_record
from cof.types import Question, Result

if TYPE_CHECKING:
    from cof.batch import Prepared
    from cof.exif import Exif
    from cof.pipeline import CoF


@dataclass(frozen=True)
class RunSetting:
    """One setting, the run folder of its records, what it is asked, and of which model.

    Attributes:
        asked: the fingerprint of the questions, and of the regions that are read from a file.
        images: the hash of the images, of several processes in the first.
        identity: the model's, see `cof.store.origin.identify`.
    """

    config: RunConfig
    folder: RunFolder
    asked: Mapping[str, Any]
    images: ImageHash
    identity: Mapping[str, str]

    @property
    def dataset(self) -> dict[str, Any]:
        """The fingerprint of everything, as far as it is known by now."""
        return {**self.asked, "images": self.images.now}

    @functools.cached_property
    def made(self) -> origin.Made:
        """What every record says about where it comes from."""
        return origin.made(self.config.as_dict(), self.identity, self.asked)

    def lacks(self, total: int) -> bool:
        """True where some of the `total` questions have no record yet."""
        return len(self.folder.indexes()) < total

    @property
    def scored(self) -> bool:
        """True once the run was finished and scored."""
        return (self.folder.path / SCORES).exists()


def answer_all(
    pipeline: CoF,
    cells: Sequence[RunSetting],
    batches: Sequence[PlannedBatch],
    seal: Callable[[], None],
    strict: bool = False,
    rows: int | None = None,
) -> None:
    """Answer batch after batch and write each before the next begins.

    A batch of which a part was written before a kill is answered again as a whole, for all cells,
    so that every question is answered in the company that it has in an undisturbed run; only what
    is missing is written. Of several processes each answers its own batches.

    Args:
        pipeline: built for the first cell.
        cells: settings that may share a batch, their folders locked.
        batches: the whole dataset.
        seal: called once there are records to write and, without any, at the end; when it returns,
            the manifest says everything about them.
        strict: stop at the first question that fails.
        rows: most rows of one fine pass, see `CoF.answer_many`.

    Raises:
        RunError: with `strict`, a question failed; a batch does not fit into memory.
    """
    config, folder = cells[0].config, cells[0].folder
    load = partial(open_image, pipeline, config.images.exif)
    known = [cell.folder.indexes() for cell in cells]
    done = set.intersection(*known)
    own = folder.ranks.deal(batches)
    todo = [batch for batch in own if any(index not in done for index, _ in batch)]
    ask = _asker(pipeline, cells, rows)
    name = folder.path.name if len(cells) == 1 else f"{len(cells)} settings"
    total, left = (sum(map(len, some)) for some in (own, todo))
    with (
        progress(total, "question", name, total - left, folder.ranks.leads) as bar,
        contextlib.closing(feed(todo, pictures(config), config.general.workers, load)) as fed,
    ):
        for batch, images in fed:
            found = answered(ask, batch, len(cells), images)
            seal()
            for cell, there, results in zip(cells, known, found, strict=True):
                _write(cell, batch, results, there, strict)
            bar.update(len(batch))
    seal()


def _asker(pipeline: CoF, cells: Sequence[RunSetting], rows: int | None) -> Ask:
    """How a batch is asked, within the memory there is."""
    variants = [settings_of(cell.config) for cell in cells]
    size = cells[0].config.general.batch_size
    limit = manifest.batch_size(cells[0].folder) or batch_limit(size)

    def ask(questions: Sequence[Question], pictures: Sequence[Prepared]) -> list[list[Result]]:
        if len(cells) == 1:
            return [pipeline.answer_batch(questions, pictures)]
        return pipeline.answer_many(questions, pictures, variants, rows)

    def changed(fits: int) -> None:
        for cell in cells:
            manifest.write_batch_size(cell.folder, fits)

    if size == "auto":
        changed(limit)
    return Fitted(ask, limit, size == "auto", changed)


def open_image(pipeline: CoF, exif: Exif, path: Path | Member) -> Prepared:
    """An image file, ready for the pipeline; done ahead, in a worker.

    Raises:
        DataError, DiskError, MemoryError: as `load_image`.
        DataError: the model cannot be shown it; names the image.
        RunError: the model cannot make it ready; names the image.
    """
    image = load_image(path, exif=exif)
    try:
        return pipeline.prepare(image)
    except DataError as error:
        raise DataError(f"image {str(path)!r}: {error}") from error
    except MemoryError as error:
        raise MemoryError(f"image {str(path)!r} does not fit into memory") from error
    except Exception as error:  # a model's own, in a thread: without this nobody knew which image
        why = f"{type(error).__name__}: {cut(str(error), 200)}"
        raise RunError(f"image {str(path)!r} cannot be made ready for the model ({why})") from error


def answered(
    ask: Ask, batch: PlannedBatch, cells: int, images: Sequence[Prepared | DataError]
) -> list[list[Result]]:
    """For each cell one result a question; an image that cannot be shown fails its own alone."""
    failed: dict[int, Result] = {}
    pictures: dict[int, Prepared] = {}
    for (index, question), image in zip(batch, images, strict=True):
        if isinstance(image, DataError):
            failed[index] = Result(question, error=str(image))
        else:
            pictures[index] = image
    asked = [question for index, question in batch if index in pictures]
    found = ask(asked, list(pictures.values())) if asked else [[]] * cells
    by_index = [failed | dict(zip(pictures, results, strict=True)) for results in found]
    return [[results[index] for index, _ in batch] for results in by_index]


def _write(
    cell: RunSetting, batch: PlannedBatch, results: Sequence[Result], done: set[int], strict: bool
) -> None:
    """Append the records that are missing."""
    rows = [row for row in zip(batch, results, strict=True) if row[0][0] not in done]
    failed = next((result for _, result in rows if result.error), None)
    if failed and strict:
        raise RunError(f"question {failed.question.id}: {failed.error} (--strict)")
    cell.folder.append([to_record(index, result, cell.made) for (index, _), result in rows])
