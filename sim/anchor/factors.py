"""The five numbers that differ between clusters, and how a step answers to them.

    elementwise   traffic of element-wise operations
    host          all host times: launches, collectives, routing, the step's own
    contention    what collectives take from products beside them
    collectives   speed of collectives / what the network's own tests reach
    products      speed of matrix products / the device's ceiling

An anchor multiplies each by a factor, whose logarithm is drawn from `data/anchor.yaml` until steps
were measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import step_seconds

NAMES = ("elementwise", "host", "contention", "collectives", "products")
FIELDS = {
    "elementwise": ("elementwise_traffic",),
    "host": ("launch_s", "collective_launch_s", "step_host_s", "expert_host_s", "local_expert_host_s"),
    "contention": ("overlap_contention",),
    "collectives": ("collective_factor",),
    "products": ("matrix_factor",),
}  # fmt: skip
MOST = {"overlap_contention": 1.0}
STEP = 0.05  # of the logarithm, for slopes

Array = npt.NDArray[np.float64]


@lru_cache(maxsize=1)
def spreads() -> Array:
    """Return the standard deviation of each factor's logarithm, in the order of `NAMES`."""
    rows = read_yaml(DATA / "anchor.yaml").data["spreads"]
    return np.array([float(rows[name]["value"]) for name in NAMES])


def row_scale() -> float:
    """Return the scale of the Student law of a row's log error, for what rows say of the factors."""
    return float(read_yaml(DATA / "anchor.yaml").data["rows"]["scale"]["value"])


def usual_spread() -> tuple[float, float]:
    """Return the spread of a log error that an anchor leaves elsewhere, and the runs that it weighs as."""
    rows = read_yaml(DATA / "anchor.yaml").data["rows"]
    return float(rows["spread"]["value"]), float(rows["belief"]["value"])


def moved(stack: Stack, logs: Sequence[float]) -> Stack:
    """Return a stack with its five numbers multiplied by factors, given as logarithms."""
    values: dict[str, Any] = {}
    for name, log in zip(NAMES, logs, strict=True):
        for key in FIELDS[name]:
            most = MOST.get(key, math.inf)
            values[key] = min(getattr(stack, key) * math.exp(log), most)
    return replace(stack, **values)


def with_factors(scenario: Scenario, logs: Sequence[float]) -> Scenario:
    """Return a scenario whose pools' stacks are moved."""
    pools = tuple(replace(pool, stack=moved(pool.stack, logs)) for pool in scenario.pools)
    return replace(scenario, pools=pools)


def slopes(
    scenario: Scenario, logs: Sequence[float], timer: Timer = calibrated_time
) -> tuple[float, Array]:
    """Return the step time in seconds and the slope of its logarithm to each factor's logarithm."""
    here = step_seconds(with_factors(scenario, logs), timer)
    found = np.empty(len(NAMES))
    for i in range(len(NAMES)):
        further = [log + STEP * (i == k) for k, log in enumerate(logs)]
        there = step_seconds(with_factors(scenario, further), timer)
        found[i] = math.log(there / here) / STEP
    return here, found
