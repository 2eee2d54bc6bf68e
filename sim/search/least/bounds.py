"""Bounds on a step and on memory for all layouts at once: never above what the layout really takes.

A step ends no sooner than its busiest stage: the forward passes that bring it its first micro-batch, its
own work on all of them, and, where a schedule ends with whole backward passes of the first chunk, those
on the way out. The compute stream works in order, so its blocks add up; the host launches one after the
other, and what a step costs it beside them. What ZeRO 2 and 3 move all the time (`spared`) and what messages
and the edges of the step add (`ways`) is looked at when a layout's turn comes; waits are left out. A rank
holds no less than its state and the activations in flight at the end of a forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.plan.memory import state
from ersatz.sim.plan.memory.runtime import beside
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.search.choices import SCHEDULES
from ersatz.sim.search.least.prices import (
    PASSES,
    Array,
    ShardPrices,
    Split,
    kept_bytes,
    split_of,
)
from ersatz.sim.search.space import (
    BOTH_WAYS,
    CP,
    DP,
    DUAL,
    DUALV,
    EP,
    ETP,
    LOOPED,
    MB,
    PP,
    RECOMP,
    SCHEDULE,
    SHARD,
    SP,
    TP,
    VP,
    ZBV,
    ZERO,
    M,
    Rows,
    layout_of,
)

FORWARD, BACKWARD, SPLIT_BACKWARD, SELECTIVE, FULL = range(len(PASSES))
THROUGH, BUSY, HOST = range(3)
SHARD_COLUMNS = [TP, CP, EP, ETP, SP, MB]
PIECE = 200_000  # rows at once, so that memory does not grow with the space
GPIPE, ZBH1 = SCHEDULES.index("gpipe"), SCHEDULES.index("zb-h1")
WHOLE = [SCHEDULES.index(name) for name in ("gpipe", "1f1b", "interleaved")]


def distinct(rows: Rows, columns: Sequence[int]) -> tuple[Rows, npt.NDArray[np.intp]]:
    """Return the different values of some columns, and which of them each row has."""
    part = np.ascontiguousarray(rows[:, list(columns)])
    key = np.zeros(len(part), dtype=np.int64)
    for column in part.T:
        key = key * (int(column.max(initial=0)) + 1) + column
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    return part[first], which


@dataclass(slots=True)
class Bounds:
    """Least seconds and bytes of layouts; what shards and splits cost is kept between calls."""

    scenario: Scenario
    timer: Timer = calibrated_time
    prices: ShardPrices | None = None  # of these devices, also for another number of them
    shards: dict[tuple[int, ...], Array] = field(default_factory=dict)
    kept: dict[tuple[int, ...], Array] = field(default_factory=dict)
    splits: dict[tuple[int, ...], Split] = field(default_factory=dict)
    states: dict[tuple[int, ...], float] = field(default_factory=dict)
    apart: bool = False  # some schedule that was asked for puts weight gradients off

    def __post_init__(self) -> None:
        self.prices = self.prices or ShardPrices(self.scenario.model, self.pool, self.timer)

    @property
    def pool(self) -> Pool:
        """The one pool of the job."""
        return self.scenario.pools[0]

    def seconds(self, rows: Rows) -> Array:
        """Return the least time of a step of each row, without its tail."""
        self._see(rows[:, SCHEDULE])
        return self._pieces(rows, self._seconds)

    def bytes(self, rows: Rows) -> Array:
        """Return the least memory of the first and the last stage of each row, in bytes."""
        return self._pieces(rows, self._bytes)

    def _pieces(self, rows: Rows, bound) -> Array:  # type: ignore[no-untyped-def]
        """Bound rows of the same split together, so many at once."""
        found = np.zeros(len(rows))
        splits, which = distinct(rows, [SCHEDULE, PP, VP])
        order = np.argsort(which, kind="stable")
        ends = np.searchsorted(which[order], np.arange(len(splits) + 1))
        for number, (schedule, pp, vp) in enumerate(splits.tolist()):
            mine = order[ends[number] : ends[number + 1]]
            split = self.split(schedule, pp, vp)
            for at in range(0, len(mine), PIECE):
                some = mine[at : at + PIECE]
                found[some] = bound(rows[some], split, schedule)
        return found

    def split(self, schedule: int, pp: int, vp: int) -> Split:
        """Return how the model is cut over the stages of a schedule."""
        key = schedule, pp, vp
        if key not in self.splits:
            self.splits[key] = split_of(self.scenario.model, *key)
        return self.splits[key]

    def _prices(self, shards: Rows) -> Array:
        return np.stack([self.priced(tuple(shard)) for shard in shards.tolist()])

    def priced(self, shard: tuple[int, ...]) -> Array:
        """Return the passes of all parts of a shard."""
        assert self.prices is not None
        if shard not in self.shards:
            self.shards[shard] = self.prices.of(self.scenario, shard, apart=self.apart)
        return self.shards[shard]

    def _see(self, schedules: Rows) -> None:
        """Have weight gradients priced apart from here on, if one of these schedules puts them off."""
        if not self.apart and not np.isin(schedules, WHOLE).all():
            self.apart = True
            self.shards.clear()

    def kept_of(self, shard: tuple[int, ...]) -> Array:
        """Return what a micro-batch of one sequence leaves in each part of a shard: (RECOMPUTE, parts)."""
        if shard not in self.kept:
            self.kept[shard] = kept_bytes(self.scenario, self.pool, shard)
        return self.kept[shard]

    def passes(self, rows: Rows, schedule: int) -> tuple[Array, Array]:
        """Return the least seconds of passes forward and back, with what is repeated: (rows, parts)."""
        self._see(np.array([schedule]))
        shards, which = distinct(rows, SHARD_COLUMNS)
        return _passes(self._prices(shards), which, rows, schedule)

    def _seconds(self, rows: Rows, split: Split, schedule: int) -> Array:
        shards, which = distinct(rows, SHARD_COLUMNS)
        table = self._prices(shards)
        forward, backward = _passes(table, which, rows, schedule)
        count = rows[:, M, None] / split.lines
        load = count * ((forward + backward) @ split.stage.T)
        load += _before(forward, split, schedule)
        if schedule in WHOLE:
            load += _before(backward, split, schedule)
        hosts = table[:, FORWARD, HOST] + np.minimum(
            table[:, BACKWARD, HOST], table[:, SPLIT_BACKWARD, HOST]
        )
        launched = hosts[which] + _repeated(table[:, :, HOST], which, rows[:, RECOMP])
        issued = count * (launched @ split.stage.T) + self.pool.stack.step_host_s
        found: Array = np.maximum(load, issued).max(axis=1)
        return found

    def _bytes(self, rows: Rows, split: Split, schedule: int) -> Array:
        shards, which = distinct(rows, SHARD_COLUMNS[:-1])
        kept = np.stack([self.kept_of(tuple(shard)) for shard in shards.tolist()])
        each = kept[which, rows[:, RECOMP]] * rows[:, MB, None]
        worst = np.zeros(len(rows))
        for stage in sorted({0, len(split.stage) - 1}):
            flying = in_flight(schedule, rows[:, PP], rows[:, VP], rows[:, M], stage)
            active = np.einsum("rc,ck,rk->r", flying, split.chunk[stage], each)
            worst = np.maximum(worst, self._state(rows, split, stage) + active)
        return worst

    def _state(self, rows: Rows, split: Split, stage: int) -> Array:
        columns = [TP, CP, EP, ETP, PP, DP, ZERO, SHARD, SCHEDULE, VP]
        keys, which = distinct(rows, columns)
        _, first = np.unique(which, return_index=True)
        found = []
        for key, at in zip(map(tuple, keys.tolist()), first, strict=True):
            known = self.states.get((*key, stage))
            if known is None:
                known = self.states[(*key, stage)] = self._least_state(rows[at], split, stage)
            found.append(known)
        return np.array(found)[which]

    def _least_state(self, row: Rows, split: Split, stage: int) -> float:
        """Return the bytes of a stage that stand all through the step."""
        scenario, stack = layout_of(self.scenario, row), self.pool.stack
        held = state.held_of(scenario, split.held[stage])
        found = state.weights_kept(scenario, stack, split.held[stage])
        found += state.state_kept(scenario, stack, held)
        if stack.gradient_buffer and not state.sums_step(scenario.parallel, stack):
            found += state.gradients_kept(scenario, stack, held)
        return found + sum(beside(stack, scenario.parallel, scenario.model).values())


def _passes(
    table: Array, which: npt.NDArray[np.intp], rows: Rows, schedule: int
) -> tuple[Array, Array]:
    """Return the passes of each row forward and back, from the table of all shards."""
    way = BUSY if schedule in BOTH_WAYS else THROUGH
    forward = table[:, FORWARD, way][which]
    backward = table[:, BACKWARD, way]
    if schedule not in WHOLE:
        apart = table[:, SPLIT_BACKWARD, way]
        backward = np.minimum(backward, apart) if schedule in BOTH_WAYS else apart
    return forward, backward[which] + _repeated(table[:, :, way], which, rows[:, RECOMP])


def _repeated(table: Array, which: npt.NDArray[np.intp], modes: Rows) -> Array:
    """Return what each row computes again of each part: nothing, some modules or all."""
    none = np.zeros_like(table[:, SELECTIVE])
    found: Array = np.stack([none, table[:, SELECTIVE], table[:, FULL]])[modes, which]
    return found


def _before(each: Array, split: Split, schedule: int) -> Array:
    """Return what the first chunks of the stages before a stage take, by row and stage.

    Where micro-batches enter at both ends, those of the nearer end come first.
    """
    first = each @ split.chunk[:, 0].T
    found: Array = np.cumsum(first, axis=1) - first
    if schedule == DUAL:
        other = each @ split.chunk[:, 1].T
        found = np.minimum(found, other.sum(axis=1, keepdims=True) - np.cumsum(other, axis=1))
    return found


def in_flight(schedule: int, p: Rows, v: Rows, m: Rows, stage: int) -> Array:
    """Return micro-batches whose activations stand at the end of some forward pass, by chunk.

    Closed forms of `ersatz.sim.plan.orders`; no more than the schedule's most, shape (rows, chunks).
    """
    at = np.where(stage > 0, p - 1, 0)
    if schedule == LOOPED:
        chunks = int(v.max(initial=1))
        count = np.minimum((p - at - 1) * 2 + (v - 1) * p + 1, m * v)
        rounds, rest = np.divmod(count, p * v)
        place = np.arange(chunks)[None, :]
        begun = np.clip(rest[:, None] - place * p[:, None], 0, p[:, None])
        looped: Array = ((rounds * p)[:, None] + begun).astype(float)
        return looped
    if schedule == ZBV:
        return np.stack([np.minimum(2 * p - at - 1, m), np.minimum(at, m)], axis=1).astype(float)
    if schedule == DUALV:
        return np.stack([np.minimum(2 * p - at - 1, m), np.minimum(at + 1, m)], axis=1).astype(
            float
        )
    if schedule == DUAL:
        near = np.minimum(at, p - 1 - at)
        outer = p // 2 - near - 1
        ahead, behind = 2 * outer + near + 1, near + 1
        nearer = np.stack([ahead, behind], axis=1)
        return np.where((at >= p // 2)[:, None], nearer[:, ::-1], nearer).astype(float)
    count = m if schedule == GPIPE else np.minimum(p - at, m)
    return count[:, None].astype(float)
