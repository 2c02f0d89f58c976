"""A page of results: a table in three formats, its figure, and what a reader has to know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cof.analyse import escape
from cof.analyse.figures import save
from cof.analyse.tables import Table
from cof.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_page(
    folder: Path, stem: str, table: Table, figure: Figure, notes: Sequence[str]
) -> list[Path]:
    """Write `stem`.md, .csv, .tex and .png into a folder; returns their paths."""
    told = [escape.markdown(note) for note in notes]
    picture = f"![{escape.markdown(table.caption)}]({stem}.png)"
    body = [table.markdown(), picture, "", *told]
    texts = {".csv": table.csv(), ".md": "\n".join(body) + "\n", ".tex": table.latex()}
    written = [write_whole(folder / f"{stem}{suffix}", text) for suffix, text in texts.items()]
    return [*written, save(figure, folder / f"{stem}.png")]
