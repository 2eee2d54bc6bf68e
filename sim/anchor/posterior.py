"""What measured steps say about the five factors: the most probable ones, and how sure that is.

Errors of log step time are normal with the spread that runs of one stack on one device have among
each other, but for bad rows, which a Student law of `FREEDOM` degrees makes count for less; factors
are normal about none with the spreads between clusters. Solved by Gauss and Newton.

How well such an anchor predicts a further step its own rows tell: each is predicted from the others,
and what that misses moves the spread which anchors of other lineages left. Rows that contradict one
another say that this cluster is not understood, however close to them the factors come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ersatz.sim.anchor.factors import NAMES, Array, spreads, usual_spread

FREEDOM = 4.0
ROUNDS = 8
SETTLED = 1e-4
NEAR = 1.0  # most that a logarithm moves in a round
DOUBTED = 0.25  # weight below which a row is called bad
LEAST = 1e-6  # of a row's error that its own pull leaves: never none

Ask = Callable[[Array], tuple[Array, Array]]  # logarithms -> log errors of the rows, slopes


@dataclass(frozen=True, slots=True)
class Posterior:
    """The factors' logarithms, their covariance, and the rows' errors and weights."""

    logs: Array
    covariance: Array
    errors: Array  # log(predicted / measured) that are left, by row
    weights: Array  # 0 to 1, by row
    spread: float  # standard deviation of the log error of a further step, the factors apart

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
    apart = errors / _not_own(slope, covariance, weights / spread**2)
    return Posterior(logs, covariance, errors, weights, learned_spread(apart))


def learned_spread(apart: Array) -> float:
    """Return the spread of further steps: errors of rows predicted from the others beside the usual one.

    The mean of squares, in which the usual spread stands for as many rows as it weighs.
    """
    usual, belief = usual_spread()
    return float(np.sqrt((belief * usual**2 + apart @ apart) / (belief + len(apart))))


def _not_own(slope: Array, covariance: Array, precisions: Array) -> Array:
    """Return the share of each row's error that its own pull leaves (one minus its leverage).

    An error divided by it is that of the row predicted from the others alone.
    """
    leverage = precisions * np.einsum("ij,jk,ik->i", slope, covariance, slope)
    found: Array = np.maximum(1.0 - leverage, LEAST)
    return found


def _weights(errors: Array, spread: float) -> Array:
    """Return the weights of a Student law, 1 for a row without error."""
    found: Array = 1.0 / (1.0 + (errors / spread) ** 2 / FREEDOM)
    return found


def still_open(slope: Sequence[float] | Array, covariance: Array) -> float:
    """Return the standard deviation of a log step time that answers to the factors by `slope`."""
    g = np.asarray(slope)
    return float(np.sqrt(g @ covariance @ g))
