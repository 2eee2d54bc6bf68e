"""Notes and cells of measured rows as papers write them: read, said, or refused; never dropped."""

from pathlib import Path

import pytest

from ersatz.sim.validation.errors.predict import predict_run
from ersatz.sim.validation.reading.networks import GIGABIT, node_rate
from ersatz.sim.validation.reading.rows import Reading, read_run
from ersatz.sim.validation.reading.rules import Filling, Refused
from ersatz.sim.validation.reading.table import read_table
from tests.test_reading_words import words
from tests.test_validation import ROW, run, table

MOE = {"n_experts": "8", "top_k": "2", "moe_ffn_hidden": "14336", "ep": "4"}
CELLS = {"n_devices": "64", "devices_per_node": "8", "global_batch_seqs": "256", "sharding": "zero1",
         "recompute": "none", "seq_parallel": "yes", "metric_value": "9.0"}  # fmt: skip


def read(tmp_path: Path, **changes: str) -> Reading:
    return read_run(run(tmp_path, **{**CELLS, **changes}))


@pytest.mark.parametrize(
    ("notes", "tp", "pp"),
    [
        ("TP8 PP4 (interleaved)", 8, 4),
        ("TP/PP/DP: 8/4/2", 8, 4),
        ("3D layout (TP, PP, DP) = (4, 2, 8)", 4, 2),
        ("8-way tensor and 4-way pipeline parallelism", 8, 4),
        ("t=8, p=4, d=2", 8, 4),
        ("tensor model parallel size 4; pipeline-model-parallel-size=8", 4, 8),
        ("tensor parallel 2; virtual pipeline 2", 2, 1),
        ("8-way tensor; DP 2", 8, 4),
        ("4-way TP, 4-way PP", 4, 4),
    ],
)
def test_degrees_in_words_and_in_a_row(tmp_path: Path, notes: str, tp: int, pp: int) -> None:
    parallel = read(tmp_path, tp="", pp="", notes=notes).scenario.parallel
    assert (parallel.tp, parallel.pp) == (tp, pp)


@pytest.mark.parametrize(
    ("notes", "schedule", "vp", "open_"),
    [
        ("interleaved, v=4", "interleaved", 4, False),
        ("virtual pipeline size 2", "interleaved", 2, False),
        ("1F1B-I, 4 chunks per stage", "interleaved", 4, False),
        ("num_layers_per_virtual_pipeline_stage=2", "interleaved", 4, False),
        ("2 virtual stages each", "interleaved", 2, False),
        ("interleaving degree 4", "interleaved", 4, False),
        ("AFAB schedule", "gpipe", 1, False),
        ("ZBV (zero bubble V)", "zb-v", 2, False),
        ("DualPipe", "dualpipe", 1, False),
        ("ZB-2p schedule", "zb-h1", 1, True),
        ("Chimera, bidirectional pipeline", "1f1b", 1, True),
    ],
)
def test_schedules_and_chunks(
    tmp_path: Path, notes: str, schedule: str, vp: int, open_: bool
) -> None:
    """32 layers on 4 stages in chunks of 2 are 4 chunks; what is not simulated is left open."""
    reading = read(tmp_path, pp="4", notes=notes)
    parallel = reading.scenario.parallel
    assert (parallel.schedule, parallel.vp) == (schedule, vp)
    assert ("schedule" in reading.open) == open_
    assert ("which is not simulated" in words(reading)) == open_


def test_layers_of_two_kinds_that_take_turns_are_no_chunks(tmp_path: Path) -> None:
    reading = read(tmp_path, pp="4", notes="interleaved dense and MoE layers", framework="torch")
    assert reading.scenario.parallel.vp == 1
    assert "the notes say interleaved" not in words(reading)


@pytest.mark.parametrize(
    ("notes", "batch", "micro"),
    [
        ("mbs=1 gbs 2048 seqs", 2048, 1),
        ("micro-batch size 4, global batch size 1,024", 1024, 4),
        ("4M tokens per batch", 1024, 1),
        ("batch size 2,097,152 tokens", 512, 1),
        ("tokens/batch 16M", 4096, 1),
        ("batch size per device 8; gradient_accumulation_steps: 4", 1024, 8),
        ("per-GPU batch size 8", 256, 1),
        ("global batch 512 sequences", 512, 1),
        ("batch size 512", 512, 1),
        ("1024 × 4096 tokens per step", 1024, 1),
        ("batch of 2 million tokens", 512, 1),
        ("2^22 tokens per batch", 1024, 1),
        ("512 sequences per step", 512, 1),
        ("batch 512x4096", 512, 1),
        ("GBS=1M tokens", 256, 1),
    ],
)
def test_batches_in_words(tmp_path: Path, notes: str, batch: int, micro: int) -> None:
    """Sequences of 4,096 tokens on 32 replicas."""
    training = read(tmp_path, global_batch_seqs="", micro_batch="", notes=notes).scenario.training
    assert (training.global_batch, training.micro_batch) == (batch, micro)


def test_notes_that_contradict_a_cell_are_said(tmp_path: Path) -> None:
    """What the row denies counts for nothing."""
    reading = read(tmp_path, notes="TP8; GBS=512")
    assert reading.scenario.parallel.tp == 2
    assert "tp is 2 in its cell, which is taken; the notes say 'TP8'" in words(reading)
    assert "global_batch_seqs is 256 in its cell" in words(reading)
    assert read(tmp_path, tp="", notes="without TP8").scenario.parallel.tp == 1
    with pytest.raises(Refused, match="n_devices is 64 where the notes say '16 nodes x 8 GPU'"):
        read(tmp_path, notes="16 nodes x 8 GPUs")


@pytest.mark.parametrize(
    ("notes", "taken"),
    [
        ("8k -> 32k seqlen", "sequences as long as the cell says"),
        ("batch ramped up over 12B tokens", "the whole batch"),
        ("distributed Muon", "states and update of Adam"),
        ("optimizer step excluded from time", "a whole step"),
        ("average over 54 days incl. restarts", "a step without what interrupts it"),
        ("CUDA graphs off", "what the stack does"),
        ("activation offload", "stay on the device"),
        ("loss on its own stage", "layers spread evenly"),
        ("expert choice router", "every token goes to top_k experts"),
        ("TP across nodes", "ranks in the usual order"),
        ("MP=8", "tp and pp as their cells say"),
        ("clocks locked at 1.2 GHz", "devices at their full rate"),
    ],
)
def test_what_is_not_simulated_is_said(tmp_path: Path, notes: str, taken: str) -> None:
    assert taken in words(read(tmp_path, notes=notes))


@pytest.mark.parametrize(
    "notes", ["no Muon", "without activation offload", "no batch size warmup", "not end-to-end"]
)
def test_what_is_denied_is_not_said(tmp_path: Path, notes: str) -> None:
    assert "the row says" not in words(read(tmp_path, notes=notes))


def test_words_that_nobody_knows_are_listed(tmp_path: Path) -> None:
    reading = read(tmp_path, notes="moonlight mode; grad_accum=4; frobnicated")
    assert "of the notes nothing is made of 'moonlight mode', 'frobnicated'" in words(reading)
    assert "nothing is made" not in words(read(tmp_path, notes="grad_accum=4; task=pretrain"))


@pytest.mark.parametrize(
    "notes",
    [
        "forward only, no backward",
        "GRPO rollouts included",
        "DPO with a resident reference model",
        "DoRA r=16",
        "frozen base; prompt tuning",
        "the count is in nodes; device count column is nodes",
    ],
)
def test_a_step_of_another_kind_is_refused(tmp_path: Path, notes: str) -> None:
    with pytest.raises(Refused, match="the notes say"):
        read(tmp_path, notes=notes)


def test_a_frozen_base_of_adapters_is_no_reason_to_refuse(tmp_path: Path) -> None:
    model = read(tmp_path, notes="LoRA r16 on q,v; frozen base").scenario.model
    assert (model.lora_rank, model.lora_targets) == (16, "q v")


@pytest.mark.parametrize(
    "model", ["T5-11B", "BERT-large", "ViT-22B", "DiT-XL", "Mamba-2 7B", "Jamba", "RWKV-7B"]
)
def test_models_that_no_column_describes_are_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(Refused, match=f"model '{model}' has"):
        read(tmp_path, model_name=model)


@pytest.mark.parametrize(
    ("notes", "dense", "shared"),
    [
        ("MoE every other layer", 16, 0),
        ("moe layer freq 4", 24, 0),
        ("2 shared experts of width 2816", 0, 5632),
        ("1 shared expert, its intermediate size is elsewhere", 0, 0),
        ("alternating dense and MoE layers", 16, 0),
        ("one dense layer, then 31 with experts", 1, 0),
        ("layer 0 dense", 1, 0),
        ("2 of 32 layers dense", 2, 0),
        ("2 shared experts; shared expert intermediate 5632 total", 0, 5632),
    ],
)
def test_experts_in_words(tmp_path: Path, notes: str, dense: int, shared: int) -> None:
    experts = read(tmp_path, **MOE, notes=notes).scenario.model.experts
    assert experts is not None
    assert (experts.dense_layers, experts.shared_hidden) == (dense, shared)


def test_no_expert_parallelism_is_a_degree_of_one(tmp_path: Path) -> None:
    cells = {**MOE, "ep": ""}
    assert read(tmp_path, **cells, notes="no expert parallelism").scenario.parallel.ep == 1
    assert read(tmp_path, **cells, notes="expert parallel over 2").scenario.parallel.ep == 2


@pytest.mark.parametrize(
    ("notes", "comm", "inner"),
    [
        ("CP via Ulysses (all-to-all)", "a2a", 1),
        ("ring attention", "p2p", 1),
        ("CP with all-gather of KV", "all_gather", 1),
        ("USP: ring 2 x ulysses 2", "a2a+p2p", 2),
        ("MoE all-to-all by DeepEP", "p2p", 1),
    ],
)
def test_kinds_of_context_parallelism(tmp_path: Path, notes: str, comm: str, inner: int) -> None:
    parallel = read(tmp_path, cp="4", notes=notes).scenario.parallel
    assert (parallel.cp_comm, parallel.cp_inner) == (comm, inner)


def test_ulysses_is_a_degree_of_its_own(tmp_path: Path) -> None:
    reading = read(tmp_path, seq_parallel="ulysses 4")
    assert (reading.scenario.parallel.cp, reading.scenario.parallel.cp_comm) == (4, "a2a")


def test_packed_documents_have_the_length_that_is_stated(tmp_path: Path) -> None:
    notes = "sequence packing; avg document length 900; block-diagonal mask"
    assert read(tmp_path, notes=notes).scenario.training.document_tokens == 900
    varlen = read(tmp_path, notes="intra-document masking (varlen)")
    assert varlen.scenario.training.document_tokens == 0
    assert "not of their length" in words(varlen)
    assert "packed" not in words(read(tmp_path, notes="no sequence packing"))


@pytest.mark.parametrize(
    ("cell", "precision", "open_"),
    [
        ("bf16 w/ fp8 linear", "fp8", False),
        ("bf16 (fp8 all-to-all dispatch only)", "bf16", False),
        ("FP8 except last 4 layers in BF16", "fp8", False),
        ("fp8 weights, bf16 activations", "fp8", True),
        ("fp8 (only for MLP)", "fp8", True),
        ("bf16 → fp8 after warmup", "fp8", True),
    ],
)
def test_formats_of_products(tmp_path: Path, cell: str, precision: str, open_: bool) -> None:
    reading = read(tmp_path, precision=cell)
    assert reading.scenario.training.precision == precision
    assert ("precision" in reading.open) == open_


def test_formats_that_are_not_modelled_are_refused_and_unnamed_ones_said(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="products in int8 are not modelled"):
        read(tmp_path, precision="int8 mixed (SwitchBack)")
    assert "does not say which 16 bits" in words(read(tmp_path, precision="mixed precision (O2)"))


@pytest.mark.parametrize(
    ("cell", "mode", "layers", "open_"),
    [
        ("full AC every 2nd block", "full", 16, False),
        ("selective AC, every 2 layers", "full", 16, True),
        ("50%", "full", 16, False),
        ("checkpoint 0.25", "full", 8, False),
        ("uniform, 4 layers of a group", "full", 0, False),
        ("full, 12 layers", "full", 0, True),
        ("all but last 4 layers", "full", 28, False),
        ("✗", "none", 0, False),
        ("gradient checkpointing", "full", 0, True),
        ("全量重计算", "full", 0, False),
        ("选择性重计算", "selective", 0, False),
        ("不开启", "none", 0, False),
    ],
)
def test_shares_and_languages_of_recomputation(
    tmp_path: Path, cell: str, mode: str, layers: int, open_: bool
) -> None:
    reading = read(tmp_path, recompute=cell)
    parallel = reading.scenario.parallel
    assert (parallel.recompute, parallel.recompute_layers) == (mode, layers)
    assert ("recompute" in reading.open) == open_


def test_modules_that_are_named_are_those_computed_again(tmp_path: Path) -> None:
    """NeMo's selective is the attention core; a cell that names others means those."""
    named = read(tmp_path, recompute="SwiGLU and RMSNorm only")
    assert named.scenario.parallel.recompute_modules == ("layernorm", "activation")
    core = read(tmp_path, recompute="selective (core attention)")
    assert core.scenario.parallel.recompute_modules == ()


@pytest.mark.parametrize(
    ("cell", "zero", "shard"),
    [
        ("ZeRO++ (hpZ)", 3, 0),
        ("ZeRO-Offload", 2, 0),
        ("P_{os+g}", 2, 0),
        ("os+g+p", 3, 0),
        ("dp_shard 8 x dp_replicate 4", 3, 8),
        ("optimizer states and gradients sharded", 2, 0),
        ("optimizer states sharded, gradients not", 1, 0),
        ("distributed optimizer; overlapped grad reduce", 1, 0),
        ("FSDP2 + HSDP dp_replicate 2", 3, 16),
        ("hybrid (node-local full shard)", 3, 8),
    ],
)
def test_what_is_sharded_by_other_names(tmp_path: Path, cell: str, zero: int, shard: int) -> None:
    reading = read(tmp_path, sharding=cell)
    assert (reading.scenario.parallel.zero, reading.scenario.parallel.shard) == (zero, shard)
    assert "is not understood" not in words(reading)


def test_sharding_is_also_read_where_the_framework_states_it(tmp_path: Path) -> None:
    reading = read(tmp_path, sharding="", framework="Lightning Fabric FSDP")
    assert reading.scenario.parallel.zero == 3
    assert "sharding is blank: 'lightning fabric fsdp' is said elsewhere" in words(reading)
    several = read(tmp_path, sharding="ZeRO-3 for MoE, ZeRO-1 for dense")
    assert (several.scenario.parallel.zero, several.open) == (3, {"zero": (1,)})
    assert "sharding 'zero-1.5' is not understood" in words(read(tmp_path, sharding="zero-1.5"))


def test_braces_of_a_cell_are_no_format(tmp_path: Path) -> None:
    assert "recompute 'by {magic}' is not understood" in words(
        read(tmp_path, recompute="by {magic}")
    )


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("8x H100 SXM5", "h100-8"),
        ("NVIDIA H100 80GB HBM3", "h100-8"),
        ("NVIDIA A100-SXM4-80GB", "a100-80-8"),
        ("A100 40G", "a100-40-8"),
        ("MI250X (GCD)", "mi250x-gcd-8"),
        ("MI250X", "mi250x-gcd-8"),
        ("昇腾910B", "ascend-910b3-8"),
    ],
)
def test_devices_as_drivers_and_papers_name_them(tmp_path: Path, name: str, node: str) -> None:
    """Eight MI250X a node are its dies: there are four cards."""
    reading = read(tmp_path, device=name, metric_value="20")
    assert reading.scenario.pools[0].node.name == node


@pytest.mark.parametrize("name", ["H100 PCIe", "H20 141GB", "H100 (x2 dies?)", "A100-40GB PCIe"])
def test_devices_of_another_kind_stay_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="is not modelled"):
        read(tmp_path, device=name)


@pytest.mark.parametrize(
    ("note", "cards", "gigabits"),
    [
        ("400 GB/s per node", 8, 400),
        ("50 GB/s per GPU", 8, 400),
        ("3200 Gbps of EFAv2", 8, 400),
        ("每节点8张200G网卡", 8, 200),
    ],
)
def test_bytes_and_other_languages_of_a_network(
    tmp_path: Path, note: str, cards: int, gigabits: float
) -> None:
    reading = read(tmp_path, interconnect_note=note)
    node = reading.scenario.pools[0].node
    assert (node.nics, node.scale_out.nic_bandwidth) == (cards, pytest.approx(gigabits * GIGABIT))
    nvlink = Filling(run(tmp_path, interconnect_note="8x NVLink · 900 GB/s | Ethernet"))
    assert node_rate(nvlink, 8) is None


@pytest.mark.parametrize(
    ("name", "value", "unit", "seconds"),
    [
        ("tokens_per_s", "1.2", "T tokens per week", 256 * 4096 * 604800 / 1.2e12),
        ("step_time_s", "30", "seconds per 10 iterations", 3.0),
        ("step_time_s", "0.05", "days/1k steps", 4.32),
        ("step_time_s", "3000", "毫秒", 3.0),
    ],
)
def test_units_of_weeks_and_of_many_steps(
    tmp_path: Path, name: str, value: str, unit: str, seconds: float
) -> None:
    reading = read(tmp_path, metric_name=name, metric_value=value, metric_unit=unit)
    assert reading.measured_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("samples_per_s", "it/s"),
        ("samples_per_s", "tokens/s"),
        ("tokens_per_s", "samples/s"),
        ("samples_per_s", "samples/s/replica"),
        ("step_time_s", "steps per second"),
        ("model_tflops_per_device", "% of peak"),
        ("model_tflops_per_device", "TFLOPS/8 GPUs"),
    ],
)
def test_units_of_another_thing_are_refused(tmp_path: Path, name: str, unit: str) -> None:
    with pytest.raises(Refused, match="metric_unit"):
        read(tmp_path, metric_name=name, metric_unit=unit)


def test_a_decimal_comma_is_no_thousand(tmp_path: Path) -> None:
    """3,2 was 32."""
    for cell, value in (("3,2", None), ("12,34", None), ("1,024", 1024)):
        read = read_table(table(tmp_path, {**ROW, "metric_value": cell}, {**ROW, "id": "b"}))
        first = {row.id: row.number("metric_value") for row in read.runs}.get("r1")
        assert (first, len(read.problems)) == (value, value is None)


def test_a_step_beyond_the_devices_peak_is_refused_and_a_slow_one_said(tmp_path: Path) -> None:
    """6 x 6.7e9 x 256 x 4,096 on 64 x 989 TFLOP/s are two thirds of a second."""
    fast = predict_run(run(tmp_path, **{**CELLS, "metric_value": "0.5"}))
    assert "shorter than the 0.656 s of its products at peak" in fast.reason
    assert predict_run(run(tmp_path, **{**CELLS, "metric_value": "1"})).reason == ""
    assert "is its unit right?" in words(read(tmp_path, metric_value="90"))


@pytest.mark.parametrize(
    ("note", "counted"),
    [
        ("MFU (without attention)", "none"),
        ("MFU, 6N approximation", "none"),
        ("attention FLOPs excluded", "none"),
        ("6N + 12LHS (nanoGPT)", "full"),
        ("6N + 6LHS", "causal"),
        ("attention counted as half (lower triangle)", "causal"),
        ("6*P*T + attention (full)", "full"),
        ("relative to FP8 peak; causal", "causal at twice the peak"),
        ("causal; of 1,979 TFLOPS", "causal at twice the peak"),
        ("BF16 peak w/ sparsity; causal", "causal at twice the peak"),
        ("BF16 peak without sparsity; causal", "causal"),
    ],
)
def test_what_a_utilisation_counts(tmp_path: Path, note: str, counted: str) -> None:
    cells = {"metric_name": "mfu_percent", "metric_value": "42", "metric_unit": "%"}
    plain = {"none": "6ND only", "full": "non-causal"}.get(counted, "causal")
    usual = read(tmp_path, **cells, mfu_definition_note=plain).measured_s
    reading = read(tmp_path, **cells, mfu_definition_note=note)
    assert usual is not None
    twice = 2 if "twice" in counted else 1
    assert reading.measured_s == pytest.approx(usual / twice, rel=1e-3)
    assert "attention_counted" not in reading.open


@pytest.mark.parametrize(
    ("kind", "kv_heads"), [("gqa (8 kv heads)", 8), ("gqa 8:1", 4), ("gqa-4", 4)]
)
def test_groups_of_heads_in_words(tmp_path: Path, kind: str, kv_heads: int) -> None:
    reading = read(tmp_path, kv_heads="", attention_kind=kind)
    assert (reading.scenario.model.kv_heads, "kv_heads" in reading.open) == (kv_heads, False)


def test_kernels_and_kinds_that_a_row_states(tmp_path: Path) -> None:
    assert not read(tmp_path, attention_kind="mha, unfused").scenario.model.fused_attention
    assert not read(tmp_path, notes="no flash attention").scenario.model.fused_attention
    assert not read(tmp_path, notes="squared ReLU MLP").scenario.model.gated
    assert read(tmp_path, notes="tied embeddings").scenario.model.tied
    assert not read(tmp_path, notes="untied embeddings").scenario.model.tied
    assert "as DeepSeek's" in words(read(tmp_path, attention_kind="mla"))
    for kind in ("cross attention", "bidirectional", "differential attention"):
        with pytest.raises(Refused, match="is not described by the columns"):
            read(tmp_path, attention_kind=kind)


@pytest.mark.parametrize(
    ("notes", "mode"),
    [
        ("full recompute", "full"),
        ("selective AC", "selective"),
        ("no activation checkpointing", "none"),
        ("dp recomputed as n/tp", ""),
    ],
)
def test_recomputation_stands_in_the_notes_where_its_cell_is_blank(
    tmp_path: Path, notes: str, mode: str
) -> None:
    reading = read(tmp_path, recompute="", notes=notes)
    assert reading.scenario.parallel.recompute == (mode or "none")
    assert ("recompute" in reading.open) == (not mode)


def test_micro_batches_are_counted_in_notes(tmp_path: Path) -> None:
    """16 of 2 sequences in each of 32 replicas."""
    for notes in ("16 micro-batches", "number of microbatches m=16"):
        reading = read(tmp_path, global_batch_seqs="", notes=notes)
        assert reading.scenario.training.global_batch == 1024


def test_what_notes_offload_is_offloaded(tmp_path: Path) -> None:
    for notes, share in (("optimizer offloaded to host", 1), ("no optimizer offload", 0)):
        stack = read(tmp_path, notes=notes).scenario.pools[0].stack
        assert stack.optimizer_offload == share


def test_cells_that_contradict_each_other_are_said(tmp_path: Path) -> None:
    gpipe = read(tmp_path, pp="4", vpp="2", notes="GPipe")
    assert "vpp is 2 in its cell, which gpipe has not" in words(gpipe)
    assert "kv_heads is 32 in its cell" in words(read(tmp_path, attention_kind="MQA"))
    assert "kv_heads is blank: 8 (attention is 'gqa 8 groups')" in words(
        read(tmp_path, kv_heads="", notes="GQA 8 groups")
    )
    assert "256 are 4 rounds" in words(read(tmp_path, notes="no gradient accumulation"))


def test_what_a_metric_counts_beyond_the_rules_is_said(tmp_path: Path) -> None:
    cells = {"metric_name": "mfu_percent", "metric_value": "42", "metric_unit": "%"}
    for note, taken in (
        ("causal; embedding not counted", "the product with the vocabulary is counted"),
        ("causal; total params (not active) counted", "weights that a token uses are counted"),
    ):
        assert taken in words(read(tmp_path, **cells, mfu_definition_note=note))
    with pytest.raises(Refused, match="the unit says 'forward only': no training step"):
        read(tmp_path, metric_unit="s (forward only)")


def test_words_of_attention_that_nobody_knows_are_listed(tmp_path: Path) -> None:
    assert "nothing is made of 'wavelike'" in words(read(tmp_path, attention_kind="gqa; wavelike"))
    for kind in ("softmax-free", "chunked 8192"):
        with pytest.raises(Refused, match="is not described by the columns"):
            read(tmp_path, attention_kind=kind)
