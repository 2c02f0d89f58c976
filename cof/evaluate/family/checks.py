"""The five things that hold of a family's adapter on a checkpoint, each by itself.

Inactive it is stock transformers, bit by bit; highlighted it is an oracle in double precision; as
many visual tokens as the processor makes; a changed block of pixels moves the tokens whose cells it
touches; the plain answer is stock `generate`'s. What cannot be checked here says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cof.errors import ModelError, cut
from cof.evaluate.family.moved import apart, misplaced
from cof.evaluate.family.stock import as_ours, asked, attention, oracle, processor
from cof.models.common.transformers_model import Transformers
from cof.refine import highlight
from cof.regions.bias import Highlight
from cof.regions.mask import token_mask
from cof.types import Box

QUESTION = "What is it?"
BOX = Box(0.1, 0.3, 0.55, 0.8)
WEIGHT = 20.0
STEPS = 4
LARGEST = 10**9
"""Parameters above which nothing is computed in double precision, at 8 bytes each."""


@dataclass(frozen=True)
class Verdict:
    """One line of the report.

    Attributes:
        name: what was checked.
        held: None where it could not be checked.
        said: the figures, or why not.
    """

    name: str
    held: bool | None
    said: str


TOLERANCES = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
"""Largest difference of logits that passes where none is asked for, by the weights' type: several
roundings of one logit. (On tiny checkpoints 6e-3 and 3.4e-2 were seen in half precision.)"""


@dataclass
class Checks:
    """The checks of one loaded model.

    Attributes:
        model: of one of the families.
        image: what is asked about.
        tolerance: largest difference of logits that passes.
        processor: transformers' own; None where it cannot be built (`lacking` says why).
        options: of the processor, at the call.
    """

    model: Transformers
    image: Image.Image
    tolerance: float
    processor: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    lacking: str = ""

    @classmethod
    def of(cls, model: Any, image: Image.Image | None, tolerance: float) -> Checks:
        """Checks of a loaded model, about a picture of noise where there is none.

        Raises:
            ModelError: it is of no family of this adapter.
        """
        if not isinstance(model, Transformers):
            raise ModelError(
                f"{model.name}: only families on the shared adapter are checked so; LLaVA-1.5 is "
                "held against recorded numbers (cof doctor --parity)"
            )
        image = image or noise()
        try:
            made = processor(model.checkpoint.folder)
            made.chat_template = made.chat_template or model.chat.template
            asked(made, image, QUESTION)
        except Exception as error:  # whatever transformers raises where something is missing
            why = f"no stock processor: {cut(str(error), 100)}"
            return cls(model, image, tolerance, lacking=why)
        return cls(model, image, tolerance, made)

    def run(self) -> list[Verdict]:
        """All of them; one that raises has failed."""
        named: dict[str, Callable[[], tuple[bool | None, str]]] = {
            "inactive = stock, bitwise": self.inactive,
            "highlighted = oracle": self.highlighted,
            "number of visual tokens": self.counted,
            "a changed block moves its tokens": self.placed,
            "plain answer = stock generate": self.answered,
        }
        return [Verdict(name, *_safely(check)) for name, check in named.items()]

    @property
    def network(self) -> Any:
        """Transformers' whole network."""
        return self.model.network

    @property
    def eyes(self) -> Any:
        """What looks: `look` gives views whose `features.tokens` are those of the cells."""
        return self.model

    @property
    def blur(self) -> float:
        """Cells beyond its own of which a token may hear a little."""
        return self.model.family.blur

    @contextmanager
    def stock(self) -> Iterator[Any]:
        """The network with transformers' own attention."""
        with attention(self.network, "sdpa"):
            yield self.network

    def given(self) -> dict[str, Any]:
        """One prompt as stock transformers takes it."""
        if self.processor is None:
            found = as_ours(self.model, self.image, QUESTION)
        else:
            found = asked(self.processor, self.image, QUESTION, **self.options)
        moved = {key: value.to(self.model.device) for key, value in found.items()}
        return moved | {"pixel_values": moved["pixel_values"].to(self.model.network.dtype)}

    @torch.no_grad()
    def inactive(self) -> tuple[bool, str]:
        """Without a highlight, and under one of zeros."""
        given, network = self.given(), self.model.network
        with attention(network, "sdpa"):
            stock = network(**given).logits
        ours = network(**given).logits
        with self.model.highlighted(Highlight(torch.zeros(1, stock.shape[1]))):
            zeros = float((network(**given).logits - stock).abs().max())
        said = (
            f"max |difference| {float((ours - stock).abs().max()):.1e}, with lambda 1 {zeros:.1e}"
        )
        return torch.equal(ours, stock) and zeros <= self.tolerance, said

    def highlighted(self) -> tuple[bool | None, str]:
        """Prompt and reply under a strong highlight; it must also change something."""
        network = self.model.network
        count = sum(one.numel() for one in network.parameters())
        if count > LARGEST:
            return None, f"{count:.1e} parameters, too many for double precision (up to 1e9)"
        if self.model.dtype != "float32":
            return None, f"the oracle needs dtype=float32, this is {self.model.dtype}"
        views = self.model.look([self.image])
        encoded = self.model.encode(views, [QUESTION])
        plan = highlight.plan(
            encoded, [token_mask([BOX], views[0].cells)], highlight.Config(WEIGHT)
        )
        with self.model.highlighted(plan):
            [row] = self.model.greedy(encoded, STEPS, keep_logits=True)
        given, ours = self.given(), torch.stack(row.logits).double()
        bias = plan.bias[0].to(self.model.device)
        lit, plain = oracle(network, [(given, bias * by, row.tokens) for by in (1, 0)])
        far, effect = _apart(ours, lit), _apart(lit[:1], plain[:1])
        said = f"max |difference| {far:.1e}, where the highlight makes {effect:.1e}"
        return far <= self.tolerance < effect, said

    def counted(self) -> tuple[bool, str]:
        """On pictures of many shapes, without running the model; the processor's where there is."""
        generator, wrong = np.random.default_rng(3), []
        sizes = [tuple(int(2 ** generator.uniform(5, 9)) for _ in "wh") for _ in range(20)]
        for width, height in sizes if self.processor else sizes[:5]:
            picture = Image.new("RGB", (width, height))
            ours = len(self.model.family.shape((width, height)).cells)
            theirs = self._count(picture)
            wrong += [f"{width} x {height}: {ours}, not {theirs}"] if ours != theirs else []
        against = "the processor" if self.processor else f"the vision tower ({self.lacking})"
        return not wrong, "; ".join(wrong[:3]) or f"as many as {against} on all sizes tried"

    def _count(self, picture: Image.Image) -> int:
        if self.processor is None:  # `look` holds tokens against cells
            return len(self.model.look([picture])[0].features)
        ids = asked(self.processor, picture, QUESTION, **self.options)["input_ids"]
        return int((ids == self.model.token_id).sum())

    def placed(self) -> tuple[bool | None, str]:
        """On two pictures, wide and high."""
        sides = _edge(self.network.config.vision_config)
        sizes = [(sides, sides * 3 // 4), (sides * 2 // 3, sides)]
        with apart(self.network) as could:
            if not could:
                return None, "no attention output of the vision tower is known to switch off"
            given = [(self.eyes, size, 4, self.blur) for size in sizes]
            wrong = [line for one in given for line in misplaced(*one)]
        return not wrong, "; ".join(wrong[:2]) or "8 blocks, 2 pictures"

    def answered(self) -> tuple[bool, str]:
        """Tokens, and logits of each."""
        given = self.given()
        with self.stock() as network, torch.no_grad():
            said = network.generate(
                **given,
                max_new_tokens=STEPS,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        encoded = self.model.encode(self.model.look([self.image]), [QUESTION])
        [row] = self.model.greedy(encoded, STEPS, keep_logits=True)
        tokens = said.sequences[0, given["input_ids"].shape[1] :].tolist()
        if row.tokens != tokens:
            return False, f"{self.model.text(row.tokens)!r}, not {self.model.text(tokens)!r}"
        far = _apart(torch.stack(row.logits), torch.cat(said.logits))
        whose = "" if self.processor else "; prompt ours"
        return far <= self.tolerance, f"max |difference| of logits {far:.1e}{whose}"


def passed(verdicts: Iterable[Verdict]) -> bool:
    """Nothing failed."""
    return all(one.held is not False for one in verdicts)


def _safely(check: Callable[[], tuple[bool | None, str]]) -> tuple[bool | None, str]:
    try:
        return check()
    except Exception as error:  # a family's file is somebody's own
        return False, cut(f"{type(error).__name__}: {error}", 200)


def _apart(some: Tensor, others: Tensor) -> float:
    """Largest difference; infinite where one is not finite."""
    worst = float((some.cpu().double() - others.cpu().double()).abs().max())
    return worst if np.isfinite(worst) else float("inf")


def _edge(vision: Any) -> int:
    """Pixels along a picture that the tower need not shrink much."""
    side = getattr(vision, "image_size", None) or 16 * vision.patch_size * 2
    return int(side[0] if isinstance(side, list | tuple) else side)


def noise() -> Image.Image:
    """A picture in which every pixel matters."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    return Image.fromarray(noise)
