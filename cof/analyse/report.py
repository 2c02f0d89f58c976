"""`cof report`: everything about some runs on one page, from their records.

    report.md            the tables, the figures, under what the runs were made
    tables/*.csv, *.tex  the same tables, where asked for
    figures/*.png        and *.pdf with LaTeX; every figure carries the hash of its runs
    gallery.md           questions gained and lost, drawn

Runs over the same questions stand together; others get sections of their own. Nothing is read from
scores.json: the same records give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cof.analyse import escape, sections
from cof.analyse.compare import category_table, compare_with_first, family_table
from cof.analyse.figures import forest, save
from cof.analyse.gallery import write_gallery
from cof.analyse.gather import ASKED, IMAGES, gather
from cof.analyse.grid import Grid
from cof.analyse.naming import hash_names, setting_names
from cof.analyse.passes import has_both, scored_pass, tally_of
from cof.analyse.statistics import Clusters
from cof.analyse.tables import Table, plural
from cof.config.plugins import label
from cof.errors import DataError
from cof.files import write_whole
from cof.store.run import Run, run_hash

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ReportOptions:
    """What is written.

    Attributes:
        latex: tables/*.tex and figures/*.pdf.
        csv: tables/*.csv.
        gallery: most questions gained, and most lost, that are drawn of each run.
        images: folder of the images, None for the one in each run's config.
        seed: of the tests, and of the groups of the jackknife.
        brief: without the tables and figures that concern one run alone.
    """

    latex: bool = False
    csv: bool = False
    gallery: int = 6
    images: Path | None = None
    seed: int = 0
    brief: bool = False


@dataclass
class Section:
    """Runs over the same questions.

    Attributes:
        title: benchmark and size.
        tables: in order; each has a name of its own within the report.
        figures: name -> figure.
        notes: what a reader has to know.
    """

    title: str
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def write_report(
    runs: Sequence[Run], out: Path, options: ReportOptions | None = None
) -> list[Path]:
    """Write the report into a folder; returns the files, report.md first.

    Raises:
        RunError: a run without records, or one that is not finished.
    """
    options = options or ReportOptions()
    for run in runs:
        tally_of(run, "cof")  # gathers what most tables need in one go through the records
    found = [_section(group, number, options) for number, group in enumerate(_groups(runs), 1)]
    gallery, note = _gallery(runs, out, options)
    lines = ["# Report", "", "Made by `cof report` from the records of the runs below.", ""]
    for section in found:
        lines += [f"## {escape.markdown(section.title)}", ""]
        lines += [table.markdown() for table in section.tables]
        lines += [f"![{name}](figures/{name}.png)\n" for name in section.figures]
        lines += [*map(escape.markdown, section.notes), ""]
    page = write_whole(out / "report.md", "\n".join([*lines, note, ""]))
    return [page, *gallery, *_files(found, out, options)]


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs with the same benchmark and questions, in order of first appearance."""
    groups: dict[tuple[str, bytes], list[Run]] = {}
    for run in runs:
        asked = gather(run.results, ASKED)[0].digest
        groups.setdefault((label(run.config["bench"]["name"]), asked), []).append(run)
    return list(groups.values())


def _section(runs: Sequence[Run], number: int, options: ReportOptions) -> Section:
    names, seed = setting_names(runs), options.seed
    images: Clusters = gather(runs[0].results, IMAGES)[0]
    section = Section(
        f"{runs[0].config['bench']['name']}: {plural(len(images), 'question')}, "
        f"{plural(images.count, 'image')}"
    )
    for run in runs:
        scored_pass(run, "cof")  # refuses a run that is not finished
    paired = {name: run for run, name in zip(runs, names, strict=True) if has_both(run)}
    if paired:
        _settings(section, paired, options)
    if len(runs) > 1:
        scored = [
            replace(scored_pass(run, "cof"), name=n) for run, n in zip(runs, names, strict=True)
        ]
        section.tables.append(
            family_table(compare_with_first(scored, seed, by_category=False), "against-first")
        )
    for run, name in [] if options.brief else zip(runs, names, strict=True):
        table = sections.scores_table(run, name, seed)
        section.tables.append(replace(table, name=f"scores-{_slug(name)}"))
    for run in runs:
        gather(run.results, sections.details(run))
    section.tables.append(sections.coarse_table(runs, names))
    if paired:
        section.tables.append(sections.effect_table(list(paired.values()), list(paired), seed))
    found, notes = sections.explain(runs, names)
    section.tables += found
    section.notes += notes
    section.tables.append(sections.status_table(runs, names))
    flips = sections.flips_table(runs, names)
    section.tables += [flips] if flips else []
    section.tables.append(sections.seconds_table(runs, names))
    section.tables.append(sections.provenance_table(runs, names))
    section.tables = [replace(one, name=f"{number}-{one.name}") for one in section.tables]
    section.figures = {f"{number}-{name}": one for name, one in section.figures.items()}
    return section


def _settings(section: Section, runs: Mapping[str, Run], options: ReportOptions) -> None:
    """Each run against its own plain answers: in all, by category, and drawn."""
    grid = Grid(list(runs.values()), options.seed, by_category=not options.brief)
    section.tables.append(grid.table)
    section.figures["settings"] = grid.figure()
    section.notes += grid.notes()
    for (name, run), one in zip(runs.items(), grid.found, strict=True):
        if one.categories:
            table = category_table(replace(one, second=name), ("plain", "CoF"))
            section.tables.append(replace(table, name=f"categories-{_slug(name)}"))
            rows = {key: part.difference.times(100) for key, part in one.categories.items()}
            hashes = hash_names([run_hash(run)])
            figure = forest(rows, f"{name}: CoF minus plain, points", hashes)
            section.figures[f"categories-{_slug(name)}"] = figure


def _gallery(runs: Sequence[Run], out: Path, options: ReportOptions) -> tuple[list[Path], str]:
    """Its files, and the line of the report that says where it is or why there is none."""
    paired = [run for run in runs if has_both(run)]
    if not (options.gallery and paired):
        return [], "No gallery."
    try:
        page = write_gallery(paired, setting_names(paired), out, options.gallery, options.images)
    except DataError as error:
        return [], f"No gallery: {escape.markdown(str(error))}"
    return [page], f"[Questions gained and lost]({page.name})"


def _files(found: Sequence[Section], out: Path, options: ReportOptions) -> list[Path]:
    """Tables and figures as files of their own."""
    written = []
    for section in found:
        for name, figure in section.figures.items():
            kinds = (".png", ".pdf") if options.latex else (".png",)
            written += [save(figure, out / "figures" / f"{name}{kind}") for kind in kinds]
        for table in section.tables:
            texts = {".tex": table.latex()} if options.latex else {}
            texts |= {".csv": table.csv()} if options.csv else {}
            for kind, text in texts.items():
                written.append(write_whole(out / "tables" / f"{table.name}{kind}", text))
    return written


def _slug(name: str) -> str:
    """A run's name as part of a file name and of a LaTeX label."""
    spelt = name.replace("λ", "lambda").replace("α", "alpha")
    return re.sub(r"[^\w.=+-]", "-", spelt, flags=re.ASCII)
