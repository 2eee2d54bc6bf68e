"""What a job exchanges with its host: time of the copies beside the step, worked out by hand."""

from dataclasses import replace

import pytest

from ersatz.sim.plan.memory import layer_kept, plan_memory
from ersatz.sim.plan.memory.runtime import exchange_buffers
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario
from ersatz.sim.step.step import simulate_step, step_seconds
from tests.factories import make_node, make_scenario, make_stack

SLOW, QUICK = 1e6, 1e15  # bytes/s: copies hold everything up, or nothing


def job(rate: float = QUICK, zero: int = 1, **stack: object) -> Scenario:
    pool = Pool("", make_node(), 1, make_stack(host_bandwidth=rate, **stack))
    return make_scenario(pools=(pool,), parallel=Parallel(dp=8, zero=zero))


def test_activations_go_and_come_back_once() -> None:
    """Eight layers of 40 MB and eight micro-batches a rank, there and back at 1 MB/s: next to that the
    step itself is nothing; at a rate without end it is all."""
    plain, away = job(), job(SLOW, activation_offload=1.0)
    kept = layer_kept(plain, plain.pools[0], plain.model.kinds[0], again=True)
    copies = 8 * 8 * 2 * kept / SLOW
    assert step_seconds(away) == pytest.approx(copies, rel=0.01)
    assert step_seconds(job(QUICK, activation_offload=1.0)) == pytest.approx(
        step_seconds(plain), rel=0.05
    )


def test_less_stands_on_the_device() -> None:
    """A half of what layers keep, and twice the half of one layer's while it works."""
    parts, plain = (
        plan_memory(x, advise=False).parts for x in (job(activation_offload=0.5), job())
    )
    assert parts["activations"] == pytest.approx(plain["activations"] / 2)
    assert plan_memory(job(activation_offload=1.0), advise=False).parts["activations"] == 0


def test_weights_come_for_each_use() -> None:
    """A rank's eighth of the weights, 2 bytes each, for both passes of each of eight micro-batches; the
    head is used at once in the backward pass and does not come again."""
    slow = job(SLOW, zero=3, weights_offload=1.0)
    layers, table = 8 * 16.002e6, 10e6
    shards = 8 * 2 * (2 * layers + 3 * table) / 8
    assert step_seconds(slow) == pytest.approx(shards / SLOW, rel=0.01)
    assert plan_memory(slow, advise=False).parts["weights"] == 0


def test_state_that_comes_back_is_updated_on_the_device() -> None:
    """The state of an eighth of the weights moves both ways at once; the host's own update is not there."""
    away = job(SLOW, optimizer_offload=1.0, updates_on_device=True)
    state = away.pools[0].stack.optimizer_state_bytes * 148.016e6 / 8
    assert step_seconds(away) - step_seconds(job()) == pytest.approx(state / SLOW, rel=0.01)


def test_buffers_of_an_expert_exchange() -> None:
    """Tokens of 7,168 in 16 bits: 10 channels x 8 ranks x 256 slots in the node; over 8 nodes 10 x 8 x 128
    slots twice beside it. A slot has 2 KB more."""
    slot = 2 * 7168 + 2048
    assert exchange_buffers(2 * 7168, 8) == 10 * 8 * 256 * slot
    assert exchange_buffers(2 * 7168, 64) == 10 * 8 * 256 * slot + 10 * 8 * 128 * 2 * slot
    with_pool = job(graph_pool_bytes=2e9)
    assert plan_memory(with_pool, advise=False).parts["graphs"] == 2e9
    assert not plan_memory(job(), advise=False).parts["graphs"]


def test_copies_in_both_passes_of_a_pipeline() -> None:
    """Half of the layers a stage: copies of fewer bytes, on as many streams."""
    one = job(SLOW, activation_offload=1.0)
    two = replace(one, parallel=Parallel(dp=4, pp=2, zero=1))
    assert step_seconds(two) < 1.3 * step_seconds(one)


def test_a_stage_without_layers_copies_nothing() -> None:
    """Layers split 4, 0, 0, 4 over four stages: those between have no part to send away.

    The last stage goes backward as soon as it has gone forward: of each of 32 micro-batches 4 layers leave
    and come back, one after the other. Then the last comes back to the first stage: 4 layers.
    """
    pool = Pool("", make_node(), 1, make_stack(host_bandwidth=SLOW, activation_offload=1.0))
    parallel = Parallel(pp=4, dp=2, chunk_layers=(4, 0, 0, 4))
    split = make_scenario(pools=(pool,), parallel=parallel)
    kept = layer_kept(split, pool, split.model.kinds[0], again=True)
    batches = split.training.global_batch // 2
    assert step_seconds(split) == pytest.approx((batches * 8 + 4) * kept / SLOW, rel=0.001)
    assert step_seconds(split) == simulate_step(split).duration_s
