"""Launchers, batch heads, files that scripts write; words and switches that are not what they look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.importing.formats import import_file
from ersatz.sim.importing.record import Imported

MODEL = (
    "--num-layers 32 --hidden-size 4096 --num-attention-heads 32 --ffn-hidden-size 11008 --swiglu"
    " --vocab-size 32000 --seq-length 4096 --max-position-embeddings 4096 --micro-batch-size 1"
    " --global-batch-size 256 --train-iters 1000 --bf16 --use-mcore-models"
)
LAYOUT = "--tensor-model-parallel-size 2 --pipeline-model-parallel-size 2"
GPT = f"pretrain_gpt.py {MODEL} {LAYOUT}"
TORCHRUN = f"torchrun --nproc-per-node 8 --nnodes 4 {GPT}"
TRAINER = (
    "torchrun --nproc_per_node 8 --nnodes 2 train.py --model_name_or_path meta-llama/Llama-2-7b-hf"
    " --per_device_train_batch_size 2 --model_max_length 4096 --packing true --max_steps 100"
)
RECIPE = """
model_name_or_path: meta-llama/Meta-Llama-3-8B
stage: sft
finetuning_type: full
cutoff_len: 4096
packing: true
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
max_steps: 100
bf16: true
"""
TITAN = """
[model]
name = "llama3"
flavor = "8B"
{model}
[training]
local_batch_size = 1
seq_len = 8192
steps = 100
[parallelism]
data_parallel_shard_degree = 8
{parallelism}
{more}
"""


def read(folder: Path, name: str, text: str, **beside: str) -> Imported:
    """What is found of a file, with others beside it."""
    for other, inside in beside.items():
        (folder / other.replace("__", ".")).write_text(inside)
    path = folder / name
    path.write_text(text)
    return import_file(path)


def at(found: Imported, key: str) -> Any:
    """A value of the scenario by its dotted key."""
    here: Any = found.scenario
    for part in key.split("."):
        here = here.get(part) if isinstance(here, dict) else None
    return here


def said(found: Imported) -> str:
    """All that is told of an import."""
    rows = [f"{a.key} {a.value} {a.why}" for a in found.assumed]
    rows += [f"{n.flag} {n.value} {n.effect}" for n in found.not_modelled]
    rows += [f"{q.key} {q.why}" for q in found.questions]
    return "\n".join([*rows, *found.wrong])


@pytest.mark.parametrize(
    "script",
    [
        f'srun -N 4 --ntasks-per-node=1 bash -c "cd /w && export A=1 && {TORCHRUN}"',
        f'for h in a b c d; do ssh $h "cd /w; TP=2; {TORCHRUN}" & done; wait',
        f"exec env NCCL_DEBUG=INFO {TORCHRUN} 2>&1 | tee log.txt",
        f"time {TORCHRUN}",
        f"CMD='{TORCHRUN}'\neval \"$CMD\"",
        f"#SBATCH -N4 --gres=gpu:h100:8,nvme:1\nsrun python {GPT}",
        f"#SBATCH -N 4\n#SBATCH --gpus-per-node=8\nset -e\n#SBATCH --nodes=16\nsrun python {GPT}",
        f"#SBATCH --nodes 8 --gpus-per-node=8\nsrun -N4 python {GPT}",
        f"mpirun -np 32 --map-by ppr:8:node python {GPT}",
        f"aprun -n 32 -N 8 python {GPT}",
        f"flux run -N4 --gpus-per-node=8 python {GPT}",
        f"mpirun -H a:8,b:8,c:8,d:8 python {GPT}",
        f"cat > hosts <<EOF\na slots=8\nb slots=8\nc slots=8\nd slots=8 # last\nEOF\n"
        f"deepspeed --hostfile hosts {GPT}",
        f"for h in a b c d e; do echo $h slots=8 >> hosts; done\n"
        f"deepspeed --hostfile hosts --exclude e {GPT}",
        f"msrun --worker_num=32 --local_worker_num=8 {GPT}",
    ],
)
def test_machines_however_they_are_said(tmp_path: Path, script: str) -> None:
    """Four machines of eight devices each, and the layout of the flags."""
    found = read(tmp_path, "a.sh", f"#!/bin/bash\n{script}\n")
    assert (at(found, "cluster.nodes"), found.devices_per_node, found.devices) == (4, 8, 32)
    assert (at(found, "parallel.tp"), at(found, "parallel.pp")) == (2, 2)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"#SBATCH --nodes=4 --gres=gpu:8\n#SBATCH hetjob\n#SBATCH --nodes=1\nsrun python {GPT}",
         "2 components (hetjob)"),
        (f"#SBATCH --nodes=2-4 --gres=gpu:8\nsrun python {GPT}", "decided when the job starts"),
        (f"deepspeed --num_nodes 4 --num_gpus 8 --exclude b:0 {GPT}", "how many machines are left"),
        (f"printf 'a slots=8\\n' > hosts\ncat > hosts <<EOF\na slots=8\nb slots=4\nEOF\n"
         f"deepspeed --hostfile hosts {GPT}", "12 slots in all"),
    ],
)  # fmt: skip
def test_machines_that_are_not_known_are_asked_for(tmp_path: Path, script: str, words: str) -> None:
    found = read(tmp_path, "a.sh", f"#!/bin/bash\n{script}\n")
    assert any(q.key == "cluster.nodes" for q in found.questions)
    assert words in said(found)


def test_a_flag_after_which_output_is_redirected_has_its_own_value(tmp_path: Path) -> None:
    found = read(tmp_path, "a.sh", f"{TORCHRUN} --micro-batch-size 2 2>&1 | tee log\n")
    assert at(found, "training.micro_batch") == 2


def test_a_variable_for_one_command_is_not_seen_by_its_own_words(tmp_path: Path) -> None:
    """bash replaces `$TP` before it sets the TP of the command."""
    found = read(tmp_path, "a.sh", f"TP=4\nTP=2 {TORCHRUN} --tensor-model-parallel-size $TP\n")
    assert at(found, "parallel.tp") == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('"train_micro_batch_size_per_gpu": 1$X', "environment variable X is not given"),
        ('"train_batch_size": $(nproc)', "'nproc' is not run"),
    ],
)
def test_a_file_with_what_is_not_known_is_refused(tmp_path: Path, change: str, words: str) -> None:
    """Without the part that is missing, `1$X` would be read as 1."""
    script = f'cat > ds.json <<EOF\n{{"zero_optimization": {{"stage": 2}}, {change}}}\nEOF\n'
    with pytest.raises(InputError, match=words) as raised:
        read(tmp_path, "a.sh", f"{script}{TRAINER} --bf16 --deepspeed ds.json\n")
    assert raised.value.problems[0].key == "ds.json"


def test_a_file_that_a_command_changes_is_not_read_as_it_was(tmp_path: Path) -> None:
    script = (
        'cat > ds.json <<EOF\n{"zero_optimization": {"stage": 2}}\nEOF\nsed -i s/2/3/ ds.json\n'
    )
    with pytest.raises(InputError, match="changed by sed"):
        read(tmp_path, "a.sh", f"{script}{TRAINER} --bf16 --deepspeed ds.json\n")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--recompute-granularity Full", "expected one of full, selective"),
        ("--recompute-granularity full --recompute-method Block", "expected one of block, uniform"),
        ("--use-megatron-fsdp --data-parallel-sharding-strategy optim_grad", "expected one of no_shard"),
        ("--yaml-cfg mine.yaml", "all arguments from that file"),
    ],
)  # fmt: skip
def test_a_word_that_a_flag_does_not_know_is_refused(
    tmp_path: Path, flags: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read(tmp_path, "a.sh", f"{TORCHRUN} {flags}\n")


@pytest.mark.parametrize(
    "flag",
    ["--no-overlap-p2p-communication", "--no-async-tensor-model-parallel-allreduce", "--use-legacy-models",
     "--skip-train", "--num-experts 8 --moe-token-dispatcher-type allgather"],
)  # fmt: skip
def test_what_the_stack_has_and_a_flag_takes_away_is_said(tmp_path: Path, flag: str) -> None:
    found = read(tmp_path, "a.sh", f"{TORCHRUN} {flag}\n")
    assert any(one.flag in flag and one.effect != "unknown" for one in found.not_modelled)


@pytest.mark.parametrize(
    "key", ["gradient_accumulation_fusion", "masked_softmax_fusion", "bias_swiglu_fusion"]
)
def test_a_switch_that_is_off_is_the_flag_that_switches_it_off(tmp_path: Path, key: str) -> None:
    """Configurations say `x_fusion: false` for `--no-x-fusion`."""
    rows = ["num_layers: 4", "hidden_size: 512", "num_attention_heads: 8", "seq_length: 1024",
            "tensor_model_parallel_size: '${oc.env:TP,2}'", "vocab_size: 32000"]  # fmt: skip
    text = "model:\n  " + "\n  ".join([*rows, f"{key}: false"])
    text += "\ntrain: {global_batch_size: 8, micro_batch_size: 1, train_iters: 3}\nddp: {}\noptimizer: {}\n"
    found = read(tmp_path, "a.yaml", text)
    assert any(one.flag.endswith(key) for one in found.not_modelled)
    assert at(found, "parallel.tp") == 2


@pytest.mark.parametrize(
    ("settings", "key", "value", "words"),
    [
        ('"amp": {"enabled": true}', "training.precision", "fp16", "amp is enabled"),
        ('"bf16": {"enabled": true}, "fp16": {"enabled": true}', "training.precision", "bf16",
         "both enabled"),
        ('"bf16": {"enabled": true}, "communication_data_type": "fp32"', "training.precision", "bf16",
         "communication_data_type"),
        ('"bf16": {"enabled": true}, "data_types": {"grad_accum_dtype": "bf16"}', "memory.gradients",
         "bf16", ""),
    ],
)  # fmt: skip
def test_number_formats_of_deepspeed(
    tmp_path: Path, settings: str, key: str, value: str, words: str
) -> None:
    text = '{"zero_optimization": {"stage": 2}, ' + settings + "}"
    found = read(tmp_path, "a.sh", f"{TRAINER} --deepspeed ds.json\n", ds__json=text)
    assert at(found, key) == value
    assert words in said(found)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.sh", f"{TRAINER} --use_cpu true", "host's processors"),
        ("a.yaml", "distributed_type: XLA\nnum_processes: 8\n", "expected one of"),
        ("a.yaml", "base_model: a/b\nsequence_len: 1024\nrl: ipo\n", "preference training"),
        ("a.yaml", RECIPE.replace("stage: sft", "stage: distill"), "preference training"),
        ("a.sh", "xtuner train llama2_7b_full.py --deepspeed deepspeed_zero3", "program in Python"),
    ],
)
def test_what_is_another_training_is_refused(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read(tmp_path, name, text)


@pytest.mark.parametrize("flag", ["--use_unsloth true", "--torch_compile true"])
def test_kernels_that_no_stack_has_are_said(tmp_path: Path, flag: str) -> None:
    assert flag.split()[0] in said(read(tmp_path, "a.sh", f"{TRAINER} --bf16 {flag}\n"))


@pytest.mark.parametrize(
    "command", ["llamafactory-cli train recipe.yaml", "torchrun --nproc_per_node 8 src/train.py recipe.yaml"]
)  # fmt: skip
def test_a_recipe_that_a_command_names_has_the_defaults_of_its_trainer(
    tmp_path: Path, command: str
) -> None:
    """LLaMA-Factory computes activations again unless it is told not to; other trainers do not."""
    found = read(tmp_path, "a.sh", f"#!/bin/bash\n{command} --max_steps 7\n", recipe__yaml=RECIPE)
    assert at(found, "parallel.recompute") == "full"
    assert (at(found, "training.sequence_length"), at(found, "training.steps")) == (4096, 7)
    bare = read(tmp_path, "b.sh", f"#!/bin/bash\n{command}\n")
    assert (at(bare, "parallel.recompute"), at(bare, "training.steps")) == ("full", 100)


@pytest.mark.parametrize(
    ("model", "parallelism", "more", "words"),
    [
        ('converters = ["lora"]', "", "", "say model.lora_rank"),
        ('converters = ["sparse24"]', "", "", "a converter that is not known"),
        ("", "", '[compile]\nenable = true\ncomponents = ["loss"]', "compile.enable is off"),
        ("hidden_act = 3", "", "", "model.hidden_act"),
        ("", "", "[debug]\nmoe_force_load_balance = true", "debug.moe_force_load_balance"),
        ("", "", '[optimizer]\nmomentum_dtype = "bf16"', "optimizer.momentum_dtype"),
    ],
)
def test_keys_of_torchtitan_that_are_not_followed_are_said(
    tmp_path: Path, model: str, parallelism: str, more: str, words: str
) -> None:
    text = TITAN.format(model=model, parallelism=parallelism, more=more)
    assert words in said(read(tmp_path, "a.toml", text))


@pytest.mark.parametrize(
    "key", ['fsdp_reshard_after_forward = "sometimes"',
            'context_parallel_degree = 2\ncontext_parallel_rotate_method = "ring"'],
)  # fmt: skip
def test_words_of_torchtitan_are_of_its_own(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match="expected one of"):
        read(tmp_path, "a.toml", TITAN.format(model="", parallelism=key, more=""))


def test_weights_of_automodel_in_32_bits(tmp_path: Path) -> None:
    text = "step_scheduler: {global_batch_size: 8, local_batch_size: 1, max_steps: 3}\n"
    text += "distributed: {strategy: fsdp2}\ndataset: {seq_len: 4096}\n"
    text += (
        "model: {pretrained_model_name_or_path: meta-llama/Meta-Llama-3-8B, torch_dtype: float32,"
    )
    text += " twice: 2}\n"
    found = read(tmp_path, "a.yaml", text)
    assert at(found, "training.precision") == "fp32"
    assert "model.twice" in said(found)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.sh", f"{TRAINER} --bf16 --fsdp full_shrad", "expected words of FSDP"),
        ("a.yaml", "base_model: a/b\nsequence_len: 1024\nadapter: ia3\n", "not simulated; expected one of"),
        ("a.sh", f"{TRAINER} --bf16 --tuner_type vera", "not simulated; expected one of"),
        ("a.yaml", "step_scheduler: {global_batch_size: 8, local_batch_size: 1, max_steps: 3}\n"
         "distributed: {strategy: fdsp2}\ndataset: {seq_len: 4096}\n"
         "model: {pretrained_model_name_or_path: meta-llama/Meta-Llama-3-8B}\n", "expected ddp"),
    ],
)  # fmt: skip
def test_words_of_trainers_are_their_own(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read(tmp_path, name, text)


@pytest.mark.parametrize(
    ("flag", "zero", "offload"),
    [
        ("'shard_grad_op auto_wrap'", 2, None),
        ("'[shard_grad_op, auto_wrap, offload]'", 2, 1.0),
        ("full_shard,offload", 3, 1.0),
    ],
)
def test_words_of_fsdp_in_a_list_or_not(
    tmp_path: Path, flag: str, zero: int, offload: float | None
) -> None:
    found = read(tmp_path, "a.sh", f"{TRAINER} --bf16 --fsdp {flag}\n")
    assert at(found, "parallel.zero") == zero
    assert at(found, "memory.optimizer_offload") == offload


def test_a_switch_with_another_word_is_taken_as_on_and_said(tmp_path: Path) -> None:
    found = read(tmp_path, "a.sh", f"{TRAINER} --bf16 --gradient_checkpointing maybe\n")
    assert at(found, "parallel.recompute") == "full"
    assert "'maybe', neither true nor false" in said(found)


def test_tasks_that_are_fewer_than_devices_are_said(tmp_path: Path) -> None:
    script = f"#SBATCH -N 4 --ntasks-per-node=1 --gres=gpu:8\nsrun python {GPT}\n"
    assert "a machine of 8 devices" in said(read(tmp_path, "a.sbatch", f"#!/bin/bash\n{script}"))


@pytest.mark.parametrize(
    "head",
    [
        'if [ "$BIG" = 1 ]; then\n{three}\nelse\n{one}\nfi',
        "{one}\nfor n in $(hosts); do echo {{}} >> ds.json; done",
    ],
)
def test_a_file_whose_text_depends_on_what_is_not_known_is_refused(
    tmp_path: Path, head: str
) -> None:
    """What the last branch wrote is not what was written."""
    written = {
        name: f'cat > ds.json <<EOF\n{{"zero_optimization": {{"stage": {stage}}}}}\nEOF'
        for name, stage in (("one", 1), ("three", 3))
    }
    with pytest.raises(InputError, match="is written here, and"):
        read(tmp_path, "a.sh", f"{head.format(**written)}\n{TRAINER} --bf16 --deepspeed ds.json\n")


@pytest.mark.parametrize(
    "program", ["-m trl.scripts.dpo", "-m trl dpo", "trl/scripts/dpo.py", "train-grpo.py"]
)
def test_learning_by_preference_however_it_is_started(tmp_path: Path, program: str) -> None:
    script = TRAINER.replace("train.py", program)
    with pytest.raises(InputError, match="preference training"):
        read(tmp_path, "a.sh", f"{script} --bf16\n")


@pytest.mark.parametrize(
    "launcher",
    ["torchrun --standalone --nproc_per_node=8", "horovodrun -np 8 -H localhost:8 python"],
)
def test_launchers_of_one_machine(tmp_path: Path, launcher: str) -> None:
    found = read(tmp_path, "a.sh", f"{launcher} {GPT}\n")
    assert (at(found, "cluster.nodes"), found.devices_per_node) == (1, 8)


PRIMUS = """
work_group: a
modules:
  pre_trainer:
    framework: megatron
    config: pre_trainer.yaml
    model: llama3_8B.yaml
    extends: other.yaml
    overrides: {train_iters: 50, micro_batch_size: 2, global_batch_size: 128, seq_length: 8192}
  post_trainer:
    framework: megatron
    config: x.yaml
    overrides: {micro_batch_size: 9}
"""


def test_what_primus_has_beside_its_overrides_is_said(tmp_path: Path) -> None:
    found = read(tmp_path, "a.yaml", PRIMUS)
    assert at(found, "training.micro_batch") == 2
    assert "modules.pre_trainer.extends" in said(found)
    assert "one module is read, pre_trainer" in said(found)


BRIDGE = """
model: {num_layers: 4, hidden_size: 512, num_attention_heads: 8, seq_length: 1024, vocab_size: 32000}
train: {global_batch_size: 8, micro_batch_size: 1, train_iters: 3}
ddp: {}
optimizer: {}
mixed_precision: MIX
"""


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        ("bf16_mixed", "bf16"),
        ("fp16_mixed", "fp16"),
        ("bf16_with_fp8_current_scaling_mixed", "fp8"),
        ("fp16_with_fp8_mixed", "fp8"),
    ],
)
def test_mixtures_of_formats_of_bridge(tmp_path: Path, mix: str, expected: str) -> None:
    assert (
        at(read(tmp_path, "a.yaml", BRIDGE.replace("MIX", mix)), "training.precision") == expected
    )


def test_a_mixture_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no mixture of formats"):
        read(tmp_path, "a.yaml", BRIDGE.replace("MIX", "int4_mixed"))


def test_arguments_without_dashes_win_over_a_recipe(tmp_path: Path) -> None:
    script = "#!/bin/bash\nllamafactory-cli train recipe.yaml per_device_train_batch_size=4 max_steps=7\n"
    found = read(tmp_path, "a.sh", script, recipe__yaml=RECIPE)
    assert (at(found, "training.micro_batch"), at(found, "training.steps")) == (4, 7)


def test_a_recipe_of_axolotl_with_flags_over_it(tmp_path: Path) -> None:
    recipe = "base_model: meta-llama/Meta-Llama-3-8B\nsequence_len: 4096\nsample_packing: true\n"
    recipe += "micro_batch_size: 2\nmax_steps: 9\nbf16: true\n"
    script = "accelerate launch --num_processes 8 -m axolotl.cli.train recipe.yaml --micro_batch_size 4\n"
    found = read(tmp_path, "a.sh", script, recipe__yaml=recipe)
    assert (at(found, "training.micro_batch"), at(found, "training.sequence_length")) == (4, 4096)


def test_a_word_that_assigns_is_said_where_nothing_takes_it(tmp_path: Path) -> None:
    found = read(tmp_path, "a.sh", f"torchrun --nproc_per_node 8 pretrain_gpt.py a.b=4 {MODEL}\n")
    assert "a.b=4" in said(found)


def test_what_trains_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trains nothing"):
        read(tmp_path, "a.yaml", f"{RECIPE}do_train: false\n")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('{"zero_optimization": {"stage": 2}}', "--zero-stage is 1, and zero_optimization.stage"),
        ('{"train_batch_size": 512}', "--global-batch-size is 256, and train_batch_size"),
        ('{"train_micro_batch_size_per_gpu": 4}', "--micro-batch-size is 1, and train_micro_batch"),
    ],
)
def test_megatron_and_its_deepspeed_agree_or_it_is_told(
    tmp_path: Path, settings: str, words: str
) -> None:
    script = f"deepspeed --num_nodes 4 --num_gpus 8 {GPT} --deepspeed --zero-stage 1"
    script += " --deepspeed_config ds.json\n"
    assert words in said(read(tmp_path, "a.sh", script, ds__json=settings))


def test_settings_by_a_name_that_no_file_can_have_are_not_found(tmp_path: Path) -> None:
    script = f"deepspeed --num_nodes 4 --num_gpus 8 {GPT} --deepspeed --deepspeed_config "
    long, none = (said(read(tmp_path, "a.sh", script + n + "\n")) for n in ("1" * 300, "none.json"))
    assert long.replace("1" * 300, "none.json") == none


def test_options_of_other_launchers_are_not_slurms(tmp_path: Path) -> None:
    found = read(tmp_path, "a.sh", f"otherrun -N 8 -n 32 python {GPT}\n")
    assert any(q.key == "cluster.nodes" for q in found.questions)


def test_arguments_of_a_trainer_in_json(tmp_path: Path) -> None:
    text = '{"model_name_or_path": "meta-llama/Llama-2-7b-hf", "per_device_train_batch_size": 4,'
    text += ' "bf16": true}'
    found = read(tmp_path, "a.json", text)
    assert (at(found, "training.micro_batch"), at(found, "training.precision")) == (4, "bf16")
    with pytest.raises(InputError, match="no configuration that is known"):
        read(tmp_path, "b.json", '{"name": "x", "version": 3}')


def test_a_place_for_state_that_is_none_is_refused(tmp_path: Path) -> None:
    settings = '{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpuu"}}}'
    with pytest.raises(InputError, match="expected one of none, cpu, nvme"):
        read(tmp_path, "a.sh", f"{TRAINER} --bf16 --deepspeed ds.json\n", ds__json=settings)


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        (
            "accelerate launch --num_processes 16 --num_machines 3",
            "16 processes are no whole number on each",
        ),
        ("mpirun -np 20 -ppn 8 python", "20 processes are no whole number of machines of 8"),
        ("srun -N 4 --ntasks-per-node=8 --gpus=16 python", "start 32 processes, not 16"),
    ],
)
def test_processes_and_machines_add_up_or_it_is_told(
    tmp_path: Path, launcher: str, words: str
) -> None:
    assert words in said(read(tmp_path, "a.sh", f"{launcher} {GPT}\n"))


def test_state_is_shared_by_one(tmp_path: Path) -> None:
    settings = '{"zero_optimization": {"stage": 2}}'
    script = f"{TRAINER} --bf16 --deepspeed ds.json --fsdp full_shard\n"
    assert "--fsdp and DeepSpeed are both given" in said(
        read(tmp_path, "a.sh", script, ds__json=settings)
    )
    both = "distributed_type: FSDP\nnum_machines: 3\nnum_processes: 16\n"
    assert "no whole number on each of 3 machines" in said(read(tmp_path, "a.yaml", both))


@pytest.mark.parametrize(("word", "said"), [("hybrid", False), ("e4m3", False), ("hibrid", True)])
def test_a_format_that_is_none_is_said(tmp_path: Path, word: str, said: bool) -> None:
    script = tmp_path / "run.sh"
    script.write_text(f"{TORCHRUN} --fp8-format {word}\n")
    found = import_file(script)
    told = [one.why for one in found.assumed]
    assert any(f"{word} is none of" in line for line in told) is said
