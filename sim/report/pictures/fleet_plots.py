"""Pictures of fleets under schedulers, as SVG: no library, the same bytes for the same run.

Per policy who held which node, use by accelerator type, how full the leaves were; for all policies
together queue length, fragmentation, and distributions of completion time and delay. All have one axis
of time, so that policies can be laid side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from ersatz.sim.fleet.compare import Outcome
from ersatz.sim.fleet.judge.metrics import JobRow, Series, job_table, series
from ersatz.sim.fleet.log import Log
from ersatz.sim.report.pictures.chart import (
    TIMES_S,
    Frame,
    area,
    colours_of,
    curve,
    legend,
    legend_rows,
    page,
    ticks,
)
from ersatz.sim.report.pictures.fleet_nodes import LEFT, WIDTH, Span, gantt, leaf_heat, span_of

STEPS = 1000  # points of a curve over time
SMOOTH = 60  # stretches of which a mean is shown, where steps would hide each other
PANEL = 110  # pixels of a panel
HEADROOM = 1.08
Line = list[tuple[float, float]]


def pictures(outcomes: Sequence[Outcome], draws: int = 1) -> dict[str, str]:
    """Return all pictures by file name; `outcomes` has one run per policy, the first of `draws`."""
    files: dict[str, str] = {}
    runs = {o.policy: series(o.log) for o in outcomes}
    tables = {o.policy: list(job_table(o.log).values()) for o in outcomes}
    span = span_of(o.log for o in outcomes)
    which = f" (draw 1 of {draws})" if draws > 1 else ""
    for o in outcomes:
        name, title = o.policy, o.policy + which
        files[f"{name}.gantt.svg"] = gantt(o.log, title, span)
        files[f"{name}.use.svg"] = use(o.log, runs[name], title, span)
        files[f"{name}.leaves.svg"] = leaf_heat(o.log, title, span)
    files["queue.svg"] = _over_time(
        f"Jobs that wait{which}", "jobs", {p: (s.times_s, s.queue) for p, s in runs.items()},
        span)  # fmt: skip
    files["fragmentation.svg"] = _shares(
        f"Free devices that the mix of jobs cannot use, per node, means{which}",
        {p: (s.times_s, s.unusable) for p, s in runs.items()}, span)  # fmt: skip
    files["completion.svg"] = distribution(f"Completion time{which}", tables, _completion)
    files["delay.svg"] = distribution(f"Delay until the first start{which}", tables, _delay)
    return files


def _completion(row: JobRow) -> float:
    return row.jct_s if row.end_s >= 0 else -1.0


def _delay(row: JobRow) -> float:
    return row.wait_s if row.first_start_s >= 0 else -1.0


def _thin(times: Sequence[float], values: Sequence[float], end: float, steps: int = STEPS) -> Line:
    """Return at most `steps` means over even stretches of time of a step function."""
    if len(times) <= steps:
        return list(zip(times, values, strict=True))
    width = end / steps
    sums = [0.0] * steps
    for i, (start, value) in enumerate(zip(times, values, strict=True)):
        stop = times[i + 1] if i + 1 < len(times) else end
        first, last = int(start / width), min(int(stop / width), steps - 1)
        for step in range(first, last + 1):
            sums[step] += value * max(min(stop, (step + 1) * width) - max(start, step * width), 0.0)
    return [(step * width, sums[step] / width) for step in range(steps)]


def use(log: Log, run: Series, title: str, span: Span) -> str:
    """Return the devices in use of each accelerator type, below those of it that are up."""
    colours = colours_of(run.held)
    panels: list[list[str]] = []
    for kind, held in run.held.items():
        frame = _panel(len(panels), max(log.cluster.devices_of(kind), 1) * HEADROOM, span)
        points = _in(span, _thin(run.times_s, held, log.end_s))
        up = _in(span, _thin(run.times_s, run.up[kind], log.end_s))
        panels += [[
            area(frame, [(t, 0.0) for t, _ in points], points, colours[kind]),
            curve(frame, up, "#222", steps=True), *_panel_text(frame, kind, log.cluster.devices_of(kind)),
        ]]  # fmt: skip
    return _stacked(f"{title}: devices in use by type", panels, {**colours, "up": "#222"}, span)


def _panel(number: int, y_max: float, span: Span) -> Frame:
    """Return the frame of one of several pictures above each other."""
    top = 56 + number * PANEL
    return Frame(WIDTH, top + PANEL - 14, span.end, y_max, LEFT, top, 0)


def _panel_text(frame: Frame, name: str, highest: int | str) -> Iterator[str]:
    """Yield the name of a panel, its highest value, and its edge."""
    right = frame.left + frame.wide
    at = frame.y(frame.y_max / HEADROOM)
    yield (f'<text x="{frame.left - 6}" y="{frame.top + frame.high / 2 + 4:.1f}"'
           f' text-anchor="end">{escape(name[:14])}</text>')  # fmt: skip
    yield f'<text x="{frame.left - 6}" y="{at + 4:.1f}" font-size="10" text-anchor="end">{highest}</text>'
    yield (f'<line x1="{frame.left}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}" stroke="#000"'
           ' stroke-opacity="0.15"/>')  # fmt: skip


def _stacked(
    title: str, panels: Sequence[Sequence[str]], colours: dict[str, str], span: Span
) -> str:
    """Return panels above each other, on one axis of time."""
    last = _panel(len(panels) - 1, 1.0, span)
    whole = Frame(WIDTH, last.height + 54, span.end, 1.0, LEFT, 56)
    body = [part for panel in panels for part in panel]
    body += [*ticks(whole, span.name, ""), *legend(whole, colours)]
    return page(whole, title, body)


def _in(span: Span, points: Line) -> Line:
    """Return points on an axis of time, held to its end."""
    line = [(t / span.unit_s, v) for t, v in points]
    return [*line, (span.end, line[-1][1])] if line else []


def _shares(title: str, runs: dict[str, tuple[list[float], Sequence[float]]], span: Span) -> str:
    """Return a panel per policy with a share from 0 to 1, as means over even stretches."""
    colours = colours_of(runs)
    panels: list[list[str]] = []
    for policy, (times, values) in runs.items():
        frame = _panel(len(panels), HEADROOM, span)
        points = _in(span, _thin(times, values, times[-1], SMOOTH)) if times else []
        panels.append([
            area(frame, [(t, 0.0) for t, _ in points], points, colours[policy]),
            *_panel_text(frame, policy, "100 %"),
        ])  # fmt: skip
    return _stacked(title, panels, colours, span)


def _over_time(
    title: str, unit_y: str, runs: dict[str, tuple[list[float], Sequence[float]]], span: Span
) -> str:
    lines = {
        p: _in(span, _thin(times, values, times[-1]))
        for p, (times, values) in runs.items()
        if times
    }
    highest = max((v for line in lines.values() for _, v in line), default=1.0) or 1.0
    colours = colours_of(runs)
    top = 38 + 18 * legend_rows(WIDTH, colours, LEFT)
    frame = Frame(WIDTH, 324 + top, span.end, highest * HEADROOM, LEFT, top)
    body = [curve(frame, line, colours[p], steps=True) for p, line in lines.items()]
    body += [*ticks(frame, span.name, unit_y), *legend(frame, colours)]
    return page(frame, title, body)


def distribution(
    title: str, tables: dict[str, list[JobRow]], value: Callable[[JobRow], float]
) -> str:
    """Return cumulative distributions over jobs, time on a logarithmic axis.

    The axis begins at the last mark before the shortest time; jobs without any delay are the height
    at which a curve begins.
    """
    values = {p: sorted(v for r in rows if (v := value(r)) >= 0) for p, rows in tables.items()}
    shortest = min((v for found in values.values() for v in found if v >= 1.0), default=1.0)
    highest = max((found[-1] for found in values.values() if found), default=10.0)
    low = math.log10(max((t for t in TIMES_S if t <= shortest), default=1.0))
    colours = colours_of(tables)
    top = 38 + 18 * legend_rows(WIDTH, colours, LEFT)
    frame = Frame(WIDTH, 324 + top, max(math.log10(max(highest, 1.0)), low + 1.0), 1.0, LEFT, top,
                  x_min=low)  # fmt: skip
    body = []
    for policy, found in values.items():
        every = max(len(found) // STEPS, 1)
        at_once = sum(v < 10.0**low for v in found)
        points = [(low, at_once / len(found))] if found else []
        points += [(math.log10(v), (i + 1) / len(found)) for i, v in enumerate(found)
                   if i >= at_once and (i % every == 0 or i == len(found) - 1)]  # fmt: skip
        body.append(curve(frame, points, colours[policy], steps=True))
    body += [*ticks(frame, "", "share of jobs", powers=True), *legend(frame, colours)]
    return page(frame, title, body)
