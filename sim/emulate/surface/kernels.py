"""Operators that are one kernel on accelerators and are made of others in a build for CPUs.

A kernel under the device's key is all that the dispatcher looks for; it is never run, for virtual tensors
run on shapes. Found by listing the operators that have both a composition and kernels of their own.
"""

from __future__ import annotations

from typing import Any

import torch

CUDA = ("silu_backward", "mish_backward", "_fused_rms_norm")
NPU = ("silu_backward", "mish_backward")
CPU = ("silu_backward", "mish_backward")  # whose norms are made of others for real
_kept: list[Any] = []


def install(key: str, names: tuple[str, ...]) -> None:
    """Say that operators have a kernel under a dispatch key."""
    library = torch.library.Library("aten", "IMPL")
    for name in names:
        library.impl(name, _never_run, key)
    _kept.append(library)


def _never_run(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError("an operator met a virtual tensor outside the emulation")
