"""From a measured device to an unmeasured relative: what carries over, what is scaled, how sure it is.

| of a kernel's time | scaled by |
|---|---|
| FLOPs, full waves, the roofline's bound | matrix peaks of the dtype; waves and ridge are the target's |
| operands, elements, bytes that miss the cache | memory bandwidths |
| rows, scores (vector units) | compute units x clock |
| calls | nothing: the host and its driver are the same |

Sustained shares (ceilings, memory efficiency, attention) carry over as they are: they belong to an
architecture. The interval widens by what such transfers missed where both devices are measured
(data/transfer.yaml, checked by `ersatz.sim.hil.proof.transfer_check`): least for the same chip with
other memory or links, more for the same architecture, most for another generation. Other vendors are refused.

Not modelled: other power limits and clocks under load, kernels tuned for one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from ersatz.device_models.calibration.measured import Calibration, Point
from ersatz.device_models.catalog.device import Device, family
from ersatz.device_models.kernels.operations import operation_of
from ersatz.device_models.kernels.terms import Machine, OperationFit, machine_of
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.yamltext import parse_yaml

Relation = Literal["same chip", "same architecture", "same vendor"]
BY_PEAK = frozenset({"flop", "waves", "bound"})
BY_VECTOR = frozenset({"rows", "scores"})
CARRIED = ("matrix_ceiling", "memory_efficiency", "attention", "kernel_launch_s")  # parameters
ALIKE = 0.02  # peaks that differ by less are of the same chip


@lru_cache(maxsize=1)
def transfer_widths() -> Mapping[str, float]:
    """Return the relative half width that each relation adds to an interval."""
    text = parse_yaml((DATA / "transfer.yaml").read_text(), "transfer")
    return {key: float(leaf["value"]) for key, leaf in text.data["widths"].items()}


def relation(source: Device, target: Device) -> Relation:
    """Return how closely two devices are related; raises `InputError` for strangers."""
    if source.vendor != target.vendor:
        expected = (
            f"{target.title} ({target.vendor}) is no relative of {source.title} ({source.vendor}):"
            " nothing measured on one holds for the other"
        )
        raise InputError([Problem(target.name, 0, 0, "", "", expected)])
    if family(source) != family(target):
        return "same vendor"
    common = set(source.matrix_peak) & set(target.matrix_peak)
    peaks = all(abs(target.matrix_peak[d] / source.matrix_peak[d] - 1) <= ALIKE for d in common)
    same = peaks and source.compute_units == target.compute_units
    return "same chip" if same else "same architecture"


def transfer_calibration(calibration: Calibration, source: Device, target: Device) -> Calibration:
    """Return the calibration of an unmeasured relative; raises `InputError` for strangers.

    Its points are the measured ones with their times scaled, so that the table timer serves, too.
    """
    kind = relation(source, target)
    machine = machine_of(target)
    fits = {
        key: _scaled(fit, source, target)
        for key, fit in calibration.fits.items()
        if target.supports(fit.dtype) or not source.supports(fit.dtype)
    }
    points = tuple(
        _moved(point, calibration, fits, machine)
        for point in calibration.points
        if _key(point) in fits
    )
    own = calibration.step_error
    widened = (1.0 + own) * (1.0 + transfer_widths()[kind]) - 1.0
    lacking = sorted(
        {f.dtype for f in calibration.fits.values()} - {f.dtype for f in fits.values()}
    )
    origin = calibration.origin
    return replace(
        calibration,
        origin=replace(
            origin, device=target.name, source=origin.device,
            hardware=f"{target.title}, transferred from {origin.hardware} ({kind})",
        ),
        machine=machine,
        parameters={k: v for k, v in calibration.parameters.items() if k.startswith(CARRIED)},
        fits=fits,
        points=points,
        missing=(*calibration.missing, *(f"{d}: {target.title} does not multiply it" for d in lacking)),
        proof={"half_width": widened},
        sentinels={},
        small=None,  # of the host that it was timed on
        file="",
    )  # fmt: skip


def _scaled(fit: OperationFit, source: Device, target: Device) -> OperationFit:
    """Return the costs of an operation on the target."""
    vector = source.compute_units * source.clock_hz / (target.compute_units * target.clock_hz)
    memory = source.memory_bandwidth / target.memory_bandwidth
    both = source.supports(fit.dtype) and target.supports(fit.dtype)
    peak = source.matrix_peak[fit.dtype] / target.matrix_peak[fit.dtype] if both else vector

    def factor(term: str) -> float:
        if term == "call":
            return 1.0
        return peak if term in BY_PEAK else vector if term in BY_VECTOR else memory

    return replace(fit, seconds_per={t: cost * factor(t) for t, cost in fit.seconds_per.items()})


def _key(point: Point) -> tuple[str, str]:
    return operation_of(point.kernel), point.kernel.dtype


def _moved(
    point: Point, calibration: Calibration, fits: Mapping[tuple[str, str], OperationFit],
    machine: Machine,
) -> Point:  # fmt: skip
    """Scale a measured point by what the fit says of both devices."""
    before = calibration.fits[_key(point)].seconds(point.kernel, calibration.machine)
    after = fits[_key(point)].seconds(point.kernel, machine)
    ratio = after / before if before > 0 else 1.0
    return replace(point, seconds=point.seconds * ratio, warm_s=point.warm_s * ratio)
