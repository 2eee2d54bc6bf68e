"""Policies side by side on common random numbers: the same jobs and failures for each.

Draw by draw policies are set side by side, so that luck which all share cancels. A change is a ratio of
means; its interval is Student's of the logarithm of that ratio, with the jackknife's standard error
(Efron 1982), so that it never passes -100 %. Who wins is in `ersatz.sim.fleet.standing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ersatz.sim.fleet.engine.fleet import FleetSpec, RunEndedError, run_fleet
from ersatz.sim.fleet.judge.holds import check_figures
from ersatz.sim.fleet.judge.metrics import JobRow, by_part, job_table, metrics
from ersatz.sim.fleet.judge.properties import Verdict
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.log import Log
from ersatz.sim.fleet.policies.registry import label_of
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
    rows: Mapping[str, JobRow] = field(default_factory=dict, repr=False)  # each job in one line


@dataclass(frozen=True, slots=True)
class Difference:
    """How a policy compares with the first one in a figure: mean over draws, 95 % interval.

    NaN where nothing is to be compared: a policy that cannot win has no figures worth it.
    """

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
    return judged(label_of(name), log, reason, again)


def judged(name: str, log: Log, reason: str = "", again: Log | None = None) -> Outcome:
    """Return a log with its verdict and its figures; raises `BrokenAnswerError`, see `holds`."""
    rows = job_table(log)
    parts = by_part(log, "tenant", rows), by_part(log, "type", rows)
    verdict, figures = judge(log, again), metrics(log, rows.values())
    if verdict.holds:  # the figures of a log that breaks the rules may be anything
        check_figures(name, figures)
    return Outcome(name, log, verdict, figures, *parts, reason, rows)


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
            sound = all(o.verdict.holds and not o.reason for o in (*draws, *outcomes[0]))
            change = ratio_interval(values, base) if sound else (math.nan,) * 3
            rows.append(Difference(draws[0].policy, metric, float(values.mean()), *change))
    return rows


def ratio_interval(values: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """Return the change of a mean and the bounds of its 95 % interval; NaN where there is none.

    `values` and `base` hold a figure, not negative, of the same draws.
    """
    count, mean, usual = len(values), float(values.mean()), float(base.mean())
    if not (mean >= 0 and usual > 0):
        return math.nan, math.nan, math.nan
    change = mean / usual - 1.0
    if count < 2:
        return change, math.nan, math.nan
    if np.array_equal(values, base):
        return 0.0, 0.0, 0.0
    sums = (values.sum() - values) / (count - 1), (base.sum() - base) / (count - 1)
    if mean == 0 or min(sums[0].min(), sums[1].min()) <= 0:
        return change, -1.0, math.inf  # a draw decides alone: no more can be said
    from scipy.stats import t

    left_out = np.log(sums[0] / sums[1])
    error = math.sqrt((count - 1) / count * float(((left_out - left_out.mean()) ** 2).sum()))
    half, middle = float(t.ppf(0.975, count - 1)) * error, math.log(mean / usual)
    return change, math.exp(middle - half) - 1.0, math.exp(min(middle + half, 700.0)) - 1.0
