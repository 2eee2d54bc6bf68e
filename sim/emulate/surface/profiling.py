"""`torch.profiler` on a virtual device: it records the simulated timeline, not the emulator's own work.

PyTorch's profiler would time Python on this machine, and ask a driver for events that is not there. A
script keeps its schedule, its handlers and its files; tables and traces are those of the device.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import Any

import torch
import torch.autograd.profiler
import torch.profiler.profiler

from ersatz.sim.emulate.clock import HOST
from ersatz.sim.emulate.surface.files import outside
from ersatz.sim.emulate.virtual.machine import Machine

US = 1e6


def install(machine: Machine) -> None:
    """Let both of PyTorch's profilers look at the clock of the device."""
    begun = [0]

    def start(self: Any, *args: Any) -> None:
        begun[0] = len(machine.clock.entries)
        machine.note(
            "torch.profiler records the simulated timeline of the device; of the host, nothing"
        )

    def nothing(self: Any, *args: Any, **kwargs: Any) -> None:
        return None

    def export(self: Any, path: str, *args: Any, **kwargs: Any) -> None:
        if outside(path):
            machine.note(f"a profile outside the working folder was not written: {path}")
            return
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"traceEvents": _events(machine, begun[0])}, file)

    def averages(self: Any, *args: Any, **kwargs: Any) -> Averages:
        return Averages(machine, begun[0])

    def enter(self: Any) -> Any:
        start(self)
        return self

    kept: dict[str, Any] = {
        "prepare_trace": nothing, "start_trace": start, "stop_trace": nothing, "export_chrome_trace": export,
        "key_averages": averages, "events": averages, "export_stacks": nothing, "add_metadata": nothing,
        "add_metadata_json": nothing, "preset_metadata_json": nothing, "export_memory_timeline": nothing,
        "toggle_collection_dynamic": nothing, "_memory_profile": nothing,
    }  # fmt: skip
    for name, function in kept.items():
        setattr(torch.profiler.profiler._KinetoProfile, name, function)
    older = torch.autograd.profiler.profile
    for name, function in (("__enter__", enter), ("__exit__", nothing), ("key_averages", averages),
                           ("export_chrome_trace", export), ("table", lambda self, **k: "")):  # fmt: skip
        setattr(older, name, function)


def _rows(machine: Machine, begin: int) -> list[tuple[int, str, float, float]]:
    """Return stream, name, start and seconds of what has run since."""
    clock, table = machine.clock, machine.recorder.table
    rows = []
    for entry, end in zip(clock.entries[begin:], clock.ends[begin:], strict=True):
        if entry.work >= 0 and entry.stream != HOST:
            task = table[entry.work]
            rows.append((entry.stream, task.name, end - task.seconds, task.seconds))
    return rows


def _events(machine: Machine, begin: int) -> list[dict[str, Any]]:
    return [
        {"ph": "X", "cat": "kernel", "name": name, "pid": os.environ.get("RANK", "0"), "tid": stream,
         "ts": US * start, "dur": US * seconds}
        for stream, name, start, seconds in _rows(machine, begin)
    ]  # fmt: skip


class Averages(list[Any]):
    """What `key_averages()` gives: nothing of the host, and a table of the device."""

    def __init__(self, machine: Machine, begin: int) -> None:
        super().__init__()
        self.seconds: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        for _, name, _, seconds in _rows(machine, begin):
            self.seconds[name] += seconds  # type: ignore[assignment]
            self.counts[name] += 1

    def table(self, sort_by: Any = None, row_limit: int = 100, **kwargs: Any) -> str:
        """Return operators by their simulated time."""
        rows = sorted(self.seconds.items(), key=lambda kv: (-kv[1], kv[0]))[:row_limit]
        lines = [f"{name:50} {US * s:14,.1f} us {self.counts[name]:8,} calls" for name, s in rows]
        return "\n".join(["of the virtual device, simulated", *lines])

    def total_average(self) -> Averages:
        """Return itself."""
        return self
