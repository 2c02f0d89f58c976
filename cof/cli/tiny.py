"""`cof tiny`: train, examine and export the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from cof.cli._options import COUNT, SEED, place, quiet

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group()
def tiny() -> None:
    """Train, examine and export the embedded model."""


@tiny.command()
@click.argument("folder", type=FOLDER, callback=place)
@click.option("--preset", type=click.Choice(["cpu", "study", "smoke"]), default="cpu")
@click.option(
    "--variant",
    type=click.Choice(["default", "gap", "control", "coarse"]),
    default="default",
    help="gap: reads easy scenes only; control: no attention supervision; coarse: half the tokens.",
)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of matrix products. bfloat16 is faster on CPUs with AVX512-BF16 or AMX, else slower.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@click.option("--stop-at", type=click.IntRange(1), help="Leave after this language step.")
@quiet
def train(
    folder: Path,
    preset: str,
    variant: str,
    seed: int,
    device: str,
    precision: Literal["float32", "bfloat16"],
    threads: int | None,
    stop_at: int | None,
) -> None:
    """Train in FOLDER, or go on where it stands; it may be killed at any time."""
    import torch

    from cof_lab.curves import plot
    from cof_lab.train import preset_config, train_model

    if threads:
        torch.set_num_threads(threads)
    config = preset_config(preset, variant, seed, precision)
    train_model(config, folder, device, stop_at)
    click.echo(f"trained: {folder}; curves: {plot(folder)}")
    click.echo(f"next: cof tiny export {folder} OUT, then cof tiny card OUT")


@tiny.command()
@click.argument("folder", type=FOLDER)
@click.argument("out", type=FOLDER, callback=place)
@click.option(
    "--layout",
    type=click.Choice(["transformers", "original"]),
    default="transformers",
    help="original: as liuhaotian/llava-v1.5-7b is laid out.",
)
def export(folder: Path, out: Path, layout: str) -> None:
    """Write a checkpoint to OUT, from a training FOLDER or a transformers checkpoint."""
    from cof_lab.examine import load
    from cof_lab.export import export_checkpoint
    from cof_lab.train import load_trained

    trained = (folder / "language.pt").exists()
    model, tokenizer = load_trained(folder)[:2] if trained else load(folder)
    export_checkpoint(model, tokenizer, out, layout)  # type: ignore[arg-type]
    click.echo(f"{out}: {layout} layout, {size(out):.1f} MB")


def size(folder: Path) -> float:
    """Megabytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@tiny.command()
@click.argument("checkpoint", type=FOLDER)
@click.option(
    "--scenes", type=COUNT, default=60, show_default=True, help="Test scenes of each difficulty."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=place,
    help="Model card; CHECKPOINT/README.md.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@quiet
def card(checkpoint: Path, scenes: int, out: Path | None, threads: int | None) -> None:
    """Examine CHECKPOINT on the test split, print the release gates, write the model card."""
    import torch

    from cof_lab.card import gates, write_card
    from cof_lab.examine import examine, load

    if threads:
        torch.set_num_threads(threads)
    model, tokenizer = load(checkpoint)
    report = examine(model, tokenizer, scenes)
    reworded = examine(model, tokenizer, scenes, held_out=True, difficulties=("easy",))
    path = out or checkpoint / "README.md"
    write_card(path, report, reworded, scenes)
    for gate in gates(report):
        click.echo(str(gate))
    click.echo(f"card: {path}")


@tiny.command()
@click.argument("checkpoint", type=FOLDER)
@click.argument("out", type=FOLDER, callback=place)
@click.option("--regimes", default="easy,fine,crowded,noise", show_default=True)
@click.option("--kinds", default="existence,count,position,color,OCR", show_default=True)
@click.option(
    "--size", type=COUNT, default=40, show_default=True, help="Images of each kind and regime."
)
@click.option("--pages-only", is_flag=True, help="Tables and figures again, from OUT's records.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@quiet
def lab(
    checkpoint: Path,
    out: Path,
    regimes: str,
    kinds: str,
    size: int,
    pages_only: bool,
    threads: int | None,
) -> None:
    """Run the experiments of docs/laboratory.md with CHECKPOINT; records and tables go to OUT."""
    import torch

    from cof_lab import study_page
    from cof_lab.study import StudyConfig, run

    if threads:
        torch.set_num_threads(threads)
    if not pages_only:
        run(checkpoint, out, StudyConfig(_words(regimes), size, _words(kinds)))
    for path in study_page.write(out):
        click.echo(str(path))


@tiny.command()
@click.argument("checkpoint", type=FOLDER)
@click.argument("out", type=FOLDER, callback=place)
@click.option("--sets", default="fine,noise,crowded,pope,vstar", show_default=True)
@click.option("--kinds", default="existence,count,position,color,OCR", show_default=True)
@click.option("--coarse", default="", help="Coarse stages, all by default.")
@click.option("--fine", default="", help="Fine stages, all by default.")
@click.option("--questions", type=COUNT, default=1200, show_default=True, help="Of each set.")
@click.option("--seed", type=SEED, default=401, show_default=True, help="Of the scenes.")
@click.option("--pages-only", is_flag=True, help="The tables again, from OUT's records.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@quiet
def methods(
    checkpoint: Path,
    out: Path,
    pages_only: bool,
    threads: int | None,
    questions: int,
    seed: int,
    **lists: str,
) -> None:
    """Compare every declared method on the same questions (docs/methods.md); tables go to OUT."""
    import torch

    from cof_lab import methods_page
    from cof_lab.methods import BenchConfig, run

    if threads:
        torch.set_num_threads(threads)
    if not pages_only:
        chosen: dict[str, Any] = {key: _words(text) for key, text in lists.items() if text}
        run(checkpoint, out, BenchConfig(questions=questions, seed=seed, **chosen))
    click.echo(str(methods_page.write(out)))


@tiny.command()
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=place,
    required=True,
    help="Markdown file.",
)
def overview(folders: tuple[Path, ...], out: Path) -> None:
    """One table of the main comparison over several FOLDERS that `cof tiny lab` wrote."""
    from cof.files import write_whole
    from cof_lab import study_page

    write_whole(out, study_page.overview(folders))
    click.echo(str(out))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)
