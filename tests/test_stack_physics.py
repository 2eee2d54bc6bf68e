"""What software changes about a step: packed documents, casts of weights, overlap, narrow products."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ersatz.device_models.catalog.reading import load_stack
from ersatz.device_models.kernels.kernel import Kernel, calibrated_time, matmul
from ersatz.device_models.networks.group import Group
from ersatz.sim.plan.layout import Communicator, communicators
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario, Training
from ersatz.sim.step.assemble import Times
from ersatz.sim.step.build import build_program
from ersatz.sim.step.program import COMPUTE, GATHER, REDUCE
from ersatz.sim.step.step import simulate_step, step_seconds
from ersatz.sim.validation.errors.jobs import job_summary, judge_jobs
from ersatz.sim.validation.fit.parameters import fitted_parameters, shipped_values
from ersatz.sim.validation.fit.partial import chosen_parameters, fit_part, mend
from ersatz.sim.validation.fit.search import report_drift
from ersatz.sim.validation.reading.machines import stack_of
from ersatz.sim.validation.reading.rows import scenario_of
from ersatz.sim.validation.reading.rules import Filling, is_lora
from ersatz.sim.validation.reading.table import Run
from ersatz.sim.workload.adapters import trained_share
from ersatz.sim.workload.model import Experts
from ersatz.sim.workload.ops import layer_work
from ersatz.sim.workload.pieces import Comm, Shard
from ersatz.sim.workload.recompute import all_again
from tests.factories import (
    make_device,
    make_model,
    make_node,
    make_scale_out,
    make_scale_up,
    make_scenario,
    make_stack,
)

SHAPE = {"layers": 32.0, "hidden": 4096.0, "ffn_hidden": 14336.0, "heads": 32.0, "kv_heads": 8.0,
         "vocab": 128256.0, "seq_len": 4096.0, "n_devices": 8.0, "global_batch_seqs": 32.0,
         "micro_batch": 1.0, "tp": 1.0, "pp": 1.0, "metric_value": 1.0}  # fmt: skip
WORDS = {"id": "r", "source": "NVIDIA NeMo performance summary", "vendor": "nvidia",
         "device": "H100-SXM-80GB", "model_name": "Llama-3.1-8B", "framework": "NeMo",
         "precision": "bf16", "metric_name": "step_time_s", "metric_unit": "s"}  # fmt: skip


def row(**words: str) -> Run:
    return Run(1, {**WORDS, **words}, dict(SHAPE))


def shard(**changes: Any) -> Shard:
    values: dict[str, Any] = dict(
        model=make_model(), stack=make_stack(), tokens=1000.0, sequence=1000, precision="fp8",
        tp=1, cp=1, ep=1, etp=1, sequence_parallel=False,
    )  # fmt: skip
    return Shard(**(values | changes))


def flop(work: Shard, name: str) -> float:
    pieces = layer_work(work, moe=False).forward
    return sum(p.flop for p in pieces if isinstance(p, Kernel) and p.name == name)


def turned(scenario: Scenario, **changes: Any) -> Scenario:
    pool = scenario.pools[0]
    return replace(scenario, pools=(replace(pool, stack=replace(pool.stack, **changes)),))


def test_attention_ends_where_a_packed_document_ends() -> None:
    """Documents of 250 tokens in a sequence of 1,000: a quarter of the score products."""
    assert flop(shard(document=250.0), "attention") == pytest.approx(flop(shard(), "attention") / 4)
    assert flop(shard(document=4000.0), "attention") == flop(shard(), "attention")


def test_weights_are_cast_once_a_step_however_many_micro_batches_there_are() -> None:
    """8 layers of 16 h^2 + 2 h weights, 4 bytes each at 1 TB/s, in a step of 8 bits only."""
    scenario = make_scenario(training=Training(1000, 64, 1, "fp8"))
    weights = 8 * (16 * 1000**2 + 2 * 1000)
    for batch in (8, 64):
        smaller = replace(scenario, training=Training(1000, batch, 1, "fp8"))
        more = step_seconds(turned(smaller, weight_cast_bytes=4.0)) - step_seconds(smaller)
        assert more == pytest.approx(4 * weights / 1e12)
    wide = replace(scenario, training=Training(1000, 64, 1, "bf16"))
    assert step_seconds(turned(wide, weight_cast_bytes=4.0)) == step_seconds(wide)


def test_narrow_products_are_slower_where_the_software_has_worse_kernels() -> None:
    """Half the speed doubles the product's time above its output write, in 8 bits only."""
    device = make_device()
    slow = shard(stack=make_stack(narrow_matrix_factor=0.5))
    for precision, factor in (("fp8", 2.0), ("bf16", 1.0)):
        one, two = (
            next(p for p in layer_work(replace(s, precision=precision), moe=False).forward
                 if isinstance(p, Kernel) and p.name == "up")
            for s in (shard(), slow)
        )  # fmt: skip
        assert two.slowdown == factor * one.slowdown
    # 1000 x 1000 x 1e6 in 8 bits: 10 ms of 200 TFLOP/s, beside which all else is below 1 %
    plain = matmul("x", 1000, 1000, 1e6, "fp8")
    half = replace(plain, slowdown=2.0)
    assert calibrated_time(device, half) / calibrated_time(device, plain) == pytest.approx(
        2, rel=0.03
    )


def test_a_device_at_half_its_clock_multiplies_half_as_fast() -> None:
    """Matrix products and attention follow the clock; memory does not."""
    full, half = make_device(), make_device(sustained_clock=0.5)
    attention = Kernel("a", "attention", "attention", "bf16", 1e12, 0.0, sequence=1000)
    moved = Kernel("m", "elementwise", "memory", "bf16", 0.0, 1e9)
    assert calibrated_time(half, attention) == 2 * calibrated_time(full, attention)
    assert calibrated_time(half, moved) == calibrated_time(full, moved)


def test_an_exchange_in_chunks_hides_behind_the_experts() -> None:
    """An exchange shorter than its product, in four chunks: a quarter of it shows."""
    model = make_model(experts=Experts(routed=8, top_k=2, hidden=4000))
    scenario = make_scenario(
        model=model, parallel=Parallel(dp=8, ep=8), training=Training(1000, 64, 1)
    )
    shown = [
        simulate_step(turned(scenario, expert_overlap_chunks=chunks)).breakdown["expert parallel"]
        for chunks in (1, 4)
    ]
    assert shown[1] == pytest.approx(shown[0] / 4)
    pieces = layer_work(shard(model=model, ep=8), moe=True).forward
    exchanges = [p for p in pieces if isinstance(p, Comm) and p.group == "ep"]
    assert [p.partner.name for p in exchanges if p.partner] == ["experts up", "experts down"]


def work_of(scenario: Scenario, streams: tuple[int, ...], contention: bool) -> dict[str, float]:
    """Seconds on some streams by phase, in a plan of one stage and one micro-batch."""
    program, _ = build_program(scenario)
    return {
        variant[0][0]: sum(w.seconds for op in block.ops if op.stream in streams for w in op.work
                           if (w.category == "contention") is contention)
        for (_, variant), block in program.blocks.items()
    }  # fmt: skip


@pytest.mark.parametrize(("zero", "beside_backward"), [(1, 1), (3, 2)])
def test_a_collective_slows_the_work_beside_it_and_no_more(zero: int, beside_backward: int) -> None:
    """A tenth of the traffic on a fast network, a tenth of the work on a slow one.

    A forward pass gathers; a backward pass reduces, and with ZeRO 3 gathers too. What is gathered
    first finds nothing but the embedding beside it: one layer of 80.
    """

    def plan(link: float) -> Scenario:
        node = make_node(scale_up=make_scale_up(link_bandwidth=link))
        pool = Pool("", node, 1, make_stack(overlap_contention=0.1))
        parallel = Parallel(dp=8, zero=zero)
        return make_scenario(model=make_model(layers=80, vocab=100), pools=(pool,), parallel=parallel,
                             training=Training(1000, 8, 1))  # fmt: skip

    fast, slow = plan(1e11), plan(1e6)
    for phase, traffic in work_of(fast, (GATHER, REDUCE), False).items():
        assert work_of(fast, (COMPUTE,), True)[phase] == pytest.approx(traffic / 10, rel=0.02)
    work, lost = work_of(slow, (COMPUTE,), False), work_of(slow, (COMPUTE,), True)
    assert lost["F"] == pytest.approx(work["F"] / 10, rel=0.02)
    assert lost["B"] == pytest.approx(beside_backward * work["B"] / 10, rel=0.02)


def test_an_activation_without_a_kernel_of_its_own_moves_what_was_counted() -> None:
    """Per token copy and expert channel, with a gate, 2 bytes an element; hidden = expert width.

    Gate: two clamps, sigmoid, offset (2 each), product (3), weight in fp32 and back (3 + 3): 17. Its
    backward pass: cast (3), weight (4 + 3), gradient of the weight (5 + 2), product (6), sigmoid (3),
    clamps (6), joining the halves (4), bias (2): 38. The output's bias: weighting (2), sum (5),
    joining (4), cast (3): 14; backward: cast (3), share of the input (3 + 2), bias (4 + 2), weight
    (4 + 2): 20. Fused kernels read two and write one, then read three and write two: 8.
    """
    counted = (17 + 38 + 14 + 20) / 8
    assert load_stack("megatron-core-2025").unfused_activation == pytest.approx(counted, rel=0.02)
    assert load_stack("megatron-core-graphs").unfused_activation == pytest.approx(
        (8 + 14 + 20) / 8, rel=0.02
    )
    experts = Experts(routed=8, top_k=2, hidden=1000)
    moved = []
    for fused in (True, False):
        model = make_model(experts=experts, fused_activation=fused)
        layer = layer_work(shard(model=model, stack=make_stack(unfused_activation=11.0)), moe=True)
        moved.append(sum(k.nbytes for k in (*layer.forward, *layer.input_grad)
                         if isinstance(k, Kernel) and k.name.startswith("activation")))  # fmt: skip
    assert moved[0] == 8 * 2 * 2000 * 1000
    assert moved[1] == 11 * moved[0]


def test_gradients_are_added_at_the_stack_s_price() -> None:
    """Each weight's gradient moves what the stack says, per micro-batch and in both directions."""
    plain, costly = (shard(stack=make_stack(gradient_accumulate_bytes=b)) for b in (0.0, 10.0))
    moved = [
        sum(p.nbytes for p in layer_work(s, moe=False).weight_grad if isinstance(p, Kernel))
        for s in (plain, costly)
    ]
    assert moved[1] - moved[0] == pytest.approx(10.0 * 16 * 1000**2)


def test_a_sum_that_is_not_fused_hides_behind_no_product() -> None:
    """10 bytes for each of 16 x 1000^2 weights at the memory's rate; fused, the products hide most."""
    device, times = make_device(), []
    for stack in (
        make_stack(gradient_accumulate_bytes=0.0),
        make_stack(gradient_accumulate_bytes=10.0),
        make_stack(gradient_accumulate_bytes=10.0, accumulates_apart=True),
    ):
        grads = layer_work(shard(stack=stack, precision="bf16"), moe=False).weight_grad
        times.append(sum(calibrated_time(device, p) for p in grads if isinstance(p, Kernel)))
    none, fused, apart = times
    weights = make_model().layer(moe=False).params() - 2 * 1000
    rate = device.memory_bandwidth * device.memory_efficiency
    assert apart - none == pytest.approx(10 * weights / rate)
    assert none < fused < none + 0.7 * (apart - none)


@pytest.mark.parametrize(("precision", "each"), [("bf16", 18.0), ("fp16", 6.0)])
def test_a_sum_in_fp16_moves_fewer_bytes(precision: str, each: float) -> None:
    """Megatron-DeepSpeed copies bf16 gradients to fp32 before it adds them; those in fp16 it adds."""
    work = layer_work(shard(stack=load_stack("megatron-deepspeed"), precision=precision), moe=False)
    moved = [p.nbytes for p in work.weight_grad if isinstance(p, Kernel) and p.kind == "memory"]
    assert sum(moved) == pytest.approx(each * 16 * 1000**2)


def test_a_checkpoint_that_stops_early_spares_the_last_product() -> None:
    """All products of a gated layer but its last: 16 h^2 weights less the 4 h^2 that lead down."""
    model = make_model()
    done = {}
    for early in (False, True):
        scenario = make_scenario(
            model=model,
            pools=(Pool("", make_node(), 1, make_stack(recompute_stops_early=early)),),
            parallel=Parallel(dp=8, recompute="full"),
        )
        done[early] = simulate_step(scenario)
    tokens = done[False].tokens
    spared = (done[False].hfu - done[True].hfu * done[True].duration_s / done[False].duration_s) * (
        done[False].peak_flop_per_s * done[False].duration_s
    )
    assert spared == pytest.approx(2 * tokens * model.layers * 4 * 1000**2, rel=1e-6)


def test_experts_are_neither_led_down_nor_brought_back_again() -> None:
    """What follows the routed experts' last input is not repeated: product, exchange, order, sum."""
    experts = Experts(routed=8, top_k=2, hidden=500, shared=1)
    work = layer_work(shard(model=make_model(experts=experts), ep=4), moe=True)
    again = all_again(work.forward, stops_early=True)
    names = [p.name for p in again if isinstance(p, Kernel | Comm)]
    assert {"router", "permute", "dispatch", "shared down", "experts up"} < set(names)
    assert not {"experts down", "combine", "unpermute"} & set(names)
    assert all_again(work.forward, stops_early=False) == work.forward


def test_a_recipe_for_both_says_which_fine_tuning_it_is() -> None:
    assert is_lora(row(notes="Finetuning LORA"))
    assert is_lora(row(model_name="x LoRA"))
    assert not is_lora(row(notes="LoRA; SFT; title='Llama3 8b Finetuning SFT BF16'"))
    packed = scenario_of(row(notes="task=SFT; packed"))
    assert packed.training.document_tokens == 200
    assert not packed.model.lora_rank
    assert any("packed" in line for line in packed.assumptions)
    assert scenario_of(row()).training.document_tokens == 0


@pytest.mark.parametrize(
    ("words", "stack"),
    [
        ({"framework": "torchtitan", "notes": "async TP; compile"}, "torchtitan-async"),
        ({"framework": "torchtitan", "precision": "fp8 rowwise"}, "torchtitan-rowwise"),
        ({"framework": "x", "source": "MLPerf Training v3.0 logs"}, "megatron-core-early"),
        ({"framework": "x", "source": "MLPerf Training v4.0 logs"}, "megatron-core-2023"),
        ({"framework": "x", "source": "MLPerf Training v5.1 logs"}, "megatron-core-captured"),
        ({"framework": "Megatron-DeepSpeed"}, "megatron-deepspeed"),
        ({"framework": "ModelLink/MindSpeed-LLM", "notes": "use-mc2"}, "mindspeed-mc2"),
        ({"framework": "MindFormers/MindSpore"}, "mindspeed"),
    ],
)
def test_versions_of_a_framework_are_told_apart(words: dict[str, str], stack: str) -> None:
    assert stack_of(Filling(row(**words))).name == stack == load_stack(stack).name


@pytest.mark.parametrize(
    ("release", "model", "device", "stack"),
    [
        ("26.04", "Qwen3_30B_a3B", "GB200", "megatron-core-2025"),
        ("26.06", "Qwen3_30B_a3B", "GB200", "megatron-core-graphs"),
        ("26.06", "Qwen3_30B_a3B", "B300-SXM-270GB", "megatron-core-2025"),
        ("26.06.01", "Qwen3_30B_a3B", "B300-SXM-270GB", "megatron-core-graphs"),
        ("26.06", "GPT OSS 120B", "GB300", "megatron-core-graphs"),
        ("26.06.01", "GPT OSS 120B", "GB300", "megatron-core-2025"),
        ("26.06.01", "Kimi_K2", "GB300", "megatron-core-2025"),
        ("26.08", "Kimi_K2", "GB300", "megatron-core-graphs"),
    ],
)
def test_graphs_reached_the_recipes_one_after_the_other(
    release: str, model: str, device: str, stack: str
) -> None:
    words = {"framework": f"Megatron-Bridge {release}", "precision": "MXFP8"}
    assert stack_of(Filling(row(**words, model_name=model, device=device))).name == stack


def test_a_batch_smaller_than_its_micro_batches_has_smaller_ones() -> None:
    """16 sequences on 8 replicas cannot be micro-batches of 4: they are of 2."""
    run = row()
    run.numbers.update(global_batch_seqs=16.0, micro_batch=4.0)
    training = scenario_of(run).training
    assert (training.global_batch, training.micro_batch) == (16, 2)


def test_parameters_of_experts_do_not_concern_dense_models() -> None:
    dense = scenario_of(row(framework="Megatron-Bridge 26.02"))
    felt = {p.field for p in fitted_parameters() if p.concerns(dense)}
    assert "launch_s" in felt
    assert "step_host_s" in felt
    assert not any(field.startswith("expert_") for field in felt)
    assert "cast_traffic" not in felt


JOB = (
    "id,source,source_ref,device,n_devices,model_name,tokens_b,gpu_hours,days,"
    "time_to_train_min_median,samples_at_stop\n"
)


def test_jobs_are_steps_times_step_time(tmp_path: Path) -> None:
    """3,200 samples are 100 steps of 32; a job without its layout is refused with the reason."""
    run = row(source_ref="here")
    step = step_seconds(scenario_of(run))
    path = tmp_path / "jobs.csv"
    path.write_text(
        JOB + f"a,s,here,H100-SXM-80GB,8,Llama 3.1 8B,,,,{100 * step / 60},3200\n"
        "b,s,elsewhere,H100-SXM-80GB,8,Llama 3.1 8B,,,,5,3200\n"
        "c,s,here,H100-SXM-80GB,8,Llama 3.1 8B,,,,5,\n"
        "d,s,here,H100-SXM-80GB,8,Llama 3.1 8B,1,,,,\n"
        "e,s,here,H100-SXM-80GB,8,Llama 3.1 8B,1,about 9,,,\n"
    )
    jobs = judge_jobs([run], path)
    assert jobs[0].predicted_s >= 100 * step
    assert abs(jobs[0].error) < 0.2
    assert [bool(job.reason) for job in jobs] == [False, True, True, True, True]
    assert jobs[4].reason == "gpu_hours: 'about 9' is no number"
    assert job_summary(jobs)["jobs"] == 1
    assert job_summary(jobs[1:]) == {"jobs": 0}


def test_programs_of_packed_sequences_execute_fewer_flop() -> None:
    scenario = make_scenario()
    packed = replace(scenario, training=replace(scenario.training, document_tokens=100.0))
    assert build_program(packed)[1] < build_program(scenario)[1]


def test_utilisation_counts_no_attention_between_packed_documents() -> None:
    """Documents of 8 tokens hardly look back: six FLOPs a weight are left, whatever the sequence is."""
    scenario = make_scenario()
    packed = replace(scenario, training=replace(scenario.training, document_tokens=8.0))
    step = simulate_step(packed)
    assert step.mfu == pytest.approx(step.mfu_6n, rel=0.02)
    assert step.mfu_noncausal > step.mfu


def test_a_note_states_the_rate_of_a_node_s_cards_and_rates_state_recomputation() -> None:
    """400 Gbit/s for the eight cards of a node; HFU a third above MFU: everything is computed again."""
    run = row(
        interconnect_note="400 Gbps per node", recompute="selective", notes="MFU/HFU=0.55/0.74"
    )
    scenario = scenario_of(run)
    assert scenario.pools[0].node.scale_out.nic_bandwidth == pytest.approx(400e9 / 8 / 8)
    assert scenario.parallel.recompute == "full"
    same = scenario_of(row(recompute="selective", notes="MFU/HFU=0.61/0.69"))
    assert same.parallel.recompute == "selective"
    usual = same.pools[0].node.scale_out.nic_bandwidth
    many = scenario_of(row(interconnect_note="8x200Gb/s HDR IB per node"))
    assert many.pools[0].node.scale_out.nic_bandwidth == 200e9 / 8 < usual


def test_pieces_of_a_ring_cross_a_node_s_border_one_after_the_other() -> None:
    """16 members over two nodes: 15 pieces of 1 ms each beside the transfer; inside a node none."""
    for size, more in ((16, 0.015), (8, 0.0)):
        seconds = []
        for piece in (0.0, 1e-3):
            node = make_node(scale_out=make_scale_out(piece_s=piece))
            parallel = Parallel(tp=size)
            groups = communicators(parallel, node, 1)
            times = Times(node, make_stack(), groups, calibrated_time)
            seconds.append(times.collective("all_gather", 1e6, "tp").seconds)
        assert seconds[1] - seconds[0] == pytest.approx(more)


def test_a_refit_that_strays_from_the_files_is_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shipped = shipped_values()
    assert report_drift(shipped) == 0
    strayed = {p: value * (1.05 if n == 3 else 1.0) for n, (p, value) in enumerate(shipped.items())}
    assert report_drift(strayed) == 1
    assert "5.00 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("head", "fused", "aligned"), [(108, False, False), (104, False, True), (108, True, True)]
)
def test_unfused_attention_wants_heads_of_multiples_of_16_bytes(
    head: int, fused: bool, aligned: bool
) -> None:
    """In 16 bits, 104 x 2 bytes are 13 times 16; 108 x 2 are not; a fused kernel pads by itself."""
    work = shard(model=make_model(head_dim=head), stack=make_stack(flash_attention=fused))
    layer = layer_work(work, moe=False)
    cores = [k for k in (*layer.forward, *layer.input_grad)
             if isinstance(k, Kernel) and k.category == "attention" and k.kind != "memory"]  # fmt: skip
    assert len(cores) == (2 if fused else 6)
    assert all(k.aligned is aligned for k in cores)


def test_unfused_attention_is_products_of_every_head_and_passes_over_its_scores() -> None:
    """Two sequences of 512 tokens, 4 heads of 64: 8 squares of 512 x 512 scores, 4.2 MB in 16 bits.

    A product is 2 x 512 x 512 x 64 FLOP a square: two forward, four backward. The first writes the
    square, the second reads it; softmax and dropout pass over it 4 times, and 4.5 backward.
    """
    work = shard(model=make_model(hidden=256, heads=4, kv_heads=4, head_dim=64), tokens=1024,
                 sequence=512, stack=make_stack(flash_attention=False))  # fmt: skip
    layer = layer_work(work, moe=False)
    square, operand = 8 * 512 * 512 * 2, 8 * 512 * 64 * 2
    for pieces, products, passes in ((layer.forward, 2, 4.0), (layer.input_grad, 4, 4.5)):
        core = [k for k in pieces if isinstance(k, Kernel) and k.category == "attention"]
        assert [k.flop for k in core if k.kind == "matmul"] == products * [8 * 2 * 512 * 512 * 64]
        assert {k.nbytes for k in core if k.kind == "matmul"} == {square + 2 * operand}
        assert [k.nbytes for k in core if k.kind == "memory"] == [passes * square]
        half = sum(k.padding for k in core) / sum(k.flop for k in core)
        assert half == pytest.approx(0.5, abs=0.01)  # what the mask throws away


def test_a_ring_holds_the_channels_that_its_cards_can_feed() -> None:
    """8 devices of a node, 300 GB/s inside: cards of 25 GB/s feed 200 of these, 2/3 of the channels.

    Cards of 6.25 GB/s feed a sixth, of 50 all; inside a node a collective has all, and so has an
    exchange, which no ring carries.
    """

    def held(card: float, size: int, per_node: int, kind: str = "all_gather") -> float:
        out = make_scale_out(nic_bandwidth=card)
        node = make_node(scale_up=make_scale_up(link_bandwidth=30e9), scale_out=out, nics=8)
        group = Group(size, per_node, 1)
        pool = Times(node, make_stack(), {"dp": Communicator(group, (), node)}, calibrated_time)
        return pool.collective(kind, 1e9, "dp").channels

    assert held(25e9, 64, 8) == pytest.approx(2 / 3)
    assert held(6.25e9, 64, 8) == pytest.approx(1 / 6)
    assert held(50e9, 64, 8) == 1.0
    assert held(25e9, 8, 8) == held(25e9, 64, 8, "all_to_all") == 1.0


def test_a_part_of_the_fit_leaves_the_other_values_alone() -> None:
    """A relative outside of the part lends its value as the prior; folds keep what is not refitted."""
    (alone,) = chosen_parameters("megatron-deepspeed/elementwise")
    shipped = {p.name: v for p, v in shipped_values().items()}
    own = next(p for p in fitted_parameters() if p.name == alone.name)
    assert own.like
    assert (alone.like, alone.prior) == ("", shipped[own.like])
    fold = {p: 2 * p.prior for p in fitted_parameters()}
    mended = mend(fold, {alone: 5.0})
    assert mended == {p: 5.0 if p == own else 2 * p.prior for p in fitted_parameters()}
    with pytest.raises(ValueError, match="no parameter matches 'no such'"):
        fit_part("no such", [])


def test_gradients_that_have_a_buffer_are_set_to_zero_once_a_step() -> None:
    """148.016 M weights of 4 bytes at 1 TB/s, however many micro-batches: 0.592 ms. ZeRO 3 keeps an eighth
    of the sums; LoRA those of what it trains."""
    weights = 148.016e6

    def added(scenario: Scenario) -> float:
        zeroing = Pool("", make_node(), 1, make_stack(zeroes_gradients=True))
        return step_seconds(replace(scenario, pools=(zeroing,))) - step_seconds(scenario)

    once = make_scenario()
    assert added(once) == pytest.approx(4 * weights / 1e12)
    many = replace(once, training=replace(once.training, global_batch=640))
    assert added(many) == pytest.approx(4 * weights / 1e12)
    sharded = replace(once, parallel=Parallel(dp=8, zero=3))
    assert added(sharded) == pytest.approx(4 * weights / 8 / 1e12)
    adapters = replace(once, model=make_model(lora_rank=16))
    share = trained_share(adapters.model)
    assert 0 < added(adapters) == pytest.approx(4 * share * weights / 1e12)


def test_who_sets_gradients_to_zero() -> None:
    """Megatron keeps a buffer and fills it; PyTorch's own sharding and DeepSpeed's drop or overwrite it."""
    fills = {name: load_stack(name).zeroes_gradients for name in
             ("megatron-core", "megatron-2021", "mindspeed", "fsdp", "deepspeed", "generic")}  # fmt: skip
    assert fills == {"megatron-core": True, "megatron-2021": True, "mindspeed": True,
                     "fsdp": False, "deepspeed": False, "generic": False}  # fmt: skip
