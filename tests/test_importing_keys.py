"""How tensors are kept, formats and kinds of layer in launch files: the keys that they become."""

import json
from pathlib import Path
from typing import Any

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.importing.cases import load_any
from ersatz.sim.importing.formats import import_file
from tests.test_importing import script, value

MOE = "--num-experts 16 --moe-router-topk 2 --moe-ffn-hidden-size 1024"
TRAINER = ("accelerate launch --num_processes 16 --num_machines 2 train.py --model_name_or_path"
           " meta-llama/Llama-2-7b-hf --per_device_train_batch_size 1 --bf16 --max_steps 10"
           " --max_seq_length 2048 --packing")  # fmt: skip
LORA = "--use_peft --lora_r 16"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--optimizer-cpu-offload", {"memory.optimizer_offload": 1.0}),
        ("--optimizer-cpu-offload --optimizer-offload-fraction 0.25", {"memory.optimizer_offload": 0.25}),
        ("--swap-optimizer", {"memory.optimizer_offload": 1.0, "memory.optimizer_update": "device"}),
        ("--reuse-fp32-param", {"memory.master_weights": "16-bit"}),
        # moments in fewer bytes count only with the optimiser that knows of them
        ("--exp-avg-dtype bf16 --exp-avg-sq-dtype bf16", {"memory.moments": None}),
        ("--use-precision-aware-optimizer --exp-avg-dtype bf16 --exp-avg-sq-dtype bf16",
         {"memory.moments": "bf16"}),
        ("--use-precision-aware-optimizer --exp-avg-dtype fp8 --exp-avg-sq-dtype bf16",
         {"memory.moments": None}),
        ("--use-precision-aware-optimizer --main-params-dtype fp16", {"memory.master_weights": "16-bit"}),
        ("--grad-reduce-in-bf16", {"memory.gradients": "bf16"}),
        ("--accumulate-allreduce-grads-in-fp32", {"memory.gradients": "fp32"}),
        # 6 of the 12 layers that a stage of two has
        ("--pipeline-model-parallel-size 2 --cpu-offloading --cpu-offloading-num-layers 6",
         {"memory.activation_offload": 0.5}),
        ("--loss-compute-mode chunk --loss-chunk-size 1024", {"memory.loss_chunks": 4}),
        ("--fp8-format hybrid --fp8-recipe mxfp8",
         {"training.precision": "fp8", "training.recipe": "mxfp8"}),
        ("--fp8-format hybrid", {"training.precision": "fp8", "training.recipe": None}),
        ("--fp4-format e2m1 --fp4-recipe nvfp4",
         {"training.precision": "fp4", "training.recipe": "nvfp4"}),
        (f"{MOE} --moe-router-force-load-balancing", {"training.expert_imbalance": 1.0}),
        (f"{MOE} --moe-expert-capacity-factor 1.5 --moe-pad-expert-input-to-capacity",
         {"training.expert_imbalance": 1.5}),
        (f"{MOE} --moe-expert-capacity-factor 1.5", {"training.expert_imbalance": None}),
        (f"{MOE} --moe-shared-expert-intermediate-size 1500", {"model.experts.shared_hidden": 1500}),
        (f"{MOE} --moe-latent-size 256", {"model.experts.latent": 256}),
        (f'{MOE} --ffn-hidden-size 4096 --moe-layer-freq "([0,1]*12)"',
         {"model.pattern": "DE", "model.blocks": {"D": {"ffn_hidden": 4096}, "E": {}}}),
        ("--pipeline-model-parallel-size 2 --schedules-method dualpipev",
         {"parallel.schedule": "dualpipev", "parallel.vp": 1}),
        ("--recompute-activation-function",
         {"parallel.recompute": "selective", "parallel.recompute_modules": ["activation"]}),
        ("--lora-r 8 --lora-target-modules linear_qkv linear_fc2", {"model.lora_targets": "q k v down"}),
        ("--lora-r 8 --qlora", {"memory.frozen_weights": "4-bit"}),
        ("--full-attention-interval 4 --linear-num-value-heads 32 --linear-num-key-heads 16"
         " --linear-key-head-dim 128 --linear-value-head-dim 128", {"model.pattern": "LLLF"}),
        ("--multi-latent-attention --enable-dsa-indexer --index-n-heads 64 --index-head-dim 128"
         " --index-topk 2048", {"model.indexer": {"heads": 64, "dim": 128, "top_k": 2048}}),
    ],
)  # fmt: skip
def test_what_flags_of_megatron_become(
    tmp_path: Path, flags: str, expected: dict[str, Any]
) -> None:
    found = import_file(script(tmp_path, flags))
    assert {key: value(found, key) for key in expected} == expected
    known = {row.flag for rows in (found.read, found.not_modelled, found.ignored) for row in rows}
    assert {word for word in flags.split() if word.startswith("--")} <= known


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--optim adamw_bnb_8bit", {"memory.moments": "8-bit"}),
        ("--optim paged_adamw_8bit", {"memory.moments": "8-bit"}),
        ("--optim adamw_torch", {"memory.moments": None}),
        ("--fsdp full_shard,auto_wrap,offload",
         {"parallel.zero": 3, "memory.weights_offload": 1.0, "memory.optimizer_offload": 1.0}),
        ("--activation_offloading true", {"memory.activation_offload": 1.0}),
        (f"{LORA} --lora_target_modules q_proj v_proj", {"model.lora_targets": "q v"}),
        (f"{LORA} --lora_target_modules all-linear", {"model.lora_targets": "q k v o gate up down"}),
        (f"{LORA} --load_in_4bit", {"memory.frozen_weights": "4-bit"}),
        ("--load_in_4bit", {"memory.frozen_weights": None}),  # nothing is frozen
        ("--use_liger_kernel true", {"memory.loss": "fused"}),
    ],
)  # fmt: skip
def test_what_arguments_of_trainers_become(
    tmp_path: Path, flags: str, expected: dict[str, Any]
) -> None:
    path = tmp_path / "train.sh"
    path.write_text(f"{TRAINER} {flags}\n")
    found = import_file(path)
    assert {key: value(found, key) for key in expected} == expected


def test_settings_of_deepspeed_say_what_the_host_has(tmp_path: Path) -> None:
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu", "ratio": 0.3},
            "offload_param": {"device": "cpu"}}  # fmt: skip
    settings = {"bf16": {"enabled": True}, "zero_optimization": zero,
                "activation_checkpointing": {"cpu_checkpointing": True}}  # fmt: skip
    (tmp_path / "ds.json").write_text(json.dumps(settings))
    path = tmp_path / "train.sh"
    path.write_text(f"{TRAINER} --deepspeed ds.json\n")
    found = import_file(path)
    assert found.scenario["memory"] == {
        "weights_offload": 1.0, "optimizer_offload": 0.3, "activation_offload": 1.0}  # fmt: skip
    zero["stage"] = 2
    (tmp_path / "ds.json").write_text(json.dumps(settings))
    found = import_file(path)
    assert "weights_offload" not in found.scenario["memory"]
    assert any("belongs to stage 3" in row.why for row in found.assumed)


@pytest.mark.parametrize("pattern", ["M-M-M*-M-M-M*-", "M*|M-/MM/MM"])
def test_a_hybrid_of_flags_runs(tmp_path: Path, pattern: str) -> None:
    """Its layers are as many as letters before the prediction modules, whatever --num-layers says."""
    letters = len(pattern.split("/")[0].replace("|", ""))
    path = script(tmp_path, f'--hybrid-override-pattern "{pattern}" --mamba-num-groups 8')
    found = import_file(path)
    assert value(found, "model.layers") == letters
    assert value(found, "model.blocks.M.recurrence") == {
        "kind": "mamba2", "heads": 64, "key_dim": 128, "value_dim": 64, "key_heads": 8,
        "chunk": 128}  # fmt: skip
    (case,) = load_any(path, ["cluster.node=h800-8"])
    assert sum(count for kind, count in case.model.runs if kind.recurrence) == pattern.split("/")[
        0
    ].count("M")


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    """Both formats at once; a variable that is empty is asked for; learning by reward is refused."""
    found = import_file(script(tmp_path, "--fp16"))
    assert "bf16 and fp16 are both given" in found.wrong
    found = import_file(
        script(tmp_path, "--tensor-model-parallel-size $TP", "#!/bin/bash\nTP=${TP:-}\n")
    )
    assert "parallel.tp" in [question.key for question in found.questions]
    path = tmp_path / "rl.sh"
    path.write_text("torchrun --nproc_per_node 8 train_grpo.py --num-layers 8 --hidden-size 64\n")
    with pytest.raises(InputError, match="the training step of the policy"):
        import_file(path)


def test_words_that_a_command_would_print_are_named(tmp_path: Path) -> None:
    """Flags may come out of it: it is said that none are taken, also after a flag's own value."""
    found = import_file(script(tmp_path, "--never-heard-of 3 $(more_flags)"))
    assert any(row.key == "flags" and "'more_flags' is not run" in row.why for row in found.assumed)
