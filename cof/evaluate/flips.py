"""How far half precision moves answers: some questions of a run, asked again one at a time.

Padding and the kernels that a batch size chooses round differently in float16 and bfloat16, and an
answer that is nearly a tie then depends on its company. In float32 it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cof.errors import DataError
from cof.images import load_image
from cof.store.dataset import pictures
from cof.types import Result

if TYPE_CHECKING:
    from cof.config.schema import RunConfig
    from cof.pipeline import CoF

SAMPLE = 64
"""Most questions that are asked again, spread evenly over the run."""

PASSES = ("coarse", "plain", "cof")


def due(config: RunConfig, identity: Mapping[str, str]) -> bool:
    """Whether a run's answers may depend on their company: half precision, batches, no sampling."""
    alone = config.general.batch_size == 1
    return identity.get("dtype") != "float32" and not alone and config.limits.temperature == 0


def measure(pipeline: CoF, config: RunConfig, results: Sequence[Result]) -> dict[str, Any]:
    """Ask at most `SAMPLE` questions of a run again at batch 1; what differs, by pass.

    Args:
        pipeline: of the run, with its settings and without a cache.
        config: the run's.
        results: its records; failed questions are left out.

    Returns:
        `asked`, and for each of `PASSES` the flips: `id`, `batch` and `alone` (the texts).
    """
    sound = [result for result in results if not result.error]
    chosen = sound[:: -(-len(sound) // SAMPLE)] if sound else []
    flips: dict[str, list[dict[str, str]]] = {name: [] for name in PASSES}
    asked = 0
    places = pictures(config)
    for result in chosen:
        try:
            image = load_image(places / result.question.image, exif=config.images.exif)
        except DataError:
            continue  # it was there when the run asked
        (alone,) = pipeline.answer_batch([result.question], [image])
        asked += 1
        for name, (before, now) in _texts(result, alone).items():
            if before != now:
                flips[name].append({"id": result.question.id, "batch": before, "alone": now})
    return {"asked": asked, **flips}


def _texts(batch: Result, alone: Result) -> dict[str, tuple[str, str]]:
    """Per pass the text in the batch and alone; a pass that was not asked for is left out."""
    pairs = {
        "coarse": (batch.region, alone.region),
        "plain": (batch.plain, alone.plain),
        "cof": (batch.cof, alone.cof),
    }
    return {
        name: (_text(one), _text(other)) for name, (one, other) in pairs.items() if one is not None
    }


def _text(part: Any) -> str:
    if part is None:
        return "(failed)"
    return str(part.reply if hasattr(part, "reply") else part.text)
