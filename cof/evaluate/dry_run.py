"""`cof eval --dry-run`: what a run would ask, and where; with a trial also how long it would take.

Nothing is written. How long a question takes, and how much memory, depends on what the model says
and on the machine: neither is guessed, a trial measures both.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cof.config.general import Gate
from cof.config.schema import RunConfig
from cof.errors import DataError
from cof.evaluate.answering import open_image
from cof.evaluate.prefetch import feed
from cof.evaluate.progress import duration
from cof.evaluate.runner import build_pipeline, check, run_path
from cof.store import origin
from cof.store.dataset import PlannedBatch, described, pictures, plan_batches, read_questions
from cof.store.folder import WAY_OUT, RunFolder
from cof.store.hashing import PENDING
from cof.store.record_files import MADE
from cof.store.subset import images_of
from cof.types import Result


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        folder: where its records would be.
        batches: all of its batches, in the order in which they are asked.
        images: how many pictures they are about.
        answered: indexes of questions that have a record in the folder.
        model: weights, dtype and device; see `cof.store.origin.identify`.
        passes: the stages that ask the model, by name.
        gate: which questions get more than their plain answer; None is all.
    """

    folder: Path
    batches: Sequence[PlannedBatch]
    images: int
    answered: frozenset[int]
    model: dict[str, str]
    passes: tuple[str, ...]
    gate: Gate | None = None

    @property
    def questions(self) -> int:
        """How many there are."""
        return sum(map(len, self.batches))

    @property
    def left(self) -> list[PlannedBatch]:
        """Batches that a run would ask now, those with a part that is answered as a whole."""
        return [one for one in self.batches if any(row not in self.answered for row, _ in one)]

    def lines(self) -> list[str]:
        """For people."""
        count = f"{self.questions} about {self.images} images"
        most = max(map(len, self.batches))
        return [
            f"folder     {self.folder}",
            f"questions  {count}, {len(self.answered)} of them answered already",
            f"batches    {len(self.left)} to go, of at most {most} questions",
            f"passes     {', '.join(self.passes)}",
            *([f"gate       {_asks(self.gate)}"] if self.gate else []),
            f"model      {', '.join(f'{key} {value}' for key, value in self.model.items())}",
        ]


@dataclass(frozen=True)
class Trial:
    """What a few batches took.

    Attributes:
        asked: questions of the batches that were timed.
        seconds: a question, of the quickest and of the slowest of these batches.
        mean: seconds a question over all of them.
        tokens: visual tokens an image, fewest and most.
        peak: most memory, in bytes: of a GPU what torch held, else what the process held.
        failed: questions that failed.
    """

    asked: int
    seconds: tuple[float, float]
    mean: float
    tokens: tuple[int, int]
    peak: int
    failed: int

    def lines(self, left: int) -> list[str]:
        """For people; `left` questions are still to be answered."""
        low, high = (f"{second:.3g}" for second in self.seconds)
        least, most = self.tokens
        tokens = f"{least}" if least == most else f"{least} to {most}"
        failed = f", {self.failed} failed" if self.failed else ""
        return [
            f"tokens     {tokens} visual tokens an image",
            f"time       about {duration(self.mean * left)} for {left} questions on one process",
            f"           ({self.mean:.3g} s a question, {low} to {high} by batch; measured on "
            f"{self.asked} questions{failed})",
            f"memory     {self.peak / 2**30:.2f} GiB at most in these batches",
        ]


def plan(config: RunConfig, overwrite: bool = False) -> Plan:
    """Read what a run reads before it loads a model.

    Args:
        config: of the run.
        overwrite: what the folder holds would be forgotten.

    Raises:
        ConfigError, DataError, ModelError, RunError: as `cof.evaluate.runner.run`.
    """
    questions = read_questions(config)
    check(config, questions)
    identity = origin.identify(config)
    asked = described(questions, PENDING) | origin.regions(config)
    made = origin.made(config.as_dict(), identity, asked)
    folder = run_path(config, made)
    answered = set() if overwrite else _answered(RunFolder(folder), made)
    plainly = config.general.plain or config.gate or config.names["refine"] == "plain"
    plain = ["plain"] if plainly else []
    fine = [] if config.names["refine"] == "plain" else [f"refine={config.names['refine']}"]
    return Plan(
        folder=folder,
        batches=plan_batches(questions, config.general.batch_size),
        images=len(images_of(questions)),
        answered=frozenset(answered),
        model=identity,
        passes=(*plain, f"locate={config.names['locate']}", *fine),
        gate=config.gate,
    )


def trial(config: RunConfig, batches: Sequence[PlannedBatch], questions: int) -> Trial:
    """Answer some batches, evenly spaced, after one that warms up; nothing is kept.

    Args:
        config: of the run; its cache of replies is left alone.
        batches: those that are to be asked.
        questions: at least so many are timed, where there are as many.
    """
    pipeline = build_pipeline(config.with_({"cache": None}))
    size = max(map(len, batches))
    count = min(len(batches), -(-questions // size) + 1)
    chosen = [batches[place * len(batches) // count] for place in range(count)]
    results: list[Result] = []
    times: list[tuple[float, int]] = []
    load = partial(open_image, pipeline, config.images.exif)
    started = time.perf_counter()
    for batch, images in feed(chosen, pictures(config), config.general.workers, load):
        pairs = [
            (question, image)
            for (_, question), image in zip(batch, images, strict=True)
            if not isinstance(image, DataError)
        ]
        results += pipeline.answer_batch([one for one, _ in pairs], [image for _, image in pairs])
        now = time.perf_counter()
        times.append((now - started, len(batch)))
        started = now
    timed = times[1:] or times
    rates = [second / count for second, count in timed]
    tokens = [one.tokens for one in results if one.tokens]
    return Trial(
        asked=sum(count for _, count in timed),
        seconds=(min(rates), max(rates)),
        mean=sum(second for second, _ in timed) / sum(count for _, count in timed),
        tokens=(min(tokens, default=0), max(tokens, default=0)),
        peak=_peak(),
        failed=sum(bool(one.error) for one in results),
    )


def _asks(gate: Gate) -> str:
    """Who gets through, for people."""
    if gate.threshold is None:
        return "open: every question goes through all passes, and its margin is noted"
    return f"only plain answers with a margin up to {gate.threshold:g} nats go on after plain"


def _answered(folder: RunFolder, made: origin.Made) -> set[int]:
    """Indexes of the questions that have a record; of another run it is refused, as by a run."""
    first = next(folder.records(), None)
    if first is not None:
        origin.check(str(folder.path), first.get(MADE), made, WAY_OUT)
    return folder.indexes()


def _peak() -> int:
    """Most memory so far, in bytes."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
