"""A question's line in records.jsonl: `Result` to plain data and back, nothing lost.

    index, id, image, category, question, reference,                    what was asked
        truth, options, choose, core
    region {source, frame, reply, boxes}                                the coarse stage
    focus {status, boxes, cells, target, tokens}                        boxes to visual tokens
    plain {text, tokens}, cof {text, tokens}                            the two answers
    error                                                               which passes failed, why
    seconds {region, plain, cof}                                        all that two runs differ in
    made {config, weights, dataset}                                     see `cof.store.origin`

Boxes are [x0, y0, x1, y1] in fractions of the original image. What did not happen is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cof.types import Answer, Box, Question, Region, Result


def to_record(index: int, result: Result, made: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Plain data of one result; `index` is the question's place in the benchmark, from 0."""
    asked, region = result.question, result.region
    parts = {"region": region, "plain": result.plain, "cof": result.cof}
    return {
        "index": index,
        "id": asked.id,
        "image": asked.image,
        "category": asked.category,
        "question": asked.text,
        "reference": asked.reference,
        "truth": _corners(asked.boxes),
        "options": list(asked.options),
        "choose": asked.choose,
        "core": asked.core,
        "region": region and _region(region),
        "focus": {
            "status": result.status,
            "boxes": _corners(result.focus_boxes),
            "cells": list(result.cells),
            "target": list(result.target),
            "tokens": result.tokens,
        },
        "plain": result.plain and _answer(result.plain),
        "cof": result.cof and _answer(result.cof),
        "error": result.error,
        "seconds": {key: round(part.seconds, 4) for key, part in parts.items() if part},
        **({"made": dict(made)} if made else {}),
    }


def from_record(record: Mapping[str, Any]) -> Result:
    """The result that `to_record` wrote, seconds rounded to 0.1 ms.

    Raises:
        KeyError, TypeError, ValueError: not such a record.
    """
    focus, seconds = record["focus"], record["seconds"]
    return Result(
        question=Question(
            id=record["id"],
            image=record["image"],
            text=record["question"],
            category=record["category"],
            reference=record["reference"],
            boxes=_boxes(record["truth"]),
            options=tuple(record["options"]),
            choose=record["choose"],
            core=record.get("core", ""),  # older records have none
        ),
        region=_read_region(record["region"], seconds.get("region", 0.0)),
        focus_boxes=_boxes(focus["boxes"]),
        cells=tuple(focus["cells"]),
        target=tuple(focus["target"]),
        tokens=focus["tokens"],
        status=focus["status"],
        cof=_read_answer(record["cof"], seconds.get("cof", 0.0)),
        plain=_read_answer(record["plain"], seconds.get("plain", 0.0)),
        error=record["error"],
    )


def comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without its timings: equal for two runs of one config on one machine."""
    return {key: value for key, value in record.items() if key != "seconds"}


def _corners(boxes: Iterable[Box]) -> list[list[float]]:
    return [list(box.as_tuple()) for box in boxes]


def _boxes(corners: Sequence[Sequence[float]]) -> tuple[Box, ...]:
    return tuple(Box(*four) for four in corners)


def _region(region: Region) -> dict[str, Any]:
    head = {"source": region.source, "frame": region.frame, "reply": region.reply}
    return {**head, "boxes": _corners(region.boxes)}


def _read_region(data: Mapping[str, Any] | None, seconds: float) -> Region | None:
    if data is None:
        return None
    return Region(_boxes(data["boxes"]), data["source"], data["reply"], data["frame"], seconds)


def _answer(answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "tokens": list(answer.tokens)}


def _read_answer(data: Mapping[str, Any] | None, seconds: float) -> Answer | None:
    return None if data is None else Answer(data["text"], tuple(data["tokens"]), seconds)
