"""What a comparison with recorded numbers found: one line a check, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-4


@dataclass
class Comparison:
    """One line of the report.

    Attributes:
        name: what was compared.
        cases: how many comparisons; 0 means that the folder has no such files.
        worst: largest absolute difference of numbers.
        mismatches: how many ids, tokens, cells or pixels differ.
        binding: whether it counts for the verdict.
    """

    name: str
    cases: int = 0
    worst: float = 0.0
    mismatches: int = 0
    binding: bool = True

    def verdict(self, tolerance: float) -> str:
        """`ok`, `FAILED`, or `absent` where the folder has nothing to compare with."""
        if self.cases == 0:
            return "absent"
        good = self.worst <= tolerance and self.mismatches == 0
        return "ok" if good else "FAILED" if self.binding else "differs"

    def numbers(self, ours: Tensor, theirs: Tensor) -> None:
        """Compare two float tensors; different shapes, or a value that is not finite, fail."""
        self.cases += 1
        ours = ours.detach().float().cpu()
        if ours.shape != theirs.shape:
            self.mismatches += 1
            steps = min(len(ours), len(theirs))
            ours, theirs = ours[:steps], theirs[:steps]
        difference = (ours - theirs.float()).abs().max().item() if ours.numel() else 0.0
        finite = bool(np.isfinite(difference))
        self.worst = max(self.worst, difference if finite else float("inf"))

    def arrays(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Compare two integer arrays of one shape element by element."""
        self.cases += 1
        same = ours.shape == theirs.shape
        self.mismatches += int((ours != theirs).sum()) if same else max(ours.size, theirs.size)

    def items(self, ours: Iterable[Any], theirs: Iterable[Any]) -> None:
        """Compare two sequences item by item; items that only one side has are mismatches."""
        self.cases += 1
        left, right = list(ours), list(theirs)
        self.mismatches += abs(len(left) - len(right))
        self.mismatches += sum(bool(a != b) for a, b in zip(left, right, strict=False))


@dataclass
class ParityReport:
    """All checks of a folder.

    Attributes:
        checks: in the order of the pipeline.
        tolerance: largest difference that passes.
    """

    checks: list[Comparison]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Nothing failed, and the logits of all three passes were really compared."""
        verdicts = {check.name: check.verdict(self.tolerance) for check in self.checks}
        needed = ("coarse logits", "plain logits", "highlighted logits")
        return "FAILED" not in verdicts.values() and all(verdicts[key] == "ok" for key in needed)

    def rows(self) -> list[tuple[str, int, float, int, str]]:
        """(check, cases, max |difference|, mismatches, verdict) to print."""
        return [
            (c.name, c.cases, c.worst, c.mismatches, c.verdict(self.tolerance)) for c in self.checks
        ]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON, all digits."""
        checks = [{**asdict(c), "verdict": c.verdict(self.tolerance)} for c in self.checks]
        return {"passed": self.passed, "tolerance": self.tolerance, "checks": checks}
