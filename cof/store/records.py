"""A question's line in records.jsonl: `Result` to plain data and back, nothing lost.

    index, id, image, category, question, reference,                    what was asked
        truth, options, choose, core
    region {source, frame, reply, boxes, notes}                         the coarse stage
    focus {status, boxes, cells, target, tokens, grid, frame | lit}     boxes to visual tokens
    plain {text, tokens, notes}, cof {text, tokens, notes}              the two answers
    logprobs {plain, cof}                                               of their tokens, in nats
    error                                                               which passes failed, why
    seconds {region, plain, cof}                                        differ from run to run
    gate {margin, asked, forwards, positions}                           of a gated run, see `Gated`
    made {config, weights, dataset}                                     see `cof.store.origin`

Boxes are [x0, y0, x1, y1] in fractions of the original image. What did not happen is null.
`focus.grid` is [rows, columns] of visual tokens over the rectangle `focus.frame`; a model whose
tokens are no grid has `focus.lit` instead, the rectangle of each of `cells`. `notes` are what a
stage had to say, and absent where it had nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cof.errors import RunError
from cof.types import Answer, Box, Gated, Quad, Question, Region, Result

LOGPROB_DIGITS = 6


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
        "region": region and _region(region, asked.id),
        "focus": {
            "status": result.status,
            "boxes": _corners(result.focus_boxes),
            "cells": list(result.cells),
            "target": list(result.target),
            "tokens": result.tokens,
            **_places(result),
        },
        "plain": result.plain and _answer(result.plain, asked.id),
        "cof": result.cof and _answer(result.cof, asked.id),
        "error": result.error,
        "logprobs": {
            key: [round(value, LOGPROB_DIGITS) for value in said.logprobs]
            for key, said in (("plain", result.plain), ("cof", result.cof))
            if said and said.logprobs
        },
        "seconds": {key: round(part.seconds, 4) for key, part in parts.items() if part},
        **({"gate": _gate(result.gate)} if result.gate else {}),
        **({"made": dict(made)} if made else {}),
    }


def from_record(record: Mapping[str, Any]) -> Result:
    """The result that `to_record` wrote, seconds rounded to 0.1 ms.

    Raises:
        KeyError, TypeError, ValueError: not such a record.
    """
    focus, seconds = record["focus"], record["seconds"]
    logprobs = record.get("logprobs", {})  # older records have none, and no `grid`
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
        cof=_read_answer(record["cof"], seconds.get("cof", 0.0), logprobs.get("cof", ())),
        plain=_read_answer(record["plain"], seconds.get("plain", 0.0), logprobs.get("plain", ())),
        error=record["error"],
        grid=_pair(focus.get("grid")),
        frame=_quad(focus["frame"]) if focus.get("frame") else None,
        lit=tuple(_quad(four) for four in focus.get("lit", ())),
        gate=_read_gate(record["gate"]) if "gate" in record else None,
    )


def comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without its timings and log-probabilities: equal for two runs of one config.

    Log-probabilities move in their last digits with the company of a batch and with the machine.
    """
    kept = {key: value for key, value in record.items() if key not in ("seconds", "logprobs")}
    return kept | ({"gate": record["gate"]["asked"]} if "gate" in record else {})


def _corners(boxes: Iterable[Box]) -> list[list[float]]:
    return [list(box.as_tuple()) for box in boxes]


def _boxes(corners: Sequence[Sequence[float]]) -> tuple[Box, ...]:
    return tuple(Box(*four) for four in corners)


def _places(result: Result) -> dict[str, Any]:
    """Where the visual tokens are: grid and frame, or the rectangles of those highlighted."""
    if result.grid is None:
        return {"lit": [list(four) for four in result.lit]} if result.lit else {}
    return {"grid": list(result.grid), "frame": list(result.frame or ())}


def _gate(gate: Gated) -> dict[str, Any]:
    margin = None if gate.margin is None else round(gate.margin, LOGPROB_DIGITS)
    work = {"forwards": gate.forwards, "positions": gate.positions}
    shares = {key: [round(value, 4) for value in pair] for key, pair in work.items()}
    return {"margin": margin, "asked": gate.asked, **shares}


def _read_gate(data: Mapping[str, Any]) -> Gated:
    forwards, positions = (_two(data[key]) for key in ("forwards", "positions"))
    return Gated(data["margin"], data["asked"], forwards, positions)


def _two(values: Sequence[float]) -> tuple[float, float]:
    first, second = values
    return (first, second)


def _quad(four: Sequence[float]) -> Quad:
    x0, y0, x1, y1 = four
    return (x0, y0, x1, y1)


def _pair(two: Sequence[int] | None) -> tuple[int, int] | None:
    return (two[0], two[1]) if two else None


def _notes(notes: Mapping[str, Any], question: str) -> dict[str, Any]:
    """What a stage noted, where it did.

    Raises:
        RunError: it is nothing that JSON has.
    """
    try:
        json.dumps(notes, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RunError(
            f"question {question}: what its stage noted is not JSON ({error})"
        ) from error
    return {"notes": dict(notes)} if notes else {}


def _region(region: Region, question: str) -> dict[str, Any]:
    head = {"source": region.source, "frame": region.frame, "reply": region.reply}
    return {**head, "boxes": _corners(region.boxes), **_notes(region.notes, question)}


def _read_region(data: Mapping[str, Any] | None, seconds: float) -> Region | None:
    if data is None:
        return None
    said = (data["source"], data["reply"], data["frame"], seconds)
    return Region(_boxes(data["boxes"]), *said, notes=data.get("notes", {}))


def _answer(answer: Answer, question: str) -> dict[str, Any]:
    return {"text": answer.text, "tokens": list(answer.tokens), **_notes(answer.notes, question)}


def _read_answer(
    data: Mapping[str, Any] | None, seconds: float, logprobs: Sequence[float]
) -> Answer | None:
    if data is None:
        return None
    kept, notes = tuple(logprobs), data.get("notes", {})
    return Answer(data["text"], tuple(data["tokens"]), seconds, logprobs=kept, notes=notes)
