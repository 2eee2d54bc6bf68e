"""What fails, how often, and when next: a stream of failures per component, with its own draws.

A cause with n components of failure rate r follows the power-law process with cumulative hazard
n (t / eta)^k, eta chosen so that one component's mean life is 1/r: the exponential law for k = 1, and
for other shapes a Weibull law under minimal repair (a failed part is replaced by one of the same
age). Not modelled: wear that depends on load, and failures that bring others with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import numpy as np

from ersatz.sim.scenario.scenario import FailureSpec, Pool

CAUSES = ("device", "node", "switch", "software")
TAKES_NODE = frozenset({"device", "node"})  # causes after which a node must be replaced


def cluster_failure_rates(pools: Sequence[Pool], spec: FailureSpec) -> Mapping[str, float]:
    """Return the failures per second of the whole job by cause, at the mean rate of each part."""
    by_pool = _rates_by_pool(pools, spec)
    rates = {**{cause: math.fsum(rows) for cause, rows in by_pool.items()},
             "switch": spec.switch_rate, "software": spec.software_rate}  # fmt: skip
    return {cause: rate * spec.scale for cause, rate in rates.items()}


def _rates_by_pool(pools: Sequence[Pool], spec: FailureSpec) -> dict[str, list[float]]:
    """Return the failures per second of each pool, by the causes that take a node."""
    return {
        "device": [p.devices * _given(spec.device_rate, p.node.device.failure_rate) for p in pools],
        "node": [p.nodes * _given(spec.node_rate, p.node.failure_rate) for p in pools],
    }


def pool_shares_upto(pools: Sequence[Pool], spec: FailureSpec) -> dict[str, tuple[float, ...]]:
    """Return which share of the failures that take a node each pool and those before it have, by cause.

    Each row ends at 1 where anything fails.
    """
    sums = {c: tuple(accumulate(row)) for c, row in _rates_by_pool(pools, spec).items()}
    return {c: tuple(upto / (row[-1] or 1.0) for upto in row) for c, row in sums.items()}


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def failure_times(rate: float, spec: FailureSpec, rng: np.random.Generator) -> Iterator[float]:
    """Yield the times in seconds at which a cause strikes; `rate` is that of all its components.

    For a Weibull law the components count as one source of the summed rate.
    """
    if rate <= 0:
        return
    shape = spec.shape if spec.law == "weibull" else 1.0
    scale = 1.0 / rate / math.gamma(1.0 + 1.0 / shape)
    hazard = 0.0
    while True:
        hazard += rng.exponential()
        yield scale * hazard ** (1.0 / shape)


def streams(seed: int, replica: int) -> dict[str, np.random.Generator]:
    """Return one independent generator per cause for one replica of a job."""
    root = np.random.SeedSequence(seed, spawn_key=(2, replica))
    children = root.spawn(len(CAUSES))
    return {c: np.random.default_rng(s) for c, s in zip(CAUSES, children, strict=True)}


def pool_stream(seed: int, replica: int) -> np.random.Generator:
    """Return the generator that draws which pool of one replica of a job loses a node."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(6, replica)))
