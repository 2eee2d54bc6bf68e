"""Whether what a file tells of ranks can be a recording: kinds of values, ranges, what points to what.

A file that was changed, or that another tool wrote, is refused by the place of its first fault, so that
nothing behind it has to doubt a trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.kernels.kernel import Kernel
from ersatz.device_models.text.typed import typed
from ersatz.sim.emulate.clock import HOST
from ersatz.sim.emulate.replaying.chakra import COLLECTIVES
from ersatz.sim.emulate.trace import Ranks, Trace

MOST = 1e30  # of any count of bytes, FLOPs or seconds
MOST_RANKS = 10**9
LEAST = 1e-9  # of a product's sizes, which are means over groups, and of a kernel's slowdown
KINDS = frozenset({"", "send", *COLLECTIVES})
Amount = Annotated[float, Field(ge=0, le=MOST)]


class Held(BaseModel):
    """What a rank held of its device's memory, in bytes."""

    peak_allocated: Amount
    peak_reserved: Amount
    ooms: Amount


class Facts(BaseModel):
    """What a report says of a trace beside its work."""

    model_config = ConfigDict(strict=True)  # they stay as told: a number in quotes is none
    policies: dict[str, int]
    reads: dict[str, int]
    notes: list[str]
    steps: Annotated[int, Field(ge=0, le=10**12)]
    cpu_s: Amount
    rss_bytes: Amount
    surface_assumed: str
    unknown: dict[str, Any]


def believed(data: Any, world: Any) -> tuple[Trace, ...]:
    """Return the traces that plain data tells of a job of `world` ranks.

    Raises `ValueError` with the first fault, and where it is.
    """
    _check_world(world)
    traces = typed(tuple[Trace, ...], data)
    for trace in traces:
        typed(Held, trace.memory)
        typed(Facts, trace.facts)
    if not traces:
        raise ValueError("no ranks")
    numbers = [trace.rank for trace in traces]
    if len(set(numbers)) < len(numbers) or not all(0 <= rank < world for rank in numbers):
        raise ValueError(f"ranks {numbers[:9]}: expected different ones below {world:,}")
    for trace in traces:
        check(trace, world)
    return traces


def believed_kernel(data: Any) -> Kernel:
    """Return the kernel that plain data tells; raises `ValueError` where it is none."""
    found = typed(Kernel, data)
    if not is_kernel(found):
        raise ValueError(f"kernel {found.name[:40]!r}: expected amounts that are not negative")
    return found


def check(trace: Trace, world: int) -> None:
    """Raise `ValueError` with the first thing of a trace that cannot be in a job of `world` ranks."""
    _check_world(world)
    if fault := next(_faults(trace, world), ""):
        raise ValueError(f"rank {trace.rank}: {fault}")


def _check_world(world: Any) -> None:
    if type(world) is not int or not 1 <= world <= MOST_RANKS:
        raise ValueError(f"world {str(world)[:40]}: expected a number of ranks")


def _faults(trace: Trace, world: int) -> Iterator[str]:
    marks, count = trace.marks, len(trace.entries)
    if len(marks) < 2 or sorted(marks) != list(marks) or marks[0] != 0 or marks[-1] != count:
        yield "marks"
    if not trace.step_s or not all(0 <= seconds <= MOST for seconds in trace.step_s):
        yield "step_s"
    for i, entry in enumerate(trace.entries):
        if not -1 <= entry.work < len(trace.table) or any(not 0 <= j < i for j in entry.after):
            yield f"entry {i}"
        if not 0 <= entry.host_s <= MOST:
            yield f"host of entry {i}"
        if entry.stream != HOST and entry.stream not in trace.streams:
            yield f"stream of entry {i}"
    for i, task in enumerate(trace.table):
        if not 0 <= task.waited <= task.seconds <= MOST or not 0 <= task.nbytes <= MOST:
            yield f"seconds or bytes of work {i}"
        if task.collective not in KINDS or not -1 <= task.peer < world:
            yield f"collective of work {i}"
        if bool(task.collective) != (task.ranks is not None):
            yield f"ranks of work {i}: a collective needs them, and nothing else does"
        if task.ranks is not None and not _is_group(task.ranks, world):
            yield f"ranks of work {i}: expected a group below {world:,}"
        if task.kernel is not None and not is_kernel(task.kernel):
            yield f"kernel of work {i}"


def _is_group(ranks: Ranks, world: int) -> bool:
    start, stride, size, irregular = ranks
    if irregular:
        return len(irregular) == size and all(0 <= rank < world for rank in irregular)
    return start >= 0 and stride >= 1 and size >= 1 and start + stride * (size - 1) < world


def is_kernel(kernel: Kernel) -> bool:
    """Tell whether a kernel is one that can run: amounts that can be, a product of something."""
    numbers = [getattr(kernel, f.name) for f in fields(Kernel)]
    amounts: Sequence[float] = [n for n in numbers if isinstance(n, int | float)]
    return (
        all(0 <= amount <= MOST for amount in amounts)
        and kernel.dtype in DTYPE_BYTES
        and kernel.groups >= 1
        and (kernel.kind != "matmul" or min(kernel.m, kernel.n, kernel.k) >= LEAST)
        and kernel.slowdown >= LEAST
    )
