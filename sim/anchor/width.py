"""How wide the interval of a step is when its stack was anchored on measured steps.

What the anchor did not settle of the five factors counts by how much this step answers to them, so a
step unlike those that were measured is less sure. To that comes the spread that runs have about such
an anchor, as far as its own rows tell; what is predicted less well wherever it was measured; and on
another device what devices of one software differ by, and that nobody measured it. Rows that agree
better than those of other clusters narrow the interval at least in that proportion; rows that contradict
one another more than those do may make it wider.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.anchor.factors import NAMES, Array, slopes, usual_spread
from ersatz.sim.anchor.posterior import still_open
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.uncertainty.draws import END
from ersatz.sim.uncertainty.intervals import common_shares, components, reasons

KINDS = ("experts", "adapters", "long")  # predicted less well wherever they were measured
OF_DEVICE = ("device", "few", "unmeasured")  # settled where the device itself was measured


def anchored_width(scenario: Scenario, timer: Timer = calibrated_time) -> tuple[float, str] | None:
    """Return the relative half width of a step on anchored stacks and why; None without an anchor.

    Where only some pools' stacks are anchored the others' ignorance rules: None, too.
    """
    anchors = [(pool, pool.stack.anchor) for pool in scenario.pools if pool.stack.anchor]
    if len(anchors) < len(scenario.pools):
        return None
    _, slope = slopes(scenario, [0.0] * len(NAMES), timer)
    plain = {reason.name: reason.width for reason in reasons(scenario)}
    found = []
    for pool, anchor in anchors:
        assert anchor is not None
        device = pool.node.device
        other = device.name != anchor.device
        half = anchored_half(
            plain, slope, np.array(anchor.covariance), anchor.spread, elsewhere=other
        )
        words = (
            f"step +-{100 * math.expm1(half):.0f} %: stack anchored on {anchor.runs} measured runs"
        )
        place = f" of {anchor.device}, not of {device.title}" if other else ""
        found.append((math.expm1(half), words + place))
    return max(found)


def anchored_half(
    plain: Mapping[str, float],
    slope: Array,
    covariance: Array,
    spread: float,
    *,
    elsewhere: bool = False,
) -> float:
    """Return the log half width of a step; `plain` has those of its reasons without an anchor, by name.

    `slope` says how it answers to the factors, `covariance` what is open of them, `spread` how runs
    scatter about the anchor; `elsewhere` is on a device that was not measured.
    """
    stays = [plain.get(name, 0.0) for name in (KINDS + OF_DEVICE if elsewhere else KINDS)]
    if elsewhere:
        stays.append(components()["cluster"] * math.sqrt(common_shares()["device"]))
    half = math.hypot(END * spread, END * still_open(slope, covariance), *stays)
    usual, _ = usual_spread()
    if spread > usual:
        return half
    gained = 1.0 if elsewhere else spread / usual
    return min(half, gained * math.hypot(*plain.values()))
