"""Operators that nobody gave a rule for the shapes of their results: which errors say so, and what to say."""

from __future__ import annotations

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)

from ersatz.sim.emulate.virtual.machine import place

WORDS = ("no fake impl registered", "with arguments from the 'Meta' backend")
_SHAPELESS = (
    UnsupportedOperatorException,
    DataDependentOutputException,
    DynamicOutputShapeException,
    NotImplementedError,
)


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
