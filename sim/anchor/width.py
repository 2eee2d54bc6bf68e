"""How wide the interval of a step is when its stack was anchored on measured steps.

What the anchor did not settle of the five factors counts by how much this step answers to them, so a
step unlike those that were measured is less sure. To that comes what an anchor cannot take away: a
share of the width without one (`data/anchor.yaml`), and on a device other than the anchor's what
devices of one software differ by. An anchor never makes an interval wider.
"""

from __future__ import annotations

import math

import numpy as np

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.anchor.factors import NAMES, Array, rest_share, slopes
from ersatz.sim.anchor.posterior import still_open
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.uncertainty.draws import END
from ersatz.sim.uncertainty.intervals import common_shares, components, reasons, total


def anchored_width(scenario: Scenario, timer: Timer = calibrated_time) -> tuple[float, str] | None:
    """Return the relative half width of a step on anchored stacks and why; None without an anchor.

    Where only some pools' stacks are anchored the others' ignorance rules: None, too.
    """
    anchors = [(pool, pool.stack.anchor) for pool in scenario.pools if pool.stack.anchor]
    if len(anchors) < len(scenario.pools):
        return None
    _, slope = slopes(scenario, [0.0] * len(NAMES), timer)
    plain = total(reasons(scenario))
    found = []
    for pool, anchor in anchors:
        assert anchor is not None
        device = pool.node.device
        other = device.name != anchor.device
        half = anchored_half(plain, slope, np.array(anchor.covariance), elsewhere=other)
        words = (
            f"step +-{100 * math.expm1(half):.0f} %: stack anchored on {anchor.runs} measured runs"
        )
        place = f" of {anchor.device}, not of {device.title}" if other else ""
        found.append((math.expm1(half), words + place))
    return max(found)


def anchored_half(
    plain: float, slope: Array, covariance: Array, *, elsewhere: bool = False
) -> float:
    """Return the log half width of a step whose width without an anchor is `plain`.

    `slope` says how it answers to the factors, `covariance` what is open of them; `elsewhere` is on a
    device that was not measured.
    """
    open_half = END * still_open(slope, covariance)
    far = components()["cluster"] * math.sqrt(common_shares()["device"]) if elsewhere else 0.0
    return min(math.hypot(rest_share() * plain, open_half, far), plain)
