"""What a step's ranks send and compute: laws that hold for any layout, and how it is told."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ersatz.sim.cli.app import app
from ersatz.sim.records import CollectiveRow, FlopRow, columns
from ersatz.sim.report.operations import stage_text
from ersatz.sim.scenario.scenario import Parallel, Scenario
from ersatz.sim.step.build import build_program
from ersatz.sim.step.operations import step_operations
from ersatz.sim.step.program import Program
from ersatz.sim.step.step import simulate_step
from ersatz.sim.workload.model import Experts, LatentAttention, Model
from tests.ops_tables import layout_scenario
from tests.ops_tables_dense import gpt, llama

LATENT = LatentAttention(q_rank=256, kv_rank=128, rope_dim=32, nope_dim=64, v_dim=64)
EXPERTS = Experts(routed=8, top_k=2, hidden=512, shared=1, dense_layers=2)
MODELS: dict[str, Model] = {
    "llama": llama(8, 8000),
    "gpt": gpt(8, 8000),
    "one head of keys": llama(8, 8000, kv_heads=1),
    "window": llama(8, 8000, window=256),
    "experts": llama(8, 8000, experts=EXPERTS),
    "latent": llama(8, 8000, latent=LATENT, experts=EXPERTS),
    "latent, queries direct": llama(8, 8000, latent=replace(LATENT, q_rank=0)),
    "prediction": llama(8, 8000, experts=EXPERTS, predict_layers=1),
    "lora": llama(8, 8000, lora_rank=8),
}
STACKS = ("megatron-core", "megatron-2021", "fsdp", "deepseek", "mindspeed")


@st.composite
def plans(draw: Any) -> tuple[str, str, Parallel]:
    """Any model under any stack in a layout of at most 128 ranks that Megatron would accept."""
    degree = st.sampled_from([1, 2, 4])
    tp, pp, dp = draw(degree), draw(degree), draw(degree)
    name = draw(st.sampled_from(sorted(MODELS)))
    model = MODELS[name]
    cp = 1 if model.latent else draw(st.sampled_from([1, 2]))
    ep = draw(st.sampled_from([1, 2])) if model.experts and tp * cp * dp > 1 else 1
    schedule = draw(st.sampled_from(["1f1b", "interleaved", "zb-h1"])) if pp > 1 else "1f1b"
    parallel = Parallel(
        tp=tp, pp=pp, dp=dp, cp=cp, ep=ep, vp=2 if schedule == "interleaved" else 1,
        schedule=schedule, zero=draw(st.sampled_from([0, 1, 2, 3] if pp == 1 else [0, 1])),
        sequence_parallel=bool(model.experts) or draw(st.booleans()),
        recompute=draw(st.sampled_from(["none", "selective", "full"])),
    )  # fmt: skip
    return name, draw(st.sampled_from(STACKS)), parallel


def scenario_of(plan: tuple[str, str, Parallel]) -> Scenario:
    """Four micro-batches of 1,024 tokens for each replica."""
    name, stack, parallel = plan
    nodes = max(parallel.world // 8, 1)
    return layout_scenario(MODELS[name], stack, "h100-8", nodes, parallel, sequence=1024,
                           batch=4 * parallel.dp)  # fmt: skip


def model_flop(scenario: Scenario) -> float:
    """Six per weight that multiplies and token, attention three times its causal forward pass.

    A prediction module is a layer, a projection of 2 H x H and the head once more. LoRA leaves the
    weights' gradients out: four per weight.
    """
    model, training = scenario.model, scenario.training
    moe = model.experts is not None
    head = model.hidden * model.vocab
    norms = 2 * model.hidden
    weights = model.body_params(active=True) - model.layers * norms + head
    weights += model.predict_layers * (model.layer_params(moe=moe, active=True) - norms)
    weights += model.predict_layers * (2 * model.hidden**2 + head)
    attention = model.attention_flop_per_token(training.sequence_length, causal=True)
    attention *= 1 + model.predict_layers / model.layers
    each = (4 if model.lora_rank else 6) * weights + 3 * attention
    return each * training.global_batch * training.sequence_length


@settings(deadline=None, max_examples=120, derandomize=True)
@given(plans())
def test_executed_flops_are_the_models_and_what_is_stated_beyond(
    plan: tuple[str, str, Parallel],
) -> None:
    scenario = scenario_of(plan)
    found = step_operations(scenario)
    _, executed = build_program(scenario)
    assert found.model_flop == pytest.approx(model_flop(scenario), rel=1e-9)
    assert found.executed_flop == pytest.approx(executed, rel=1e-9)
    parts = found.model_flop + found.recomputed_flop + found.padding_flop
    assert found.executed_flop == pytest.approx(parts, rel=1e-12)
    assert all(min(r.model_flop, r.recomputed_flop, r.padding_flop) >= -1.0 for r in found.flops)
    forward, again = (
        sum(r.flop * r.ranks for r in found.flops if r.phase == phase and r.kind != "head")
        for phase in ("forward", "recompute")
    )
    mode = scenario.parallel.recompute
    early = scenario.pools[0].stack.recompute_stops_early  # before a layer's last product
    if mode == "full" and not scenario.model.predict_layers:  # of which no module is repeated
        assert (
            0.5 * forward < again < forward if early else again == pytest.approx(forward, rel=1e-12)
        )
    else:
        assert again <= (forward if mode != "none" else 0.0)


@settings(deadline=None, max_examples=120, derandomize=True)
@given(plans())
def test_groups_of_one_send_nothing(plan: tuple[str, str, Parallel]) -> None:
    for row in step_operations(scenario_of(plan)).collectives:
        assert 1 <= row.inside <= row.size
        assert min(row.size - 1, row.nbytes, row.count) > 0, row


@settings(deadline=None, max_examples=40, derandomize=True)
@given(plans())
def test_every_collective_is_counted(plan: tuple[str, str, Parallel]) -> None:
    """Walked slot by slot, each op that uses a link or meets others is one that the table counts."""
    scenario = scenario_of(plan)
    program, _ = build_program(scenario)
    found = step_operations(scenario)
    per_stage = program.ranks // program.stages
    counted = sum(row.count * row.ranks // per_stage for row in found.collectives)
    assert counted == sum(_collectives(program))


def _collectives(program: Program) -> list[int]:
    blocks = [program.blocks[v.stage, v.block] for v in program.schedule.walk]
    return [sum(1 for op in block.ops if op.sync or op.uses or op.to or not op.scales)
            for block in (*blocks, *program.tails)]  # fmt: skip


def test_the_table_and_the_step_agree_on_the_flops() -> None:
    plan = "experts", "megatron-core", Parallel(tp=2, ep=4, dp=4, recompute="full")
    scenario = scenario_of(plan)
    step = simulate_step(scenario)
    executed = step.hfu * step.peak_flop_per_s * step.duration_s
    assert step_operations(scenario).executed_flop == pytest.approx(executed, rel=1e-12)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["run", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("name", ["deepseek-v3-h800", "llama3-405b-h100", "mixed-h800-910b"])
def test_the_report_fits_and_answers_first(name: str) -> None:
    lines = run(name, "--ops").splitlines()
    assert max(map(len, lines)) <= 100
    assert any("all ranks execute" in line for line in lines[:5])
    assert any(line.startswith("backward") for line in lines)


def test_json_and_files_hold_the_records(tmp_path: Path) -> None:
    found = json.loads(run("llama3-405b-h100", "--ops", "--json", "-", "--out", str(tmp_path)))
    rows = found["operations"]["collectives"]
    assert list(rows[0]) == [name for name, _, _ in columns(CollectiveRow)]
    flops = found["operations"]["flops"]
    assert list(flops[0]) == [name for name, _, _ in columns(FlopRow)]
    written = list(csv.DictReader((tmp_path / "collectives.csv").open()))
    assert [(r["kind"], float(r["nbytes"])) for r in written] == [
        (r["kind"], r["nbytes"]) for r in rows
    ]
    total = sum(r["flop"] * r["ranks"] for r in flops)
    assert found["operations"]["executed_flop"] == pytest.approx(total)
    assert "all ranks execute" in (tmp_path / "report.txt").read_text()
    assert (tmp_path / "flops.csv").exists()


def test_without_the_option_nothing_is_counted() -> None:
    assert json.loads(run("llama3-405b-h100", "--json", "-"))["operations"] is None


def test_stages_are_written_as_ranges() -> None:
    assert stage_text([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
