"""The fleet against queueing theory: one-device jobs, first come first served; and SRPT on one path."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from ersatz.sim.fleet.cluster import Cluster, FleetNode
from ersatz.sim.fleet.engine.fleet import FleetSpec, run_fleet
from ersatz.sim.fleet.judge.metrics import job_table
from ersatz.sim.fleet.log import Record
from ersatz.sim.fleet.policies.queue import QueueScheduler
from ersatz.sim.fleet.policies.registry import POLICIES, make_scheduler
from ersatz.sim.fleet.protocol import Decision, Preempt, Start, View
from ersatz.sim.fleet.workload.jobs import Job, Workload

Draw = Callable[[np.random.Generator, int], np.ndarray]
RUNS, JOBS, WARM_UP = 24, 4000, 800


def servers(count: int) -> Cluster:
    return Cluster(tuple(FleetNode(f"n{i}", "x", 1) for i in range(count)))


def jobs(rate: float, draw: Draw, seed: int, count: int = JOBS) -> Workload:
    arrivals, services = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    times, work = np.cumsum(arrivals.exponential(1 / rate, count)), draw(services, count)
    return Workload(
        tuple(
            Job(str(i), float(t), 1, float(w))
            for i, (t, w) in enumerate(zip(times, work, strict=True))
        )
    )


def mean_waits(rate: float, draw: Draw, count: int) -> np.ndarray:
    """Mean wait of each of independent runs, after a warm-up."""
    found = []
    for seed in range(RUNS):
        log = run_fleet(FleetSpec(servers(count), jobs(rate, draw, seed)), QueueScheduler())
        found.append(np.mean([r.wait_s for r in list(job_table(log).values())[WARM_UP:]]))
    return np.array(found)


def erlang_c(load: float, count: int) -> float:
    """Probability to wait with `count` servers and an offered load in Erlang."""
    top = load**count / math.factorial(count) * count / (count - load)
    return top / (sum(load**k / math.factorial(k) for k in range(count)) + top)


def exponential(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.exponential(1.0, count)


def constant(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.ones(count)


def gamma(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.gamma(0.5, 2.0, count)  # mean 1, variance 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "draw", "count", "expected"),
    [
        # M/M/1: W_q = rho / (mu - lambda) = 0.7 / 0.3.
        (0.7, exponential, 1, 0.7 / 0.3),
        # M/M/c: W_q = C(c, a) / (c mu - lambda).
        (3.2, exponential, 4, erlang_c(3.2, 4) / (4 - 3.2)),
        (6.0, exponential, 8, erlang_c(6.0, 8) / (8 - 6.0)),
        # Pollaczek-Khinchine: W_q = lambda E[S^2] / (2 (1 - rho)); E[S^2] = 1 for M/D/1 ...
        (0.7, constant, 1, 0.7 * 1.0 / (2 * 0.3)),
        # ... and variance + mean^2 = 3 for a gamma law of shape 1/2.
        (0.6, gamma, 1, 0.6 * 3.0 / (2 * 0.4)),
    ],
    ids=["M/M/1", "M/M/4", "M/M/8", "M/D/1", "M/G/1"],
)
def test_mean_wait_within_three_standard_errors(
    rate: float, draw: Draw, count: int, expected: float
) -> None:
    waits = mean_waits(rate, draw, count)
    error = waits.std(ddof=1) / math.sqrt(RUNS)
    assert abs(waits.mean() - expected) < 3 * error
    assert error < 0.1 * expected  # the test can fail


class ShortestRemaining(QueueScheduler):
    """Serves the job with the least work left; knows true run times."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        left = {j.id: j.duration_s - view.progress[j.id].kept_s for j in view.waiting.values()}
        left |= {n: a.job.duration_s - a.work_at(now) for n, a in view.running.items()}
        best = min(left, key=lambda name: (left[name], int(name)), default=None)
        if best is None or best in view.running:
            return
        for name in list(view.running):
            yield Preempt(name)
        yield Start(best, ((0, 1),))


def test_nothing_beats_shortest_remaining_on_the_same_path() -> None:
    spec = FleetSpec(servers(1), jobs(0.8, exponential, 1, 300), oracle=True)

    def mean(scheduler: QueueScheduler) -> float:
        return float(np.mean([r.jct_s for r in job_table(run_fleet(spec, scheduler)).values()]))

    best = mean(ShortestRemaining())
    for policy in POLICIES:
        if policy not in ("gavel", "gavel-blind"):  # rounds of minutes on jobs of seconds
            assert best <= mean(make_scheduler(policy)) + 1e-9, policy  # type: ignore[arg-type]
