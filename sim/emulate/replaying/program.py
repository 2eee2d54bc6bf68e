"""From the traces of an emulation to the program that the step engines run.

The last whole step of a rank becomes one block: kernels that follow one another on a stream are one op,
a collective is an op of its own, and the host's waits are ops without work. The engine has six streams;
where a script uses more, those that carry the same kind of collective share one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ersatz.sim.emulate.clock import HOST as HOST_STREAM
from ersatz.sim.emulate.clock import Entry
from ersatz.sim.emulate.trace import Task, Trace
from ersatz.sim.plan.schedules import Place, Schedule, Visit
from ersatz.sim.step.program import (
    COMPUTE,
    EXPERT,
    GATHER,
    HOST,
    PIPE,
    REDUCE,
    Block,
    Op,
    Program,
    Work,
    make_op,
    ticks,
)

STREAM_OF = {"all_gather": GATHER, "reduce_scatter": REDUCE, "all_reduce": REDUCE, "all_to_all": EXPERT,
             "broadcast": GATHER, "send": PIPE}  # fmt: skip
BODY = (("B", 0, ""),)


def program_of(trace: Trace) -> Program:
    """Return one step of a rank whose peers all do the same."""
    entries = trace.last_step()
    block = Block(tuple(ops_of(entries, trace.table, streams_of(trace, entries))))
    schedule = Schedule("script", 1, (), ((Place(0, 0),),), 1, (Visit(0, BODY, (-1,), (-1,)),))
    return Program(_stages(schedule), (1, 1, 1, 1), {(0, BODY): block}, (Block(()),))


def _stages(schedule: Schedule) -> Schedule:
    """Return the schedule with an order for its one stage, which is the script's own."""
    return Schedule(schedule.name, 1, (((),),), schedule.places, 1, schedule.walk)


def streams_of(trace: Trace, entries: Sequence[Entry]) -> dict[int, int]:
    """Return the engine's stream for each stream of a trace."""
    carried: dict[int, Counter[str]] = {}
    for entry in entries:
        if entry.work >= 0 and entry.stream not in (0, HOST_STREAM):
            counts = carried.setdefault(entry.stream, Counter())
            counts[trace.table[entry.work].collective] += 1
    found = {HOST_STREAM: HOST, 0: COMPUTE}
    for stream, counts in carried.items():
        free = [s for s in (EXPERT, PIPE, GATHER, REDUCE) if s not in found.values()]
        wanted = next((STREAM_OF[k] for k, _ in counts.most_common() if k in STREAM_OF), EXPERT)
        found[stream] = wanted if wanted in free or not free else free[0]
    return found


def ops_of(entries: Sequence[Entry], table: Sequence[Task], streams: dict[int, int]) -> list[Op]:
    """Return the ops of a step; what waits for an entry waits for the op that ends with it."""
    awaited = {i for entry in entries for i in entry.after}
    ops: list[Op] = []
    op_of: dict[int, int] = {}
    run: list[Work] = []  # kernels that are collected
    held: list[int] = []  # their entries
    after: tuple[int, ...] = ()
    where = COMPUTE

    def close() -> None:
        nonlocal run, held
        if held:
            ops.append(make_op("kernels", where, run, after=after))
            op_of.update(dict.fromkeys(held, len(ops) - 1))
            run, held = [], []

    for index, entry in enumerate(entries):
        stream = streams.get(entry.stream, COMPUTE)
        task = table[entry.work] if entry.work >= 0 else None
        kernel = task is not None and not task.collective
        if not kernel or stream != where or entry.after:
            close()
        if kernel:
            assert task is not None
            if not held:
                where, after = stream, tuple(sorted({op_of[i] for i in entry.after}))
            run.append(_work(entry, task))
            held.append(index)
            if index in awaited:
                close()
            continue
        ops.append(_single(entry, task, stream, tuple(sorted({op_of[i] for i in entry.after}))))
        op_of[index] = len(ops) - 1
    close()
    return ops


def _work(entry: Entry, task: Task) -> Work:
    return Work(ticks(entry.host_s), ticks(task.seconds), task.category, task.kernel)


def _single(entry: Entry, task: Task | None, stream: int, after: tuple[int, ...]) -> Op:
    """Return a collective, or what the host does."""
    if task is not None:
        return make_op(task.collective, stream, [_work(entry, task)], after=after, scales=False)
    work = [Work(ticks(entry.host_s), 0.0, "host")] if entry.host_s else []
    return make_op(
        "wait" if entry.waits else "host", HOST, work, after=after, host_waits=entry.waits
    )
