"""The fastest layout that fits, proved: rows in the order of their bound, exact until none can win.

A row whose bound is not below the best exact time so far cannot win, nor can any after it. So the search
ends with the winner as soon as the next bound reaches it. It then goes on until it has `kinds` layouts
that differ in kind; of those each is the first of its kind that fits, in the order of bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ersatz.device_models.text.units import format_bytes
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.plan.memory.verdict import room_for_sure
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.bounds import Bounds
from ersatz.sim.search.pricing import NO_STEP, InPlace, Price, Pricer, Row
from ersatz.sim.search.space import (
    COLUMNS,
    CP,
    EP,
    PP,
    SCHEDULE,
    TP,
    ZERO,
    Rows,
    Space,
    layout_of,
)

KINDS = 10
AHEAD = 64  # rows that are told to a pricer at once
MOST_OTHERS = 200  # rows that are priced for other kinds, once the winner is proved
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
    plans: dict[tuple[int, ...], Priced] = {}
    checked = timed = others = 0
    left = 0.0
    roomier: Priced | None = None
    best = NO_STEP
    for row, bound in _told_ahead(pricer, space.rows, order, seconds):
        one = Priced(row, bound, Price(0.0, "", 0.0))
        proved = bound >= best
        if proved:
            if _enough(plans, bound, kinds) or others >= MOST_OTHERS:
                break
            if one.kind in plans:
                continue
            others += 1
        if most is not None and timed >= most and not proved:
            left = 1.0 - bound / best
            break
        one = one._replace(price=pricer.price(row))
        checked += 1
        if one.price.seconds == NO_STEP:
            if roomier is None and not proved and one.price.peak_bytes < NO_STEP:
                roomier = one
            continue
        timed += 1
        best = min(best, one.price.seconds)
        known = plans.get(one.kind)
        if known is None or one.price.seconds < known.price.seconds:
            plans[one.kind] = one
    if not plans:
        raise InfeasibleError(no_room(space, bounds, least))
    if roomier is not None:  # the peak of all its stages
        peak = plan_memory(layout_of(space.scenario, roomier.row), advise=False).peak_bytes
        roomier = roomier._replace(price=roomier.price._replace(peak_bytes=peak))
    ranked = sorted(plans.values(), key=lambda one: (one.price.seconds, one.row))[:kinds]
    return Found(
        space.scenario, tuple(ranked), len(space.rows), len(order), checked, timed, roomier, left
    )  # fmt: skip


def _enough(plans: dict[tuple[int, ...], Priced], bound: float, kinds: int) -> bool:
    """Tell whether no further kind can be among the first ones."""
    times = sorted(one.price.seconds for one in plans.values())
    return len(times) >= kinds and bound >= times[kinds - 1]


def _order(
    space: Space, bounds: Bounds, least: str
) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Return the rows that may fit, those with the least bound first, and all bounds."""
    capacity = space.scenario.pools[0].node.device.memory_bytes
    room = room_for_sure(1.0) if least == "fits" else 1.0 / room_for_sure(1.0)
    may = np.flatnonzero(bounds.bytes(space.rows) * room <= capacity)
    seconds = np.full(len(space.rows), NO_STEP)
    seconds[may] = bounds.seconds(space.rows[may])
    return may[np.argsort(seconds[may], kind="stable")], seconds


def _told_ahead(pricer: Pricer, rows: Rows, order, seconds) -> Iterator[tuple[Row, float]]:  # type: ignore[no-untyped-def]
    """Yield rows with their bounds in order; the pricer is told some ahead."""
    for at in range(0, len(order), AHEAD):
        some = order[at : at + AHEAD]
        listed = [tuple(row) for row in rows[some].tolist()]
        pricer.expect(listed)
        yield from zip(listed, seconds[some].tolist(), strict=True)


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
        (plan_memory(layout_of(space.scenario, row), advise=False).peak_bytes, tuple(row))
        for row in space.rows[order].tolist()
    ]
    peak, row = min(tried)
    words = ", ".join(f"{name} {value}" for name, value in zip(COLUMNS, row, strict=True)
                      if name in ("tp", "cp", "ep", "pp", "zero", "dp"))  # fmt: skip
    room = f"{format_bytes(room_for_sure(peak))} to fit for sure" if least == "fits" else ""
    return (
        f"none of {len(space.rows):,} layouts fits into {format_bytes(device.memory_bytes)} of"
        f" {device.title}: the least that one needs is {format_bytes(peak)} ({words}){room and f', {room}'}"
        f"; least change: more devices, a smaller batch per rank, or devices with more memory"
    )
