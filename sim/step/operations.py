"""What every rank sends and computes in a step, counted on the program that the engines run.

All ranks of a stage issue the same ops; a row belongs to the stages where it is the same. Bytes
are those by which a collective was priced (`collective_time` says how each kind counts them).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from math import fsum
from typing import NamedTuple, TypeVar

from ersatz.device_models.kernels.kernel import Kernel, Timer, calibrated_time
from ersatz.sim.plan.borders import stage_ranks
from ersatz.sim.records import CollectiveRow, FlopRow, OperationsResult
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.build import stage_pools
from ersatz.sim.step.program import STREAMS, Block, Op, Program, Sent, Work
from ersatz.sim.step.step import job_programs

PHASES = ("forward", "recompute", "backward", "pipeline", "optimizer")
KINDS = {
    "matrix": "products",
    "attention": "attention",
    "experts": "grouped products",
    "vocabulary": "head",
}
Row = TypeVar("Row", CollectiveRow, FlopRow)
Thing = TypeVar("Thing", bound=Hashable)


def step_operations(scenario: Scenario, timer: Timer = calibrated_time) -> OperationsResult:
    """Count the collectives and FLOPs of each rank in one step of `scenario`.

    `timer` matters only where replicas share the batch by speed. Raises `InfeasibleError` as
    `simulate_step` does.
    """
    shares, programs, _ = job_programs(scenario, timer)
    sent: list[CollectiveRow] = []
    done: list[FlopRow] = []
    for share, program in zip(shares, programs, strict=True):
        pools = [(pool.name, stage_ranks(share, pool)) for pool in stage_pools(share)]
        sent += by_stages(program, pools, collective_counts, _collective_row)
        done += by_stages(program, pools, flop_counts, _flop_row)
    return OperationsResult(
        name=scenario.name,
        collectives=tuple(sorted(sent, key=_collective_order)),
        flops=tuple(sorted(done, key=lambda r: (r.pool, r.stages, PHASES.index(r.phase), r.kind))),
        executed_flop=math.fsum(r.flop * r.ranks for r in done),
        model_flop=math.fsum(r.model_flop * r.ranks for r in done),
        recomputed_flop=math.fsum(r.recomputed_flop * r.ranks for r in done),
        padding_flop=math.fsum(r.padding_flop * r.ranks for r in done),
    )


def blocks_of(program: Program, stage: int) -> Iterator[tuple[Block, int]]:
    """Yield the blocks of a stage, its tail included, and how often it runs each."""
    visits = Counter(v.block for v in program.schedule.walk if v.stage == stage)
    for variant, times in visits.items():
        yield program.blocks[stage, variant], times
    yield program.tails[stage], 1


class _Collective(NamedTuple):
    """One kind of collective of a rank."""

    phase: str
    name: str
    stream: str
    sent: Sent


def collective_counts(blocks: Iterable[tuple[Block, int]]) -> Mapping[_Collective, int]:
    """Count the collectives in so many runs of blocks."""
    found: Counter[_Collective] = Counter()
    for block, times in blocks:
        for op in block.ops:
            for work in op.work:
                if work.sent:
                    found[_collective(op, work, work.sent)] += times * work.sent.steps
    return found


def _collective(op: Op, work: Work, sent: Sent) -> _Collective:
    stream = STREAMS[op.stream]
    if sent.name == "pp":
        return _Collective("pipeline", f"{op.name} {work.phase}", stream, sent)
    return _Collective(work.phase, op.name, stream, sent)


class _Computed(NamedTuple):
    """One kind of FLOPs of a rank: all, and of them those computed again and those for nothing."""

    phase: str
    kind: str
    flop: float
    recomputed: float
    padding: float


def flop_counts(blocks: Iterable[tuple[Block, int]]) -> Mapping[_Computed, int]:
    """Sum the FLOPs in so many runs of blocks by phase and kind."""
    counts: Counter[_Computed] = Counter()
    for block, times in blocks:
        for work in (work for op in block.ops for work in op.work):
            if work.kernel and work.kernel.flop:
                counts[_computed(work.phase, work.kernel)] += times
    parts: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for found, times in counts.items():
        parts[found.phase, found.kind].append([times * flop for flop in found[2:]])
    # exact sums, lest stages differ by the order in which they run the same
    return {_Computed(*key, *map(fsum, zip(*rows, strict=True))): 1 for key, rows in parts.items()}


def _computed(phase: str, kernel: Kernel) -> _Computed:
    again = kernel.flop - kernel.padding if phase == "recompute" else kernel.repeated
    return _Computed(phase, KINDS[kernel.category], kernel.flop, again, kernel.padding)


def by_stages(
    program: Program, pools: list[tuple[str, int]],
    count: Callable[[Iterable[tuple[Block, int]]], Mapping[Thing, int]],
    row: Callable[[str, tuple[int, ...], int, Thing, int], Row],
) -> Iterator[Row]:  # fmt: skip
    """Yield a row for each thing that stages of one pool do equally often.

    `pools` has the name of each stage's pool and how many ranks hold the stage there.
    """
    stages: dict[tuple[tuple[str, int], Thing, int], list[int]] = defaultdict(list)
    for stage in range(program.stages):
        for thing, times in count(blocks_of(program, stage)).items():
            stages[pools[stage], thing, times].append(stage)
    for ((pool, per_stage), thing, times), found in stages.items():
        yield row(pool, tuple(found), per_stage * len(found), thing, times)


def _collective_row(
    pool: str, stages: tuple[int, ...], ranks: int, found: _Collective, count: int
) -> CollectiveRow:
    sent, group = found.sent, found.sent.group
    return CollectiveRow(
        pool=pool, stages=stages, ranks=ranks, phase=found.phase, name=found.name, kind=sent.kind,
        group=sent.name, size=group.size, inside=group.per_node, stream=found.stream, count=count,
        nbytes=sent.nbytes, seconds=sent.done.seconds, inside_bytes=sent.done.inside_bytes,
        network_bytes=sent.done.network_bytes,
    )  # fmt: skip


def _flop_row(
    pool: str, stages: tuple[int, ...], ranks: int, found: _Computed, count: int
) -> FlopRow:
    flop, again, padding = (count * x for x in (found.flop, found.recomputed, found.padding))
    return FlopRow(pool, stages, ranks, found.phase, found.kind, flop, flop - again - padding,
                   again, padding)  # fmt: skip


def _collective_order(row: CollectiveRow) -> tuple[object, ...]:
    return row.pool, PHASES.index(row.phase), row.group, row.stages, row.name, row.nbytes
