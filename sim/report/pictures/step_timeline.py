"""What every stage does over a step, as SVG: forward and backward passes, and what lies between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.report.pictures.frame import COLOURS, Frame, draw, keyed, words
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.ranks.timeline import stage_stretches
from ersatz.sim.step.ranks.writer import Stretch

MOST_SLOTS = 6_000  # of a picture; of more, only a part of the step is drawn
AFTER = "after the last: exchange, optimizer"
PHASES = {
    "F": ("forward", COLOURS[0]),
    "B": ("backward", COLOURS[1]),
    "I": ("gradient of the input", COLOURS[4]),
    "W": ("gradient of the weights", COLOURS[2]),
    "FB": ("forward and backward at once", COLOURS[3]),
    "": (AFTER, COLOURS[5]),
}


def timeline_pictures(
    scenarios: Sequence[Scenario], timer_of: Callable[[Scenario], Timer] = lambda _: calibrated_time
) -> dict[str, str]:
    """Return a picture per case, by file name, under the kernel times with which it was run."""
    return {
        f"timeline-{s.name}.svg": draw_timeline(stage_stretches(s, timer_of(s)), s.name)
        for s in scenarios
    }


def draw_timeline(stages: Sequence[tuple[str, Sequence[Stretch]]], name: str) -> str:
    """Return a row per stage; white is waiting. Micro-batches are numbered where there is room."""
    end = max((s.end_s for _, row in stages for s in row), default=1.0)
    slots = sum(len(row) for _, row in stages)
    shown = end if slots <= MOST_SLOTS else end * MOST_SLOTS / slots
    unit, scale = ("ms", 1e3) if shown < 1 else ("s", 1.0)
    high = max(min(26.0, 520.0 / len(stages)), 3.0)
    used = list(dict.fromkeys(_kind(s) for _, row in stages for s in row if s.start_s < shown))
    kinds = [kind for kind in PHASES if kind in used]
    rows = [(-i - 0.5, f"{pool or 'stage'} {i}") for i, (pool, _) in enumerate(stages)]
    part = "" if shown == end else f", the first {shown * scale:.3g} of {end * scale:.4g} {unit}"
    frame = keyed(
        Frame(f"{name}: what the stages do over a step{part}", f"{unit} since the start of the step", "",
              (0.0, shown * scale), (-float(len(stages)), 0.0), width=960, left=100,
              y_names=rows[:: int(12 / high) + 1]),
        dict(PHASES[kind] for kind in kinds) | {"waiting": "#eef1f4"},
    )  # fmt: skip
    frame = replace(frame, height=round(frame.top + high * len(stages) + 52))
    top = frame.up(0.0)
    across = frame.across(frame.x[1]) - frame.left
    ground = (f'<rect class="wait" x="{frame.left}" y="{top:.1f}" width="{across:.1f}"'
              f' height="{high * len(stages):.1f}" fill="#eef1f4"/>')  # fmt: skip
    paths: dict[str, list[str]] = {kind: [] for kind in kinds}
    numbers = []
    for i, (_, row) in enumerate(stages):
        y = frame.up(-float(i)) + 0.5
        for slot in row:
            if slot.start_s >= shown or slot.end_s <= slot.start_s:
                continue
            x0, x1 = frame.across(slot.start_s * scale), frame.across(slot.end_s * scale)
            paths[_kind(slot)].append(
                f"M{x0:.1f} {y:.1f}h{max(x1 - x0 - 0.3, 0.2):.1f}v{high - 1:.1f}H{x0:.1f}z"
            )
            if slot.parts and x1 - x0 > 18 and high >= 13:
                label = "+".join(str(part.microbatch) for part in slot.parts)
                if x1 - x0 > 8 * len(label):
                    numbers.append(words((x0 + x1) / 2, y + high / 2 + 3, label, anchor="middle", size=9,
                                         fill="white"))  # fmt: skip
    drawn = [f'<path d="{"".join(d)}" fill="{PHASES[kind][1]}"/>' for kind, d in paths.items()]
    return draw(frame, [ground, *drawn, *numbers])


def _kind(slot: Stretch) -> str:
    return (
        "".join(sorted({part.phase for part in slot.parts}, reverse=True))
        if len(slot.parts) < 2
        else "FB"
    )
