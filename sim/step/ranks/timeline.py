"""What chosen ranks do over a step, piece by piece: for timelines and traces.

The times are the vector engine's (L2), every kernel and collective where that engine puts it. What
lies between them on the compute stream is a wait, and is called what the breakdown calls it. Where
all ranks are alike the breakdown is L1's, which accounts slot by slot; the waits of a slot are then
named in its order: first the bubble, then the rest. So the pieces of a stage's compute stream add up to
its breakdown. With slow ranks a rank's waits are its own, and their sum is the step, not the breakdown
of its stage, which is that of the slowest rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.plan.layout import rank_shape
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.breakdown import Causes, explain_folded
from ersatz.sim.step.build import stage_pools
from ersatz.sim.step.program import COMPUTE, GATHER, REDUCE, Program
from ersatz.sim.step.ranks.writer import WAIT, Piece, Stretch, Writer
from ersatz.sim.step.step import job_programs, simulate_step
from ersatz.sim.step.stragglers import named_stragglers, slowness
from ersatz.sim.step.vector import Happening, VectorStep, alike, latest

MOST_RANKS = 64


@dataclass(frozen=True, slots=True)
class RankLine:
    """One rank over a step."""

    rank: int  # of the whole job
    stage: int  # of all programs, as `StepResult.by_stage` counts them
    pool: str
    place: tuple[int, int, int, int]  # (tp, cp, ep, dp)
    pieces: tuple[Piece, ...]  # by stream, each in order of time
    stretches: tuple[Stretch, ...]

    def sums(self) -> Mapping[str, float]:
        """Return the seconds of the compute stream by cause, as a breakdown has them."""
        found: dict[str, float] = {}
        for piece in self.pieces:
            if piece.stream == COMPUTE:
                found[piece.category] = found.get(piece.category, 0.0) + piece.seconds
        return found


@dataclass(frozen=True, slots=True)
class StepTimeline:
    """A step of some ranks."""

    duration_s: float
    lines: tuple[RankLine, ...]


def first_ranks(scenario: Scenario, per_stage: int = 1) -> list[int]:
    """Return the first ranks of every stage, at most `MOST_RANKS` in all."""
    wide = max(scenario.devices // _stages(scenario), 1)
    if len(scenario.pools) > 1 and scenario.parallel.mixed == "replicas":
        starts, first = [], 0
        for pool in scenario.pools:
            each = pool.devices // scenario.parallel.pp
            starts += [first + each * s for s in range(scenario.parallel.pp)]
            first += pool.devices
    else:
        starts = [wide * s for s in range(_stages(scenario))]
    ranks = [start + i for start in starts for i in range(min(per_stage, wide))]
    return ranks[:MOST_RANKS]


def _stages(scenario: Scenario) -> int:
    return scenario.parallel.pp


def step_timeline(
    scenario: Scenario, ranks: Sequence[int] = (), timer: Timer = calibrated_time
) -> StepTimeline:
    """Return what ranks of a job do over one step; by default the first of every stage.

    Ranks are numbered over the whole job: tp fastest, then cp, ep, dp, then the stage, then the pool of
    replicas. Raises `ValueError` for a rank that there is not and for more than `MOST_RANKS`, and
    `InfeasibleError` as `simulate_step` does.
    """
    ranks = list(ranks) or first_ranks(scenario)
    check_ranks(scenario, ranks)
    scenario = named_stragglers(scenario)
    whole = simulate_step(scenario, timer)
    shares, programs, _ = job_programs(scenario, timer)
    lines: list[RankLine] = []
    first_rank = first_stage = 0
    for share, program in zip(shares, programs, strict=True):
        mine = [
            rank - first_rank for rank in ranks if first_rank <= rank < first_rank + program.ranks
        ]
        for line in _lines(share, program, mine):
            stage = first_stage + line.stage
            pieces = _completed(line, whole.by_stage[stage], slow=bool(scenario.stragglers.ranks))
            lines.append(RankLine(first_rank + line.rank, stage, line.pool, line.place, pieces,
                                  line.stretches))  # fmt: skip
        first_rank += program.ranks
        first_stage += program.stages
    order = {rank: i for i, rank in enumerate(ranks)}
    return StepTimeline(whole.duration_s, tuple(sorted(lines, key=lambda line: order[line.rank])))


def count_pieces(
    scenario: Scenario, ranks: Sequence[int] = (), timer: Timer = calibrated_time
) -> int:
    """Return about how many pieces a timeline would have, without making it."""
    ranks = list(ranks) or first_ranks(scenario)
    _, programs, _ = job_programs(named_stragglers(scenario), timer)
    total = first = 0
    for program in programs:
        each = program.ranks // program.stages
        size = {
            at: sum(2 * len(op.work) for op in block.ops) for at, block in program.blocks.items()
        }
        of_stage = [0] * program.stages
        for visit in program.schedule.walk:
            of_stage[visit.stage] += size[visit.stage, visit.block]
        total += sum(
            of_stage[(r - first) // each] for r in ranks if first <= r < first + program.ranks
        )
        first += program.ranks
    return total


def check_ranks(scenario: Scenario, ranks: Sequence[int]) -> None:
    """Raise `ValueError` for too many ranks, for one that the job does not have, and where all differ."""
    if scenario.parallel.pools:
        raise ValueError(
            "pools with layouts of their own (parallel.pools) are not told rank by rank"
        )
    if len(ranks) > MOST_RANKS:
        raise ValueError(f"{len(ranks)} ranks: expected at most {MOST_RANKS}")
    wrong = [rank for rank in ranks if not 0 <= rank < scenario.devices]
    if wrong:
        raise ValueError(f"rank {wrong[0]}: expected 0 to {scenario.devices - 1}")


def _completed(line: RankLine, causes: Mapping[str, float], *, slow: bool) -> tuple[Piece, ...]:
    """Add at the end what is accounted for beyond the program: other replicas, links that are shared."""
    if slow:
        return line.pieces
    sums = line.sums()
    last = max((p.start_s + p.seconds for p in line.pieces if p.stream == COMPUTE), default=0.0)
    extra = []
    for cause, seconds in causes.items():
        more = seconds - sums.get(cause, 0.0)
        if more > 1e-9:
            extra.append(Piece(last, more, COMPUTE, cause, cause, WAIT))
            last += more
    return (*line.pieces, *extra)


def _lines(share: Scenario, program: Program, ranks: Sequence[int]) -> Iterator[RankLine]:
    """Run a program once and yield the lines of its ranks."""
    if not ranks:
        return
    slow = slowness(share, program)
    charges = None if slow else _charges(program)
    shape = rank_shape(share.parallel)
    each = int(np.prod(shape))
    writers = {
        rank: Writer(program, rank // each, _place(rank % each, shape), charges) for rank in ranks
    }
    by_stage: dict[int, list[Writer]] = {}
    for writer in writers.values():
        by_stage.setdefault(writer.stage, []).append(writer)

    def observe(seen: Happening) -> None:
        for writer in by_stage.get(seen.stage, ()):
            writer(seen)

    step = VectorStep(program, slow or alike(program), observe)
    stages = step.run_body()
    barrier = latest(stages)
    for writer in writers.values():
        own = max(writer.at(stages[writer.stage].free[s]) for s in (GATHER, REDUCE, COMPUTE))
        writer.wait_until(own, "data parallel")
        writer.wait_until(barrier, "bubble")
        writer.begin_tail(barrier)
    duration = step.run_tails(stages, barrier)
    pools = stage_pools(share)
    for rank, writer in writers.items():
        writer.close_slot()
        writer.wait_until(duration, "bubble")
        yield RankLine(rank, writer.stage, pools[writer.stage].name, writer.place,
                       tuple(writer.pieces), tuple(writer.stretches))  # fmt: skip


def _place(number: int, shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    tp, cp, ep, dp = (int(i) for i in np.unravel_index(number, shape, order="F"))
    return tp, cp, ep, dp


def _charges(program: Program) -> list[list[Causes]]:
    """Return what L1 charges each slot of each stage with; its tail is the last."""
    found: list[list[Causes]] = [[] for _ in range(program.stages)]
    explain_folded(program, lambda stage, causes, *_: found[stage].append(causes))
    return found


def stage_stretches(
    scenario: Scenario, timer: Timer = calibrated_time
) -> list[tuple[str, tuple[Stretch, ...]]]:
    """Return the pool and the slots of each stage: by L1, of a rank like all or the slowest.

    Cheap, since no op is looked at. Raises `InfeasibleError` as `simulate_step` does.
    """
    scenario = named_stragglers(scenario)
    shares, programs, _ = job_programs(scenario, timer)
    found: list[tuple[str, tuple[Stretch, ...]]] = []
    for share, program in zip(shares, programs, strict=True):
        spans: list[list[tuple[float, float]]] = [[] for _ in range(program.stages)]

        def told(stage: int, causes: Causes, start: float, end: float, into: Any = spans) -> None:
            into[stage].append((start + causes.get("bubble", 0.0), end))

        slow = slowness(share, program)
        explain_folded(program, told, [float(array.max()) for array in slow] if slow else None)
        for pool, mine, order in zip(
            stage_pools(share), spans, program.schedule.orders, strict=True
        ):
            parts = [*order, ()]
            found.append(
                (pool.name, tuple(Stretch(*ends, p) for ends, p in zip(mine, parts, strict=True)))
            )
    return found
