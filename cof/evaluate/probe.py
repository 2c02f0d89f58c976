"""Where the answer pass looks: attention mass on the region before and after the highlight.

Mass is the attention that the last prompt position, which chooses the first answer token, gives to
a set of visual tokens: summed over the tokens, averaged over the heads of a layer. It says where
the model looks, not what it makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cof.analyse.attention import Mass
from cof.exif import Exif
from cof.files import Folder
from cof.images import load_image
from cof.models.base import Encoded, Model
from cof.outcome.attention import visual_attention
from cof.refine import highlight as highlight_stage
from cof.types import Result

if TYPE_CHECKING:
    from cof.regions.bias import Highlight


def attention_mass(
    model: Model, encoded: Encoded, masks: Sequence[Tensor], highlight: Highlight | None = None
) -> Tensor:
    """Share of attention on some visual tokens, layer by layer.

    Args:
        model: whose decoder is highlightable (see `cof.attention.attach`).
        encoded: B prompts.
        masks: per row bool [T], which visual tokens.
        highlight: on during the pass; None is the plain model.
    Returns: float32 [B, layers] on the CPU.

    Raises:
        AnswerError: a pass failed, so that its attention means nothing.
    """
    maps = visual_attention(model, encoded, highlight)
    rows = zip(maps, masks, strict=True)
    return torch.stack([layers[:, mask.cpu()].sum(1) for layers, mask in rows])


def measure(
    model: Model,
    results: Sequence[Result],
    root: Folder,
    config: highlight_stage.Config,
    exif: Exif,
) -> Iterator[Mass]:
    """The attention mass of recorded questions, on the tokens that their run highlighted.

    Args:
        model: the run's.
        results: of a run; those without a highlighted token are passed over.
        root: where the benchmark's pictures are.
        config: the run's fine stage.
        exif: how the run showed its pictures.
    """
    for result in results:
        if not result.cells:
            continue
        views = model.look([load_image(root / result.question.image, exif=exif)])
        encoded = model.encode(views, [result.question.text])
        region, every = torch.zeros(result.tokens, dtype=torch.bool), torch.ones(result.tokens)
        region[list(result.cells)] = True
        asked = [result.question.text]
        plan: Any = highlight_stage.lit(model, encoded, asked, [region], config)
        masses = [
            tuple(attention_mass(model, encoded, [mask], chosen)[0].tolist())
            for mask in (region, every.bool())
            for chosen in (None, plan)
        ]
        yield Mass(result.question.image, len(result.cells) / result.tokens, *masses)
