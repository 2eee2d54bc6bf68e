"""The pictures of `ersatz plan --out`: layouts by time and memory, devices by time and money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ersatz.sim.report.pictures.charts import dot_chart
from ersatz.sim.report.pictures.frame import COLOURS, Frame, frame_of
from ersatz.sim.report.planning import DAY, Told
from ersatz.sim.scenario.scenario import layout_words
from ersatz.sim.search.wish import Planned, front

GIB = 2.0**30


def plan_pictures(planned: Planned, plans: Sequence[Told]) -> dict[str, str]:
    """Return the pictures by file name; money only where there is some."""
    found = {}
    if plans:
        found["plan-memory.svg"] = memory_picture(plans)
    every = [*planned.options, *planned.others]
    if len([one for one in every if one.result.cost and one.result.job]) > 1:
        found["plan-money.svg"] = money_picture(planned)
    return found


def memory_picture(plans: Sequence[Told]) -> str:
    """Return the layouts of other kinds by step time and memory."""
    points = [(told.seconds, told.chosen.price.peak_bytes / GIB) for told in plans]
    capacity = plans[0].scenario.pools[0].node.device.memory_bytes / GIB
    title = f"Layouts that differ in kind, on devices of {capacity:.0f} GiB"
    frame = _wide(frame_of(title, "seconds of a step", "GiB at the peak", [points], zero=False))
    names = [layout_words(told.scenario) for told in plans]
    return dot_chart(frame, list(zip(points, names, strict=True)), COLOURS[0])


def money_picture(planned: Planned) -> str:
    """Return choices of devices by days and cost, the front of both joined by a line."""
    every = [
        one for one in (*planned.options, *planned.others) if one.result.cost and one.result.job
    ]
    currency = every[0].result.cost.currency if every[0].result.cost else ""
    points = [
        (one.wall_s / DAY, one.result.cost.total if one.result.cost else 0.0) for one in every
    ]
    frame = _wide(frame_of("Choices of devices", "days of the job", currency, [points]))
    names = [f"{one.devices:,} x {one.scenario.pools[0].node.device.name}" for one in every]
    best = [(one.wall_s / DAY, one.result.cost.total) for one in front(every) if one.result.cost]
    return dot_chart(frame, list(zip(points, names, strict=True)), COLOURS[0], best)


def _wide(frame: Frame) -> Frame:
    """Leave room beside the first and the last point."""
    low, high = frame.x
    edge = 0.05 * (high - low) or 0.05 * high or 1.0
    lowest, highest = frame.y
    below = 0.1 * (highest - lowest) if lowest > 0 else 0.0  # where the axis does not begin at zero
    return replace(frame, x=(low - edge, high + edge), y=(lowest - below, highest + below))
