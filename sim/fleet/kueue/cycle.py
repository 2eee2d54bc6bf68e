"""One cycle of Kueue's scheduler: the first job of every queue, nominated alone, then settled one by one.

As read in `pkg/scheduler/scheduler.go`: nomination against the state at the beginning, an order over all
queues (borrowing, priority, time; or a tournament of fair shares), and then each against what this cycle has
given away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ersatz.sim.fleet.kueue.flavors import (
    FIT,
    IMPOSSIBLE,
    NO_CANDIDATES,
    PREEMPT,
    RECLAIM,
    Assigner,
    Assignment,
)
from ersatz.sim.fleet.kueue.objects import (
    Amounts,
    Config,
    FlavorResource,
    Given,
    Workload,
)
from ersatz.sim.fleet.kueue.places import Domains, Places
from ersatz.sim.fleet.kueue.quota import NONE, Node, Share, Tree, share
from ersatz.sim.fleet.kueue.victims import Ask, Target, find_targets

T = TypeVar("T")


@dataclass(slots=True)
class Entry:
    """A nominated job."""

    job: Workload
    node: Node
    assignment: Assignment
    targets: list[Target]
    domains: Domains = field(default_factory=dict)
    state: str = ""  # 'admitted', 'preempting', 'skipped', or '' if it was not nominated


@dataclass(slots=True)
class Outcome:
    """What a cycle has done."""

    admitted: list[Workload] = field(default_factory=list)
    preempted: list[Target] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)  # in the heap
    parked: list[str] = field(default_factory=list)  # until something in their tree changes
    preemptors: dict[str, str] = field(default_factory=dict)  # victim -> for whom


class Cycle:
    """State and step of the scheduler; `tree` and the places of topologies are changed by it."""

    def __init__(
        self, config: Config, tree: Tree, places: Places | None = None,
        assigners: dict[str, Assigner] | None = None,
    ) -> None:  # fmt: skip
        self.config, self.tree, self.settings = config, tree, config.settings
        self.places = places if places and config.settings.topology else Places({}, {})
        self._lent: list[tuple[Node, Amounts]] = []  # usage of this cycle alone
        self._meant: list[Entry] = []  # and places
        self.gone: dict[str, Workload] = {}  # victims of this cycle
        self._unbooked: set[str] = set()  # of these, whose places are free just now
        self._assigners = (
            {} if assigners is None else assigners
        )  # of queues, kept from cycle to cycle
        self.at_start = (
            {w.id: w for w in self._all_booked()} if self.places else {}
        )  # and admitted since

    def _evict(self, job: Workload) -> None:
        self.tree.evict(job)
        self.places.book(job, -1)
        self._unbooked.add(job.id)

    def _take_back(self, job: Workload) -> None:
        self.tree.admit(job)
        self.places.book(job)
        self._unbooked.discard(job.id)

    def _all_booked(self) -> list[Workload]:
        return [w for q in self.tree.queues.values() for w in q.jobs.values()]

    # -- nomination ------------------------------------------------------------------------------------

    def nominate(self, job: Workload) -> Entry:
        """Return what a job would get on its own."""
        node = self.tree.queues[job.queue]
        full = self.assign(job)
        if full.mode == FIT:
            return self._placed(Entry(job, node, full, []))
        targets = self._targets(job, full) if full.mode >= NO_CANDIDATES else []
        less = None
        if not targets and self.settings.partial and any(p.least is not None for p in job.podsets):
            less = reduce_pods(job, lambda counts: self._try_less(job, node, counts))
        return self._placed(less or Entry(job, node, full, targets))

    def _placed(self, entry: Entry) -> Entry:
        """Note which places a job is meant to have: now, without its victims, or on empty nodes."""
        if self.places and entry.assignment.mode != IMPOSSIBLE:
            waits = entry.assignment.mode != FIT and not entry.targets
            out = self._all_booked() if waits else [w for w, _ in entry.targets]
            out = [w for w in out if w.id not in self._unbooked]
            entry.domains = self.places.find_without(out, entry.job, entry.assignment) or {}
        return entry

    def _try_less(self, job: Workload, node: Node, counts: Mapping[str, int]) -> Entry | None:
        less = self.assign(job, counts)
        if less.mode == FIT:
            return Entry(job, node, less, [])
        targets = self._targets(job, less) if less.mode >= NO_CANDIDATES else []
        return Entry(job, node, less, targets) if targets else None

    def assign(self, job: Workload, counts: Mapping[str, int] | None = None) -> Assignment:
        """Return flavors for a job, checked against the topology."""
        node = self.tree.queues[job.queue]
        if node.name not in self._assigners:
            self._assigners[node.name] = Assigner(
                node, self.config.flavors, lambda fr, amount: (NO_CANDIDATES, 0),
                fair=self.settings.fair is not None, levels=self.config.levels,
                unit=self.config.unit)  # fmt: skip
        assigner = self._assigners[node.name]
        assigner.oracle = lambda fr, amount: self.trial(job, fr, amount)
        found = assigner.assign(job, counts)
        if self.places and found.mode > NO_CANDIDATES:
            if found.mode == FIT and self.places.find(job, found) is None:
                self._worsen(found, PREEMPT)
            elif found.mode != FIT and self.places.find(job, found) is None:
                self._worsen(found, found.mode)
            empty = self.places.find_without
            if found.mode in (PREEMPT, RECLAIM) and empty(self._all_booked(), job, found) is None:
                found.mode = IMPOSSIBLE
        return found

    def _worsen(self, found: Assignment, mode: int) -> None:
        found.mode = mode
        for choices in found.chosen.values():
            for resource, choice in choices.items():
                if choice.flavor in self.places.of:
                    choices[resource] = replace(choice, mode=min(choice.mode, PREEMPT))

    def trial(self, job: Workload, fr: FlavorResource, amount: int) -> tuple[int, int]:
        """Return what a preemption for one resource would bring: the oracle of flavors."""
        node = self.tree.queues[job.queue]
        ask = Ask(self.tree, job, {fr: amount}, {fr})
        targets = find_targets(ask, self.settings.fair)
        if not targets:
            return NO_CANDIDATES, node.level(fr, amount)[0]
        for w, _ in targets:
            self.tree.evict(w)
        level = node.level(fr, amount)[0]
        for w, _ in targets:
            self.tree.admit(w)
        own = any(w.queue == job.queue for w, _ in targets)
        return (PREEMPT if own else RECLAIM), level

    def _targets(self, job: Workload, assignment: Assignment) -> list[Target]:
        if not assignment.contested:
            return []
        ask = Ask(self.tree, job, assignment.usage, assignment.contested)
        if self.places:
            ask.room = lambda: self._room_beside(job, assignment)
        return find_targets(ask, self.settings.fair)

    def _room_beside(self, job: Workload, assignment: Assignment) -> bool:
        """Tell whether the topology has room with the present members of the tree."""
        now = {w.id for q in self.tree.queues.values() for w in q.jobs.values()}
        out = [w for w in self.at_start.values() if w.id not in now | self._unbooked]
        return self.places.find_without(out, job, assignment) is not None

    # -- the cycle -------------------------------------------------------------------------------------

    def run(self, heads: Sequence[Workload]) -> Outcome:
        """Nominate the first jobs of all queues, order them, and settle them one by one."""
        entries = [self.nominate(job) for job in heads]
        outcome = Outcome()
        for entry in self._ordered(entries):
            self._settle(entry, outcome)
        for entry in entries:
            self._requeue(entry, outcome)
        self._end()
        return outcome

    def _lend(self, node: Node, usage: Amounts) -> None:
        """Book what counts in this cycle alone."""
        node.add(usage)
        self._lent.append((node, usage))

    def _book_meant(self, entry: Entry) -> None:
        self.places.book_meant(entry.job, entry.assignment, entry.domains)
        self._meant.append(entry)

    def _end(self) -> None:
        """Forget what counted in this cycle alone: only who is admitted has quota and places."""
        for node, usage in self._lent:
            node.remove(usage)
        for entry in self._meant:
            self.places.book_meant(entry.job, entry.assignment, entry.domains, -1)

    def _ordered(self, entries: list[Entry]) -> Iterator[Entry]:
        if self.settings.fair is not None:
            return tournament(entries)
        return iter(sorted(entries, key=lambda e: place_in_cycle(
            e.assignment.level, e.job, by_priority=self.settings.by_priority)))  # fmt: skip

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        job, node, found = entry.job, entry.node, entry.assignment
        if found.mode == IMPOSSIBLE:
            return
        if any(w.id in self.gone for w, _ in entry.targets) and not self._recompute(entry):
            return
        if found.mode != FIT and not entry.targets:
            return self._reserve(entry)
        if not self._still_fits(entry):
            entry.state = "skipped"
            return
        if self.places and not self._free_beside(entry):
            if not self.settings.replace_places:
                entry.state = "skipped"
                return
            self._place_anew(entry)
            if entry.assignment.mode != FIT and not entry.targets:
                return self._reserve(entry)
        if entry.targets:
            entry.state = "preempting"
            for w, why in entry.targets:
                self.gone[w.id] = w
                outcome.preempted.append((w, why))
                outcome.preemptors[w.id] = job.id
            self._lend(node, found.usage)
            return self._book_meant(entry)
        entry.state = "admitted"
        given = {p.name: Given(found.counts[p.name], {r: (c.flavor, c.amount) for r, c in
                                                      found.chosen.get(p.name, {}).items()},
                               entry.domains.get(p.name, ())) for p in job.podsets}  # fmt: skip
        admitted = replace(job, given=given)
        self._take_back(admitted)
        self.at_start[admitted.id] = admitted
        outcome.admitted.append(admitted)

    def _recompute(self, entry: Entry) -> bool:
        """Look for other victims, as some are taken already; tells whether to go on."""
        if not self.settings.recompute:
            entry.state = "skipped"
            return False
        victims = list(self.gone.values())
        for w in victims:
            self._evict(w)
        ask_fits = entry.node.fits(entry.assignment.usage) and (
            not self.places or self.places.find(entry.job, entry.assignment) is not None)  # fmt: skip
        targets = [] if ask_fits else self._targets(entry.job, entry.assignment)
        for w in victims:
            self._take_back(w)
        if ask_fits:
            entry.state = "skipped"
            self._lend(entry.node, entry.assignment.usage)
            return False
        entry.targets = targets
        self._placed_beside(entry)
        return True

    def _reserve(self, entry: Entry) -> None:
        """Keep quota and places for a job that waits without victims, so that others do not slip in."""
        if entry.node.queue and entry.node.queue.reclaim != "any":
            self._lend(entry.node, _reserved(entry.node, entry.assignment))
            self._book_meant(entry)

    def _without_victims(self, entry: Entry, act: Callable[[], T]) -> T:
        """Act as if the victims of this cycle, and an entry's own, were gone."""
        out = {**self.gone, **{w.id: w for w, _ in entry.targets}}
        for w in out.values():
            self._evict(w)
        found = act()
        for w in out.values():
            self._take_back(w)
        return found

    def _free_beside(self, entry: Entry) -> bool:
        return self._without_victims(
            entry, lambda: self.places.are_free(entry.job, entry.assignment, entry.domains)
        )

    def _placed_beside(self, entry: Entry) -> None:
        found = self._without_victims(entry, lambda: self.places.find(entry.job, entry.assignment))
        entry.domains = found or {}

    def _place_anew(self, entry: Entry) -> None:
        """Look for other places, and for victims where there are none."""
        self._placed_beside(entry)
        if entry.domains or entry.targets:
            return
        self._worsen(entry.assignment, PREEMPT)
        entry.targets = self._without_victims(
            entry, lambda: self._targets(entry.job, entry.assignment)
        )
        if entry.targets:
            self._placed_beside(entry)
        else:
            self._placed(entry)

    def _still_fits(self, entry: Entry) -> bool:
        """Tell whether an entry fits beside what this cycle has given away, all victims gone."""
        return self._without_victims(entry, lambda: entry.node.fits(entry.assignment.usage))

    def _requeue(self, entry: Entry, outcome: Outcome) -> None:
        if entry.state == "admitted":
            return
        strict = entry.node.queue is not None and entry.node.queue.strict
        again = entry.state in ("skipped", "preempting") or entry.assignment.untried
        (outcome.waits if strict or again else outcome.parked).append(entry.job.id)


def _reserved(node: Node, found: Assignment) -> Amounts:
    """Return what is kept for a job that waits without victims, so that later ones do not slip in."""
    kept: Amounts = {}
    for fr, amount in found.usage.items():
        quota, used = node.quotas.get(fr, NONE), node.used.get(fr, 0)
        if found.level > 0:
            kept[fr] = amount if quota.borrow is None else min(
                amount, quota.nominal + quota.borrow - used)  # fmt: skip
        else:
            kept[fr] = max(0, min(amount, quota.nominal - used))
    return {fr: amount for fr, amount in kept.items() if amount > 0}


def place_in_cycle(level: int, job: Workload, *, by_priority: bool = True) -> tuple[object, ...]:
    """Return by what the first jobs of queues are ordered: borrowing, priority, time."""
    since = job.created if job.queued_at is None else job.queued_at
    return (level, -job.priority if by_priority else 0, since, job.tie)


def reduce_pods(
    job: Workload, attempt: Callable[[Mapping[str, int]], Entry | None]
) -> Entry | None:
    """Return the first success with as few pods taken away as a binary search finds."""
    spare = {p.name: p.count - p.least if p.least is not None else 0 for p in job.podsets}
    total = sum(spare.values())
    if not total:
        return None
    low, high, best = 0, total + 1, None
    while low < high:
        middle = (low + high) // 2
        if middle > total:
            break
        counts = {p.name: p.count - spare[p.name] * middle // total
                  for p in job.podsets}  # fmt: skip
        if (found := attempt(counts)) is not None:
            best, high = found, middle
        else:
            low = middle + 1
    return best


# -- fair sharing ------------------------------------------------------------------------------------------


def tournament(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield entries: in each tree again and again the one whose branch would have the least share."""
    left = {id(e.node): e for e in entries}
    while left:
        node = next(iter(left.values())).node
        best = _winner(node.root, left) if node.parent is not None else left[id(node)]
        assert best is not None
        del left[id(best.node)]
        yield best


def _winner(node: Node, left: Mapping[int, Entry]) -> Entry | None:
    if node.queue is not None:
        return left.get(id(node))
    best: tuple[tuple[object, ...], Entry] | None = None
    for child in node.children:
        entry = _winner(child, left)
        if entry is not None:
            key = (*_with_its_own(entry, child), *place_in_cycle(0, entry.job)[1:])
            if best is None or key < best[0]:
                best = key, entry
    return best[1] if best else None


def _with_its_own(entry: Entry, child: Node) -> tuple[bool, Share]:
    """Return whether a branch would borrow what is asked, and its share, if the entry were admitted."""
    usage = entry.assignment.usage
    entry.node.add(usage)
    found = any(child.borrows(fr) for fr in usage), share(child)
    entry.node.remove(usage)
    return found
