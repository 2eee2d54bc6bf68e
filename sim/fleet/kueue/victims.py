"""Who has to leave for a workload: Kueue's classical preemption in a tree of cohorts, and the fair one.

Order of candidates, classes of them and the attempts are those of `pkg/scheduler/preemption`. A tree that is
given is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ersatz.sim.fleet.kueue.objects import Amounts, FlavorResource, Workload
from ersatz.sim.fleet.kueue.quota import NO_SHARE, NONE, Node, Share, Tree, share

WITHIN, RECLAIM, WHILE_BORROWING, FAIR = "within", "reclaim", "reclaim-while-borrowing", "fair"
UNLESS_BORROWING = "unless-borrowing"  # usable only if the preemptor ends up not borrowing
Target = tuple[Workload, str]  # who leaves, and why
Room = Callable[[], bool]


def always_room() -> bool:
    """There is no topology to look at."""
    return True


@dataclass(slots=True)
class Ask:
    """A workload that needs others to leave."""

    tree: Tree
    job: Workload
    usage: Amounts  # all that it would use
    contested: set[FlavorResource]  # for which others would have to leave
    room: Room = always_room  # whether the nodes that are free then suffice
    node: Node = field(init=False)

    def __post_init__(self) -> None:
        self.node = self.tree.queues[self.job.queue]

    def fits(self, *, borrowing: bool) -> bool:
        """Tell whether it fits as the tree is now."""
        node = self.node
        if not borrowing and any(node.borrows(fr, v) for fr, v in self.usage.items()):
            return False
        return node.fits(self.usage) and self.room()

    def candidates(self, node: Node, policy: str) -> list[Workload]:
        """Return the jobs of a queue that use what is contested and that a policy lets it push out."""
        mine, jobs = self.job.priority, node.jobs.values()
        if policy == "any":
            able = list(jobs)
        elif policy == "lower-or-newer":
            able = [w for w in jobs if w.priority < mine
                    or (w.priority == mine and w.created > self.job.created)]  # fmt: skip
        else:
            able = [w for w in jobs if w.priority < mine] if policy == "lower" else []
        return [w for w in able if any(w.usage.get(fr, 0) for fr in self.contested)]

    def order(self, w: Workload) -> tuple[object, ...]:
        """Who leaves first: the evicted, other queues', low priority, the latest."""
        return (not w.evicting, w.queue == self.job.queue, w.priority, -w.reserved_at, w.tie)

    def borrowing(self, node: Node) -> bool:
        """Tell whether a node uses more than its own of what is contested."""
        return any(node.borrows(fr) for fr in self.contested)

    def put_back(self, targets: list[Target], fits: Callable[[], bool]) -> list[Target]:
        """Let those stay without whose leaving it fits as well; they are in the tree again."""
        at = len(targets) - 2
        while at >= 0:
            self.tree.admit(targets[at][0])
            if fits():
                targets[at] = targets[-1]
                targets.pop()
            else:
                self.tree.evict(targets[at][0])
            at -= 1
        return targets

    def restore(self, targets: Sequence[Target]) -> None:
        """Take everybody back into the tree."""
        for job, _ in targets:
            self.tree.admit(job)


def find_targets(ask: Ask, fair: Sequence[str] | None) -> list[Target]:
    """Return who has to leave, and why; nobody where that does not help.

    `fair` holds the strategies of fair sharing ('final', 'initial'), None where it is off.
    """
    return _Classical(ask).find() if fair is None else _Fair(ask, fair).find()


class _Classical:
    """Own queue first by the books, then cohort by cohort upwards."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.kinds: dict[str, list[Target]] = {RECLAIM: [], "others": [], WITHIN: []}
        spec = ask.node.queue
        assert spec is not None
        self.spec = spec
        self.kinds[WITHIN] = [(w, WITHIN) for w in ask.candidates(ask.node, spec.within)]
        if spec.reclaim != "never":
            self._walk_up()

    def _walk_up(self) -> None:
        ask = self.ask
        node, rest = ask.node, {fr: ask.usage[fr] for fr in ask.contested}
        advantage, rest = _suffices(node, rest)
        while node.parent is not None:
            for queue in self._below(node.parent, node):
                for w in ask.candidates(queue, self.spec.reclaim):
                    kind = RECLAIM if advantage else "others"
                    self.kinds[kind].append((w, RECLAIM if advantage else self._why(w)))
            node = node.parent
            enough, rest = _suffices(node, rest)
            advantage = advantage or enough

    def _why(self, other: Workload) -> str:
        most = self.spec.borrow_most
        able = self.spec.borrow_lower and other.priority < self.ask.job.priority
        return WHILE_BORROWING if able and (most is None or other.priority <= most) else (
            UNLESS_BORROWING)  # fmt: skip

    def _below(self, cohort: Node, skip: Node) -> Iterator[Node]:
        for child in cohort.children:
            if child is skip or not self.ask.borrowing(child):
                continue
            if child.queue is not None:
                yield child
            else:
                yield from self._below(child, skip)

    def find(self) -> list[Target]:
        ordered = []
        for evicting in (True, False):
            for targets in self.kinds.values():
                some = [t for t in targets if t[0].evicting == evicting]
                ordered += sorted(some, key=lambda t: self.ask.order(t[0]))
        if not ordered:
            return []
        for borrowing in self._attempts():
            if found := self._attempt(ordered, borrowing):
                return [(w, RECLAIM if why == UNLESS_BORROWING else why) for w, why in found]
        return []

    def _attempts(self) -> tuple[bool, ...]:
        elsewhere = self.kinds[RECLAIM] or self.kinds["others"]
        node = self.ask.node
        under = all(node.used.get(fr, 0) < node.quotas.get(fr, NONE).nominal
                    for fr in self.ask.contested)  # fmt: skip
        if not elsewhere or (not self.spec.borrow_lower and not under):
            return (True,)
        if not self.spec.borrow_lower and not self.kinds[RECLAIM]:
            return (False, True)
        return (True, False)

    def _attempt(self, ordered: Sequence[Target], borrowing: bool) -> list[Target]:
        ask, targets = self.ask, list[Target]()
        for w, why in ordered:
            if (borrowing and why == UNLESS_BORROWING) or not self._still_borrows(w):
                continue
            ask.tree.evict(w)
            targets.append((w, why))
            if ask.fits(borrowing=borrowing):
                targets = ask.put_back(targets, lambda: ask.fits(borrowing=borrowing))
                ask.restore(targets)
                return targets
        ask.restore(targets)
        return []

    def _still_borrows(self, w: Workload) -> bool:
        """Tell whether another's queue, and all above it below where they meet, still borrow."""
        theirs = self.ask.tree.queues[w.queue]
        if theirs is self.ask.node:
            return True
        mine = set(map(id, self.ask.node.path()))
        return all(self.ask.borrowing(node) for node in theirs.path() if id(node) not in mine)


def _suffices(node: Node, rest: Amounts) -> tuple[bool, Amounts]:
    """Tell whether a request fits a node's own quota; and what of it is left for its parent."""
    enough = all(not node.borrows(fr, v) for fr, v in rest.items())
    return enough, {fr: max(0, v - node.own(fr)) for fr, v in rest.items()}


class _Fair:
    """The queue with the largest share gives first, as long as that makes shares more alike."""

    def __init__(self, ask: Ask, strategies: Sequence[str]) -> None:
        self.ask, self.strategies = ask, strategies
        self.mine = set(map(id, ask.node.path()))
        self.waiting: dict[str, list[Workload]] = {}  # candidates by queue, the first first
        self.targets: list[Target] = []
        self.pruned: set[int] = set()

    def find(self) -> list[Target]:
        ask, spec = self.ask, self.ask.node.queue
        assert spec is not None
        found = ask.candidates(ask.node, spec.within)
        if spec.reclaim != "never" and ask.node.parent is not None:
            for queue in ask.node.root.queues():
                if queue is not ask.node and ask.borrowing(queue):
                    found += ask.candidates(queue, spec.reclaim)
        if not found:
            return []
        found.sort(key=ask.order)
        ask.node.add(ask.usage)
        fits = self._first(found, self.strategies[0])
        if not fits and len(self.strategies) > 1:
            fits = self._second()
        ask.node.remove(ask.usage)
        if not fits:
            ask.restore(self.targets)
            return []
        targets = ask.put_back(self.targets, lambda: ask.fits(borrowing=True))
        ask.restore(targets)
        return targets

    def _fits(self) -> bool:
        node, usage = self.ask.node, self.ask.usage
        node.remove(usage)
        fits = self.ask.fits(borrowing=True)
        node.add(usage)
        return fits

    def _take(self, queue: Node, why: str) -> bool:
        """Let the first candidate of a queue go; tells whether that is enough."""
        w = self.waiting[queue.name].pop(0)
        self.ask.tree.evict(w)
        self.targets.append((w, why))
        return self._fits()

    def _begin(self, candidates: Sequence[Workload]) -> None:
        self.waiting = {}
        for w in candidates:
            self.waiting.setdefault(w.queue, []).append(w)
        self.pruned = set()

    def _first(self, candidates: Sequence[Workload], strategy: str) -> bool:
        ask, retry = self.ask, list[Workload]()
        self._begin(candidates)
        within_quota = all(not ask.node.borrows(fr) for fr in ask.contested)
        for queue in self._queues():
            if queue is ask.node:
                if self._take(queue, WITHIN):
                    return True
            elif within_quota:
                if self._take(queue, RECLAIM):
                    return True
            else:
                mine, theirs = self._meet(queue)
                old = share(theirs)
                while self.waiting[queue.name]:
                    w = self.waiting[queue.name][0]
                    if _fairer(strategy, share(mine), old, self._without(w, theirs)):
                        if self._take(queue, FAIR):
                            return True
                        break
                    retry.append(self.waiting[queue.name].pop(0))
        self.set_aside = retry
        return False

    def _second(self) -> bool:
        self._begin(self.set_aside)
        for queue in self._queues():
            mine, theirs = self._meet(queue)
            if share(mine) < share(theirs) and self._take(queue, FAIR):
                return True
            self.pruned.add(id(queue))
        return False

    def _meet(self, queue: Node) -> tuple[Node, Node]:
        """Return the branches of both below the lowest cohort that they share."""
        theirs = {id(node) for node in queue.path()}
        mine = next(n for n in self.ask.node.path() if n.parent is None or id(n.parent) in theirs)
        other = next(n for n in queue.path() if n.parent is None or id(n.parent) in self.mine)
        return mine, other

    def _without(self, w: Workload, node: Node) -> Share:
        self.ask.tree.evict(w)
        found = share(node)
        self.ask.tree.admit(w)
        return found

    def _queues(self) -> Iterator[Node]:
        """Yield the queue to look at next, chosen anew each time."""
        root = self.ask.node.root
        while id(root) not in self.pruned:
            if root.queue is not None:
                if not self.waiting.get(root.name):
                    return
                yield root
            elif (queue := self._next(root)) is not None:
                yield queue

    def _next(self, cohort: Node) -> Node | None:
        best: dict[bool, tuple[Share, Node]] = {}
        for child in cohort.children:
            if id(child) in self.pruned:
                continue
            is_queue, has = child.queue is not None, share(child)
            if (has == NO_SHARE and id(child) not in self.mine) or (
                    is_queue and not self.waiting.get(child.name)):  # fmt: skip
                self.pruned.add(id(child))
            elif is_queue not in best or self._before(child, has, *best[is_queue]):
                best[is_queue] = has, child
        if not best:
            self.pruned.add(id(cohort))
            return None
        if False in best and (True not in best or best[False][0] >= best[True][0]):
            return self._next(best[False][1])
        return best[True][1]

    def _before(self, child: Node, has: Share, known: Share, other: Node) -> bool:
        if child.queue is None or has != known:
            return has > known or (child.queue is None and has == known)
        first, second = self.waiting[child.name][0], self.waiting[other.name][0]
        return self.ask.order(first) < self.ask.order(second)


def _fairer(strategy: str, mine: Share, old: Share, new: Share) -> bool:
    return mine <= new if strategy == "final" else mine < old
