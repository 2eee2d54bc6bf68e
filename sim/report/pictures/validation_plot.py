"""The picture of predicted against measured step times, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ersatz.sim.validation.errors.heldout import Judged

SIZE, EDGE = 640, 60  # pixels
LOW, HIGH = -1.0, 3.0  # powers of ten of seconds
COLOURS = {"nvidia": "#009e73", "huawei": "#d55e00", "amd": "#0072b2"}  # apart for the colour-blind


def scatter(judged: Sequence[Judged]) -> str:
    """Return a log-log scatter, every run predicted with its model left out of the fit."""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIZE}" height="{SIZE}" font-family="sans-serif" font-size="13">',
        f'<rect width="{SIZE}" height="{SIZE}" fill="white"/>', *_axes(), *_points(judged), *_legend(judged), "</svg>",
    ]) + "\n"  # fmt: skip


def _place(power: float) -> float:
    return EDGE + (power - LOW) / (HIGH - LOW) * (SIZE - 2 * EDGE)


def _axes() -> Iterator[str]:
    low, high = _place(LOW), _place(HIGH)
    for factor, dash in ((0.0, ""), (math.log10(1.25), "4 4"), (-math.log10(1.25), "4 4")):
        yield (f'<line x1="{low:.1f}" y1="{SIZE - low - factor * 130:.1f}" x2="{high:.1f}"'
               f' y2="{SIZE - high - factor * 130:.1f}" stroke="#888" stroke-dasharray="{dash}"/>')  # fmt: skip
    for power in range(int(LOW), int(HIGH) + 1):
        at, label = _place(power), f"{10.0**power:g} s"
        yield f'<line x1="{at:.1f}" y1="{SIZE - low:.1f}" x2="{at:.1f}" y2="{SIZE - high:.1f}" stroke="#eee"/>'
        yield f'<line x1="{low:.1f}" y1="{SIZE - at:.1f}" x2="{high:.1f}" y2="{SIZE - at:.1f}" stroke="#eee"/>'
        yield f'<text x="{at:.1f}" y="{SIZE - low + 18:.1f}" text-anchor="middle">{label}</text>'
        yield f'<text x="{low - 6:.1f}" y="{SIZE - at + 4:.1f}" text-anchor="end">{label}</text>'
    yield f'<text x="{SIZE / 2}" y="{SIZE - 14}" text-anchor="middle">measured step time</text>'
    yield (f'<text x="16" y="{SIZE / 2}" text-anchor="middle" transform="rotate(-90 16 {SIZE / 2})">'
           "predicted, model left out (dashes: 25 % off)</text>")  # fmt: skip


def _points(judged: Sequence[Judged]) -> Iterator[str]:
    for j in judged:
        measured = math.log10(j.measured_s)
        predicted = measured + j.family_error / math.log(10)
        x, y = (_place(min(max(v, LOW), HIGH)) for v in (measured, predicted))
        colour = COLOURS.get(j.vendor, "#555")
        yield f'<circle cx="{x:.1f}" cy="{SIZE - y:.1f}" r="2.2" fill="{colour}" fill-opacity="0.55"/>'


def _legend(judged: Sequence[Judged]) -> Iterator[str]:
    for row, (vendor, colour) in enumerate(COLOURS.items()):
        count = sum(j.vendor == vendor for j in judged)
        y = EDGE + 18 + 18 * row
        yield f'<circle cx="{EDGE + 14}" cy="{y - 4}" r="4" fill="{colour}"/>'
        yield f'<text x="{EDGE + 24}" y="{y}">{vendor}, {count:,} runs</text>'
