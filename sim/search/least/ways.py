"""How long the first micro-batch takes on its way in and the last on its way out: a bound for one layout.

A stage works in order. Before it goes forward through one of its chunks for the first time, the first
micro-batch has passed all positions before that chunk, one after the other; and the stage itself has done
no more than the forward passes that its order has before (`before_first`). All its other work comes after.
So it is on the way out where a schedule ends with whole backward passes. Where weights are gathered beside
a first pass, all buckets but two leave once the micro-batch is there, and the pass ends after them. The last
gradients are reduced when they are there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.borders import Border, Step, schedule_steps
from ersatz.sim.plan.layout import Chunk
from ersatz.sim.plan.schedules import Place, chunk_places
from ersatz.sim.search.choices import SCHEDULES
from ersatz.sim.search.least.bounds import WHOLE, Bounds
from ersatz.sim.search.least.prices import Array
from ersatz.sim.search.pricing import Row
from ersatz.sim.search.space import DUAL, DUALV, LOOPED, PP, SCHEDULE, VP, ZBV, M, layout_of
from ersatz.sim.step.build import FORWARD, StageBuilder, stage_builders, stage_pools
from ersatz.sim.step.program import ticks
from ersatz.sim.step.quick.walk import borders_of
from ersatz.sim.step.traffic.weights import Bucket

AT_ONCE = 2  # buckets that are gathered without waiting for the micro-batch
ROUNDED = 1e-9  # by which sums of kernels may differ from those of the step's whole ticks


def least_way(bounds: Bounds, row: Row) -> float:
    """Return the least time of a step of a row, without its end; 0 where it cannot be run."""
    try:
        return _least_way(bounds, row) * (1.0 - ROUNDED)
    except InfeasibleError:  # which its price will say
        return 0.0


def _least_way(bounds: Bounds, row: Row) -> float:
    schedule, stands = row[SCHEDULE], _stands(row[SCHEDULE], row[PP], row[VP])
    split, m = bounds.split(schedule, row[PP], row[VP]), row[M]
    builder = _builder(bounds, row, stands.steps)
    forward, backward = bounds.passes(np.array([row]), schedule)
    each, back = split.chunk @ forward[0], split.chunk @ backward[0]  # (stages, chunks)
    m //= split.lines
    before = before_first(schedule, row[PP], row[VP], m)
    hops = _hops(builder, stands)
    first = np.maximum(each, _of_chunks(builder, stands, _first))
    work = m * (each.sum(axis=1) + back.sum(axis=1))
    work += (_along(first, hops, stands) - each - _passes(before, each)).max(axis=1)
    late = np.maximum(_of_chunks(builder, stands, _reduced_last),
                      _of_chunks(builder, stands, _reduced) - back)  # fmt: skip
    if schedule not in WHOLE:
        return float((work + late.min(axis=1)).max())
    # after a chunk's last pass back come those of the chunks before it; the first stage's is the last
    out = (_along(back, hops, stands) - back - _passes(before, back)).max(axis=1)
    return float((work + np.maximum(out + late[0, 0], late[:, 0])).max())


class Stands(NamedTuple):
    """Where the chunks of a pipeline stand."""

    line: npt.NDArray[np.intp]  # (stages, chunks), as the next ones
    position: npt.NDArray[np.intp]
    steps: tuple[Step, ...]  # stages between which messages go
    step: npt.NDArray[np.intp]  # over which one comes to a chunk; -1: none does


@lru_cache(maxsize=256)
def _stands(schedule: int, pp: int, vp: int) -> Stands:
    places = chunk_places(SCHEDULES[schedule], pp, vp)
    steps = schedule_steps(places)
    at = {place: stage for stage, held in enumerate(places) for place in held}

    def step(place: Place, stage: int) -> int:
        other = at.get(Place(place.line, place.position - 1))
        return -1 if other is None else steps.index((min(stage, other), max(stage, other)))

    return Stands(
        np.array([[place.line for place in held] for held in places]),
        np.array([[place.position for place in held] for held in places]), steps,
        np.array([[step(place, stage) for place in held] for stage, held in enumerate(places)]),
    )  # fmt: skip


def _builder(bounds: Bounds, row: Row, steps: tuple[Step, ...]) -> StageBuilder:
    scenario = layout_of(bounds.scenario, row)
    pools = stage_pools(scenario)
    borders = borders_of(scenario, pools, steps)
    return stage_builders(scenario, pools, bounds.timer, (), borders)[0]


def _of_chunks(
    builder: StageBuilder, stands: Stands, cost: Callable[[StageBuilder, Chunk], float]
) -> Array:
    """Return what all chunks cost, (stages, chunks); those of the same content are asked once."""
    made, known = builder.bench.made, dict[int, float]()
    for number, chunk in dict(zip(builder.classes, builder.chunks, strict=True)).items():
        key = cost.__name__, number
        if key not in made:
            made[key] = cost(builder, chunk)
        known[number] = made[key]
    found: Array = np.array([known[number] for number in builder.classes])[stands.position]
    return found


def _first(builder: StageBuilder, chunk: Chunk) -> float:
    """Return the least that a chunk's first pass takes for the weights that are gathered beside it."""
    buckets = builder.gathers_forward(chunk, "first")
    begin = sorted({bucket.first for bucket in buckets})
    if len(begin) <= AT_ONCE:
        return 0.0
    parts = builder.bench.parts_of(chunk)
    seconds = [builder.bench.kernel_seconds(part)[FORWARD] for part in parts]
    ahead, after = sum(seconds[: begin[1]]), sum(seconds[begin[-1] :])
    late = begin[AT_ONCE:]
    moved = [one for bucket in buckets if bucket.first in late
             for _, one in builder.traffic.gather(bucket)]  # fmt: skip
    return ahead + after + sum(ticks(one.seconds) for one in moved) if ahead else 0.0


def _reduced(builder: StageBuilder, chunk: Chunk) -> float:
    """Return the seconds of reducing a chunk's gradients with its last pass back."""
    return _sum(builder, builder.bench.buckets(chunk))


def _reduced_last(builder: StageBuilder, chunk: Chunk) -> float:
    """Return the seconds of reducing those that are there last."""
    return _sum(builder, [one for one in builder.bench.buckets(chunk) if not one.first])


def _sum(builder: StageBuilder, buckets: list[Bucket]) -> float:
    if not builder.traffic.reduces_after("last"):
        return 0.0
    found = [moved for bucket in buckets for _, moved in builder.traffic.reduce(bucket)]
    return sum(ticks(moved.seconds) for moved in found)


def _hops(builder: StageBuilder, stands: Stands) -> Array:
    """Return the seconds of a message to each chunk from the position before it: (stages, chunks)."""
    known: dict[Border, float] = {}
    for border in builder.borders.values():
        if border not in known:
            moved = builder.message(border)
            known[border] = ticks(moved.seconds) + moved.flight_s
    each = np.array([*(known[builder.borders[step]] for step in stands.steps), 0.0])
    found: Array = each[stands.step]
    return found


def _along(each: Array, hops: Array, stands: Stands) -> Array:
    """Return what a micro-batch has taken when it has passed each stage's chunks: (stages, chunks)."""
    taken = np.zeros((stands.line.max() + 1, stands.position.max() + 1))
    taken[stands.line, stands.position] = each + hops
    found: Array = np.cumsum(taken, axis=1)[stands.line, stands.position]
    return found


def _passes(counts: Array, each: Array) -> Array:
    """Return what counted passes take: (stages, chunks)."""
    found: Array = np.einsum("scd,sd->sc", counts, each)
    return found


def before_first(schedule: int, p: int, v: int, m: int) -> Array:
    """Return how many forward passes of its other chunks a stage makes before its first of one.

    Shape (stages, chunks, chunks before); `m` micro-batches of a line. Closed forms of
    `ersatz.sim.plan.orders`, where no backward pass comes before any of these. Where a schedule ends with
    whole backward passes, so many of them follow a chunk's last one.
    """
    stage = np.arange(p)
    if schedule == LOOPED:
        return np.broadcast_to(p * np.tri(v, k=-1), (p, v, v))
    chunks = 2 if schedule in (ZBV, DUALV, DUAL) else 1
    found = np.zeros((p, chunks, chunks))
    if schedule in (ZBV, DUALV):
        found[:, 1, 0] = np.minimum(2 * (p - stage) - 1, m)
    elif schedule == DUAL:
        outer = p // 2 - 1 - np.minimum(stage, p - 1 - stage)
        count, behind = np.minimum(2 * outer + 1, m), stage >= p // 2
        found[:, 1, 0] = np.where(behind, 0, count)
        found[:, 0, 1] = np.where(behind, count, 0)
    return found
