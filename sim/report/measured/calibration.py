"""Reports of a calibration and of its proof, and the picture of held-out kernels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.calibration.measured import Calibration
from ersatz.device_models.calibration.transfer import relation
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.text.units import format_duration, format_si
from ersatz.sim.hil.fit import HeldOut, summary_errors
from ersatz.sim.hil.proof.proof import Judgement, proof_figures
from ersatz.sim.hil.proof.subjects import subjects_of

SIZE, EDGE = 640, 80  # pixels
COLOURS = {"product": "#2c6fbb", "grouped": "#7fb2e5", "attention": "#c0392b", "": "#5b8c3a"}
UNITS = {"memory_bandwidth": "B/s", "matrix_peak": "FLOP/s", "kernel_launch_s": "s"}


def calibration_record(
    calibration: Calibration, held: Sequence[HeldOut], judged: Sequence[Judgement]
) -> dict[str, Any]:
    """Return what `--json` writes: provenance, errors, parameters, and the proof."""
    from dataclasses import asdict

    operations = [
        {"operation": f.operation, "dtype": f.dtype, "points": f.points,
         "median_error": f.median_error, "mean_error": f.mean_error, "p80_error": f.p80_error,
         "seconds_per": dict(f.seconds_per)}
        for f in calibration.fits.values()
    ]  # fmt: skip
    return {
        "origin": asdict(calibration.origin),
        "points": len(calibration.points),
        "operators": dict(calibration.operators),
        "held_out": {
            name: {key: value for key, value in row.items() if math.isfinite(value)}
            for name, row in summary_errors(held).items()
        },
        "parameters": dict(calibration.parameters),
        "operations": operations,
        "missing": list(calibration.missing),
        "soak": dict(calibration.soak),
        "proof": dict(calibration.proof),
        "models": [{**asdict(j), "error": j.error, "table_error": j.table_error} for j in judged],
    }


def render_calibration(
    calibration: Calibration, held: Sequence[HeldOut], device: Device, resumed: int = 0
) -> RenderableType:
    """Return the report of a calibration: errors first, then parameters and operations."""
    origin = calibration.origin
    errors = summary_errors(held)
    headline = ", ".join(
        f"{name} {100 * errors[name]['median']:.1f} %"
        for name in ("matrix products", "all kernels") if name in errors
    )  # fmt: skip
    again = f", {resumed:,} of them by an earlier run" if resumed else ""
    operators = len(calibration.operators)
    what = f"{operators:,} operators" if operators else f"{len(calibration.points):,} kernels"
    parts: list[RenderableType] = [
        Text(f"{device.title} ({origin.hardware}): {what} measured in"
             f" {format_duration(origin.measured_s)}{again}.", style="bold"),
        Text(f"Half of them held out and predicted: median error {headline}." if headline else
             "Each is looked up as it was measured; nothing is fitted to it."),
        *_soaked(calibration),
        Text(f"{origin.framework}, {origin.driver}; {origin.clock}; {origin.date}; seed {origin.seed}."),
        *([Text(f"Fused kernels: {origin.libraries}.")] if origin.libraries else []),
        *((Text(""), _error_table(errors)) if errors else ()),
        Text(""), _parameter_table(calibration, device), Text(""),
        _operation_table(calibration),
    ]  # fmt: skip
    parts += _missing(calibration)
    return Group(*parts)


def _soaked(calibration: Calibration) -> Iterator[RenderableType]:
    soak = calibration.soak
    if soak:
        told = ", ".join(
            f"{name} {soak[f'{key}_first']:.0f} to {soak[f'{key}_last']:.0f} {unit}"
            for key, name, unit in (("clock_mhz", "clock", "MHz"), ("power_w", "power", "W"),
                                    ("temperature_c", "temperature", "C"))
            if f"{key}_first" in soak and f"{key}_last" in soak
        )  # fmt: skip
        share, seconds = 100 * soak["sustained"], soak["seconds"]
        yield Text(f"Sustained: {share:.1f} % of the burst rate after {seconds:.0f} s of products;"
                   f" {told or 'neither clock, power nor temperature were told'}.")  # fmt: skip


def _error_table(errors: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("held-out error", "points", "median", "mean", "p90", "table median", "noise"):
        table.add_column(name, justify="left" if name == "held-out error" else "right")
    for name, row in errors.items():
        shares = [row[k] for k in ("median", "mean", "p90", "table_median", "spread")]
        table.add_row(name, f"{row['points']:.0f}", *(_percent(s) for s in shares))
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "-"


def _parameter_table(calibration: Calibration, device: Device) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("parameter of the kernel model", "catalogue", "fitted"):
        table.add_column(name, justify="left" if name.startswith("param") else "right")
    for key, value in calibration.parameters.items():
        name, _, dtype = key.partition(".")
        before = getattr(device, name)
        before = before.get(dtype) if dtype else before
        shown = [_amount(name, v) if v is not None else "-" for v in (before, value)]
        table.add_row(key.replace(".", " "), *shown)
    return table


def _amount(name: str, value: float) -> str:
    if name == "kernel_launch_s":
        return format_duration(value)
    return format_si(value, UNITS[name]) if name in UNITS else f"{value:.3f}"


def _operation_table(calibration: Calibration) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("held-out error by operation", "dtype", "points", "median", "mean", "p80"):
        words = name in ("held-out error by operation", "dtype")
        table.add_column(name, justify="left" if words else "right")
    for fit in calibration.fits.values():
        shares = (fit.median_error, fit.mean_error, fit.p80_error)
        table.add_row(fit.operation, fit.dtype, str(fit.points),
                      *(f"{100 * share:.1f} %" for share in shares))  # fmt: skip
    return table


def _missing(calibration: Calibration) -> Iterator[RenderableType]:
    if calibration.missing:
        yield Text("")
        yield Text(f"{len(calibration.missing)} kernels could not be measured; they stay modelled:")
        for line in calibration.missing[:8]:
            yield Text(f"  {line}")


def render_proof(calibration: Calibration, judged: Sequence[Judgement]) -> RenderableType:
    """Return the report of a proof: the figures, then every model."""
    figures = proof_figures(judged)
    table = Table(box=None, pad_edge=False)
    for name in ("model, batch x sequence", "weights", "measured", "noise", "predicted", "error",
                 "table", "kernels"):  # fmt: skip
        table.add_column(name, justify="left" if name.startswith("model") else "right")
    for j in judged:
        table.add_row(
            j.name, f"{j.parameters / 1e6:,.1f} M", format_duration(j.measured_s),
            f"{100 * j.noise:.0f} %", format_duration(j.predicted_s), f"{100 * j.error:+.1f} %",
            f"{100 * j.table_error:+.1f} %", f"{j.known_kernels} of {j.kernels} seen",
        )  # fmt: skip
    return Group(
        Text(f"Proof: {figures['models']:.0f} models trained, their steps predicted from kernels alone:"
             f" mean error {100 * figures['mean_error']:.1f} %,"
             f" worst {100 * figures['worst_error']:.1f} %.", style="bold"),
        Text("Nothing was fitted to a step of theirs. Noise of the repeated steps:"
             f" {100 * figures['noise']:.1f} % (median). Table timer:"
             f" mean {100 * figures['table_mean_error']:.1f} %,"
             f" worst {100 * figures['table_worst_error']:.1f} %."),
        Text(f"Predicted on average {100 * figures['mean_signed']:+.1f} % against measured, on"
             f" {calibration.origin.hardware} with {calibration.origin.framework}."),
        Text(f"Sentinels: {judged[-1].pace.summary()}; without them the mean error were"
             f" {100 * figures['unpaced_mean_error']:.1f} %."),
        *_together(calibration), *_passed_over(calibration, judged), Text(""), table,
    )  # fmt: skip


def _together(calibration: Calibration) -> Iterator[RenderableType]:
    """Say what drawn small steps took as a whole, where any were run."""
    small = calibration.small
    if small and small.together:
        shares = ", ".join(f"{part} {ratio:.2f}" for part, ratio in small.together.items())
        yield Text(f"Steps that stay in the cache take of the sum of their kernels: {shares} (medians of"
                   " drawn models).")  # fmt: skip


def _passed_over(calibration: Calibration, judged: Sequence[Judgement]) -> Iterator[RenderableType]:
    """Name the models of the proof that the device's memory did not hold."""
    trained = {j.name for j in judged}
    if calibration.origin.scope:
        return
    names = [s.name for s in subjects_of(calibration.origin.backend) if s.name not in trained]
    if names:
        yield Text(f"Not trained, because the memory is too small: {', '.join(names)}.")


def render_transfer(
    measured: Calibration, carried: Calibration, devices: tuple[Device, Device]
) -> RenderableType:
    """Return the report of a transfer: the relation, the interval, and what was scaled."""
    source, target = devices
    kind = relation(source, target)
    table = Table(box=None, pad_edge=False)
    for name in ("ratio by which times are scaled", source.name, target.name):
        table.add_column(name, justify="left" if name.startswith("ratio") else "right")
    for dtype in sorted(set(source.matrix_peak) & set(target.matrix_peak)):
        pair = [format_si(d.matrix_peak[dtype], "FLOP/s") for d in devices]
        table.add_row(f"FLOPs in {dtype}", *pair)
    table.add_row("operands", *(format_si(d.memory_bandwidth, "B/s") for d in devices))
    vector = [format_si(d.compute_units * d.clock_hz, "Hz") for d in devices]
    table.add_row("vector work: compute units x clock", *vector)
    return Group(
        Text(f"{target.title} from {source.title} ({kind}): {len(carried.points):,} kernels carried over.",
             style="bold"),
        Text(f"80 % interval of a step: +-{100 * carried.step_error:.0f} %, of which"
             f" {100 * measured.step_error:.0f} % where it was measured."),
        Text(""), table, *_missing(carried),
    )  # fmt: skip


def held_out_plot(held: Sequence[HeldOut]) -> str:
    """Return an SVG scatter of held-out kernels, predicted over measured, log-log."""
    measured = np.log10([h.point.seconds for h in held])
    predicted = np.log10([h.fitted_s for h in held])
    low = math.floor(min(measured.min(), predicted.min()))
    high = math.ceil(max(measured.max(), predicted.max()))

    def place(power: float) -> float:
        return float(EDGE + (power - low) / (high - low) * (SIZE - 2 * EDGE))

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIZE}" height="{SIZE}" font-family="sans-serif"'
        ' font-size="13">',
        f'<rect width="{SIZE}" height="{SIZE}" fill="white"/>',
    ]
    for power in range(low, high + 1):
        at, label = place(power), _tick(power)
        lines += [
            f'<path d="M{at:.1f} {SIZE - EDGE}V{EDGE}M{EDGE} {SIZE - at:.1f}H{SIZE - EDGE}" stroke="#eee"/>',
            f'<text x="{at:.1f}" y="{SIZE - EDGE + 18}" text-anchor="middle">{label}</text>',
            f'<text x="{EDGE - 6}" y="{SIZE - at + 4:.1f}" text-anchor="end">{label}</text>',
        ]
    for factor, dash in ((1.0, ""), (1.25, "4 4"), (0.8, "4 4")):
        shift = place(low + math.log10(factor)) - place(low)
        lines.append(
            f'<path d="M{EDGE} {SIZE - EDGE - shift:.1f}L{SIZE - EDGE} {EDGE - shift:.1f}"'
            f' stroke="#888" stroke-dasharray="{dash}"/>'
        )
    for h, x, y in zip(held, measured, predicted, strict=True):
        lines.append(
            f'<circle cx="{place(x):.1f}" cy="{SIZE - place(y):.1f}" r="2.4"'
            f' fill="{COLOURS[_colour(h)]}" fill-opacity="0.6"/>'
        )
    lines += _legend(held)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _tick(power: int) -> str:
    """Write a power of ten of seconds: -5 is '10 us'."""
    unit, scale = ("s", 0) if power >= 0 else ("ms", -3) if power >= -3 else ("us", -6)
    return f"{10.0 ** (power - scale):g} {unit}"


def _colour(held: HeldOut) -> str:
    return next((k for k in COLOURS if k and held.operation.startswith(k)), "")


def _legend(held: Sequence[HeldOut]) -> Iterator[str]:
    yield f'<text x="{SIZE / 2}" y="{SIZE - 14}" text-anchor="middle">measured kernel time</text>'
    yield (f'<text x="16" y="{SIZE / 2}" text-anchor="middle" transform="rotate(-90 16 {SIZE / 2})">'
           "predicted, held out (dashes: 25 % off)</text>")  # fmt: skip
    for row, (key, colour) in enumerate(COLOURS.items()):
        count = sum(_colour(h) == key for h in held)
        y = EDGE + 18 + 18 * row
        yield f'<circle cx="{EDGE + 14}" cy="{y - 4}" r="4" fill="{colour}"/>'
        yield f'<text x="{EDGE + 24}" y="{y}">{key or "others"}: {count} kernels</text>'
