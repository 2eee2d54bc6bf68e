"""The traces of an emulation for others: a timeline that Perfetto and chrome://tracing open."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ersatz.device_models.calibration.file import kernel_row
from ersatz.sim.emulate.clock import HOST, Clock
from ersatz.sim.emulate.trace import Trace

US = 1e6


def perfetto_text(traces: Sequence[Trace], script: str = "") -> str:
    """Return the last whole step of each rank as a timeline: a process per rank, a track per stream.

    Beside it stand the distinct operators of the first rank, which `ersatz calibrate --trace` times.
    """
    data = {
        "traceEvents": [event for trace in traces for event in _events(trace)],
        "displayTimeUnit": "ms",
        "otherData": {"script": script, "operators": _operators(traces[0])},
    }
    return json.dumps(data, separators=(",", ":")) + "\n"


def _operators(trace: Trace) -> list[dict[str, Any]]:
    """Return the distinct operators of the last step in its order, with how often they run."""
    tasks = [trace.table[e.work] for e in trace.last_step() if e.work >= 0]
    counts = Counter(task.signature for task in tasks if task.kernel and task.signature)
    kernels = {task.signature: task.kernel for task in tasks if task.kernel}
    return [{"signature": text, "count": count, "kernel": kernel_row(kernels[text])}
            for text, count in counts.items()]  # fmt: skip


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
