"""The traces of an emulation for others: a timeline that Perfetto and chrome://tracing open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ersatz.sim.emulate.clock import HOST, Clock
from ersatz.sim.emulate.trace import Trace

US = 1e6


def perfetto_text(traces: Sequence[Trace]) -> str:
    """Return the last whole step of each rank as a timeline: a process per rank, a track per stream."""
    events = [event for trace in traces for event in _events(trace)]
    return (
        json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, separators=(",", ":")) + "\n"
    )


def _events(trace: Trace) -> Iterator[dict[str, Any]]:
    yield {
        "ph": "M",
        "name": "process_name",
        "pid": trace.rank,
        "args": {"name": f"rank {trace.rank}"},
    }
    entries = trace.last_step()
    streams = sorted({e.stream for e in entries})
    for stream in streams:
        name = "host" if stream == HOST else trace.streams[stream]
        yield {
            "ph": "M",
            "name": "thread_name",
            "pid": trace.rank,
            "tid": stream + 1,
            "args": {"name": name},
        }
    clock = Clock()
    for entry in entries:
        task = trace.table[entry.work] if entry.work >= 0 else None
        seconds = task.seconds if task else 0.0
        clock.again(entry, seconds)
        if task is None:
            continue
        args: dict[str, Any] = {"category": task.category}
        if task.kernel:
            args |= {
                "flop": task.kernel.flop,
                "bytes": task.kernel.nbytes,
                "dtype": task.kernel.dtype,
            }
        if task.ranks:
            args |= {
                "bytes": task.nbytes,
                "ranks": list(task.ranks[:3]),
                "waited_us": US * task.waited,
            }
        yield {"ph": "X", "name": task.name, "pid": trace.rank, "tid": entry.stream + 1,
               "ts": US * (clock.ends[-1] - seconds), "dur": US * seconds, "args": args}  # fmt: skip
