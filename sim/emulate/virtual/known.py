"""Real values beside virtual tensors: integers always, small floats while they are known.

A virtual tensor may have a twin: a real tensor on the CPU with its values. An operator whose inputs
all have twins runs on them, too, so that routing, masks, sizes and `tolist()` are what they would
be. Views share the twin's memory as they share the tensor's, and a write of something unknown makes
all of them unknown. Where integers are made of unknown floats (topk, argmax), random floats stand in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_map

from ersatz.sim.emulate.virtual.nature import Nature, is_integer

MOST_INTEGERS = 1 << 24  # elements whose values are kept
MOST_FLAGS = 1 << 26  # a mask over 8,192 x 8,192 tokens
MOST_FLOATS = 1 << 16
MOST_DRAWN = 1 << 25  # unknown floats that are drawn for a choice
Tensor: TypeAlias = torch.Tensor


class Twin:
    """The values of a virtual tensor; `cell[0]` is false once any view of them became unknown."""

    __slots__ = ("cell", "values")

    def __init__(self, values: Tensor, cell: list[bool] | None = None) -> None:
        self.values = values
        self.cell = [True] if cell is None else cell


class Unknown(Exception):
    """The values of a tensor are not known."""


def values_of(tensor: Tensor) -> Tensor | None:
    """Return the real values of a tensor, if they are known."""
    if not isinstance(tensor, FakeTensor):
        return tensor
    twin = getattr(tensor, "_twin", None)
    return twin.values if twin is not None and twin.cell[0] else None


def keep(tensor: Tensor, values: Tensor, cell: list[bool] | None = None) -> None:
    """Keep values beside a virtual tensor, if they are few enough to be worth it."""
    if isinstance(tensor, FakeTensor) and values.numel() <= most_of(values.dtype):
        tensor._twin = Twin(values, cell)


def most_of(dtype: torch.dtype) -> int:
    """Return how many elements of a format are kept at most."""
    if dtype is torch.bool:
        return MOST_FLAGS
    return MOST_INTEGERS if is_integer(dtype) else MOST_FLOATS


def forget(tensor: object) -> None:
    """A write made the values of a tensor, and of all that share them, unknown."""
    twin = getattr(tensor, "_twin", None)
    if twin is not None:
        twin.cell[0] = False
        tensor._twin = None  # type: ignore[attr-defined]


def cell_of(values: Tensor, inputs: Iterable[Tensor]) -> list[bool] | None:
    """Return the cell of the input whose memory a result shares."""
    memory = values.untyped_storage()._cdata
    for tensor in inputs:
        twin = getattr(tensor, "_twin", None)
        if twin is not None and twin.values.untyped_storage()._cdata == memory:
            return twin.cell
    return None


def is_worth(kind: Nature, args: dict[str, Any], dtype: torch.dtype | None) -> bool:
    """Tell whether what a factory makes is small enough to be made in truth, too."""
    if kind.uninitialised or (kind.random and not _whole(kind, dtype)):
        return False
    shape = args.get("size")
    count = math.prod(shape) if isinstance(shape, (list, tuple)) else 1
    integers = (dtype is not None and is_integer(dtype)) or kind.name in (
        "arange",
        "randint",
        "randperm",
    )
    return count <= (MOST_INTEGERS if integers else MOST_FLOATS)


def _whole(kind: Nature, dtype: torch.dtype | None) -> bool:
    return kind.name in ("randint", "randperm") or (dtype is not None and is_integer(dtype))


def on_host(values: Any, drawn: torch.Generator | None = None) -> Any:
    """Return arguments for the CPU: twins for virtual tensors, the CPU for devices.

    With `drawn`, unknown values are drawn; without, they raise `Unknown`.
    """

    def real(value: Any) -> Any:
        if isinstance(value, FakeTensor):
            found = values_of(value)
            if found is not None:
                return found
            if drawn is None:
                raise Unknown
            return draw(value, drawn)
        return torch.device("cpu") if isinstance(value, torch.device) else value

    return tree_map(real, values)


def draw(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Return random values in the shape of a tensor; raises `Unknown` for too many."""
    if tensor.numel() > MOST_DRAWN:
        raise Unknown
    if tensor.dtype == torch.bool:
        return torch.rand(tensor.shape, generator=generator) < 0.5
    if is_integer(tensor.dtype):
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    wide = (
        tensor.dtype
        if tensor.dtype.itemsize >= 4 and not tensor.dtype.is_complex
        else torch.float32
    )
    return torch.rand(tensor.shape, generator=generator, dtype=wide)


def by_policy(tensor: Tensor, unknown_float: float) -> Tensor:
    """Return stand-in values: floats by policy, integers one, what may be a flag zero."""
    if tensor.dtype in (torch.bool, torch.uint8):
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    value = unknown_float if tensor.dtype.is_floating_point else 1
    return torch.full(tensor.shape, value, dtype=tensor.dtype)
