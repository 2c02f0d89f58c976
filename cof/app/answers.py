"""Answers as HTML: plain and CoF side by side, token by token, and a line of answers over λ."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cof.app.spelling import Piece, pieces
from cof.app.text import safe

if TYPE_CHECKING:
    from cof.app.asking import Asked
    from cof.models.base import Model
    from cof.types import Answer

NOTE = "Below each token: its probability in %, given those before it."


def answers(asked: Asked, weight: float) -> str:
    """The question, both answers at the nearest λ, and the answers over all λ."""
    outcome = asked.at(weight)
    result, model = outcome.result, outcome.model
    there = asked.weights[asked.place(weight)] if asked.weights else None
    name = "CoF" if there is None else f"CoF, λ = {there:g}"
    sides = [
        _card("plain", spelled(model, result.plain), result.plain is None and outcome.error),
        _card(name, spelled(model, result.cof), result.cof is None and outcome.error),
    ]
    head = f'<p class="cof-asked">{safe(outcome.question)}</p>'
    cards = f'<div class="cof-cards">{"".join(sides)}</div>'
    return f"{head}{cards}<small>{NOTE}</small>{_line(asked, weight)}"


def spelled(model: Model, said: Answer | None) -> str:
    """An answer token by token; "" where there is none."""
    return "".join(map(_token, pieces(model, said))) if said else ""


def _token(piece: Piece) -> str:
    text = safe(piece.text) or "&nbsp;"
    if piece.probability is None:
        return f"<span>{text}</span>"
    shade = f'style="--p: {piece.probability:.3f}"'
    return f'<ruby class="cof-token" {shade}>{text}<rt>{100 * piece.probability:.1f}</rt></ruby>'


def _card(name: str, body: str, error: str | bool = "") -> str:
    failed = f'<span class="cof-error">{safe(str(error))}</span>' if error else ""
    return f'<div class="cof-card"><b>{name}</b><div>{body}{failed}</div></div>'


def _line(asked: Asked, weight: float) -> str:
    """A cell a λ: the answer, and the probability of its first token."""
    if not asked.weights:
        return ""
    here, plain = asked.place(weight), asked.outcomes[0].plain
    cells = []
    for place, (one, outcome) in enumerate(zip(asked.weights, asked.outcomes, strict=True)):
        marks = ["cof-here"] * (place == here) + ["cof-other"] * (outcome.text != plain)
        chance = f"{100 * math.exp(outcome.logprobs[0]):.0f} %" if outcome.logprobs else ""
        text = safe(outcome.text or "failed", 40)
        cells.append(
            f'<div class="{" ".join(marks)}" title="{safe(outcome.text, 400)}">'
            f"<i>{one:g}</i><span>{text}</span><small>{chance}</small></div>"
        )
    legend = "Over λ; coloured where the answer is another than the plain one; % of its first token"
    return f'<p class="cof-legend">{legend}</p><div class="cof-line">{"".join(cells)}</div>'
