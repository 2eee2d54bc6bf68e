"""Pictures of fleets under schedulers, as SVG: no library, the same bytes for the same run.

Per policy a Gantt chart by node, use by accelerator type, the heat of the leaves; for all policies
together queue length, distributions of completion time and delay, and fragmentation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from html import escape

from ersatz.sim.fleet.compare import Outcome
from ersatz.sim.fleet.judge.metrics import JobRow, Series, job_table, series
from ersatz.sim.fleet.log import RELEASES, Log
from ersatz.sim.report.pictures.chart import COLOURS, Frame, area, curve, legend, page, rule, ticks

MOST_BARS = 40_000  # of a Gantt chart; beyond it the shortest attempts are left out
STEPS = 1000  # points of a curve over time


def pictures(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return all pictures by file name; `outcomes` has one run per policy."""
    files: dict[str, str] = {}
    runs = {o.policy: series(o.log) for o in outcomes}
    tables = {o.policy: list(job_table(o.log).values()) for o in outcomes}
    for o in outcomes:
        name = o.policy
        files[f"{name}.gantt.svg"] = gantt(o.log, o.policy)
        files[f"{name}.use.svg"] = use(o.log, runs[o.policy], o.policy)
        files[f"{name}.leaves.svg"] = leaf_heat(o.log, o.policy)
    files["queue.svg"] = _over_time(
        "Jobs that wait", "jobs", {p: (s.times_s, s.queue) for p, s in runs.items()}
    )
    files["fragmentation.svg"] = _over_time(
        "Free devices that the mix of jobs cannot use, per node", "share",
        {p: (s.times_s, s.unusable) for p, s in runs.items()}, top=1.0)  # fmt: skip
    files["completion.svg"] = distribution("Completion time", tables, _completion)
    files["delay.svg"] = distribution("Delay until the first start", tables, _delay)
    return files


def _completion(row: JobRow) -> float:
    return row.jct_s if row.end_s >= 0 else -1.0


def _delay(row: JobRow) -> float:
    return row.wait_s if row.first_start_s >= 0 else -1.0


def _days(end_s: float) -> tuple[float, str]:
    """Return the unit of a time axis: seconds in it, and its name."""
    return (
        (86400.0, "days")
        if end_s > 4 * 86400
        else (3600.0, "hours")
        if end_s > 7200
        else (1.0, "seconds")
    )


def _attempts(log: Log) -> list[tuple[float, float, str, tuple[tuple[int, int], ...], str]]:
    """Return (start, end, job, placement, how it ended) of every attempt."""
    begun: dict[str, tuple[float, tuple[tuple[int, int], ...]]] = {}
    found = []
    for r in log.records:
        if r.event == "start":
            begun[r.job] = (r.time_s, r.placement)
        elif r.event in RELEASES and r.job in begun:
            start, placement = begun.pop(r.job)
            found.append((start, r.time_s, r.job, placement, r.event))
    found += [
        (start, log.end_s, job, placement, "end") for job, (start, placement) in begun.items()
    ]
    return found


def gantt(log: Log, title: str) -> str:
    """Return a chart of who held which node when: a row per node, colour by tenant."""
    nodes = log.cluster.nodes
    unit, word = _days(log.end_s)
    row = max(min(14.0, 720.0 / max(len(nodes), 1)), 0.8)
    frame = Frame(960, round(row * len(nodes)) + 110, log.end_s / unit or 1.0, len(nodes))
    tenants = sorted({job.tenant for job in log.jobs.values()})
    colour = {t: COLOURS[i % len(COLOURS)] for i, t in enumerate(tenants)}
    bars = [(end - start, start, node, mask, job, how) for start, end, job, placement, how in _attempts(log)
            for node, mask in placement]  # fmt: skip
    left_out = max(len(bars) - MOST_BARS, 0)
    bars = sorted(bars, key=lambda b: (-b[0], b[1], b[2], b[3], b[4]))[:MOST_BARS]
    body = [*_pool_marks(log, frame)]
    for length, start, node, mask, job, how in sorted(bars, key=lambda b: (b[1], b[2], b[3])):
        part = mask.bit_count() / max(nodes[node].devices, 1)
        low = ((mask & -mask).bit_length() - 1) / max(nodes[node].devices, 1)
        x, y = frame.x(start / unit), frame.top + (node + low) * frame.high / len(nodes)
        width, height = (
            max(frame.x((start + length) / unit) - x, 0.3),
            part * frame.high / len(nodes),
        )
        edge = ' stroke="#c00" stroke-width="0.6"' if how == "fail" else ""
        body.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(height, 0.3):.1f}"'
                    f' fill="{colour[log.jobs[job].tenant]}" fill-opacity="0.8"{edge}/>')  # fmt: skip
    body += _down_bars(log, frame, unit)
    body += [*ticks(frame, word, ""), *legend(frame, {t or "(no tenant)": c for t, c in colour.items()}
                                              | {"down": "#222"})]  # fmt: skip
    note = f", {left_out:,} short bars left out" if left_out else ""
    return page(frame, f"{title}: nodes over time (red edge: lost to a failure{note})", body)


def _pool_marks(log: Log, frame: Frame) -> Iterable[str]:
    """Name the accelerator types beside the rows, with a line between them."""
    nodes = log.cluster.nodes
    for kind in log.cluster.types:
        rows = [i for i, n in enumerate(nodes) if n.type == kind]
        y0 = frame.top + min(rows) * frame.high / len(nodes)
        y = frame.top + (min(rows) + max(rows) + 1) / 2 * frame.high / len(nodes)
        yield rule(frame, y0)
        yield f'<text x="{frame.left - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(kind)}</text>'


def _down_bars(log: Log, frame: Frame, unit: float) -> list[str]:
    since: dict[int, float] = {}
    bars = []
    height = frame.high / len(log.cluster.nodes)
    for r in log.records:
        if r.event == "down":
            since.setdefault(r.node, r.time_s)
        if r.event == "up" and r.node in since:
            bars.append((since.pop(r.node), r.time_s, r.node))
    bars += [(start, log.end_s, node) for node, start in since.items()]
    return [f'<rect x="{frame.x(start / unit):.1f}" y="{frame.top + node * height:.1f}"'
            f' width="{max(frame.x(end / unit) - frame.x(start / unit), 0.4):.1f}" height="{height:.1f}"'
            ' fill="#222"/>' for start, end, node in bars]  # fmt: skip


def _thin(times: Sequence[float], values: Sequence[float], end: float) -> list[tuple[float, float]]:
    """Return at most `STEPS` means over even stretches of time of a step function."""
    if len(times) <= STEPS:
        return list(zip(times, values, strict=True))
    width = end / STEPS
    sums = [0.0] * STEPS
    for i, (start, value) in enumerate(zip(times, values, strict=True)):
        stop = times[i + 1] if i + 1 < len(times) else end
        first, last = int(start / width), min(int(stop / width), STEPS - 1)
        for step in range(first, last + 1):
            sums[step] += value * max(min(stop, (step + 1) * width) - max(start, step * width), 0.0)
    return [(step * width, sums[step] / width) for step in range(STEPS)]


def use(log: Log, run: Series, title: str) -> str:
    """Return the devices in use by accelerator type, stacked, below those that are up."""
    unit, word = _days(log.end_s)
    frame = Frame(960, 360, log.end_s / unit or 1.0, log.cluster.devices)
    base: list[tuple[float, float]] = []
    body = []
    colours = {kind: COLOURS[i % len(COLOURS)] for i, kind in enumerate(run.held)}
    for kind, held in run.held.items():
        points = [(t / unit, v) for t, v in _thin(run.times_s, held, log.end_s)]
        upper = [(t, v + (base[i][1] if base else 0.0)) for i, (t, v) in enumerate(points)]
        body.append(area(frame, base or [(t, 0.0) for t, _ in points], upper, colours[kind]))
        base = upper
    up = [sum(counts) for counts in zip(*run.up.values(), strict=True)]
    body.append(
        curve(
            frame, [(t / unit, v) for t, v in _thin(run.times_s, up, log.end_s)], "#222", steps=True
        )
    )
    body += [*ticks(frame, word, "devices"), *legend(frame, {**colours, "up": "#222"})]
    return page(frame, f"{title}: devices in use by type", body)


def _over_time(title: str, unit_y: str, runs: dict[str, tuple[list[float], Sequence[float]]],
               top: float = 0.0) -> str:  # fmt: skip
    end = max((times[-1] for times, _ in runs.values() if times), default=1.0)
    unit, word = _days(end)
    lines = {p: _thin(times, values, times[-1]) for p, (times, values) in runs.items() if times}
    highest = top or max((v for line in lines.values() for _, v in line), default=1.0) or 1.0
    frame = Frame(960, 360, end / unit or 1.0, highest)
    colours = {p: COLOURS[i % len(COLOURS)] for i, p in enumerate(runs)}
    body = [
        curve(frame, [(t / unit, v) for t, v in line], colours[p], steps=True)
        for p, line in lines.items()
    ]
    body += [*ticks(frame, word, unit_y), *legend(frame, colours)]
    return page(frame, title, body)


def distribution(
    title: str, tables: dict[str, list[JobRow]], value: Callable[[JobRow], float]
) -> str:
    """Return cumulative distributions over jobs, time on a logarithmic axis from a second on."""
    values = {
        p: sorted(max(v, 1.0) for r in rows if (v := value(r)) >= 0) for p, rows in tables.items()
    }
    highest = max((v[-1] for v in values.values() if v), default=10.0)
    frame = Frame(960, 360, max(math.log10(highest), 1.0), 1.0)
    colours = {p: COLOURS[i % len(COLOURS)] for i, p in enumerate(tables)}
    body = []
    for policy, found in values.items():
        every = max(len(found) // STEPS, 1)
        points = [(math.log10(v), (i + 1) / len(found)) for i, v in enumerate(found)
                  if i % every == 0 or i == len(found) - 1]  # fmt: skip
        body.append(curve(frame, points, colours[policy], steps=True))
    body += [*ticks(frame, "", "share of jobs", powers=True), *legend(frame, colours)]
    return page(frame, title, body)


def leaf_heat(log: Log, title: str) -> str:
    """Return how full each leaf was over time: a row per leaf, darker where more devices were held."""
    unit, word = _days(log.end_s)
    size: dict[int, int] = defaultdict(int)
    for node in log.cluster.nodes:
        size[node.leaf] += node.devices
    leaves = sorted(size)
    columns = 120
    held = _leaf_use(log, columns)
    row = max(min(18.0, 600.0 / max(len(leaves), 1)), 2.0)
    frame = Frame(960, round(row * len(leaves)) + 110, log.end_s / unit or 1.0, len(leaves))
    width, height = frame.wide / columns, frame.high / len(leaves)
    body = []
    for y, leaf in enumerate(leaves):
        top = frame.top + y * height
        for x in range(columns):
            share = held[leaf][x] / size[leaf] if size[leaf] else 0.0
            shade = round(255 - 200 * min(share, 1.0))
            body.append(f'<rect x="{frame.left + x * width:.1f}" y="{top:.1f}"'
                        f' width="{width + 0.1:.1f}" height="{height:.1f}"'
                        f' fill="#{shade:02x}{shade:02x}ff"/>')  # fmt: skip
        name = next(n.type for n in log.cluster.nodes if n.leaf == leaf)
        at = frame.top + (y + 0.5) * height + 4
        body.append(
            f'<text x="{frame.left - 6}" y="{at:.1f}" text-anchor="end">{escape(name)} {leaf}</text>'
        )
    body += ticks(frame, word, "")
    return page(frame, f"{title}: how full the leaves were", body)


def _leaf_use(log: Log, columns: int) -> dict[int, list[float]]:
    """Return the mean number of devices held per leaf in even stretches of time."""
    nodes = log.cluster.nodes
    width = log.end_s / columns or 1.0
    held: dict[int, list[float]] = defaultdict(lambda: [0.0] * columns)
    for start, end, _, placement, _ in _attempts(log):
        first, last = int(start / width), min(int(end / width), columns - 1)
        counts: dict[int, int] = defaultdict(int)
        for node, mask in placement:
            counts[nodes[node].leaf] += mask.bit_count()
        for step in range(first, last + 1):
            part = max(min(end, (step + 1) * width) - max(start, step * width), 0.0) / width
            for leaf, devices in counts.items():
                held[leaf][step] += devices * part
    return held
