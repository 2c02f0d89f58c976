"""The training loop that both stages share: resumable to the step, safe to kill at any time.

The data of step t is a function of (seed, stage, t) alone, so a run that was interrupted and
resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cof.evaluate.progress import progress
from cof.files import blamed, whole
from cof_lab.optim import OptimConfig, Optimizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of a stage; `decay` is the last part, linear to `floor`.

    images: scenes a step; dev: scenes of each difficulty in a dev evaluation.
    """

    steps: int
    images: int
    warmup: int = 20
    decay: float = 0.6
    floor: float = 0.02
    dev: int = 48

    def factor(self, step: int) -> float:
        """Learning rate of this step as a share of the peak."""
        left = (self.steps - step) / (self.steps * self.decay)
        return min(1.0, (step + 1) / self.warmup, max(left, self.floor))


class Stage(Protocol):
    """What the loop needs to know about a stage."""

    name: str
    schedule: Schedule
    modules: dict[str, nn.Module]
    scales: dict[str, float]

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of one step's batch, and numbers worth plotting."""

    def evaluate(self) -> dict[str, float]:
        """Metrics on the dev split."""


def save_checkpoint(path: Path, state: Any) -> None:
    """Write a checkpoint so that a kill leaves either the old file or the new one."""
    with whole(path) as fresh:
        torch.save(state, fresh)


def append(path: Path, row: dict[str, Any]) -> None:
    """Add one JSON line to the run's log."""
    with blamed(path, "written"), path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def fit(
    stage: Stage,
    folder: Path,
    optim: OptimConfig,
    minutes: float = 3.0,
    every: int = 10,
    dev_every: int = 200,
    stop_at: int | None = None,
) -> None:
    """Train a stage, or go on where its checkpoint in `folder` stands.

    Args:
        stage: what to train.
        folder: where <stage>.pt, log.jsonl and dev.jsonl are.
        optim: peak rates.
        minutes: between two checkpoints.
        every: steps between two lines of log.jsonl.
        dev_every: steps between two dev evaluations, and at the end.
        stop_at: leave after this many steps in all, with a checkpoint (a sitting).
    """
    path = folder / f"{stage.name}.pt"
    optimizer = Optimizer(stage.modules, optim, stage.scales)
    start = _resume(path, stage, optimizer)
    end = min(stage.schedule.steps, stop_at or stage.schedule.steps)
    saved = time.monotonic()
    for step in _shown(stage.name, start, end):
        loss, report = stage.loss(step)
        loss.backward()
        norm = optimizer.step(stage.schedule.factor(step))
        if step % every == 0:
            row = {"stage": stage.name, "step": step, "loss": loss.item(), "norm": norm, **report}
            append(folder / "log.jsonl", {**row, "time": time.time()})
        if (step + 1) % dev_every == 0 or step + 1 == end:
            append(
                folder / "dev.jsonl", {"stage": stage.name, "step": step + 1, **stage.evaluate()}
            )
        if time.monotonic() - saved > 60 * minutes or step + 1 == end:
            save_checkpoint(path, _state(stage, optimizer, step + 1))
            saved = time.monotonic()


def _shown(name: str, start: int, end: int) -> Iterator[int]:
    """The steps, with progress on stderr."""
    with progress(end, "step", name, done=start) as bar:
        for step in range(start, end):
            yield step
            bar.update()


def _state(stage: Stage, optimizer: Optimizer, step: int) -> dict[str, Any]:
    modules = {name: module.state_dict() for name, module in stage.modules.items()}
    return {"step": step, "modules": modules, "optimizer": optimizer.state_dict()}


def _resume(path: Path, stage: Stage, optimizer: Optimizer) -> int:
    """Load a checkpoint if there is one; returns the step to go on with."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, module in stage.modules.items():
        module.load_state_dict(state["modules"][name])
    optimizer.load_state_dict(state["optimizer"])
    log.info("%s goes on at step %d", stage.name, state["step"])
    return state["step"]
