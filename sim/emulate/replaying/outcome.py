"""What the traces of an emulation say: the step, where it goes, memory, collectives, what was assumed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ersatz.device_models.catalog.device import Device, Node
from ersatz.device_models.kernels.kernel import utilisation_peak
from ersatz.device_models.text.units import format_si
from ersatz.sim.emulate.records import EmulateResult, GroupRow, RankRow
from ersatz.sim.emulate.replaying.interval import width_of
from ersatz.sim.emulate.replaying.program import program_of
from ersatz.sim.emulate.trace import UNCOMPILED, Task, Trace
from ersatz.sim.emulate.virtual_device import host_defaults, shown_as
from ersatz.sim.step.breakdown import explain_step
from ersatz.sim.step.vector import vector_step

LONGEST = 12  # operators in the record
LIVE_WIDTH = 0.08  # what tests/test_emulate_live.py holds a live emulation to


@dataclass(frozen=True, slots=True)
class Setting:
    """Where traces are taken to run, and how their kernels were timed."""

    script: str
    node: Node
    nodes: int
    world: int
    timer: str = "calibrated"
    proved: bool = False  # kernels were timed on the device itself, alone


def outcome(setting: Setting, traces: Sequence[Trace], notes: Sequence[str] = ()) -> EmulateResult:
    """Return the step that the traces of an emulation give, with what was assumed."""
    node = setting.node
    rows = [_rank_row(trace) for trace in traces]
    step_s = max(row.step_s for row in rows)
    dtype = _format_used(traces[0])
    experts = any(t.collective == "all_to_all" or "grouped" in t.name for t in traces[0].table)
    width = width_of(node, dtype, experts=experts, proved=LIVE_WIDTH if setting.proved else None)
    peak = utilisation_peak(node.device, dtype)
    policies: Counter[str] = Counter()
    reads: Counter[str] = Counter()
    for trace in traces:
        policies.update(trace.facts["policies"])
        reads.update(trace.facts["reads"])
    return EmulateResult(
        script=setting.script, device=node.device.name, shown_as=shown_as(node.device).name,
        world=setting.world, nodes=setting.nodes, step_s=step_s, low80_s=step_s / (1 + width.half),
        high80_s=step_s * (1 + width.half), hfu=max(r.flop for r in rows) / step_s / peak,
        memory_bytes=max(r.peak_reserved for r in rows), capacity_bytes=traces[0].memory["capacity"],
        breakdown=_breakdown(traces), ranks=tuple(rows),
        collectives=tuple(row for trace in traces for row in _group_rows(trace)),
        operators=_operators(traces[0]), policies=dict(policies), reads=dict(reads),
        assumptions=loud_first(f"step {width.words}", *notes, *_assumptions(setting, traces, step_s)),
    )  # fmt: skip


def loud_first(*lines: str) -> tuple[str, ...]:
    """Return lines, first what makes it the step of another script than was asked for."""
    return tuple(sorted(lines, key=lambda line: not line.startswith(UNCOMPILED)))


def _rank_row(trace: Trace) -> RankRow:
    kernels = [t for t in _tasks(trace) if t.kernel]
    return RankRow(
        rank=trace.rank, step_s=vector_step(program_of(trace)), live_s=trace.step_s[-1],
        peak_allocated=trace.memory["peak_allocated"], peak_reserved=trace.memory["peak_reserved"],
        kernels=len(kernels), flop=sum(t.kernel.flop for t in kernels if t.kernel),
        steps=int(trace.facts["steps"]), cpu_s=trace.facts["cpu_s"], rss_bytes=trace.facts["rss_bytes"],
    )  # fmt: skip


def _tasks(trace: Trace) -> list[Task]:
    """Return the work of the last step, in order."""
    return [trace.table[e.work] for e in trace.last_step() if e.work >= 0]


def _format_used(trace: Trace) -> str:
    """Return the number format in which most FLOPs of a step run."""
    flop: Counter[str] = Counter()
    for task in _tasks(trace):
        if task.kernel:
            flop[task.kernel.dtype] += task.kernel.flop  # type: ignore[assignment]
    return max(flop, key=lambda d: (flop[d], d)) if flop else "bf16"


def _breakdown(traces: Sequence[Trace]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for trace in traces:
        for cause, seconds in explain_step(program_of(trace)).mean().items():
            total[cause] += seconds / len(traces)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def _group_rows(trace: Trace) -> list[GroupRow]:
    found: dict[tuple[str, int, int], list[Task]] = defaultdict(list)
    for task in _tasks(trace):
        if task.collective and task.ranks:
            stride = 0 if task.ranks.irregular else task.ranks.stride
            found[task.collective, task.ranks.size, stride].append(task)
    return [
        GroupRow(trace.rank, kind, size, stride, len(tasks), sum(t.nbytes for t in tasks) / len(tasks),
                 sum(t.seconds for t in tasks))
        for (kind, size, stride), tasks in sorted(found.items())
    ]  # fmt: skip


def _operators(trace: Trace) -> tuple[tuple[str, int, float], ...]:
    counts: Counter[str] = Counter()
    seconds: dict[str, float] = defaultdict(float)
    for task in _tasks(trace):
        counts[task.name] += 1
        seconds[task.name] += task.seconds
    longest = sorted(seconds, key=lambda name: (-seconds[name], name))[:LONGEST]
    return tuple((name, counts[name], seconds[name]) for name in longest)


def _assumptions(setting: Setting, traces: Sequence[Trace], step_s: float) -> list[str]:
    """Return what was assumed, each with what it is worth where that is known."""
    trace = traces[0]
    found = list(dict.fromkeys(n for t in traces for n in t.facts["notes"]))
    if trace.facts["surface_assumed"]:
        found.append(trace.facts["surface_assumed"])
    if setting.world > len(traces):
        found.append(
            f"{setting.world - len(traces):,} of {setting.world:,} ranks were not run: they are taken to do"
            f" what rank {', '.join(str(t.rank) for t in traces)} does, on other data"
        )
    if setting.timer != "live":
        launches = 1e3 * sum(e.host_s for e in trace.last_step())
        found.append(
            f"{1e6 * host_defaults().launch_s:.0f} us of the host per operator (4 to 12 are seen),"
            f" {launches:.1f} ms of a step of {1e3 * step_s:.1f} ms; hidden while the device is behind"
        )
    found.append("Python between operators, and the loading of data, are taken to keep up")
    return [*found, *_lacking(setting.node.device, trace, step_s), *_doubts(trace, step_s)]


def _lacking(device: Device, trace: Trace, step_s: float) -> Iterator[str]:
    """Say which formats a step multiplies that the device's file has no rate for."""
    seconds: Counter[str] = Counter()
    for task in _tasks(trace):
        kernel = task.kernel
        if kernel and kernel.kind != "memory" and f"matrix_peak.{kernel.dtype}" not in device.facts:
            seconds[kernel.dtype] += task.seconds  # type: ignore[assignment]
    for dtype, spent in sorted(seconds.items()) if device.facts else ():
        rate = format_si(device.matrix_peak[dtype], "FLOP/s")
        yield (
            f"products in {dtype}, {100 * spent / step_s:.1f} % of the step: {device.title} has no rate of"
            f" matrix units for them; they are taken at {rate}"
        )


def _doubts(trace: Trace, step_s: float) -> list[str]:
    """Return what makes this very trace doubtful."""
    found = []
    unknown = sum(t.seconds for t in _tasks(trace) if not t.known)
    if unknown:
        names = ", ".join(sorted(trace.facts["unknown"])[:4])
        share = 100 * unknown / step_s
        found.append(
            f"operators without a rule are taken by their bytes, {share:.1f} % of it: {names}"
        )
    last = trace.step_s[-2:]
    if len(trace.step_s) > 2 and abs(last[1] / last[0] - 1) > 0.01:
        found.append(f"the last two steps differ: {1e3 * last[0]:.2f} and {1e3 * last[1]:.2f} ms")
    if trace.facts["steps"] == 1:
        found.append("the script made one step only: what it does at its start is part of it")
    return found
