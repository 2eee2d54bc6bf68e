"""Operators on real values: as far as these are known, drawn where that tells shapes, what a fill leaves.

Also those without a rule for the shapes of their results: which errors say so, and what to say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)

from ersatz.sim.emulate.virtual.known import Unknown, is_worth, most_of, on_host, values_of
from ersatz.sim.emulate.virtual.machine import Machine, place
from ersatz.sim.emulate.virtual.nature import Nature

WORDS = ("no fake impl registered", "with arguments from the 'Meta' backend")
_SHAPELESS = (
    UnsupportedOperatorException,
    DataDependentOutputException,
    DynamicOutputShapeException,
    NotImplementedError,
)


class RealValues:
    """Runs operators on the host, on what is known of their inputs."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.random = torch.Generator().manual_seed(machine.seat.seed)

    def result(
        self, func: Any, kind: Nature, args: tuple[Any, ...], kwargs: dict[str, Any],
        inputs: Sequence[torch.Tensor],
    ) -> Any:  # fmt: skip
        """Run an operator on real values as far as they are known; None: they are not."""
        if not inputs:
            return self._made(func, kind, args, kwargs)
        if kind.fills:
            return self._filled(kind, args, kwargs)
        if all(values_of(x) is not None for x in inputs):
            if kind.uninitialised or (kind.random and not kind.written):
                return self._drawn(func, kind, args, kwargs)
            try:
                return func(*on_host(args), **self._seeded(kind, on_host(kwargs)))
            except Exception as error:  # whatever somebody's operator raises
                if kind.namespace == "aten" and not isinstance(error, (RuntimeError, TypeError)):
                    raise  # a place that is not there, as on a device
                self.machine.note(f"{kind.full} cannot run on real values: {str(error)[:80]}")
                return None
        if kind.test is not None and inputs[0].numel() <= 1 << 24:
            return torch.full(inputs[0].shape, kind.test, dtype=torch.bool)
        return self._drawn(func, kind, args, kwargs) if kind.chooses else None

    def _drawn(self, func: Any, kind: Nature, args: Any, kwargs: dict[str, Any]) -> Any:
        if not kind.chooses and not kind.random:
            return None
        try:
            made = on_host(args, self.random), on_host(kwargs, self.random)
            return func(*made[0], **self._seeded(kind, made[1]))
        except (Unknown, RuntimeError, NotImplementedError):
            return None

    def _seeded(self, kind: Nature, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Draw for the device from a generator of its own: the script's stays as it is."""
        if kind.random and "generator" in kind.names:
            return {**kwargs, "generator": self.random}
        return kwargs

    def _made(self, func: Any, kind: Nature, args: Any, kwargs: dict[str, Any]) -> Any:
        named = kind.bound(args, kwargs)
        if not is_worth(kind, named, named.get("dtype")):
            return None
        plain = {**kwargs, "device": torch.device("cpu")}
        plain.pop("pin_memory", None)
        try:
            return func(*args, **self._seeded(kind, plain))
        except (RuntimeError, TypeError):
            return None

    def _filled(self, kind: Nature, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return what a fill leaves, whatever was there."""
        named = kind.bound(args, kwargs)
        tensor = args[0]
        value = kind.fill if kind.fill is not None else named.get("fill_value", named.get("value"))
        if isinstance(value, torch.Tensor):
            value = values_of(value)
        dtype = named.get("dtype") or tensor.dtype
        shape = named.get("size", tensor.shape)
        if value is None or math.prod(shape) > most_of(dtype):
            return None
        old = values_of(tensor)
        if kind.written and old is not None:
            return old.fill_(value)
        if kind.written and not is_whole(tensor):
            return None
        return torch.full(
            tuple(shape), float(value) if dtype.is_floating_point else value, dtype=dtype
        )

    def by_chance(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator with values drawn for those that nobody knows."""
        return func(*on_host(args, self.random), **on_host(kwargs, self.random))

    def for_shapes(
        self, func: Any, kind: Nature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run an operator that has no rule for its shapes; raises `NotImplementedError` if it cannot."""
        try:
            return self.by_chance(func, args, kwargs)
        except Exception as error:  # whatever somebody's operator raises
            raise NotImplementedError(no_shapes(kind.full, str(error))) from None


def is_whole(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is all of its storage."""
    return tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def shapeless(error: Exception) -> bool:
    """Tell whether an operator failed because its shapes are not known, not because its inputs are wrong."""
    return isinstance(error, _SHAPELESS) or any(words in str(error) for words in WORDS)


def no_shapes(name: str, why: str) -> str:
    """Say that an operator can be run neither on shapes nor on the CPU, where, and what would help."""
    reason = why.strip().splitlines()[0][:120] if why.strip() else "too large"
    return (
        f"{name} at {place()} has no rule for the shapes of its result, and cannot be run on the CPU to see"
        f" them ({reason}): give it one by torch.library.register_fake"
    )
