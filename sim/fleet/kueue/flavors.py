"""Which flavors a workload would get, and at what price: as it is, or only if others leave.

Per podset (those of one group together) and resource group the flavors are tried in order; see Kueue's
`pkg/scheduler/flavorassigner`. What a flavor would need is asked of an oracle, which tries a preemption for
that resource alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ersatz.sim.fleet.kueue.objects import (
    PODS,
    Amounts,
    Flavor,
    FlavorResource,
    PodSet,
    QueueSpec,
    ResourceGroup,
    Taint,
    Workload,
)
from ersatz.sim.fleet.kueue.quota import NONE, Node

IMPOSSIBLE, NO_CANDIDATES, PREEMPT, RECLAIM, FIT = range(5)  # modes, the better the higher
Oracle = Callable[[FlavorResource, int], tuple[int, int]]
"""(flavor and resource, amount) -> mode, and how far up it would have to borrow afterwards"""


@dataclass(frozen=True, slots=True)
class Choice:
    """A flavor for a resource of a podset."""

    flavor: str
    mode: int
    amount: int  # of all its pods


@dataclass(slots=True)
class Assignment:
    """Flavors for all podsets of a workload."""

    chosen: dict[str, dict[str, Choice]] = field(default_factory=dict)  # podset -> resource
    counts: dict[str, int] = field(default_factory=dict)
    mode: int = FIT
    level: int = 0  # the furthest up that it borrows
    untried: bool = False  # the search stopped before the last flavor
    why: str = ""

    @property
    def usage(self) -> Amounts:
        """What it would use."""
        used: Amounts = {}
        for choices in self.chosen.values():
            for resource, choice in choices.items():
                fr = choice.flavor, resource
                used[fr] = used.get(fr, 0) + choice.amount
        return used

    @property
    def contested(self) -> set[FlavorResource]:
        """The flavors and resources for which others would have to leave."""
        return {(c.flavor, r) for choices in self.chosen.values() for r, c in choices.items()
                if c.mode < FIT}  # fmt: skip


class Assigner:
    """Tries flavors for the workloads of one queue."""

    def __init__(
        self, queue: Node, flavors: Mapping[str, Flavor], oracle: Oracle, *, fair: bool,
        levels: Mapping[str, Sequence[str]] | None = None, unit: int = 1,
    ) -> None:  # fmt: skip
        self.unit = unit  # of one pod
        assert queue.queue is not None
        self.node, self.queue, self.flavors, self.oracle, self.fair = (
            queue, queue.queue, flavors, oracle, fair)  # fmt: skip
        self.levels = levels or {}  # topology -> its levels
        spec: QueueSpec = self.queue
        self.only_topology = all(flavors[f].topology for g in spec.groups for f in g.flavors
                                 if f in flavors) and bool(spec.groups)  # fmt: skip

    def assign(self, job: Workload, counts: Mapping[str, int] | None = None) -> Assignment:
        """Return flavors for a job, whole or with fewer pods in some podsets."""
        found = Assignment()
        for podsets in grouped(job.podsets):
            sizes = {p.name: (counts or {}).get(p.name, p.count) for p in podsets}
            found.counts |= sizes
            if not self._assign_group(found, podsets, sizes):
                found.mode = IMPOSSIBLE
                return found
        modes = [c.mode for choices in found.chosen.values() for c in choices.values()]
        found.mode = min(modes, default=FIT)
        return found

    def _assign_group(
        self, found: Assignment, podsets: Sequence[PodSet], sizes: Mapping[str, int]
    ) -> bool:
        """Choose flavors for podsets that go together; False where that is impossible."""
        asked: dict[str, int] = {}
        for podset in podsets:
            for resource, amount in podset.each.items():
                asked[resource] = asked.get(resource, 0) + amount * sizes[podset.name]
        if any(PODS in g.resources for g in self.queue.groups):
            asked[PODS] = sum(sizes.values()) * self.unit
        used = found.usage
        for podset in podsets:
            found.chosen.setdefault(podset.name, {})
        while asked:
            resource = next(iter(asked))
            group = self._group_of(resource, asked if len(podsets) > 1 else ())
            if group is None:
                if asked.pop(resource):
                    found.why = f"resource {resource} is in no group of queue {self.queue.name}"
                    return False
                continue
            mine = {r: asked.pop(r) for r in group.resources if r in asked}
            if not self._assign_resources(found, podsets, sizes, group, mine, used):
                return False
        return True

    def _group_of(self, resource: str, together: Iterable[str]) -> ResourceGroup | None:
        """Return the group of a resource; for podsets that go together one that has all they ask."""
        able = [g for g in self.queue.groups if resource in g.resources]
        whole = [g for g in able if set(together) <= set(g.resources)]
        return next(iter([*whole, *able]), None)

    def _assign_resources(
        self, found: Assignment, podsets: Sequence[PodSet], sizes: Mapping[str, int],
        group: ResourceGroup, asked: Mapping[str, int], used: Amounts,
    ) -> bool:  # fmt: skip
        best = self._best_flavor(podsets, group, asked, used)
        if best is None or best[0] == IMPOSSIBLE:
            found.why = f"no flavor of queue {self.queue.name} has room for {', '.join(asked)}"
            return False
        _, level, flavor, modes, untried = best
        found.level = max(found.level, level)
        found.untried = found.untried or untried
        for podset in podsets:
            for resource in asked:
                each = self.unit if resource == PODS else podset.each.get(resource)
                if each is not None:
                    found.chosen[podset.name][resource] = Choice(
                        flavor, modes[resource], each * sizes[podset.name])  # fmt: skip
        return True

    def _best_flavor(
        self,
        podsets: Sequence[PodSet],
        group: ResourceGroup,
        asked: Mapping[str, int],
        used: Amounts,
    ) -> tuple[int, int, str, dict[str, int], bool] | None:
        """Return mode, level and name of the flavor where the search stops, or of the best one."""
        best: tuple[int, int, str, dict[str, int], bool] | None = None
        for at, name in enumerate(group.flavors):
            if not all(self._may_use(podset, group, name) for podset in podsets):
                continue
            modes: dict[str, int] = {}
            mode, level = FIT, 0
            for resource, amount in asked.items():
                own, own_level = self._mode(
                    (name, resource), amount + used.get((name, resource), 0)
                )
                modes[resource] = own
                mode, level = min(mode, own), max(level, own_level)
                if mode == IMPOSSIBLE:
                    break
            if self._stops(mode, level):
                return mode, level, name, modes, at + 1 < len(group.flavors)
            if best is None or self._rank(mode, level) > self._rank(best[0], best[1]):
                best = mode, level, name, modes, False
        return best

    def _stops(self, mode: int, level: int) -> bool:
        """Tell whether a flavor is good enough not to try the next."""
        spec = self.queue
        if mode <= NO_CANDIDATES:
            return False
        if mode in (PREEMPT, RECLAIM) and spec.when_preempt == "next":
            return False
        return not (level > 0 and spec.when_borrow == "next")

    def _rank(self, mode: int, level: int) -> tuple[int, ...]:
        if mode <= NO_CANDIDATES:
            return (mode, 0, 0)
        order = (-level, mode) if self.queue.prefer_preemption else (mode, -level)
        return (PREEMPT, *order)

    def _mode(self, fr: FlavorResource, amount: int) -> tuple[int, int]:
        node, spec = self.node, self.queue
        level, may_reclaim = node.level(fr, amount)
        if amount > node.potential(fr):
            return IMPOSSIBLE, level
        if amount <= node.available(fr):
            return FIT, level
        able = spec.borrow_lower or (self.fair and spec.reclaim != "never")
        if node.quotas.get(fr, NONE).nominal >= amount or may_reclaim or able:
            return self.oracle(fr, amount)
        return IMPOSSIBLE, level

    # -- which flavors a pod may use at all ----------------------------------------------------------

    def _may_use(self, podset: PodSet, group: ResourceGroup, name: str) -> bool:
        flavor = self.flavors.get(name)
        if flavor is None:
            return False
        able = (*podset.tolerations, *flavor.tolerations)
        if not all(_tolerated(taint, able) for taint in flavor.taints):
            return False
        keys = {k for f in group.flavors if f in self.flavors for k in self.flavors[f].labels}
        if any(key in keys and key in flavor.labels and flavor.labels[key] not in value
               for key, value in podset.selector.items()):  # fmt: skip
            return False
        return self._topology_suits(podset, flavor)

    def _topology_suits(self, podset: PodSet, flavor: Flavor) -> bool:
        wish = podset.wish
        if wish is None:
            return not flavor.topology or self.only_topology
        if not flavor.topology:
            return wish.implied
        levels = self.levels.get(flavor.topology, ())
        asked = [wish.required, wish.preferred, *(level for level, _ in wish.slices)]
        return all(level in levels for level in asked if level)


def _tolerated(taint: Taint, tolerations: Sequence[Taint]) -> bool:
    key, value, effect = taint
    if effect not in ("no-schedule", "no-execute"):
        return True
    return any(k in ("", key) and v in ("", value) and e in ("", effect) for k, v, e in tolerations)


def grouped(podsets: Sequence[PodSet]) -> Iterator[list[PodSet]]:
    """Yield podsets in order, those of one topology group together."""
    seen: set[str] = set()
    for podset in podsets:
        group = podset.wish.group if podset.wish else ""
        if not group:
            yield [podset]
        elif group not in seen:
            seen.add(group)
            yield [p for p in podsets if p.wish and p.wish.group == group]
