"""From a command line to a step: run the script's ranks, then their traces through the step engine."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ersatz.device_models.calibration.measured import find_calibration, read_calibration
from ersatz.device_models.catalog.device import Node
from ersatz.device_models.kernels.kernel import utilisation_peak
from ersatz.device_models.text.units import format_duration
from ersatz.sim.emulate.command import Command, parse_command
from ersatz.sim.emulate.interval import width_of
from ersatz.sim.emulate.launch import run_ranks, torch_version, version_note
from ersatz.sim.emulate.program import program_of
from ersatz.sim.emulate.records import EmulateResult, GroupRow, RankRow
from ersatz.sim.emulate.trace import Task, Trace
from ersatz.sim.emulate.virtual_device import Seat, host_defaults, seated_node, shown_as
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.hil.device.operators import key_of
from ersatz.sim.step.breakdown import explain_step
from ersatz.sim.step.vector import vector_step

STACK = "torch-eager"
TIMERS = ("calibrated", "roofline", "table", "live")
MOST_PROCESSES = 32
LONGEST = 12  # operators in the record
UNKNOWN_FLOAT = 1.0  # what the host reads of a float that nobody knows
LIVE_WIDTH = 0.08  # what tests/test_emulate_live.py holds a live emulation to


@dataclass(frozen=True, slots=True)
class Request:
    """What an emulation is asked for."""

    node: str
    script: tuple[str, ...]
    nodes: int = 1
    stack: str = STACK
    ranks: str = "0"  # numbers by comma, or `all`
    steps: int = 4  # whole steps after which the script is stopped; 0: let it end
    timer: str = "calibrated"
    calibration: str = ""
    attach: str = "cpu"
    patience_s: float = 600.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Emulation:
    """The answer with what it was made of."""

    result: EmulateResult
    traces: tuple[Trace, ...]
    node: Node


def emulate(request: Request) -> Emulation:
    """Run a script on virtual devices and time its step.

    Raises `InputError` for what cannot be run, `InfeasibleError` where memory is too small.
    """
    installed = torch_version()
    seats, command = seats_of(request)
    traces = run_ranks(seats, command.words, request.patience_s)
    node, _ = seated_node(request.node, request.nodes, request.stack)
    notes = [n for n in (version_note(installed),) if n]
    return Emulation(_result(request, command, node, seats[0], traces, notes), tuple(traces), node)


def seats_of(request: Request) -> tuple[list[Seat], Command]:
    """Return a seat for each rank that runs as a process; raises `InputError` with every fault."""
    command = parse_command(request.script)
    node, _ = seated_node(request.node, request.nodes, request.stack)
    shown_as(node.device)
    launched = bool(command.launcher) or request.nodes > 1
    per_node = command.per_node or (node.devices if launched else 1)
    problems = []
    if not node.device.trains:
        problems.append(Problem("emulate", 0, 0, "device", node.device.name, node.device.why_not))
    if request.timer not in TIMERS:
        problems.append(
            Problem("--timer", 0, 0, "", request.timer, f"expected one of {', '.join(TIMERS)}")
        )
    if request.timer == "table" and not request.calibration:
        problems.append(
            Problem("--timer", 0, 0, "", "table", "expected --calibration FILE with it")
        )
    if per_node > node.devices:
        problems.append(Problem("emulate", 0, 0, "processes per node", str(per_node),
                                f"expected at most the {node.devices} devices of {node.name}"))  # fmt: skip
    if command.nodes and command.nodes != request.nodes:
        problems.append(Problem("emulate", 0, 0, "nodes of the launcher", str(command.nodes),
                                f"expected the {request.nodes} of --nodes"))  # fmt: skip
    world = per_node * request.nodes
    ranks = _ranks(request.ranks, world, problems)
    if problems:
        raise InputError(problems)
    options = os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
    return [
        Seat(request.node, request.nodes, request.stack, rank, world, per_node, request.steps, ranks, 0,
             request.timer, request.calibration, request.attach, "", request.seed, UNKNOWN_FLOAT,
             launched, options)
        for rank in ranks
    ], command  # fmt: skip


def _ranks(words: str, world: int, problems: list[Problem]) -> tuple[int, ...]:
    if words == "all":
        found = tuple(range(world))
    elif all(part.strip().isdigit() for part in words.split(",")):
        found = tuple(sorted({int(part) for part in words.split(",")}))
    else:
        problems.append(Problem("--ranks", 0, 0, "", words, "expected numbers by comma, or all"))
        return (0,)
    if found[-1] >= world:
        problems.append(Problem("--ranks", 0, 0, "", words, f"expected ranks below {world}"))
    if len(found) > MOST_PROCESSES:
        expected = f"expected at most {MOST_PROCESSES} processes; name the ranks that differ"
        problems.append(Problem("--ranks", 0, 0, "", words, expected))
    return found


def _result(
    request: Request, command: Command, node: Node, seat: Seat, traces: Sequence[Trace],
    notes: Sequence[str],
) -> EmulateResult:  # fmt: skip
    rows = [_rank_row(trace) for trace in traces]
    step_s = max(row.step_s for row in rows)
    dtype = _format_used(traces[0])
    experts = any(t.collective == "all_to_all" or "grouped" in t.name for t in traces[0].table)
    proved = LIVE_WIDTH if request.timer == "live" and seat.world == 1 else None
    width = width_of(node, dtype, experts=experts, proved=proved)
    peak = utilisation_peak(node.device, dtype)
    policies: Counter[str] = Counter()
    reads: Counter[str] = Counter()
    for trace in traces:
        policies.update(trace.facts["policies"])
        reads.update(trace.facts["reads"])
    return EmulateResult(
        script=" ".join(command.words), device=node.device.name, shown_as=shown_as(node.device).name,
        world=seat.world, nodes=request.nodes, step_s=step_s, low80_s=step_s / (1 + width.half),
        high80_s=step_s * (1 + width.half), hfu=max(r.flop for r in rows) / step_s / peak,
        memory_bytes=max(r.peak_reserved for r in rows), capacity_bytes=traces[0].memory["capacity"],
        breakdown=_breakdown(traces), ranks=tuple(rows),
        collectives=tuple(row for trace in traces for row in _group_rows(trace)),
        operators=_operators(traces[0]), policies=dict(policies), reads=dict(reads),
        assumptions=(f"step {width.words}", *notes, *_assumptions(request, seat, node, traces, step_s)),
    )  # fmt: skip


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


def _assumptions(
    request: Request, seat: Seat, node: Node, traces: Sequence[Trace], step_s: float
) -> list[str]:
    """Return what was assumed, each with what it is worth where that is known."""
    trace = traces[0]
    found = list(dict.fromkeys(n for t in traces for n in t.facts["notes"]))
    if trace.facts["surface_assumed"]:
        found.append(trace.facts["surface_assumed"])
    if seat.world > len(traces):
        found.append(
            f"{seat.world - len(traces):,} of {seat.world:,} ranks were not run: they are taken to do"
            f" what rank {', '.join(str(t.rank) for t in traces)} does, on other data"
        )
    if request.timer != "live":
        launches = 1e3 * sum(e.host_s for e in trace.last_step())
        found.append(
            f"{1e6 * host_defaults().launch_s:.0f} us of the host per operator (4 to 12 are seen),"
            f" {launches:.1f} ms of a step of {1e3 * step_s:.1f} ms; hidden while the device is behind"
        )
    found += not_timed(request, trace)
    found.append("Python between operators, and the loading of data, are taken to keep up")
    return [*found, *_doubts(trace, step_s)]


def not_timed(request: Request, trace: Trace) -> list[str]:
    """Say which operators a calibration of own ops has not timed."""
    if not request.calibration or request.timer in ("live", "roofline"):
        return []
    own = read_calibration(find_calibration(request.calibration)).operators
    left = [t for t in _tasks(trace) if t.kernel and own and key_of(t.signature) not in own]
    if not left:
        return []
    names = ", ".join(sorted({t.name for t in left})[:4])
    seconds = sum(t.seconds for t in left)
    return [f"{len(left):,} operators have shapes that the calibration has not timed, and are modelled:"
            f" {format_duration(seconds)} of the step ({names})"]  # fmt: skip


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
