"""The picture of `ersatz run --out`: what the fullest rank holds over a step, stacked by kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ersatz.sim.plan.memory.timeline import Timeline, fullest_timeline
from ersatz.sim.report.pictures.charts import stack_chart
from ersatz.sim.report.pictures.frame import frame_of
from ersatz.sim.scenario.scenario import Scenario

GIB = 2.0**30
SMALL = 0.005  # of the peak: kinds below it are drawn as one
OTHERS = "others"


def memory_pictures(scenarios: Sequence[Scenario]) -> dict[str, str]:
    """Return a picture per case, by file name."""
    return {f"memory-{s.name}.svg": draw(fullest_timeline(s), s.name) for s in scenarios}


def draw(timeline: Timeline, name: str) -> str:
    """Return the stack of a timeline as SVG, the peak's moment marked."""
    layers = _layers(timeline)
    total = timeline.held[timeline.peak].sum() / GIB
    title = (f"{name}: stage {timeline.stage}, {total:.1f} GiB at the peak"
             f" of {timeline.capacity / GIB:.0f} GiB")  # fmt: skip
    cut = f" ({timeline.cut} moments between left out)" if timeline.cut else ""
    frame = frame_of(
        title, f"slots of the stage over a step{cut}", "GiB",
        [[(x, float(y)) for x, y in zip(timeline.slots, timeline.held.sum(axis=1) / GIB, strict=True)]],
    )  # fmt: skip
    mark = {timeline.words[timeline.peak]: float(timeline.slots[timeline.peak])}
    top = timeline.capacity / GIB
    frame = replace(frame, y=(0.0, max(frame.y[1], 1.04 * top)))
    return stack_chart(frame, layers, mark, steps=False, limit=(f"capacity {top:.0f} GiB", top))


def _layers(timeline: Timeline) -> dict[str, list[tuple[float, float]]]:
    """Return the points of each kind that shows, in GiB; what stays lies lowest."""
    shown: dict[str, list[float]] = {}
    most = timeline.held.sum(axis=1).max()
    for kind, column in zip(timeline.kinds, timeline.held.T, strict=True):
        name = kind if column.max() >= SMALL * most else OTHERS
        before = shown.get(name, [0.0] * len(column))
        shown[name] = [a + float(b) / GIB for a, b in zip(before, column, strict=True)]
    xs = [float(x) for x in timeline.slots]
    return {name: list(zip(xs, ys, strict=True)) for name, ys in shown.items()}
