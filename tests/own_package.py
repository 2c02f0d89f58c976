"""Whether LLaVA's own package is installed: the stand-in of the same name does not count."""

from importlib import metadata

import pytest


def need_own_package():
    try:
        metadata.version("llava-torch")
    except metadata.PackageNotFoundError:
        pytest.skip("llava-torch is not installed")
