"""Cells of measured rows in the words of people: what is denied, other units, other columns filled."""

from pathlib import Path

import pytest

from ersatz.sim.validation.reading.networks import GIGABIT, node_rate
from ersatz.sim.validation.reading.rows import Reading, read_run
from ersatz.sim.validation.reading.rules import Filling, Refused
from ersatz.sim.validation.reading.words import affirmed, says
from tests.test_validation import run

MOE = {"n_experts": "8", "top_k": "2", "moe_ffn_hidden": "14336", "ep": "4", "params_total_b": ""}


def read(tmp_path: Path, **changes: str) -> Reading:
    return read_run(run(tmp_path, **changes))


def words(reading: Reading) -> str:
    return " | ".join(reading.scenario.assumptions)


def test_a_part_that_denies_affirms_nothing() -> None:
    assert affirmed("bf16 (not fp8)") == ["bf16"]
    assert says("interleav", "1F1B; non-interleaved") is False
    assert says("interleav", "interleaved, no overlap") is True
    assert says("interleav", "1F1B") is None


@pytest.mark.parametrize(
    ("cell", "precision"),
    [
        ("bf16 (not fp8)", "bf16"),
        ("bf16; fp8 all-gather only", "bf16"),
        ("fp32 master weights; bf16 compute", "bf16"),
        ("no fp8; bf16", "bf16"),
        ("fp8 tensorwise + fp8 all-gather", "fp8"),
        ("bf16+fp8", "fp8"),
        ("bf16/fp16 (see section)", "bf16"),
        ("fp8; attention in bf16", "fp8"),
        ("FP8 hybrid (E4M3/E5M2)", "fp8"),
    ],
)
def test_a_format_is_that_of_the_products(tmp_path: Path, cell: str, precision: str) -> None:
    reading = read(tmp_path, precision=cell)
    assert reading.scenario.training.precision == precision
    assert "precision" not in reading.open


@pytest.mark.parametrize("cell", ["bf16/fp8", "bf16 forward; fp8 backward"])
def test_one_format_or_another_is_left_open(tmp_path: Path, cell: str) -> None:
    assert read(tmp_path, precision=cell).open["precision"] == ("bf16",)


@pytest.mark.parametrize(
    ("cell", "zero", "shard"),
    [
        ("DeepSpeed stage 3; optimizer offload", 3, 0),
        ("ZeRO stage 2", 2, 0),
        ("zero 2; distributed", 2, 0),
        ("no optimizer sharding", 0, 0),
        ("FSDP NO_SHARD", 0, 0),
        ("FSDP2 reshard_after_forward=False", 2, 0),
        ("ZeRO-3 (MiCS 4)", 3, 4),
        ("HSDP; shard within a node", 3, 8),
        ("zero1 group=all dp", 1, 0),
        ("fsdp8", 3, 8),
        ("distributed optimizer off", 0, 0),
        ("ZeRO-1 within node; replicated across", 1, 8),
        ("zero-3 params; 16-way", 3, 16),
    ],
)
def test_sharding_in_any_spelling(tmp_path: Path, cell: str, zero: int, shard: int) -> None:
    cells = {"n_devices": "64", "tp": "1", "devices_per_node": "8", "recompute": "none"}
    reading = read(tmp_path, sharding=cell, **cells)
    parallel = reading.scenario.parallel
    assert (parallel.zero, parallel.shard) == (zero, shard)
    assert not reading.open


def test_hybrid_sharding_without_its_number_is_left_open(tmp_path: Path) -> None:
    """Over a node mostly; over all of dp at the other end."""
    cells = {"n_devices": "64", "tp": "1", "devices_per_node": "8", "recompute": "none"}
    assert read(tmp_path, sharding="hsdp", **cells).open == {"shard": (0,)}
    two = read(tmp_path, sharding="HSDP 4x16", **cells)
    assert (two.scenario.parallel.shard, two.open) == (16, {"shard": (4,)})
    with pytest.raises(Refused, match="over 24 ranks does not fit dp 64"):
        read(tmp_path, sharding="fsdp24", **cells)


@pytest.mark.parametrize(
    ("cell", "mode", "layers", "open_"),
    [
        ("disabled", "none", 0, False),
        ("not used", "none", 0, False),
        ("full: 10 of 32 layers", "full", 10, False),
        ("full method=block num-layers=32", "full", 0, False),
        ("full method=block num-layers=4", "full", 4, False),
        ("True (MLP only)", "selective", 0, True),
        ("full; every second layer", "full", 16, False),
        ("full method=uniform num-layers=1", "full", 0, False),
    ],
)
def test_how_much_is_computed_again(
    tmp_path: Path, cell: str, mode: str, layers: int, open_: bool
) -> None:
    reading = read(tmp_path, recompute=cell)
    parallel = reading.scenario.parallel
    assert (parallel.recompute, parallel.recompute_layers) == (mode, layers)
    assert ("recompute" in reading.open) == open_


@pytest.mark.parametrize(
    ("cell", "on"), [("on", True), ("1", True), ("enabled", True), ("off", False), ("n", False)]
)
def test_sequence_parallelism_is_yes_or_no_in_any_word(tmp_path: Path, cell: str, on: bool) -> None:
    assert read(tmp_path, seq_parallel=cell).scenario.parallel.sequence_parallel == on


def test_sequence_parallelism_of_another_kind_is_left_open(tmp_path: Path) -> None:
    assert "seq_parallel" in read(tmp_path, seq_parallel="ulysses 4").open


@pytest.mark.parametrize(
    ("notes", "schedule", "vp"),
    [
        ("non-interleaved 1F1B", "1f1b", 1),
        ("zero bubble (ZB-H1)", "zb-h1", 1),
        ("GPipe", "gpipe", 1),
        ("not GPipe; interleaved", "interleaved", 2),
    ],
)
def test_notes_name_a_schedule(tmp_path: Path, notes: str, schedule: str, vp: int) -> None:
    parallel = read(tmp_path, pp="2", notes=notes).scenario.parallel
    assert (parallel.schedule, parallel.vp) == (schedule, vp)


def test_chunks_that_do_not_go_with_the_batch_are_said(tmp_path: Path) -> None:
    cells = {"n_devices": "16", "tp": "1", "pp": "4", "vpp": "2", "micro_batch": "1"}
    reading = read(tmp_path, global_batch_seqs="40", **cells)
    assert reading.scenario.parallel.schedule == "1f1b"
    assert "vpp 2 does not go with 10 micro-batches on 4 stages" in words(reading)


def test_a_stated_dp_tells_a_blank_degree_or_contradicts(tmp_path: Path) -> None:
    """64 devices of tp 2 in 8 replicas leave 4 stages."""
    reading = read(tmp_path, n_devices="64", pp="", dp="8")
    assert reading.scenario.parallel.pp == 4
    assert "pp is blank: 4 (what the stated dp leaves)" in words(reading)
    with pytest.raises(Refused, match=r"tp 2 x pp 4 x cp 1 x dp 4 does not make 64 devices"):
        read(tmp_path, n_devices="64", pp="4", cp="1", dp="4")


def test_a_degree_of_nought_beside_a_stated_dp_leaves_nothing_to_divide_by(tmp_path: Path) -> None:
    """It is blank, as it is without a dp."""
    reading = read(tmp_path, n_devices="64", tp="2", pp="4", cp="0", dp="8")
    assert reading.scenario.parallel.cp == 1


@pytest.mark.parametrize(
    ("notes", "batch"),
    [
        ("gradient accumulation steps 16", 256),
        ("GAS 16", 256),
        ("grad_accum=16", 256),
        ("global batch of 4M tokens", 1024),
        ("GBS=512", 512),
    ],
)
def test_notes_carry_a_blank_batch(tmp_path: Path, notes: str, batch: int) -> None:
    """16 micro-batches of 2 for each of 8 replicas; 4 x 2^20 tokens in sequences of 4,096."""
    reading = read(tmp_path, global_batch_seqs="", notes=notes)
    assert reading.scenario.training.global_batch == batch


def test_notes_carry_blank_degrees(tmp_path: Path) -> None:
    parallel = read(tmp_path, tp="", notes="TP4 and PP=2").scenario.parallel
    assert (parallel.tp, parallel.pp) == (4, 1)  # pp is stated in its cell
    experts = read(tmp_path, **{**MOE, "ep": ""}, notes="EP=2; expert tensor parallel size 2")
    assert (experts.scenario.parallel.ep, experts.scenario.parallel.etp) == (2, 2)


def test_what_notes_say_of_experts(tmp_path: Path) -> None:
    notes = "first 2 layers dense; 1 shared expert; capacity factor 1.5; expert groups not folded"
    reading = read(tmp_path, **MOE, notes=notes)
    experts = reading.scenario.model.experts
    assert experts is not None
    assert (experts.dense_layers, experts.shared) == (2, 1)
    assert reading.scenario.parallel.expert_layout == "strided"
    assert "no token is dropped here" in words(reading)
    wide = words(read(tmp_path, **{**MOE, "moe_ffn_hidden": ""}))
    assert "moe_ffn_hidden is blank: 11008 (as wide as ffn_hidden says)" in wide


@pytest.mark.parametrize(
    ("kind", "kv_heads", "open_"), [("mqa", 1, False), ("gqa", 8, True), ("mha", 32, False)]
)
def test_the_kind_of_attention_tells_its_heads(
    tmp_path: Path, kind: str, kv_heads: int, open_: bool
) -> None:
    reading = read(tmp_path, kv_heads="", attention_kind=kind)
    assert reading.scenario.model.kv_heads == kv_heads
    assert ("kv_heads" in reading.open) == open_


@pytest.mark.parametrize(
    "kind", ["linear in 7 of 8 layers", "mamba2 hybrid", "DSA", "sliding window"]
)
def test_attention_that_no_column_describes_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(Refused, match="attention"):
        read(tmp_path, attention_kind=kind)


@pytest.mark.parametrize(
    ("kind", "window", "layers", "open_"),
    [
        ("gqa (alternating sliding-window 128)", 128, 0, False),
        ("sliding window 4096", 4096, 32, True),
        ("sliding-window 1k; 3:1 local to global", 1024, 24, False),
        ("gqa; no sliding window", 0, 0, False),
    ],
)
def test_a_window_has_its_tokens_and_layers(
    tmp_path: Path, kind: str, window: int, layers: int, open_: bool
) -> None:
    reading = read(tmp_path, attention_kind=kind)
    assert (reading.scenario.model.window, reading.scenario.model.window_layers) == (window, layers)
    assert ("window_layers" in reading.open) == open_


def test_stated_parameters_tell_whether_the_feed_forward_part_is_gated(tmp_path: Path) -> None:
    """6.74 B with three matrices of 4096 x 11008 a layer, 5.3 with two, whatever the name."""
    gated = read(tmp_path, model_name="GPT-alike", params_total_b="6.74")
    assert gated.scenario.model.gated
    assert "the feed-forward part is gated" in words(gated)
    assert read(tmp_path, model_name="Llama-3.1-Nemotron").scenario.model.gated
    assert read(tmp_path, model_name="Optimus").scenario.model.gated  # not OPT


def test_heads_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="hidden 5000 is not divided by 32 heads"):
        read(tmp_path, hidden="5000")


@pytest.mark.parametrize(
    ("cells", "rank"),
    [
        ({"notes": "full fine-tuning; not LoRA"}, 0),
        ({"model_name": "Llama-2-7B QLoRA"}, 16),
        ({"notes": "LoRA rank 64"}, 64),
        ({"notes": "LoRA; r=8"}, 8),
    ],
)
def test_adapters_and_their_rank(tmp_path: Path, cells: dict[str, str], rank: int) -> None:
    reading = read(tmp_path, **cells)
    assert reading.scenario.model.lora_rank == rank
    four = reading.scenario.pools[0].stack.frozen_weight_bytes == 0.5 + 4 / 64
    assert four == ("QLoRA" in cells.get("model_name", ""))


def test_nodes_of_another_size(tmp_path: Path) -> None:
    """Four H100 of a node of four share NVLink with three others, not with seven."""
    node = read(tmp_path, devices_per_node="4").scenario.pools[0].node
    assert (node.devices, node.scale_up.domain) == (4, 4)
    assert "no node of 16 H100-SXM5-80GB is modelled" in words(
        read(tmp_path, devices_per_node="16")
    )


@pytest.mark.parametrize(
    ("note", "cards", "gigabits"),
    [
        ("1 x 200 Gb/s per GPU", 8, 200),
        ("2x200Gb/s per GPU", 16, 200),
        ("8x 400 Gb/s (one per GPU)", 8, 400),
        ("4 NICs at 100 Gb/s per node", 4, 100),
        ("four ConnectX-6 HDR adapters", 4, 200),
        ("dual 200GbE", 2, 200),
        ("8X400G", 8, 400),
        ("2 x HDR100", 2, 100),
        ("eight rails of NDR200", 8, 200),
        ("1.6 Tb/s per node", 8, 200),
        ("200 Gb/s (2x100G bonded) per node", 2, 100),
        ("one 400 Gb/s RDMA card per node", 1, 400),
    ],
)
def test_cards_are_counted_in_words(tmp_path: Path, note: str, cards: int, gigabits: int) -> None:
    fill = Filling(run(tmp_path, interconnect_note=note))
    assert node_rate(fill, 8) == (cards, pytest.approx(gigabits * GIGABIT))


def test_a_number_of_a_card_s_name_counts_no_cards(tmp_path: Path) -> None:
    assert "network_rate" in read(tmp_path, interconnect_note="connectx 6 200Gb/s").open
    assert "network_rate" in read(tmp_path, interconnect_note="ConnectX-6 25Gb/s Ethernet").open


def test_a_network_by_name_has_the_rate_that_is_stated(tmp_path: Path) -> None:
    def total(device: str, note: str) -> float:
        node = read(tmp_path, device=device, interconnect_note=note).scenario.pools[0].node
        return node.nics * node.scale_out.nic_bandwidth / GIGABIT

    assert total("H100", "AWS EFA") == 3200
    assert total("A100-SXM-80GB", "4 x 100 Gb/s EFA") == 400
    assert total("H800", "8x200Gb/s RoCE; 3-layer Clos") == 1600
    assert total("H100", "one 400 Gb/s RDMA card per node") == 400
    unknown = read(tmp_path, device="A100-SXM-80GB", interconnect_note="AWS EFA")
    assert "network note 'AWS EFA' is not understood" in words(unknown)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("3:1 oversubscribed spine", "no part of the fabric is oversubscribed"),
        ("TCP only", "transport by RDMA"),
        ("only 4 cards connected", "all cards that it names"),
        ("shared with storage", "a network of its own"),
    ],
)
def test_what_a_note_says_beyond_rates_is_said(tmp_path: Path, more: str, said: str) -> None:
    assert said in words(read(tmp_path, interconnect_note=f"8x400Gb/s; {more}"))


@pytest.mark.parametrize(
    ("name", "value", "unit", "seconds"),
    [
        ("step_time_s", "2500", "milliseconds", 2.5),
        ("step_time_s", "0.05", "min", 3.0),
        ("step_time_s", "3", "s/iteration", 3.0),
        ("tokens_per_s_per_device", "8.192", "ktokens/s/GPU", 4.0),
        ("tokens_per_s", "31.457280", "M tokens/min", 1.0),
        ("samples_per_s", "2", "samples/s/GPU", 4.0),
        ("samples_per_s", "32", "sequences/s (whole job)", 4.0),
    ],
)
def test_units_of_a_metric(
    tmp_path: Path, name: str, value: str, unit: str, seconds: float
) -> None:
    """128 sequences of 4,096 tokens on 16 devices."""
    reading = read(tmp_path, metric_name=name, metric_value=value, metric_unit=unit)
    assert reading.measured_s == pytest.approx(seconds)


def test_a_unit_that_contradicts_its_metric_is_refused_and_an_unknown_one_said(
    tmp_path: Path,
) -> None:
    for name, unit in (
        ("tokens_per_s_per_device", "tokens/s (whole job)"),
        ("tokens_per_s", "tokens/s/GPU"),
        ("step_time_s", "it/s"),
        ("step_time_s", "s per micro-batch"),
    ):
        with pytest.raises(Refused, match="do not say the same"):
            read(tmp_path, metric_name=name, metric_unit=unit)
    with pytest.raises(Refused, match="is of a node"):
        read(tmp_path, metric_name="tokens_per_s", metric_unit="tokens/s/node")
    odd = read(tmp_path, metric_name="step_time_s", metric_unit="ticks")
    assert "metric_unit 'ticks' is not understood" in words(odd)


def test_a_utilisation_is_a_share_of_the_peak_that_is_stated(tmp_path: Path) -> None:
    def seconds(value: str, unit: str, note: str, **more: str) -> float:
        cells = {"metric_name": "mfu_percent", "metric_value": value, "metric_unit": unit}
        reading = read(tmp_path, **cells, mfu_definition_note=f"causal; {note}", **more)
        assert reading.measured_s is not None
        return reading.measured_s

    usual = seconds("42", "%", "")
    assert seconds("0.42", "fraction", "") == pytest.approx(usual)
    assert seconds("0.42", "", "") == pytest.approx(usual)
    for note in ("peak 1979 (sparse)", "vs 1979 TFLOPS sparse peak"):
        assert seconds("42", "%", note) == pytest.approx(usual * 989.4 / 1979, rel=1e-3)
    assert seconds("42", "%", "peaks H100 989/1979") == pytest.approx(usual)
    assert seconds("42", "% of 800 TFLOPS", "") == pytest.approx(usual * 989.4 / 800, rel=1e-3)
    eight = {"metric_name": "mfu_percent", "metric_value": "42", "metric_unit": "%"}
    assert read(tmp_path, **eight, precision="fp8").open["peak"] == ("fp8",)
    with pytest.raises(Refused, match="utilisation"):
        seconds("420", "%", "")


@pytest.mark.parametrize(
    ("note", "counted"),
    [
        ("HFU", True),
        ("recomputation counted", True),
        ("incl. recompute", True),
        ("not incl. recompute", False),
        ("model FLOPs", False),
        ("", None),
    ],
)
def test_whether_recomputation_is_counted(tmp_path: Path, note: str, counted: bool | None) -> None:
    """Four passes for three."""
    cells = {"metric_name": "tflops_per_device", "metric_value": "400", "recompute": "full"}
    cells["metric_unit"] = "TFLOPS/device"
    model = read(tmp_path, **cells, mfu_definition_note="causal; model FLOPs").measured_s
    reading = read(tmp_path, **cells, mfu_definition_note=f"causal; {note}")
    assert model is not None
    assert reading.measured_s == pytest.approx(model * (4 / 3 if counted else 1))
    assert ("recompute_counted" in reading.open) == (counted is None)


@pytest.mark.parametrize(
    "note", ["without accounting for the causal mask", "causal discount not applied"]
)
def test_a_causal_half_that_is_denied_is_the_full_square(tmp_path: Path, note: str) -> None:
    cells = {"metric_name": "model_tflops_per_device", "metric_value": "400"}
    full = read(tmp_path, **cells, mfu_definition_note="non-causal").measured_s
    assert read(tmp_path, **cells, mfu_definition_note=note).measured_s == full


def test_attention_that_is_not_counted_at_all(tmp_path: Path) -> None:
    """Six per weight of the body and the vocabulary's product, and nothing for the scores."""
    cells = {"metric_name": "model_tflops_per_device", "metric_value": "400"}
    reading = read(tmp_path, **cells, mfu_definition_note="6ND only")
    weights = reading.scenario.model.body_params() + 4096 * 32000
    assert reading.measured_s == pytest.approx(6 * weights * 128 * 4096 / (400e12 * 16))
    assert "attention_counted" not in reading.open


@pytest.mark.parametrize(
    ("framework", "stack"),
    [
        ("our own (no Megatron)", "generic"),
        ("HF Accelerate + TransformerEngine", "generic"),
        ("EasyLM (JAX)", "maxtext"),
        ("Megatron-LM", "megatron-2021"),
    ],
)
def test_a_framework_that_is_guessed_is_said(tmp_path: Path, framework: str, stack: str) -> None:
    """Megatron-LM without a version, on a device younger than its paper, is a guess as well."""
    reading = read(tmp_path, framework=framework)
    assert reading.scenario.pools[0].stack.name == stack
    assert f"framework '{framework}' is not recognised" in words(reading)


def test_a_layout_that_is_blank_and_impossible_unsplit_is_refused(tmp_path: Path) -> None:
    shape = {
        "layers": "80",
        "hidden": "8192",
        "ffn_hidden": "28672",
        "heads": "64",
        "kv_heads": "8",
    }
    with pytest.raises(Refused, match="tp and pp are blank, and not split it would need"):
        read(tmp_path, **shape, tp="", pp="", sharding="zero0")
