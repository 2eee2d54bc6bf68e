"""What stands beside a framework's tensors: context, communicators, and what the allocator wastes.

A caching allocator hands freed blocks out again where they suit; what one kind of tensor has freed
before the peak of the others is lost in part. The part is the stack's `memory_fragmentation`: of the sum
of the largest sizes of each kind, less what is alive at the peak. Of what comes and goes, a small share
is lost to rounding.
"""

from __future__ import annotations

import numpy as np

from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.plan.layout import group_extents
from ersatz.sim.plan.memory.facts import block_waste
from ersatz.sim.plan.memory.moments import STAY, Bytes
from ersatz.sim.scenario.scenario import Parallel

GROUPS = ("tp", "cp", "ep", "etp", "dp", "rep", "edp", "erep", "pp", "ends", "world")


def communicators(parallel: Parallel) -> int:
    """Return the number of different groups of more than one rank that a rank talks in."""
    extents = group_extents(parallel, parallel.dp)
    return len({extents[name] for name in GROUPS if extents[name][1] > 1})


def beside(stack: Stack, parallel: Parallel) -> dict[str, float]:
    """Return bytes by use that no tensor of the framework has."""
    return {
        "overhead": stack.memory_overhead_bytes,
        "communication": communicators(parallel) * stack.communicator_bytes,
    }


def fragmentation(stack: Stack, found: Bytes, peak: int) -> float:
    """Return the bytes that the allocator holds at the peak and cannot hand out.

    `found` is (moments, kinds); `peak` is the row of the largest sum.
    """
    freed = float(np.sum(found.max(axis=0) - found[peak]))
    moving = float(np.sum(found[peak, len(STAY) :]))
    return stack.memory_fragmentation * freed + block_waste() * moving
