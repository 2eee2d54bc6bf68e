"""Many lives of one plan over uncertain inputs: fans of outcomes, and what matters most.

Every input draws from a stream of its own name, every cause of chance within a life too, so that
another input changes no other draw. A triangular law spans (low, mid, high); the throughput may take
the 80 % interval of the step prediction (lognormal). Not modelled: correlation between inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ersatz.sim.purchase.buildout import BuildOut, Gate
from ersatz.sim.purchase.events import Draw, Event, named_stream
from ersatz.sim.purchase.life.replay import Replayed, replay
from ersatz.sim.purchase.periods import Floats
from ersatz.sim.purchase.purchase import Purchase

CHANCES = frozenset({"approval", "import_approval"})  # inputs that answer yes or no
Z90 = 1.2815515655446004  # 90th percentile of the standard normal law


@dataclass(frozen=True, slots=True)
class Uncertain:
    """One uncertain input: a triangle, equally likely choices, or an 80 % interval."""

    name: str
    low: float
    mid: float
    high: float
    law: str = "triangle"  # or choice, interval
    choices: tuple[float, ...] = ()
    of: str = ""  # what it is an input of, where each has a stream of its own

    def sample(self, seed: int, count: int) -> Floats:
        """Return `count` draws from the input's own stream."""
        rng = named_stream(seed, f"input {self.name} {self.of}".strip())
        if self.law == "choice":
            return np.asarray(rng.choice(np.array(self.choices), count))
        if self.law == "interval":
            sigma = math.log(self.high / self.low) / (2 * Z90)
            return np.asarray(self.mid * np.exp(sigma * rng.standard_normal(count)))
        if self.low == self.high:
            return np.full(count, self.mid)
        return np.asarray(rng.triangular(self.low, self.mid, self.high, count))


@dataclass(frozen=True, slots=True)
class Cloud:
    """The outcomes of many lives; infinite months where a job was not done."""

    inputs: Mapping[str, Floats]  # (draws,) each
    finish: Floats  # (draws,) months
    ends: Floats  # (draws, J) months
    cost: Floats  # (draws,)
    left: Floats  # (draws,) what the machines are worth at the end
    delivered: Floats  # (draws, D) devices
    fleet: Floats  # (draws, months + 1, D) working devices
    work: Floats  # (draws, months + 1, J) tokens
    kwh: Floats  # (draws,)


@dataclass(frozen=True, slots=True)
class Swing:
    """An outcome with one input at its low and high end, all others in the middle."""

    name: str
    low: float
    high: float
    at_low: float
    at_high: float

    @property
    def width(self) -> float:
        """How far the outcome moves."""
        return abs(self.at_high - self.at_low)


def live_often(
    buildout: BuildOut, plan: Purchase, gate: Gate, events: Sequence[Event],
    inputs: Sequence[Uncertain], draws: int, seed: int, horizon: int | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> Cloud:  # fmt: skip
    """Live through a plan `draws` times."""
    values = {u.name: u.sample(seed, draws) for u in inputs}
    lives = []
    for i in range(draws):
        drawn = {name: float(column[i]) for name, column in values.items()}
        lives.append(replay(buildout, plan, gate, events, Draw(drawn, seed, i), horizon))
        advance("lives")
    return _cloud(values, lives)


def _cloud(values: Mapping[str, Floats], lives: Sequence[Replayed]) -> Cloud:
    months = max(len(life.fleet) for life in lives)
    return Cloud(
        values, np.array([life.finish for life in lives]),
        np.array([life.finish_months for life in lives]),
        np.array([life.total for life in lives]), np.array([life.left for life in lives]),
        np.array([life.delivered for life in lives]),
        np.array([_padded(life.fleet, months) for life in lives]),
        np.array([_padded(life.work, months) for life in lives]),
        np.array([life.kwh for life in lives]),
    )  # fmt: skip


def _padded(series: Floats, months: int) -> Floats:
    """Go on with the last month of a series whose life ended early."""
    return np.concatenate([series, np.repeat(series[-1:], months - len(series), axis=0)])


def fan(series: Floats, levels: tuple[float, ...] = (0.1, 0.5, 0.9)) -> Floats:
    """Return quantiles (levels, months) of a series (draws, months)."""
    return np.asarray(np.quantile(series, levels, axis=0))


def swings(
    buildout: BuildOut, plan: Purchase, gate: Gate, events: Sequence[Event],
    inputs: Sequence[Uncertain], outcome: Callable[[Replayed], float], horizon: int | None = None,
) -> tuple[Swing, ...]:  # fmt: skip
    """Return how far each input alone moves an outcome, the widest first; chance is left out.

    A probability has no low and high end for one life: its bar runs from a refusal to a grant.
    """
    middle = {u.name: u.mid for u in inputs}

    def at(name: str, value: float) -> float:
        draw = Draw({**middle, name: value})
        return outcome(replay(buildout, plan, gate, events, draw, horizon))

    found = []
    for u in inputs:
        low, high = (0.0, 1.0) if u.name in CHANCES else (u.low, u.high)
        found.append(Swing(u.name, low, high, at(u.name, low), at(u.name, high)))
    return tuple(sorted(found, key=lambda swing: -swing.width))
