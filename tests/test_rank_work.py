"""What one rank computes and sends in a layer, counted by hand against what frameworks do."""

from dataclasses import replace
from typing import Any

import pytest
from factories import make_model, make_node, make_scale_up, make_scenario, make_stack
from hypothesis import given
from hypothesis import strategies as st

from ersatz.device_models.kernels.kernel import Kernel
from ersatz.device_models.networks.collectives import collective_time
from ersatz.device_models.networks.group import group_of
from ersatz.sim.scenario.scenario import Parallel, Pool, Training
from ersatz.sim.step.bench import alone
from ersatz.sim.step.build import build_program
from ersatz.sim.step.step import simulate_step, step_seconds
from ersatz.sim.workload.model import Experts, LatentAttention
from ersatz.sim.workload.ops import embedding_work, head_work, layer_work, predict_work
from ersatz.sim.workload.pieces import Comm, Piece, Shard
from ersatz.sim.workload.recompute import repeated

MOE = make_model(experts=Experts(routed=8, top_k=2, hidden=500))
MLA = make_model(
    latent=LatentAttention(q_rank=300, kv_rank=100, rope_dim=20, nope_dim=80, v_dim=60)
)


def make_shard(**changes: Any) -> Shard:
    """1,000 tokens of a model of hidden 1,000: an activation is a million elements."""
    values: dict[str, Any] = dict(
        model=make_model(), stack=make_stack(), tokens=1000.0, sequence=1000, precision="bf16",
        tp=1, cp=1, ep=1, etp=1, sequence_parallel=False,
    )  # fmt: skip
    return Shard(**(values | changes))


def comms(pieces: tuple[Piece, ...], group: str = "") -> list[tuple[str, float]]:
    """Kind and MB of each collective, in order."""
    found = [p for p in pieces if isinstance(p, Comm) and group in ("", p.group)]
    return [(c.kind, c.nbytes / 1e6) for c in found]


def flop(pieces: tuple[Piece, ...], name: str = "") -> float:
    kernels = [p for p in pieces if isinstance(p, Kernel) and name in ("", p.name)]
    return sum(k.flop for k in kernels)


GATHER, SCATTER, SUM = "all_gather", "reduce_scatter", "all_reduce"


def test_backward_gathers_inputs_again_with_sequence_parallelism() -> None:
    """Attention and MLP each: forward a gather and a scatter of 2 MB; backward a gather of the
    output's gradient, one of the input for its weight gradient, and a scatter."""
    work = layer_work(make_shard(tp=2, sequence_parallel=True), moe=False)
    assert comms(work.forward) == [(GATHER, 2), (SCATTER, 2)] * 2
    assert comms(work.input_grad) == [(GATHER, 2), (GATHER, 2), (SCATTER, 2)] * 2
    kept = make_shard(tp=2, sequence_parallel=True, stack=make_stack(regather_inputs=False))
    assert comms(layer_work(kept, moe=False).input_grad) == [(GATHER, 2), (SCATTER, 2)] * 2
    frozen = make_shard(tp=2, sequence_parallel=True, model=make_model(lora_rank=16))
    assert comms(layer_work(frozen, moe=False).input_grad) == [(GATHER, 2), (SCATTER, 2)] * 2


def test_sums_run_beside_weight_gradients_where_the_stack_overlaps_them() -> None:
    """The scatter's partner is the weight gradient of the first product; where that is put off,
    nothing hides it."""
    stack = make_stack(tp_overlap_backward=True)
    work = layer_work(make_shard(tp=2, sequence_parallel=True, stack=stack), moe=False)
    scatters = [p for p in work.input_grad if isinstance(p, Comm) and p.kind == SCATTER]
    assert [p.partner.name for p in scatters if p.partner] == ["up wgrad", "qkv wgrad"]
    assert all(p.beside_weight for p in scatters)
    apart = [p for p in alone(work.input_grad) if isinstance(p, Comm) and p.kind == SCATTER]
    assert [p.chunks for p in apart] == [1, 1]


def test_gathers_travel_in_8_bits_and_sums_in_16() -> None:
    """A million elements: 1 MB gathered, 2 MB summed; the head is never in 8 bits."""
    work = layer_work(make_shard(tp=2, sequence_parallel=True, precision="fp8"), moe=False)
    assert comms(work.forward) == [(GATHER, 1), (SCATTER, 2)] * 2
    assert comms(work.input_grad) == [(GATHER, 1), (GATHER, 1), (SCATTER, 2)] * 2
    head = head_work(make_shard(tp=2, sequence_parallel=True, precision="fp8"))
    assert comms(head.forward)[0] == (GATHER, 2)
    wide = make_stack(narrow_tensor_gather=False)
    work = layer_work(
        make_shard(tp=2, sequence_parallel=True, precision="fp8", stack=wide), moe=False
    )
    assert comms(work.forward)[0] == (GATHER, 2)


def test_whatever_goes_forward_goes_back() -> None:
    """A norm moves a million elements in and out: 4 MB. Back, beside the residual branch, three arrays
    for its gradient and three for the sum, 12 MB; before the head there is no branch: 6 MB."""

    def norms(pieces: tuple[Piece, ...]) -> list[float]:
        named = ("norm", "norm back")
        return [p.nbytes / 1e6 for p in pieces if isinstance(p, Kernel) and p.name in named]

    plain = make_shard(stack=make_stack(elementwise_traffic=1.0))
    layer, head = layer_work(plain, moe=False), head_work(plain)
    assert (norms(layer.forward), norms(layer.input_grad)) == ([4, 4], [12, 12])
    assert (norms(head.forward), norms(head.input_grad)) == ([4], [6])
    work = predict_work(plain)
    assert len(norms(work.forward)) == len(norms(work.input_grad)) == 5


def test_casts_come_before_the_gather_on_this_ranks_rows() -> None:
    """4 bytes an element. Forward at tp 4: a quarter of the rows of the block's input, h wide, and
    all rows of the second product's, f/tp wide: 1000 x (250 + 1000) elements of the MLP."""
    work = layer_work(make_shard(tp=4, sequence_parallel=True, precision="fp8"), moe=False)
    casts = [p.nbytes / 4 for p in work.forward if isinstance(p, Kernel) and p.name == "cast"]
    assert casts[1] == pytest.approx(250e3 + 1000e3)


def test_operands_of_weight_gradients_are_cast_anew_where_scales_belong_to_rows() -> None:
    """Half a pass of 4 bytes over both operands of each product of the MLP: 1,000 x (1,000 + 8,000)
    and 1,000 x (4,000 + 1,000), with the weight gradients, which may be put off."""
    stack = make_stack(cast_weight_traffic=0.5)
    work = layer_work(make_shard(precision="fp8", stack=stack), moe=False)
    found = [p.nbytes for p in work.weight_grad if isinstance(p, Kernel) and p.category == "cast"]
    assert found[0] == 0.5 * 4 * (9e6 + 5e6)
    assert not [p for p in layer_work(make_shard(stack=stack), moe=False).weight_grad
                if isinstance(p, Kernel) and p.category == "cast"]  # fmt: skip


def test_latents_are_gathered_in_place_of_hidden_states() -> None:
    """Down-projections on a rank's own rows with whole weights: 1000 / 4 rows x 420 x 1000; then
    300 + 100 + 20 columns of 1,000 rows in 2 bytes are gathered, not 1,000; again for the weights'
    gradients only the 400 that a product takes."""
    work = layer_work(make_shard(model=MLA, tp=2, sequence_parallel=True), moe=False)
    assert comms(work.forward)[:2] == [(GATHER, 0.84), (SCATTER, 2)]
    assert comms(work.input_grad)[3:] == [(GATHER, 2), (GATHER, 0.8), (SCATTER, 0.84)]
    assert flop(work.forward, "latent down") == 2 * 500 * 420 * 1000
    whole = layer_work(make_shard(model=MLA, tp=2), moe=False)  # without: all rows on every rank
    assert flop(whole.forward, "latent down") == 2 * 1000 * 420 * 1000
    assert comms(whole.forward) == [(SUM, 2), (SUM, 2)]
    assert comms(whole.input_grad) == [(SUM, 2), (SUM, 0.84)]


def test_latent_keys_and_values_travel_at_their_own_widths() -> None:
    """Ten heads of 100 (keys) and 60 (values): 1,600 columns of 1,000 tokens in 2 bytes."""
    work = layer_work(make_shard(model=MLA, cp=4, sequence=4000), moe=False)
    assert comms(work.forward, "cp") == [("ring_shift", 3.2)]
    assert comms(work.input_grad, "cp") == [("ring_shift", 6.4)]  # and their gradients


def test_ring_attention_sends_from_neighbour_to_neighbour() -> None:
    """K and V of 1,000 tokens x 1,000 in 2 bytes are 4 MB, cp - 1 times; Ulysses exchanges q, k and
    v (6 MB), then the output (2 MB); a gather takes all at once and returns the gradients."""
    ring = layer_work(make_shard(cp=4, sequence=4000), moe=False).forward
    step = next(p for p in ring if isinstance(p, Comm))
    assert (step.kind, step.nbytes, step.steps, step.chunks) == ("ring_shift", 4e6, 3, 4)
    ulysses = layer_work(make_shard(cp=4, sequence=4000, cp_comm="a2a"), moe=False)
    assert comms(ulysses.forward) == [("all_to_all", 6), ("all_to_all", 2)]
    assert comms(ulysses.input_grad) == [("all_to_all", 2), ("all_to_all", 6)]
    whole = layer_work(make_shard(cp=4, sequence=4000, cp_comm="all_gather"), moe=False)
    assert comms(whole.forward) == [(GATHER, 16)]
    assert comms(whole.input_grad) == [(GATHER, 16), (SCATTER, 16)]
    both = layer_work(make_shard(cp=4, sequence=4000, cp_comm="a2a+p2p", cp_inner=2), moe=False)
    assert comms(both.forward) == [("all_to_all", 6), ("ring_shift", 4), ("all_to_all", 2)]
    for work in (ulysses, whole, both):
        assert flop(work.forward) == flop(ring)


def test_few_key_heads_are_repeated_for_ulysses() -> None:
    """Two key heads of 100 over four ranks count as four: q 1,000, k and v 400 each."""
    model = make_model(kv_heads=2)
    work = layer_work(make_shard(model=model, cp=4, sequence=4000, cp_comm="a2a"), moe=False)
    assert comms(work.forward) == [("all_to_all", 3.6), ("all_to_all", 2)]


def test_the_message_that_crosses_leaves_by_one_card() -> None:
    """Eight ranks of two nodes of four with cards of 10 GB/s: 4 MB take 0.4 ms though three other
    cards idle, where an all-gather would use all four; inside a node its links carry it."""
    node = make_node(devices=4, nics=4, scale_up=make_scale_up(domain=4))
    assert collective_time("ring_shift", 4e6, group_of(node, 1, 8), node).seconds == 4e-4
    assert collective_time("ring_shift", 4e6, group_of(node, 1, 4), node).seconds == 4e6 / 100e9


def test_late_messages_of_a_ring_show_what_attention_does_not_hide() -> None:
    """2 nodes, cp 8, one layer: attention of 1,000 of 8,000 tokens is 2 x 1000 x 4000 x 2000 FLOP =
    160 us forward and 400 us backward at the full rate, 1.9 times that in pieces of 1,000 tokens: 38
    and 95 us beside each message of 400 and 800 us, seven of each."""
    node = make_node(devices=4, nics=4, scale_up=make_scale_up(domain=4))
    scenario = make_scenario(
        model=make_model(layers=1), pools=(Pool("", node, 2, make_stack()),),
        parallel=Parallel(cp=8, dp=1, zero=0), training=Training(8000, 1, 1),
    )  # fmt: skip
    shown = simulate_step(scenario).breakdown["context parallel"]
    assert shown == pytest.approx(7 * (400e-6 - 38e-6) + 7 * (800e-6 - 95e-6), rel=1e-6)


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_experts_route_each_token_once_whatever_tensor_parallelism_does(
    sequence_parallel: bool,
) -> None:
    """1,000 tokens x 2 experts x 3 x 500 x 1000 weights over four tensor ranks: a quarter each.
    Without sequence parallelism the ranks gather their results, and backward their gradients."""
    shard = make_shard(model=MOE, tp=4, ep=4, sequence_parallel=sequence_parallel)
    work = layer_work(shard, moe=True)
    up, down = flop(work.forward, "experts up"), flop(work.forward, "experts down")
    assert up + down == pytest.approx(2 * 1000 * 2 * 3 * 500e3 / 4)
    assert comms(work.forward, "ep") == [("all_to_all", 1)] * 2  # 250 x 2 copies x 1000 x 2 bytes
    rows = [(p.name, p.nbytes / 1e6) for p in (*work.forward, *work.input_grad)
            if isinstance(p, Comm) and p.name.startswith("expert rows")]  # fmt: skip
    assert rows == ([] if sequence_parallel else [("expert rows", 2), ("expert rows back", 2)])


def test_slices_of_an_expert_gather_their_tokens_and_scatter_the_sums() -> None:
    """tp 2 = etp 2: each rank routes 500 tokens x 2 copies; the slices gather 2,000 copies x 1,000
    in 2 bytes (4 MB) and scatter the sums, forward and backward."""
    shard = make_shard(model=MOE, tp=2, etp=2, ep=4, sequence_parallel=True)
    work = layer_work(shard, moe=True)
    assert comms(work.forward, "etp") == [(GATHER, 4), (SCATTER, 4)]
    assert comms(work.input_grad, "etp") == [(GATHER, 4), (SCATTER, 4)]
    assert comms(work.forward, "ep") == [("all_to_all", 2)] * 2
    assert flop(work.forward, "experts up") == 2 * 2000 * 1000 * 500
    whole = layer_work(
        replace(shard, sequence_parallel=False), moe=True
    )  # rows are whole: sums only
    assert comms(whole.forward, "etp") == [(SUM, 4)]


def test_imbalance_counts_for_bytes_as_for_rows() -> None:
    stack = make_stack(expert_imbalance=1.5)
    even = layer_work(make_shard(model=MOE, ep=4), moe=True)
    uneven = layer_work(make_shard(model=MOE, ep=4, stack=stack), moe=True)
    assert comms(even.forward) == [("all_to_all", 4)] * 2
    assert comms(uneven.forward) == [("all_to_all", 6)] * 2
    assert flop(uneven.forward, "experts up") == 1.5 * flop(even.forward, "experts up")


def test_a_sliding_window_reaches_w_minus_its_square_over_twice_the_sequence() -> None:
    """All layers, w 250 of 1,000 tokens: the first 250 see 125, the other 750 see 250: 218.75."""
    model = make_model(window=250, window_layers=8)
    assert model.mean_reach(1000) == 0.25 * 125 + 0.75 * 250
    assert make_model(window=250).mean_reach(1000) == (218.75 + 500) / 2  # half of the layers
    assert make_model(window=500, window_layers=8).mean_reach(1000) == 375
    assert make_model(window=1000, window_layers=8).mean_reach(1000) == 500
    chunks = make_model(window=250, window_layers=8, chunked=True)
    assert chunks.mean_reach(1000) == 125
    work = layer_work(make_shard(model=model), moe=False)
    assert flop(work.forward, "attention") == 2 * 1000 * 218.75 * 2000


@given(st.integers(1, 100), st.integers(1, 100))
def test_reach_is_that_of_the_mask_counted_out(span: int, window: int) -> None:
    """Token i of a mask looks back at min(i + 1/2, window) tokens, the half for itself."""
    model = make_model(window=window, window_layers=8)
    counted = sum(min(i + 0.5, window) for i in range(span)) / span
    assert model.mean_reach(span) == pytest.approx(counted, abs=0.5 / span)


def test_selective_recomputation_repeats_the_modules_of_its_list() -> None:
    """The attention core at any length; norms; a dense MLP's products."""
    work = layer_work(make_shard(sequence=8000, tokens=8000.0), moe=False)
    core = list(repeated(work.forward, ("core_attn",), moe=False))
    assert flop(tuple(core)) == 2 * 8000 * 4000 * 2000 == flop(work.forward, "attention")
    assert [p.name for p in repeated(work.forward, ("layernorm",), moe=False)
            if isinstance(p, Kernel)] == ["norm", "norm"]  # fmt: skip
    mlp = tuple(repeated(work.forward, ("mlp",), moe=False))
    assert flop(mlp) == 2 * 8000 * 3 * 4e6
    latent = layer_work(make_shard(model=MLA), moe=False)
    names = [p.name for p in repeated(latent.forward, ("mla_up_proj",), moe=False)
             if isinstance(p, Kernel)]  # fmt: skip
    assert names == ["q up", "kv up", "rope"]


@pytest.mark.parametrize("modules", [("core_attn",), ("layernorm", "activation"), ("mlp",)])
def test_executed_flop_are_the_models_and_what_is_stated_to_be_repeated(
    modules: tuple[str, ...],
) -> None:
    plain = make_scenario()
    layout = replace(plain.parallel, recompute="selective", recompute_modules=modules)
    _, without = build_program(plain)
    _, executed = build_program(replace(plain, parallel=layout))
    work = layer_work(make_shard(), moe=False)
    again = flop(tuple(repeated(work.forward, modules, moe=False)))
    assert executed == pytest.approx(without + 64 * 8 * again)  # 64 sequences x 8 layers


def test_prediction_modules_gather_their_inputs_and_columns() -> None:
    """The projection takes rows of 2h (4 MB) and gathers its columns (2 MB), before layer and head."""
    work = predict_work(make_shard(tp=2, sequence_parallel=True))
    assert comms(work.forward)[:2] == [(GATHER, 4), (GATHER, 2)]
    assert comms(work.input_grad)[-3:] == [(GATHER, 2), (GATHER, 4), (SCATTER, 4)]


def test_frozen_embeddings_have_no_gradient() -> None:
    assert embedding_work(make_shard(model=make_model(lora_rank=16))).weight_grad == ()
    spread = embedding_work(make_shard(tp=2, sequence_parallel=True))
    assert comms(spread.input_grad) == [(GATHER, 2)]  # rows of the gradient, for the whole table


def test_lora_counts_two_thirds_of_the_weights_and_all_of_attention() -> None:
    plain, lora = make_model(), make_model(lora_rank=16)
    attention = 3 * plain.attention_flop_per_token(1000, causal=True)
    whole = plain.flop_per_token(1000, causal=True)
    assert lora.flop_per_token(1000, causal=True) == pytest.approx(
        4 / 6 * (whole - attention) + attention
    )


@pytest.mark.parametrize(
    "changes",
    [dict(cp=2, cp_comm="a2a"), dict(cp=4, cp_comm="a2a+p2p", cp_inner=2), dict(tp=2)],
)  # fmt: skip
def test_a_group_of_one_sends_nothing(changes: dict[str, Any]) -> None:
    one = {key: 1 for key in changes if key != "cp_comm"}
    for moe in (False, True):
        model = MOE if moe else make_model()
        spread = make_shard(model=model, sequence=4000, **changes)
        assert comms(layer_work(spread, moe=moe).forward)
        assert not comms(layer_work(make_shard(model=model, **one), moe=moe).forward)


def test_the_host_pays_for_each_expert_only_where_it_waits_for_counts() -> None:
    """8 layers x 8 micro-batches, forward and backward, 2 local experts of 1 ms each; what is
    launched beside is nothing."""
    scenario = make_scenario(model=MOE, parallel=Parallel(dp=8, ep=4, zero=0))

    def seconds(**changes: Any) -> float:
        pool = replace(scenario.pools[0], stack=make_stack(**changes))
        return step_seconds(replace(scenario, pools=(pool,)))

    waits = seconds(moe_host_sync=True)
    assert seconds(moe_host_sync=True, local_expert_host_s=1e-2) > waits + 8 * 8 * 2 * 1e-2
    assert seconds(local_expert_host_s=1e-2) == seconds()


def test_a_dispatch_that_sends_once_to_a_rank_carries_fewer_copies() -> None:
    """8 copies over 8 ranks: 8 (1 - (7/8)^8) = 5.25 of them to different ranks, 66 % of the bytes."""
    model = make_model(experts=Experts(routed=64, top_k=8, hidden=500))

    def sent(**changes: Any) -> float:
        pool = Pool("", make_node(), 1, make_stack(**changes))
        scenario = make_scenario(model=model, parallel=Parallel(dp=8, ep=8), pools=(pool,))
        return simulate_step(scenario).breakdown["expert parallel"]

    assert sent(rank_limited_dispatch=True) / sent() == pytest.approx(0.656, abs=0.001)
