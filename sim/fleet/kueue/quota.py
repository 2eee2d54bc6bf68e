"""The tree of quotas: what a queue may use, borrow and lend, and whose share is how large.

With S the quota of a node's subtree, L what it keeps back from its parent, U what is used of it (for a
cohort: what exceeds its members' own L): see each function. Formulas as in Kueue's `pkg/cache/scheduler`
(resource_node.go, fair_sharing.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from ersatz.sim.fleet.kueue.objects import (
    Amounts,
    CohortSpec,
    FlavorResource,
    QueueSpec,
    Quota,
    ResourceGroup,
    Workload,
)

NONE = Quota(0)
Share = tuple[
    bool, Fraction
]  # (infinite, value): a weight of 0 that borrows; then compared unweighted
NO_SHARE: Share = (False, Fraction(0))


@dataclass(slots=True, eq=False)
class Node:
    """A queue or a cohort."""

    name: str
    quotas: dict[FlavorResource, Quota]
    weight: Fraction
    queue: QueueSpec | None = None
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    used: Amounts = field(default_factory=dict)
    whole: Amounts = field(default_factory=dict)  # S
    height: int = 0
    jobs: dict[str, Workload] = field(default_factory=dict)  # admitted, of a queue
    most: Amounts = field(default_factory=dict)  # P, as far as it was asked for
    lends: dict[str, int] = field(default_factory=dict)  # P by resource, likewise

    def kept(self, fr: FlavorResource) -> int:
        """L: what is not lent."""
        lend = self.quotas.get(fr, NONE).lend
        return 0 if lend is None else max(0, self.whole.get(fr, 0) - lend)

    def own(self, fr: FlavorResource) -> int:
        """What is left of what is not lent."""
        return max(0, self.kept(fr) - self.used.get(fr, 0))

    def left(self, fr: FlavorResource) -> int:
        """A: what is available to it, below zero where others have overdrawn."""
        whole, used = self.whole.get(fr, 0), self.used.get(fr, 0)
        if self.parent is None:
            return whole - used
        kept, limit = self.kept(fr), self.quotas.get(fr, NONE).borrow
        above = self.parent.left(fr)
        if limit is not None:
            above = min(above, whole - kept - max(0, used - kept) + limit)
        return max(0, kept - used) + above

    def available(self, fr: FlavorResource) -> int:
        """What a queue may take now."""
        return max(0, self.left(fr))

    def potential(self, fr: FlavorResource) -> int:
        """P: the most that it could ever have."""
        if fr not in self.most:
            whole = self.whole.get(fr, 0)
            found = whole
            if self.parent is not None:
                limit = self.quotas.get(fr, NONE).borrow
                found = self.kept(fr) + self.parent.potential(fr)
                found = found if limit is None else min(found, whole + limit)
            self.most[fr] = found
        return self.most[fr]

    def lendable(self) -> dict[str, int]:
        """The most that it could ever have of each resource, over all flavors."""
        if not self.lends:
            for fr in self.root.whole:
                self.lends[fr[1]] = self.lends.get(fr[1], 0) + self.potential(fr)
        return self.lends

    def borrows(self, fr: FlavorResource, more: int = 0) -> bool:
        """Tell whether it uses more than its own, with `more` on top."""
        return self.used.get(fr, 0) + more > self.whole.get(fr, 0)

    def path(self) -> Iterator[Node]:
        """Yield it and all above it."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    @property
    def root(self) -> Node:
        """The top of its tree."""
        return self if self.parent is None else self.parent.root

    def queues(self) -> Iterator[Node]:
        """Yield the queues below it."""
        if self.queue is not None:
            yield self
        for child in self.children:
            yield from child.queues()

    def add(self, usage: Mapping[FlavorResource, int]) -> None:
        """Book what is used of a queue; what exceeds what a node keeps for itself is used of its parent."""
        for fr, amount in usage.items():
            node: Node | None = self
            while node is not None and amount > 0:
                before = node.used.get(fr, 0)
                node.used[fr] = before + amount
                amount = max(0, amount - max(0, node.kept(fr) - before))
                node = node.parent

    def remove(self, usage: Mapping[FlavorResource, int]) -> None:
        """Take back what was booked."""
        for fr, amount in usage.items():
            node: Node | None = self
            while node is not None and amount > 0:
                before = node.used.get(fr, 0)
                node.used[fr] = before - amount
                amount = max(0, min(amount, before - node.kept(fr)))
                node = node.parent

    def fits(self, usage: Mapping[FlavorResource, int]) -> bool:
        """Tell whether a queue may take all of this now."""
        return all(amount <= self.available(fr) for fr, amount in usage.items())

    def level(self, fr: FlavorResource, amount: int) -> tuple[int, bool]:
        """Return how far up it has to borrow for an amount, and whether it may reclaim there.

        0 is its own quota; else the height of the lowest cohort whose quota suffices, or of the root.
        """
        if self.parent is None or not self.borrows(fr, amount):
            return 0, self.parent is not None
        rest = amount - self.own(fr)
        node: Node = self
        while node.parent is not None:
            node = node.parent
            if not node.borrows(fr, rest):
                return node.height, node.parent is not None
            rest -= node.own(fr)
        return node.height, False


class Tree:
    """All queues and cohorts, with what is admitted."""

    def __init__(
        self, queues: Iterable[QueueSpec], cohorts: Iterable[CohortSpec],
        admitted: Iterable[Workload] = (),
    ) -> None:  # fmt: skip
        self.queues = {q.name: Node(q.name, _quotas(q.groups), q.weight, q) for q in queues}
        given = {c.name: c for c in cohorts}
        names = [*given, *(q.queue.cohort for q in self.queues.values() if q.queue and q.queue.cohort),
                 *(c.parent for c in given.values() if c.parent)]  # fmt: skip
        self.cohorts = {name: Node(name, _quotas(given[name].groups) if name in given else {},
                                   given[name].weight if name in given else Fraction(1))
                        for name in dict.fromkeys(names)}  # fmt: skip
        for name, spec in given.items():
            self._join(self.cohorts[name], spec.parent)
        for node in self.queues.values():
            assert node.queue is not None
            self._join(node, node.queue.cohort)
        for node in (*self.queues.values(), *self.cohorts.values()):
            if node.parent is None:
                _sum_up(node)
        for job in admitted:
            self.admit(job)

    def _join(self, node: Node, parent: str) -> None:
        if parent:
            node.parent = self.cohorts[parent]
            node.parent.children.append(node)

    def admit(self, job: Workload) -> None:
        """Book an admitted job."""
        queue = self.queues[job.queue]
        queue.jobs[job.id] = job
        queue.add(job.usage)

    def evict(self, job: Workload) -> None:
        """Take a job out."""
        queue = self.queues[job.queue]
        del queue.jobs[job.id]
        queue.remove(job.usage)


def _quotas(groups: Iterable[ResourceGroup]) -> dict[FlavorResource, Quota]:
    return {fr: quota for group in groups for fr, quota in group.quotas.items()}


def _sum_up(node: Node) -> None:
    """Add up quotas from the queues to the root: each passes on what it lends."""
    node.whole = {fr: quota.nominal for fr, quota in node.quotas.items()}
    for child in node.children:
        _sum_up(child)
        node.height = max(node.height, child.height)
        for fr, amount in child.whole.items():
            node.whole[fr] = node.whole.get(fr, 0) + amount - child.kept(fr)
    node.height += node.queue is None


def dominant(node: Node, asked: Mapping[FlavorResource, int] = {}) -> tuple[Fraction, str]:
    """Return a node's largest borrowed part of a resource in thousandths of what can be lent, and which."""
    if node.parent is None:
        return Fraction(0), ""
    borrowed: dict[str, int] = {}
    for fr, whole in node.whole.items():
        over = node.used.get(fr, 0) + asked.get(fr, 0) - whole
        if over > 0:
            borrowed[fr[1]] = borrowed.get(fr[1], 0) + over
    lendable = node.parent.lendable() if borrowed else {}
    best = Fraction(0), ""
    for resource in sorted(borrowed):
        if lendable.get(resource, 0) > 0:
            part = Fraction(1000 * borrowed[resource], lendable[resource])
            if part > best[0]:
                best = part, resource
    return best


def share(node: Node) -> Share:
    """Return a node's share as it is compared; 0 where it does not borrow."""
    part, _ = dominant(node)
    if not part:
        return NO_SHARE
    return (True, part) if not node.weight else (False, part / node.weight)
