"""Kinds of words in tables of runs that were read as something else, or not at all: each is read or said."""

from pathlib import Path

import pytest

from ersatz.sim.validation.reading.cells import unknown_words
from ersatz.sim.validation.reading.rules import Refused
from ersatz.sim.validation.reading.unread import unread
from ersatz.sim.validation.reading.words import asserted, is_unstated
from tests.test_reading_notes import MOE, read
from tests.test_reading_words import words

BLANK = {"tp": "", "pp": ""}
RATE = {"metric_name": "tokens_per_s_per_device", "metric_value": "8000"}
SHARE = {"metric_name": "mfu_percent", "metric_value": "42", "metric_unit": "%"}


@pytest.mark.parametrize(
    "cell",
    [
        "n/a",
        "not stated",
        "no information",
        "-",
        "?",
        "none reported",
        "unknown",
        "k. A.",
        "未说明",
    ],
)
def test_a_cell_that_says_nothing_is_known_is_blank(tmp_path: Path, cell: str) -> None:
    """A dash and "not stated" were no recomputation, "n/a" no sequence parallelism."""
    assert is_unstated(cell)
    reading = read(tmp_path, recompute=cell, seq_parallel=cell, sharding=cell)
    assert "recompute" in reading.open
    for column in ("recompute", "seq_parallel", "sharding"):
        assert f"{column} is blank" in words(reading)


def test_what_stands_before_a_denial_is_affirmed() -> None:
    assert asserted("zero3 without offload; FSDP: no") == ["zero3"]
    assert asserted("use_distributed_optimizer=False") == []
    assert not is_unstated("none")
    assert not is_unstated("%")


@pytest.mark.parametrize(
    ("cell", "mode", "others"),
    [
        ("full, not selective", "full", ()),
        ("no selective; full recompute", "full", ()),
        ("selective, except full for the first 4 layers", "selective", ("full",)),
        ("selective (attention); full in 4 layers", "selective", ("full",)),
        ("none / full", "none", ("full",)),
        ("selective or full", "selective", ("full",)),
        ("not full", "none", ("selective",)),
        ("非全量", "none", ("selective",)),
        ("disabled except MoE", "none", ("selective", "full")),
        ("off for first 10 layers", "none", ("selective", "full")),
        ("yes: SwiGLU", "selective", ("full",)),
        ("full for attn layers", "selective", ("full",)),
        ("full method=block num-layers=0", "none", ()),
    ],
)
def test_several_kinds_of_recomputation_and_denied_ones(
    tmp_path: Path, cell: str, mode: str, others: tuple[str, ...]
) -> None:
    """The first word decided, whatever denied it or stood beside it."""
    reading = read(tmp_path, recompute=cell)
    assert reading.scenario.parallel.recompute == mode
    assert reading.open.get("recompute", ()) == others


@pytest.mark.parametrize(
    ("cell", "zero", "others"),
    [
        ("not ZeRO-3 but ZeRO-1", 1, ()),
        ("no ZeRO-3; ZeRO-2", 2, ()),
        ("ZeRO-3 OOMs, so ZeRO-2", 3, (2,)),
        ("ZeRO 1/2", 1, (2,)),
        ("ZeRO-3→1", 3, (1,)),
        ("DDP/FSDP", 0, (3,)),
        ("ZeRO-2 or ZeRO-3", 2, (3,)),
        ("use_distributed_optimizer=False", 0, ()),
        ("FSDP: no", 0, ()),
        ("distributed optimizer; no FSDP", 1, ()),
        ("FSDP=1", 3, (0,)),
    ],
)
def test_denied_and_several_kinds_of_sharding(
    tmp_path: Path, cell: str, zero: int, others: tuple[int, ...]
) -> None:
    reading = read(tmp_path, sharding=cell)
    assert reading.scenario.parallel.zero == zero
    assert reading.open.get("zero", ()) == others


def test_sharding_over_nodes_is_over_their_devices(tmp_path: Path) -> None:
    assert read(tmp_path, sharding="FSDP over 2 nodes", tp="1").scenario.parallel.shard == 16
    assert read(tmp_path, sharding="", notes="no ZeRO").scenario.parallel.zero == 0


@pytest.mark.parametrize(
    ("column", "cell", "strange"),
    [
        ("recompute", "full, checkpoints offloaded to CPU", ("offloaded", "cpu")),
        ("recompute", "full AC on 1 of 4 stages", ("stages",)),
        ("sharding", "ZeRO-3 (parameters only)", ("only",)),
        ("sharding", "ddp (zero3 tried, slower)", ("tried", "slower")),
        ("precision", "bf16, experts fp8", ("experts",)),
        ("metric_unit", "tokens/s/GPU (excl. padding)", ("excl", "padding")),
        ("metric_unit", "s (estimated)", ("estimated",)),
        ("recompute", "selective (op)", ()),
        ("metric_unit", "TFLOPS/device (up to)", ()),
    ],
)
def test_words_of_a_cell_that_no_reader_knows_are_said(
    tmp_path: Path, column: str, cell: str, strange: tuple[str, ...]
) -> None:
    assert unknown_words(column, cell) == strange
    if strange and column in ("recompute", "sharding", "precision"):
        said = f"of {column} {cell!r} nothing is made of {', '.join(map(repr, strange))}"
        assert said in words(read(tmp_path, **{column: cell}))


@pytest.mark.parametrize(
    "cell", ["yes (DeepSpeed-Ulysses)", "yes/no", "yes for training, no for eval"]
)
def test_a_yes_with_another_word_is_left_open(tmp_path: Path, cell: str) -> None:
    assert read(tmp_path, seq_parallel=cell).open["seq_parallel"] == (False,)


@pytest.mark.parametrize("text", ["TP8-PP4-DP2", "TP8xPP4", "tp8pp4", "TP8_PP4"])
def test_degrees_in_one_word(tmp_path: Path, text: str) -> None:
    parallel = read(tmp_path, **BLANK, notes=text).scenario.parallel
    assert (parallel.tp, parallel.pp) == (8, 4)


def test_degrees_beside_another_cell(tmp_path: Path) -> None:
    assert read(tmp_path, tp="", sharding="FSDP + TP=4").scenario.parallel.tp == 4
    assert read(tmp_path, seq_parallel="yes; CP=2").scenario.parallel.cp == 2
    assert "tp is 2 in its cell, which is taken; framework says 'TP=4'" in words(
        read(tmp_path, framework="NeMo TP=4")
    )


@pytest.mark.parametrize(
    ("cell", "precision", "others"),
    [
        ("FP8 forward only", "fp8", ("bf16",)),
        ("FP8 for 90% of GEMMs", "fp8", ("bf16",)),
        ("fp8 (emulated in bf16)", "fp8", ("bf16",)),
        ("fp8 (attention only)", "fp8", ("bf16",)),
        ("BF16 w/ FP8 optimizer states", "bf16", ()),
    ],
)
def test_formats_of_some_products_or_of_none(
    tmp_path: Path, cell: str, precision: str, others: tuple[str, ...]
) -> None:
    reading = read(tmp_path, precision=cell)
    assert reading.scenario.training.precision == precision
    assert reading.open.get("precision", ()) == others


@pytest.mark.parametrize(
    "cells",
    [
        {**RATE, "metric_unit": "tokens/s per DP rank"},
        {**RATE, "metric_unit": "tokens/s/chip pair"},
        {**RATE, "metric_unit": "tokens per second per GPU (global)"},
        {"metric_name": "samples_per_s", "metric_value": "28", "metric_unit": "samples/s/DP"},
        {**RATE, "metric_name": "tokens_per_s", "metric_unit": "tokens/s per H100"},
        {**RATE, "metric_unit": "tokens/s/GCD", "device": "MI250X", "devices_per_node": "4"},
        {**RATE, "metric_unit": "tokens/s per MI250X card", "device": "MI250X"},
        {"metric_unit": "s per accumulation round"},
        {"metric_unit": "s, fwd only"},
    ],
)
def test_rates_of_other_groups_than_a_device_or_the_job_are_refused(
    tmp_path: Path, cells: dict[str, str]
) -> None:
    with pytest.raises(Refused, match="unit"):
        read(tmp_path, **cells)


def test_the_time_of_several_steps(tmp_path: Path) -> None:
    assert read(tmp_path, metric_value="90", metric_unit="s for 10 steps").measured_s == 9.0
    assert read(tmp_path, metric_unit="s (mean of 10 steps)").measured_s == 9.0
    reading = read(tmp_path, metric_value="90", metric_unit="seconds (10 iterations)")
    assert (reading.measured_s, reading.open["steps_timed"]) == (90.0, (10.0,))


def test_a_share_of_a_sparse_peak_and_a_unit_that_counts_recomputation(tmp_path: Path) -> None:
    usual = read(tmp_path, **SHARE, mfu_definition_note="causal").measured_s
    sparse = read(tmp_path, **SHARE, mfu_definition_note="causal; MFU vs sparse peak")
    assert usual is not None
    assert sparse.measured_s == pytest.approx(usual / 2)
    assert "of twice the dense one" in words(sparse)
    full = {**SHARE, "recompute": "full", "mfu_definition_note": "causal"}
    hardware = read(tmp_path, **{**full, "metric_unit": "% (HFU)"}).measured_s
    assert hardware == pytest.approx(usual * 4 / 3)


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        (
            "measured on 512 GPUs",
            "n_devices is 64 in its cell, which is taken; the notes say '512 GPUs'",
        ),
        ("measured on 64 nodes", "the notes say 'on 64 nodes'"),
        (
            "seq len 8192",
            "seq_len is 4096 in its cell, which is taken; the notes say 'seq len 8192'",
        ),
        ("parameters offloaded to CPU", "weights and activations stay on the device"),
        ("optimizer_offload_fraction=0.5", "are kept in one place"),
        ("measured with half the layers", "nothing is made of 'measured with half the layers'"),
        ("step time from the log of the 70B run", "nothing is made of"),
        ("source: TP was 4 in the text", "nothing is made of"),
        ("with 2 MTP layers", "the notes say 2 prediction modules"),
    ],
)
def test_notes_that_speak_of_another_run_are_said(tmp_path: Path, notes: str, said: str) -> None:
    """A word that readers know once silenced all that stood around it."""
    assert said in words(read(tmp_path, notes=notes))


@pytest.mark.parametrize(
    ("text", "what", "found"),
    [
        ("causal; of boost-clock peak", "metric", ("of boost-clock peak",)),
        ("causal; backward counted as 1x", "metric", ("backward counted as 1x",)),
        ("MFU, 6N approximation", "metric", ()),
        ("model flops x 4/3", "metric", ("model flops x 4/3",)),
        ("mha with talking heads", "attention", ("mha with talking heads",)),
        ("gated attention, gqa", "attention", ("gated attention",)),
        ("8x400Gb/s (GDR disabled)", "network", ("GDR disabled",)),
        ("8x400 Gb/s at 90%", "network", ("8x400 Gb/s at 90%",)),
        ("Slingshot-11 4x200Gb per node", "network", ()),
        ("8-way tensor and 4-way pipeline parallelism", "notes", ()),
    ],
)
def test_what_is_left_of_a_text_without_what_readers_look_for(
    text: str, what: str, found: tuple[str, ...]
) -> None:
    assert unread(text, what) == found


@pytest.mark.parametrize(
    ("notes", "batch"),
    [
        ("GA=8", 512),
        ("16 gradient accumulation steps", 1024),
        ("accumulate over 8 micro-steps", 512),
    ],
)
def test_accumulation_in_other_words(tmp_path: Path, notes: str, batch: int) -> None:
    training = read(tmp_path, global_batch_seqs="", notes=notes).scenario.training
    assert training.global_batch == batch


@pytest.mark.parametrize(
    ("notes", "rank", "targets"),
    [
        ("rsLoRA r=16", 16, ""),
        ("lora_rank: 8; LoRA", 8, ""),
        ("rank-64 LoRA", 64, ""),
        ("LoRA r=8 on attention only", 8, "q k v o"),
        ("LoRA r=8 on the MLP", 8, "gate up down"),
        ("LoRA r=4 (q,v)", 4, "q v"),
    ],
)
def test_adapters_in_other_words(tmp_path: Path, notes: str, rank: int, targets: str) -> None:
    model = read(tmp_path, notes=notes).scenario.model
    assert (model.lora_rank, model.lora_targets) == (rank, targets)


def test_adapters_of_another_kind_are_refused_or_said(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="part of the model"):
        read(tmp_path, notes="adapter rank 16")
    assert "on all matrices" in words(read(tmp_path, notes="LoRA r=8 on experts"))


@pytest.mark.parametrize(
    "name", ["Qwen3-Next-80B-A3B", "Kimi-Linear-48B", "MiniMax-Text-01", "LFM2-2.6B"]
)
def test_hybrids_by_their_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="has layers that are not attention"):
        read(tmp_path, model_name=name, **MOE)
    assert read(tmp_path, model_name="Qwen3-8B").scenario.model.heads == 32


@pytest.mark.parametrize("name", ["Gemma-3-27B", "gpt-oss-20b", "Llama-4-Scout", "DeepSeek-V3"])
def test_what_a_model_is_known_for_and_no_cell_states_is_said(tmp_path: Path, name: str) -> None:
    assert f"model {name!r} is known for" in words(read(tmp_path, model_name=name))
    assert "is known for" not in words(read(tmp_path, model_name="Gemma 2B"))


@pytest.mark.parametrize(
    ("note", "total"),
    [("one 200 Gb/s NIC per 2 GPUs", 800), ("4 GPUs share one 400G NIC", 800)],
)
def test_cards_that_several_devices_share(tmp_path: Path, note: str, total: int) -> None:
    node = read(tmp_path, interconnect_note=note).scenario.pools[0].node
    assert node.nics * node.scale_out.nic_bandwidth * 8 / 1e9 == pytest.approx(total)


def test_numbers_left_in_a_unit_and_a_peak_of_no_device_are_said(tmp_path: Path) -> None:
    assert "nothing is made of '8'" in words(read(tmp_path, **RATE, metric_unit="TGS (8 GPUs)"))
    a100 = words(read(tmp_path, **SHARE, mfu_definition_note="causal; peak = 312"))
    assert "a share of 312 TFLOPS, as stated, which is no peak of H100" in a100


def test_what_is_left_out_and_ranges_of_a_rank(tmp_path: Path) -> None:
    assert "which modules are left out is not read" in words(
        read(tmp_path, recompute="selective (all but attention)")
    )
    assert read(tmp_path, notes="LoRA rank 8/16").open["lora_rank"] == (16,)
    hardware = {**SHARE, "recompute": "selective", "mfu_definition_note": "HFU; causal"}
    assert "of a selective recomputation is not counted" in words(read(tmp_path, **hardware))


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"seq_parallel": "yes (4)"}, "of seq_parallel 'yes (4)' nothing is made of '4'"),
        ({"precision": "bf16/fp32"}, "names 32 bits as well"),
        ({"precision": "fp8?"}, "precision 'fp8?' has a mark of doubt"),
        ({**RATE, "metric_unit": "tokens/s/GPU (fp8 run)"}, "nothing is made of 'fp8'"),
        ({"framework": "DeepSpeed → FSDP"}, "nothing is made of '→'"),
        ({"framework": "Megatron-LM fork of X"}, "nothing is made of 'fork'"),
        ({"recompute": "none†"}, "recompute 'none†' has a mark"),
        ({"metric_unit": "s per step per GPU"}, "taken as the time of a step of all devices"),
        ({"recompute": "selective core_attn, moe_act"}, "core_attn, activation, as it names them"),
    ],
)
def test_doubts_numbers_and_turns_of_cells_are_said(
    tmp_path: Path, cells: dict[str, str], said: str
) -> None:
    assert said in words(read(tmp_path, **cells))


def test_a_stage_beside_a_whole_sharding_is_left_open(tmp_path: Path) -> None:
    reading = read(tmp_path, sharding="optimizer: ZeRO-1; params: FSDP")
    assert (reading.scenario.parallel.zero, reading.open["zero"]) == (1, (3,))
    assert read(tmp_path, sharding="FSDP (ZeRO-2)").scenario.parallel.zero == 2


@pytest.mark.parametrize("notes", ["仅前向", "推論のみ", "just the forward pass"])
def test_steps_of_another_kind_in_other_words_are_refused(tmp_path: Path, notes: str) -> None:
    with pytest.raises(Refused, match="no training step"):
        read(tmp_path, notes=notes)
