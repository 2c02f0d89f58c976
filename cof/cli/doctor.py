"""`cof doctor`: is this installation sound, does it compute what the published code does?

And does a family's adapter compute on somebody's checkpoint what transformers does?
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path

import click

from cof.cli._options import Positive

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "pillow", "numpy", "pydantic")


@click.command()
@click.option(
    "--parity",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of recorded numbers of the published code; exits with 1 where ours differ.",
)
@click.option("--family", help="Check a checkpoint of this family; exits with 1 where one fails.")
@click.option("--model", help="The checkpoint of --family: a folder or a hub name.")
@click.option(
    "--image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A picture to ask --model about; noise without it.",
)
@click.option(
    "--tolerance",
    type=Positive(),
    help="Largest difference of logits; 1e-4, or for --family in half precision 0.02 (float16) and "
    "0.1 (bfloat16).",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--dtype", default="float32", show_default=True, help="float32, float16, bfloat16.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all digits.")
def doctor(
    parity: Path | None,
    family: str | None,
    model: str | None,
    image: Path | None,
    tolerance: float | None,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Check this installation; --parity compares with recorded numbers, --family a checkpoint."""
    if (family is None) != (model is None) or (image and not model) or (parity and model):
        raise click.UsageError(
            "--family and --model belong together, --image to them, and --parity stands alone"
        )
    if family is not None and model is not None:
        _family(
            family, {"path": model, "device": device, "dtype": dtype}, image, tolerance, as_json
        )
    elif parity is not None:
        _parity(parity, tolerance or 1e-4, device, dtype, as_json)
    else:
        facts = _installation()
        lines = [f"{name:14} {value}" for name, value in facts.items()]
        click.echo(json.dumps(facts, indent=2) if as_json else "\n".join(lines))


def _family(
    name: str, options: dict[str, str], image: Path | None, tolerance: float | None, as_json: bool
) -> None:
    from dataclasses import asdict

    from tabulate import tabulate

    from cof.config import plugins
    from cof.evaluate.family.across import checks_of
    from cof.evaluate.family.checks import TOLERANCES, passed
    from cof.images import load_image

    module = plugins.load("models", name)
    loaded = module.load(module.Config(**options))
    tolerance = tolerance or TOLERANCES.get(loaded.dtype, TOLERANCES["float32"])
    found = checks_of(loaded, load_image(image, exif="apply") if image else None, tolerance).run()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        words = {True: "ok", False: "FAILED", None: "not checked"}
        rows = [(one.name, words[one.held], one.said) for one in found]
        click.echo(tabulate(rows, ("check", "verdict", "figures")))
        click.echo(f"tolerance {tolerance:g}: {'passed' if passed(found) else 'FAILED'}")
    raise SystemExit(0 if passed(found) else 1)


def _installation() -> dict[str, str]:
    import torch

    from cof import __version__
    from cof.models.common.checkpoint import EMBEDDED, find

    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    checkpoint = find(EMBEDDED)
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (CPU is used)"
    return {
        "cof": __version__,
        "python": platform.python_version(),
        **versions,
        "cuda": cuda,
        "cof-tiny": f"{checkpoint.layout} layout, {checkpoint.revision}",
    }


def _parity(folder: Path, tolerance: float, device: str, dtype: str, as_json: bool) -> None:
    from tabulate import tabulate

    from cof.evaluate.parity import Parity

    report = Parity(folder, device, dtype).run(tolerance)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        heads = ("check", "cases", "max |difference|", "mismatches", "verdict")
        click.echo(tabulate(report.rows(), heads, floatfmt=".2e"))
        click.echo(f"tolerance {tolerance:g}: {'passed' if report.passed else 'FAILED'}")
    raise SystemExit(0 if report.passed else 1)
