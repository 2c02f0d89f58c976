"""lmms-eval's way in: the entry point `lmms_eval.models`, and the layout of LMMS_EVAL_PLUGINS.

lmms-eval loads every plug-in when it starts, and one that raises silences all: nothing heavy is
imported here. `models/` and `tasks/` are named as lmms-eval 0.5 looks for them.
"""

from __future__ import annotations

from typing import Any

CLASS = "cof.harness.lmms_eval.models.cof.CofModel"


def manifest() -> Any:
    """What registers `--model cof` in lmms-eval 0.6 and later: its `ModelManifest`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("cof", simple_class_path=CLASS)
