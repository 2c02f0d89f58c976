"""A page of results: a table in three formats, its figure, and what a reader has to know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cof.runs.figures import save
from cof.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_page(
    folder: Path, stem: str, table: Table, figure: Figure, notes: Sequence[str]
) -> list[Path]:
    """Write `stem`.md, .csv, .tex and .png into a folder; returns their paths."""
    body = [table.markdown(), f"![{table.caption}]({stem}.png)", "", *notes]
    texts = {".csv": table.csv(), ".md": "\n".join(body) + "\n", ".tex": table.latex()}
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in texts.items():
        (folder / f"{stem}{suffix}").write_text(text, encoding="utf-8")
    picture = save(figure, folder / f"{stem}.png")
    return [*(folder / f"{stem}{suffix}" for suffix in texts), picture]
