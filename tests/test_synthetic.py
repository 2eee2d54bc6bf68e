"""Workloads drawn from a model give that model back, and causes have streams of their own."""

import math

import numpy as np
import pytest

from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.synthetic import (
    LARGE,
    POSITIONS,
    LargeTraining,
    SizeClass,
    TraceModel,
    at_load,
    fit_trace,
    generate,
)

EXPONENTIAL = (*(-math.log(1 - p) for p in POSITIONS[:-1]), 12.0)
HOURS = tuple(0.5 if hour < 12 else 1.5 for hour in range(24))
MODEL = TraceModel(
    "made", rate=0.01, gaps=EXPONENTIAL, hourly=HOURS, sizes=((1, 0.75), (8, 0.25)),
    classes=((1, SizeClass(tuple(10.0 * 100.0**p for p in POSITIONS), (("a", 1.0),))),
             (8, SizeClass((500.0,) * len(POSITIONS), (("a", 0.2), ("b", 0.8))))),
)  # fmt: skip


def fraction(workload: Workload, test) -> float:  # type: ignore[no-untyped-def]
    return sum(map(test, workload.jobs)) / len(workload.jobs)


def test_a_fitted_model_is_the_one_that_was_drawn_from() -> None:
    # 40,000 jobs at 0.01 a second are 46 days: too short for a rate by hour of the week to differ much
    # from that of the day. Errors: rate 1 / sqrt(n) = 0.5 %, shares 0.22 %, an hour of the week 6 %.
    # One-device jobs run 10 to 1,000 s, evenly in the logarithm: a median of 100 s
    fitted = fit_trace(generate(MODEL, 40_000, seed=3))
    assert fitted.rate == pytest.approx(0.01, rel=0.02)
    assert fitted.gaps[10] == pytest.approx(math.log(2), rel=0.05)  # the median of an exponential
    assert dict(fitted.sizes)[1] == pytest.approx(0.75, abs=0.01)
    assert len(fitted.hourly) == 168
    night = np.mean([rate for hour, rate in enumerate(fitted.hourly) if hour % 24 < 12])
    assert night == pytest.approx(0.5, abs=0.05)
    quantiles = dict(fitted.classes)[1].quantiles_s
    assert quantiles[10] == pytest.approx(100.0, rel=0.05)
    assert quantiles[5] == pytest.approx(math.sqrt(1000.0), rel=0.05)  # half way in logarithms
    assert dict(dict(fitted.classes)[8].tenants)["b"] == pytest.approx(0.8, abs=0.02)


def test_bursts_stay_bursts() -> None:
    # nine jobs a second apart, then an hour's pause: nine of ten intervals are 1 s, drawn ones as well
    times = [3600.0 * (i // 10) + i % 10 for i in range(2000)]
    drawn = generate(fit_trace(Workload(tuple(Job(str(i), t, 1, 1.0) for i, t in enumerate(times)))),
                     2000, seed=1)  # fmt: skip
    gaps = np.diff([job.submit_s for job in drawn.jobs])
    assert np.mean(gaps < 3) == pytest.approx(0.9, abs=0.04)
    assert drawn.jobs[-1].submit_s == pytest.approx(times[-1], rel=0.25)


def test_load_and_limits() -> None:
    # twice the load: the same jobs in half the time
    slow, fast = (generate(MODEL, 500, seed=5, load=x, limit_factor=0.5) for x in (1.0, 2.0))
    assert [j.submit_s / 2 for j in slow.jobs] == pytest.approx([j.submit_s for j in fast.jobs])
    assert [j.duration_s for j in slow.jobs] == [j.duration_s for j in fast.jobs]
    assert all(j.walltime_s >= j.duration_s for j in slow.jobs)
    excess = np.mean([j.walltime_s / j.duration_s - 1 for j in slow.jobs])
    assert excess == pytest.approx(0.5, abs=0.1)
    assert all(j.walltime_s == math.inf for j in generate(MODEL, 9).jobs)


def test_the_same_seed_draws_the_same_jobs_and_gangs_change_none() -> None:
    plain = generate(MODEL, 200, seed=7)
    assert plain == generate(MODEL, 200, seed=7)
    assert plain != generate(MODEL, 200, seed=8)
    mixed = generate(MODEL, 200, seed=7, large=LargeTraining(20))
    assert [job for job in mixed.jobs if job.tenant != "large"] == list(plain.jobs)
    assert "assumed: 20 gangs of 512-8192 devices" in mixed.source


def test_large_training() -> None:
    # equally likely sizes; a log-normal median of 2 days within 3 standard errors (1.25 / sqrt(n))
    large = [j for j in generate(MODEL, 5, large=LargeTraining(3000)).jobs if j.tenant == "large"]
    shares = [sum(j.devices == size for j in large) / 3000 for size in LARGE]
    assert shares == pytest.approx([0.2] * 5, abs=0.025)
    assert np.median([j.duration_s for j in large]) == pytest.approx(2 * 86400, rel=0.07)
    assert {j.priority for j in large} == {1}


def test_offered_load_is_what_was_asked_for() -> None:
    # device-seconds over the span and 64 devices
    workload = at_load(generate(MODEL, 300, seed=2), devices=64, load=0.8)
    assert workload.device_s / workload.jobs[-1].submit_s / 64 == pytest.approx(0.8)


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="expected at least two"):
        fit_trace(Workload((Job("a", 0.0, 1, 1.0),)))
    with pytest.raises(ValueError, match="submitted at once"):
        at_load(Workload((Job("a", 0.0, 1, 1.0), Job("b", 0.0, 1, 1.0))), 8, 1.0)


def test_a_tiny_trace_can_be_fitted() -> None:
    # two jobs at once: no rate by the hour, an interval without variation
    model = fit_trace(Workload((Job("a", 0.0, 1, 0.0), Job("b", 0.0, 3, 5.0, tenant="t"))))
    drawn = generate(model, 50, seed=1)
    assert {job.devices for job in drawn.jobs} == {1, 3}
    assert {job.tenant for job in drawn.jobs if job.devices == 3} == {"t"}
