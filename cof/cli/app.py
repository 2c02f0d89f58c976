"""`cof app`: a page to ask about pictures and to step through runs."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cof.cli._options import COUNT, Positive
from cof.cli.ask import DRAWN_ONLY, KEYS, is_embedded
from cof.errors import ConfigError

if TYPE_CHECKING:
    from cof.app.browse import Browser
    from cof.app.uploads import Bounds
    from cof.pipeline import CoF

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--config", type=FILE, help="YAML of a run: its model and settings.")
@click.option("--model", help="Folder or hub name.  [default: cof-tiny]")
@click.option("--device", help="As in a config.")
@click.option("--dtype", help="As in a config.")
@click.option("--image", type=FILE, help="Picture that the page opens with.")
@click.option("--run", "runs", type=FOLDER, multiple=True, help="Run folder to step through.")
@click.option("--images", type=FOLDER, help="The runs' benchmark folder, where it has moved.")
@click.option("--rows", type=COUNT, help="Most values of λ in one pass; default: all, 20.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: a free one from 7860 on.")
@click.option("--max-megabytes", type=Positive(), default=32, show_default=True, help="Of uploads.")
@click.option("--max-megapixels", type=Positive(), default=50, show_default=True, help="Likewise.")
@click.option("--open", "browser", is_flag=True, help="Open a browser.")
def app(overrides: Sequence[str], **options: Any) -> None:
    """Serve a page: a picture, a question, both answers, λ and α, boxes to draw, attention.

    KEY=VALUE sets any key of a config (refine.name=plain, boxes.expand=1.5). Whoever reaches HOST
    can ask the model and see the runs; the default is this machine alone.
    """
    from cof.app.uploads import Bounds

    bounds = Bounds(options["max_megabytes"], options["max_megapixels"])
    _check_address(options["host"], options["port"])
    with tempfile.TemporaryDirectory(prefix="cof-app-") as uploads:
        page = _page_module(Path(uploads))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uploads are deleted then too
        browsers = _browsers(options["runs"], options["images"], bounds)
        built = _build(page, Path(uploads), bounds, browsers, overrides, options)
        where = (options["host"], options["port"], bounds, options["browser"])
        click.echo(f"{page.start(built, *where)} - Ctrl-C ends it")
        built.block_thread()


def _check_address(host: str, port: int | None) -> None:
    """Find out before the model is loaded that nobody could listen there.

    Raises:
        ConfigError: the port is taken, or the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port or 0), family=family).close()
    except OSError as error:
        where = f"{host} port {port}" if port else host
        why = str(error.strerror).partition(" (")[0]
        raise ConfigError(
            f"cannot listen on {where} ({why}); choose another --port or --host"
        ) from None


def _page_module(uploads: Path) -> Any:
    """The module that needs Gradio, told first where uploads go and to call nobody.

    Raises:
        ConfigError: Gradio is not installed.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from cof.app import page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ConfigError(
            "cof app needs Gradio: pip install 'gradio>=6.31,<7', or cof[app]"
        ) from None
    return page


def _browsers(runs: Sequence[Path], images: Path | None, bounds: Bounds) -> dict[str, Browser]:
    """Name of a folder -> the run in it; of two folders of one name the second has its path."""
    from cof.app.browse import Browser

    found: dict[str, Browser] = {}
    for path in runs:
        name = path.resolve().name
        found[str(path) if name in found else name] = Browser.of(path, images, bounds)
    return found


def _build(
    page: Any,
    uploads: Path,
    bounds: Bounds,
    browsers: dict[str, Browser],
    overrides: Sequence[str],
    options: dict[str, Any],
) -> Any:
    """The page around a loaded model."""
    from cof.app.desk import Desk
    from cof.images import load_image

    pipeline = _pipeline(overrides, options)
    desk = Desk(pipeline, uploads, bounds, browsers, options["rows"], _remark(pipeline))
    first = load_image(options["image"], exif="apply") if options["image"] else None
    return page.build(desk, first)


def _pipeline(overrides: Sequence[str], options: dict[str, Any]) -> CoF:
    from cof.config.sections import changed
    from cof.config.yaml import parse_yaml
    from cof.pipeline import CoF

    data = parse_yaml(options["config"]) if options["config"] else {}
    for name in ("model", "device", "dtype"):
        if options[name] is not None:
            data = changed(data, KEYS[name], options[name])
    return CoF.from_config(data, *overrides)


def _remark(pipeline: CoF) -> Callable[[Any], str]:
    """What to say about a picture: the embedded model knows its own world only."""
    from cof_lab.recognise import is_drawn

    if not is_embedded(pipeline.model.name):
        return lambda _: ""
    return lambda image: "" if is_drawn(image) else DRAWN_ONLY
