"""Kinds of launch files that strangers bring: each key is read, priced in words, or refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.importing.formats import import_file
from ersatz.sim.importing.record import Imported

PRIMUS = """
work_group: a
modules:
  {module}:
    framework: {framework}
    config: x.yaml
    model: {model}
    overrides:
      train_iters: 10
      seq_length: 4096
      micro_batch_size: 1
      global_batch_size: 64
      tensor_model_parallel_size: 2
{more}
"""
LF = """
model_name_or_path: meta-llama/Meta-Llama-3-8B
stage: sft
cutoff_len: 4096
packing: true
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
max_steps: 100
"""
AUTOMODEL = """
step_scheduler: {global_batch_size: 64, local_batch_size: 1, max_steps: 10}
distributed: {strategy: fsdp2, tp_size: 1, ep_size: 8}
model: {pretrained_model_name_or_path: someone/Unheard-Of-30B-A3B}
dataset: {seq_len: 4096}
"""
SIZES = ("--num-layers 4 --hidden-size 4096 --num-attention-heads 32 --vocab-size 32000 --swiglu"
         " --seq-length 4096 --max-position-embeddings 4096 --micro-batch-size 1 --global-batch-size 64"
         " --train-iters 10 --bf16 --use-mcore-models")  # fmt: skip


def found(tmp_path: Path, name: str, text: str, *more: str) -> Imported:
    """What is found of a file."""
    path = tmp_path / name
    path.write_text(text)
    return import_file(path, more)


def unknown(result: Imported) -> list[str]:
    """Flags that are named, but not understood."""
    return [one.flag for one in result.not_modelled if one.effect == "unknown"]


def primus(tmp_path: Path, model: str, *rows: str, framework: str = "megatron") -> Imported:
    """An experiment of Primus with rows more."""
    more = "\n".join(f"      {row}" for row in rows)
    text = PRIMUS.format(module="post_trainer", framework=framework, model=model, more=more)
    return found(tmp_path, "primus.yaml", text)


@pytest.mark.parametrize("rows", [
    ("peft: lora", "peft_dim: 16", "peft_alpha: 32"),
    ("lora:", "  enabled: true", "  dim: 16", "  alpha: 32", "  dropout: 0.0", "  dropout_position: pre"),
])  # fmt: skip
def test_adapters_of_primus_are_adapters(tmp_path: Path, rows: tuple[str, ...]) -> None:
    result = primus(tmp_path, "llama3.1_8B.yaml", *rows)
    assert result.scenario["model"]["lora_rank"] == 16
    assert result.scenario["model"]["lora_targets"] == "q k v o gate up down"
    assert not unknown(result)


def test_adapters_of_primus_that_are_off_are_off(tmp_path: Path) -> None:
    result = primus(tmp_path, "llama3.1_8B.yaml", "lora: {enabled: false, dim: 16}")
    assert "lora_rank" not in result.scenario["model"]


def test_degrees_of_a_model_that_is_asked_for_are_not_lost(tmp_path: Path) -> None:
    """An unknown model is asked for; what its answer will need is kept."""
    result = primus(tmp_path, "unheard_of_moe.yaml", "expert_model_parallel_size: 8",
                    "decoder_last_pipeline_num_layers: 3", "recompute_layer_ids: [0, 3]")  # fmt: skip
    assert [q.key for q in result.questions][:1] == ["model"]
    assert result.scenario["parallel"]["ep"] == 8
    told = {one.flag: one.effect for one in result.not_modelled}
    assert "chunk_layers" in told["decoder_last_pipeline_num_layers"]
    assert "computed again" in told["recompute_layer_ids"]
    recipe = found(tmp_path, "recipe.yaml", AUTOMODEL)
    assert recipe.scenario["parallel"]["ep"] == 8
    titan = ("[model]\nname = 'unheard'\nflavor = '30B'\n[training]\nlocal_batch_size = 1\nseq_len = 4096\n"
             "steps = 10\nglobal_batch_size = 64\n[parallelism]\nexpert_parallel_degree = 8\n")  # fmt: skip
    assert found(tmp_path, "job.toml", titan).scenario["parallel"]["ep"] == 8


@pytest.mark.parametrize(("name", "text", "words"), [
    ("p.yaml", PRIMUS.format(module="pre_trainer", framework="megatron", model="flux_12b.yaml",
                             more="      vae_scale: 0.3"), "diffusion model"),
    ("l.yaml", LF + "finetuning_type: oft\n", "expected full or lora"),
    ("l.yaml", LF + "finetuning_type: freeze\n", "expected full or lora"),
    ("l.yaml", LF + "finetuning_type: lora\nuse_kt: true\n", "KTransformers"),
    ("l.yaml", LF + "finetuning_type: full\nmixture_of_depths: convert\n", "mixture of depths"),
    ("l.yaml", LF + "infer_backend: vllm\n", "trains nothing"),
    ("l.yaml", LF + "export_dir: out\n", "trains nothing"),
    ("a.yaml", AUTOMODEL + "flow_matching: {adapter_type: flux}\n", "diffusion model"),
    ("a.yaml", AUTOMODEL + "dllm: {mode: llada}\n", "both ways"),
    ("a.yaml", AUTOMODEL + "teacher_model: {pretrained_model_name_or_path: x}\n", "teacher"),
    ("a.yaml", AUTOMODEL + "recipe: TrainEagle3Recipe\n", "a draft model"),
    ("a.yaml", AUTOMODEL + "recipe: TrainBiEncoderRecipe\n", "an encoder"),
    ("e.sh", f"torchrun --nproc_per_node 8 evaluation.py {SIZES} --max-new-tokens 2\n", "trains nothing"),
    ("g.sh", f"torchrun --nproc_per_node 8 inference.py {SIZES} --max-new-tokens 2\n", "trains nothing"),
])  # fmt: skip
def test_what_is_no_such_training_is_refused_by_name(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        found(tmp_path, name, text)


def test_llamafactory_with_megatron_has_megatrons_layout(tmp_path: Path) -> None:
    result = found(tmp_path, "l.yaml", LF + "finetuning_type: full\nbf16: true\n"
                   "use_distributed_optimizer: true\n"
                   "tensor_model_parallel_size: 2\nsequence_parallel: true\npipeline_model_parallel_size: 2\n"
                   "recompute_granularity: full\nbias_activation_fusion: true\n",
                   "cluster.node=h100-8", "cluster.nodes=1")  # fmt: skip
    parallel: dict[str, Any] = result.scenario["parallel"]
    assert [parallel[key] for key in ("tp", "pp", "zero", "sequence_parallel", "recompute")] == [
        2,
        2,
        1,
        True,
        "full",
    ]
    assert result.scenario["stack"] == "megatron-core"
    assert not unknown(result)


def test_llamafactory_in_8_bits(tmp_path: Path) -> None:
    result = found(
        tmp_path,
        "l.yaml",
        LF + "finetuning_type: full\nbf16: true\nfp8: true\nfp8_backend: torchao\n",
    )
    assert result.scenario["training"]["precision"] == "fp8"
    assert not unknown(result)


def test_a_width_up_to_a_multiple(tmp_path: Path) -> None:
    # 8/3 x 4,096 = 10,922; times 1.3 = 14,198, up to a multiple of 4,096: 16,384. Without it 12,288.
    script = f"torchrun --nproc_per_node 8 pretrain_gpt.py {SIZES} --multiple-of 4096"
    assert found(tmp_path, "f.sh", script).scenario["model"]["ffn_hidden"] == 12288
    wider = found(tmp_path, "f.sh", f"{script} --hidden-dim-multiplier 1.3")
    assert wider.scenario["model"]["ffn_hidden"] == 16384
    given = found(tmp_path, "f.sh", f"{script} --ffn-hidden-size 9000")
    assert given.scenario["model"]["ffn_hidden"] == 9000
    with pytest.raises(InputError, match="above 0"):
        found(tmp_path, "f.sh", f"{script} --hidden-dim-multiplier none-of-that")


def test_an_mlp_without_a_gate(tmp_path: Path) -> None:
    script = (
        f"torchrun --nproc_per_node 8 pretrain_gpt.py {SIZES} --noop-layers 1 --fc-type up_down"
    )
    assert found(tmp_path, "m.sh", script).scenario["model"]["gated"] is False


def test_mindspeeds_trainer_on_fsdp2(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "data: {cutoff_len: 4096, template: qwen3}\n"
        "parallel: {recompute: true, fsdp_modules: ['model.layers.{*}'], cp_size: 2, cp_type: ulysses}\n"
        "training: {stage: pt, max_steps: 200, lr: 1.0e-5, per_device_train_batch_size: 4}\n"
    )
    script = ("NPUS=8\ntorchrun --nproc_per_node $NPUS --nnodes 2 train_fsdp2.py examples/fsdp2/run.yaml \\\n"
              "  --model.model_name_or_path ./weights/Qwen3-8B --parallel.fsdp_size 8 \\\n"
              "  --training.per_device_train_batch_size 1 --training.gradient_accumulation_steps 4 \\\n"
              "  --optimization.use_fused_rmsnorm True --model.quant_recipe_name mxfp8\n")  # fmt: skip
    result = found(tmp_path, "run.sh", script)
    assert result.format == "mindspeed-fsdp2-sh"
    parallel, training = result.scenario["parallel"], result.scenario["training"]
    # 16 devices in pairs of a sequence: 8 replicas, of which each 8 share one copy: all of them
    assert [parallel[key] for key in ("cp", "zero", "recompute", "cp_comm")] == [
        2,
        3,
        "full",
        "a2a",
    ]
    assert "shard" not in parallel
    assert training == {"precision": "fp8", "recipe": "mxfp8", "sequence_length": 4096, "micro_batch": 1,
                        "global_batch": 1 * 4 * 8, "steps": 200}  # fmt: skip
    assert result.scenario["model"]["layers"] == 36
    assert not unknown(result)
    (tmp_path / "run.yaml").unlink()
    assert "training.sequence_length" in [
        q.key for q in found(tmp_path, "run.sh", script).questions
    ]


BRIDGE = """
model: {_target_: x.Llama3ModelProvider, num_layers: 4, hidden_size: 1024, ffn_hidden_size: 4096,
        num_attention_heads: 8, num_query_groups: 8, seq_length: 4096, vocab_size: 32000,
        gated_linear_unit: true,
        tensor_model_parallel_size: 2, share_embeddings_and_output_weights: false}
train: {micro_batch_size: 1, global_batch_size: 64, train_samples: 100000, rampup_batch_size: [16, 16, 3000]}
ddp: {use_distributed_optimizer: true}
mixed_precision: bf16_mixed
"""


def test_bridges_adapters_and_growing_batch(tmp_path: Path) -> None:
    kind = "megatron.bridge.peft.lora.LoRA"
    lora = f"peft: {{_target_: {kind}, dim: 16, alpha: 32, target_modules: [linear_qkv]}}\n"
    result = found(tmp_path, "run_config.yaml", BRIDGE + lora)
    assert (result.scenario["model"]["lora_rank"], result.scenario["model"]["lora_targets"]) == (
        16,
        "q k v",
    )
    training = result.scenario["training"]
    assert training["batch_ramp"] == {"start": 16, "increment": 16, "sequences": 3000}
    assert training["tokens"] == f"{100000 * 4096} tokens"
    assert not unknown(result)
    with pytest.raises(InputError, match="adapters that are not simulated"):
        found(tmp_path, "run_config.yaml", BRIDGE + lora.replace("lora.LoRA", "dora.DoRA"))


def test_curricula_are_priced_in_words_that_name_phases(tmp_path: Path) -> None:
    start = f"deepspeed --num_gpus 8 pretrain_gpt.py {SIZES} --deepspeed --zero-stage 1"
    script = f"{start} --curriculum-learning"
    told = {one.flag: one.effect for one in found(tmp_path, "d.sh", script).not_modelled}
    assert "training.phases" in told["--curriculum-learning"]
    settings = (
        '{"train_batch_size": 64, "train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 2}'
        ', "curriculum_learning": {"enabled": true}, "progressive_layer_drop": {"theta": 0.5}}'
    )
    result = found(tmp_path, "ds.json", settings)
    assert not unknown(result)
    assert any("training.phases" in one.effect for one in result.not_modelled)


def test_tokens_of_megatron_deepspeed_say_how_long_a_growing_batch_goes_on(tmp_path: Path) -> None:
    sizes = SIZES.replace(" --train-iters 10", "")
    script = (f"deepspeed --num_gpus 8 pretrain_gpt.py {sizes} --deepspeed --zero-stage 1"
              " --train-samples 90000 --train-tokens 300000000 --rampup-batch-size 16 16 3000")  # fmt: skip
    training = found(tmp_path, "d.sh", script).scenario["training"]
    assert training["tokens"] == "300000000 tokens"
    assert "steps" not in training


def test_text_beside_pictures_has_its_own_length(tmp_path: Path) -> None:
    script = f"torchrun --nproc_per_node 8 train.py {SIZES} --decoder-seq-length 1024"
    result = found(
        tmp_path,
        "v.sh",
        f"{script.replace('4096 --max', '576 --max')} --disable-vision-class-token",
    )
    assert result.scenario["training"]["sequence_length"] == 1024
    assert any("tower" in one.effect for one in result.not_modelled)
    assert not unknown(result)
    with pytest.raises(InputError, match="layout of its own"):
        found(tmp_path, "v.sh", f"{script} --llm-tp 2 --encoder-tp 2")


TITAN = """
[model]
name = "llama3"
flavor = "8B"
[training]
seq_len = 4096
local_batch_size = 2
steps = 1000
[parallelism]
{key} = {value}
pipeline_parallel_schedule = "Interleaved1F1B"
"""


@pytest.mark.parametrize("value", [1_000_001, 2**31, 10**20])
@pytest.mark.parametrize(
    "flag", ["num-layers", "pipeline-model-parallel-size", "tensor-model-parallel-size",
             "context-parallel-size", "decoder-first-pipeline-num-layers"],
)  # fmt: skip
def test_numbers_of_which_lists_are_made_are_bounded(tmp_path: Path, flag: str, value: int) -> None:
    """A list for each of two billion stages is no answer: it took all memory."""
    text = (
        f"torchrun --nproc_per_node 8 pretrain_gpt.py {SIZES} --moe-layer-freq 2 --{flag} {value}"
    )
    with pytest.raises(InputError, match=rf"{flag}: '{value}' - expected at most"):
        found(tmp_path, "r.sh", text)
    key = "pipeline_parallel_degree"
    with pytest.raises(InputError, match=f"{key}: '{value}' - expected at most 1,000,000"):
        found(tmp_path, "t.toml", TITAN.format(key=key, value=value))
