"""Operators that are one kernel on accelerators and are made of others in a build for CPUs.

A kernel under the device's key is all that the dispatcher looks for; it is never run, for virtual tensors
run on shapes. Found by listing the operators that have both a composition and kernels of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

CUDA = ("silu_backward", "mish_backward", "_fused_rms_norm")
NPU = ("silu_backward", "mish_backward")
CPU = ("silu_backward", "mish_backward")  # whose norms are made of others for real
ALLOCATIONS = ("empty_strided", "empty.memory_format")
_kept: list[Any] = []


def install(key: str, names: tuple[str, ...], shapes: FakeTensorMode) -> None:
    """Say that operators have a kernel under a dispatch key; let what asks for memory get a virtual tensor.

    Compilers make tensors of the device where no mode watches, to look at their shapes alone.
    """
    library = torch.library.Library("aten", "IMPL")
    for name in names:
        library.impl(name, _never_run, key)
    for name in ALLOCATIONS:
        library.impl(name, _virtual(name, shapes), key)
    _kept.append(library)


def _virtual(name: str, shapes: FakeTensorMode) -> Any:
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def allocate(*args: Any, **kwargs: Any) -> Any:
        with shapes:
            return operator(*args, **kwargs)

    return allocate


def _never_run(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError("an operator met a virtual tensor outside the emulation")
