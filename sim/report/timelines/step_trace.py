"""A step of chosen ranks as a trace: kernels with shapes, collectives with bytes and group, the host's
launches, memory; what lies between is a wait, called what the breakdown calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ersatz.device_models.kernels.kernel import Kernel, Timer, calibrated_time
from ersatz.sim.plan.memory.timeline import stage_timelines
from ersatz.sim.records import RunResult
from ersatz.sim.report.json_out import plain
from ersatz.sim.report.setting import setting
from ersatz.sim.report.timelines.chrome import counter, packed, process, span, text_of, thread
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.program import STREAMS, Sent
from ersatz.sim.step.ranks.timeline import RankLine, step_timeline
from ersatz.sim.step.ranks.writer import Piece

GIB = 2.0**30


def calibrated_timer(scenario: Scenario) -> Timer:
    """Return the catalogue's kernel times."""
    return calibrated_time


def step_trace(
    scenarios: Sequence[Scenario], results: Sequence[RunResult], ranks: Sequence[int] = (),
    timer_of: Callable[[Scenario], Timer] = calibrated_timer,
) -> bytes:  # fmt: skip
    """Return a compressed trace of ranks over one step of each case; by default of one per stage.

    The durations of a rank's compute track add up to the breakdown of its stage, by `category`.
    Raises `ValueError` for a rank that a case does not have and for more events than a trace may hold.
    """
    about = {
        "made_by": "ersatz",
        "question": scenarios[0].question,
        "cases": {s.name: _about(s, r) for s, r in zip(scenarios, results, strict=True)},
    }
    return packed(_events(scenarios, ranks, timer_of), about)


def _about(scenario: Scenario, result: RunResult) -> Mapping[str, Any]:
    step = {"step_s": result.step.duration_s, "by_stage": plain(result.step.by_stage)}
    return {"setting": setting(scenario), **step, "job": plain(result.job) if result.job else None}


def _events(
    scenarios: Sequence[Scenario], ranks: Sequence[int], timer_of: Callable[[Scenario], Timer]
) -> Iterator[str]:
    pid = 0
    for scenario in scenarios:
        timeline = step_timeline(scenario, ranks, timer_of(scenario))
        memory = {
            t.number: t for t in stage_timelines(scenario, [line.stage for line in timeline.lines])
        }
        for line in timeline.lines:
            pid += 1
            name = f"{scenario.name}, " if len(scenarios) > 1 else ""
            pool = f" ({line.pool})" if line.pool else ""
            yield from process(pid, f"{name}rank {line.rank}, stage {line.stage}{pool}", pid)
            yield from _rank(pid, line)
            if line.stage in memory:
                yield from _memory(pid, line, memory[line.stage])


def _rank(pid: int, line: RankLine) -> Iterator[str]:
    for stream in sorted({piece.stream for piece in line.pieces}):
        yield thread(pid, stream + 1, STREAMS[stream])
    yield thread(pid, len(STREAMS) + 1, "schedule")
    for stretch in line.stretches:
        words = " + ".join(
            f"{p.phase}{p.chunk if p.chunk else ''} {p.microbatch}" for p in stretch.parts
        )
        rest = ',"cat":"slot"'
        yield span(
            pid, len(STREAMS) + 1, text_of(words or "update"), stretch.start_s, stretch.end_s, rest
        )
    known: dict[tuple[int, str], tuple[str, str]] = {}
    for piece in line.pieces:
        if piece.seconds <= 0:
            continue
        key = id(piece.work) if piece.work else 0, piece.name
        told = known.get(key)
        if told is None:
            told = known[key] = (
                text_of(piece.name),
                f',"cat":{text_of(piece.category)},"args":{text_of(_args(piece))}',
            )
        yield span(
            pid, piece.stream + 1, told[0], piece.start_s, piece.start_s + piece.seconds, told[1]
        )


def _args(piece: Piece) -> Mapping[str, Any]:
    """Return what a kernel computes and moves, or what a collective sends and to whom."""
    args: dict[str, Any] = {"category": piece.category}
    if piece.phase:
        args["phase"] = piece.phase
    if piece.work and piece.work.kernel and piece.stream:
        args |= _kernel(piece.work.kernel)
    if piece.work and piece.work.sent and piece.stream:
        args |= _sent(piece.work.sent)
    return args


def _kernel(kernel: Kernel) -> Mapping[str, Any]:
    shape = {
        key: value
        for key in ("m", "n", "k", "groups")
        if (value := getattr(kernel, key)) not in (0.0, 1)
    }
    return {
        "kernel": kernel.kind,
        "dtype": kernel.dtype,
        "flop": kernel.flop,
        "bytes": kernel.nbytes,
        **shape,
    }


def _sent(sent: Sent) -> Mapping[str, Any]:
    found = {"collective": sent.kind, "bytes": sent.nbytes, "group": sent.name, "size": sent.group.size,
             "inside a domain": sent.group.per_node}  # fmt: skip
    return {**found, "messages": sent.steps} if sent.steps > 1 else found


def _memory(pid: int, line: RankLine, timeline: Any) -> Iterator[str]:
    """Yield what the rank holds, each moment at its place in its slot."""
    stretches = line.stretches
    for slot, held in zip(timeline.slots, timeline.held.sum(axis=1), strict=True):
        number = min(int(slot), len(stretches) - 1)
        at = stretches[number]
        part = min(max(float(slot) - number, 0.0), 1.0)
        yield counter(
            pid,
            "memory, GiB",
            at.start_s + part * (at.end_s - at.start_s),
            {"held": round(held / GIB, 4)},
        )
