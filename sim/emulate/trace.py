"""The trace of an emulated rank: what it ran in the order of its host, and what it held in memory.

    table       each distinct piece of work: a kernel, a collective, a message
    entries     (stream, number in the table, entries waited for, host seconds, does the host wait)
    marks       entries after which a step of the optimizer was over

Only whole steps are kept; `entries` of an earlier time are dropped, and waits for them with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ersatz.device_models.kernels.kernel import Kernel
from ersatz.device_models.text.whole import write_whole
from ersatz.sim.emulate.clock import Clock, Entry

CONTENTION = "contention"  # what collectives take from the kernels beside them
UNCOMPILED = (  # stands first in a report
    "TORCH.COMPILE COULD NOT TRACE A FUNCTION: its operators are not fused and its activations not chosen, so"
    " that time and memory are above those of the compiled script"
)


class Ranks(NamedTuple):
    """Members of a communicator: `size` ranks from `start`, `stride` apart."""

    start: int
    stride: int
    size: int
    irregular: tuple[int, ...] = ()  # where they do not stand so


@dataclass(frozen=True, slots=True)
class Task:
    """One distinct piece of work of a rank."""

    name: str  # the operator
    category: str
    seconds: float
    kernel: Kernel | None = None
    collective: str = ""  # kind
    nbytes: float = 0.0  # that it moves
    ranks: Ranks | None = None
    peer: int = -1  # of a message
    waited: float = 0.0  # seconds of it in which other ranks were not there yet
    known: bool = True  # there is a rule for its time; else it is taken by its bytes
    signature: str = ""  # of an operator of PyTorch, as `sim/hil/device/operators.py` tells it
    tag: int = 0  # of a message that travels on its sender's time alone, numbered from 1

    @property
    def talks(self) -> bool:
        """Whether it is a collective that slows kernels beside it."""
        return bool(self.collective) and self.peer < 0


@dataclass(frozen=True, slots=True)
class Trace:
    """What one rank did."""

    rank: int
    table: tuple[Task, ...]
    entries: tuple[Entry, ...]
    marks: tuple[int, ...]  # ends of whole steps among `entries`, the first is where they begin
    step_s: tuple[float, ...]  # of each step, by the live clock
    streams: Mapping[int, str]
    memory: Mapping[str, float]
    facts: Mapping[str, Any]  # counts of dispatches, reads, policies, what was left out

    def last_step(self) -> tuple[Entry, ...]:
        """Return the entries of the last whole step, waits counted from its own first."""
        begin, end = self.marks[-2], self.marks[-1]
        return tuple(
            e._replace(after=tuple(i - begin for i in e.after if i >= begin))
            for e in self.entries[begin:end]
        )


@dataclass(slots=True)
class Recorder:
    """Collects the work of a rank while it runs."""

    clock: Clock = field(default_factory=Clock)
    table: list[Task] = field(default_factory=list)
    numbers: dict[object, int] = field(
        default_factory=dict
    )  # of distinct work, by what makes it so
    marks: list[int] = field(default_factory=list)
    drained: list[float] = field(default_factory=list)

    def number(self, key: object, task: Task) -> int:
        """Return the number of a piece of work, new or known."""
        found = self.numbers.get(key)
        if found is None:
            found = self.numbers[key] = len(self.table)
            self.table.append(task)
        return found

    def end_step(self) -> None:
        """Note that a step is over."""
        self.marks.append(len(self.clock.entries))
        self.drained.append(self.clock.drained)


def save(trace: Trace, path: Path) -> None:
    """Write a trace, whole or not at all."""
    data = asdict(trace)
    write_whole(path, json.dumps(data, separators=(",", ":")))


def load(path: Path) -> Trace:
    """Read what `save` wrote."""
    return trace_of(json.loads(path.read_text("utf-8")))


def trace_of(data: Mapping[str, Any]) -> Trace:
    """Return a trace from plain data."""
    return Trace(
        data["rank"], tuple(map(_task, data["table"])),
        tuple(Entry(e[0], e[1], tuple(e[2]), e[3], e[4]) for e in data["entries"]),
        tuple(data["marks"]), tuple(data["step_s"]),
        {int(k): v for k, v in data["streams"].items()}, data["memory"], data["facts"],
    )  # fmt: skip


def _task(row: Mapping[str, Any]) -> Task:
    kernel, ranks = row["kernel"], row["ranks"]
    return Task(**{
        **row,
        "kernel": Kernel(**{**kernel, "versions": tuple(kernel["versions"])}) if kernel else None,
        "ranks": Ranks(ranks[0], ranks[1], ranks[2], tuple(ranks[3])) if ranks else None,
    })  # fmt: skip


def ranks_of(members: Sequence[int]) -> Ranks:
    """Return how the members of a group stand."""
    start, size = members[0], len(members)
    stride = members[1] - start if size > 1 else 1
    even = all(b - a == stride for a, b in pairwise(members))
    return Ranks(start, max(stride, 1), size, () if even and stride > 0 else tuple(members))
