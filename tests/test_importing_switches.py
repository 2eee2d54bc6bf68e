"""Switches that were passed over: converters, what is not fused, settings of FSDP in a place of their own."""

from pathlib import Path

import pytest

from ersatz.device_models.text.problems import InputError
from ersatz.sim.importing.formats import import_file
from ersatz.sim.importing.record import Imported
from tests.test_importing_accelerate import value

TITAN = """[model]
name = "llama3"
flavor = "8B"
{converters}
[training]
local_batch_size = 1
seq_len = 8192
[parallelism]
data_parallel_shard_degree = 8
[quantize.linear.float8]
enable_fsdp_float8_all_gather = false
"""
TRAIN = ("train.py --model_name_or_path meta-llama/Llama-2-7b-hf --per_device_train_batch_size 1"
         " --max_steps 10 --max_seq_length 2048 --bf16")  # fmt: skip
MEGATRON = ("torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers 4 --hidden-size 1024"
            " --num-attention-heads 8 --seq-length 2048 --micro-batch-size 1 --global-batch-size 64"
            " --train-iters 10 --vocab-size 32000 --bf16 ")  # fmt: skip


def read(tmp_path: Path, name: str, text: str) -> Imported:
    path = tmp_path / name
    path.write_text(text)
    return import_file(path)


@pytest.mark.parametrize(
    ("converters", "precision", "said"),
    [
        ("", "bf16", True),
        ("converters = []", "bf16", True),
        ('converters = ["quantize.linear.float8"]', "fp8", False),
        ('converters = ["quantize.linear.mx"]', "fp8", False),
        ('converters = ["quantize.grouped_mm.mx"]', "bf16", True),
    ],
)
def test_torchtitan_quantises_what_its_converters_name(
    tmp_path: Path, converters: str, precision: str, said: bool
) -> None:
    """Its own files have the section without the converter, and train in 16 bits."""
    found = read(tmp_path, "job.toml", TITAN.format(converters=converters))
    assert value(found, "training.precision") == precision
    alone = [a for a in found.assumed if "stands without its converter" in a.why]
    assert bool(alone) == said


@pytest.mark.parametrize(
    "flag", ["--transformer-impl local", "--no-gradient-accumulation-fusion", "--no-rope-fusion"]
)
def test_what_megatron_does_not_fuse_is_said(tmp_path: Path, flag: str) -> None:
    found = read(tmp_path, "a.sh", MEGATRON + flag).not_modelled
    assert [one.flag for one in found if "% of a step" in one.effect] == [flag.split()[0]]
    usual = read(tmp_path, "b.sh", MEGATRON + "--transformer-impl transformer_engine")
    assert not [one for one in usual.not_modelled if "transformer" in one.flag]


def test_fsdp_s_settings_stand_in_a_file_or_a_section(tmp_path: Path) -> None:
    """They were passed over: no recomputation, nothing on the host."""
    (tmp_path / "f.json").write_text('{"activation_checkpointing": true, "offload_params": true}')
    script = f"torchrun --nproc_per_node 8 {TRAIN} --fsdp full_shard --fsdp_config f.json\n"
    found = read(tmp_path, "a.sh", script)
    assert (value(found, "parallel.zero"), value(found, "parallel.recompute")) == (3, "full")
    assert value(found, "memory.weights_offload") == 1.0
    recipe = """base_model: meta-llama/Llama-2-7b-hf
sequence_len: 2048
micro_batch_size: 1
bf16: true
fsdp: [full_shard, auto_wrap]
fsdp_config: {fsdp_activation_checkpointing: true, fsdp_offload_params: true}
sequence_parallel_degree: 2
"""
    found = read(tmp_path, "axolotl.yaml", recipe)
    assert value(found, "parallel.recompute") == "full"
    assert value(found, "memory.weights_offload") == 1.0
    assert value(found, "parallel.cp") == 2
    (tmp_path / "f.json").unlink()
    assert "parallel.recompute" in {q.key for q in read(tmp_path, "b.sh", script).questions}


def test_ranks_that_share_a_sequence_are_no_megatron(tmp_path: Path) -> None:
    recipe = """model_name_or_path: meta-llama/Llama-2-7b-hf
stage: sft
finetuning_type: full
cutoff_len: 8192
per_device_train_batch_size: 1
bf16: true
deepspeed: z3.json
sequence_parallel_size: 4
"""
    found = read(tmp_path, "lf.yaml", recipe)
    assert (value(found, "stack"), value(found, "parallel.cp")) == ("deepspeed", 4)
    assert not [a for a in found.assumed if "Megatron-Core" in a.why]


@pytest.mark.parametrize(
    ("flags", "key", "expected"),
    [
        ("--context-parallel-size 8 --cp-comm-type a2a+p2p --hierarchical-context-parallel-sizes 4 2",
         "parallel.cp_inner", 4),
        ("--deepspeed --zero-stage 1 --ds-sequence-parallel-size 4", "parallel.cp_comm", "a2a"),
    ],
)  # fmt: skip
def test_kinds_of_context_ranks(tmp_path: Path, flags: str, key: str, expected: object) -> None:
    """Levels were said to be a layout of ranks, and Ulysses of DeepSpeed a ring."""
    assert value(read(tmp_path, "a.sh", MEGATRON + flags), key) == expected


def test_levels_that_do_not_make_the_context_ranks_are_told(tmp_path: Path) -> None:
    flags = (
        "--context-parallel-size 8 --cp-comm-type a2a+p2p --hierarchical-context-parallel-sizes 4 4"
    )
    with pytest.raises(InputError, match="expected two sizes that make cp 8"):
        read(tmp_path, "a.sh", MEGATRON + flags)


@pytest.mark.parametrize(
    ("flag", "key", "whole"),
    [
        ("--tensor-model-parallel 4", "parallel.tp", "--tensor-model-parallel-size"),
        ("--expert-model-par 2", "parallel.ep", "--expert-model-parallel-size"),
        ("--sequence-par", "parallel.sequence_parallel", "--sequence-parallel"),
    ],
)
def test_the_beginning_of_a_flag_is_no_unknown_one(
    tmp_path: Path, flag: str, key: str, whole: str
) -> None:
    """argparse takes it for the whole; it was left out, with one rank in a group."""
    experts = "--num-experts 8 " if "expert" in flag else ""
    asked = {q.key: q.why for q in read(tmp_path, "a.sh", MEGATRON + experts + flag).questions}
    assert f"argparse takes it for {whole}" in asked[key]
    several = read(tmp_path, "a.sh", MEGATRON + "--recomp full")
    assert any(n.flag == "--recomp" for n in several.not_modelled)


@pytest.mark.parametrize(
    ("launcher", "nodes", "each"),
    [
        ("mpirun -np 32 -N 8 python", 4, 8),
        ("mpiexec -n 16 -ppn 4 python", 4, 4),
        ("srun -N 2 --ntasks-per-node 8 python", 2, 8),
        ("deepspeed --include localhost:0,1,2,3", 1, 4),
        ("deepspeed --include a:0,1@b:0,1", 2, 2),
    ],
)
def test_machines_of_other_launchers(tmp_path: Path, launcher: str, nodes: int, each: int) -> None:
    """-N of MPI is ranks of a machine, of Slurm machines."""
    found = read(tmp_path, "a.sh", f"{launcher} {MEGATRON.partition('8 ')[2]}")
    assert (value(found, "cluster.nodes"), found.devices_per_node) == (nodes, each)


def test_attention_of_several_kernels_is_that(tmp_path: Path) -> None:
    for word, fused in (("eager", False), ("flash_attention_2", None)):
        text = f"torchrun --nproc_per_node 8 {TRAIN} --attn_implementation {word}"
        assert value(read(tmp_path, "a.sh", text), "model.fused_attention") is fused


def test_deepspeed_and_its_trainer_agree_or_it_is_told(tmp_path: Path) -> None:
    """The trainer stops where the settings have another number; the settings' was taken."""
    for micro, wrong in ((1, False), (4, True)):
        (tmp_path / "ds.json").write_text(f'{{"train_micro_batch_size_per_gpu": {micro},'
                                          ' "zero_optimization": {"stage": 2}}')  # fmt: skip
        found = read(tmp_path, "a.sh", f"deepspeed --num_gpus 8 {TRAIN} --deepspeed ds.json")
        assert any("its trainer stops there" in words for words in found.wrong) == wrong


def test_a_group_for_weights_alone_is_no_group_for_all(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(
        '{"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 8}}'
    )
    found = read(tmp_path, "a.sh", f"deepspeed --num_gpus 8 {TRAIN} --deepspeed ds.json")
    effects = {n.flag: n.effect for n in found.not_modelled}
    assert "weights alone" in effects["zero_optimization.zero_hpz_partition_size"]


def test_an_optimiser_that_is_the_usual_one_is_not_another(tmp_path: Path) -> None:
    for name, told in (("AdamW", False), ("Muon", True)):
        text = TITAN.format(converters="") + f'[optimizer]\nname = "{name}"\n'
        flags = {n.flag for n in read(tmp_path, "job.toml", text).not_modelled}
        assert ("optimizer.name" in flags) == told


@pytest.mark.parametrize(
    "command",
    [
        "python MaxText/train.py base.yml model_name=llama3-8b per_device_batch_size=4 steps=5",
        "srun python megatron_gpt_pretraining.py trainer.devices=8 model.num_layers=4 +model.x=1",
    ],
)
def test_arguments_that_are_assigned_are_refused_by_name(tmp_path: Path, command: str) -> None:
    with pytest.raises(InputError, match="has its arguments as key=value"):
        read(tmp_path, "a.sh", command)
