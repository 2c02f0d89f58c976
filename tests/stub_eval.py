"""The `cof` command with a stub in place of model and pipeline, for tests that kill processes.

STUB_DELAY: seconds a batch takes. STUB_GATE: a file without which the second batch of a process
does not begin. STUB_ORPHANED, STUB_SILENT: seconds of `cof.store.waiting`. STUB_EXIT: a file for
the exit code. Neither torch nor transformers is imported.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import ModuleType

from fakes import StubPipeline

from cof.models import base


class GatedPipeline(StubPipeline):
    """Answers one batch, and the others once the gate is open."""

    def answer_batch(self, questions, images):  # type: ignore[no-untyped-def]
        gate = os.environ.get("STUB_GATE")
        while self.batches and gate and not Path(gate).exists():
            time.sleep(0.005)
        return super().answer_batch(questions, images)


if __name__ == "__main__":
    from cof.cli import main
    from cof.evaluate import runner
    from cof.store import waiting

    llava = ModuleType("cof.models.llava")
    llava.Config = base.Config  # type: ignore[attr-defined]
    llava.__file__ = __file__
    llava.load = lambda config: None  # type: ignore[attr-defined]
    identity = {"weights": "stub", "dtype": "float32", "device": "cpu"}
    llava.identify = lambda config: identity  # type: ignore[attr-defined]
    sys.modules["cof.models.llava"] = llava
    delay = float(os.environ.get("STUB_DELAY", "0"))
    runner.build_pipeline = lambda config: GatedPipeline(config.general.plain, delay)
    waiting.ORPHANED = float(os.environ.get("STUB_ORPHANED", waiting.ORPHANED))
    waiting.SILENT = float(os.environ.get("STUB_SILENT", waiting.SILENT))
    try:
        main()
    except SystemExit as end:
        if "STUB_EXIT" in os.environ:  # an orphan's code, which nobody waits for
            Path(os.environ["STUB_EXIT"]).write_text(str(end.code))
        raise
