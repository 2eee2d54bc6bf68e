"""The second pass: layouts of which something leaves for the host, where that may win.

What leaves adds time: a host updates weights more slowly than the device, and copies hold up passes that
wait for them. So the same layout with all of it on the device is no slower, and where that fits no way of
leaving is looked at (`sim.search.least.spared.Lighter` says where this holds). What is left are layouts that
do not fit otherwise. Those whose bound is below the fastest of the first pass are bounded closer, by the
update on the host and the copies, and worked out exactly in the order of their bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify
from typing import Any

import numpy as np
import numpy.typing as npt

from ersatz.sim.plan.memory import plan_memory, state
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.choices import RECOMPUTE
from ersatz.sim.search.host.away import keys_of, lesser, parts_of, put_away, suits, words_of_way
from ersatz.sim.search.least.bounds import SHARD_COLUMNS, Bounds, distinct
from ersatz.sim.search.least.prices import Array, Split
from ersatz.sim.search.least.spared import COLUMNS, Closer, copied
from ersatz.sim.search.pricing import Price, Row
from ersatz.sim.search.space import (
    CP,
    DP,
    DUAL,
    EP,
    ETP,
    HOST,
    MB,
    PP,
    RECOMP,
    SCHEDULE,
    SHARD,
    TP,
    VP,
    ZERO,
    M,
    Rows,
    Space,
    layout_of,
)
from ersatz.sim.step.step import step_seconds
from ersatz.sim.workload.adapters import trained_share

STATE = (TP, CP, EP, ETP, PP, DP, ZERO, SHARD, SCHEDULE, VP)  # on which weights of a rank depend
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Leaving:
    """What a layout has on the host, against the same with all of it on the device."""

    words: str
    keys: Mapping[str, Any]  # of a scenario's `memory`
    more_s: float  # of a step
    less_bytes: float  # on the fullest device
    needs_bytes: float  # there, if all stayed


def leaving(scenario: Scenario, row: Row, price: Price) -> Leaving | None:
    """Return what a row's layout has on the host and what that costs; None where all stays."""
    if not row[HOST]:
        return None
    without = layout_of(scenario, in_way(row, 0))
    peak = plan_memory(without, advise=False).peak_bytes
    return Leaving(
        words_of_way(row[HOST]), keys_of(row[HOST]), price.seconds - step_seconds(without),
        peak - price.peak_bytes, peak,
    )  # fmt: skip


def in_way(row: Row, way: int) -> Row:
    """Return a row that goes another way."""
    return (*row[:HOST], way, *row[HOST + 1 :])


def ways_for(row: Row, ways: Sequence[int]) -> list[int]:
    """Return the ways that suit a row's ZeRO stage and recomputation."""
    return [way for way in ways if suits(way, row[ZERO], RECOMPUTE[row[RECOMP]])]


@dataclass(slots=True)
class Second:
    """Rows of a space in ways in which something leaves, with their bounds."""

    space: Space
    bounds: Bounds
    closer: Closer
    room: float  # factor on the least bytes that must stay within the device
    updates: dict[tuple[int, ...], float] = field(default_factory=dict)
    brought: dict[tuple[int, ...], Array] = field(default_factory=dict)
    others: dict[int, Bounds] = field(default_factory=dict)

    def rows(
        self, tight: Sequence[tuple[Row, float]], never: npt.NDArray[np.intp], best: float
    ) -> list[tuple[float, Row]]:
        """Return rows that may fit and be faster than `best`, a heap by their bounds.

        `tight` are rows of the first pass with their bounds, `never` the places of those that cannot fit.
        """
        ways = self.space.choices.away
        if not ways:
            return []
        found = [(bound, in_way(row, way)) for row, bound in tight if bound < best
                 for way in ways_for(row, ways)]  # fmt: skip
        found += self._relieved(never, best)
        closer = ((self.seconds(row, bound), row) for bound, row in found)
        kept = [(bound, row) for bound, row in closer if bound < best]
        heapify(kept)
        return kept

    def _relieved(self, never: npt.NDArray[np.intp], best: float) -> Iterator[tuple[float, Row]]:
        """Yield rows that may fit in some way, though not without, with their bounds of the first pass."""
        ways, rows = self.space.choices.away, self.space.rows[never]
        may = {way: np.zeros(len(rows), dtype=bool) for way in ways}
        out = {way: np.zeros(len(rows), dtype=bool) for way in ways}  # more leaves, and yet no room
        capacity = self.bounds.pool.node.device.memory_bytes
        for way in reversed(ways):
            some = np.flatnonzero(self._suits(rows, way) & ~out[way])
            fits = self._other(way).bytes(rows[some]) * self.room <= capacity
            for less in set(lesser(way)) & set(ways):
                out[less][some[~fits]] = True
            fits[fits] = self._copies(rows[some[fits]], way) < best
            may[way][some] = fits
        there = np.flatnonzero(np.logical_or.reduce([*may.values()]))
        seconds = self.bounds.seconds(rows[there])
        for place, bound in zip(there.tolist(), seconds.tolist(), strict=True):
            if bound < best:
                row = tuple(rows[place].tolist())
                yield from ((bound, in_way(row, way)) for way in ways if may[way][place])

    def _suits(self, rows: Rows, way: int) -> Mask:
        zero = max(part.zero for part in parts_of(way))
        modes = [RECOMPUTE.index(mode) for mode in RECOMPUTE
                 if all(mode in part.recompute for part in parts_of(way))]  # fmt: skip
        found: Mask = (rows[:, ZERO] >= zero) & np.isin(rows[:, RECOMP], modes)
        return found

    def _other(self, way: int) -> Bounds:
        """Return bounds on what stays when something leaves; activations are kept as before if they do."""
        if way not in self.others:
            bounds = self.bounds
            other = Bounds(put_away(bounds.scenario, way), bounds.timer, bounds.prices)
            other.splits = bounds.splits
            if not other.pool.stack.activation_offload:
                other.kept = bounds.kept
            self.others[way] = other
        return self.others[way]

    def seconds(self, row: Row, bound: float) -> float:
        """Return the least time of a row in its way, whose bound is `bound` without it.

        A stage's passes wait for its copies, and for weights that are gathered anew for each; its update
        comes after all passes.
        """
        way = row[HOST]
        stays = not self._other(way).pool.stack.activation_offload
        copies = 0.0 if stays else float(self._copies(np.array([row]), way)[0])
        travels = self.closer.seconds(row)
        passes = max(bound, copies, self._brought(row, way), travels if row[ZERO] == 3 else 0.0)
        return max(passes + self._update(row, way), travels)

    def _brought(self, row: Row, way: int) -> float:
        """Return the seconds in which a stage's weights come from the host, for each pass again."""
        if not self._other(way).pool.stack.weights_offload:
            return 0.0
        key = *(row[column] for column in COLUMNS), row[SCHEDULE] == DUAL, way
        if key not in self.brought:
            scenario = layout_of(self.bounds.scenario, row)
            self.brought[key] = copied(scenario, scenario.pools[0])
        split = self.bounds.split(row[SCHEDULE], row[PP], row[VP])
        each: float = 2 * (split.stage @ self.brought[key]).max()
        return row[M] / split.lines * each

    def _copies(self, rows: Rows, way: int) -> Array:
        """Return the seconds in which the activations of a stage's layers go and come, by row."""
        stack = self._other(way).pool.stack
        found = np.zeros(len(rows))
        if not stack.activation_offload:
            return found
        splits, which = distinct(rows, [SCHEDULE, PP, VP])
        for number, (schedule, pp, vp) in enumerate(splits.tolist()):
            some = np.flatnonzero(which == number)
            found[some] = self._moved(rows[some], self.bounds.split(schedule, pp, vp))
        return 2 * stack.activation_offload * found / stack.host_bandwidth

    def _moved(self, rows: Rows, split: Split) -> Array:
        """Return the bytes that the busiest stage's layers keep of all its micro-batches."""
        shards, which = distinct(rows, SHARD_COLUMNS[:-1])
        kept = np.stack([self.bounds.kept_of(tuple(shard)) for shard in shards.tolist()])
        kept[:, :, -2] = 0.0  # prediction modules
        each = kept[which, rows[:, RECOMP]] * rows[:, MB, None]
        count = rows[:, M, None] / split.lines
        most: Array = (count * (each @ split.stage.T)).max(axis=1)
        return most

    def _update(self, row: Row, way: int) -> float:
        """Return the seconds of the update at the stage that has the fewest weights."""
        key = *(row[column] for column in STATE), way
        if key not in self.updates:
            scenario = layout_of(self.bounds.scenario, row)
            stack = self._other(way).pool.stack
            sharded = not scenario.model.lora_rank
            share = trained_share(scenario.model) if scenario.model.lora_rank else 1.0
            split = self.bounds.split(row[SCHEDULE], row[PP], row[VP])
            weights = share * min(
                state.held_of(scenario, held).of(1.0, sharded=sharded) for held in split.held
            )
            rate = (
                stack.host_bandwidth / stack.optimizer_state_bytes if stack.updates_on_device
                else stack.optimizer_bandwidth / stack.optimizer_bytes_per_param
            )  # fmt: skip
            self.updates[key] = stack.optimizer_offload * weights / rate if rate else 0.0
        return self.updates[key]
