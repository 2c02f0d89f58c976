"""The same bits every time: kernels without races, a fixed workspace, no TF32."""

from __future__ import annotations

import os

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def make_deterministic() -> None:
    """Switch this process to deterministic kernels, for good; before the first CUDA call.

    On one machine and one version of everything a run then gives the same answers, byte for byte,
    when it is made again. An operation that has no deterministic kernel raises a RuntimeError that
    names it.
    """
    os.environ.setdefault(WORKSPACE, ":4096:8")  # cuBLAS reads it when it is first used
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
