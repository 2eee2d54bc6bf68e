"""Who wins: only who comes to an end, keeps the rules, behaves, and does what can be done.

Policies are ranked by the mean time from submission to the end of work over the jobs that any of them
finishes; a job that a policy leaves undone counts as if it went on at the end of its run. Draw by draw the
same jobs and failures meet all of them; who is within chance of the best, by the 95 % interval of the ratio
of both means (`compare.ratio_interval`), is tied with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ersatz.sim.fleet.compare import Outcome, ratio_interval
from ersatz.sim.fleet.judge.metrics import JobRow
from ersatz.sim.fleet.log import TIME_UP

Draws = Sequence[Outcome]
SAME = 1e-9  # relative: the same but for rounding


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the policies stand, over all jobs or over a tenant's."""

    winners: tuple[str, ...]  # the best, and who cannot be told from it; the best first
    best_s: float  # its mean completion time; NaN where nobody can win
    chance: bool | None  # True: others are within chance, None: one draw cannot tell
    behind: tuple[
        tuple[str, float, float, float], ...
    ] = ()  # each other: how much longer than the best,
    # relative, and the bounds of its 95 % interval; NaN with one draw


def cannot_win(draws: Draws) -> str:
    """Say why a policy cannot win, as a clause after its name, or return an empty text."""
    for outcome in draws:
        if outcome.reason:
            return f"broke off: {outcome.reason}"
    worst = next((o.verdict.first for o in draws if not o.verdict.holds), None)
    if worst:
        how = "breaks a rule" if worst.severity == "rule" else "behaves badly"
        return f"{how} (property {worst.number}): {worst.why}"
    undone = sum(row.state in ("waiting", "running") for o in draws for row in o.rows.values()
                 if o.log.records[-1].value != TIME_UP)  # fmt: skip
    return f"leaves {undone:,} jobs undone that could be finished" if undone else ""


def standing(outcomes: Sequence[Draws], tenant: str | None = None) -> Standing:
    """Return who wins for a tenant, or over all jobs."""
    able = [draws for draws in outcomes if not cannot_win(draws)]
    means = {draws[0].policy: _means(draws, able, tenant) for draws in able}
    means = {policy: values for policy, values in means.items() if len(values)}
    if not means:
        return Standing((), math.nan, False)
    order = sorted(means, key=lambda policy: float(means[policy].mean()))
    best = means[order[0]]
    tied = [p for p in order[1:] if within_chance(means[p], best)]
    alone = len(best) < 2 and len(order) > 1
    behind = tuple(
        (p, *ratio_interval(means[p], best)) for p in order[1:] if len(means[p]) == len(best)
    )
    return Standing((order[0], *tied), float(best.mean()), None if alone else bool(tied), behind)


def _means(draws: Draws, able: Sequence[Draws], tenant: str | None) -> np.ndarray:
    """Return the mean completion time in each draw, of the jobs that anybody finishes."""
    found = []
    for i, outcome in enumerate(draws):
        rows = [outcome.rows[name] for name in outcome.rows
                if (tenant is None or outcome.log.jobs[name].tenant == tenant)
                and any(d[i].rows[name].state == "finish" for d in able if name in d[i].rows)]  # fmt: skip
        if rows:
            ends = [r.end_s if r.state == "finish" else _earliest_s(outcome, r) for r in rows]
            found.append(math.fsum(e - r.job.submit_s for e, r in zip(ends, rows, strict=True))
                         / len(rows))  # fmt: skip
    return np.array(found)


def _earliest_s(outcome: Outcome, row: JobRow) -> float:
    """Return when a job that was left undone could be done, if it went on at the end of the run."""
    return outcome.log.end_s + max(row.job.duration_s - row.kept_s, 0.0)


def within_chance(values: np.ndarray, best: np.ndarray) -> bool:
    """Tell whether two policies cannot be told apart: the same, or by chance different."""
    if len(values) != len(best) or np.allclose(values, best, rtol=SAME, atol=0.0):
        return len(values) == len(best)
    if len(best) < 2:
        return False
    _, low, high = ratio_interval(values, best)
    return not (low > 0 or high < 0)
