"""A fleet over time as SVG: who held which node, and how full each leaf was."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import NamedTuple

from ersatz.device_models.text.units import format_duration
from ersatz.sim.fleet.cluster import Placement
from ersatz.sim.fleet.log import RELEASES, Log
from ersatz.sim.report.pictures.frame import (
    AXIS,
    DOWN,
    LETTER,
    Frame,
    box,
    colours_for,
    draw,
    keyed,
)

MOST_BARS = 6_000  # of a chart; beyond it the shortest are left out
MOST_HINTS = 2_500  # bars that say their job under the pointer
COLUMNS = 120  # stretches of time of the leaves
MOST_ROWS = 300  # of leaves: where there are more, neighbours share one
SHADES = ("#f2f5f7", "#d6e4f0", "#a9c9e2", "#6fa6cf", "#2f7fb8", "#0b4f86")  # from empty to full
LOST, AWAY = "#d55e00", "#000000"  # edges: lost to a failure, preempted


class Attempt(NamedTuple):
    """A job on its devices from a start to how it ended."""

    start: float
    end: float
    job: str
    placement: Placement
    how: str


@dataclass(frozen=True, slots=True)
class Bar:
    """An attempt on neighbouring nodes: rows from `low` to `high`, in nodes from the top."""

    attempt: Attempt
    low: float
    high: float


def attempts(log: Log) -> list[Attempt]:
    """Return every attempt; those that still run end with the log."""
    begun: dict[str, tuple[float, Placement]] = {}
    found = []
    for r in log.records:
        if r.event == "start":
            begun[r.job] = (r.time_s, r.placement)
        elif r.event in RELEASES and r.job in begun:
            start, placement = begun.pop(r.job)
            found.append(Attempt(start, r.time_s, r.job, placement, r.event))
    return [*found, *(Attempt(start, log.end_s, job, placement, "end")
                      for job, (start, placement) in begun.items())]  # fmt: skip


def time_unit(end_s: float) -> tuple[float, str]:
    """Return the unit of a time axis: seconds in it, and its name."""
    if end_s > 4 * 86400:
        return 86400.0, "days"
    return (3600.0, "hours") if end_s > 7200 else (1.0, "seconds")


def gantt(log: Log, title: str, end_s: float = 0.0) -> str:
    """Return who held which node when: a row per node, a colour per tenant, a bar per job.

    Jobs have an edge and, where there is room, their name. `end_s` is the end of the time axis, the
    same for all policies; by default that of the log.
    """
    end_s = max(end_s, log.end_s) or 1.0
    unit, word = time_unit(end_s)
    nodes = log.cluster.nodes
    row = max(min(20.0, 640.0 / max(len(nodes), 1)), 0.4)
    told = attempts(log)
    tenants = sorted({j.tenant for j in log.jobs.values()} | {_tenant(log, a.job) for a in told})
    paint = colours_for(tenants)
    keys = {tenant or "(no tenant)": paint[tenant] for tenant in tenants}
    names = _row_names(log, row)
    bars = [bar for attempt in told for bar in _bars(log, attempt)]
    left_out = max(len(bars) - MOST_BARS, 0)
    bars = sorted(bars, key=lambda b: (b.attempt.start - b.attempt.end, b.attempt.start, b.low))[
        :MOST_BARS
    ]
    frame = keyed(
        Frame(
            f"{title}: nodes over time{f' ({left_out:,} short bars left out)' if left_out else ''}",
            f"{word} since the start", "", (0.0, end_s / unit), (-float(len(nodes)), 0.0),
            y_names=names, width=960, left=round(24 + LETTER * max((len(n) for _, n in names), default=1)),
        ),
        keys | {"down": DOWN, "right edge: lost to a failure": LOST, "right edge: preempted or moved": AWAY},
    )  # fmt: skip
    frame = _tall(frame, row * len(nodes))
    order = sorted(bars, key=lambda b: (b.attempt.start, b.low, b.attempt.job))
    hints = len(order) <= MOST_HINTS
    body = [part for bar in order for part in _drawn(frame, log, bar, unit, paint, hints=hints)]
    body += _borders(frame, log)
    return draw(frame, [*body, *_down_bars(log, frame, unit)])


def _tenant(log: Log, name: str) -> str:
    """Return whose a job is; nobody's where the log never told of it."""
    job = log.jobs.get(name)
    return job.tenant if job else ""


def _tall(frame: Frame, high: float) -> Frame:
    return replace(frame, height=round(frame.top + max(high, 40.0) + 52))


def _row_names(log: Log, row: float) -> list[tuple[float, str]]:
    """Name every node where there is room, else every accelerator type beside its nodes."""
    nodes = log.cluster.nodes
    if row >= 11:
        return [(-i - 0.5, f"{n.name} ({n.type})" if n.type not in n.name else n.name)
                for i, n in enumerate(nodes)]  # fmt: skip
    found: list[tuple[float, str]] = []
    for kind in log.cluster.types:
        rows = [i for i, n in enumerate(nodes) if n.type == kind]
        middle = -(min(rows) + max(rows) + 1) / 2
        below = found[-1][0] - 14 / row if found else 0.0  # names of small pools stay apart
        found.append((min(middle, below), f"{kind} ({len(rows):,} nodes)"))
    short = max(-(found[-1][0] if found else 0.0) - len(nodes), 0.0)
    return [(y + short, name) for y, name in found]


def _borders(frame: Frame, log: Log) -> Iterator[str]:
    """Yield a line between accelerator types."""
    for i, (a, b) in enumerate(pairwise(log.cluster.nodes), start=1):
        if a.type != b.type:
            y = frame.up(-float(i))
            ends = (
                f'x1="{frame.left}" y1="{y:.1f}" x2="{frame.across(frame.x[1]):.1f}" y2="{y:.1f}"'
            )
            yield f'<line {ends} stroke="{AXIS}" stroke-opacity="0.5"/>'


def _bars(log: Log, attempt: Attempt) -> Iterator[Bar]:
    """Yield the stretches of neighbouring nodes: whole nodes side by side are one bar."""
    nodes = log.cluster.nodes
    run: tuple[int, int] | None = None
    for node, mask in sorted(attempt.placement):
        devices = max(nodes[node].devices, 1)
        if mask.bit_count() < devices:
            first = ((mask & -mask).bit_length() - 1) / devices
            yield Bar(attempt, node + first, node + first + mask.bit_count() / devices)
        elif run and run[1] == node:
            run = run[0], node + 1
        else:
            if run:
                yield Bar(attempt, *run)
            run = node, node + 1
    if run:
        yield Bar(attempt, *run)


def _drawn(
    frame: Frame, log: Log, bar: Bar, unit: float, paint: Mapping[str, str], *, hints: bool
) -> Iterator[str]:
    """Yield a bar with its edge, its name where there is room, and how it ended."""
    a = bar.attempt
    tenant = _tenant(log, a.job)
    x, y = (a.start / unit, a.end / unit), (-bar.high, -bar.low)
    hint = ""
    if hints:
        ending = {"fail": ", lost to a failure", "preempt": ", preempted", "resize": ", moved"}.get(
            a.how, ""
        )
        job = log.jobs.get(a.job)
        taken = job.devices if job else sum(mask.bit_count() for _, mask in a.placement)
        hint = (f"{a.job}{f', {tenant}' if tenant else ''}: {taken:,} devices,"
                f" {format_duration(a.end - a.start)}{ending}")  # fmt: skip
    (x0, y0), (x1, y1) = frame.at(x[0], y[1]), frame.at(x[1], y[0])
    edge = ' class="job" stroke="white" stroke-width="0.7"' if y1 - y0 >= 3 else ' class="job"'
    yield box(frame, x, y, paint[tenant], hint=hint, edge=edge)
    if a.how in ("fail", "preempt", "resize"):
        colour = LOST if a.how == "fail" else AWAY
        yield (f'<line x1="{x1:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}"'
               ' stroke-width="2"/>')  # fmt: skip
    if x1 - x0 > 12 + 6.2 * len(a.job) and y1 - y0 >= 11:
        yield (f'<text x="{(x0 + x1) / 2:.1f}" y="{(y0 + y1) / 2 + 3.6:.1f}" text-anchor="middle"'
               f' font-size="10.5" fill="white" stroke="black" stroke-width="2.2" stroke-opacity="0.55"'
               f' paint-order="stroke">{escape(a.job)}</text>')  # fmt: skip


def down_times(log: Log) -> list[tuple[float, float, int]]:
    """Return (start, end, node) of every time that a node was down."""
    since: dict[int, float] = {}
    found = []
    for r in log.records:
        if r.event == "down":
            since.setdefault(r.node, r.time_s)
        if r.event == "up" and r.node in since:
            found.append((since.pop(r.node), r.time_s, r.node))
    return [*found, *((start, log.end_s, node) for node, start in since.items())]


def _down_bars(log: Log, frame: Frame, unit: float) -> list[str]:
    return [box(frame, (start / unit, end / unit), (-node - 1.0, -float(node)), DOWN)
            for start, end, node in down_times(log)]  # fmt: skip


def leaf_heat(log: Log, title: str, end_s: float = 0.0) -> str:
    """Return how full each leaf was over time: darker where more of its devices were held.

    Leaves are numbered within their type; of many some neighbours share a row. Where half of a row or
    more was down it is dark grey.
    """
    end_s = max(end_s, log.end_s) or 1.0
    unit, word = time_unit(end_s)
    row_of, names_of = _heat_rows(log)
    size: dict[int, int] = defaultdict(int)
    for node in log.cluster.nodes:
        size[row_of[node.leaf]] += node.devices
    tall = max(min(18.0, 600.0 / max(len(names_of), 1)), 2.0)
    names = [(-i - 0.5, name) for i, (name, is_first) in enumerate(names_of)
             if tall >= 11 or is_first]  # fmt: skip
    steps = ("0 %", "to 20 %", "to 40 %", "to 60 %", "to 80 %", "to 100 % of the leaf held")
    frame = Frame(
        f"{title}: how full the leaves were", f"{word} since the start", "", (0.0, end_s / unit),
        (-float(len(names_of)), 0.0), y_names=names, width=960,
        left=round(24 + LETTER * max((len(n) for _, n in names), default=1)),
    )  # fmt: skip
    frame = _tall(keyed(frame, dict(zip(steps, SHADES, strict=True)) | {"half or more down": DOWN}),
                  tall * len(names_of))  # fmt: skip
    held, down = _shares(log, row_of, size, end_s)
    body = []
    for y in range(len(names_of)):
        shades = [DOWN if down[y][x] >= 0.5 else _shade(held[y][x]) for x in range(COLUMNS)]
        for first, last, shade in _runs(shades):
            width = end_s / unit / COLUMNS
            body.append(box(frame, (first * width, last * width), (-y - 1.0, -float(y)), shade))
    return draw(frame, body)


def _heat_rows(log: Log) -> tuple[dict[int, int], list[tuple[str, bool]]]:
    """Return the row of each leaf, and of each row its name and whether it is the first of its type."""
    kind: dict[int, str] = {}
    for node in log.cluster.nodes:
        kind.setdefault(node.leaf, node.type)
    each = -(-len(kind) // MOST_ROWS)  # leaves that share a row
    row_of: dict[int, int] = {}
    names: list[tuple[str, bool]] = []
    for name in log.cluster.types:
        leaves = sorted(leaf for leaf, own in kind.items() if own == name)
        for first in range(0, len(leaves), each):
            some = leaves[first : first + each]
            row_of.update(dict.fromkeys(some, len(names)))
            last = f" to {first + len(some)}" if each > 1 else ""
            names.append((f"{name}, leaf {first + 1}{last}", first == 0))
    return row_of, names


def _shade(share: float) -> str:
    return SHADES[0] if share <= 0.002 else SHADES[1 + min(int(share * 5 - 1e-9), 4)]


def _runs(shades: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield (first, after the last, shade) of equal neighbours."""
    first = 0
    for i in range(1, len(shades) + 1):
        if i == len(shades) or shades[i] != shades[first]:
            yield first, i, shades[first]
            first = i


Shares = dict[int, list[float]]


def _shares(
    log: Log, row_of: Mapping[int, int], size: Mapping[int, int], end_s: float
) -> tuple[Shares, Shares]:
    """Return the shares of each row's devices that were held and down, in even stretches of time."""
    nodes, width = log.cluster.nodes, end_s / COLUMNS
    held: Shares = {row: [0.0] * COLUMNS for row in size}
    down: Shares = {row: [0.0] * COLUMNS for row in size}

    def add(into: Shares, start: float, end: float, row: int, devices: float) -> None:
        for step in range(int(start / width), min(int(end / width), COLUMNS - 1) + 1):
            part = max(min(end, (step + 1) * width) - max(start, step * width), 0.0) / width
            into[row][step] += devices / (size[row] or 1) * part

    for start, end, _, placement, _ in attempts(log):
        counts: dict[int, int] = defaultdict(int)
        for node, mask in placement:
            counts[row_of[nodes[node].leaf]] += mask.bit_count()
        for row, devices in counts.items():
            add(held, start, end, row, devices)
    for start, end, node in down_times(log):
        add(down, start, end, row_of[nodes[node].leaf], nodes[node].devices)
    return held, down
