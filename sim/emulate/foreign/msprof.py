"""Traces of Ascend's profiler (`trace_view.json` of torch_npu, `msprof_*.json`) as recorded steps.

Read are the last step that was marked, or all of it: tasks of the device (process "Ascend Hardware"), by
stream; collectives as the process "HCCL" or "Communication" has them, with their bytes. Waits of a stream for
another are no work. Shapes stand in other files (kernel_details.csv), so kernels are known by name and time.
Where the tasks of a collective run on the hardware's streams, too, they are counted once, as the collective.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ersatz.sim.emulate.foreign.events import Namer, last_step, names_of, number_of, spans_of
from ersatz.sim.emulate.foreign.names import TALKS, WAITS, category_of
from ersatz.sim.emulate.foreign.step import Step
from ersatz.sim.emulate.foreign.timeline import Done, step_of

HARDWARE = re.compile(r"ascend hardware|^npu", re.I)
TALK = re.compile(r"hccl|^communication", re.I)
PARTS = re.compile(r"^(plane|aicpu|memcpy|reduce_inline|notify|rdma|sdma)", re.I)  # of a collective


def is_msprof(rows: Sequence[Any]) -> bool:
    """Tell whether events are those of Ascend's profiler."""
    return any(HARDWARE.search(name) for name in names_of(rows, "process_name").values())


def read_msprof(rows: Sequence[Any], sizes: Mapping[int, str], bandwidth: float) -> Step:
    """Return a step; raises `ValueError` for a trace in which no task ran."""
    processes = names_of(rows, "process_name")
    threads = names_of(rows, "thread_name")
    events = spans_of(rows)
    window = last_step(events)
    namer = Namer(sizes, bandwidth)
    work: list[Done] = []
    for event in events:
        process, thread = (
            processes.get((event.pid, ""), ""),
            threads.get((event.pid, event.tid), event.tid),
        )
        if window and not window.start <= event.start < window.end:
            continue
        seconds = event.end - event.start
        kind = str(event.args.get("Task Type", ""))
        if TALK.search(process) and TALKS.search(event.name) and not PARTS.search(thread):
            done = namer.kind(event.name)
            nbytes = number_of(event.args, "size(Byte)", "Size(Byte)", "data_size")
            if not nbytes and (count := number_of(event.args, "count")):
                nbytes = count * namer.width("")
            size = int(number_of(event.args, "rank_size", "Group size"))
            task = namer.collective(done, seconds, nbytes, None, size, thread)
            work.append(Done(event.start, event.end, f"hccl {thread}", task, event.start))
        elif HARDWARE.search(process) and seconds > 0:
            if (
                WAITS.search(event.name)
                or WAITS.search(kind)
                or TALKS.search(event.name)
                or PARTS.search(event.name)
            ):
                continue
            task = namer.kernel(event.name, category_of(event.name), seconds, None)
            stream = str(event.args.get("Physic Stream Id", event.args.get("Stream Id", thread)))
            work.append(Done(event.start, event.end, stream, task, event.start))
    begin = window.start if window else min((d.start for d in work), default=0.0)
    end = window.end if window else max((d.end for d in work), default=0.0)
    moved = [
        Done(d.start - begin, d.end - begin, d.stream, d.task, d.launched - begin) for d in work
    ]
    world = max((d.task.ranks.size for d in work if d.task.ranks), default=1)
    named = [r["args"] for r in rows if isinstance(r, dict) and isinstance(r.get("args"), dict)]
    rank = next((int(number_of(args, "rank_id")) for args in named if "rank_id" in args), 0)
    said = [
        *namer.said(),
        "a trace of Ascend does not say which call launched a task: hosts keep up",
    ]
    return step_of("msprof", rank, max(world, rank + 1), moved, (), end - begin, said)
