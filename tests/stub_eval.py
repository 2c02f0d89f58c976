"""The `cof` command with a stub in place of model and pipeline, for tests that kill processes.

STUB_DELAY: seconds a batch takes. Neither torch nor transformers is imported.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

from fakes import StubPipeline

from cof.models import base

if __name__ == "__main__":
    from cof.cli import main
    from cof.runs import runner

    llava = ModuleType("cof.models.llava")
    llava.Config = base.Config  # type: ignore[attr-defined]
    sys.modules["cof.models.llava"] = llava
    delay = float(os.environ.get("STUB_DELAY", "0"))
    runner.build_pipeline = lambda config: StubPipeline(config.general.plain, delay)
    main()
