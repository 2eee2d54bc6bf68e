"""What a checkpoint costs and how often to take one.

Young's interval is sqrt(2 delta M), Daly's adds a correction that keeps it right when the cost delta
is no longer small against the mean time M between interruptions (Young 1974, Daly 2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ersatz.sim.scenario.scenario import CheckpointSpec
from ersatz.sim.workload.adapters import adapter_params
from ersatz.sim.workload.model import Model


@dataclass(frozen=True, slots=True)
class CheckpointCost:
    """Seconds of one checkpoint of a job."""

    stop_s: float  # the job stands still
    durable_after_s: float  # from the end of the stop until the state is safe
    load_s: float  # to read it back after a failure


def checkpoint_cost(spec: CheckpointSpec, params: float, nodes: int) -> CheckpointCost:
    """Return what one checkpoint of `params` weights costs on `nodes` nodes.

    Synchronous: the whole write. Asynchronous: a copy to host memory, then a write in the
    background. Memory: a copy to a peer's memory, from which a failed node is filled again. A write
    is as fast as the storage, or as all nodes together into it.
    """
    nbytes = params * spec.bytes_per_param
    write = nbytes / min(spec.storage_bandwidth, spec.node_bandwidth * nodes)
    copy = nbytes / (spec.memory_bandwidth * nodes)
    if spec.mode == "synchronous":
        return CheckpointCost(write, 0.0, write)
    if spec.mode == "asynchronous":
        return CheckpointCost(copy, write, write)
    return CheckpointCost(copy, 0.0, copy)


def saved_params(model: Model) -> float:
    """Return the weights that a checkpoint holds: of a frozen model the adapters alone."""
    return float(adapter_params(model) or model.params())


def young_interval(cost_s: float, mtbf_s: float) -> float:
    """Return Young's optimal time between checkpoints in seconds."""
    return math.sqrt(2.0 * cost_s * mtbf_s)


def daly_interval(cost_s: float, mtbf_s: float) -> float:
    """Return Daly's optimal time between checkpoints in seconds; the MTBF when that is shorter."""
    if math.isinf(mtbf_s):
        return math.inf
    if cost_s >= 2.0 * mtbf_s:
        return mtbf_s
    ratio = math.sqrt(cost_s / (2.0 * mtbf_s))
    return young_interval(cost_s, mtbf_s) * (1.0 + ratio / 3.0 + ratio**2 / 9.0) - cost_s


def chosen_interval(
    spec: CheckpointSpec, cost: CheckpointCost, mtbf_s: float, step_s: float
) -> float:
    """Return the time between checkpoints: as given, or Daly's; never below a step or a write.

    A write in the background must end before the next begins, or one of them is dropped.
    """
    wanted = spec.interval_s or daly_interval(cost.stop_s, mtbf_s)
    return max(wanted, step_s, cost.durable_after_s)


def expected_wall(
    work_s: float, interval_s: float, cost_s: float, recovery_s: float, mtbf_s: float
) -> float:
    """Return Daly's closed form of the wall time of a job with exponential failures.

    M e^(R/M) (e^((tau+delta)/M) - 1) work/tau: failures may strike during recovery, too.
    """
    segments = work_s / interval_s
    grow = math.expm1((interval_s + cost_s) / mtbf_s)
    return mtbf_s * math.exp(recovery_s / mtbf_s) * grow * segments
