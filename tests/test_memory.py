"""Memory of a plan, part by part, worked out by hand for one small model; then what must hold of all.

The round model has 148.016 M weights: eight layers of 16.002 M and two tables of 10 M. A micro-batch is
1,000 tokens of 1,000 wide; a layer keeps 40 MB of it, 18 matrices of a row beside two of the residual
stream: 2 x 1000 x (2 + 4 + 2 + 12) x 1000 bytes.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ersatz.device_models.kernels.kernel import calibrated_time
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.layout import split_layers
from ersatz.sim.plan.memory import least_capacity, plan_memory, remedies
from ersatz.sim.plan.memory.advice import CHANGES, fits_for_sure
from ersatz.sim.plan.memory.facts import block_waste
from ersatz.sim.plan.memory.moments import stage_bytes
from ersatz.sim.plan.memory.runtime import communicators
from ersatz.sim.plan.memory.timeline import fullest_timeline
from ersatz.sim.plan.memory.verdict import judge
from ersatz.sim.records import MemoryResult
from ersatz.sim.report.pictures.memory_timeline import draw
from ersatz.sim.run import _advice
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario, Training
from ersatz.sim.step.step import simulate_step
from ersatz.sim.workload.model import Experts
from tests.factories import make_device, make_model, make_node, make_scenario, make_stack
from tests.pace import within

WEIGHTS = 8 * 16.002e6 + 20e6
LAYER = 40e6
OP = ("layernorm", "activation", "every_second_product")


def planned(
    *, stack: Mapping[str, object] | None = None, tokens: int = 1000, batch: int = 64,
    capacity: float = 1e12, lora: int = 0, **parallel: object,
) -> Scenario:  # fmt: skip
    """The round scenario with another stack, sequence, batch, device or layout."""
    node = make_node(device=make_device(memory_bytes=capacity))
    return make_scenario(
        model=make_model(lora_rank=lora), pools=(Pool("", node, 1, make_stack(**(stack or {}))),),
        training=Training(tokens, batch, 1),
        parallel=Parallel(**({"dp": 8} | parallel)),  # type: ignore[arg-type]
    )  # fmt: skip


def of(**how: object) -> MemoryResult:
    return plan_memory(planned(**how), advise=False)  # type: ignore[arg-type]


def test_the_peak_is_the_loss_of_the_first_backward_pass() -> None:
    """Eight layers of 40 MB, 10 M logits of eight bytes, and the head's 2 MB of input. A layer in work
    would add 2 MB of residual gradient and half of 36 MB, 20 MB, but without logits."""
    found = of()
    assert found.parts["activations"] == pytest.approx(8 * LAYER)
    assert found.parts["loss"] == pytest.approx(82e6)
    assert found.parts["working set"] == 0
    assert found.moment.startswith("the loss, stage 0, 1 micro-batch in flight")
    assert found.allocated_bytes == pytest.approx(WEIGHTS * (2 + 4 + 12 / 8) + 402e6)


def test_fsdp_keeps_fp32_shards_and_no_second_copy() -> None:
    """An eighth of 4 bytes of weights and of 8 bytes of moments, where ZeRO 3 of others has 2 and 12."""
    torch, other = (of(stack={"master_is_weight": own}, zero=3).parts for own in (True, False))
    assert (torch["weights"], torch["optimizer"]) == pytest.approx((WEIGHTS / 2, WEIGHTS))
    assert (other["weights"], other["optimizer"]) == pytest.approx((WEIGHTS / 4, 1.5 * WEIGHTS))
    alone = of(stack={"master_is_weight": True}, dp=1, batch=8, zero=3)
    assert alone.parts["weights"] == pytest.approx(2 * WEIGHTS)  # nobody to share with: not sharded


def test_gradients_that_are_set_to_none_are_not_there_at_the_first_loss() -> None:
    """One micro-batch of 4,000 tokens: its loss comes before any gradient; of two, the second's after."""
    stack = {"gradient_buffer": False}
    assert of(stack=stack, tokens=4000, batch=8).parts["gradients"] == 0
    assert of(stack=stack, tokens=4000, batch=16).parts["gradients"] == pytest.approx(4 * WEIGHTS)


def test_selective_by_operator_keeps_every_second_product() -> None:
    """Two of the residual stream, queries, values, the attention's output and the first of two results
    of 4,000: 9,000 numbers a token, in two bytes."""
    found = of(recompute="selective", recompute_modules=OP)
    assert found.parts["activations"] == pytest.approx(8 * 18e6)


def test_full_recomputation_of_groups_and_of_some_layers() -> None:
    """Eight boundaries of 2 MB; of groups of two, four; of three layers only, five others whole."""
    assert of(recompute="full").parts["activations"] == pytest.approx(16e6)
    assert of(recompute="full", recompute_group=2).parts["activations"] == pytest.approx(8e6)
    some = of(recompute="full", recompute_layers=3)
    assert some.parts["activations"] == pytest.approx(3 * 2e6 + 5 * LAYER)


def test_the_layer_in_work_is_the_peak_where_the_loss_is_small() -> None:
    """Full recomputation, logits of one byte: 38 MB computed again and 20 MB of gradients; of a group
    of two layers twice 39 MB."""
    stack = {"loss_memory_bytes": 1.0}
    assert of(stack=stack, recompute="full").parts["working set"] == pytest.approx(58e6)
    pair = of(stack=stack, recompute="full", recompute_group=2)
    assert pair.parts["working set"] == pytest.approx(2 * 39e6 + 20e6)


def test_what_is_kept_in_8_bits() -> None:
    """Of 18 thousand numbers a token beside the residual stream's two, six are inputs and activations
    of products: in 8 bits 6 MB less; eight more are what enters the activation. Not where a framework
    saves 16 bits."""
    narrow = Training(1000, 64, 1, "fp8")
    layers = []
    for stack in ({}, {"narrow_results": True}, {"narrow_saved": False}):
        scenario = replace(planned(stack=stack), training=narrow)
        layers.append(plan_memory(scenario, advise=False).parts["activations"] / 8)
    assert layers == pytest.approx([LAYER - 6e6, LAYER - 14e6, LAYER])


def test_chunked_loss_and_split_head() -> None:
    """Halves of the logits one after the other; four more bytes each where the head is split in two."""
    assert of(stack={"loss_chunks": 2.0}).parts["loss"] == pytest.approx(40e6 + 2e6)
    stack = {"loss_parallel_bytes": 4.0, "keeps_gathered_inputs": True}
    assert of(stack=stack, tp=2, dp=4).parts["loss"] == pytest.approx(12 * 5e6 + 2e6)


def test_the_optimisers_step_is_the_peak_of_a_short_sequence() -> None:
    """100 tokens leave 40 MB; four bytes beside each of an eighth of the weights are 74 MB."""
    found = of(stack={"update_bytes": 4.0}, tokens=100)
    assert found.moment.startswith("the optimiser's step")
    assert found.parts["update"] == pytest.approx(WEIGHTS / 2)
    assert found.parts["activations"] == 0
    groups = of(stack={"update_bytes": 4.0, "update_params": 11e6}, tokens=100)
    assert groups.parts["update"] == pytest.approx(44e6)


def test_offload_lora_and_frozen_formats() -> None:
    """The host keeps three quarters of the state; LoRA's frozen weights in 4 bits and a scale, but for
    the two tables of 10 M, which stay in 16 bits.

    A layer's adapters of rank 16: four of (1000 + 1000) beside attention, three of (1000 + 4000).
    """
    assert of(stack={"optimizer_offload": 0.75}).parts["optimizer"] == pytest.approx(
        3 * WEIGHTS / 8
    )
    frozen = of(stack={"frozen_weight_bytes": 0.5625}, lora=16)
    assert frozen.parts["weights"] == pytest.approx(0.5625 * (WEIGHTS - 20e6) + 2 * 20e6)
    assert frozen.parts["optimizer"] == pytest.approx(12 * 8 * 16 * 23_000 / 8, rel=1e-4)


def test_gradient_copies_stand_whole() -> None:
    """ZeRO 2 leaves an eighth of the fp32 sum; a 16-bit copy stays whole."""
    found = of(stack={"gradient_copy_bytes": 2.0}, zero=2).parts["gradients"]
    assert found == pytest.approx(WEIGHTS * (4 / 8 + 2))


def test_what_deepspeed_gathers_matrix_by_matrix() -> None:
    """ZeRO 3 of 1,000 weights alive: no less than the head's table in use and the matrix before it."""
    found = of(stack={"live_params": 1000.0}, zero=3)
    assert found.parts["gathered weights"] == pytest.approx(2 * (10e6 + 4e6))
    many = of(stack={"live_params": 50e6}, zero=3)
    assert many.parts["gathered weights"] == pytest.approx(2 * 50e6)


def test_a_pipeline_that_sums_to_the_end_holds_all_gradients_whole() -> None:
    """Two stages of two chunks: with `step` the gradients of both chunks stand, with `run` of one."""
    how = {"pp": 2, "vp": 2, "dp": 4, "zero": 2, "schedule": "interleaved"}
    step, run = (of(stack={"zero2_reduce": word}, **how).parts["whole gradients"]
                 for word in ("step", "run"))  # fmt: skip
    assert step == pytest.approx(4 * WEIGHTS / 2)
    assert run == pytest.approx(4 * (2 * 16.002e6 + 10e6))


def test_zero_bubble_keeps_activations_until_the_weight_gradient() -> None:
    """ZB-H1 puts weight gradients off: its last stage holds as many micro-batches as its first."""
    found = of(pp=4, dp=2, schedule="zb-h1").by_stage
    plain = of(pp=4, dp=2).by_stage
    assert found[3] - plain[3] == pytest.approx(3 * 2 * LAYER * (1 + block_waste()), rel=0.02)


def test_communicators_and_what_the_allocator_wastes() -> None:
    """One group of eight has one name more but one communicator; with tp two, three differ. A working
    set of 20 MB is gone when the loss stands, and of 402 MB a small share is lost."""
    assert communicators(Parallel(dp=8)) == 1
    assert communicators(Parallel(tp=2, dp=4)) == 3  # tp, dp and all
    found = of(stack={"communicator_bytes": 5.0, "memory_fragmentation": 1.0})
    assert found.parts["communication"] == 5.0
    assert found.parts["fragmentation"] == pytest.approx(20e6 + block_waste() * 402e6)
    assert found.reserved_bytes == pytest.approx(
        found.allocated_bytes + found.parts["fragmentation"]
    )


def test_a_verdict_has_a_margin() -> None:
    """Half of the capacity is sure, all of it a coin's throw, twice of it hopeless."""
    assert judge(1.0, 2.0) == ("fits", pytest.approx(1.0, abs=1e-9))
    assert judge(1.0, 1.0) == ("tight", 0.5)
    assert judge(2.0, 1.0) == ("does not fit", pytest.approx(0.0, abs=1e-9))


def test_remedies_are_as_small_as_can_be_and_each_fits() -> None:
    """1.46 GB are held at the loss of 1,000 tokens: of 1.2 GB one change helps; of 0.75 GB none does."""
    one = remedies(planned(capacity=1.25e9))
    assert "zero: 2" in dict(one)
    assert all(fits_for_sure(changed) for changed in dict(one).values())
    assert fits_for_sure(planned(capacity=least_capacity(planned()) * 1.0001))
    assert not fits_for_sure(planned(capacity=least_capacity(planned()) * 0.9999))
    tight = planned(capacity=0.75e9)
    several = remedies(tight)
    assert several
    singles = [changed for _, change in CHANGES if (changed := change(tight)) is not None]
    assert not any(fits_for_sure(changed) for changed in singles)
    assert all(fits_for_sure(changed) and " + " in words for words, changed in several)


def test_only_a_plan_that_cannot_be_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stages of three and four layers are no split of eight: no such plan. Another fault is told."""
    assert not fits_for_sure(planned(dp=4, pp=2, chunk_layers=(3, 4)))

    def broken(scenario: Scenario) -> None:
        raise ValueError("a fault of the model of memory")

    monkeypatch.setattr("ersatz.sim.plan.memory.advice.stage_peaks", broken)
    with pytest.raises(ValueError, match="a fault of the model of memory"):
        fits_for_sure(planned())


def test_a_remedy_that_no_step_can_be_made_of_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1.25 GB sharding the gradients helps; where the network then cuts a rank off, that is said."""

    def seconds(changed: Scenario, timer: object) -> float:
        if changed.parallel.zero:
            raise InfeasibleError("the network cuts off a rank of the dp groups")
        return 1.0

    monkeypatch.setattr("ersatz.sim.run.step_seconds", seconds)
    scenario = planned(capacity=1.25e9)
    told = list(_advice(scenario, simulate_step(scenario), calibrated_time))
    (without,) = [line for line in told if line.startswith("zero: 2")]
    assert without == (
        "zero: 2 (it would fit, but no step can be made: the network cuts off a rank of the dp groups)"
    )


def test_the_timeline_has_the_peak_and_ends_with_the_optimiser() -> None:
    scenario = planned(pp=4, dp=2, stack={"memory_overhead_bytes": 7.0})
    found = fullest_timeline(scenario)
    result = plan_memory(scenario, advise=False)
    assert found.held[found.peak].sum() == pytest.approx(result.allocated_bytes + 7.0)
    assert found.held.sum(axis=1).max() == pytest.approx(found.held[found.peak].sum())
    assert found.words[-1].startswith("the optimiser's step")
    assert np.all(np.diff(found.slots) >= 0)
    assert found.words[found.peak].split(", micro-batch")[0] in result.moment
    picture = draw(found, "a & b")
    assert picture.startswith("<svg")
    assert "a &amp; b: stage 0" in picture
    assert "activations" in picture


@given(
    st.sampled_from(["none", "selective", "full"]), st.integers(0, 3), st.sampled_from([1, 2, 4]),
    st.booleans(), st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_monotone_where_it_must_be(
    recompute: str, zero: int, pp: int, experts: bool, torch: bool
) -> None:
    """More recomputation, ZeRO, tensor ranks or fewer sequences never need more."""
    stack = make_stack(master_is_weight=torch, gradient_buffer=not torch)
    model = make_model(experts=Experts(routed=8, top_k=2, hidden=1000) if experts else None)
    base = make_scenario(
        model=model, pools=(Pool("", make_node(), 4, stack),), training=Training(1000, 128, 2),
        parallel=Parallel(pp=pp, dp=32 // pp, zero=zero, recompute=recompute),  # type: ignore[arg-type]
    )  # fmt: skip

    def held(**changes: object) -> float:
        return plan_memory(replace(base, parallel=replace(base.parallel, **changes)),  # type: ignore[arg-type]
                           advise=False).allocated_bytes  # fmt: skip

    def falls(values: list[float]) -> bool:
        return all(after <= before * (1 + 1e-12) for before, after in pairwise(values))

    assert falls([held(recompute=mode) for mode in ("none", "selective", "full")])
    if zero < 2 or pp == 1:  # whole gradients and gathered parts may outweigh small shards
        assert falls([held(zero=level) for level in (0, 1)])
    assert falls([held(tp=tp, dp=32 // pp // tp) for tp in (1, 2)])
    smaller = replace(base, training=replace(base.training, micro_batch=1))
    assert plan_memory(smaller, advise=False).allocated_bytes <= held() * (1 + 1e-12)


def test_a_plan_of_4096_ranks_takes_ten_milliseconds() -> None:
    node = make_node()
    scenario = make_scenario(
        model=make_model(layers=64, hidden=1024, heads=16, kv_heads=16, head_dim=64),
        pools=(Pool("", node, 512, make_stack()),), training=Training(1000, 4096, 1),
        parallel=Parallel(tp=8, pp=16, dp=32),
    )  # fmt: skip
    plan_memory(scenario, advise=False)
    with within(0.100):
        peaks = {plan_memory(scenario, advise=False).peak_bytes for _ in range(10)}
    assert len(peaks) == 1


def test_messages_of_a_pipeline_have_buffers() -> None:
    """Eight micro-batches of 2 MB: the first stage receives gradients, the second inputs; it keeps seven
    results of 1,000 x 10,000 logits in 16 bits beside that of the micro-batch in work."""
    found = [
        stage_bytes(scenario, pool, [chunk]).kept["messages"]
        for scenario in [
            planned(
                stack={"pipeline_buffers": True, "keeps_results": True},
                pp=2,
                dp=4,
                zero=1,
                batch=32,
            )
        ]
        for pool in scenario.pools
        for chunk in split_layers(scenario.model, scenario.parallel)
    ]
    assert found == [8 * 2e6, 8 * 2e6 + 7 * 20e6]


def test_gradients_leave_deepspeed_in_sixteen_bits() -> None:
    """What autograd makes of a matrix of (1000, 4000) is 2 bytes each, whatever they are summed in."""
    stack = {"live_params": 1.0, "gradient_dtype": "fp32", "bucket_params": 0.0}
    parts = of(stack=stack, zero=3, tokens=100).parts
    assert parts["whole gradients"] == pytest.approx(2 * 10e6)  # the head's table
