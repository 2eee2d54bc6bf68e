"""Joint draws of what is uncertain, so that what cases have in common cancels between them.

Each cause has a name, and its draws follow from that name and the seed alone: two cases that share
a cause (the same software, the same device) get the same draws of it, whatever else they differ in.
Draws are normal on the logarithm, with the 80 % half widths of `intervals`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.uncertainty.intervals import (
    Reason,
    common_shares,
    half_width,
    reasons,
    widest_pool,
)

DRAWS = 4096
END = 1.2815515655446004  # of a standard normal: 80 % lie within one such of the middle

Array = npt.NDArray[np.float64]


def standard(cause: str, seed: int) -> Array:
    """Return `DRAWS` draws of a standard normal that belong to a cause."""
    digest = hashlib.sha256(f"{seed}/{cause}".encode()).digest()
    found: Array = np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(DRAWS)
    return found


def factors(cause: str, seed: int, low: float, high: float) -> Array:
    """Return draws of a factor of which 80 % lie between `low` and `high` and half below one."""
    z = standard(cause, seed) / END
    found: Array = np.exp(np.where(z > 0, z * math.log(high), -z * math.log(low)))
    return found


def step_factors(scenario: Scenario, width: float) -> Array:
    """Return draws of true over predicted step time, whose interval has the half width `width`.

    That is what the reasons make of it, unless somebody measured better.
    """
    pool = widest_pool(scenario)
    known = half_width(scenario)
    found = reasons(scenario) if math.isclose(width, known, rel_tol=1e-6) else (_measured(width),)
    logs = np.zeros(DRAWS)
    for reason in found:
        for cause, share in _causes(reason, scenario, pool):
            half = reason.width * math.sqrt(share)
            logs += half / END * standard(cause, scenario.seed)
    return np.exp(logs)


def _measured(width: float) -> Reason:
    return Reason("measured", "kernels measured", math.log1p(width))


def _causes(reason: Reason, scenario: Scenario, pool: Pool) -> Iterator[tuple[str, float]]:
    """Yield what a reason belongs to, and the share of its square.

    What clusters differ by, and what measured kernels or an anchor leave, is split by `common_shares`.
    """
    stack, device = pool.stack.name, pool.node.device.name
    if reason.name not in ("cluster", "measured"):
        yield f"{reason.name}/{stack if reason.name in ('stack', 'short') else device}", 1.0
        return
    shares = common_shares()
    yield f"software/{stack}", shares["lineage"]
    yield f"software on device/{stack}/{device}", shares["device"]
    yield f"run/{stack}/{device}/{scenario.name}", shares["run"]
