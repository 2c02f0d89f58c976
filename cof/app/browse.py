"""A run folder question by question: which questions a filter leaves, and how one is shown."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cof.analyse.compare import changes
from cof.analyse.gallery import cells
from cof.analyse.gather import gather
from cof.analyse.localisation import CODES, GROUNDING
from cof.analyse.passes import bench_of, has_both, scored_pass
from cof.app.pictures import Picture, stages
from cof.app.text import safe
from cof.app.uploads import Bounds
from cof.bench.common import containers
from cof.bench.common.rows import inside
from cof.config.schema import exif_of
from cof.errors import AnswerError, ConfigError, DataError, RunError, shown
from cof.files import DiskError, Folder
from cof.images import load_image
from cof.store.run import Run, load_run
from cof.types import Answer, Focus, Result

if TYPE_CHECKING:
    from PIL.Image import Image

FILTERS = ("all", "gained", "lost", "missed box", "no box", "failed")
"""Questions: gained and lost by CoF against plain; the centre of no found box in a true box; a
reply without a box; a pass without an answer."""


class Entry(NamedTuple):
    """One question of a run.

    Attributes:
        result: its record.
        page: it as HTML.
        image: RGB, as the run showed it to the model; None where it cannot be read.
    """

    result: Result
    page: str
    image: Image | None


@dataclass(frozen=True, eq=False)
class Browser:
    """A run, and the places of its results that each filter leaves.

    Attributes:
        run: finished or not.
        images: the benchmark's folder, or the files that hold its images; nothing else is read.
        bounds: of a picture.
        places: filter -> places in `run.results`.
        credits: pass -> credit of each result in [0, 1]; empty where the answers are not compared.
        note: why they are not, else "".
    """

    run: Run
    images: Folder
    bounds: Bounds
    places: Mapping[str, Sequence[int]]
    credits: Mapping[str, Sequence[float]] = field(default_factory=dict)
    note: str = ""

    @classmethod
    def of(
        cls, folder: str | Path, images: Path | None = None, bounds: Bounds | None = None
    ) -> Browser:
        """Read a run folder and sort its questions.

        Args:
            folder: of the run.
            images: the benchmark's folder; None for the one in the run's config.
            bounds: of a picture.

        Raises:
            RunError: no run folder, or a damaged one.
        """
        run = load_run(folder)
        root = images or _pictures(run)
        kinds, grounding = gather(run.results, {"kinds": _Kinds, **GROUNDING})
        hits = enumerate(grounding.hits)
        missed = [place for place, code in hits if code == CODES[False]]
        places = {"all": range(len(run.results)), "missed box": missed, **kinds.places}
        credits, why = _credits(run)
        if credits:
            gained, lost = credits.pop("gained"), credits.pop("lost")
            places |= {"gained": gained, "lost": lost}
        sorted_places = {name: places.get(name, ()) for name in FILTERS}
        return cls(run, root, bounds or Bounds(), sorted_places, credits, why)

    @property
    def counts(self) -> dict[str, int]:
        """Filter -> how many questions it leaves."""
        return {name: len(places) for name, places in self.places.items()}

    def show(self, kind: str, number: int) -> Entry | None:
        """A question of a filter, None where it leaves none.

        Args:
            kind: of `FILTERS`.
            number: from 1; another one is taken as the nearest that there is.

        Raises:
            AnswerError: no such filter.
            RunError: the records were changed since the run was loaded.
        """
        if kind not in self.places:
            raise AnswerError(f"no filter {shown(kind)}; there is: {', '.join(FILTERS)}")
        places = self.places[kind]
        if not len(places):
            return None
        place = int(places[min(max(number, 1), len(places)) - 1])
        result = self.run.results[place]
        image, drawn = self._drawn(result)
        return Entry(result, self._said(result, place) + drawn + _facts(result), image)

    def _drawn(self, result: Result) -> tuple[Image | None, str]:
        """The image, and both stages on it; or why it cannot be shown."""
        import torch

        image, name = None, result.question.image
        try:
            name = inside(result.question.image, str(self.run.path))
            if isinstance(self.images, Path) and not self.images.exists():
                raise DataError(f"{name}: its benchmark has moved; start the page with --images")
            exif = exif_of(self.run.config)
            image = load_image(self.images / name, exif=exif, max_pixels=self.bounds.pixels)
            mask = torch.zeros(result.tokens, dtype=torch.bool)
            mask[list(result.cells)] = True
            region = result.region
            html = stages(
                Picture.of(image),
                region.boxes if region else (),
                Focus(mask, result.focus_boxes, result.status),
                cells(self.run, result, image.size),
                true=result.question.boxes,
                reply=region.reply if region else "",
                kept=result.kept,
            )
        except (DataError, DiskError, MemoryError) as error:
            said = str(error).replace(str(self.images / name), name)  # no visitor's business
            return image, f'<p class="cof-error">{safe(said)}</p>'
        return image, html

    def _said(self, result: Result, place: int) -> str:
        """The question, the right answer, and what both passes answered."""
        asked = result.question
        rows = {"question": safe(asked.text), "right": safe(asked.reference)}
        for name, which, said in (("plain", "plain", result.plain), ("CoF", "cof", result.cof)):
            credit = self.credits[which][place] if self.credits else None
            rows[name] = _answer(said, credit)
        rows |= {"failed": safe(result.error)} if result.error else {}
        body = "".join(f"<tr><th>{key}</th><td>{text}</td></tr>" for key, text in rows.items())
        return f'<table class="cof-record">{body}</table>'


def _facts(result: Result) -> str:
    """Where a question is found again."""
    asked = result.question
    facts = {"id": asked.id, "category": asked.category, "image": asked.image}
    return f"<small>{' · '.join(f'{name}: {safe(fact)}' for name, fact in facts.items())}</small>"


def _pictures(run: Run) -> Folder:
    """Where a run's benchmark has its images; its root where the benchmark is gone."""
    try:
        return containers.places(*bench_of(run))
    except (ConfigError, DataError):
        return Path(run.config["bench"]["root"])


def _answer(said: Answer | None, credit: float | None) -> str:
    """An answer with the probability of all its tokens, and its credit."""
    if said is None:
        return "<i>none</i>"
    parts = [f"<b>{safe(said.text)}</b>"]
    if said.logprob is not None:
        parts.append(f"<small>{100 * math.exp(said.logprob):.1f} %</small>")
    if credit is not None:
        mark = "right" if credit == 1 else "wrong" if credit == 0 else f"credit {credit:.2f}"
        parts.append(f'<small class="cof-mark cof-{mark.split()[0]}">{mark}</small>')
    return " ".join(parts)


def _credits(run: Run) -> tuple[dict[str, Sequence[float]], str]:
    """Credits of both passes with the places gained and lost, or why there are none."""
    if not has_both(run):
        return {}, "no plain answers to compare with"
    try:
        plain, cof = scored_pass(run, "plain", True), scored_pass(run, "cof", True)
    except RunError as error:
        return {}, str(error)
    gained, lost = (one.places.tolist() for one in changes(plain, cof))
    return {"plain": plain.credits, "cof": cof.credits, "gained": gained, "lost": lost}, ""


class _Kinds:
    """Gathers the places of questions that the records themselves tell apart."""

    def __init__(self) -> None:
        self.places = {"no box": array("i"), "failed": array("i")}
        self._next = 0

    def add(self, result: Result) -> None:
        if result.error:
            self.places["failed"].append(self._next)
        elif result.status == "no_box" and not result.kept:
            self.places["no box"].append(self._next)
        self._next += 1

    def found(self) -> _Kinds:
        return self
