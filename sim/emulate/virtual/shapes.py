"""Shapes of operators that only accelerators have: PyTorch's build for CPUs knows neither kernel nor shape.

They are those of batch norms over all ranks (`SyncBatchNorm`). A grouped product's shape is known in
bf16 alone, while its kernels take other formats (`mode`).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor
_kept: list[Any] = []


def install() -> None:
    """Give PyTorch the shapes that it lacks."""
    library = torch.library.Library("aten", "IMPL")
    for name, rule in _RULES.items():
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta"):
            library.impl(name, rule, "Meta")
    _kept.append(library)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.dtype.itemsize < torch.float32.itemsize else tensor.dtype


def _of_channels(tensor: Tensor) -> Tensor:
    return tensor.new_empty(tensor.shape[1], dtype=_wide(tensor))


def _two(tensor: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _of_channels(tensor), _of_channels(tensor)


def _like(tensor: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(tensor)


def _backward(
    grad: Tensor, given: Tensor, mean: Tensor, spread: Tensor, weight: Tensor | None,
    wants_input: bool, wants_weight: bool, wants_bias: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    wanted = (wants_input, wants_input, wants_weight, wants_bias)
    return tuple(_of_channels(given) if want else given.new_empty(0) for want in wanted)


_RULES = {
    "batch_norm_stats": _two,
    "batch_norm_update_stats": _two,
    "batch_norm_gather_stats": _two,
    "batch_norm_gather_stats_with_counts": _two,
    "batch_norm_elemt": _like,
    "batch_norm_backward_elemt": _like,
    "batch_norm_backward_reduce": _backward,
}
