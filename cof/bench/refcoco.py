"""RefCOCO, RefCOCO+ and RefCOCOg: the coarse stage alone, asked for the region of a phrase.

Acc@0.5 is the share of phrases whose first box overlaps the annotated one by IoU >= 0.5; a reply
without a box is wrong and counts as IoU 0. Both boxes are in fractions of the ORIGINAL image:
replies in LLaVA's padded square are mapped back first, and the scores say which frame they spoke.

What is scored is the coarse stage's region (`region_answer`), so run it with
`locate: {name: prompt, prompt: "{question}"}`: the question is the whole request.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cof.bench import _refcoco_files
from cof.bench._refcoco_files import Config
from cof.bench.common.answers import Answers, Given, Said, llava_answer, match_answers, need_truth
from cof.bench.common.files import read_jsonl, write_jsonl
from cof.bench.common.rows import Row
from cof.bench.common.tally import Mark, Part, Tally, added, scored
from cof.errors import DataError
from cof.regions.boxes import centre_crop, from_frame, iou, padded_square
from cof.regions.parse import parse_boxes
from cof.types import Box, Quad, Question, Region

VERSION = "1"
SOURCE = "github.com/lichengunc/refer (refs(unc|umd).p, instances.json); images: COCO train2014"

_SPELT = re.compile(r"[a-z_]+:( \[|$)")


def read(config: Config) -> list[Question]:
    """One question a phrase, in the order of the files.

    Raises:
        DataError: no such files or split, a reference without its annotation, image or box, boxes
            that cannot be in `unit`, or a picture that is not of the annotated size.
    """
    found = _refcoco_files.phrases(config)
    _refcoco_files.check_sizes(found, Path(config.root))
    return [phrase.question for phrase in found]


def region_answer(region: Region) -> str:
    """The region's first box, in fractions of the image, with the frame that its reply spoke."""
    return spell(region.boxes[0] if region.boxes else None, region.frame)


def spell(box: Box | None, frame: str) -> str:
    """`<frame>: [x0, y0, x1, y1]`, fractions of the image with all digits; no box is `<frame>:`."""
    return f"{frame}: {list(box.as_tuple())}" if box else f"{frame}:"


def overlap(question: Question, answer: Said) -> float:
    """IoU of an answer's first box with the annotated one; 0 where it has none."""
    box = _box(answer)
    return iou([box] if box else [], question.boxes[:1])


def expected(config: Config) -> dict[str, tuple[int, ...]]:
    """Published numbers of phrases of a split in RefCOCO, RefCOCO+ and RefCOCOg."""
    counts = {
        "val": (10834, 10758, 4896),
        "testA": (5657, 5726),
        "testB": (5095, 4889),
        "test": (9602,),
    }
    return {config.split: counts[config.split]}


def credit(question: Question, answer: Said, config: Config | None = None) -> float:
    """1.0 where the box overlaps by at least half, else 0.0."""
    return float(overlap(question, answer) >= 0.5)


def score(
    questions: Sequence[Question], answers: Sequence[Said], config: Config | None = None
) -> dict[str, Any]:
    """Acc@0.5 and mean IoU, both in [0, 1]; `frames` counts what the replies were fractions of."""
    return scored(tally(config), questions, answers)


class _Tally(Tally):
    """Marks are (split, frame of the reply, whether it has a box); numbers are overlaps."""

    def mark(self, question: Question, answer: Said) -> tuple[float, Mark]:
        spelt = answer is not None and _SPELT.match(answer)
        frame = answer.partition(":")[0] if answer is not None and spelt else None
        return credit(question, answer), (question.category, frame, _box(answer) is not None)

    def number(self, question: Question, answer: Said) -> float:
        return overlap(question, answer)

    def total(self, part: Part) -> dict[str, Any]:
        named: Counter[str] = Counter()
        for (_, frame, _), count in part.counts.items():
            named.update({frame: count} if frame is not None else {})
        first, overlaps, n = part.first, part.numbers, len(part)
        return {
            "benchmark": "refcoco",
            "version": VERSION,
            "split": first[0],
            "frames": {name: named[name] for name in sorted(named)},
            "n": n,
            "acc@0.5": int((overlaps >= 0.5).sum()) / n,
            "mean_iou": added(overlaps) / n,
            "no_box": part.where(lambda mark: not mark[2]),
        }


def tally(config: Config | None = None) -> Tally:
    """What `score` counts with."""
    return _Tally(config)


def table(scores: dict[str, Any]) -> list[tuple[str, float, int]]:
    """Rows: Acc@0.5 and mean IoU, in percent."""
    return [(name, 100 * scores[name], scores["n"]) for name in ("acc@0.5", "mean_iou")]


def export(
    questions: Sequence[Question],
    answers: Sequence[str],
    folder: Path,
    config: Config | None = None,
) -> list[Path]:
    """Write the boxes in LLaVA's answer form, as fractions of the image, with the true box.

    The image is as the run showed it; with `images.exif=apply` both boxes are turned with it.
    """
    rows = (
        {**llava_answer(q.id, q, answer), "truth": list(q.boxes[0].as_tuple())}
        for q, answer in zip(questions, answers, strict=True)
    )
    return [write_jsonl(folder / "llava_refcoco_answers.jsonl", rows)]


def read_answers(path: Path, config: Config, allow_missing: bool = False) -> Answers:
    """Replies in LLaVA's answer form, question_id as ours; un-padded as `config.frame` says.

    What `export` wrote names its frame and is in fractions of the image already.

    Raises:
        DataError: as `match_answers`; no annotations; a true box that is not the annotated
            one, as of a run that turned its pictures.
    """
    need_truth(path, config.root, "the folder of refs(*).p and instances.json")
    asked = {phrase.question.id: phrase for phrase in _refcoco_files.phrases(config)}
    given = []
    for row in read_jsonl(path):
        key, text = row.key("question_id"), row.text("text")
        if key in asked:
            _same_truth(row, asked[key].question)
            if not _SPELT.match(text):
                text = spell(_unpadded(text, asked[key].size, config.frame), config.frame)
        given.append(Given(key, text, row.where))
    questions = [phrase.question for phrase in asked.values()]
    return match_answers(
        questions, [question.id for question in questions], given, path, allow_missing
    )


def _same_truth(row: Row, question: Question) -> None:
    """Refuse an answer that was given for another true box than the annotated one."""
    if "truth" not in row.values:
        return
    there, here = row.numbers("truth", "[x0, y0, x1, y1]"), question.boxes[0].as_tuple()
    if any(abs(a - b) > 1e-6 for a, b in zip(there, here, strict=True)):
        raise DataError(
            f"{row.where}: for the true box {list(there)}, annotated is {list(here)}; answers to "
            "other annotations, or of a run that turned its pictures (images.exif=apply), which "
            "`cof score` rescores from its folder"
        )


_FRAMES: dict[str, Callable[[tuple[int, int]], Quad]] = {
    "padded_square": padded_square,
    "centre_crop": centre_crop,
    "image": lambda size: (0.0, 0.0, 1.0, 1.0),
}


def _unpadded(text: str, size: tuple[int, int], frame: str) -> Box | None:
    """The first box of a reply, in fractions of the image."""
    found = parse_boxes(text)
    return from_frame(found[0], _FRAMES[frame](size)) if found else None


def _box(answer: Said) -> Box | None:
    """The box of an answer in our spelling."""
    if answer is None:
        return None
    return _unpadded(answer.partition(":")[2] or answer, (1, 1), "image")
