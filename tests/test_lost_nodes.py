"""What a lost node takes with it, who is slow then, and what the job makes of it: counted by hand."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from factories import make_device, make_node, make_scenario, make_stack
from hypothesis import given, settings
from hypothesis import strategies as st
from known_cases import known_case

from ersatz.sim.job.checkpoint import saved_params
from ersatz.sim.job.conditions import ConditionPlan
from ersatz.sim.job.cost import job_cost
from ersatz.sim.job.energy import job_energy
from ersatz.sim.job.job import simulate_job
from ersatz.sim.run import run_case
from ersatz.sim.scenario.scenario import (
    CheckpointSpec,
    CostSpec,
    FailureSpec,
    JobSpec,
    Parallel,
    Pool,
    Scenario,
    Stragglers,
    Training,
    shared_out,
)
from ersatz.sim.step.degraded import (
    _splittable,
    degraded_step_seconds,
    replicas_left,
    without_nodes,
)
from ersatz.sim.step.step import share_microbatches, simulate_step, step_seconds


def slowdown(scenario: Scenario, *lost: int) -> float:
    """Return the step with nodes lost over the whole one."""
    return degraded_step_seconds(scenario, lost) / step_seconds(scenario)


def two_nodes(**keys: Any) -> Scenario:
    """Sixteen replicas of Llama 2 7B on two nodes, eight sequences each."""
    return known_case(2, model="llama2-7b", training={"global_batch": 128},
                      parallel={"tp": 1}, **keys)  # fmt: skip


def test_a_node_of_many_replicas_takes_them_all() -> None:
    # 16 replicas on two nodes: without one node 8 of them do 128 sequences, 16 each instead of 8.
    assert replicas_left(two_nodes(), [1]) == (8,)
    assert slowdown(two_nodes(), 1) == pytest.approx(1.98, abs=0.03)


def test_nodes_of_one_replica_are_lost_together() -> None:
    # A replica of tp 8 x pp 8 fills 8 of 32 nodes. The other devices are dealt out anew: 31 to 24
    # nodes hold three whole replicas, 23 hold two, and fewer than 8 none.
    job = known_case(32, parallel={"pp": 8})
    assert [replicas_left(job, [n])[0] for n in (0, 1, 2, 4, 8, 9, 24, 25)] == [
        4,
        3,
        3,
        3,
        3,
        2,
        1,
        0,
    ]
    # four replicas of 32 micro-batches, three of 43, with seven slots of ramp: 50 for 39 slots
    assert slowdown(job, 4) == pytest.approx((43 + 7) / (32 + 7), rel=0.03)
    assert slowdown(job, 2) == slowdown(job, 4)
    assert slowdown(job, 25) == math.inf


def test_a_replica_lost_breaks_its_group_of_experts() -> None:
    # ep 64 on tp 1: 64 replicas hold every expert between them. Of 128 replicas on 16 nodes a lost
    # node leaves 120, which are one whole group of 64; of 64 replicas it leaves none.
    moe = known_case(16, model="qwen3-30b-a3b", training={"global_batch": 512},
                     parallel={"tp": 1, "ep": 64})  # fmt: skip
    assert replicas_left(moe, [1]) == (64,)
    assert slowdown(moe, 1) == pytest.approx(1.98, abs=0.06)
    alone = known_case(8, model="qwen3-30b-a3b", training={"global_batch": 256},
                       parallel={"tp": 1, "ep": 64})  # fmt: skip
    assert without_nodes(alone, [1]) is None


def test_the_pool_that_loses_a_node_is_the_one_that_shrinks() -> None:
    pools = {"pools": [{"name": "a", "node": "h800-8", "nodes": 4},
                       {"name": "b", "node": "ascend-910b2-8", "nodes": 4,
                        "stack": "mindspeed"}]}  # fmt: skip
    replicas = known_case(8, cluster=pools, model="llama2-7b", training={"global_batch": 256},
                          parallel={"tp": 1, "mixed": "replicas"})  # fmt: skip
    assert replicas_left(replicas, [1, 0]) == (24, 32)
    assert replicas_left(replicas, [0, 4]) == (32, 0)
    # 256 micro-batches are 6 for each of 32 replicas of a and 2 for those of b, a third as fast. With 24
    # of a 8 and 2 make as many; with 24 of b 7 and 2 are the least of whole numbers, 272 in all.
    assert slowdown(replicas, 1, 0) == pytest.approx(8 / 6, rel=0.1)
    assert slowdown(replicas, 0, 1) == pytest.approx(7 / 6, rel=0.1)
    stages = known_case(8, cluster=pools, parallel={"pp": 4, "stage_pools": ["a", "a", "b", "b"]},
                        training={"global_batch": 64})  # fmt: skip
    assert replicas_left(stages, [1, 0]) == replicas_left(stages, [0, 2]) == (1,)


def test_racks_that_groups_of_experts_do_not_fill_stand_still() -> None:
    """A replica has 2 devices and 16 experts' ranks are 8 replicas: 72 devices are 4.5 of these groups.

    So racks train in pairs, 72 replicas in each. Without one of 8 another stands still, with which
    nobody would know where the other half of its group is; and more racks are never slower.
    """
    pools = {"pools": [{"name": "a", "node": "h800-8", "nodes": 8},
                       {"name": "b", "node": "gb300-nvl72", "nodes": 8}]}  # fmt: skip
    job = known_case(8, cluster=pools, model="ling-lite", training={"global_batch": 1280},
                     parallel={"tp": 2, "ep": 16, "etp": 1, "mixed": "replicas"})  # fmt: skip
    left = [replicas_left(job, [0, n])[1] for n in range(9)]
    assert left == [288, 216, 216, 144, 144, 72, 72, 0, 0]
    paces = [slowdown(job, 0, n) for n in range(9)]
    assert all(map(math.isfinite, paces))
    assert paces == sorted(paces)
    for n in range(8):
        smaller = without_nodes(job, [0, n])
        assert smaller is not None
        assert sum(p.devices for p in smaller.pools) == 2 * smaller.parallel.dp


def test_a_pool_that_loses_all_its_replicas_leaves_the_batch_to_the_other() -> None:
    """Two pools of one node, each 8 replicas of 8 devices: without the second the first has all 16."""
    nodes = make_node(), make_node(device=make_device(matrix_peak={"bf16": 50e12}))
    pools = tuple(Pool(n, node, 1, make_stack()) for n, node in zip("ab", nodes, strict=True))
    case = make_scenario(
        pools=pools, parallel=Parallel(dp=16, mixed="replicas"), training=Training(1000, 48, 1)
    )
    left = without_nodes(case, (0, 1))
    assert left is not None
    assert [pool.name for pool in left.pools] == ["a"]
    assert (left.parallel.dp, left.training.global_batch) == (8, 48)
    assert step_seconds(left) > step_seconds(case)
    assert without_nodes(case, (1, 1)) is None


def test_a_slow_rank_stays_slow_wherever_the_step_is_asked() -> None:
    slow = two_nodes(stragglers={"ranks": {3: 0.5}})
    assert step_seconds(slow) == simulate_step(slow).duration_s > 1.4 * step_seconds(two_nodes())
    assert slowdown(slow, 1) == pytest.approx(1.98, abs=0.03)
    last = two_nodes(stragglers={"ranks": {15: 0.5}})  # on the second node, that is left of two
    assert slowdown(last, 1) == pytest.approx(1.98, abs=0.03)


def test_a_slow_rank_of_two_pools_is_one_rank() -> None:
    # Ranks are counted over the whole job: of two equal pools of eight, rank 11 is the fourth of the
    # second. Only that pool's work is slow, and a batch split by speed gives it less of it.
    pool = make_scenario().pools[0]
    both = make_scenario(pools=(replace(pool, name="a"), replace(pool, name="b")),
                         parallel=Parallel(dp=16, mixed="replicas", batch_split="equal"),
                         training=Training(1000, 128, 1))  # fmt: skip
    slow = replace(both, stragglers=Stragglers(ranks={11: 0.5}))
    first, second = simulate_step(slow).by_stage
    assert (first.get("straggler", 0.0), second["straggler"] > 0) == (0.0, True)


@pytest.mark.heavy
@given(st.integers(1, 15), st.floats(0.01, 1.0), st.integers(0, 63), st.sampled_from([1, 2, 4]))
@settings(max_examples=25, deadline=None)
def test_slow_ranks_and_lost_nodes_never_speed_up(
    lost: int, slow: float, rank: int, pp: int
) -> None:
    pool = replace(make_scenario().pools[0], nodes=16)
    job = make_scenario(pools=(pool,), parallel=Parallel(tp=2, pp=pp, dp=64 // pp),
                        training=Training(1000, 512, 1))  # fmt: skip
    slower = replace(job, stragglers=Stragglers(ranks={rank: slow}))
    assert step_seconds(slower) >= step_seconds(job)
    whole, left = step_seconds(slower), degraded_step_seconds(slower, [lost])
    assert left >= whole
    assert degraded_step_seconds(slower, [lost]) >= degraded_step_seconds(job, [lost])


@given(st.floats(0.0, 20.0), st.integers(0, 2), st.sampled_from(["wait", "shrink"]), st.booleans())
@settings(max_examples=15, deadline=None)
def test_goodput_is_at_most_one(scale: float, spares: int, on_loss: str, slow: bool) -> None:
    ranks = {"ranks": {3: 0.5}} if slow else {}
    job = {"failures": {"scale": scale}, "spare_nodes": spares, "on_loss": on_loss, "replicas": 4}
    case = two_nodes(stragglers=ranks, job=job)
    case = replace(case, training=replace(case.training, tokens=2e11))
    done = run_case(case).job
    assert done
    assert 0 < done.goodput <= 1
    assert all(seconds >= -1e-6 for seconds in done.lost_s.values())


def test_without_failures_the_wall_is_steps_and_checkpoints() -> None:
    case = two_nodes(job={"failures": {"scale": 0}, "replicas": 1})
    case = replace(case, training=replace(case.training, tokens=2e11))
    done = run_case(case)
    assert done.job
    assert done.job.wall_s == pytest.approx(
        done.job.steps * done.step.duration_s + done.job.lost_s["checkpoint"]
    )


def nodes_of_one(count: int, **job: Any) -> Scenario:
    """A long job on `count` nodes that fail every 200,000 s and are back after 20,000."""
    node = make_node(device=make_device(failure_rate=0.0), failure_rate=5e-6)
    checkpoint = CheckpointSpec(1000.0, "synchronous", 1e12)
    spec = JobSpec(failures=FailureSpec(device_repair_s=20_000.0), checkpoint=checkpoint,
                   on_loss="shrink", detection_s=0.0, replicas=16, **job)  # fmt: skip
    return make_scenario(pools=(Pool("", node, count, make_stack()),), job=spec,
                         parallel=Parallel(dp=8 * count),
                         training=Training(1000, 64, 1, tokens=1e10))  # fmt: skip


def test_a_node_that_is_back_costs_a_restart() -> None:
    # Without a spare every loss is followed by a return; the job starts anew both times: 600 s each.
    case = nodes_of_one(4, restart_s=600.0)
    job = simulate_job(case, 10.0, degraded_step_s=lambda lost: 10.0 + sum(lost), model_params=1.0)
    losses = job.interruptions
    assert job.lost_s["restart"] / (600.0 * losses) == pytest.approx(2.0, abs=0.1)


def test_a_node_that_makes_no_replica_is_not_taken_back_for() -> None:
    # Steps take as long with one node lost as with two: the one that is back waits for the other.
    case = nodes_of_one(4, restart_s=600.0)
    same = simulate_job(case, 10.0, degraded_step_s=lambda lost: 10.0, model_params=1.0)
    assert same.lost_s["restart"] == pytest.approx(600.0 * same.interruptions, rel=0.01)


def test_no_replica_left_stands_still_until_one_is_back() -> None:
    # One node of two holds no replica: the job waits 2,000 s for each loss, and is not refused.
    case = nodes_of_one(2, restart_s=0.0)
    quick = replace(case.job.failures, device_repair_s=2000.0)
    case = replace(case, job=replace(case.job, failures=quick))
    job = simulate_job(case, 10.0, degraded_step_s=lambda lost: math.inf, model_params=1.0)
    assert job.lost_s["waiting"] / job.interruptions == pytest.approx(2000, rel=0.05)


def quiet(mode: str, interval: float = 0.0, **rates: Any) -> Scenario:
    """A job whose copy takes 0.1 s and whose write takes 200 s, with a stop every 10,000 s."""
    checkpoint = CheckpointSpec(interval, mode, 7e10, memory_bandwidth=1.4e14)  # type: ignore[arg-type]
    spec = JobSpec(failures=FailureSpec(software_rate=1e-4), checkpoint=checkpoint, replicas=4,
                   **rates)  # fmt: skip
    return make_scenario(job=spec, training=Training(1000, 64, 1, tokens=1e10))


@pytest.mark.parametrize(
    ("mode", "given_s", "expected"),
    [
        # Daly for 0.1 s and 10,000 s is 44.6 s: sqrt(2 x 0.1 x 10,000) less 0.1; a step takes 10 s.
        ("memory", 0.0, 44.65),
        # In the background a write of 200 s must end before the next begins, whoever asks for less.
        ("asynchronous", 0.0, 200.0),
        ("asynchronous", 60.0, 200.0),
        ("asynchronous", 500.0, 500.0),
    ],
)
def test_checkpoints_are_as_often_as_steps_writes_and_daly_allow(
    mode: str, given_s: float, expected: float
) -> None:
    job = simulate_job(quiet(mode, given_s), 10.0, model_params=1e12)
    assert job.checkpoint_interval_s == pytest.approx(expected, rel=1e-3)


def test_a_step_is_the_least_interval() -> None:
    job = simulate_job(quiet("memory"), 100.0, model_params=1e12)
    assert job.checkpoint_interval_s == 100.0


def test_conditions_that_stop_the_job_count_for_the_interval() -> None:
    # a stop every 10,000 s and a condition every 10,000 s are one every 5,000 s
    cut = (ConditionPlan("cut", 1e-4, 100.0, math.inf), ConditionPlan("slow", 1e-3, 1.0, 2.0))
    job = simulate_job(quiet("memory"), 10.0, conditions=cut, model_params=1e12)
    assert job.mtbf_s == pytest.approx(5000.0)


def test_a_write_is_no_faster_than_the_nodes() -> None:
    # 94 GB of Llama 2 7B from one node: 100 GB/s of storage, but 10 GB/s out of the node
    case = known_case(1, model="llama2-7b", parallel={"tp": 1},
                      training={"tokens": "1 T tokens", "global_batch": 8})  # fmt: skip
    assert case.job.checkpoint.node_bandwidth == 10e9
    assert any("checkpoint.node_bandwidth" in line for line in case.assumptions)
    job = simulate_job(case, 10.0, model_params=case.model.params())
    share = job.lost_s["checkpoint"] / job.productive_s
    assert share == pytest.approx(9.4 / job.checkpoint_interval_s, rel=0.02)


def test_software_fails_where_nothing_is_said() -> None:
    # 63 software stops of 16,384 devices in 54 days: 2.6 % a year and device
    case = known_case(128, training={"tokens": "1 T tokens"})
    assert case.job.failures.software_rate * 365.25 * 86400 == pytest.approx(1024 * 0.026)
    assert any("failures.software_rate is not given" in line for line in case.assumptions)
    own = known_case(
        128, training={"tokens": "1 T tokens"}, job={"failures": {"software_rate": "1 /day"}}
    )
    assert own.job.failures.software_rate == pytest.approx(1 / 86400)


def two_pools(spares: object) -> Scenario:
    """Four nodes of H800 at 30 CNY/h and device, four of 910B2 at 6."""
    pools = {"pools": [{"name": "a", "node": "h800-8", "nodes": 4},
                       {"name": "b", "node": "ascend-910b2-8", "nodes": 4,
                        "stack": "mindspeed"}]}  # fmt: skip
    return known_case(8, cluster=pools, model="llama2-7b",
                      training={"global_batch": 256, "tokens": "10 B tokens"},
                      parallel={"tp": 1, "mixed": "replicas"}, job={"spare_nodes": spares},
                      cost={"model": "rent", "rent": {"a": "30 CNY/h", "b": "6 CNY/h"}})  # fmt: skip


@pytest.mark.parametrize(
    ("spares", "devices"),
    [({"a": 4}, (64, 32)), ({"b": 4}, (32, 64)), ({"a": 1, "b": 3}, (40, 56)), (4, (48, 48))],
)
def test_spares_are_billed_by_the_pool_that_they_stand_in_for(
    spares: object, devices: tuple[int, int]
) -> None:
    case = two_pools(spares)
    job = simulate_job(case, 2.0, model_params=1e9)
    cost = job_cost(case, job, job_energy(case, job, 0.5))
    hours = job.wall_s / 3600
    assert cost.total == pytest.approx(hours * (30 * devices[0] + 6 * devices[1]))
    assert job.device_hours == pytest.approx(hours * sum(devices))


def test_a_spare_replaces_a_node_of_its_own_pool_only() -> None:
    # Only pool b fails; the spares of pool a are of no use to it.
    case = two_pools({"a": 4})
    pools = tuple(
        replace(p, node=replace(p.node, failure_rate=1e-4 if p.name == "b" else 0.0,
                                device=replace(p.node.device, failure_rate=0.0)))
        for p in case.pools
    )  # fmt: skip
    quiet_case = replace(case, pools=pools, job=replace(
        case.job, on_loss="shrink", failures=FailureSpec(), replicas=8))  # fmt: skip

    def degraded(lost: tuple[int, ...]) -> float:
        assert lost[0] == 0
        return 2.0 * (1 + lost[1])

    alone = simulate_job(quiet_case, 2.0, degraded_step_s=degraded, model_params=1e9)
    assert alone.lost_s["degraded"] > 0


def test_spares_without_a_pool_are_dealt_out_and_it_is_said() -> None:
    assert shared_out(5, [4, 4, 2]) == (2, 2, 1)
    assert any("2 of a, 2 of b" in line for line in two_pools(4).assumptions)


def test_an_annuity_pays_for_the_power_of_each_pool_and_of_its_spares() -> None:
    # All kWh of the job are paid: over pools and spares the annuity's electricity is the energy's.
    case = replace(two_pools({"a": 1, "b": 3}), cost=CostSpec(
        "annuity", "CNY", server_price={"": 1e6}, energy_price=0.5 / 3.6e6, sold_fraction=1.0))  # fmt: skip
    job = simulate_job(case, 2.0, model_params=1e9)
    energy = job_energy(case, job, 0.5)
    parts = job_cost(case, job, energy).parts
    paid = {name: parts[f"electricity ({name})"] / 0.5 for name in ("a", "b")}
    assert sum(paid.values()) == pytest.approx(energy.kwh)
    assert paid["a"] == pytest.approx(energy.pools_kwh["a"])


def test_hosts_and_networks_draw_what_they_do() -> None:
    # 8.4 kW at most for a node of eight H100 under training: 5.6 of devices, 2.8 of the host's rated 4.6.
    # 128 such nodes hang on 32 leaves of 64 ports and as many halves of spines; 2,048 cables.
    case = known_case(128, training={"tokens": "1 T tokens"}, job={"spare_nodes": 0})
    job = simulate_job(case, 10.0, model_params=1e9)
    energy = job_energy(case, job, 1.0 / job.goodput)
    hours = job.wall_s / 3600
    assert energy.parts_kwh["hosts"] / hours / 128 == pytest.approx(2.8, rel=0.01)
    assert energy.parts_kwh["network"] / hours == pytest.approx(48 * 0.75 + 2048 * 0.03, rel=0.02)


def test_a_frozen_model_saves_its_adapters() -> None:
    # of rank 16 beside q and o (8192 + 8192), k and v (8192 + 1024), three of the MLP (8192 + 28672)
    model = known_case(2).model
    assert saved_params(replace(model, lora_rank=16)) == 16 * 80 * 161_792
    assert saved_params(model) == model.params()


def test_the_batch_of_fewer_replicas_is_the_least_that_is_done_soonest() -> None:
    """Beside every split that there is: 300 jobs on two kinds of device, and on three."""
    rng = random.Random(3)
    for number in range(300):
        replicas = [rng.randint(1, 12) for _ in range(2 + (number % 3 == 0))]
        speeds = rng.choice(
            ([1.0] * 3, [rng.uniform(0.1, 3.0) for _ in range(3)], [3.0, 1 / 3, 0.5])
        )[: len(replicas)]
        asked = rng.randint(1, 60)
        most = [(asked + 2 * max(replicas)) // n for n in replicas]
        splits = [
            (max(n / v for n, v in zip(counts, speeds, strict=True)), total)
            for counts in product(*(range(1, n + 2) for n in most))
            if (total := sum(a * b for a, b in zip(counts, replicas, strict=True))) >= asked
        ]  # fmt: skip
        soonest, least = min(splits)
        found = _splittable(asked, replicas, speeds)
        counts = share_microbatches(found, replicas, speeds)
        assert max(n / v for n, v in zip(counts, speeds, strict=True)) == soonest
        if len(replicas) == 2:
            assert found == least
