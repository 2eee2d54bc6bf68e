"""What measured steps say about the five factors: the most probable ones, and how sure that is.

Errors of log step time are normal with the spread that runs of one stack on one device have among
each other, but for bad rows, which a Student law of `FREEDOM` degrees makes count for less; factors
are normal about none with the spreads between clusters. Solved by Gauss and Newton.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ersatz.sim.anchor.factors import NAMES, Array, spreads

FREEDOM = 4.0
ROUNDS = 8
SETTLED = 1e-4
NEAR = 1.0  # most that a logarithm moves in a round
DOUBTED = 0.25  # weight below which a row is called bad

Ask = Callable[[Array], tuple[Array, Array]]  # logarithms -> log errors of the rows, slopes


@dataclass(frozen=True, slots=True)
class Posterior:
    """The factors' logarithms, their covariance, and the rows' errors and weights."""

    logs: Array
    covariance: Array
    errors: Array  # log(predicted / measured) that are left, by row
    weights: Array  # 0 to 1, by row

    @property
    def bad(self) -> tuple[int, ...]:
        """Places of the rows that the others contradict."""
        return tuple(int(i) for i in np.flatnonzero(self.weights < DOUBTED))


def posterior(ask: Ask, spread: float) -> Posterior:
    """Return what rows say; `ask` predicts them, `spread` is the standard deviation of a good row."""
    prior = np.diag(1.0 / spreads() ** 2)
    logs = np.zeros(len(NAMES))
    errors, slope = ask(logs)
    for _ in range(ROUNDS):
        weights = _weights(errors, spread)
        precision = slope.T @ (weights[:, None] * slope) / spread**2 + prior
        pull = slope.T @ (weights * errors) / spread**2 + prior @ logs
        change = np.clip(-np.linalg.solve(precision, pull), -NEAR, NEAR)
        logs = logs + change
        errors, slope = ask(logs)
        if np.abs(change).max() < SETTLED:
            break
    weights = _weights(errors, spread)
    precision = slope.T @ (weights[:, None] * slope) / spread**2 + prior
    covariance: Array = np.asarray(np.linalg.inv(precision), dtype=np.float64)
    return Posterior(logs, covariance, errors, weights)


def _weights(errors: Array, spread: float) -> Array:
    """Return the weights of a Student law, 1 for a row without error."""
    found: Array = 1.0 / (1.0 + (errors / spread) ** 2 / FREEDOM)
    return found


def still_open(slope: Sequence[float] | Array, covariance: Array) -> float:
    """Return the standard deviation of a log step time that answers to the factors by `slope`."""
    g = np.asarray(slope)
    return float(np.sqrt(g @ covariance @ g))
