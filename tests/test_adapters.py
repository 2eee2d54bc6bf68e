"""LoRA: weights, work and memory of adapters by the modules that have them, worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ersatz.device_models.text.problems import InputError
from ersatz.sim.importing.formats import import_file
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import step_seconds
from ersatz.sim.workload.adapters import adapter_params, adapter_work
from ersatz.sim.workload.model import Experts
from ersatz.sim.workload.model_file import load_model
from ersatz.sim.workload.ops import kind_work
from ersatz.sim.workload.pieces import Shard
from tests.factories import make_model, make_scenario, make_stack

SIZES = {"layers": 2, "hidden": 1000, "heads": 10, "vocab": 10000, "lora_rank": 8}


def test_weights_by_module() -> None:
    """Rank 8 beside q of (1000, 1000) and down of (1000, 4000): 8 x (2000 + 5000) in each of 8 layers."""
    model = make_model(lora_rank=8, lora_targets="q, down")
    assert adapter_params(model) == 8 * 8 * 7000
    assert adapter_params(replace(model, lora_rank=0)) == 0
    assert adapter_params(replace(model, lora_targets="")) == 8 * 8 * 23_000


def test_every_expert_has_its_own() -> None:
    """Four experts of 500 and one that all visit: five gates, five ups and five downs of (1000, 500)."""
    experts = Experts(4, 2, 500, shared=1)
    model = make_model(lora_rank=8, lora_targets="gate up down", experts=experts, ffn_hidden=0)
    assert adapter_params(model) == 8 * 8 * 15 * 1500


def test_work_is_six_small_products() -> None:
    """2 x 1000 tokens x 8 x 2000 forward, as much again for inputs and for weights; frozen ones have none."""
    model = make_model(lora_rank=8, lora_targets="q")
    shard = Shard(model, make_stack(), 1000, 1000, "bf16", 1, 1, 1, 1, sequence_parallel=False)
    work = adapter_work(shard)
    products = [
        [getattr(piece, "flop", 0.0) for piece in pieces]
        for pieces in (work.forward, work.input_grad, work.weight_grad)
    ]
    assert [sum(flops) for flops in products] == [2.0 * shard.tokens * 8 * 2000] * 3
    assert [piece.name for piece in kind_work(shard).weight_grad] == [  # type: ignore[union-attr]
        "adapter up wgrad", "adapter down wgrad"]  # fmt: skip


def test_what_no_adapter_reads_is_not_kept() -> None:
    """With adapters beside q alone the MLP keeps its first results, not its input nor its activation."""

    def kept(targets: str) -> float:
        scenario = make_scenario(model=make_model(lora_rank=8, lora_targets=targets))
        return plan_memory(scenario, advise=False).parts["activations"]

    less = 2 * 1000 * (1000 + 4000)  # bytes a layer
    assert kept("") - kept("q") == pytest.approx(8 * less)


def test_more_modules_take_longer() -> None:
    def seconds(targets: str) -> float:
        return step_seconds(make_scenario(model=make_model(lora_rank=8, lora_targets=targets)))

    assert seconds("") < seconds("q") < seconds("q k v o") < seconds("q k v o gate up down")


def test_unknown_modules_are_refused() -> None:
    with pytest.raises(InputError, match=r"lora_targets.*'q proj'.*expected words among q, k, v"):
        load_model({**SIZES, "lora_targets": "q proj"})
    assert load_model({**SIZES, "lora_targets": "q, v"}).lora_targets == "q, v"


def _scenario(tmp_path: Path, stack: str, model: object) -> Scenario:
    data = {"question": "q", "model": model, "stack": stack, "cluster": {"node": "h100-8", "nodes": 1},
            "training": {"sequence_length": 4096, "global_batch": 8}, "parallel": {"dp": 8}}  # fmt: skip
    path = tmp_path / "lora.yaml"
    path.write_text(json.dumps(data))
    (case,) = load_cases(path)
    return case


@pytest.mark.parametrize(("stack", "targets"), [
    ("megatron-core", "q k v o gate up down"), ("mindspeed", "q k v o gate up down"),
    ("primus-deepep", "q k v o gate up down"), ("automodel", "q k v o gate up down"),
    ("fsdp", "q v"), ("deepspeed", "q v"), ("torch-eager", "q v"),
])  # fmt: skip
def test_modules_that_nobody_names_are_the_frameworks_and_take_time(
    tmp_path: Path, stack: str, targets: str
) -> None:
    silent = _scenario(tmp_path, stack, SIZES)
    named = _scenario(tmp_path, stack, {**SIZES, "lora_targets": targets})
    assert silent.model.lora_targets == targets
    assert any("lora_targets is not given" in words for words in silent.assumptions)
    assert not any("lora_targets" in words for words in named.assumptions)
    assert step_seconds(silent) == step_seconds(named)
    untimed = replace(silent, model=replace(silent.model, lora_targets=""))
    assert step_seconds(silent) > step_seconds(untimed)


@pytest.mark.parametrize(("text", "targets", "assumed"), [
    ("target_modules: '*_proj'", "q k v o gate up down", False),
    ("target_modules: [q_proj, v_proj]", "q v", False),
    ("match_all_linear: true", "q k v o gate up down", False),
    ("alpha: 16", "q k v o gate up down", True),
    ("target_modules: ['*.layers.*.self_attn.q_proj', '*k_proj']", "q k", False),
])  # fmt: skip
def test_automodels_names_may_have_stars(
    tmp_path: Path, text: str, targets: str, assumed: bool
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "step_scheduler: {global_batch_size: 8, local_batch_size: 1, max_steps: 5}\n"
        "distributed: {strategy: fsdp2, tp_size: 1}\n"
        "model: {pretrained_model_name_or_path: meta-llama/Meta-Llama-3-8B}\n"
        f"dataset: {{seq_len: 4096}}\npeft:\n  dim: 8\n  {text}\n"
    )
    found = import_file(path)
    assert found.scenario["model"]["lora_targets"] == targets
    assert any(a.key == "model.lora_targets" for a in found.assumed) == assumed


def test_trainers_take_the_defaults_of_their_library(tmp_path: Path) -> None:
    for text, targets in (
        ("python sft.py --model_name_or_path meta-llama/Meta-Llama-3-8B --use_peft --lora_r 16"
         " --per_device_train_batch_size 1 --max_seq_length 2048 --bf16 --max_steps 10", "q v"),
        ("torchrun --nproc_per_node 8 posttrain_gpt.py --num-layers 4 --hidden-size 512 --seq-length 4096"
         " --num-attention-heads 8 --vocab-size 32000 --micro-batch-size 1 --bf16 --lora-r 8"
         " --max-position-embeddings 4096", "q k v o gate up down"),
    ):  # fmt: skip
        path = tmp_path / "run.sh"
        path.write_text(f"#!/bin/bash\n{text}\n")
        found = import_file(path)
        assert found.scenario["model"]["lora_targets"] == targets
        assert any(a.key == "model.lora_targets" for a in found.assumed)
