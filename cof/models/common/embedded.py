"""Where the files that ship with the package are, in a checkout and when installed."""

from __future__ import annotations

from pathlib import Path

from cof.errors import ModelError

EMBEDDED = "cof-tiny"
"""Name of the embedded model: a folder of base_models/."""


def embedded_model_path() -> Path:
    """Folder of the embedded checkpoint: base_models/ beside a checkout's package, or inside it.

    Raises:
        ModelError: it is in neither place (an incomplete copy of the repository).
    """
    package = Path(__file__).resolve().parents[2]
    places = [package.parent / "base_models" / EMBEDDED, package / "base_models" / EMBEDDED]
    for place in places:
        if (place / "config.json").is_file():
            return place
    raise ModelError(
        f"the embedded model {EMBEDDED!r} is missing: no config.json in "
        f"{' or '.join(map(str, places))}; reinstall, or name another model"
    )
