"""One recorded step of one rank, as another tool measured it, and what kernels are taken to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ersatz.device_models.kernels.kernel import Kernel
from ersatz.sim.emulate.trace import Trace

# A timeline says nothing of memory: a replay then cannot tell whether it fits.
NOTHING_HELD: Mapping[str, float] = {
    "peak_allocated": 0, "peak_reserved": 0, "capacity": 0, "ooms": 0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a rank, with what its reader assumed."""

    format: str  # Kineto, msprof, Chakra, ersatz
    trace: Trace
    world: int  # ranks of the job, as far as the trace tells
    measured_s: float  # from its begin to its end
    said: tuple[str, ...] = ()
    causes: Mapping[str, float] = field(
        default_factory=dict
    )  # seconds of the step; they add up to it
    device: str = ""  # as its driver calls it


def facts_of(notes: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return the facts of a trace of which its tool told no more than a timeline."""
    return {"policies": {}, "reads": {}, "notes": list(notes), "steps": 1, "cpu_s": 0.0, "rss_bytes": 0.0,
            "surface_assumed": "", "unknown": {}, "parameters": 0}  # fmt: skip


def kernel_like(
    name: str, flop: float, nbytes: float, category: str = "", dtype: str = "bf16"
) -> Kernel:
    """Return a kernel that is known by FLOPs and bytes alone: a product as large in all directions."""
    if flop <= 0:
        return Kernel(name, category or "elementwise", "memory", dtype, 0.0, nbytes)
    side = max(round((flop / 2) ** (1 / 3)), 1)
    return Kernel(name, category or "matrix", "matmul", dtype, flop, nbytes, side, side, side)
