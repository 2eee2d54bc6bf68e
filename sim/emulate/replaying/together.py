"""The ranks of an emulation side by side: who waits for whom, in messages and in collectives.

Each rank has its own clock (`clock`), and its entries are walked in the order of its host. A message has
come when its sender, by the sender's clock, has sent it; a collective begins when the last of its members
that ran is there. Ranks that did not run are taken to be there with the rank that stands for them.

Not modelled: work that a late peer's message would let another rank order differently; hosts go on in the
order that was recorded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from ersatz.sim.emulate.clock import Clock, Entry
from ersatz.sim.emulate.trace import CONTENTION, Ranks, Task, Trace

Seconds = Callable[[Task], float]
Meeting = tuple[Ranks, int]  # a group, and which of its collectives
Letter = tuple[int, int]  # who is at the other end of a message, and its tag


@dataclass(slots=True)
class Walk:
    """One rank on its way through its entries."""

    trace: Trace
    table: list[Task]
    share: float = 0.0  # of a second that a kernel loses for each beside a collective
    clock: Clock = field(default_factory=Clock)
    at: int = 0
    met: dict[Ranks, int] = field(default_factory=lambda: defaultdict(int))
    received: dict[Letter, int] = field(default_factory=lambda: defaultdict(int))  # by sender
    sent: dict[Letter, list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )  # by receiver
    rows: dict[tuple[int, float], int] = field(default_factory=dict)  # of what waits
    drained: list[float] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether all was walked."""
        return self.at == len(self.trace.entries)

    def run(self) -> int:
        """Do the next entry as if nobody were waited for; returns its place."""
        if self.at in self.trace.marks:
            self.drained.append(self.clock.drained)
        entry = self.trace.entries[self.at]
        self.at += 1
        if entry.work < 0:
            return self.clock.again(entry, 0.0)
        task = self.table[entry.work]
        if task.category == CONTENTION:
            seconds = self.share * self.clock.charged()
            entry = entry._replace(work=self._row(entry.work, replace(task, seconds=seconds)))
            return self.clock.again(entry, seconds)
        return self.clock.again(entry, task.seconds, talks=task.talks)

    def _row(self, work: int, task: Task) -> int:
        """Return the number of a task that differs from a recorded one in its seconds."""
        key = work, task.seconds
        if key not in self.rows:
            self.rows[key] = len(self.table)
            self.table.append(task)
        return self.rows[key]

    def wait(self, index: int, until: float, begun: bool) -> None:
        """Let an entry end at `until` (or begin then), if that is later."""
        clock, old = self.clock, self.clock.entries[index]
        task = self.table[old.work]
        late = until - (clock.ends[index] - task.seconds if begun else clock.ends[index])
        if late <= 0:
            return
        longer = replace(task, seconds=task.seconds + late, waited=late)
        clock.entries[index] = old._replace(work=self._row(old.work, longer))
        clock.ends[index] += late
        clock.free[old.stream] = max(clock.free[old.stream], clock.ends[index])

    def result(self) -> Trace:
        """Return the trace with what it waited for."""
        self.drained.append(self.clock.drained)
        steps = tuple(b - a for a, b in pairwise(self.drained))
        before = self.trace.step_s[: -len(steps)]
        return replace(self.trace, table=tuple(self.table), entries=tuple(self.clock.entries),
                       step_s=(*before, *steps))  # fmt: skip


def together(traces: Sequence[Trace], share: float, seconds: Seconds | None = None) -> list[Trace]:
    """Return the traces as their ranks find each other; `seconds` times their work anew.

    `share` is the device time that kernels lose per second of a collective beside them.

    Ranks must have been recorded over the same steps.
    """
    anew = seconds or (lambda task: task.seconds - task.waited)
    walks = {
        trace.rank: Walk(
            trace, [replace(t, seconds=anew(t), waited=0.0) for t in trace.table], share
        )
        for trace in traces
    }
    meetings: dict[Meeting, dict[int, int]] = defaultdict(dict)  # entry of each rank that is there
    while not all(walk.done for walk in walks.values()):
        moved = [_advance(walk, walks, meetings) for walk in walks.values()]
        if not any(moved):
            _go_on(walks, meetings)
    return [walk.result() for walk in walks.values()]


def _advance(walk: Walk, walks: dict[int, Walk], meetings: dict[Meeting, dict[int, int]]) -> bool:
    """Walk one rank until it has to wait for another; tells whether it went on."""
    begun = walk.at
    while not walk.done:
        task = _task(walk)
        if task is not None and task.peer in walks and task.name == "recv":
            letter = task.peer, task.tag
            number, sent = walk.received[letter], walks[task.peer].sent[walk.trace.rank, task.tag]
            if number >= len(sent):
                break
            walk.received[letter] += 1
            walk.wait(walk.run(), sent[number], begun=False)
        elif (
            task is not None and task.ranks and task.peer < 0 and len(_there(task.ranks, walks)) > 1
        ):
            if not _meet(walk, task.ranks, walks, meetings):
                break
        else:
            index = walk.run()
            if task is not None and task.name == "send" and task.peer in walks:
                walk.sent[task.peer, task.tag].append(walk.clock.ends[index])
    return walk.at > begun


def _task(walk: Walk) -> Task | None:
    entry: Entry = walk.trace.entries[walk.at]
    return walk.table[entry.work] if entry.work >= 0 else None


def _there(ranks: Ranks, walks: dict[int, Walk]) -> list[int]:
    """Return the members of a group that ran."""
    last = ranks.start + ranks.stride * (ranks.size - 1)
    return [
        r for r in walks
        if (r in ranks.irregular if ranks.irregular
            else ranks.start <= r <= last and (r - ranks.start) % ranks.stride == 0)
    ]  # fmt: skip


def _meet(
    walk: Walk, ranks: Ranks, walks: dict[int, Walk], meetings: dict[Meeting, dict[int, int]]
) -> bool:
    """Come to a collective; tells whether all members are there, and lets them begin together."""
    meeting = ranks, walk.met[ranks]
    here = meetings[meeting]
    rank = walk.trace.rank
    if rank not in here:
        here[rank] = -1
    if len(here) < len(_there(ranks, walks)):
        return False
    _begin(meeting, walks, meetings)
    return True


def _begin(
    meeting: Meeting, walks: dict[int, Walk], meetings: dict[Meeting, dict[int, int]]
) -> None:
    """Let those who are there begin, with the last of them."""
    ranks, _ = meeting
    begins = {}
    for rank in meetings.pop(meeting):
        walk = walks[rank]
        index = walk.run()
        walk.met[ranks] += 1
        begins[rank] = (
            index,
            walk.clock.ends[index] - walk.table[walk.trace.entries[index].work].seconds,
        )
    last = max(begin for _, begin in begins.values())
    for rank, (index, _) in begins.items():
        walks[rank].wait(index, last, begun=True)


def _go_on(walks: dict[int, Walk], meetings: dict[Meeting, dict[int, int]]) -> None:
    """Nobody can go on (ranks order their collectives differently): let the first waiting one."""
    for walk in _waiting(walks):
        for meeting in [m for m, here in meetings.items() if walk.trace.rank in here]:
            _begin(meeting, walks, meetings)
            return
        walk.run()
        return


def _waiting(walks: dict[int, Walk]) -> Iterator[Walk]:
    return (walk for walk in walks.values() if not walk.done)
