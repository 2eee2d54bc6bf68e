"""What a device did over a step, by start and end, as a recording that can be replayed.

A timeline says when work ran, not what it waited for. Here a piece of work waits for that of another stream
which had just ended when it began, if its own stream had been idle till then (`RELEASED_S`) and its host
had launched it before. Hosts go on as they did: from launch to launch, and they wait where they waited.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ersatz.sim.emulate.clock import HOST, Clock, Entry
from ersatz.sim.emulate.foreign.step import NOTHING_HELD, Step, facts_of
from ersatz.sim.emulate.replaying.believed import check
from ersatz.sim.emulate.trace import Task, Trace
from ersatz.sim.emulate.virtual_device import host_defaults

RELEASED_S = 20e-6  # within which a stream goes on after what it waited for


@dataclass(frozen=True, slots=True)
class Done:
    """A piece of work on a stream of a device; times in seconds from the begin of the step."""

    start: float
    end: float
    stream: str
    task: Task
    launched: float  # when its host was done launching it


@dataclass(frozen=True, slots=True)
class Pause:
    """The host waited for the device."""

    start: float
    end: float


@dataclass(slots=True)
class Writer:
    """Writes a timeline down in the order of the host."""

    streams: dict[str, int]
    entries: list[Entry] = field(default_factory=list)
    table: list[Task] = field(default_factory=list)
    numbers: dict[Task, int] = field(default_factory=dict)
    ends: list[tuple[float, int]] = field(default_factory=list)  # of work so far, in order
    free: dict[int, float] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    host: float = 0.0

    def add(self, done: Done) -> None:
        """Append a piece of work."""
        stream = self.streams[done.stream]
        idle = max(self.free.get(stream, 0.0), done.launched)
        after = self._released(done.start, idle, stream)
        launch = max(done.launched - self.host, 0.0)  # with what the host did before
        self.host = max(self.host, done.launched)
        number = self.numbers.setdefault(done.task, len(self.table))
        if number == len(self.table):
            self.table.append(_kept(done.task))
        self.entries.append(Entry(stream, number, after, launch, False))
        place = bisect_right(self.ends, (done.end, len(self.entries)))
        self.ends.insert(place, (done.end, len(self.entries) - 1))
        self.free[stream], self.last[stream] = done.end, len(self.entries) - 1

    def _released(self, start: float, idle: float, stream: int) -> tuple[int, ...]:
        """Return the work of another stream that ended just before."""
        place = bisect_right(self.ends, (start + 1e-9, len(self.entries)))
        if not place:
            return ()
        end, index = self.ends[place - 1]
        other = self.entries[index].stream != stream
        return (index,) if other and end > idle and start - end <= RELEASED_S else ()

    def pause(self, pause: Pause) -> None:
        """Let the host wait for what had ended by then."""
        ended = tuple(sorted(i for i in self.last.values()))
        if ended and pause.end > self.host:
            self.entries.append(Entry(HOST, -1, ended, 0.0, True))
            self.host = pause.end


def step_of(
    form: str, rank: int, world: int, work: Sequence[Done], pauses: Iterable[Pause], seconds: float,
    said: Sequence[str] = (),
) -> Step:  # fmt: skip
    """Return a timeline as a step; the stream that computes longest is the compute stream.

    Raises `ValueError` for a timeline in which nothing is done, or that no recording can hold.
    """
    if not work:
        raise ValueError("no kernels of a device")
    busy: dict[str, float] = {}
    for done in work:
        busy[done.stream] = busy.get(done.stream, 0.0) + (
            0.0 if done.task.collective else done.end - done.start
        )
    order = sorted(busy, key=lambda name: (-busy[name], name))
    writer = Writer({name: i for i, name in enumerate(order)})
    happened: list[tuple[float, int, Done | Pause]] = [(d.launched, 1, d) for d in work]
    happened += [(p.start, 0, p) for p in pauses]
    for _, _, what in sorted(happened, key=lambda row: row[:2]):
        if isinstance(what, Done):
            writer.add(what)
        else:
            writer.pause(what)
    clock = Clock()
    for entry in writer.entries:
        clock.again(entry, writer.table[entry.work].seconds if entry.work >= 0 else 0.0)
    names = {i: f"stream {name}" for name, i in writer.streams.items()}
    entries = tuple(writer.entries)
    trace = Trace(rank, tuple(writer.table), entries, (0, len(entries)), (clock.drained,), names,
                  NOTHING_HELD, facts_of())  # fmt: skip
    check(trace, world)
    return Step(form, trace, world, seconds, tuple(said), causes_of(work, seconds))


def _kept(task: Task) -> Task:
    """Return a collective of which too little is known as something that takes as long anywhere."""
    if not task.collective or (task.nbytes and task.ranks and task.ranks.size > 1):
        return task
    nbytes = task.seconds * host_defaults().copy_bandwidth
    return replace(task, collective="", ranks=None, nbytes=nbytes, known=False)


def causes_of(work: Sequence[Done], seconds: float) -> dict[str, float]:
    """Return the seconds of a step by cause: kernels first, then what is sent while none runs, then nothing.

    As a breakdown counts them: the parts add up to the step. Where kernels run side by side each moment is
    the one's that began first.
    """
    found: dict[str, float] = {}
    covered: list[tuple[float, float]] = []
    for talks in (False, True):
        taken: list[tuple[float, float]] = []
        at = 0.0
        for done in sorted(
            (d for d in work if bool(d.task.collective) == talks), key=lambda d: (d.start, d.end)
        ):
            begin, end = max(done.start, at, 0.0), min(done.end, seconds)
            if end <= begin:
                continue
            free = end - begin - _overlap(covered, begin, end)
            found[done.task.category] = found.get(done.task.category, 0.0) + free
            taken.append((begin, end))
            at = end
        covered = sorted([*covered, *taken]) if not talks else covered
    idle = seconds - sum(found.values())
    return {**found, "idle": max(idle, 0.0)}


def _overlap(covered: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    """Return how much of a stretch lies in stretches that are in order and do not meet."""
    total, place = 0.0, max(bisect_right(covered, (begin, float("inf"))) - 1, 0)
    while place < len(covered) and covered[place][0] < end:
        total += max(min(end, covered[place][1]) - max(begin, covered[place][0]), 0.0)
        place += 1
    return total
