"""The clock of an emulated rank, live: a host that launches, streams that run, and the trace of both.

The host pays for each launch; work starts when the host has launched it, its stream is free and
what it waits for is done. The same rules as the step engine's (`ersatz.sim.step.vector`), so that
the clock a script reads and the engine that runs its trace agree to the last bit.

While a collective runs on another stream, kernels are slower: by how much is the stack's to say
(`overlap_contention`), for how long they ran so is counted here. It is charged after the kernel in which a
collective has ended.

Not modelled: Python's own time between launches, and what a data loader takes: it is taken to keep up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ersatz.sim.emulate.virtual_device import host_defaults
from ersatz.sim.step.program import ticks

HOST = -1  # the stream of what the host does alone: waiting, sleeping, writing files


class Entry(NamedTuple):
    """One thing that happened, in the order of the host."""

    stream: int
    work: int  # number of the work in the trace's table; -1: nothing but waiting
    after: tuple[int, ...]  # entries that must have ended
    host_s: float  # that the host spends before the device may start
    waits: bool  # the host goes on only when this has ended


@dataclass(slots=True)
class Clock:
    """Seconds since the start of the script, of the host and of every stream."""

    host: float = 0.0
    free: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    entries: list[Entry] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    last: dict[int, int] = field(default_factory=dict)  # entry of each stream
    pending: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    talking: list[tuple[float, float, int]] = field(default_factory=list)  # start, end, stream
    beside_s: float = (
        0.0  # of work while collectives ran on other streams, until somebody charges it
    )
    ended: bool = False  # one of these collectives since then
    queue: int = field(default_factory=lambda: host_defaults().launch_queue)

    def run(
        self, stream: int, work: int, seconds: float, host_s: float, after: Iterable[int] = (),
        *, talks: bool = False,
    ) -> int:  # fmt: skip
        """Launch work on a stream, a collective if it `talks`; returns its entry."""
        waits = self.pending.pop(stream, None)
        waited = tuple(sorted({*after, *(waits or ())}))
        if len(self.ends) >= self.queue:
            self.host = max(self.host, self.ends[-self.queue])
        self.host += ticks(host_s)
        start = max(self.host, self.free[stream], *(self.ends[i] for i in waited), 0.0)
        end = start + ticks(seconds)
        if talks:
            self.talking.append((start, end, stream))
        elif self.talking:
            self._overlap(stream, start, end)
        return self._append(Entry(stream, work, waited, host_s, False), end)

    def _overlap(self, stream: int, start: float, end: float) -> None:
        """Count how long work has collectives beside it, and let go of those that have ended."""
        for begun, over, other in self.talking:
            if other != stream:
                self.beside_s += max(0.0, min(end, over) - max(start, begun))
        left = [row for row in self.talking if row[1] > end]
        self.ended |= len(left) < len(self.talking)
        self.talking = left

    def charged(self) -> float:
        """Return the seconds beside collectives that nobody has charged yet, and begin anew."""
        found, self.beside_s, self.ended = self.beside_s, 0.0, False
        return found

    def spend(self, seconds: float) -> None:
        """Let the host do something of its own."""
        self.host += ticks(seconds)
        self._append(Entry(HOST, -1, (), seconds, False), self.host)

    def wait_on_host(self, entries: Iterable[int]) -> None:
        """Let the host wait until entries have ended."""
        waited = tuple(sorted(set(entries)))
        if not waited:
            return
        self.host = max(self.host, self.free[HOST], *(self.ends[i] for i in waited))
        self._append(Entry(HOST, -1, waited, 0.0, True), self.host)

    def again(self, entry: Entry, seconds: float, *, talks: bool = False) -> int:
        """Let a recorded entry happen, its work taking so long; returns its entry."""
        if entry.waits:
            ends = (self.ends[i] for i in entry.after)
            self.host = max(self.host, self.free[HOST], *ends)
            return self._append(entry, self.host)
        if entry.stream == HOST:
            self.spend(entry.host_s)
            return len(self.entries) - 1
        return self.run(entry.stream, entry.work, seconds, entry.host_s, entry.after, talks=talks)

    def synchronize(self) -> None:
        """Let the host wait for every stream."""
        self.wait_on_host(i for stream, i in self.last.items() if stream != HOST)

    def mark(self, stream: int) -> tuple[int, ...]:
        """Return what an event recorded on a stream now stands for."""
        last = self.last.get(stream)
        return (*(() if last is None else (last,)), *sorted(self.pending.get(stream, ())))

    def wait(self, stream: int, entries: Iterable[int]) -> None:
        """Let the next work of a stream wait for entries."""
        self.pending[stream].update(entries)

    def time_of(self, entries: Iterable[int]) -> float:
        """Return when all of the entries have ended."""
        return max((self.ends[i] for i in entries), default=0.0)

    @property
    def drained(self) -> float:
        """When host and streams are all done with what there is."""
        return max([self.host, *self.free.values()])

    def _append(self, entry: Entry, end: float) -> int:
        index = len(self.entries)
        self.entries.append(entry)
        self.ends.append(end)
        self.free[entry.stream] = end
        self.last[entry.stream] = index
        return index
