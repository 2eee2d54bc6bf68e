"""What stands beside a framework's tensors: context, communicators, and what the allocator wastes.

A caching allocator hands freed blocks out again where they suit; what one kind of tensor has freed
before the peak of the others is lost in part. The part is the stack's `memory_fragmentation`: of the sum
of the largest sizes of each kind, less what is alive at the peak. Of what comes and goes, a small share
is lost to rounding. Results that are joined at the end of a step are one block, larger than any that was
freed: of it all is lost that a caching allocator can lose.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.plan.layout import group_extents
from ersatz.sim.plan.memory.facts import allocator_waste, block_waste
from ersatz.sim.plan.memory.moments import KINDS, STAY, Bytes
from ersatz.sim.scenario.scenario import Parallel
from ersatz.sim.workload.model import Model

# DeepEP's defaults: half of its 20 multiprocessors are channels; queues hold so many tokens; a slot has
# 128 indices of 8 bytes, 128 weights and 128 scales of 4.
CHANNELS, NODE_RANKS, NODE_SLOTS, NETWORK_SLOTS, SLOT_BYTES = 10, 8, 256, 128, 2048
GROUPS = ("tp", "cp", "ep", "etp", "dp", "rep", "edp", "erep", "pp", "ends", "world")


def communicators(parallel: Parallel) -> int:
    """Return the number of different groups of more than one rank that a rank talks in."""
    extents = group_extents(parallel, parallel.dp)
    return len({extents[name] for name in GROUPS if extents[name][1] > 1})


def beside(stack: Stack, parallel: Parallel, model: Model) -> dict[str, float]:
    """Return bytes by use that no tensor of the framework has."""
    buffers = stack.expert_buffer_bytes
    if stack.expert_buffers and not buffers:
        width = max((k.experts.latent or k.hidden for k in model.kinds if k.experts), default=0)
        buffers = exchange_buffers(2.0 * width, parallel.ep * parallel.etp) if width else 0.0
    return {
        "overhead": stack.memory_overhead_bytes,
        "communication": communicators(parallel) * stack.communicator_bytes
        + buffers * (parallel.ep > 1),
    }


def exchange_buffers(row: float, ranks: int) -> float:
    """Bytes in which a rank receives tokens of `row` bytes from `ranks`, as DeepEP sizes them.

    A queue per channel and rank of the node, and per channel and node two (sent and received);
    a slot holds a token with its weights, indices and scales (csrc/config.hpp there).
    """
    nodes = -(-ranks // NODE_RANKS)
    inside = CHANNELS * min(ranks, NODE_RANKS) * NODE_SLOTS * (row + SLOT_BYTES)
    across = CHANNELS * nodes * NETWORK_SLOTS * 2 * (row + SLOT_BYTES) if nodes > 1 else 0.0
    return inside + across


def fragmentation(stack: Stack, found: Bytes, peak: int) -> float:
    """Return the bytes that the allocator holds at the peak and cannot hand out.

    `found` is (moments, kinds); `peak` is the row of the largest sum.
    """
    return float(wasted(stack, found.max(axis=0), found[peak]))


def wasted(stack: Stack, most: Bytes, peak: Bytes) -> Bytes:
    """Return the bytes wasted at peaks (..., kinds), where each kind once came to its `most`."""
    share = np.minimum(stack.memory_fragmentation * _blocks(), 1.0)
    moving = peak[..., len(STAY) :].sum(axis=-1)
    return np.asarray((share * (most - peak)).sum(axis=-1) + block_waste() * moving)


@lru_cache(maxsize=1)
def _blocks() -> Bytes:
    """Return by kind how much more than usual an allocator loses of it: of one block a caching one all."""
    whole = 1.0 / allocator_waste("caching")
    return np.array([whole if kind == "joined results" else 1.0 for kind in KINDS])
