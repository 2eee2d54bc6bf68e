"""How wide the interval of a step is when its stack was anchored on measured steps.

What the anchor did not settle of the five factors counts by how much this step answers to them, so a
step unlike those that were measured is less sure; to that come the spread of single runs and, on a
device other than the anchor's, what devices of one software differ by.
"""

from __future__ import annotations

import math

import numpy as np

from ersatz.device_models.catalog.stack import Anchor
from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.anchor.factors import NAMES, slopes
from ersatz.sim.anchor.posterior import predictive
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.uncertainty.draws import END
from ersatz.sim.uncertainty.intervals import common_shares, components


def anchored_width(scenario: Scenario, timer: Timer = calibrated_time) -> tuple[float, str] | None:
    """Return the relative half width of a step on anchored stacks and why; None without an anchor.

    Where only some pools' stacks are anchored the others' ignorance rules: None, too.
    """
    pools = [(pool, pool.stack.anchor) for pool in scenario.pools]
    if any(anchor is None for _, anchor in pools):
        return None
    _, slope = slopes(scenario, [0.0] * len(NAMES), timer)
    found = [_log_width(pool, anchor, slope) for pool, anchor in pools if anchor]
    half, words = max(found)
    return math.expm1(half), words


def run_spread() -> float:
    """Return the standard deviation of a log step time among runs of one stack on one device."""
    return components()["cluster"] * math.sqrt(common_shares()["run"]) / END


def _log_width(pool: Pool, anchor: Anchor, slope: np.ndarray) -> tuple[float, str]:  # type: ignore[type-arg]
    known = predictive(slope, np.array(anchor.covariance), anchor.spread)
    device = pool.node.device
    other = device.name != anchor.device
    far = components()["cluster"] * math.sqrt(common_shares()["device"]) if other else 0.0
    half = math.hypot(END * known, far)
    words = f"step +-{100 * math.expm1(half):.0f} %: stack anchored on {anchor.runs} measured runs"
    if other:
        words += f" of {anchor.device}, not of {device.title}"
    return half, words
