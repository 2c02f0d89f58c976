"""Fixtures that several topics share: the recorded checkpoint and a shared folder, if any."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def golden():
    """Recorded numbers of the published code on a tiny random checkpoint (a small copy)."""
    return DATA / "golden"


@pytest.fixture(scope="session")
def full_golden():
    """The whole set of recorded numbers, where it is at hand."""
    folder = SHARED / "golden"
    if not (folder / "cases.json").is_file():
        pytest.skip("the full set of recorded numbers is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    """A folder with all mini benchmarks, two images a part; to be read, not changed."""
    from cof_lab.mini.common import MiniConfig
    from cof_lab.mini.write import write_all

    root = tmp_path_factory.mktemp("mini") / "out"
    write_all(root, MiniConfig(size=2))
    return root


@pytest.fixture(scope="session")
def llava(golden):
    """The tiny random LLaVA in the original layout, float32 on the CPU."""
    from cof.models.llava import Config
    from cof.models.llava.model import load

    return load(Config(str(golden / "checkpoint"), device="cpu", dtype="float32"))
