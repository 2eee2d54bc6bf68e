"""Placements of single jobs that score every node: the policies that FGD was compared with.

FGD (fragmentation gradient descent, ATC 2023) takes the node and device where the expected amount of
devices that the mix of jobs cannot use grows least. The mix is given, or 1, 2, 4 and 8 devices evenly.
Each placement is for jobs of one node, with shares of devices, processors and memory; larger gangs go
to `best_fit`. A score depends on a node's state alone, so it is kept for states that come again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ersatz.sim.fleet.cluster import UNCOUNTED, Placement, slots
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.policies.placement import best_fit
from ersatz.sim.fleet.workload.jobs import Job, Workload

# type, processors, memory, thousandths left by device, sizes of the jobs there (0: a part)
State = tuple[str, int, int, tuple[int, ...], tuple[int, ...]]
Ask = tuple[int, int, int, int, tuple[str, ...]]  # devices, milli, processors, memory, types
Mix = Sequence[tuple[Ask, float]]
TIE = 1e-6  # weight of best fit beside a step of FGD
EVEN: Mix = [((size, 1000, 0, 0, ()), 0.25) for size in (1, 2, 4, 8)]  # where no mix is known
Score = Callable[[State, State, State, Ask], float]
"""(before, after, the empty node, what is asked) -> the less the better"""


def ask_of(job: Job) -> Ask:
    """Return what a job asks of a node."""
    return job.devices, job.milli, job.cpu_milli, job.memory_mib, tuple(sorted(job.types))


def mix_of(workload: Workload, covered: float = 0.95) -> Mix:
    """Return the commonest requests that make up a part of the jobs with devices, memory left out."""
    counts: dict[Ask, int] = {}
    for job in workload.jobs:
        if job.devices:
            devices, milli, cpu, _, types = ask_of(job)
            ask = devices, milli, cpu, 0, types
            counts[ask] = counts.get(ask, 0) + 1
    total, found, kept = sum(counts.values()), [], 0
    for ask, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if kept >= covered * total:
            break
        found.append((ask, count))
        kept += count
    return [(ask, count / kept) for ask, count in found]


def fragments(state: State, mix: Mix) -> float:
    """Return the thousandths of devices left on a node that the mix cannot use, on average."""
    kind, cpu, memory, left, _ = state
    free = sum(left)
    lost = 0.0
    for (devices, milli, need_cpu, need_memory, types), share in mix:
        usable = [part for part in left if part >= milli]
        if (
            cpu < need_cpu
            or memory < need_memory
            or (types and kind not in types)
            or len(usable) < devices
        ):
            lost += share * free
        else:
            lost += share * (free - sum(usable))
    return lost


class ScoredPlacement:
    """Finds the node and devices of the best score; ties go to the first, or by `rng`."""

    def __init__(self, score: Score, rng: np.random.Generator | None = None) -> None:
        self.score, self.rng = score, rng
        self._known: dict[tuple[State, State, Ask], tuple[float, int]] = {}

    def __call__(
        self, free: Free, job: Job, kind: str, count: int, within: int
    ) -> Placement | None:
        """Return devices for a job on one node, or what `best_fit` finds for more."""
        if found := self.one_node(free, job, kind, count, within):
            return found
        if job.milli == 1000 and count > 1:
            return best_fit(free, job, kind, count, within)
        return None

    def one_node(
        self, free: Free, job: Job, kind: str, count: int, within: int
    ) -> Placement | None:
        """Return the devices of the best score on one node; None if no node has room."""
        ask = (count, *ask_of(job)[1:])
        best: list[tuple[int, int]] = []
        least = np.inf
        for node, spec in enumerate(free.cluster.nodes):
            if node in free.closed or spec.devices < count or not within >> node & 1:
                continue
            if (kind and spec.type != kind) or not free.has_room(job, node):
                continue
            found = self._best_on(free, node, job, ask)
            if found is None or found[0] > least:
                continue
            best = [*best, (node, found[1])] if found[0] == least else [(node, found[1])]
            least = found[0]
        if not best:
            return None
        return (best[int(self.rng.integers(len(best))) if self.rng else 0],)

    def _best_on(self, free: Free, node: int, job: Job, ask: Ask) -> tuple[float, int] | None:
        """Return the best (score, devices) on a node; None if the job does not fit there."""
        spec = free.cluster.nodes[node]
        mask, parts = free.masks[node], free.shared.get(node, {})
        left = tuple(1000 if mask >> d & 1 else parts.get(d, 0) for d in range(spec.devices))
        held = tuple(sorted(free.held[node]))
        state = (spec.type, free.cpu[node], free.memory[node], left, held)
        empty = (spec.type, spec.cpu_milli, spec.memory_mib, (1000,) * spec.devices, ())
        key = state, empty, ask
        if key not in self._known:
            self._known[key] = self._find(state, empty, ask)
        found = self._known[key]
        return found if found[1] >= 0 else None

    def _find(self, state: State, empty: State, ask: Ask) -> tuple[float, int]:
        """Return the best (score, devices) for a state; devices -1 if nothing fits."""
        kind, cpu, memory, left, held = state
        devices, milli, need_cpu, need_memory, _ = ask
        able = [d for d, part in enumerate(left) if part >= milli]
        if len(able) < devices:
            return 0.0, -1
        if not devices:
            choices = [0]
        elif milli < 1000:  # devices that are left alike are alike
            alike = {left[d]: d for d in reversed(able)}
            choices = [1 << d for d in alike.values()]
        else:
            choices = [sum(1 << d for d in able[:devices])]
        best: tuple[float, int, int] = (np.inf, 0, -1)
        for mask in choices:
            rest = tuple(part - (milli if mask >> d & 1 else 0) for d, part in enumerate(left))
            after = (kind, cpu - need_cpu, memory - need_memory, rest, held)
            fullest = max(rest[d] for d in slots(mask)) if mask else 0
            best = min(best, (self.score(state, after, empty, ask), fullest, mask))
        return best[0], best[2]


def least_fragments(mix: Mix) -> Score:
    """FGD: the fragments that a placement adds, in coarse steps; equals by best fit.

    The steps are hundredths of a logistic curve of whole devices, as in FGD's own scheduler: about
    four hundredths of a device near zero. With exact steps, or equals taken at random, openb's
    pods get two to three per cent less of the devices.
    """
    known: dict[State, float] = {}

    def of(state: State) -> float:
        if state not in known:
            known[state] = fragments(state, mix)
        return known[state]

    def score(before: State, after: State, empty: State, ask: Ask) -> float:
        gained = (of(before) - of(after)) / 1000
        return TIE * least_left(before, after, empty, ask) - int(100 / (1 + math.exp(-gained)))

    return score


def least_left(before: State, after: State, empty: State, ask: Ask) -> float:
    """Best fit: the least left of processors and devices, each as a part of the largest node."""
    return (
        round(after[1] / 128_000 + sum(after[3]) / 8000, 9)
        if after[1] < UNCOUNTED / 2
        else sum(after[3])
    )


def least_product(before: State, after: State, empty: State, ask: Ask) -> float:
    """Dot product: the least of what is left times what is asked, in whole hundredths of a node.

    Processors and devices count as parts of the largest node. The steps are those of FGD's own
    scheduler; equals go to the first node, which packs better than the exact product.
    """
    devices, milli, cpu, _, _ = ask
    product = before[1] * cpu / 128_000**2 + sum(before[3]) * devices * milli / 8000**2
    return -int(100 * (1 - product / 2))


def packing(before: State, after: State, empty: State, ask: Ask) -> float:
    """Devices in use first, the fullest; then nodes in use; then idle nodes, the smallest.

    A node whose devices are all free is idle, whatever runs on its processors. A job without
    devices goes to the first node: the policy knows devices alone (GpuPacking, as FGD compares).
    """
    if not ask[0]:
        return 0.0
    if before[3] == empty[3]:
        return 100.0 + len(before[3])
    changed = [part for part, rest in zip(before[3], after[3], strict=True) if part != rest]
    if any(part == 1000 for part in changed):
        return 50.0
    return sum(changed) // 100


def clustering(before: State, after: State, empty: State, ask: Ask) -> float:
    """Nodes of jobs of the same size alone, then with others too, then idle, then others'.

    Within a class the node with the least left of its devices, in steps of a 25th of eight. Jobs
    without devices go to the first node, and count for nothing (GpuClustering, as FGD compares).
    """
    if not ask[0]:
        return 0.0
    size, held = ask[0] if ask[1] == 1000 else 0, before[4]
    strangers = len(held) - (size in held)  # other sizes on the node
    rank = strangers > 0 if size in held else 2 + (strangers > 0)
    return 26 * rank + min(math.ceil(sum(before[3]) / 320), 25)


def nowhere_better(before: State, after: State, empty: State, ask: Ask) -> float:
    """Random: all places are as good."""
    return 0.0
