"""What two profilers of PyTorch have in common: events of Chrome's trace format, steps, ranks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ersatz.device_models.kernels.kernel import Kernel
from ersatz.sim.emulate.foreign.names import SIZES, cause_of, collective_of
from ersatz.sim.emulate.foreign.step import kernel_like
from ersatz.sim.emulate.trace import Ranks, Task

STEP = re.compile(r"ProfilerStep#(\d+)")
Args = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One event that lasts; times in seconds."""

    name: str
    cat: str
    pid: str
    tid: str
    start: float
    end: float
    args: Args


@dataclass(frozen=True, slots=True)
class Window:
    """A step of the host: from its begin to its end."""

    number: int
    start: float
    end: float


def spans_of(rows: Iterable[Any]) -> list[Event]:
    """Return the events that last, in order; raises `ValueError` for times that are none."""
    found = []
    for row in rows:
        if not isinstance(row, dict) or row.get("ph") != "X" or "ts" not in row:
            continue
        start, seconds = float(row["ts"]) / 1e6, float(row.get("dur") or 0.0) / 1e6
        if not (abs(start) < 1e12 and 0 <= seconds < 1e9):
            raise ValueError(
                f"{str(row.get('name'))[:40]!r} at {row['ts']!r} for {row.get('dur')!r}"
            )
        args = row.get("args")
        found.append(Event(str(row.get("name", "")), str(row.get("cat", "")), str(row.get("pid", "")),
                           str(row.get("tid", "")), start, start + seconds,
                           args if isinstance(args, dict) else {}))  # fmt: skip
    return sorted(found, key=lambda e: (e.start, -e.end))


def names_of(rows: Iterable[Any], what: str) -> dict[tuple[str, str], str]:
    """Return the names of processes or threads (`what`: process_name, thread_name) by (pid, tid)."""
    found = {}
    for row in rows:
        if isinstance(row, dict) and row.get("ph") == "M" and row.get("name") == what:
            tid = str(row.get("tid", "")) if what == "thread_name" else ""
            args = row.get("args")
            found[str(row.get("pid", "")), tid] = str(
                (args if isinstance(args, dict) else {}).get("name", "")
            )
    return found


def last_step(events: Sequence[Event]) -> Window | None:
    """Return the last step that the profiler marked; None where it marked none."""
    steps = {}
    for event in events:
        if found := STEP.search(event.name):
            number = int(found[1])
            if "gpu" not in event.cat:
                steps[number] = Window(number, event.start, event.end)
    return steps[max(steps)] if steps else None


def number_of(args: Args, *names: str) -> float:
    """Return the first number among the arguments of those names; 0 where there is none."""
    for name in names:
        try:
            value = float(args[name])
        except (KeyError, TypeError, ValueError):
            continue
        if 0 <= value < 1e18:
            return value
    return 0.0


@dataclass(slots=True)
class Namer:
    """Makes tasks of kernels and collectives, and counts what had to be guessed."""

    sizes: Mapping[int, str]  # parallelisms by the members of their groups
    bandwidth: float = 0.0  # bytes/s of the device it was measured on; 0: not known
    guessed_s: float = 0.0  # of kernels without shapes
    unsized: int = 0  # collectives of which nobody says how much or among whom
    taken: Counter[str] = field(default_factory=Counter)  # collectives by what is assumed of them

    def kernel(self, name: str, category: str, seconds: float, known: Kernel | None) -> Task:
        """Return a kernel; without shapes it moves what the device could move in its time."""
        if known is None:
            self.guessed_s += seconds
            known = kernel_like(name[:120], 0.0, seconds * self.bandwidth, category)
            return Task(name[:120], category, seconds, known, known=False)
        return Task(name[:120], category, seconds, known)

    def collective(
        self, kind: str, seconds: float, nbytes: float, group: Ranks | None, size: int, words: str
    ) -> Task:
        """Return a collective among ranks that are known, or only how many they are."""
        if group is None and size > 1:
            self.taken["say how many ranks talk, not which: taken as neighbours"] += 1
            group = Ranks(0, 1, size)
        if group is None or not nbytes:
            self.unsized += 1
        done = {"recv": "send", "send": "send"}.get(kind, kind)
        return Task(kind, cause_of(kind, words, size, self.sizes), seconds, None, done, nbytes,
                    group or Ranks(0, 1, 1))  # fmt: skip

    def kind(self, *texts: str) -> str:
        """Return the kind of a collective that the first of some names tells; without, a message."""
        for text in texts:
            if found := collective_of(text):
                return found
        self.taken["have a name that tells no kind: taken as messages between two ranks"] += 1
        return "send"

    def width(self, dtype: str) -> int:
        """Return the bytes of an element; 2 where its type is not known."""
        if dtype.lower() not in SIZES:
            self.taken["do not say the type of what they send: taken as 16 bits each"] += 1
        return SIZES.get(dtype.lower(), 2)

    def said(self) -> list[str]:
        """Return what was assumed, with what it is worth."""
        found = []
        if self.guessed_s:
            found.append(
                f"kernels of {1e3 * self.guessed_s:.4g} ms a step have no shapes: elsewhere they go by the"
                " memory's bandwidth, which is wrong for what is bound by FLOP/s"
            )
        if self.unsized:
            found.append(
                f"{self.unsized:,} collectives do not say how much they send, or among whom:"
                " they take as long elsewhere"
            )
        found += [f"{count:,} collectives {words}" for words, count in self.taken.items()]
        return found
