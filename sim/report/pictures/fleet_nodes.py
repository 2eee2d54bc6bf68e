"""Pictures of a fleet's nodes over time: who held which, and how full each leaf was."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from ersatz.sim.fleet.cluster import Placement
from ersatz.sim.fleet.log import RELEASES, Log
from ersatz.sim.report.pictures.chart import (
    LETTER,
    Frame,
    colours_of,
    legend,
    legend_rows,
    page,
    rule,
    ticks,
)

MOST_BARS = 20_000  # of a Gantt chart; beyond it the shortest attempts are left out
WIDTH, LEFT = 960, 110
COLUMNS = 120  # of a heat map
NAMED_PX = 9.0  # height of a row from which on nodes and jobs have names
EDGES = {"fail": "#c00", "preempt": "#e69500", "resize": "#e69500", "timeout": "#6a1b9a"}
SHADES = ((0.0, "0 %"), (0.25, "25 %"), (0.5, "50 %"), (0.75, "75 %"), (1.0, "100 % of what is up"))
DOWN, DARK = "#222", "#555"


@dataclass(frozen=True, slots=True)
class Span:
    """An axis of time that pictures share: its end, its unit in seconds, its name."""

    end_s: float
    unit_s: float
    name: str

    @property
    def end(self) -> float:
        """Its end in its unit."""
        return self.end_s / self.unit_s or 1.0


def span_of(logs: Iterable[Log]) -> Span:
    """Return the axis on which all of some logs have room."""
    end = max((log.end_s for log in logs), default=1.0)
    unit, name = next(((u, n) for u, n in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))
                       if end > 2 * u), (1.0, "seconds"))  # fmt: skip
    return Span(end, unit, name)


@dataclass(frozen=True, slots=True)
class Bar:
    """An attempt on neighbouring nodes that it holds alike."""

    start_s: float
    end_s: float
    job: str
    node: int
    nodes: int
    low: float  # share of the node below it
    part: float  # share of the node that it holds
    how: str


def attempts_of(log: Log) -> list[tuple[float, float, str, Placement, str]]:
    """Return (start, end, job, placement, how it ended) of every attempt."""
    begun: dict[str, tuple[float, Placement]] = {}
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


def gantt(log: Log, title: str, span: Span) -> str:
    """Return a chart of who held which node when: a row per node, colour by tenant."""
    nodes = log.cluster.nodes
    row = max(min(14.0, 720.0 / max(len(nodes), 1)), 0.8)
    colour = colours_of(sorted({job.tenant for job in log.jobs.values()}))
    names = {t or "(no tenant)": c for t, c in colour.items()} | {
        "edge: lost to a failure": EDGES["fail"], "edge: preempted or moved": EDGES["preempt"],
        "node down": DOWN}  # fmt: skip
    top = 38 + 18 * legend_rows(WIDTH, names, LEFT)
    frame = Frame(WIDTH, round(row * len(nodes)) + top + 54, span.end, len(nodes), LEFT, top)
    bars = [bar for attempt in attempts_of(log) for bar in _bars(log, attempt)]
    left_out = max(len(bars) - MOST_BARS, 0)
    longest = sorted(bars, key=lambda b: (b.start_s - b.end_s, b.start_s, b.node, b.low, b.job))
    body = [*_pool_marks(log, frame, row)]
    for bar in sorted(longest[:MOST_BARS], key=lambda b: (b.start_s, b.node, b.low)):
        body += _drawn(frame, bar, row, span, colour[log.jobs[bar.job].tenant])
    body += _down_bars(log, frame, span)
    body += [*ticks(frame, span.name, ""), *legend(frame, names)]
    note = f"; {left_out:,} short bars left out" if left_out else ""
    return page(frame, f"{title}: who holds which node{note}", body)


def _bars(log: Log, attempt: tuple[float, float, str, Placement, str]) -> Iterator[Bar]:
    """Yield the bars of an attempt: nodes beside each other that it holds whole are one."""
    start, end, job, placement, how = attempt
    run: list[int] = []
    for node, mask in placement:
        devices = max(log.cluster.nodes[node].devices, 1)
        if mask == (1 << devices) - 1:
            if run and (run[-1] != node - 1):
                yield Bar(start, end, job, run[0], len(run), 0.0, 1.0, how)
                run = []
            run.append(node)
            continue
        low = (mask & -mask).bit_length() - 1
        yield Bar(start, end, job, node, 1, low / devices, mask.bit_count() / devices, how)
    if run:
        yield Bar(start, end, job, run[0], len(run), 0.0, 1.0, how)


def _drawn(frame: Frame, bar: Bar, row: float, span: Span, colour: str) -> Iterator[str]:
    """Yield a bar, with its edge, its name where that has room, and what it is under the pointer."""
    x, y = frame.x(bar.start_s / span.unit_s), frame.top + (bar.node + bar.low) * row
    width = max(frame.x(bar.end_s / span.unit_s) - x, 0.3)
    height = max((bar.nodes if bar.part == 1.0 else bar.part) * row, 0.3)
    thin = min(width, height) < 2.5
    edge = EDGES.get(bar.how, "" if thin else "#fff")
    stroke = f' stroke="{edge}" stroke-width="0.8"' if edge else ""
    yield (f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"'
           f' fill-opacity="0.85"{stroke}><title>{escape(bar.job)}</title></rect>')  # fmt: skip
    if height >= NAMED_PX and width >= LETTER * len(bar.job) + 4:
        yield (f'<text x="{x + width / 2:.1f}" y="{y + height / 2 + 3.5:.1f}" font-size="10" fill="#fff"'
               f' text-anchor="middle">{escape(bar.job)}</text>')  # fmt: skip


def _pool_marks(log: Log, frame: Frame, row: float) -> Iterator[str]:
    """Name the nodes beside their rows, or where these are too low the types; a line between types."""
    nodes = log.cluster.nodes
    before = ""
    for i, node in enumerate(nodes):
        if node.type != before:
            yield rule(frame, frame.top + i * row)
        if row >= NAMED_PX or node.type != before:
            y = frame.top + (i + 0.5) * row + 3.5
            text = node.name if row >= NAMED_PX else node.type
            yield (f'<text x="{frame.left - 6}" y="{y:.1f}" font-size="10" text-anchor="end">'
                   f"{escape(text[:16])}</text>")  # fmt: skip
        before = node.type


def _down_bars(log: Log, frame: Frame, span: Span) -> list[str]:
    height = frame.high / max(len(log.cluster.nodes), 1)
    return [f'<rect x="{frame.x(start / span.unit_s):.1f}" y="{frame.top + node * height:.1f}"'
            f' width="{max(frame.x(end / span.unit_s) - frame.x(start / span.unit_s), 0.4):.1f}"'
            f' height="{height:.1f}" fill="{DOWN}"/>' for start, end, node in _downs(log)]  # fmt: skip


def _downs(log: Log) -> list[tuple[float, float, int]]:
    """Return from when to when which node was down."""
    since: dict[int, float] = {}
    found = []
    for r in log.records:
        if r.event == "down":
            since.setdefault(r.node, r.time_s)
        if r.event == "up" and r.node in since:
            found.append((since.pop(r.node), r.time_s, r.node))
    return found + [(start, log.end_s, node) for node, start in since.items()]


def leaf_heat(log: Log, title: str, span: Span) -> str:
    """Return how full each leaf was over time: darker where more of what was up was held."""
    size: dict[int, int] = defaultdict(int)
    for node in log.cluster.nodes:
        size[node.leaf] += node.devices
    leaves = sorted(size)
    held, lost = _leaf_use(log, span)
    row = max(min(18.0, 600.0 / max(len(leaves), 1)), 2.0)
    frame = Frame(WIDTH, round(row * len(leaves)) + 110, span.end, len(leaves), LEFT)
    width, height = frame.wide / COLUMNS, frame.high / len(leaves)
    body = []
    for y, leaf in enumerate(leaves):
        top = frame.top + y * height
        for step in range(COLUMNS):
            total = size[leaf] or 1
            up, down = max(total - lost[leaf][step], 1e-9), min(lost[leaf][step] / total, 1.0)
            x = frame.left + step * width
            body.append(_cell(x, top, width, height, _shade(held[leaf][step] / up)))
            if down > 0.01:
                body.append(_cell(x, top + height * (1 - down), width, height * down, DARK))
    body += _leaf_names(log, frame, leaves, height)
    colours = {words: _shade(share) for share, words in SHADES} | {"down (share of the row)": DARK}
    body += [*ticks(frame, span.name, ""), *legend(frame, colours)]
    return page(frame, f"{title}: how full the leaves were", body)


def _cell(x: float, y: float, width: float, height: float, fill: str) -> str:
    return (f'<rect x="{x:.1f}" y="{y:.1f}" width="{width + 0.1:.1f}" height="{height:.1f}"'
            f' fill="{fill}"/>')  # fmt: skip


def _shade(share: float) -> str:
    level = round(255 - 200 * min(max(share, 0.0), 1.0))
    return f"#{level:02x}{level:02x}ff"


def _leaf_names(log: Log, frame: Frame, leaves: list[int], height: float) -> Iterator[str]:
    """Name each leaf by its type and its number among the leaves of that type."""
    counts: dict[str, int] = defaultdict(int)
    every = max(round(10 / height), 1)
    for y, leaf in enumerate(leaves):
        kind = next(n.type for n in log.cluster.nodes if n.leaf == leaf)
        text = f"{kind[:12]} {counts[kind]}"
        counts[kind] += 1
        if y % every == 0:
            at = frame.top + (y + 0.5) * height + 4
            yield f'<text x="{frame.left - 6}" y="{at:.1f}" text-anchor="end">{escape(text)}</text>'


def _leaf_use(log: Log, span: Span) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """Return the mean number of devices held, and of those down, per leaf in even stretches of time."""
    nodes = log.cluster.nodes
    held: dict[int, list[float]] = defaultdict(lambda: [0.0] * COLUMNS)
    lost: dict[int, list[float]] = defaultdict(lambda: [0.0] * COLUMNS)
    for start, end, _, placement, _ in attempts_of(log):
        counts: dict[int, int] = defaultdict(int)
        for node, mask in placement:
            counts[nodes[node].leaf] += mask.bit_count()
        for step, part in _steps(span, start, end):
            for leaf, devices in counts.items():
                held[leaf][step] += devices * part
    for start, end, node in _downs(log):
        for step, part in _steps(span, start, end):
            lost[nodes[node].leaf][step] += nodes[node].devices * part
    return held, lost


def _steps(span: Span, start: float, end: float) -> Iterator[tuple[int, float]]:
    """Yield the stretches of an axis that a time meets, each with the share of it."""
    width = span.end_s / COLUMNS or 1.0
    for step in range(int(start / width), min(int(end / width), COLUMNS - 1) + 1):
        part = max(min(end, (step + 1) * width) - max(start, step * width), 0.0) / width
        if part:
            yield step, part
