"""What laws are made of: the book in which they stand, comparisons, and words for what is violated."""

from __future__ import annotations

import math
from collections.abc import Callable

from .plans import Plan

EXACT = 1e-9  # of sums and of what must be equal
SAME = 1e-6  # by which rounding may move a time
NOISE = 0.02  # of means over eight replicas with the same seed
Law = Callable[[Plan], str]
LAWS: dict[str, Law] = {}


def law(function: Law) -> Law:
    """Enter a function into `LAWS`."""
    LAWS[function.__name__.replace("_", " ")] = function
    return function


def differs(what: str, one: float, other: float, tolerance: float = EXACT) -> str:
    """Complain where two values are not the same."""
    close = math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance * 1e-3)
    return "" if close else f"{what}: {one!r} against {other!r}"


def rises(what: str, before: float, after: float, tolerance: float = SAME) -> str:
    """Complain where a value is larger after a change that cannot make it so."""
    return (
        f"{what} rises from {before:.6g} to {after:.6g}" if after > before * (1 + tolerance) else ""
    )


def first_of(*words: str) -> str:
    """Return the first complaint."""
    return next((text for text in words if text), "")
