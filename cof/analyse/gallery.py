"""Questions gained and lost, each with its picture: image, boxes, highlighted tokens, answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cof.analyse import escape
from cof.analyse.compare import changes
from cof.analyse.figures import save, stamp
from cof.analyse.naming import hash_names
from cof.analyse.passes import bench_of, scored_pass
from cof.bench.common.containers import places
from cof.config import plugins
from cof.config.schema import exif_of
from cof.errors import DataError
from cof.files import Folder, write_whole
from cof.images import load_image
from cof.regions.boxes import named_frame
from cof.store.manifest import latest
from cof.store.run import Run, run_hash
from cof.types import NOWHERE, Focus, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

FOLDER, PAGE = "gallery", "gallery.md"
LONGEST = 400
"""Most characters of a question or answer on the page; the records have all."""


def write_gallery(
    runs: Sequence[Run], names: Sequence[str], out: Path, count: int, images: Path | None = None
) -> Path:
    """Write gallery.md and gallery/*.png.

    Args:
        runs: with their plain pass.
        names: what to call them.
        out: where to.
        count: most questions gained, and most lost, of each run; the first in dataset order.
        images: the benchmark's folder, None for the one in each run's config.

    Raises:
        DataError: an image that is not there, or a model whose tokens cannot be drawn.
    """
    lines = ["# Questions gained and lost", ""]
    for run, name in zip(runs, names, strict=True):
        lines += [f"## {escape.markdown(name)}", ""]
        lines += _run(run, out, count, images or places(*bench_of(run)))
    return write_whole(out / PAGE, "\n".join(lines) + "\n")


def _run(run: Run, out: Path, count: int, root: Folder) -> Iterator[str]:
    """The page's lines for one run; draws as it goes."""
    gained, lost = changes(scored_pass(run, "plain", True), scored_pass(run, "cof", True))
    for kind, ids in (("gained", gained), ("lost", lost)):
        shown = ids[:count]
        yield f"{len(ids)} {kind}" + (f", the first {len(shown)}:" if shown else ".")
        yield ""
        for number, place in enumerate(ids.places[: len(shown)].tolist(), start=1):
            file, result = (
                Path(FOLDER) / f"{run_hash(run)}-{kind}-{number:02d}.png",
                run.results[place],
            )
            save(_draw(run, result, root), out / file)
            yield from _entry(result, file)


def _entry(result: Result, file: Path) -> list[str]:
    asked, plain, cof = result.question, result.plain, result.cof
    said = {"question": asked.text, "right": asked.reference}
    said |= {"plain": plain.text if plain else "", "CoF": cof.text if cof else ""}
    said |= {"failed": result.error} if result.error else {}
    told = [f"{key + ':':10}{_line(text)}" for key, text in said.items()]
    return [
        f"### `{escape.code(asked.id)}`",
        "",
        "```text",
        *told,
        "```",
        "",
        f"![two stages]({file})",
        "",
    ]


def _line(text: str) -> str:
    """A text on one line that cannot close its block."""
    line = " ".join(escape.clean(text).replace("```", "'''").split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} …"


def _draw(run: Run, result: Result, root: Folder) -> Figure:
    import torch

    from cof.plot import draw_two_stages
    from cof.regions.heat import heat_of

    image = load_image(root / result.question.image, exif=exif_of(run.config))
    mask = torch.zeros(result.tokens, dtype=torch.bool)
    mask[list(result.cells)] = True
    region = result.region
    figure = draw_two_stages(
        image,
        result.question.text,
        Focus(mask, result.focus_boxes, result.status),
        cells(run, result, image.size),
        result.cof.text if result.cof else "",
        boxes=region.boxes if region else (),
        plain=result.plain.text if result.plain else None,
        reply=region.reply if region else "",
        stage=plugins.label(run.config["refine"]["name"]),
        heat=heat_of(region) if region and result.grid else None,  # else few cells are known
    )
    stamp(figure, hash_names([run_hash(run)]))
    return figure


def cells(run: Run, result: Result, size: tuple[int, int]) -> Tensor:
    """Rectangles of the visual tokens, [T, 4]; without a grid only those highlighted have a place.

    A record made before they were kept is drawn by its run's frame, if its tokens are a square.

    Raises:
        DataError: such a record of another kind of model.
    """
    import torch

    from cof.regions.mask import grid_cells

    if result.grid is not None and result.frame is not None:
        return grid_cells(result.grid, result.frame)
    if result.lit:
        found = torch.tensor([NOWHERE] * result.tokens, dtype=torch.float64)
        found[list(result.cells)] = torch.tensor(result.lit, dtype=torch.float64)
        return found
    name, side_length = latest(run.manifest)["model"].get("frame"), math.isqrt(result.tokens)
    if name not in _FRAMES or side_length**2 != result.tokens:
        raise DataError(
            f"{run.path}: {result.tokens} tokens in the frame {name!r} are no square grid"
        )
    return grid_cells((side_length, side_length), named_frame(name, size))


_FRAMES = ("padded_square", "centre_crop", "image")
