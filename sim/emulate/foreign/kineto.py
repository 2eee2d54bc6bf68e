"""Traces of PyTorch's profiler (Kineto) as recorded steps: CUDA and ROCm, or a CPU.

Read are the last step that the profiler marked, or all of it: kernels and copies of the device, by stream;
which call of the host launched them (`correlation`); which operator that was for (`External id`) and its
shapes; of collectives the kind, elements, group and its name; and where the host waited. Without a device the
operators that contain no other are the kernels.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from ersatz.sim.emulate.foreign.events import (
    Args,
    Event,
    Namer,
    Window,
    last_step,
    number_of,
    spans_of,
)
from ersatz.sim.emulate.foreign.names import TALKS, category_of
from ersatz.sim.emulate.foreign.shapes import kernel_of
from ersatz.sim.emulate.foreign.step import Step
from ersatz.sim.emulate.foreign.timeline import Done, Pause, step_of
from ersatz.sim.emulate.trace import Ranks, Task, ranks_of

DEVICE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
HOST_CALLS = frozenset(
    {"cuda_runtime", "cuda_driver", "hip_runtime", "privateuse1_runtime", "runtime"}
)


def read_kineto(data: Mapping[str, Any], sizes: Mapping[int, str], bandwidth: float) -> Step:
    """Return a step; raises `ValueError` for a trace in which no kernel ran."""
    events = spans_of(data["traceEvents"])
    about = data.get("distributedInfo")
    about = about if isinstance(about, dict) else {}
    namer = Namer(sizes, bandwidth)
    operators = {
        e.args["External id"]: e for e in events if e.cat == "cpu_op" and "External id" in e.args
    }
    calls = {
        e.args["correlation"]: e for e in events if e.cat in HOST_CALLS and "correlation" in e.args
    }
    window = last_step(events)
    on_device = [e for e in events if e.cat in DEVICE]
    if on_device:
        work = _device_work(on_device, window, calls, operators, namer)
        pauses = [
            Pause(e.start, e.end) for e in events if e.cat in HOST_CALLS and "Synchronize" in e.name
        ]
    else:
        work, pauses = _host_work(events, window, namer), []
    begin = window.start if window else min((d.launched for d in work), default=0.0)
    end = window.end if window else max((d.end for d in work), default=0.0)
    inside = [p for p in pauses if begin <= p.start < end]
    rank = int(number_of(about, "rank"))
    world = max(
        int(number_of(about, "world_size")), rank + 1, *(_last(d.task) + 1 for d in work), 1
    )
    pauses = [Pause(p.start - begin, p.end - begin) for p in inside]
    moved = [_from(d, begin) for d in work]
    step = step_of("Kineto", rank, world, moved, pauses, end - begin, namer.said())
    device = data.get("deviceProperties")
    name = str(device[0].get("name", "")) if isinstance(device, list) and device else ""
    return Step(step.format, step.trace, step.world, step.measured_s, step.said, step.causes, name)


def _from(done: Done, begin: float) -> Done:
    return Done(
        done.start - begin,
        done.end - begin,
        done.stream,
        done.task,
        done.launched - begin,
    )


def _last(task: Task) -> int:
    group = task.ranks
    if group is None:
        return 0
    return (
        max(group.irregular) if group.irregular else group.start + group.stride * (group.size - 1)
    )


def _device_work(
    events: Sequence[Event], window: Window | None, calls: Mapping[Any, Event],
    operators: Mapping[Any, Event], namer: Namer,
) -> list[Done]:  # fmt: skip
    """Return what the device did for a step: what was launched in it, wherever that ran."""
    found = []
    for event in events:
        call = calls.get(event.args.get("correlation"))
        launched = call.end if call else event.start
        if window and not window.start <= (call.start if call else event.start) < window.end:
            continue
        operator = operators.get(event.args.get("External id"))
        task = _task(event, operator, namer)
        stream = f"{event.args.get('device', '')}/{event.args.get('stream', event.tid)}"
        found.append(Done(event.start, event.end, stream, task, min(launched, event.start)))
    return found


def _host_work(events: Sequence[Event], window: Window | None, namer: Namer) -> list[Done]:
    """Return the operators of a CPU that contain no other, by thread."""
    found: list[Done] = []
    open_: dict[str, list[Event]] = {}
    parents = set()
    operators = [
        e
        for e in events
        if e.cat == "cpu_op" and (not window or window.start <= e.start < window.end)
    ]
    for event in operators:
        stack = open_.setdefault(event.tid, [])
        while stack and stack[-1].end <= event.start:
            stack.pop()
        if stack:
            parents.add(id(stack[-1]))
        stack.append(event)
    for event in operators:
        if id(event) not in parents and event.end > event.start:
            task = _task(event, event, namer)
            found.append(Done(event.start, event.end, event.tid, task, event.start))
    return found


def _task(event: Event, operator: Event | None, namer: Namer) -> Task:
    seconds = event.end - event.start
    if TALKS.search(event.name) and not event.name.startswith("aten::"):
        said: Args = {**(operator.args if operator else {}), **event.args}
        kind = namer.kind(str(said.get("Collective name", "")), event.name)
        group, size = _group(said)
        words = str(said.get("Process Group Description") or said.get("Process Group Name") or "")
        return namer.collective(kind, seconds, _bytes(kind, said, size, namer), group, size, words)
    if event.cat in ("gpu_memcpy", "gpu_memset"):
        nbytes = number_of(event.args, "bytes")
        inside = (
            "DtoD" in event.name or "Device -> Device" in event.name or event.cat == "gpu_memset"
        )
        known = (
            kernel_of("copy", [[int(nbytes) // 2]], ["signed char"]) if inside and nbytes else None
        )
        if known is None and nbytes:  # between host and device
            return Task(event.name[:120], "copy", seconds, nbytes=nbytes)
        return namer.kernel(event.name, "elementwise", seconds, known)
    known = None
    if operator is not None:
        known = kernel_of(
            operator.name, operator.args.get("Input Dims"), operator.args.get("Input type")
        )
    category = category_of(event.name)
    if known is not None and (category == "elementwise" or known.kind != "memory"):
        category = (
            known.category
            if known.category != "elementwise"
            else category_of(operator.name if operator else "")
        )
    if category == "experts" and known is not None and known.kind == "memory":
        known = None  # products of groups, whose rows a trace does not tell
    return namer.kernel(event.name, category, seconds, known)


def _group(args: Args) -> tuple[Ranks | None, int]:
    """Return the ranks of a collective, and how many they are."""
    size = int(number_of(args, "Group size"))
    text = args.get("Process Group Ranks")
    try:
        ranks = [int(r) for r in (ast.literal_eval(text) if isinstance(text, str) else text or ())]
    except (
        ValueError,
        SyntaxError,
        TypeError,
        RecursionError,
        MemoryError,
    ):  # Kineto cuts long lists: "[0, 1, ...]"
        ranks = []
    if len(ranks) > 1 and len(ranks) == (size or len(ranks)) and min(ranks) >= 0:
        return ranks_of(ranks), len(ranks)
    return None, size


def _bytes(kind: str, args: Args, size: int, namer: Namer) -> float:
    """Return the bytes of a collective as its kind counts them (`collective_time`)."""
    given, made = number_of(args, "In msg nelems"), number_of(args, "Out msg nelems")
    each = namer.width(str(args.get("dtype", ""))) if given or made else 0
    if kind == "all_gather":
        return each * max(made, given * max(size, 1))
    return each * max(given, made)
