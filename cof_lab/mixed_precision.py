"""Matrix products in bfloat16 while training; weights and optimiser in float32.

On CPUs that multiply bfloat16 natively (AVX512-BF16, AMX) a language step takes a quarter less
time; on others it is far slower, so it is a setting. Softmax, norms, the output head and all that
is thrown away later stay in float32, which autocast would not leave alone. A saved model does not
know of it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Bfloat16Linear(torch.autograd.Function):
    """y = x w^T (+ b) and its first gradients; products are bfloat16, kept as float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Take x [..., in], weight [out, in], bias [out]; result [..., out]."""
        low = x.to(torch.bfloat16), weight.to(torch.bfloat16)
        ctx.save_for_backward(*low)
        result = F.linear(*low).float()
        return result if bias is None else result + bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of x, weight and bias, where they are asked for."""
        x, weight = ctx.saved_tensors
        low = grad.to(torch.bfloat16)
        of_x, of_weight, of_bias = ctx.needs_input_grad
        flat = low.reshape(-1, low.shape[-1])
        return (
            (low @ weight).float() if of_x else None,
            (flat.T @ x.reshape(-1, x.shape[-1])).float() if of_weight else None,
            grad.reshape(-1, grad.shape[-1]).sum(0) if of_bias else None,
        )


def multiply_in_bfloat16(module: nn.Module) -> None:
    """Let every linear layer in `module` multiply in bfloat16."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.forward = partial(_forward, layer)  # type: ignore[method-assign]


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    result: Tensor = Bfloat16Linear.apply(x, layer.weight, layer.bias)
    return result
