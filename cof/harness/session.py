"""Questions that another tool asks, through both stages; a record of each.

    <out>/<name>/config.yaml      the resolved config, without a benchmark
    <out>/<name>/manifest.json    weights, versions, hardware, code, command
    <out>/<name>/records.jsonl    a line a question, see `cof.store.records`, and what the tool
                                  calls it
    <out>/<name>/noted.json       what became of how many questions, other than asked for

Of several processes each has its own records-<rank>.jsonl and noted-<rank>.json.

Each question carries its own limits, since in other tools the benchmark chooses them. Each has a
picture of its own, opened while the model works on the batch before: equal pixels within a batch
are seen by the model once.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof.config.identity import content_hash
from cof.config.schema import RunConfig
from cof.errors import AnswerError, ConfigError, DataError, RunError
from cof.evaluate.answering import answered
from cof.evaluate.memory import Fitted
from cof.evaluate.prefetch import ahead
from cof.evaluate.progress import progress
from cof.evaluate.runner import build_pipeline
from cof.models.base import Limits
from cof.store import manifest, origin
from cof.store.dataset import PlannedBatch, batch_limit
from cof.store.folder import MANIFEST, RunFolder
from cof.store.launch import Ranks
from cof.store.records import to_record
from cof.types import Answer, Question, Result

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof.batch import Prepared
    from cof.pipeline import CoF


@dataclass(frozen=True)
class Asked:
    """One question of another tool.

    Attributes:
        id: what tells it from the tool's others, for the record.
        text: as the model is asked it, without the chat template.
        open: gives its picture, RGB; called once, when its batch is due.
        limits: how its answer is decoded.
        extra: what else its record has: names of task and document.
    """

    id: str
    text: str
    open: Callable[[], Image]
    limits: Limits
    extra: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> tuple[Question, Image]:
        """As the pipeline takes it, and its picture; the record knows that by its pixels."""
        image = self.open()
        name = f"pixels-{digest(image)[:16]}"
        return Question(self.id, name, self.text, category=str(self.extra.get("task", ""))), image


class Session:
    """A loaded model, the settings, and the folder of the records.

    Args:
        config: of `read_arguments`.
        folder: of the records; must not hold any.
        command: for the manifest.
        strict: stop at the first question that fails.
        ranks: which process of a launch this is; None reads it from the launcher.

    Attributes:
        notes: what became of how many questions, other than asked for.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        command: str = "",
        strict: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        if config.limits.temperature:
            raise ConfigError(f"limits.temperature={config.limits.temperature}: {NO_SAMPLING}")
        self.config, self.strict, self.notes = config, strict, Counter[str]()
        self.folder = RunFolder(folder, ranks or Ranks.here())
        if self.folder.ranks.leads and any(self.folder.records()):
            raise RunError(f"{folder}: holds records already; choose another name= or out=")
        self.identity = origin.identify(config)
        self.pipeline = build_pipeline(config)
        self._count, self._fits = 0, batch_limit(config.general.batch_size)
        self._begin(command)

    def _begin(self, command: str) -> None:
        """Write what the records were made under."""
        self.folder.path.mkdir(parents=True, exist_ok=True)
        made = manifest.describe(self.config, {}, self.identity, self.pipeline.model, command)
        kept = {key: made[key] for key in made if key not in ("dataset", "bench", "resumed")}
        resolved = self.config.as_dict()
        del resolved["bench"], resolved["images"]
        found = content_hash(resolved, self.identity)
        self._made = {"config": found[: origin.DIGITS], "weights": self.identity["weights"]}
        if self.folder.ranks.leads:
            self.folder.write_config(resolved)
            self.folder.write_json(MANIFEST, {**kept, "config_hash": found})

    def ask(self, asked: Sequence[Asked], shown: bool = True) -> list[Result]:
        """Answer questions, with a record of each; in the order in which they were asked.

        Args:
            asked: the questions.
            shown: show progress; not where another tool asks one by one.

        Raises:
            RunError: with `strict`, a question failed; or not even one fits into memory.
        """
        results: dict[int, Result] = {}
        batches = [[(row, asked[row]) for row in rows] for rows in self._batches(asked)]
        shown = shown and self.folder.ranks.leads
        with (
            progress(len(asked), "question", "CoF", shown=shown) as bar,
            contextlib.closing(ahead(batches, self._opened)) as opened,
        ):
            for batch, (questions, images) in opened:
                rows, of = zip(*batch, strict=True)
                plan = tuple(zip(rows, questions, strict=True))
                found = self._answer(plan, images, of[0].limits)
                self._keep(of, found)
                results |= dict(zip(rows, found, strict=True))
                bar.update(len(rows))
        return [results[row] for row in range(len(asked))]

    def weigh(self, asked: Asked, texts: Sequence[str]) -> tuple[Result, list[Answer]]:
        """Answer a question, then weigh given answers under the same highlight.

        Returns: the question's result, and of each text an `Answer` with the log-probabilities of
            its tokens, end of reply included, or an `error`.
        """
        from cof.batch import Batch
        from cof.stages import refine

        (question, image), pipeline = asked.told(), self._pipeline(asked.limits)
        [outcome] = pipeline([image], [question.text])
        result = replace(outcome.result, question=question)
        self._keep([asked], [result])
        if result.error:
            return result, [Answer("", error=result.error)] * len(texts)
        options = [replace(question, options=(text,), choose=True) for text in texts]
        batch = Batch.of(self.pipeline.model, options, [image] * len(texts), asked.limits)
        [weighed] = refine(batch, [[outcome.focus] * len(texts)], [pipeline.settings.refine])
        return result, weighed

    def close(self) -> str:
        """Write what was noted; one line on what was done."""
        noted = dict(sorted((+self.notes).items()))  # without what was counted 0 times
        rank = self.folder.ranks.rank
        name = "noted.json" if self.folder.ranks.size == 1 else f"noted-{rank}.json"
        self.folder.write_json(name, noted)
        said = "".join(f"; {count} {what}" for what, count in noted.items())
        return f"{self._count} questions, records in {self.folder.path}{said}"

    def _batches(self, asked: Sequence[Asked]) -> Iterator[list[int]]:
        """Rows of equal limits, at most a batch of them."""
        groups: dict[Limits, list[int]] = {}
        for row, one in enumerate(asked):
            groups.setdefault(one.limits, []).append(row)
        size = batch_limit(self.config.general.batch_size)
        for rows in groups.values():
            yield from (rows[start : start + size] for start in range(0, len(rows), size))

    def _pipeline(self, limits: Limits) -> CoF:
        from cof.pipeline import CoF

        settings = replace(self.pipeline.settings, limits=limits)
        return CoF(self.pipeline.model, settings, self.pipeline.cache)

    def _opened(
        self, batch: Sequence[tuple[int, Asked]]
    ) -> tuple[list[Question], list[Prepared | DataError]]:
        """Questions of a batch, and their pictures, ready for the model; equal ones are one object.

        A picture that the model cannot be shown is the reason in its place.
        """
        told = [asked.told() for _, asked in batch]
        ready: dict[str, Prepared | DataError] = {}
        for question, image in told:
            if question.image not in ready:
                ready[question.image] = self._prepared(image)
        return [question for question, _ in told], [ready[one.image] for one, _ in told]

    def _prepared(self, image: Image) -> Prepared | DataError:
        try:
            return self.pipeline.prepare(image)
        except DataError as error:
            return error

    def _answer(
        self, batch: PlannedBatch, images: Sequence[Prepared | DataError], limits: Limits
    ) -> list[Result]:
        pipeline = self._pipeline(limits)

        def ask(questions: Sequence[Question], pictures: Sequence[Prepared]) -> list[list[Result]]:
            return [pipeline.answer_batch(questions, pictures)]

        fits = Fitted(ask, self._fits, self.config.general.batch_size == "auto", self._shrink)
        return answered(fits, batch, 1, images)[0]

    def _shrink(self, size: int) -> None:
        self._fits = size

    def _keep(self, asked: Sequence[Asked], results: Sequence[Result]) -> None:
        """A record of each, told apart from those of other processes by its index."""
        ranks, records = self.folder.ranks, []
        for one, result in zip(asked, results, strict=True):
            if result.error and self.strict:
                raise AnswerError(f"question {one.id}: {result.error} (strict)")
            self.notes["failed"] += bool(result.error)
            index = ranks.rank + ranks.size * self._count
            record = to_record(index, result, self._made)
            records.append({**record, **one.extra, "limits": asdict(one.limits)})
            self._count += 1
        self.folder.append(records)


NO_SAMPLING = (
    "sampled answers are not offered under another tool, which repeats questions; ask greedily "
    "(temperature=0, do_sample=false)"
)


def digest(image: Image) -> str:
    """Hex SHA-256 of a picture's size and pixels."""
    seen = hashlib.sha256(f"{image.mode}{image.size}".encode())
    seen.update(image.tobytes())
    return seen.hexdigest()
