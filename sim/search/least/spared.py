"""What spares a layout its exact step: a closer bound, and layouts that do less.

ZeRO 3 gathers each part twice and scatters its gradients once for every micro-batch. ZeRO 2 reduces a
chunk's gradients after each run of micro-batches that goes back through it, or after every one. Such
collectives follow one another, so that a step lasts no shorter than all of a stage's (`Closer`).

A step is a program of sums and maxima, so that an op which is longer, or one more, delays others or
none. Layers that compute something again add it to their backward passes; ZeRO 2 that reduces after each
run of micro-batches adds these reductions to what ZeRO 1 does. Where the other layout fits, one that does
all of this and more cannot win (`Lighter`). Not told are schedules that put a forward and a backward pass
together op by op, whose order hangs on how long each op is; links that jobs share; stragglers; activations
that leave for the host, of which less leaves where more is computed again. A layout of which something leaves
for the host (`ersatz.sim.search.host.away`) does all that it does otherwise, and more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.layout import Chunk, chunk_params
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.search.choices import RECOMPUTE
from ersatz.sim.search.host.away import lesser, same_activations, updates_alone
from ersatz.sim.search.least.bounds import Bounds
from ersatz.sim.search.least.prices import Array, part_chunks
from ersatz.sim.search.pricing import Row
from ersatz.sim.search.space import (
    BOTH_WAYS,
    CP,
    DP,
    DUAL,
    DUALV,
    EP,
    ETP,
    HOST,
    LOOPED,
    PP,
    RECOMP,
    SCHEDULE,
    SHARD,
    TP,
    VP,
    ZBV,
    ZERO,
    M,
    layout_of,
)
from ersatz.sim.step.bench import Bench
from ersatz.sim.step.program import ticks
from ersatz.sim.step.traffic.offload import HostCopies
from ersatz.sim.step.traffic.weights import Bucket

NONE = RECOMPUTE.index("none")
COLUMNS = (TP, CP, EP, ETP, PP, DP, SHARD, ZERO)  # on which groups and collectives depend


@dataclass(slots=True)
class Closer:
    """Bounds rows one by one; what they share is kept."""

    bounds: Bounds
    benches: dict[tuple[int, ...], Bench] = field(default_factory=dict)
    exchanged: dict[tuple[int, ...], Array] = field(default_factory=dict)
    reduced: dict[tuple[tuple[int, ...], Chunk], float] = field(default_factory=dict)

    def seconds(self, row: Row) -> float:
        """Return the least time of a step of a row; 0 where nothing travels all the time, or nothing can."""
        try:
            return self._travels(row)
        except InfeasibleError:  # which its price will say
            return 0.0

    def _travels(self, row: Row) -> float:
        if row[ZERO] == 3:
            split = self.bounds.split(row[SCHEDULE], row[PP], row[VP])
            return row[M] / split.lines * float((split.stage @ self._exchange(row)).max())
        return self._reduced(row) if row[ZERO] == 2 else 0.0

    def _bench(self, row: Row) -> tuple[tuple[int, ...], Bench]:
        key = *(row[column] for column in COLUMNS), row[SCHEDULE] == DUAL
        if key not in self.benches:
            scenario = layout_of(self.bounds.scenario, row)
            self.benches[key] = Bench(scenario, self.bounds.pool, self.bounds.timer)
        return key, self.benches[key]

    def _exchange(self, row: Row) -> Array:
        """Return the seconds of ZeRO 3's two gathers and its reduction, by part."""
        key, bench = self._bench(row)
        if key not in self.exchanged:
            self.exchanged[key] = np.array([
                _exchanged(bench, chunk) for chunk in part_chunks(bench.scenario.model)
            ])  # fmt: skip
        return self.exchanged[key]

    def _reduced(self, row: Row) -> float:
        """Return the seconds of all reductions of a stage that has as many as any."""
        stack = self.bounds.pool.stack
        if stack.zero2_reduce == "run" and stack.overlap_grad_reduce:
            stage, count = reductions(row)
        elif self._bench(row)[1].traffic.reduces_each_time:
            stage, count = row[PP] // 2, row[M]
        else:
            return 0.0
        split = self.bounds.split(row[SCHEDULE], row[PP], row[VP])
        key, bench = self._bench(row)
        seconds = 0.0
        for chunk in split.held[stage]:
            if (key, chunk) not in self.reduced:
                self.reduced[key, chunk] = _sum(bench, bench.buckets(chunk))
            seconds += self.reduced[key, chunk]
        return count / split.lines * seconds


def reductions(row: Row) -> tuple[int, int]:
    """Return a stage and how many runs of micro-batches of all lines go back through each of its chunks.

    Closed forms of `ersatz.sim.plan.orders`; no more than the schedule has there.
    """
    schedule, p, m = row[SCHEDULE], row[PP], row[M]
    if schedule == ZBV:
        return p // 2, m - p
    if schedule in (DUAL, DUALV):  # where both ways meet each pass back is a run
        return (p if schedule == DUALV else p // 2) - 1, m
    return p // 2, m // p if schedule == LOOPED else 1


def copied(scenario: Scenario, pool: Pool) -> Array:
    """Return the seconds in which this rank's shards of weights come from the host, by part."""
    host, model = HostCopies(scenario, pool), scenario.model
    moved = [host.shards(_whole(scenario, chunk)) if chunk.runs else None
             for chunk in part_chunks(model)]  # fmt: skip
    return np.array([one.seconds if one else 0.0 for one in moved])


def _whole(scenario: Scenario, chunk: Chunk) -> list[Bucket]:
    """Return all weights of a chunk as they are gathered."""
    weights = chunk_params(scenario.model, chunk, scenario.parallel)
    return [Bucket(group, params, True, 0, 0)
            for group, params in zip(("dp", "edp"), weights, strict=True)]  # fmt: skip


def _exchanged(bench: Bench, chunk: Chunk) -> float:
    if not chunk.runs:
        return 0.0
    found = _whole(bench.scenario, chunk)
    gathered = math.fsum(
        ticks(moved.seconds) for one in found for _, moved in bench.traffic.gather(one)
    )
    each = bench.traffic.reduces_each_time  # not where a pipeline sums whole gradients first
    return 2 * gathered + (_sum(bench, found) if each else 0.0)


def _sum(bench: Bench, buckets: Sequence[Bucket]) -> float:
    """Return the seconds of summing the gradients of some buckets."""
    return math.fsum(
        ticks(moved.seconds) for one in buckets for _, moved in bench.traffic.reduce(one)
    )


@dataclass(slots=True)
class Lighter:
    """Tells which rows of a space are no slower than another, whatever devices and links are like."""

    scenario: Scenario

    def of(self, row: Row) -> Iterator[Row]:
        """Yield the rows of which a row does all, and more."""
        if self._uneven:
            return
        way, both = row[HOST], row[SCHEDULE] in BOTH_WAYS
        yield from ((*row[:HOST], less, *row[HOST + 1 :]) for less in lesser(way)
                    if not both or same_activations(less, way))  # fmt: skip
        if both or self._copies or not updates_alone(way):
            return
        if row[RECOMP] != NONE:
            yield (*row[:RECOMP], NONE, *row[RECOMP + 1 :])
        stack = self.scenario.pools[0].stack
        late = stack.zero2_reduce == "run" or (stack.zero2_reduce == "step" and row[PP] > 1)
        if row[ZERO] == 2 and late and stack.zero2_gather == "step":
            yield (*row[:ZERO], 1, *row[ZERO + 1 :])

    @property
    def _uneven(self) -> bool:
        """Tell whether times of a step are other than sums and maxima of fixed ones."""
        s = self.scenario
        slow = s.stragglers.ranks or s.stragglers.fraction > 0
        shared = s.fabric is not None and s.fabric.contention
        return bool(slow or shared)

    @property
    def _copies(self) -> bool:
        """Tell whether layers exchange anything with the host in any case."""
        return HostCopies(self.scenario, self.scenario.pools[0]).there


@dataclass(slots=True)
class Needless:
    """Which rows need no price: one that does less fits, or is needless itself."""

    lighter: Lighter
    rows: set[Row] = field(default_factory=set)  # that fit, or do all that one does which fits

    def tells(self, row: Row) -> bool:
        """Tell whether a row cannot win, and note it."""
        found = not self.rows.isdisjoint(self.lighter.of(row))
        if found:
            self.rows.add(row)
        return found

    def left(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows of a lot that need a price, unless others of it turn out not to fit."""
        there = Needless(self.lighter, set(self.rows))
        found = []
        for row in rows:
            if not there.tells(row):
                found.append(row)
                there.rows.add(row)
        return found
