"""The fastest layout that fits, proved: rows in the order of their bound, exact until none can win.

A row whose bound is not below the best exact time so far cannot win, nor can any after it. So the search
ends with the winner as soon as the next bound reaches it. Nor can a row win that does all that another
does which fits, and more (`ersatz.sim.search.least.spared`): it is passed over. The search then goes on until
it has `kinds` layouts that differ in kind; of those each is the first of its kind that fits, in the order
of bounds. What has something on the host comes in a second pass (`ersatz.sim.search.host.second`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush, nsmallest
from typing import NamedTuple

import numpy as np

from ersatz.device_models.text.units import format_bytes
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.plan.memory.verdict import room_for_sure
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.host.away import words_of_way
from ersatz.sim.search.host.second import Second, in_way, ways_for
from ersatz.sim.search.least.bounds import Bounds
from ersatz.sim.search.least.spared import Closer, Lighter, Needless
from ersatz.sim.search.least.ways import ROUNDED, least_way
from ersatz.sim.search.pricing import NO_STEP, InPlace, Price, Pricer, Row
from ersatz.sim.search.space import (
    COLUMNS,
    CP,
    EP,
    HOST,
    PP,
    SCHEDULE,
    TP,
    ZERO,
    M,
    Space,
    layout_of,
)
from ersatz.sim.step.longer import MOST as MOST_FOLLOWED
from ersatz.sim.step.step import shares_links, unshared

Order = np.ndarray[tuple[int], np.dtype[np.intp]]
Seconds = np.ndarray[tuple[int], np.dtype[np.float64]]
KINDS = 10
SOON = 128  # rows whose bounds are made closer at least
AGAIN = 16  # rows, after which a pricer is told anew what comes next
MOST_OTHERS = 200  # rows that are priced for other kinds, once the winner is proved
FEW_OTHERS = 1  # ... where collectives share links: each takes seconds
SMALLEST = 64  # rows that are priced to say how far an empty space is from one that fits


class Priced(NamedTuple):
    """A layout with its bound and its exact price."""

    row: Row
    bound_s: float
    price: Price

    @property
    def kind(self) -> tuple[int, ...]:
        """What makes a layout differ in kind: how ranks are dealt out, the schedule, full sharding."""
        r = self.row
        return r[TP], r[CP], r[PP], r[EP], r[SCHEDULE], int(r[ZERO] == 3)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, and what it did for that."""

    scenario: Scenario
    plans: tuple[Priced, ...]  # the fastest first, each of another kind
    layouts: int  # of the space
    may_fit: int  # that the bound on memory leaves
    checked: int  # whose memory was worked out
    timed: int  # whose step was
    roomier: Priced | None  # of what the winner's proof met: the least bound that does not fit
    left: float = 0.0  # share by which a layout that was not timed could be faster at most
    away: int = 0  # layouts with something on the host whose bounds were below the fastest without

    @property
    def best(self) -> Scenario:
        """The scenario with the fastest layout."""
        return layout_of(self.scenario, self.plans[0].row)


def search(
    space: Space, bounds: Bounds | None = None, pricer: Pricer | None = None, *,
    least: str = "fits", kinds: int = KINDS, most: int | None = None,
) -> Found:  # fmt: skip
    """Return the fastest layouts of a space whose memory is at least `least` (fits, tight).

    After `most` exact steps it ends without a proof, and `left` says what that may cost.
    Raises `InfeasibleError` where no layout can be run, with what emptied the space.
    """
    if not len(space.rows):
        raise InfeasibleError(no_layout(space))
    bounds = bounds or Bounds(space.scenario)
    pricer = pricer or InPlace(space.scenario, least)
    order, seconds = _order(space, bounds, least)
    needless, closer = Needless(Lighter(space.scenario)), Closer(bounds)
    sharing = shares_links(space.scenario)
    others = FEW_OTHERS if sharing else MOST_OTHERS
    walk = _Walk(pricer, needless, kinds, most, others)
    alone = InPlace(unshared(space.scenario), least, bounds.timer) if sharing else None
    walk.through(_Queue(space, bounds, order, seconds, closer, alone).rows(pricer, needless))
    second = Second(space, bounds, closer, _room(least))
    never = np.setdiff1d(np.arange(len(space.rows)), order, assume_unique=True)
    queue = second.rows(walk.here, never, walk.best)
    away = len(queue)
    walk.through(_in_order(queue, pricer, needless))
    if not walk.plans:
        raise InfeasibleError(no_room(space, bounds, least))
    roomier = walk.roomier
    if roomier is not None:  # the peak of all its stages
        peak = plan_memory(layout_of(space.scenario, roomier.row), advise=False).peak_bytes
        roomier = roomier._replace(price=roomier.price._replace(peak_bytes=peak))
    ranked = sorted(walk.plans.values(), key=lambda one: (one.price.seconds, one.row))[:kinds]
    return Found(
        space.scenario, tuple(ranked), len(space.rows), len(order), walk.checked, walk.timed, roomier,
        walk.left, away,
    )  # fmt: skip


@dataclass(slots=True)
class _Walk:
    """Prices rows in the order of their bounds, and keeps what came of it."""

    pricer: Pricer
    needless: Needless
    kinds: int
    most: int | None
    most_others: int
    plans: dict[tuple[int, ...], Priced] = field(default_factory=dict)
    here: list[tuple[Row, float]] = field(default_factory=list)  # priced ones with their bounds
    checked: int = 0
    timed: int = 0
    others: int = 0
    left: float = 0.0
    best: float = NO_STEP
    roomier: Priced | None = None

    def through(self, rows: Iterator[tuple[Row, float]]) -> None:
        """Go through rows until no other can win, and there are kinds enough."""
        for row, bound in rows:
            one = Priced(row, bound, Price(0.0, "", 0.0))
            proved = bound >= self.best
            if proved:
                if _enough(self.plans, bound, self.kinds) or self.others >= self.most_others:
                    break
                if one.kind in self.plans:
                    continue
                self.others += 1
            if self.needless.tells(row):
                continue
            if self.most is not None and self.timed >= self.most and not proved:
                self.left = max(self.left, 1.0 - bound / self.best)
                break
            self._price(one, proved)

    def _price(self, one: Priced, proved: bool) -> None:
        one = one._replace(price=self.pricer.price(one.row))
        self.checked += 1
        if one.price.peak_bytes < NO_STEP and not proved:
            self.here.append((one.row, one.bound_s))
        if one.price.seconds == NO_STEP:
            if self.roomier is None and not proved and one.price.peak_bytes < NO_STEP:
                self.roomier = one
            return
        self.timed += 1
        self.needless.rows.add(one.row)
        self.best = min(self.best, one.price.seconds)
        known = self.plans.get(one.kind)
        if known is None or one.price.seconds < known.price.seconds:
            self.plans[one.kind] = one


def _in_order(
    heap: list[tuple[float, Row]], pricer: Pricer, needless: Needless
) -> Iterator[tuple[Row, float]]:
    """Yield the rows of a heap with their bounds; the pricer is told some ahead."""
    while heap:
        if pricer.ahead:
            pricer.expect(needless.left([row for _, row in nsmallest(pricer.ahead, heap)]))
        for _ in range(min(AGAIN, len(heap))):
            bound, row = heappop(heap)
            yield row, bound


def _enough(plans: dict[tuple[int, ...], Priced], bound: float, kinds: int) -> bool:
    """Tell whether no further kind can be among the first ones."""
    times = sorted(one.price.seconds for one in plans.values())
    return len(times) >= kinds and bound >= times[kinds - 1]


def _order(space: Space, bounds: Bounds, least: str) -> tuple[Order, Seconds]:
    """Return the rows that may fit, those with the least bound first, and all bounds."""
    capacity = space.scenario.pools[0].node.device.memory_bytes
    may = np.flatnonzero(bounds.bytes(space.rows) * _room(least) <= capacity)
    seconds = np.full(len(space.rows), NO_STEP)
    seconds[may] = bounds.seconds(space.rows[may])
    return may[np.argsort(seconds[may], kind="stable")], seconds


def _room(least: str) -> float:
    """Return the factor on a peak that must stay within the device for a verdict."""
    return room_for_sure(1.0) if least == "fits" else 1.0 / room_for_sure(1.0)


@dataclass(slots=True)
class _Queue:
    """Rows in the order of their bounds, which are made closer for those that come soon."""

    space: Space
    bounds: Bounds
    order: Order  # rows that may fit, those with the least bound first
    seconds: Seconds  # bounds of all rows
    closer: Closer
    alone: InPlace | None  # prices rows with links of their own, where collectives share links
    _soon: list[tuple[float, int, Row]] = field(default_factory=list)  # a heap, closer bounds first
    _closest: set[Row] = field(default_factory=set)  # rows whose bound cannot be made closer
    _next: int = 0  # place in the order of the first row that is not there

    def rows(self, pricer: Pricer, needless: Needless) -> Iterator[tuple[Row, float]]:
        """Yield rows with their bounds; the pricer is told some ahead, so that nobody waits."""
        while True:
            self._fill()
            if not self._soon:
                return
            if pricer.ahead:
                pricer.expect(needless.left(self._next_rows(pricer.ahead)))
            for _ in range(min(AGAIN, len(self._soon))):
                self._fill()
                bound, number, row = heappop(self._soon)
                if row in self._closest or needless.tells(row):
                    yield row, bound
                else:
                    self._come_closer(bound, number, row)

    def _next_rows(self, count: int) -> list[Row]:
        """Return some rows that come next, whose bounds are as close as can be."""
        for bound, number, row in [heappop(self._soon) for _ in range(min(count, len(self._soon)))]:
            self._come_closer(bound, number, row)
        return [row for *_, row in nsmallest(count, self._soon) if row in self._closest]

    def _come_closer(self, bound: float, number: int, row: Row) -> None:
        """Put a row back with its closest bound."""
        if row not in self._closest:
            self._closest.add(row)
            bound = max(bound, self._closer(row))
        heappush(self._soon, (bound, number, row))

    def _closer(self, row: Row) -> float:
        """Return the time of a step with links of its own: with shared ones no collective is shorter.

        Where none are shared, or it does not fit, or its last micro-batches are not followed, what the
        first micro-batch takes to get in and the last to get out.
        """
        if self.alone is None:
            return least_way(self.bounds, row)
        seconds = self.alone.price(row).seconds if row[M] <= MOST_FOLLOWED else NO_STEP
        return seconds * (1.0 - ROUNDED) if seconds < NO_STEP else least_way(self.bounds, row)

    def _fill(self) -> None:
        """Have enough rows there, and all whose bound is below the first's."""
        while self._next < len(self.order):
            some = self.order[self._next : self._next + AGAIN]
            if len(self._soon) >= SOON and self.seconds[some[0]] > self._soon[0][0]:
                return
            for number, bound, row in zip(some.tolist(), self.seconds[some].tolist(),
                                          self.space.rows[some].tolist(), strict=True):  # fmt: skip
                one = tuple(row)
                heappush(self._soon, (max(bound, self.closer.seconds(one)), number, one))
            self._next += len(some)


def no_layout(space: Space) -> str:
    """Say which condition leaves nothing of a space."""
    s = space.scenario
    what = (
        f"{s.model.name} on {s.devices:,} devices with {s.training.global_batch:,} sequences a step"
    )
    held = ", ".join(f"{axis} {value}" for axis, value in space.held.items())
    left = "; ".join(f"{name}: {count:,}" for name, count in space.left.items()) or "no tp suits"
    text = f"no layout of {what} can be made{f' with {held}' if held else ''};"
    text += f" ways left after each condition: {left}"
    if "dp divides the global batch" not in space.left:
        text += (
            f"; least change: a global batch that is a multiple of {s.devices:,} / (tp x cp x pp)"
        )
    elif held:
        text += "; least change: leave one of these open"
    return text


def no_room(space: Space, bounds: Bounds, least: str) -> str:
    """Say how much memory the least demanding layout needs, and how that compares to the device's."""
    device = space.scenario.pools[0].node.device
    needs = bounds.bytes(space.rows)
    order = np.argsort(needs, kind="stable")[:SMALLEST]
    tried = [
        (plan_memory(layout_of(space.scenario, one), advise=False).peak_bytes, one)
        for row in map(tuple, space.rows[order].tolist())
        for one in (row, *(in_way(row, way) for way in ways_for(row, space.choices.away)))
    ]
    peak, row = min(tried)
    words = ", ".join(f"{name} {value}" for name, value in zip(COLUMNS, row, strict=True)
                      if name in ("tp", "cp", "ep", "pp", "zero", "dp"))  # fmt: skip
    words += f", {words_of_way(row[HOST])}" if row[HOST] else ""
    room = f"{format_bytes(room_for_sure(peak))} to fit for sure" if least == "fits" else ""
    return (
        f"none of {len(space.rows):,} layouts fits into {format_bytes(device.memory_bytes)} of"
        f" {device.title}: the least that one needs is {format_bytes(peak)} ({words}){room and f', {room}'}"
        f"; least change: more devices, a smaller batch per rank, or devices with more memory"
    )
