"""Pictures of fleets under schedulers, as SVG: the same bytes for the same run.

Per policy who held which node, use by accelerator type beside its capacity, the heat of the leaves;
for all policies together queue length, distributions of completion time and delay, and fragmentation.
All policies have one time axis, so that they can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ersatz.sim.fleet.compare import Outcome
from ersatz.sim.fleet.judge.metrics import JobRow, Series, job_table, series
from ersatz.sim.fleet.log import Log
from ersatz.sim.report.pictures.charts import line_chart, log_ticks, panels
from ersatz.sim.report.pictures.fleet_gantt import gantt, leaf_heat, time_unit
from ersatz.sim.report.pictures.frame import (
    COLOURS,
    INK,
    Frame,
    area,
    colours_for,
    curve,
    draw,
    keyed,
    words,
)

STEPS = 400  # points of a curve over time
LIMIT = "#d55e00"
TIMES_S = (1, 10, 60, 600, 3600, 36000, 86400, 864000, 8640000)  # marks of a logarithmic axis


def pictures(outcomes: Sequence[Outcome], draws: int = 1) -> dict[str, str]:
    """Return all pictures by file name; `outcomes` has one run per policy, the first of `draws`."""
    files: dict[str, str] = {}
    runs = {o.policy: series(o.log) for o in outcomes}
    tables = {o.policy: list(job_table(o.log).values()) for o in outcomes}
    end = max((o.log.end_s for o in outcomes), default=1.0) or 1.0
    drawn = f" (draw 1 of {draws})" if draws > 1 else ""
    for o in outcomes:
        files[f"{o.policy}.gantt.svg"] = gantt(o.log, f"{o.policy}{drawn}", end)
        files[f"{o.policy}.use.svg"] = use(o.log, runs[o.policy], f"{o.policy}{drawn}", end)
        files[f"{o.policy}.leaves.svg"] = leaf_heat(o.log, f"{o.policy}{drawn}", end)
    queues = {p: thinned(s.times_s, s.queue, end) for p, s in runs.items() if s.times_s}
    files["queue.svg"] = _queue(f"Jobs that wait{drawn}", queues, end)
    free = {p: thinned(s.times_s, s.unusable, end) for p, s in runs.items() if s.times_s}
    files["fragmentation.svg"] = _fragmentation(drawn, free, end)
    files["completion.svg"] = distribution(f"Completion time{drawn}", tables, _completion)
    files["delay.svg"] = distribution(f"Delay until the first start{drawn}", tables, _delay)
    return files


def _completion(row: JobRow) -> float:
    return row.jct_s if row.end_s >= 0 else -1.0


def _delay(row: JobRow) -> float:
    return row.wait_s if row.first_start_s >= 0 else -1.0


Line = list[tuple[float, float]]


def thinned(times: Sequence[float], values: Sequence[float], end: float) -> Line:
    """Return at most `STEPS` means over even stretches of time of a step function, to its end."""
    if len(times) <= STEPS:
        return [*zip(times, values, strict=True), (max(times[-1], 0.0), values[-1])]
    edges = np.linspace(0.0, end, STEPS + 1)
    known, held = np.array(times), np.array(values)
    until = np.interp(edges, known, np.append(0.0, np.cumsum(held[:-1] * np.diff(known))))
    covered = np.diff(np.clip(edges, known[0], known[-1]))
    means = np.diff(until) / np.where(covered > 0, covered, 1.0)
    return [*zip(edges[:-1][covered > 0].tolist(), means[covered > 0].tolist(), strict=True)]


def use(log: Log, run: Series, title: str, end_s: float = 0.0) -> str:
    """Return the devices in use of each accelerator type, below those that are up and those there are."""
    end_s = max(end_s, log.end_s) or 1.0
    unit, word = time_unit(end_s)
    shown = []
    for i, (kind, held) in enumerate(run.held.items()):
        there = log.cluster.devices_of(kind)
        mean = _mean(run.times_s, held) / (there or 1)
        frame = Frame(
            f"{kind}: {there:,} devices, {100 * mean:.0f} % in use on average", f"{word} since the start",
            "devices", (0.0, end_s / unit), (0.0, 1.12 * there or 1.0), width=960, height=190,
        )  # fmt: skip
        points = [(t / unit, v) for t, v in thinned(run.times_s, held, end_s)]
        up = [(t / unit, v) for t, v in thinned(run.times_s, run.up[kind], end_s)]
        colour = COLOURS[i % len(COLOURS)]
        frame = keyed(frame, {"in use": colour, "up": INK, "dotted: capacity": LIMIT})
        across = [(0.0, float(there)), (end_s / unit, float(there))]
        shown.append(draw(frame, [
            area(frame, [(t, 0.0) for t, _ in points], points, colour, steps=True),
            curve(frame, across, LIMIT, dash="2 4"), curve(frame, up, INK, steps=True),
        ]))  # fmt: skip
    return panels(f"{title}: devices in use by type", shown, 960)


def _mean(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the mean over time of values that hold until the next."""
    held = math.fsum(v * (times[i + 1] - times[i]) for i, v in enumerate(values[:-1]))
    return held / ((times[-1] - times[0]) or 1.0) if times else 0.0


def _queue(title: str, lines: Mapping[str, Line], end: float) -> str:
    unit, word = time_unit(end)
    highest = max((v for line in lines.values() for _, v in line), default=1.0) or 1.0
    frame = Frame(title, f"{word} since the start", "jobs", (0.0, end / unit), (0.0, 1.06 * highest),
                  width=960)  # fmt: skip
    return line_chart(
        frame, {p: [(t / unit, v) for t, v in line] for p, line in lines.items()}, steps=True
    )


def _fragmentation(drawn: str, lines: Mapping[str, Line], end: float) -> str:
    """A panel per policy: several step curves over each other cannot be read."""
    unit, word = time_unit(end)
    paint = colours_for(list(lines))
    shown = []
    for policy, line in lines.items():
        times, values = zip(*line, strict=True)
        frame = Frame(f"{policy}: {100 * _mean(times, values):.0f} % on average", f"{word} since the start",
                      "share", (0.0, end / unit), (0.0, 1.05), width=960, height=150)  # fmt: skip
        points = [(t / unit, v) for t, v in line]
        flat = [(t, 0.0) for t, _ in points]
        shown.append(draw(frame, [area(frame, flat, points, paint[policy], steps=True)]))
    title = f"Free devices that the mix of jobs cannot use, per node{drawn}"
    return panels(title, shown, 960)


def distribution(
    title: str, tables: Mapping[str, Sequence[JobRow]], value: Callable[[JobRow], float]
) -> str:
    """Return cumulative distributions over jobs, time on a logarithmic axis.

    The axis begins at the decade of the shortest time of a second or more; a curve begins at the
    share of jobs below that, which its name states.
    """
    values = {p: sorted(v for r in rows if (v := value(r)) >= 0) for p, rows in tables.items()}
    some = [v for row in values.values() for v in row if v >= 1.0] or [1.0, 10.0]
    low, high = math.floor(math.log10(min(some))), math.log10(max(some)) + 0.02
    edge = 10.0**low
    lines = {}
    for policy, found in values.items():
        below = sum(v < edge for v in found)
        name = (
            f"{policy}: {100 * below / len(found):.0f} % below {_time(edge)}" if below else policy
        )
        every = max(len(found) // STEPS, 1)
        kept = [(math.log10(v), (i + 1) / len(found)) for i, v in enumerate(found)
                if v >= edge and (i % every == 0 or i == len(found) - 1)]  # fmt: skip
        lines[name] = [(float(low), below / len(found) if found else 0.0), *kept, (high, 1.0)]
    names = log_ticks(low, high, TIMES_S, _time)
    frame = Frame(title, "time, logarithmic", "share of jobs", (float(low), max(high, low + 0.5)),
                  (0.0, 1.02), x_names=names, width=960)  # fmt: skip
    if not any(values.values()):
        return draw(frame, [words(480, 190, "no job", anchor="middle")])
    return line_chart(frame, lines, steps=True)


def _time(value: float) -> str:
    for word, scale in (("day", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if value >= scale * 0.999:
            count = f"{value / scale:.3g}"
            return f"{count} {word}{'s' if word == 'day' and count != '1' else ''}"
    return f"{value:.3g} s"
