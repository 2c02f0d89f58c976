"""`cof ask`: one question about one image, in two passes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cof.cli._options import COUNT, Positive, picture
from cof.errors import ConfigError
from cof.files import whole

if TYPE_CHECKING:
    from cof.outcome import Outcome
    from cof.types import Box

DRAWN_ONLY = (
    "the embedded model cof-tiny knows drawn shapes only, and this image is none of its world's: "
    "its answer means nothing; --model takes a LLaVA-1.5 for photographs"
)


KEYS = {
    "model": "model.path",
    "device": "model.device",
    "dtype": "model.dtype",
    "weight": "refine.weight",
    "scope": "refine.scope",
    "expand": "boxes.expand",
    "rules": "boxes.rules",
    "square": "boxes.square",
    "max_new_tokens": "limits.max_new_tokens",
}
"""Option -> the key of a config that it sets; its default is the key's own."""


def parse_box(_ctx: Any, _option: Any, text: str | None) -> Box | None:
    """A `--box` value, fractions of the image.

    Raises:
        click.BadParameter: not four numbers, or not a box.
    """
    from cof.types import Box

    if text is None:
        return None
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
        return Box(x0, y0, x1, y1)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r}: give x0,y0,x1,y1 as fractions of the image ({error})"
        ) from error


@click.command()
@click.argument("image")
@click.argument("question")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="YAML of a run: its model and settings; options given here count more.",
)
@click.option("--model", default="cof-tiny", show_default=True, help="Folder or hub name.")
@click.option(
    "--weight",
    type=Positive(),
    default=4.5,
    show_default=True,
    help="Lambda; 1 is the plain model.",
)
@click.option(
    "--expand", type=Positive(), default=1.0, show_default=True, help="Alpha: grow boxes this much."
)
@click.option("--scope", type=click.Choice(["all", "text"]), default="all", show_default=True)
@click.option("--rules", type=click.Choice(["clean", "reference"]), default="clean")
@click.option("--square", is_flag=True, help="Make boxes square, as the published script does.")
@click.option("--box", callback=parse_box, help="x0,y0,x1,y1: skip the coarse stage.")
@click.option("--compare", is_flag=True, help="Also print the plain answer.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=picture,
    help="Draw both stages: .png, .pdf, .svg, ...",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--max-new-tokens", type=COUNT, default=128, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--dtype", default="auto", show_default=True)
@click.option("--allow-url", is_flag=True, help="Fetch IMAGE where it is an http(s) address.")
@click.pass_context
def ask(
    context: click.Context, image: str, question: str, overrides: Sequence[str], **options: Any
) -> None:
    """Answer QUESTION about IMAGE: find its region, then answer with it highlighted.

    KEY=VALUE sets any key of a config (refine.name=plain, locate.name=stages/zoom.py).
    """
    from cof.images import load_image
    from cof.pipeline import CoF
    from cof.prompts import check_question
    from cof_lab.recognise import is_drawn

    check_question(question)
    picture = load_image(image, exif="apply", allow_url=options["allow_url"])
    if options["plot"] and not options["plot"].absolute().parent.is_dir():
        raise ConfigError(f"--plot {options['plot']}: there is no folder {options['plot'].parent}")
    pipeline = CoF.from_config(_config(context, options), *overrides)
    outcome = pipeline(picture, question, box=options["box"], plain=options["compare"])
    if is_embedded(pipeline.model.name) and not is_drawn(picture):
        click.echo(f"note: {DRAWN_ONLY}", err=True)
    if options["plot"]:
        _save(outcome, options["plot"])
    if options["as_json"]:
        said = {**outcome.to_dict(), "image": image}
        click.echo(json.dumps(said, ensure_ascii=False, indent=2))
        return
    click.echo(_as_text(outcome, options["compare"]))


def is_embedded(model: str) -> bool:
    """Whether a model's name or folder is that of the embedded one."""
    from cof.models.common.embedded import EMBEDDED, embedded_model_path

    return model == EMBEDDED or Path(model).resolve() == embedded_model_path().resolve()


def _config(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The config file's data, changed by the options that were given."""
    from cof.config.sections import changed, section_of
    from cof.config.yaml import parse_yaml

    data = parse_yaml(options["config"]) if options["config"] else {}
    for name, key in KEYS.items():
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            data = changed(data, key, options[name])
    stage = section_of(data, "locate")
    if options["rules"] == "reference" and stage.get("name", "prompt") == "prompt":
        return {**data, "locate": {"stop": "first", **stage}}
    return data


def _save(outcome: Outcome, file: Path) -> None:
    try:
        with whole(file) as fresh:
            outcome.plot().savefig(fresh)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot {file}: {error}") from error


def _as_text(outcome: Outcome, compare: bool) -> str:
    lines = [f"region   {' '.join(_corners(box) for box in outcome.boxes) or 'none'}"]
    lines += [f"reply    {outcome.region.reply}"] if outcome.region.reply else []
    lines += [f"tokens   {int(outcome.mask.sum())} of {len(outcome.mask)} highlighted"]
    lines += [f"plain    {outcome.plain}"] if compare else []
    lines += [f"answer   {outcome.text}", f"seconds  {outcome.seconds:.2f}"]
    return "\n".join(lines)


def _corners(box: Box) -> str:
    return f"[{box.x0:.3f}, {box.y0:.3f}, {box.x1:.3f}, {box.y1:.3f}]"
