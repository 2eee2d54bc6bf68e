"""The job: closed forms, one failure worked out by hand, and sums that must hold."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from factories import make_device, make_node, make_scenario, make_stack
from hypothesis import given, settings
from hypothesis import strategies as st

from ersatz.sim.errors import InfeasibleError
from ersatz.sim.job.checkpoint import checkpoint_cost, daly_interval, expected_wall, young_interval
from ersatz.sim.job.conditions import ConditionPlan, Conditions
from ersatz.sim.job.failures import cluster_failure_rates, failure_times, streams
from ersatz.sim.job.job import simulate_job
from ersatz.sim.scenario.defaults import job_defaults
from ersatz.sim.scenario.scenario import (
    CheckpointSpec,
    FailureSpec,
    JobSpec,
    PauseSpec,
    Pool,
    Scenario,
    Training,
)

TOKENS_PER_STEP = 64 * 1000


def job_scenario(steps: int = 1000, **job: object) -> Scenario:
    """A job of `steps` steps on one node that never fails by itself."""
    training = Training(1000, 64, 1, "bf16", float(steps * TOKENS_PER_STEP))
    return make_scenario(training=training, job=JobSpec(**job))  # type: ignore[arg-type]


def checkpoint(interval: float, cost: float, params: float = 1e9) -> CheckpointSpec:
    """A synchronous checkpoint that takes `cost` seconds for `params` weights."""
    return CheckpointSpec(interval, "synchronous", params * 14.0 / cost)


def test_without_failures_the_wall_time_is_steps_and_checkpoints() -> None:
    # 1000 steps of 10 s, a checkpoint of 5 s every 1000 s, none at the very end: nine of them
    scenario = job_scenario(checkpoint=checkpoint(1000.0, 5.0), replicas=2)
    job = simulate_job(scenario, 10.0, model_params=1e9)
    assert job.wall_s == pytest.approx(10_000 + 9 * 5)
    assert job.goodput == pytest.approx(10_000 / 10_045)
    assert job.interruptions == 0
    assert job.device_hours == pytest.approx(8 * 10_045 / 3600)


def test_pauses_take_their_time() -> None:
    # every 3,000 s of wall time 100 s of evaluation: after 3,000, 6,000 and 9,000 s
    scenario = job_scenario(checkpoint=checkpoint(1e9, 5.0), evaluation=PauseSpec(3000.0, 100.0))
    job = simulate_job(scenario, 10.0, model_params=1e9)
    assert job.wall_s == pytest.approx(10_300)
    assert job.lost_s["evaluation"] == pytest.approx(300)


def test_optimal_intervals() -> None:
    # Young: sqrt(2 x 50 x 10,000) = 1000; Daly: 1000 (1 + 0.05/3 + 0.0025/9) - 50
    assert young_interval(50.0, 10_000.0) == pytest.approx(1000.0)
    assert daly_interval(50.0, 10_000.0) == pytest.approx(1000 * (1 + 0.05 / 3 + 0.0025 / 9) - 50)
    assert daly_interval(300.0, 100.0) == 100.0
    assert math.isinf(daly_interval(5.0, math.inf))


def test_the_optimal_interval_is_the_best_of_its_neighbours() -> None:
    best = daly_interval(60.0, 20_000.0)
    walls = [expected_wall(1e6, best * f, 60.0, 300.0, 20_000.0) for f in (0.8, 1.0, 1.25)]
    assert walls[1] == min(walls)


def test_mean_equals_dalys_closed_form() -> None:
    # 1e6 s of work, checkpoints of 50 s every 2,000 s, recovery of 400 s, an interruption per 20,000 s
    failures = FailureSpec(software_rate=1 / 20_000, device_rate=0.0, node_rate=0.0)
    scenario = job_scenario(
        steps=100_000, failures=failures, checkpoint=checkpoint(2000.0, 50.0),
        detection_s=150.0, restart_s=200.0, replicas=100,
    )  # fmt: skip
    job = simulate_job(scenario, 10.0, model_params=1e9)
    expected = expected_wall(1e6, 2000.0, 50.0, 400.0, 20_000.0)
    error = (job.wall_high80_s - job.wall_low80_s) / 2.56 / math.sqrt(100)
    assert abs(job.wall_s - expected) < 3 * error + 50.0  # the last checkpoint is left out


@given(
    st.floats(1e-6, 3e-4), st.floats(10, 500), st.sampled_from(["synchronous", "asynchronous", "memory"]),
    st.integers(0, 3), st.sampled_from(["wait", "shrink"]),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_parts_sum_to_wall_time(
    rate: float, cost: float, mode: str, spares: int, on_loss: str
) -> None:
    failures = FailureSpec(node_rate=rate, device_rate=0.0, device_repair_s=3000.0)
    spec = replace(checkpoint(1500.0, cost), mode=mode)  # type: ignore[arg-type]
    scenario = job_scenario(steps=2000, failures=failures, checkpoint=spec, spare_nodes=spares,
                            on_loss=on_loss, replicas=3, maintenance=PauseSpec(5000.0, 60.0))  # fmt: skip
    job = simulate_job(
        scenario, 10.0, degraded_step_s=lambda n: 10.0 * (1 + sum(n)), model_params=1e9
    )
    assert job.productive_s + sum(job.lost_s.values()) == pytest.approx(job.wall_s, rel=1e-9)
    assert 0 < job.goodput <= 1
    assert all(seconds >= -1e-6 for seconds in job.lost_s.values())


def test_more_failures_take_longer() -> None:
    walls = []
    for scale in (0.0, 1.0, 4.0):
        failures = FailureSpec(scale=scale, software_rate=1e-4)
        walls.append(
            simulate_job(
                job_scenario(steps=20_000, failures=failures, checkpoint=checkpoint(1000.0, 20.0)),
                10.0, model_params=1e9,
            ).wall_s
        )  # fmt: skip
    assert walls == sorted(walls)


def test_asynchronous_checkpoints_stop_for_the_copy_only() -> None:
    # 1e9 weights x 14 bytes: 14 s at 1 GB/s to storage, 0.35 s at 2 x 20 GB/s to host memory
    slow = CheckpointSpec(1000.0, "synchronous", 1e9)
    assert checkpoint_cost(slow, 1e9, 2).stop_s == pytest.approx(14.0)
    background = checkpoint_cost(replace(slow, mode="asynchronous"), 1e9, 2)
    assert (background.stop_s, background.durable_after_s) == (
        pytest.approx(0.35),
        pytest.approx(14.0),
    )
    memory = checkpoint_cost(replace(slow, mode="memory"), 1e9, 2)
    assert (memory.stop_s, memory.durable_after_s) == (pytest.approx(0.35), 0.0)


def test_a_job_that_makes_no_headway_is_infeasible() -> None:
    failures = FailureSpec(software_rate=1.0)
    with pytest.raises(InfeasibleError, match="no headway"):
        simulate_job(job_scenario(failures=failures, replicas=1), 10.0, model_params=1e9)


def test_rates_add_up_over_components() -> None:
    node = make_node(device=make_device(failure_rate=1e-8), failure_rate=3e-8)
    pools = (Pool("", node, 10, make_stack()),)
    rates = cluster_failure_rates(pools, FailureSpec(scale=2.0, software_rate=5e-8))
    assert rates == {"device": pytest.approx(2 * 80e-8), "node": pytest.approx(2 * 30e-8),
                     "switch": 0.0, "software": pytest.approx(10e-8)}  # fmt: skip


@pytest.mark.parametrize(
    ("law", "shape"), [("exponential", 1.0), ("weibull", 1.0), ("weibull", 0.7)]
)
def test_first_failures_have_the_stated_mean(law: str, shape: float) -> None:
    spec = FailureSpec(law=law, shape=shape)  # type: ignore[arg-type]
    firsts = [next(failure_times(0.01, spec, streams(1, n)["node"])) for n in range(4000)]
    error = np.std(firsts) / math.sqrt(len(firsts))
    assert abs(np.mean(firsts) - 100.0) < 4 * error


def test_causes_draw_from_streams_of_their_own() -> None:
    base = job_scenario(steps=50_000, failures=FailureSpec(software_rate=1e-5), replicas=4,
                        checkpoint=checkpoint(1000.0, 20.0))  # fmt: skip
    more = replace(
        base, job=replace(base.job, failures=FailureSpec(software_rate=1e-5, switch_rate=1e-9))
    )
    first = simulate_job(base, 10.0, model_params=1e9)
    second = simulate_job(more, 10.0, model_params=1e9)
    assert first.interruptions_by_cause["software"] == second.interruptions_by_cause["software"]
    assert first == simulate_job(base, 10.0, model_params=1e9)


def test_llama3_405b_had_419_interruptions_in_54_days() -> None:
    # 16,384 H100: 268 stops of devices (256 by the catalogue's rate), 88 of nodes, 63 of software
    from ersatz.device_models.catalog.reading import load_node, load_stack

    pools = (Pool("", load_node("h100-8"), 2048, load_stack("llama3")),)
    software = job_defaults()["software_rate"].value * 16_384
    rates = cluster_failure_rates(pools, FailureSpec(software_rate=software))
    assert sum(rates.values()) * 54 * 86400 == pytest.approx(419, rel=0.04)


def plain_job(**changes: Any) -> Scenario:
    """A job of steps of 10 s without failures, checkpoints at no cost."""
    return job_scenario(steps=200_000, replicas=32, checkpoint=checkpoint(1000.0, 1e-6), **changes)


def test_a_condition_slows_the_job_for_its_share_of_the_time() -> None:
    # It comes 1,000 s after the last one ended and lasts 200 s: a sixth of the time, at half speed.
    # Work per second 5/6 + 1/12 = 11/12, so the wall time is 12/11 of the work.
    weather = (ConditionPlan("leaf down", 1 / 1000, 200.0, 2.0),)
    job = simulate_job(plain_job(), 10.0, conditions=weather, model_params=1e9)
    assert job.wall_s / job.productive_s == pytest.approx(12 / 11, rel=0.01)
    assert job.lost_s["degraded"] == pytest.approx(job.wall_s - job.productive_s, rel=1e-6)
    assert job.interruptions == 0


def test_a_condition_without_a_step_stops_the_job_until_it_is_over() -> None:
    # 100,000 s of free running at a time, then 8,000 s down, work since the last of the checkpoints
    # lost (500 s on average), no detection and restart to speak of.
    weather = (ConditionPlan("leaf down", 1e-5, 8000.0, math.inf),)
    quiet = plain_job(detection_s=0.0, restart_s=0.0)
    job = simulate_job(quiet, 10.0, conditions=weather, model_params=1.0)
    stops = job.interruptions_by_cause["leaf down"]
    assert stops == pytest.approx(2e6 / 1e5, rel=0.25)
    assert job.lost_s["waiting"] / stops == pytest.approx(8000, rel=1e-3)
    assert job.lost_s["rework"] / stops == pytest.approx(500, rel=0.2)


def test_the_worst_of_several_conditions_counts() -> None:
    now = Conditions(slowdowns={"a": 1.5, "b": 3.0})
    assert now.slowdown == 1.0
    now.lasting["a"] += 1
    assert now.slowdown == 1.5
    now.lasting["b"] += 1
    assert now.slowdown == 3.0
    assert not now.stops


def test_a_shrunk_job_takes_a_repaired_node_back_when_it_is_repaired() -> None:
    # One failure about every 50,000 s takes a node for 5,000 s; steps then take twice as long. Without
    # a spare: a tenth of the time at half speed. Had it to wait for the next failure, it would be all.
    failures = FailureSpec(node_rate=2e-5, device_repair_s=5000.0)
    spec = plain_job(
        failures=failures, on_loss="shrink", spare_nodes=0, detection_s=0.0, restart_s=0.0
    )
    job = simulate_job(spec, 10.0, degraded_step_s=lambda n: 20.0, model_params=1.0)
    assert job.lost_s["degraded"] / job.wall_s == pytest.approx(0.05, rel=0.3)
