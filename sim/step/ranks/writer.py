"""Writes down what one rank does while a step runs: its pieces of work and its waits, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ersatz.sim.plan.orders import Slot
from ersatz.sim.step.breakdown import Causes
from ersatz.sim.step.program import COMPUTE, HOST, INPUT, Op, Program, Work
from ersatz.sim.step.vector import Array, Happening

WAIT = "wait"  # phase of a piece during which nothing is done


class Piece(NamedTuple):
    """A kernel, a collective, a launch or a wait on one stream of a rank."""

    start_s: float
    seconds: float
    stream: int
    name: str
    category: str
    phase: str = ""  # forward, recompute, backward, optimizer; WAIT
    work: Work | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """A slot of the schedule on a rank's compute stream."""

    start_s: float
    end_s: float
    parts: Slot  # (phase, chunk, micro-batch)s; empty: what follows the last


@dataclass(slots=True)
class Writer:
    """Writes down one rank while its stage runs."""

    program: Program
    stage: int
    place: tuple[int, int, int, int]
    charges: list[list[Causes]] | None
    pieces: list[Piece] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    host: float = 0.0
    clock: float = 0.0  # until when the compute stream is written down
    begin: float = 0.0  # of the slot on the compute stream
    inside: list[Piece] = field(default_factory=list)  # work of the slot on the compute stream
    waits: list[tuple[float, str]] = field(default_factory=list)  # ends of its waits, by cause
    slot: int = -1
    tail: bool = False

    def at(self, times: Array | float) -> float:
        """Return the rank's entry of an array over the ranks."""
        if isinstance(times, float):
            return times
        return float(
            times[tuple(i if n > 1 else 0 for i, n in zip(self.place, times.shape, strict=True))]
        )

    def __call__(self, seen: Happening) -> None:
        """Write down one op."""
        op = seen.op
        if op is seen.block.ops[0]:
            self.close_slot()
            self.slot += 1
        end, device = self.at(seen.end), self.at(seen.device)
        issued, host = [], self.host
        for work in op.work:
            if work.launch_s:
                self.pieces.append(Piece(host, work.launch_s, HOST, f"launch {_name(op, work)}", "launch",
                                         work.phase, work))  # fmt: skip
            host += work.launch_s
            issued.append(host)
        self.host = max(host, end) if op.host_waits else host
        if op.stream == COMPUTE and not self.charges:
            self._name_wait(seen, end - device)
        into = self.inside if op.stream == COMPUTE else self.pieces
        into += _kernels(op, issued, max(self.at(seen.free), self._ready(seen)), end, device)

    def _ready(self, seen: Happening) -> float:
        """Return when what the op waits for is there."""
        found = 0.0
        for index in seen.op.after:
            other = seen.ends[index] if index >= 0 else seen.inputs[INPUT - index]
            found = found if other is None else max(found, self.at(other))
        return found

    def _name_wait(self, seen: Happening, start: float) -> None:
        """Note which dependency of an op was the last, as the ledger of L2 does."""
        free = self.at(seen.free)
        ready, cause = free, "bubble"
        for index in seen.op.after:
            other = seen.ends[index] if index >= 0 else seen.inputs[INPUT - index]
            if other is not None and self.at(other) > ready:
                ready = self.at(other)
                cause = seen.block.ops[index].work[-1].category if index >= 0 else "bubble"
        self.waits += [(ready, cause), (start, "straggler")]

    def close_slot(self) -> None:
        """Lay the slot's work onto the compute stream, and name what lies between."""
        if self.slot < 0 or not self.inside:
            return
        end = self.inside[-1].start_s + self.inside[-1].seconds
        names = self._names()
        for piece in self.inside:
            self._fill(piece.start_s, names)
            self.pieces.append(piece)
            self.clock = piece.start_s + piece.seconds
        order = self.program.schedule.orders[self.stage]
        parts = () if self.tail else order[self.slot]
        self.stretches.append(Stretch(self.begin, end, parts))
        self.inside, self.begin, self.waits = [], end, []

    def _names(self) -> Callable[[float, float], Iterator[tuple[float, str]]]:
        """Return what names a stretch of waiting: (seconds, cause)s that add up to it."""
        if self.charges is None:
            return self._by_dependency
        left = dict(self.charges[self.stage][-1 if self.tail else self.slot])
        for piece in self.inside:
            left[piece.category] = left.get(piece.category, 0.0) - piece.seconds
        queue = sorted(((c, s) for c, s in left.items() if s > 1e-13),
                       key=lambda item: (item[0] != "bubble", -item[1], item[0]))  # fmt: skip

        def named(start: float, seconds: float) -> Iterator[tuple[float, str]]:
            while queue and seconds > 0:
                cause, there = queue.pop(0)
                taken = min(there, seconds)
                seconds -= taken
                if there > taken:
                    queue.insert(0, (cause, there - taken))
                yield taken, cause
            if seconds > 1e-12:
                yield seconds, "launch"

        return named

    def _by_dependency(self, start: float, seconds: float) -> Iterator[tuple[float, str]]:
        end = start + seconds
        for until, cause in self.waits:
            if until > start:
                yield min(until, end) - start, cause
                start = min(until, end)
        if end - start > 1e-12:
            yield end - start, "launch"

    def _fill(
        self, until: float, names: Callable[[float, float], Iterator[tuple[float, str]]]
    ) -> None:
        if until - self.clock <= 1e-12:
            return
        for seconds, cause in names(self.clock, until - self.clock):
            self.pieces.append(Piece(self.clock, seconds, COMPUTE, f"wait: {cause}", cause, WAIT))
            self.clock += seconds
        self.clock = until

    def wait_until(self, time: float, cause: str) -> None:
        """Let the compute stream wait for one cause."""
        self.close_slot()
        if time - self.clock > 1e-12:
            self.pieces.append(
                Piece(self.clock, time - self.clock, COMPUTE, f"wait: {cause}", cause, WAIT)
            )
            self.clock = time

    def begin_tail(self, barrier: float) -> None:
        """Go on after the barrier at which all gradients are there."""
        self.host = self.clock = self.begin = barrier
        self.tail = True


def _name(op: Op, work: Work) -> str:
    return work.kernel.name if work.kernel else op.name


def _kernels(
    op: Op, issued: Sequence[float], ready: float, end: float, device: float
) -> list[Piece]:
    """Return the pieces of an op: kernel after kernel as the host issues them, the last ends with it."""
    if op.sync or len(op.work) == 1:
        return [Piece(end - device, device, op.stream, _name(op, op.work[0]), op.work[0].category,
                      op.work[0].phase, op.work[0])]  # fmt: skip
    scale = device / op.device_s if op.device_s else 1.0
    found, now = [], ready
    for work, there in zip(op.work, issued, strict=True):
        now = max(now, there)
        found.append(Piece(now, work.seconds * scale, op.stream, _name(op, work), work.category,
                           work.phase, work))  # fmt: skip
        now += work.seconds * scale
    late = end - now  # rounding, and what the max-plus summary of the op allows
    return [p._replace(start_s=p.start_s + late) for p in found] if abs(late) > 1e-12 else found
