"""Policies side by side on common random numbers: the same jobs and failures for each.

Draw by draw the difference to the first policy is taken, so that luck which all share cancels; the
interval is Student's, of the mean of those differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ersatz.sim.fleet.engine.fleet import FleetSpec, RunEndedError, run_fleet
from ersatz.sim.fleet.judge.holds import check_figures
from ersatz.sim.fleet.judge.metrics import by_part, metrics
from ersatz.sim.fleet.judge.validate import Verdict, judge
from ersatz.sim.fleet.log import Log
from ersatz.sim.fleet.protocol import Scheduler

Make = Callable[[str], Scheduler]
COMPARED = ("jct_s", "wait_s", "makespan_s", "slowdown", "rho", "goodput")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A policy on one draw."""

    policy: str
    log: Log
    verdict: Verdict
    metrics: Mapping[str, float]
    tenants: Mapping[str, Mapping[str, float]]
    types: Mapping[str, Mapping[str, float]]
    reason: str = ""  # why the run broke off


@dataclass(frozen=True, slots=True)
class Difference:
    """How a policy compares with the first one in a figure: mean over draws, 95 % interval."""

    policy: str
    metric: str
    mean: float
    change: float  # of the mean, relative to the first policy
    low: float  # bounds of the relative change; NaN with one draw
    high: float


def run_policy(name: str, spec: FleetSpec, make: Make, *, twice: bool = False) -> Outcome:
    """Run one policy on one draw and judge it; `twice` checks that the same log comes again."""
    log, reason = _run(name, spec, make)
    again = _run(name, spec, make)[0] if twice else None
    label = Path(name.partition(".py")[0]).name if ".py" in name else name
    return judged(label, log, reason, again)


def judged(name: str, log: Log, reason: str = "", again: Log | None = None) -> Outcome:
    """Return a log with its verdict and its figures; raises `BrokenAnswerError`, see `holds`."""
    parts = by_part(log, "tenant"), by_part(log, "type")
    verdict, figures = judge(log, again), metrics(log)
    if verdict.holds:  # the figures of a log that breaks the rules may be anything
        check_figures(name, figures)
    return Outcome(name, log, verdict, figures, *parts, reason)


def _run(name: str, spec: FleetSpec, make: Make) -> tuple[Log, str]:
    try:
        return run_fleet(spec, make(name)), ""
    except RunEndedError as ended:
        return ended.log, str(ended)


def compare(outcomes: Sequence[Sequence[Outcome]]) -> list[Difference]:
    """Compare policies; `outcomes` has the draws of each policy, in the same order."""
    rows = []
    for metric in COMPARED:
        base = np.array([o.metrics[metric] for o in outcomes[0]])
        for draws in outcomes:
            values = np.array([o.metrics[metric] for o in draws])
            low, high = _interval(values - base)
            scale = float(base.mean()) or math.nan
            change = float((values - base).mean()) / scale
            mean = float(values.mean())
            rows.append(
                Difference(draws[0].policy, metric, mean, change, low / scale, high / scale)
            )
    return rows


def _interval(differences: np.ndarray) -> tuple[float, float]:
    """Return the bounds of Student's 95 % interval of a mean; NaN for fewer than two values."""
    count = len(differences)
    if count < 2:
        return math.nan, math.nan
    from scipy.stats import t

    half = float(t.ppf(0.975, count - 1)) * float(differences.std(ddof=1)) / math.sqrt(count)
    return float(differences.mean()) - half, float(differences.mean()) + half
