"""Where a job is put: functions that find devices for it, or None if it does not fit now.

`place(free, job, kind, count, within)` finds `count` devices of a type ('' is any) on nodes of the
set `within`. `Placer` adds what every placement needs: the order in which types are tried, the job's
limits on nodes, leaves and pods, elastic sizes, shares of devices, and jobs without devices.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from ersatz.sim.fleet.cluster import FleetNode, Placement, lowest, slots
from ersatz.sim.fleet.fits import broken_wish
from ersatz.sim.fleet.free import Free, first, members
from ersatz.sim.fleet.protocol import View
from ersatz.sim.fleet.workload.jobs import Job

EVERYWHERE = -1  # the set of all nodes: every bit is set
Place = Callable[[Free, Job, str, int, int], Placement | None]
Kinds = Callable[[View, Job], Sequence[str]]


def gather(free: Free, job: Job, nodes: Iterable[int], count: int) -> Placement | None:
    """Fill nodes in the given order until the gang is whole; None if it does not get whole."""
    missing, parts = count, []
    for node in nodes:
        if not free.has_room(job, node):
            continue
        mask = lowest(free.masks[node], missing)
        parts.append((node, mask))
        missing -= mask.bit_count()
        if not missing:
            return tuple(sorted(parts))
    return None


def first_fit(free: Free, job: Job, kind: str, count: int, within: int) -> Placement | None:
    """Take the first free devices, wherever they are."""
    return gather(free, job, members(free.nodes_with(kind, 1) & within), count)


def best_fit(free: Free, job: Job, kind: str, count: int, within: int) -> Placement | None:
    """Take whole nodes, and for the rest the node that it fills best: the fewest nodes."""
    return gather(free, job, _fewest(free, kind, count, within), count)


def _fewest(free: Free, kind: str, count: int, within: int) -> Iterator[int]:
    """Yield the nodes that hold `count` devices with the fewest nodes and the least left over."""
    sets = _by_count(free, kind, within)
    while count > 0 and sets:
        fitting = next((k for k in range(count, len(sets)) if sets[k]), 0)
        size = fitting or max((k for k in range(1, len(sets)) if sets[k]), default=0)
        if not size:
            return
        node = first(sets[size])
        sets[size] &= sets[size] - 1  # without its lowest member
        if free.cpu[node] >= 0 and free.memory[node] >= 0:
            yield node
            count -= size


def _by_count(free: Free, kind: str, within: int) -> list[int]:
    """Return for each number of free devices the set of nodes that have so many."""
    if kind:
        return [nodes & within for nodes in free.by_count[kind]]
    longest = max(len(sets) for sets in free.by_count.values())
    return [sum_of(sets[k] for sets in free.by_count.values() if k < len(sets)) & within
            for k in range(longest)]  # fmt: skip


def sum_of(sets: Iterable[int]) -> int:
    """Return the union of sets of nodes."""
    union = 0
    for nodes in sets:
        union |= nodes
    return union


def nodes_of(free: Free, kinds: Iterable[str]) -> int:
    """Return the set of all nodes of some types."""
    return sum_of(nodes for kind in kinds for nodes in free.by_count.get(kind, ()))


def worst_fit(free: Free, job: Job, kind: str, count: int, within: int) -> Placement | None:
    """Take from the emptiest nodes first: jobs are spread, and holes everywhere."""
    sets = _by_count(free, kind, within)
    order = (node for size in range(len(sets) - 1, 0, -1) for node in members(sets[size]))
    return gather(free, job, order, count)


def leaf_fit(free: Free, job: Job, kind: str, count: int, within: int) -> Placement | None:
    """Take the leaf that it fills best; where none suffices, the emptiest leaves, the fewest."""
    nodes = free.nodes_with(kind, 1) & within
    held = _room(free, nodes, attrgetter("leaf"))
    enough = [found for found in held if found[0] >= count]
    if enough:
        _, leaf = min(enough)
        if found := best_fit(free, job, kind, count, within & free.leaf_nodes[leaf]):
            return found
    held.sort(key=lambda found: (-found[0], found[1]))
    chosen = have = 0
    for devices, leaf in held:
        chosen |= free.leaf_nodes[leaf]
        have += devices
        if have >= count and (found := best_fit(free, job, kind, count, within & chosen)):
            return found
    return None


def any_kind(view: View, job: Job) -> Sequence[str]:
    """Try the types as the job or the fleet names them."""
    return job.types or view.cluster.types


def fastest_kind(view: View, job: Job) -> Sequence[str]:
    """Try the types on which the job runs fastest first."""
    kinds = job.types or view.cluster.types
    if len(kinds) == 1:
        return kinds
    rates = {kind: view.rate_on(job, kind) for kind in kinds}
    return sorted((k for k in kinds if rates[k] > 0), key=lambda k: -rates[k])


def roomiest_kind(view: View, job: Job) -> Sequence[str]:
    """Try the types with most free devices first."""
    kinds = job.types or view.cluster.types
    return sorted(kinds, key=lambda kind: (-view.free.of(kind), kind))


@dataclass(frozen=True, slots=True)
class Placer:
    """A placement with an order of types; `find` is what schedulers call.

    `one_node` is asked first, for one node of any allowed type: placements that score every node.
    """

    place: Place = first_fit
    kinds: Kinds = any_kind
    one_node: Place | None = None

    def find(self, view: View, job: Job, free: Free | None = None) -> Placement | None:
        """Return devices for a job among those free now, or in `free`; None if it does not fit."""
        free = free or view.free
        if self.one_node:
            within = nodes_of(free, self.kinds(view, job))
            if found := self.one_node(free, job, "", job.devices, within):
                return found
        if not job.devices:
            return _bare(free, job)
        if job.mixed:
            found = self.fill(free, job, "")
            return found if found and view.rate(job, found) > 0 else None
        if job.devices > free.free and job.least > free.free and job.milli == 1000:
            return None
        for kind in self.kinds(view, job):
            found = self.fill(free, job, kind)
            if found and (len(found) == 1 or view.rate(job, found) > 0):
                return found
        return None

    def fill(self, free: Free, job: Job, kind: str) -> Placement | None:
        """Return devices of one type ('': any allowed), the whole gang or as much as is free of it."""
        any_of = () if kind else job.types
        allowed = nodes_of(free, any_of) if any_of else EVERYWHERE
        if job.milli < 1000:
            return _share(free, job, kind, allowed)
        have = sum(free.of(k) for k in any_of) if any_of else free.of(kind)
        if have < job.least:
            return None
        limited = job.max_nodes or job.max_leaves or job.max_pods
        for count in _sizes(job, have):
            within = _limits(free, job, kind, count, allowed) if limited else allowed
            found = self.place(free, job, kind, count, within)
            if found and not (limited and broken_wish(free.cluster, job, found)):
                return found
        return None


def _sizes(job: Job, have: int) -> Iterator[int]:
    """Yield the gang's size, then for elastic jobs what is there, halved down to the least."""
    if have >= job.devices:
        yield job.devices
    size = min(have, job.devices - 1)
    while job.least <= size:
        yield size
        size //= 2


def _limits(free: Free, job: Job, kind: str, count: int, allowed: int) -> int:
    """Return nodes within the job's limits on pods, leaves and nodes: those with the most free."""
    nodes = free.nodes_with(kind, count if job.max_nodes == 1 else 1) & allowed
    for most, name, domains in ((job.max_pods, "pod", free.pod_nodes),
                                (job.max_leaves, "leaf", free.leaf_nodes)):  # fmt: skip
        if most:
            nodes &= _roomiest(_room(free, nodes, attrgetter(name)), domains, most, count)
    if job.max_nodes > 1:
        best = heapq.nlargest(job.max_nodes, members(nodes),
                              key=lambda n: (free.masks[n].bit_count(), -n))  # fmt: skip
        nodes = sum_of(1 << node for node in best)
    return nodes


def _room(free: Free, nodes: int, domain: Callable[[FleetNode], int]) -> list[tuple[int, int]]:
    """Return the free devices of the domains (leaves, pods) of a set of nodes, each with its number."""
    room: Counter[int] = Counter()
    for node in members(nodes):
        room[domain(free.cluster.nodes[node])] += free.masks[node].bit_count()
    return [(devices, number) for number, devices in room.items()]


def _roomiest(
    room: Sequence[tuple[int, int]], domains: Sequence[int], most: int, count: int
) -> int:
    """Return the nodes of the `most` domains with most room; of one, the one that is filled best."""
    enough = [found for found in room if found[0] >= count]
    if enough:
        return domains[min(enough)[1]]
    best = sorted(room, key=lambda found: (-found[0], found[1]))[:most]
    return sum_of(domains[i] for _, i in best)


def _bare(free: Free, job: Job) -> Placement | None:
    """Put a job without devices where the fewest devices stand."""
    nodes = free.cluster.nodes
    found = [(nodes[i].devices, i) for i in range(len(nodes))
             if i not in free.closed and free.has_room(job, i)
             and (not job.types or nodes[i].type in job.types)]  # fmt: skip
    return ((min(found)[1], 0),) if found else None


def _share(free: Free, job: Job, kind: str, allowed: int) -> Placement | None:
    """Put a job on the shared device that it fills best, else on a whole one."""
    nodes = free.cluster.nodes
    found = [
        (left, node, slot)
        for node, parts in free.shared.items() if node not in free.closed and allowed >> node & 1
        if kind in ("", nodes[node].type) and free.has_room(job, node)
        for slot, left in parts.items() if left >= job.milli
    ]  # fmt: skip
    if found:
        _, node, slot = min(found)
        return ((node, 1 << slot),)
    whole = next(
        (n for n in members(free.nodes_with(kind, 1) & allowed) if free.has_room(job, n)), None
    )
    return None if whole is None else ((whole, 1 << next(slots(free.masks[whole]))),)


PLACEMENTS: dict[str, Place] = {
    "first-fit": first_fit, "best-fit": best_fit, "worst-fit": worst_fit, "leaf": leaf_fit,
}  # fmt: skip
KINDS: dict[str, Kinds] = {"any": any_kind, "fastest": fastest_kind, "roomiest": roomiest_kind}
