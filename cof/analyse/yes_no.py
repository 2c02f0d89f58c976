"""Why a yes-or-no score went up or down: which answers are given, to which questions, how surely.

Everything comes from records, of benchmarks that read an answer as yes, no or other (`yes_no`).

| measure | of | definition |
|---|---|---|
| Yes | answers | share that says yes |
| right where Yes, where No | questions whose true answer is that | share that is right |
| absent with a box | questions without a true box whose answer is No | share that got a box |
| confidence c | answers whose log-probabilities were recorded | probability of the first token |
| log loss | these | mean of -ln c where right, of -ln(1 - c) where wrong; c within 1e-6 |
| ECE | these | mean distance of c from the share that is right, over ten equal bins of c |
| order | pairs of a yes- and a no-question about one image | see below |

`order` is the share of pairs in which the question whose answer is Yes has the higher score for
yes: c where yes was said, 1 - c where no was (a tie is a half). A bias towards yes lifts both, so
it moves accuracy and not the order. That 1 - c belongs to the other word is taken, not recorded.
Absent things are told only by benchmarks that annotate some question's box.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cof.analyse.gather import IMAGES, Pass, Wanted, gather
from cof.analyse.localisation import mean_of_known
from cof.analyse.passes import bench_of
from cof.analyse.scores import NAMES
from cof.analyse.statistics import Clusters, Estimate
from cof.analyse.tables import INTERVALS, Cell, Number, Table, percent
from cof.bench.common.tally import number_of
from cof.store.run import Run
from cof.types import Answer, Result

if TYPE_CHECKING:
    import numpy as np

BINS = 10
LEAST = 1e-6
"""Log-probabilities are recorded to six digits, so that no confidence is known better than this."""

UNKNOWN = "not recorded"
_CODES = {"no": 0, "yes": 1}
_OTHER = 2


@dataclass(frozen=True)
class Said:
    """The answers of one pass.

    Attributes:
        said: 1 yes, 0 no, 2 neither (or no answer at all), int8 [n].
        sure: confidence of each in (0, 1), NaN where it was not recorded, float [n].
    """

    said: np.ndarray
    sure: np.ndarray


@dataclass(frozen=True)
class Asked:
    """The questions, and what the coarse stage did.

    Attributes:
        truth: 1 yes, 0 no, 2 neither, int8 [n].
        annotated: whether it has a true box, bool [n].
        boxed: 1 where a box was found, 0 where none was, -1 where nobody looked, int8 [n].
        pair: a number for image and category, int64 [n].
        images: of the questions.
        passes: the answers of each pass.
    """

    truth: np.ndarray
    annotated: np.ndarray
    boxed: np.ndarray
    pair: np.ndarray
    images: Clusters
    passes: dict[Pass, Said]

    @property
    def absent(self) -> np.ndarray:
        """Places of the questions about things that are not there; none where no box is known."""
        import numpy as np

        there = self.annotated.any()
        return np.flatnonzero(~self.annotated & (self.truth == 0) & (self.boxed >= 0) & there)


class _Gatherer:
    def __init__(self, bench: ModuleType, config: Any, noted: bool) -> None:
        self._bench, self._config, self._noted = bench, config, noted
        self._truth, self._annotated, self._boxed = array("b"), array("b"), array("b")
        self._pair = array("q")
        self._said: dict[Pass, array[int]] = {which: array("b") for which in NAMES}
        self._sure: dict[Pass, array[float]] = {which: array("d") for which in NAMES}

    def add(self, result: Result) -> None:
        asked, region = result.question, result.region
        self._truth.append(_CODES.get(asked.reference.lower(), _OTHER))
        self._annotated.append(bool(asked.boxes))
        self._boxed.append(-1 if region is None else bool(region.boxes))
        self._pair.append(number_of(asked.category, asked.image))
        for which in NAMES:
            answer: Answer | None = getattr(result, which)
            word = self._bench.yes_no(answer.text, self._config) if answer else ""
            weighed = asked.choose or answer is None or not answer.logprobs
            weighed |= self._noted and which == "cof" and "logprobs" not in answer.notes  # type: ignore[union-attr]
            self._said[which].append(_CODES.get(word, _OTHER))
            self._sure[which].append(math.nan if weighed else math.exp(answer.logprobs[0]))  # type: ignore[union-attr]

    def found(self) -> dict[str, Any]:
        import numpy as np

        passes = {
            which: Said(np.asarray(said), np.asarray(self._sure[which]).clip(LEAST, 1 - LEAST))
            for which, said in self._said.items()
        }
        truth, boxed, pair = map(np.asarray, (self._truth, self._boxed, self._pair))
        annotated = np.asarray(self._annotated).astype(bool)
        return {
            "truth": truth,
            "annotated": annotated,
            "boxed": boxed,
            "pair": pair,
            "passes": passes,
        }


def wanted(run: Run) -> Wanted:
    """What to gather of a run; nothing where its benchmark asks for other words as well."""
    bench, config = bench_of(run)
    if not hasattr(bench, "yes_no"):
        return {}
    stage = run.config["refine"]
    noted = stage["name"] == "guided" and not stage.get("log", False)  # see its `SURE`
    key = ("yes or no", bench.__name__, repr(config), noted)
    return {key: lambda: _Gatherer(bench, config, noted)}


def asked_of(run: Run) -> Asked | None:
    """A run's questions and answers; None where its benchmark asks for other words as well."""
    needed = wanted(run)
    if not needed:
        return None
    found, images = gather(run.results, {**needed, **IMAGES})
    kept = {which: one for which, one in found["passes"].items() if _was_asked(run, which)}
    return Asked(images=images, **{**found, "passes": kept})


def _was_asked(run: Run, which: Pass) -> bool:
    return which == "cof" or bool(run.config["plain"])


def share(true: np.ndarray, images: Clusters, places: np.ndarray) -> Estimate | None:
    """The share of some questions of which something is true; None of no question."""
    import numpy as np

    return mean_of_known(true[places].astype(np.float64), images.take(places), 1.0)


def log_loss(right: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """-ln c where right, -ln(1 - c) where wrong, in nats; NaN where c is."""
    import numpy as np

    return -np.log(np.where(right, sure, 1 - sure))


def calibration(right: np.ndarray, sure: np.ndarray) -> float | None:
    """ECE: of `BINS` equal bins of confidence, the mean distance of c from the share right.

    Args:
        right: bool [n].
        sure: c in (0, 1), NaN is left out; a bin holds its lower end.
    """
    import numpy as np

    known = ~np.isnan(sure)
    if not known.any():
        return None
    right, sure = right[known], sure[known]
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, sure - right, BINS)
    return float(np.abs(gaps).sum() / len(sure))


def order(asked: Asked, said: Said) -> Estimate | None:
    """The share of pairs in order, see above; None where no pair has both scores."""
    import numpy as np

    score = np.where(said.said == 1, said.sure, 1 - said.sure)
    score[said.said == _OTHER] = np.nan
    known = np.flatnonzero(~np.isnan(score))
    yes, no = (known[asked.truth[known] == which] for which in (1, 0))
    partners: dict[int, list[int]] = {}
    for place in no.tolist():
        partners.setdefault(int(asked.pair[place]), []).append(place)
    pairs = [
        (one, other) for one in yes.tolist() for other in partners.get(int(asked.pair[one]), ())
    ]
    if not pairs:
        return None
    first, second = np.asarray(pairs).T
    values = (1 + np.sign(score[first] - score[second])) / 2
    return mean_of_known(values, asked.images.take(first), 1.0)


def tables(runs: Sequence[Run], names: Sequence[str]) -> tuple[list[Table], list[str]]:
    """What is answered, and how surely, or a note that this was not recorded.

    Nothing where no run's benchmark is one of yes or no.
    """
    found = [(name, asked_of(run)) for run, name in zip(runs, names, strict=True)]
    rows = list(_passes([(name, asked) for name, asked in found if asked is not None]))
    if not rows:
        return [], []
    sure = [_confidence(*row) for row in rows]
    if all(cell == UNKNOWN for row in sure for cell in row[2:]):
        return [_answers_table(rows)], [f"Log loss, calibration, order of pairs: {UNKNOWN}."]
    caption = (
        "How sure: log loss in nats and calibration (ECE, ten equal bins) of the probability of "
        "the answer's first token; order: the image's yes-question scores higher for yes than its "
        f"no-question, whatever the bias to yes; {INTERVALS}"
    )
    head = ("run", "answers", "log loss", "ECE, points", "pairs in order, %")
    return [_answers_table(rows), Table("confidence", caption, head, tuple(sure))], []


def _answers_table(rows: Sequence[tuple[str, Asked, Pass, Said]]) -> Table:
    caption = (
        "Yes or no: share of answers Yes, accuracy by the true answer, and absent things (no true "
        f"box, the answer is No) that got a box, with the accuracy on them; {INTERVALS}"
    )
    head = ["run", "answers", "n", "Yes, %", "right where Yes, %", "right where No, %"]
    head += ["absent with a box, %", "right on these, %"]
    return Table("yes-no", caption, tuple(head), tuple(_answers(*row) for row in rows))


def _passes(known: Sequence[tuple[str, Asked]]) -> Iterator[tuple[str, Asked, Pass, Said]]:
    """A row a pass; the plain answers of further runs only where they are others."""
    import numpy as np

    first = None
    for name, asked in known:
        for which, said in asked.passes.items():
            if which == "plain" and first is not None and np.array_equal(first, said.said):
                continue
            first = said.said if which == "plain" and first is None else first
            yield name, asked, which, said


def _answers(name: str, asked: Asked, which: Pass, said: Said) -> tuple[Cell, ...]:
    import numpy as np

    right, every = said.said == asked.truth, np.arange(len(asked.truth))
    boxed = asked.absent[asked.boxed[asked.absent] == 1]
    told = [
        share(said.said == 1, asked.images, every),
        share(right, asked.images, np.flatnonzero(asked.truth == 1)),
        share(right, asked.images, np.flatnonzero(asked.truth == 0)),
        share(asked.boxed == 1, asked.images, asked.absent),
        share(right, asked.images, boxed),
    ]
    cells = [percent(one, n=place > 0) if one else None for place, one in enumerate(told)]
    return (name, NAMES[which], len(every), *cells)


def _confidence(name: str, asked: Asked, which: Pass, said: Said) -> tuple[Cell, ...]:
    right = said.said == asked.truth
    loss = mean_of_known(log_loss(right, said.sure), asked.images, math.inf)
    gap, pairs = calibration(right, said.sure), order(asked, said)
    return (
        name,
        NAMES[which],
        Number(loss, digits=3, n=True) if loss else UNKNOWN,
        UNKNOWN if gap is None else f"{100 * gap:.1f}",
        percent(pairs, n=True) if pairs else UNKNOWN,
    )


def leaks(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """A line a run whose true boxes tell the answer: those of things that are not there."""
    lines = []
    for run, name in zip(runs, names, strict=True):
        asked = asked_of(run)
        if run.config["locate"]["name"] != "oracle" or asked is None or not asked.annotated.any():
            continue
        without = asked.truth[~asked.annotated]
        if len(without):
            lines.append(
                f"{name}: {int((without == 0).sum())} of the {len(without)} questions without a "
                "true box have the answer No, so an oracle box gives answers away (existence "
                "questions); its gain is no measure of what a perfect box would help."
            )
    return lines
