"""The recorded rows of the published box-to-mask code: the copy in tests/data, and ../shared."""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
COPY = HERE.parent / "data" / "mask_cases.npz"
GOLDEN = HERE.parents[2] / "shared" / "golden"
GRIDS = ((24, 24), (16, 16), (24, 36), (27, 27), (48, 24))


def copied():
    """(rows, {(rows, columns): (index of the first row, bool masks [N, rows, columns])})."""
    with np.load(COPY) as packed:
        rows = json.loads(packed["rows"].tobytes())
        return rows, {grid: _unpack(packed[_key(grid)], grid) for grid in GRIDS}


def original():
    """The same from the golden folder, or None where it is absent."""
    if not (GOLDEN / "mask_cases.json").exists():
        return None
    from safetensors.numpy import load_file

    rows = json.loads((GOLDEN / "mask_cases.json").read_text())
    masks = load_file(GOLDEN / "mask_cases.safetensors")
    return rows, {
        grid: (_first(grid), masks[_key(grid)].astype(bool).reshape(-1, *grid)) for grid in GRIDS
    }


def _key(grid):
    return "masks" if grid == (24, 24) else f"masks_rows200_239_shape_{grid[0]}x{grid[1]}"


def _first(grid):
    return 0 if grid == (24, 24) else 200


def _unpack(bits, grid):
    flat = np.unpackbits(bits, axis=1, count=grid[0] * grid[1])
    return _first(grid), flat.astype(bool).reshape(-1, *grid)
