"""What the grammar of boxes saves, and what it changes, on questions in the layout of MME.

    python -m cof_speed.boxes runs/data/mini-fine/MiniMME

Each question's coarse stage is run alone under `locate.decode` free and grammar: forward passes of
the decoder a reply (that of the shared prefix left out), replies with the same boxes, and how many
answers with the highlight are right.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof.models.base import Model
    from cof.pipeline import CoF
    from cof.types import Question, Result

DECODES = ("free", "grammar")
BATCH = 16


def passes(model: Model, question: Question, picture: Image, decode: Any) -> int:
    """Forward passes of one reply, in a batch of its own."""
    from cof.batch import Batch
    from cof.locate import prompt

    batch = Batch.of(model, [question], [picture])
    before = model.counters.forwards
    prompt.locate(batch, prompt.Config(decode=decode))
    return model.counters.forwards - before - 1  # of these one is the prefix


def compare(root: Path, images: int | None, path: str, device: str) -> dict[str, Any]:
    """The numbers that the command prints."""
    from cof.bench import mme
    from cof.images import load_image
    from cof.locate import prompt
    from cof.models.llava import Config
    from cof.models.llava.model import load
    from cof.pipeline import CoF, Settings

    model = load(Config(path, device=device))
    asked = mme.read(mme.Config(str(root)))
    names = list(dict.fromkeys(one.image for one in asked))[:images]
    asked = [one for one in asked if one.image in set(names)]
    seen = {name: load_image(root / name) for name in names}
    spent = {
        how: sum(passes(model, one, seen[one.image], how) for one in asked) / len(asked)
        for how in DECODES
    }
    ways = [CoF(model, Settings(locate=prompt.Config(decode=how))) for how in ("free", "grammar")]
    pairs = list(zip(*(_answers(way, asked, seen) for way in ways), strict=True))
    differ = [(a, b) for a, b in pairs if _boxes(a) != _boxes(b)]
    return {
        "questions": len(asked),
        "forwards a reply": spent,
        "other boxes": [
            {"id": a.question.id, "free": _reply(a), "grammar": _reply(b), "notes": _notes(b)}
            for a, b in differ
        ],
        "right": {how: sum(_right(pair[k]) for pair in pairs) for k, how in enumerate(DECODES)},
        "gained": sum(_right(b) > _right(a) for a, b in pairs),
        "lost": sum(_right(b) < _right(a) for a, b in pairs),
        "lowest of least_allowed": sorted(_notes(b)["least_allowed"] for _, b in pairs)[:3],
    }


def _answers(pipeline: CoF, asked: Sequence[Question], seen: dict[str, Image]) -> list[Result]:
    found: list[Result] = []
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        found += pipeline.answer_batch(some, [seen[one.image] for one in some])
    return found


def _boxes(result: Result) -> tuple[Any, ...]:
    return result.region.boxes if result.region else ()


def _reply(result: Result) -> str:
    return result.region.reply if result.region else ""


def _notes(result: Result) -> dict[str, Any]:
    return dict(result.region.notes) if result.region else {}


def _right(result: Result) -> bool:
    said = result.cof.text if result.cof else ""
    return said.lower().startswith(result.question.reference.lower())


@click.command()
@click.argument("root", type=click.Path(exists=True, path_type=Path))
@click.option("--images", type=int, default=None, help="Only the first so many images.")
@click.option("--model", default="cof-tiny", help="A checkpoint of LLaVA.")
@click.option("--device", default="cpu")
def main(root: Path, images: int | None, model: str, device: str) -> None:
    """Print what the grammar saves on the questions of ROOT, as JSON."""
    click.echo(json.dumps(compare(root, images, model, device), indent=1))


if __name__ == "__main__":
    main()
