"""`cof answer`: a file of your own questions about a folder of images."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cof.cli._options import place, quiet
from cof.errors import ConfigError

if TYPE_CHECKING:
    from cof.types import Result


@click.command()
@click.argument("questions", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=place,
    required=True,
    help="Where the answers go: JSON lines.",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="YAML of a run: its model and settings.",
)
@click.option("--plain", is_flag=True, help="Also answer without the highlight.")
@click.option("--overwrite", is_flag=True, help="Ask everything anew.")
@click.option("--retry-failed", is_flag=True, help="Ask the questions again that failed.")
@quiet
def answer(
    questions: Path,
    images: Path,
    overrides: Sequence[str],
    out: Path,
    config: Path | None,
    plain: bool,
    overwrite: bool,
    retry_failed: bool,
) -> None:
    """Answer the QUESTIONS, JSON lines with `image` and `question`, about files in IMAGES.

    Writes a line an answer: id, image, question, text, with --plain also plain, boxes as fractions
    of the image, error. The same command goes on where it was stopped: what is done so far is the
    run folder beside --out, which `cof report` and `cof score` read. KEY=VALUE sets any key of a
    config (model.path=llava-hf/llava-1.5-7b-hf). Exit code: 1 some questions failed.
    """
    from cof.config import schema
    from cof.evaluate.runner import Options, run
    from cof.store.launch import Ranks

    settings = schema.resolve(_data(config, questions, images, out, overrides, plain))
    command = shlex.join(["cof", *sys.argv[1:]])
    done = run(settings, Options(False, overwrite, retry_failed, command))
    if not Ranks.here().leads:
        return
    failed = _write(out, done.results, bool(done.config["plain"]))
    click.echo(f"written: {out}, {len(done.results)} answers, {failed} failed")
    sys.exit(int(failed > 0))


def _data(
    config: Path | None,
    questions: Path,
    images: Path,
    out: Path,
    overrides: Sequence[str],
    plain: bool,
) -> dict[str, Any]:
    """A run's config, in which what the command line says counts most."""
    from cof.config.sections import changed, parse_override
    from cof.config.yaml import parse_yaml

    if not questions.is_file():
        raise ConfigError(f"{questions}: no such file; QUESTIONS is a file of JSON lines")
    if out.exists() and out.samefile(questions):
        raise ConfigError(f"{out}: --out is the file of the questions, which it would replace")
    if not images.is_dir():
        raise ConfigError(f"{images}: no such folder; IMAGES is the folder of the images")
    asked = {"name": "jsonl", "root": str(questions), "images": str(images.resolve())}
    data: dict[str, Any] = {"images": {"exif": "apply"}, "batch_size": "auto"}
    data |= parse_yaml(config) if config else {}
    data |= {"bench": {**asked, "suffix": "none"}, "plain": plain}
    data |= {"out": str(out.parent), "name": f"{out.stem}.run"}
    for override in overrides:
        data = changed(data, *parse_override(override))
    return data


def _write(out: Path, results: Sequence[Result], plain: bool) -> int:
    """The answers, in the order of the questions; returns how many questions failed."""
    from cof.bench.common.files import write_jsonl

    write_jsonl(out, (_line(result, plain) for result in results))
    return sum(bool(result.error) for result in results)


def _line(result: Result, plain: bool) -> dict[str, Any]:
    asked, region = result.question, result.region
    line: dict[str, Any] = {"id": asked.id, "image": asked.image, "question": asked.text}
    line["text"] = result.cof.text if result.cof else None
    line |= {"plain": result.plain.text if result.plain else None} if plain else {}
    line["boxes"] = [list(box.as_tuple()) for box in region.boxes] if region else []
    return line | ({"error": result.error} if result.error else {})
