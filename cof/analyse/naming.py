"""What tables, figures and messages call runs: by folder, by setting, or by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cof.analyse.settings import differing, sign, values
from cof.store.run import Run


def folder_names(runs: Sequence[Run]) -> list[str]:
    """Names of runs: as much of the end of each path as tells them apart."""
    paths = list(dict.fromkeys(run.path.absolute() for run in runs))
    for depth in range(1, max(len(path.parts) for path in paths)):
        short = {path: "/".join(path.parts[-depth:]) for path in paths}
        if len(set(short.values())) == len(paths):
            break
    return [short[run.path.absolute()] for run in runs]


def setting_names(runs: Sequence[Run]) -> list[str]:
    """The settings that tell each run from the others; its folder's name where they do not."""
    keys = differing([run.config for run in runs])
    told = [values(run.config, keys) for run in runs]
    names = [
        ", ".join(f"{sign(key)} {value}" for key, value in one.items() if value) for one in told
    ]
    return names if len(set(names)) == len(names) and all(names) else folder_names(runs)


def hash_names(hashes: Sequence[str]) -> str:
    """`run 1a2b3c4d`; of several, all up to three, else one hash of the hashes."""
    if len(hashes) <= 3:
        return f"run{'s' * (len(hashes) > 1)} {' '.join(hashes)}"
    together = hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:8]
    return f"{len(hashes)} runs, together {together}"
