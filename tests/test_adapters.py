"""LoRA: weights, work and memory of adapters by the modules that have them, worked out by hand."""

from dataclasses import replace

import pytest

from ersatz.device_models.text.problems import InputError
from ersatz.sim.plan.memory import plan_memory
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
