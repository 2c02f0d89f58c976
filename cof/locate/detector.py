"""An open-vocabulary detector says where: OWL-ViT, Grounding DINO, others that transformers has.

It is another model than the one that answers, so what it finds is no CoF of that model's own; as a
tool beside it, in the way of SEAL's visual search (V*, arXiv 2312.14135).
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cof.batch import Batch
from cof.errors import ModelError
from cof.models.base import Model
from cof.models.common import checkpoint
from cof.models.common.loading import load_transformers, pick_device
from cof.models.common.transformers_files import FILES
from cof.prompts import spans_of
from cof.regions.boxes import BoxConfig, clip
from cof.types import Box, Question, Region

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Config:
    """Which detector, and what it is asked for.

    Attributes:
        path: folder or hub name of a zero-shot object detector in transformers' layout.
        queries: what may be looked for; of these, what stands in the question as whole words. () is
            the question itself, its first line. A question with none of them has no box.
        threshold: least score of a box, as the detector's own post-processing has it, in (0, 1).
        most: boxes that are kept, the best ones; at least 1.
        device: as the model's.
    """

    path: str
    queries: tuple[str, ...] = ()
    threshold: float = 0.1
    most: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1 or self.most < 1:
            raise ValueError(
                f"threshold={self.threshold} must be between 0 and 1, most={self.most} at least 1"
            )
        if any(not query.strip() for query in self.queries):
            raise ValueError(f"queries={self.queries} holds one that is blank")


@dataclass(frozen=True)
class Detector:
    """A loaded detector.

    Attributes:
        network: transformers' model, in eval mode.
        processor: its processor.
        longest: most tokens that a query may have.
    """

    network: Any
    processor: Any
    longest: int

    @torch.inference_mode()
    def find(self, image: Image, queries: Sequence[str], config: Config) -> list[tuple[float, Any]]:
        """(score, [x0, y0, x1, y1] in pixels of the image) of what is found, best first."""
        given = self.processor(images=image, text=[list(queries)], return_tensors="pt")
        given = given.to(self.network.device)
        said = self.network(**given)
        finish = self.processor.post_process_grounded_object_detection
        options = {"threshold": config.threshold, "target_sizes": [image.size[::-1]]}
        if "input_ids" in inspect.signature(finish).parameters:
            options["input_ids"] = given["input_ids"]
        (found,) = finish(said, **options)
        pairs = zip(found["scores"].tolist(), found["boxes"].tolist(), strict=True)
        return sorted(pairs, key=lambda pair: -pair[0])

    def too_long(self, query: str) -> bool:
        """Whether a query has more tokens than the detector takes."""
        return len(self.processor.tokenizer(query).input_ids) > self.longest


def check_model(model: Model, config: Config, boxes: BoxConfig) -> None:
    """Load the detector before any question.

    Raises:
        ModelError: no such checkpoint, or no zero-shot detector.
    """
    load(config.path, config.device)


def source(config: Config) -> str:
    """A digest of the detector's files."""
    return checkpoint.digest(checkpoint.locate(config.path, FILES))


@functools.lru_cache(maxsize=1)
def load(path: str, device: str) -> Detector:
    """A detector, kept until another one is asked for.

    Raises:
        ModelError: see `check_model`.
    """
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    folder = checkpoint.locate(path, FILES)
    config = checkpoint.read_json(folder / "config.json")
    found = checkpoint.Checkpoint(folder, "transformers", config, "")
    kind = AutoModelForZeroShotObjectDetection
    network = load_transformers(found, torch.float32, {"": pick_device(device)}, kind).eval()
    try:
        processor: Any = AutoProcessor.from_pretrained(folder, backend="pil")
    except Exception as error:  # whatever a damaged file makes transformers raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: no usable processor of a detector ({reason})") from error
    if not hasattr(processor, "post_process_grounded_object_detection"):
        raise ModelError(f"{folder}: {type(processor).__name__} does not say where objects are")
    longest = getattr(network.config.get_text_config(), "max_position_embeddings", 0)
    return Detector(network, processor, longest or processor.tokenizer.model_max_length)


def locate(batch: Batch, config: Config) -> list[Region]:
    """The best boxes of what each question speaks of; the answering model is not asked.

    A question that is longer than the detector takes fails: cut short it would be another one.
    """
    detector, regions = load(config.path, config.device), []
    for question, image in zip(batch.questions, batch.images, strict=True):
        started = time.perf_counter()
        queries = wanted(question, config)
        long = [query for query in queries if detector.too_long(query)]
        boxes, notes = ((), {}) if long or not queries else _boxes(detector, image, queries, config)
        why = f"{long[0]!r}: the detector takes {detector.longest} tokens" if long else ""
        why += "; name what to look for in locate.queries" if long else ""
        seconds = time.perf_counter() - started
        regions.append(Region(boxes, "detector", seconds=seconds, error=why, notes=notes))
    return regions


def wanted(question: Question, config: Config) -> list[str]:
    """What a question makes the detector look for."""
    text = (question.core or question.text).split("\n")[0]
    return [one for one in config.queries if spans_of(text, [one])] if config.queries else [text]


def _boxes(
    detector: Detector, image: Image, queries: Sequence[str], config: Config
) -> tuple[tuple[Box, ...], dict[str, Any]]:
    """The boxes that are kept, in fractions of the image, and what is recorded of them."""
    width, height = image.size
    found = [
        (score, clip((x0 / width, y0 / height, x1 / width, y1 / height)))
        for score, (x0, y0, x1, y1) in detector.find(image, queries, config)
    ]
    kept = [(score, box) for score, box in found if box is not None][: config.most]
    notes = {"queries": list(queries), "scores": [round(score, 4) for score, _ in kept]}
    return tuple(box for _, box in kept), notes
