"""Compare the running interpreter with requirements files; exit 1 where a package is missing."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path


def installed(package: str) -> str | None:
    """The installed version without a local suffix (`2.13.0+cpu` is `2.13.0`), None if absent."""
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return None


def main(files: list[str]) -> int:
    """Report on stderr what is missing (an error) or of another version (a note)."""
    lines = [line.strip() for name in files for line in Path(name).read_text().splitlines()]
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    found = {package: installed(package) for package, _ in pins}
    missing = [package for package, version in found.items() if version is None]
    other = [f"{name} {found[name]} (tested: {pin})" for name, pin in pins if found[name] != pin]
    if missing:
        wanted = " ".join(f"-r {name}" for name in files)
        sys.stderr.write(f"cof: {sys.executable} lacks {', '.join(missing)}; ")
        sys.stderr.write(f"run: {sys.executable} -m pip install {wanted}\n")
    elif other:
        sys.stderr.write(f"cof: note: {sys.executable} has {', '.join(other)}\n")
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
