"""Muon for matrices and AdamW for the rest, as one object with a state dict.

Muon: Jordan et al. 2024 (momentum, then an orthogonalised update); the update's size is scaled
as by Liu et al. 2025 (arXiv 2502.16982), so that one learning rate suits every shape. Own
float32 implementation: bfloat16 is slower than float32 on CPUs without native support.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True)
class OptimConfig:
    """Peak learning rates and momenta."""

    muon: float = 4e-3
    adam: float = 2e-3
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.98)
    decay: float = 0.01
    clip: float = 1.0


def orthogonalise(update: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz: push the singular values of [N, r, c] matrices towards one."""
    a, b, c = COEFFICIENTS
    tall = update.shape[-2] > update.shape[-1]
    x = update.mT if tall else update
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Muon takes hidden matrices; tables, the output head and the patch filter go to AdamW."""
    return parameter.ndim == 2 and not any(key in name for key in ("embed", "lm_head", "readout"))


class Optimizer:
    """Both optimisers over the trainable parameters of several modules.

    `scales` maps a name prefix to a factor on the learning rate (longest prefix wins).
    """

    def __init__(
        self, modules: dict[str, nn.Module], config: OptimConfig, scales: dict[str, float]
    ) -> None:
        self.config = config
        named = [
            (f"{key}.{name}", parameter)
            for key, module in modules.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        ]
        self.parameters = [parameter for _, parameter in named]
        self.momentum: dict[str, Tensor] = {}
        self.matrices: dict[tuple, list[tuple[str, Tensor]]] = defaultdict(list)
        rest = defaultdict(list)
        for name, parameter in named:
            scale = max(
                ((len(k), v) for k, v in scales.items() if name.startswith(k)), default=(0, 1)
            )[1]
            if is_matrix(name, parameter):
                self.matrices[(*parameter.shape, scale)].append((name, parameter))
                self.momentum[name] = torch.zeros_like(parameter)
            else:
                rest[scale].append(parameter)
        groups = [{"params": group, "scale": scale} for scale, group in rest.items()]
        self.adam = torch.optim.AdamW(groups, lr=config.adam, betas=config.betas, weight_decay=0.0)

    @torch.no_grad()
    def step(self, factor: float) -> float:
        """One update at `factor` times the peak rates, then clear gradients; returns their norm."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        for settings in self.adam.param_groups:
            settings["lr"] = self.config.adam * factor * settings["scale"]
        self.adam.step()
        for (rows, columns, scale), group in self.matrices.items():
            self._muon(group, self.config.muon * factor * scale * 0.2 * max(rows, columns) ** 0.5)
        for parameter in self.parameters:
            parameter.grad = None
        return float(norm)

    def _muon(self, group: list[tuple[str, Tensor]], rate: float) -> None:
        fresh = [(name, p, p.grad) for name, p in group if p.grad is not None]
        if not fresh:
            return
        momentum = self.config.momentum
        for name, _, grad in fresh:
            self.momentum[name].lerp_(grad, 1 - momentum)
        updates = torch.stack([grad.lerp(self.momentum[n], momentum) for n, _, grad in fresh])
        for (_, p, _), update in zip(fresh, orthogonalise(updates), strict=True):
            p.mul_(1 - rate * self.config.decay).add_(update, alpha=-rate)

    def state_dict(self) -> dict:
        """Everything a resumed run needs."""
        return {"adam": self.adam.state_dict(), "momentum": self.momentum}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` saved, into the same set of parameters."""
        self.adam.load_state_dict(state["adam"])
        for name, value in state["momentum"].items():
            self.momentum[name].copy_(value)
