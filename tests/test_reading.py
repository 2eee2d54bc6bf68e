"""What rows of tables do not say, or say in words: read, stated, or left open; never filled in silence."""

import math
import re
from pathlib import Path

import pytest

from ersatz.sim.step.step import step_seconds
from ersatz.sim.validation.errors.predict import predict_run
from ersatz.sim.validation.errors.summary import row_record, summarise
from ersatz.sim.validation.reading.networks import GIGABIT, node_rate
from ersatz.sim.validation.reading.rows import read_run, scenario_of
from ersatz.sim.validation.reading.rules import Filling, Refused
from ersatz.sim.validation.reading.table import read_table
from tests.test_validation import ROW, run, table

MOE = {"n_experts": "8", "top_k": "2", "moe_ffn_hidden": "14336"}


def stated(tmp_path: Path, **changes: str) -> str:
    """Return all assumptions of a row."""
    return " | ".join(read_run(run(tmp_path, **changes)).scenario.assumptions)


@pytest.mark.parametrize(
    ("note", "causal"),
    [
        ("causal", True),
        ("PaLM MFU with causal /2", True),
        ("causal factor not stated", None),
        ("check the calculator for causal factor per release", None),
        ("non-causal", False),
        ("full square of attention", False),
        ("no causal factor", False),
        ("Megatron SC21 formula", False),
        ("", None),
    ],
)
def test_how_attention_is_counted_is_read_or_left_open(
    tmp_path: Path, note: str, causal: bool | None
) -> None:
    """The causal half has fewer FLOPs, so the same rate means a shorter step."""
    cells = {"metric_name": "model_tflops_per_device", "metric_value": "400"}
    full = read_run(run(tmp_path, **cells, mfu_definition_note="non-causal")).measured_s
    half = read_run(run(tmp_path, **cells, mfu_definition_note="causal")).measured_s
    reading = read_run(run(tmp_path, **cells, mfu_definition_note=note))
    assert half is not None
    assert full is not None
    assert half < full
    assert reading.measured_s == (half if causal else full)
    assert ("attention_counted" in reading.open) == (causal is None)


@pytest.mark.parametrize(
    ("note", "cards", "gigabits"),
    [
        ("4x100Gb RoCE per node", 4, 100),
        ("800 Gb/s per 8-GPU node", 8, 100),
        ("400 Gbps per node", 8, 50),
        ("1600 Gbps/node RoCE", 8, 200),
        ("NVLINK 900 GB/s | Storage: 2x ConnectX-7 400Gb/s; Compute: 8x ConnectX-7 IB NDR 400Gb/s", 8, 400),
        ("400 Gb/s RDMA per GPU", 8, 400),
        ("2 x HDR InfiniBand per node", 2, 200),
        ("8x80GB per node; 2x 400GbE", 2, 400),
        ("200G RoCE per card", 8, 200),
    ],
)  # fmt: skip
def test_a_network_note_is_read(tmp_path: Path, note: str, cards: int, gigabits: float) -> None:
    fill = Filling(run(tmp_path, interconnect_note=note))
    assert node_rate(fill, 8) == (cards, pytest.approx(gigabits * GIGABIT))


@pytest.mark.parametrize(("device", "trays", "devices"), [("GB200", 4, 72), ("GB300", 4, 144)])
def test_cards_of_a_tray_are_those_of_a_rack_s_every_tray(
    tmp_path: Path, device: str, trays: int, devices: int
) -> None:
    """Four cards for the four devices of a tray, 18 trays a rack: 72, not 4 for all of it."""
    note = "NVLINK Gen5 1800 GB/s | 4x ConnectX-7 IB NDR 400 Gb/s"
    cells = {"device": device, "devices_per_node": str(trays), "n_devices": str(devices)}
    node = scenario_of(run(tmp_path, interconnect_note=note, **cells)).pools[0].node
    assert (node.devices, node.nics) == (72, 72)
    assert node.scale_out.nic_bandwidth == 400 * GIGABIT
    per_tray = "1600 Gb/s per node"
    node = scenario_of(run(tmp_path, interconnect_note=per_tray, **cells)).pools[0].node
    assert node.nics * node.scale_out.nic_bandwidth == pytest.approx(18 * 1600 * GIGABIT)


def test_half_a_host_has_half_its_cards(tmp_path: Path) -> None:
    """Hosts of four devices and four cards: one card each, though the usual host has eight of both."""
    cells = {"devices_per_node": "4", "n_devices": "4"}
    node = scenario_of(run(tmp_path, interconnect_note="4x NDR 400Gb/s", **cells)).pools[0].node
    assert (node.devices, node.nics) == (4, 4)


def test_what_a_row_offloads_is_offloaded_whatever_ran_it(tmp_path: Path) -> None:
    """30 bytes of each weight pass through the host's memory at 15 GB/s for each device."""
    for framework in ("DeepSpeed", "some framework"):
        kept = scenario_of(run(tmp_path, framework=framework, sharding="zero3"))
        away = scenario_of(run(tmp_path, framework=framework, sharding="zero3 + CPU AdamW offload"))
        assert away.pools[0].stack.optimizer_offload == 1
        assert not kept.pools[0].stack.optimizer_offload
        more = step_seconds(away) - step_seconds(kept)
        shard = away.model.params() / away.devices
        assert more > 0.9 * 30 * shard / 15e9
        if framework != "DeepSpeed":  # which has a stack of its own for it
            assert any("memory.optimizer_offload" in words for words in away.assumptions)


@pytest.mark.parametrize(
    "words",
    [
        "zero3; no offload",
        "zero3 without offload",
        "zero3; activation offload",
        "zero3-offload param",
        "zero3",
    ],
)
def test_what_is_not_the_optimizer_s_offload_is_not_read_as_it(tmp_path: Path, words: str) -> None:
    for framework in ("DeepSpeed", "some framework"):
        stack = scenario_of(run(tmp_path, framework=framework, sharding=words)).pools[0].stack
        assert not stack.optimizer_offload


@pytest.mark.parametrize("note", ["carrier pigeons", "IB", "8x80GB per node", "DGX Cloud", ""])
def test_a_network_note_that_is_not_understood_is_said(tmp_path: Path, note: str) -> None:
    words = stated(tmp_path, interconnect_note=note)
    assert "8 x 400 Gb/s a node are taken" in words
    assert "network" not in stated(tmp_path, interconnect_note=note, n_devices="8")  # one node


def test_a_bare_rate_is_left_open(tmp_path: Path) -> None:
    """Of a card, or of the node? An eighth of the bandwidth, if of the node."""
    row = run(tmp_path, interconnect_note="InfiniBand 200Gb/s", recompute="none")
    reading = read_run(row)
    assert reading.open == {"network_rate": ("a node",)}
    assert reading.scenario.pools[0].node.scale_out.nic_bandwidth == 200 * GIGABIT
    other = read_run(row, choices={"network_rate": "a node"}).scenario
    assert other.pools[0].node.scale_out.nic_bandwidth == 25 * GIGABIT


def test_a_blank_does_not_mean_what_no_device_can_hold(tmp_path: Path) -> None:
    """175 B in whole layers of 2,048 tokens, micro-batches of 6: some 16 GB a layer in each of 96.

    What is stated stays as it is: then the table or the memory model is wrong, not the reading.
    """
    huge = {
        "layers": "96", "hidden": "12288", "ffn_hidden": "49152", "heads": "96", "kv_heads": "96",
        "head_dim": "128", "seq_len": "2048", "n_devices": "256", "micro_batch": "6",
        "global_batch_seqs": "1536", "tp": "1", "pp": "1", "sharding": "fsdp", "framework": "PaxML",
    }  # fmt: skip
    reading = read_run(run(tmp_path, recompute="", **huge))
    assert reading.scenario.parallel.recompute == "full"
    assert re.search(
        r"recompute none would need \d+\.\d times the memory", reading.scenario.assumptions[-2]
    )
    asked = read_run(run(tmp_path, recompute="", **huge), choices={"recompute": "none"})
    assert asked.scenario.parallel.recompute == "full"
    assert read_run(run(tmp_path, recompute="none", **huge)).scenario.parallel.recompute == "none"


@pytest.mark.parametrize("name", ["layers", "n_devices", "pp", "global_batch_seqs"])
def test_a_row_has_a_bound_like_a_scenario(tmp_path: Path, name: str) -> None:
    """One row of 32,000 layers once held the whole table; the others are predicted, it is named."""
    path = table(tmp_path, {**ROW, name: "32000000000"}, {**ROW, "id": "b"})
    read = read_table(path)
    assert [row.id for row in read.runs] == ["b"]
    assert any(p.key == name and "at most" in p.expected and p.line == 2 for p in read.problems)


def test_an_unknown_framework_is_generic_and_said(tmp_path: Path) -> None:
    """Whatever nobody recognises must not become the fastest stack."""
    for name in ("ColossalAI 0.4", "my trainer", "InternEvo", ""):
        reading = read_run(run(tmp_path, framework=name))
        assert reading.scenario.pools[0].stack.name == "generic"
        assert "stack generic" in " ".join(reading.scenario.assumptions)
    slow, fast = (
        predict_run(run(tmp_path, framework=f)).predicted_s for f in ("my trainer", "NeMo")
    )
    assert slow is not None
    assert fast is not None
    assert slow > fast


@pytest.mark.parametrize(
    ("cells", "key"),
    [
        ({"micro_batch": "", "sharding": "zero3"}, "micro_batch"),
        ({"micro_batch": "", **MOE}, "micro_batch"),
        ({"pp": "4", "vpp": "", "framework": "NeMo"}, "vpp"),
        ({"pp": "4", "vpp": "", "framework": "NeMo", **MOE}, "vpp"),
        ({"recompute": ""}, "recompute"),
        ({"precision": ""}, "precision"),
        ({"heads": "", "kv_heads": ""}, "heads"),
        ({**MOE}, "etp"),
    ],
)
def test_a_blank_that_decides_widens_the_interval_to_both_ends(
    tmp_path: Path, cells: dict[str, str], key: str
) -> None:
    row = run(tmp_path, **{"recompute": "none", "seq_parallel": "yes", **cells})
    reading, prediction = read_run(row), predict_run(row)
    assert key in reading.open
    assert prediction.low80_s is not None
    assert prediction.high80_s is not None
    for other in reading.open[key]:
        try:
            seconds = step_seconds(read_run(row, choices={key: other}).scenario)
        except Refused:
            continue
        assert prediction.low80_s * 0.999 <= seconds <= prediction.high80_s * 1.001


def test_a_stated_row_leaves_nothing_open(tmp_path: Path) -> None:
    row = run(tmp_path, recompute="none", interconnect_note="8x400Gb/s IB per node")
    assert read_run(row).open == {}


def test_shapes_are_filled_from_siblings(tmp_path: Path) -> None:
    """Rows of one source and model share their shape; where they differ, nothing is taken."""
    rows = [{**ROW, "id": "a", "heads": "", "kv_heads": "8"}, {**ROW, "id": "b", "heads": "64"}]
    first = read_table(table(tmp_path, *rows)).runs[0]
    assert first.number("heads") == 64
    words = " ".join(read_run(first).scenario.assumptions)
    assert "heads is blank: 64 (as other rows of the same source and model say)" in words
    rows.append({**ROW, "id": "c", "heads": "32"})
    assert read_table(table(tmp_path, *rows)).runs[0].number("heads") is None


def test_parameters_that_the_shape_denies_are_said_or_refused(tmp_path: Path) -> None:
    """Llama 2 7B has 6.74 B parameters."""
    assert "parameters" not in stated(tmp_path, params_total_b="6.74")
    assert "of the 7.2 B stated" in stated(tmp_path, params_total_b="7.2")
    reason = predict_run(run(tmp_path, params_total_b="70")).reason
    assert "B parameters where 70 B are stated" in reason


@pytest.mark.parametrize(
    ("column", "text"),
    [("sharding", "by magic"), ("recompute", "clever"), ("precision", "mystery")],
)
def test_words_that_are_not_understood_are_said(tmp_path: Path, column: str, text: str) -> None:
    assert f"{column} '{text}' is not understood" in stated(tmp_path, **{column: text})


def test_expert_tensor_parallelism_stands_in_the_notes(tmp_path: Path) -> None:
    row = run(tmp_path, notes="MCore; ETP=2", ep="4", **MOE)
    assert read_run(row).scenario.parallel.etp == 2


def test_suspect_rows_stand_apart(tmp_path: Path) -> None:
    rows = [{**ROW, "id": "a"}, {**ROW, "id": "b", "confidence": "suspect"},
            {**ROW, "id": "c", "notes": "EXCLUDE: typo", "metric_value": "30"}]  # fmt: skip
    predictions = [predict_run(r) for r in read_table(table(tmp_path, *rows)).runs]
    summary = summarise(predictions)
    assert (summary["predicted"], summary["apart"], summary["all"].rows) == (3, 2, 1)
    assert [row_record(p)["counts"] for p in predictions] == [True, False, False]


def test_every_number_names_its_unit(tmp_path: Path) -> None:
    """A rate falls where the time grows: the interval's ends change places."""
    cells = {"metric_name": "tokens_per_s_per_device", "metric_value": "10000"}
    record = row_record(predict_run(run(tmp_path, **cells)))
    low, middle, high = (record[f"{n}_in_metric_unit"] for n in ("low80", "predicted", "high80"))
    assert low < middle < high
    tokens = 128 * 4096 / 16
    assert high == pytest.approx(tokens / record["step_time_low80_s"])
    assert math.isclose(middle, tokens / record["step_time_predicted_s"])


def test_what_a_stack_or_a_node_decides_is_said(tmp_path: Path) -> None:
    words = stated(tmp_path, seq_parallel="", sharding="")
    assert "seq_parallel is blank: True (the stack's habit)" in words
    assert "sharding is blank: zero 1 (the stack's habit)" in words
    words = stated(tmp_path, n_devices="12", tp="2", global_batch_seqs="24")
    assert "12 devices are no whole nodes of 8: 6 of each node are taken" in words
    assert "gated MLP is blank: True" in stated(tmp_path)
    assert "gated MLP" not in stated(tmp_path, model_name="GPT3-175B")  # known to have none


def test_the_number_of_experts_of_a_token_is_left_open(tmp_path: Path) -> None:
    reading = read_run(run(tmp_path, **{**MOE, "top_k": ""}))
    assert reading.open["top_k"] == (1, 8)


def test_a_table_of_before_2024_ran_the_first_flash_attention(tmp_path: Path) -> None:
    """PyTorch has FlashAttention-2 since 2.2, of January 2024; without a date the newer is taken."""
    for ref, name in (
        ("(2023-07-05)", "generic-2023"),
        ("(2024-02-01)", "generic"),
        ("", "generic"),
    ):
        reading = read_run(run(tmp_path, framework="PyTorch Lightning", source_ref=ref))
        assert reading.scenario.pools[0].stack.name == name
