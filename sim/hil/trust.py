"""What a step rests on: which share of its busy time was measured here, elsewhere, carried over, or modelled.

| state | of a kernel | of a link |
|---|---|---|
| measured here | a calibration of one's own, or the attached device | a network file of `calibrate --links` |
| measured elsewhere | a calibration that travels with ersatz | a catalogue value with a measured source |
| transferred | a calibration of a relative | |
| modelled | no measurement holds for it | a value that is assumed |
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from ersatz.device_models.calibration.file import SHIPPED
from ersatz.device_models.calibration.measured import Calibration, holds_for, kernel_key
from ersatz.device_models.kernels.kernel import Kernel, Timer
from ersatz.device_models.kernels.operations import operation_of
from ersatz.sim.hil.live import LiveTimer
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.step.build import build_program, stage_pools
from ersatz.sim.step.program import HOST, Block
from ersatz.sim.step.step import split_replicas

STATES = ("measured here", "measured elsewhere", "transferred", "modelled")


def shares_of(
    scenario: Scenario, timer: Timer, calibration: Calibration | None
) -> dict[str, float]:
    """Return the share of each state in the busy time of all stages.

    Keys are "kernels, STATE" and "links, STATE".
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    for share in split_replicas(scenario, timer):
        program, _ = build_program(share, timer)
        pools = stage_pools(share)
        times = Counter((visit.stage, visit.block) for visit in program.schedule.walk)
        for (stage, variant), count in times.items():
            _add(seconds, program.blocks[stage, variant], count, pools[stage], timer, calibration)
        for stage, tail in enumerate(program.tails):
            _add(seconds, tail, 1, pools[stage], timer, calibration)
    total = math.fsum(seconds.values())
    return {key: value / total for key, value in sorted(seconds.items()) if value > 0}


def _add(
    seconds: defaultdict[str, float], block: Block, count: int, pool: Pool, timer: Timer,
    calibration: Calibration | None,
) -> None:  # fmt: skip
    states: dict[Kernel, str] = {}
    for op in block.ops:
        for work in op.work:
            if op.stream == HOST:
                continue
            if work.kernel is None:
                key = f"links, {link_state(pool)}"
            else:
                if work.kernel not in states:
                    states[work.kernel] = kernel_state(work.kernel, pool, timer, calibration)
                key = f"kernels, {states[work.kernel]}"
            seconds[key] += count * work.seconds


def kernel_state(kernel: Kernel, pool: Pool, timer: Timer, calibration: Calibration | None) -> str:
    """Return how the time of a kernel on a pool is known."""
    device = pool.node.device.name
    if isinstance(timer, LiveTimer) and (device, kernel) in timer.points:
        return "measured here"
    if (
        calibration is None
        or calibration.origin.device != device
        or not holds_for(kernel, pool.stack.name)
    ):
        return "modelled"
    fitted = (operation_of(kernel), kernel.dtype) in calibration.fits
    if not fitted and all(kernel_key(p.kernel) != kernel_key(kernel) for p in calibration.points):
        return "modelled"
    return calibration_state(calibration)


def calibration_state(calibration: Calibration) -> str:
    """Return what a calibration's kernels are; a pretender's are none of its device."""
    if calibration.origin.pretended:
        return "modelled"
    if calibration.origin.source:
        return "transferred"
    shipped = (
        Path(calibration.file).resolve().parent == SHIPPED.resolve() if calibration.file else False
    )
    return "measured elsewhere" if shipped else "measured here"


def link_state(pool: Pool) -> str:
    """Return how the links of a pool are known: by those of its network that decide a collective."""
    out, up = pool.node.scale_out, pool.node.scale_up
    fact = (out if pool.nodes > 1 else up).facts.get("efficiency")
    if fact is None or fact.confidence == "assumed":
        return "modelled"
    return "measured here" if fact.source == "MEASURED" else "measured elsewhere"


def blended_width(shares: Mapping[str, float], measured: float, modelled: float) -> float:
    """Return the half width of a step: of each state's own, by its share, erring together.

    `measured` is the calibration's, a transfer's widening included; `modelled` that of published runs.
    """
    known = math.fsum(
        v for k, v in shares.items() if k.startswith("kernels") and "modelled" not in k
    )
    return known * measured + (1.0 - known) * modelled


def summary_of(shares: Mapping[str, float]) -> str:
    """Say in one line what the step rests on."""
    return ", ".join(f"{100 * v:.0f} % {k}" for k, v in sorted(shares.items(), key=lambda x: -x[1]))
