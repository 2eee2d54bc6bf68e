"""Tables of measured runs: reading, filling of blanks, conversion of metrics, errors, and the fit."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ersatz.device_models.catalog.reading import load_node, load_stack
from ersatz.sim.errors import InputError
from ersatz.sim.step.step import step_seconds
from ersatz.sim.validation.errors.heldout import unbiased
from ersatz.sim.validation.errors.predict import predict_run
from ersatz.sim.validation.errors.summary import row_record, summarise
from ersatz.sim.validation.fit.parameters import (
    Parameter,
    fitted_parameters,
    shown,
    turned,
    write_leaf,
)
from ersatz.sim.validation.fit.samples import Sample
from ersatz.sim.validation.fit.search import Linear, fold_values, robust_cost
from ersatz.sim.validation.reading.machines import node_of, precision_of, stack_of, trimmed
from ersatz.sim.validation.reading.networks import shows_oddity
from ersatz.sim.validation.reading.rows import read_run, scenario_of
from ersatz.sim.validation.reading.rules import Filling, Refused
from ersatz.sim.validation.reading.table import Run, read_table

ROW = {
    "id": "r1", "source": "made", "device": "H100-SXM-80GB", "vendor": "nvidia", "n_devices": "16",
    "model_name": "Llama-2-7B", "layers": "32", "hidden": "4096", "ffn_hidden": "11008", "heads": "32",
    "kv_heads": "32", "vocab": "32000", "seq_len": "4096", "global_batch_seqs": "128",
    "micro_batch": "2", "tp": "2", "pp": "1", "precision": "bf16", "framework": "NeMo",
    "metric_name": "step_time_s", "metric_value": "3.0", "metric_unit": "s",
}  # fmt: skip


def table(tmp_path: Path, *rows: dict[str, str]) -> Path:
    """Write rows as CSV."""
    names = list(dict.fromkeys([*ROW, *(name for row in rows for name in row)]))
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([row.get(name, "") for name in names] for row in rows)
    return path


def run(tmp_path: Path, **changes: str) -> Run:
    return read_table(table(tmp_path, {**ROW, **changes})).runs[0]


def test_a_row_becomes_a_scenario(tmp_path: Path) -> None:
    scenario = scenario_of(run(tmp_path))
    p = scenario.parallel
    assert (p.tp, p.dp, p.zero, p.sequence_parallel) == (2, 8, 1, True)
    assert scenario.pools[0].node.name == "h100-8"
    assert scenario.pools[0].stack.name == "megatron-core"
    assert scenario.devices == 16


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 3.0),
        # 128 sequences of 4,096 tokens on 16 devices at 1,000 tokens/s each
        ({"metric_name": "tokens_per_s_per_device", "metric_value": "1000"}, 128 * 4096 / 16_000),
        ({"metric_name": "tokens_per_s", "metric_value": "16000"}, 128 * 4096 / 16_000),
        ({"metric_name": "samples_per_s", "metric_value": "64"}, 2.0),
        (
            {
                "metric_name": "finetune_throughput",
                "metric_value": "4",
                "metric_unit": "samples/s/p",
            },
            2.0,
        ),
        ({"metric_name": "fun", "metric_value": "4"}, None),
    ],
)
def test_metrics_mean_step_times(
    tmp_path: Path, changes: dict[str, str], expected: float | None
) -> None:
    row = run(tmp_path, **changes)
    found = read_run(row).measured_s
    assert found == (pytest.approx(expected) if expected else None)


def test_tflops_and_mfu_say_the_same(tmp_path: Path) -> None:
    # 494.7 TFLOP/s per device is half of the 989.4 TFLOP/s peak
    first = run(tmp_path, metric_name="model_tflops_per_device", metric_value="494.7")
    second = run(tmp_path, metric_name="mfu_percent", metric_value="50")
    seconds = read_run(first).measured_s
    assert seconds == pytest.approx(read_run(second).measured_s)


def test_blanks_are_filled_and_stated(tmp_path: Path) -> None:
    scenario = scenario_of(run(tmp_path, kv_heads="", vocab="", micro_batch="", pp=""))
    stated = " ".join(scenario.assumptions)
    assert all(key in stated for key in ("kv_heads", "vocab", "micro_batch", "pp"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "TPU-v5p"}, "device 'TPU-v5p' is not modelled"),
        ({"device": "hanguang-800"}, "cannot train"),
        ({"layers": ""}, "no shape"),
        ({"tp": "3"}, "does not divide 16 devices"),
        ({"seq_len": ""}, "sequence length is blank"),
        ({"metric_name": "fun"}, "says nothing of a step's time"),
        ({"precision": "fp8", "device": "A100-SXM-80GB"}, "has no fp8 matrix units"),
    ],
)
def test_refusals_have_reasons(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    prediction = predict_run(run(tmp_path, **changes))
    assert reason in prediction.reason
    assert row_record(prediction)["status"] == "refused"


def test_bad_cells_are_named_and_good_rows_kept(tmp_path: Path) -> None:
    found = read_table(table(tmp_path, ROW, {**ROW, "tp": "two"}, {**ROW, "n_devices": "-4"}))
    assert len(found.runs) == 1
    column = list(ROW).index("tp") + 1
    assert str(found.problems[0]).endswith(
        f"runs.csv:3:{column}: tp: 'two' - expected a whole number above 0, or a blank cell"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "is empty"), ("device,layers\nx,1\n", "n_devices: column is missing"), ("\x00", "binary"),
     ("device,device\n", "column stands twice")],
)  # fmt: skip
def test_files_that_are_no_table(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        read_table(path)


def test_errors_are_of_step_time_and_weigh_sources_equally(tmp_path: Path) -> None:
    predicted = step_seconds(scenario_of(run(tmp_path)))
    rows = [{**ROW, "id": str(i), "source": s, "metric_value": repr(predicted / f)}
            for i, (s, f) in enumerate([("a", 1.1), ("a", 1.1), ("a", 1.1), ("b", 1.3)])]  # fmt: skip
    predictions = [predict_run(r) for r in read_table(table(tmp_path, *rows)).runs]
    summary = summarise(predictions)
    assert summary["all"].median == pytest.approx(0.1)
    assert summary["groups"]["source"]["b"].median == pytest.approx(0.3)
    assert summary["sources_weighted_equally"]["p90"] == pytest.approx(0.3)
    assert row_record(predictions[3])["predicted_in_metric_unit"] == pytest.approx(predicted)


def test_part_of_a_rack_is_a_smaller_node() -> None:
    rack = load_node("gb200-nvl72")
    part = trimmed(rack, 128)
    assert (part.devices, part.scale_up.domain) == (64, 64)
    assert trimmed(rack, 144) is rack


def test_frameworks_and_devices_by_name(tmp_path: Path) -> None:
    for framework, stack in (("nanotron v0.5", "nanotron"), ("Composer/FSDP", "llm-foundry"),
                             ("PyTorch FSDP + compile", "fsdp"),
                             ("Megatron-LM", "megatron-2021"), ("HAI-LLM DualPipe", "deepseek"),
                             ("ModelLink/MindSpeed-LLM", "mindspeed")):  # fmt: skip
        assert stack_of(Filling(run(tmp_path, framework=framework))).name == stack
    for device, node in (("Ascend 910B (Atlas 800T A2)", "ascend-910b3-8"), ("A100-PCIe", "a100-pcie-80-8"),
                         ("huawei_910c_die", "ascend-910c-die-16"), ("GH200", "gh200-1"),
                         ("A100-SXM-80GB (paper: NVIDIA Ampere)", "a100-80-8"),
                         ("MI350X", "mi350x-8")):  # fmt: skip
        assert node_of(Filling(run(tmp_path, device=device))).name == node
    with pytest.raises(Refused):
        node_of(Filling(run(tmp_path, device="abacus")))


@pytest.mark.parametrize(
    ("layout", "slow"),
    [
        ({"pp": "2", "n_devices": "512"}, True),
        ({"pp": "1", "n_devices": "512"}, False),
        ({"pp": "2", "tp": "32", "n_devices": "128"}, True),
        ({"pp": "2", "n_devices": "256", "micro_batch": "2"}, True),
        ({"pp": "2", "n_devices": "256", "micro_batch": "1"}, False),
    ],
)
def test_a_cluster_s_fault_is_modelled_on_request_in_the_layouts_that_showed_it(
    tmp_path: Path, layout: dict[str, str], slow: bool
) -> None:
    row = run(tmp_path, framework="nanotron", global_batch_seqs="1024", **layout)
    for oddities in (False, True):
        network = scenario_of(row, oddities=oddities).pools[0].node.scale_out.name
        assert network == ("efa-p5-slow" if slow and oddities else "efa-p5")
    assert shows_oddity(row) == slow


def test_a_network_is_named_by_whole_words(tmp_path: Path) -> None:
    """ "DEFAULT" holds the letters of EFA, and names no network."""
    for words, network in (("NeMo on EFA", "efa-p5"), ("mode DEFAULT", "ib-ndr400-rail")):
        scenario = scenario_of(run(tmp_path, framework=words))
        assert scenario.pools[0].node.scale_out.name == network


@pytest.mark.parametrize(
    ("name", "gated", "fused"),
    [("GPT OSS 120B", True, False), ("gpt_oss-20b", True, False), ("GPT3-175B", False, True),
     ("MPT-7b", False, True), ("Nemotron_3_Nano", True, True), ("Llama-3.1-8B", True, True)],
)  # fmt: skip
def test_what_no_column_states_is_known_by_the_model(
    tmp_path: Path, name: str, gated: bool, fused: bool
) -> None:
    model = scenario_of(run(tmp_path, model_name=name)).model
    assert (model.gated, model.fused_activation) == (gated, fused)


@pytest.mark.parametrize(
    ("name", "hidden", "query", "dense", "predicts", "limit"),
    [("DeepSeek-V3", 7168, 1536, 3, 1, 4), ("DeepSeek-V2", 5120, 1536, 1, 0, 0),
     ("DeepSeek-V2-Lite", 2048, 0, 1, 0, 0), ("Kimi_K2", 7168, 1536, 1, 0, 0)],
)  # fmt: skip
def test_latent_attention_and_layers_without_experts_are_known_by_the_model(
    tmp_path: Path, name: str, hidden: int, query: int, dense: int, predicts: int, limit: int
) -> None:
    """The sizes of the published configurations."""
    cells = {"model_name": name, "hidden": str(hidden), "heads": "16", "attention_kind": "mla",
             "n_experts": "64", "top_k": "6", "moe_ffn_hidden": "1408", "layers": "32"}  # fmt: skip
    model = scenario_of(run(tmp_path, **cells)).model
    assert model.latent
    assert model.experts
    assert (model.latent.q_rank, model.experts.dense_layers) == (query, dense)
    assert (model.predict_layers, model.experts.groups_limit) == (predicts, limit)


def test_a_blank_number_format_is_what_the_source_is_known_for(tmp_path: Path) -> None:
    """FP4 only where the device has it; a device without FP8 is refused, not read as 16 bits."""
    row = run(tmp_path, source="MLPerf Training v5.1 logs", model_name="Llama 3.1 8B", precision="")
    formats = [precision_of(Filling(row), load_node(n)) for n in ("b200-8", "h100-8")]
    assert formats == ["fp4", "fp8"]
    with pytest.raises(Refused):
        precision_of(Filling(row), load_node("a100-80-8"))
    fill = Filling(run(tmp_path, precision=""))
    assert precision_of(fill, load_node("h100-8")) == "bf16"
    assert fill.open == {"precision": ("fp8",)}  # two readings: both ends are predicted


def test_fitted_parameters_are_few_and_bounded() -> None:
    for p in fitted_parameters():
        assert p.low <= p.prior <= p.high
        for stack in p.owners if p.kind == "stack" else ():
            assert load_stack(stack)
    assert len(fitted_parameters()) <= 1900 // 30  # one per 30 rows of the table


def parameter(name: str, low: float = 1e-9, high: float = 1e9, prior: float = 1.0) -> Parameter:
    """Return a parameter with loose bounds."""
    return Parameter(name, low, high, prior)


def test_a_parameter_turns_its_own_value_only(tmp_path: Path) -> None:
    scenario = scenario_of(run(tmp_path))
    ceiling = parameter("device/h100|h200/matrix_ceiling/bf16|fp16")
    mine, other = parameter("stack/megatron-core/launch_s"), parameter("stack/fsdp/launch_s")
    changed = turned(scenario, {mine: 1.0, other: 2.0, ceiling: 0.5})
    assert changed.pools[0].stack.launch_s == 1.0
    old, new = scenario.pools[0].node.device, changed.pools[0].node.device
    assert new.matrix_ceiling["bf16"] == 0.5
    assert new.matrix_ceiling["fp8"] == old.matrix_ceiling["fp8"]
    assert mine.concerns(scenario)
    assert not other.concerns(scenario)


def test_fitted_values_are_written_with_their_source() -> None:
    text = (
        "\na:\n  bf16: {value: 0.5, source: X, date: 2026-01, confidence: assumed}\n"
        'launch_s: {value: "1 us", source: X, date: 2026-01, confidence: high}\n'
    )
    dtype = write_leaf(text, "a", "bf16", 0.7, "n")
    assert (
        'bf16: {value: 0.7, source: REFIT, date: 2026-01, confidence: medium, note: "n"}' in dtype
    )
    time = write_leaf(text, "", "launch_s", 25e-6, "n")
    assert 'launch_s: {value: "25 us", source: REFIT, date: 2026-01' in time
    assert shown(0.0416, "x_s") == '"41.6 ms"'


def test_the_linear_fit_finds_the_parameters_that_made_the_errors(tmp_path: Path) -> None:
    """Errors made from known logarithms are explained by them, one gross outlier or not."""
    row = run(tmp_path)
    made = [Sample((row,), scenario_of(row), 1.0) for _ in range(41)]
    rng = np.random.default_rng(0)
    slopes, truth = rng.uniform(0, 1, (41, 2)), np.array([0.2, -0.3])
    errors = -slopes @ truth
    errors[0] = 2.0
    parameters = [parameter("stack/a/x", 0.1, 10), parameter("stack/b/x", 0.1, 10)]
    linear = Linear(made, parameters, np.zeros(2), errors, slopes)
    found = linear.solve(np.ones(41, dtype=bool))
    assert found == pytest.approx(truth, abs=0.02)
    assert robust_cost(errors + slopes @ found) < robust_cost(errors)


def test_a_fold_does_not_see_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is measured for the rows left out, the fold is the same; chords reach a bent truth."""
    row = run(tmp_path)
    made = [Sample((row,), scenario_of(row), float(i + 1)) for i in range(40)]
    rng = np.random.default_rng(0)
    slopes, truth = rng.uniform(0.2, 1, (40, 2)), np.array([0.2, -0.3])
    parameters = [parameter("stack/a/x", 0.1, 10), parameter("stack/b/x", 0.1, 10)]

    def engine(values: dict[Parameter, float], sample: Sample) -> float:
        moved = slopes[round(sample.measured_s) - 1] @ (np.log(list(values.values())) - truth)
        return float(moved + 0.3 * moved**2)

    monkeypatch.setattr("ersatz.sim.validation.fit.search._error", engine)
    ones = dict.fromkeys(parameters, 1.0)
    errors = np.array([engine(ones, sample) for sample in made])
    keep = np.arange(40) >= 10
    found = fold_values(Linear(made, parameters, np.zeros(2), errors, slopes), keep)
    errors[:10] += 1.0
    other = fold_values(Linear(made, parameters, np.zeros(2), errors, slopes), keep)
    assert found == other
    assert np.log(list(found.values())) == pytest.approx(truth, abs=0.05)


def test_what_is_left_without_a_lineage_s_own_bias() -> None:
    """One lineage 10, 20 and 30 % long: 20 are its bias, and 10 / 1.2 of a step are left at its ends; of
    one that is half as long throughout nothing is, so that lineages weighing the same the half is right."""

    ratios = [("a", 1.1), ("a", 1.2), ("a", 1.3), ("b", 0.5), ("b", 0.5)]
    judged: Any = [SimpleNamespace(lineage=lineage, lineage_error=math.log(ratio))
                   for lineage, ratio in ratios]  # fmt: skip
    median, p90 = unbiased(judged, lambda j: j.lineage)
    assert median == 0.0
    assert math.isclose(p90, 0.1 / 1.2)
