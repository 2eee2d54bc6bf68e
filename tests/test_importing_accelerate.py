"""Accelerate's configuration beside a script, its launcher's flags, and DeepSpeed's own arithmetic."""

from pathlib import Path

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.importing.formats import import_file
from ersatz.sim.importing.record import Imported

TRAIN = ("train.py --model_name_or_path meta-llama/Llama-2-7b-hf --per_device_train_batch_size 1"
         " --gradient_accumulation_steps 4 --max_steps 10 --max_seq_length 2048")  # fmt: skip
FSDP = """distributed_type: FSDP
fsdp_config: {fsdp_sharding_strategy: %s, fsdp_offload_params: true}
mixed_precision: fp8
num_machines: 2
num_processes: 16
"""


def read(tmp_path: Path, launcher: str, **files: str) -> Imported:
    for name, text in files.items():
        (tmp_path / name.replace("_", ".")).write_text(text)
    path = tmp_path / "run.sh"
    path.write_text(f"accelerate launch {launcher} {TRAIN}\n")
    return import_file(path)


def value(found: Imported, key: str) -> object:
    at: object = found.scenario
    for part in key.split("."):
        assert isinstance(at, dict)
        at = at.get(part)
    return at


@pytest.mark.parametrize(
    ("strategy", "zero", "shard"),
    [("HYBRID_SHARD", 3, 8), ("2", 2, None), ("3", 0, None), ("4", 3, 8), ("FULL_SHARD", 3, None)],
)
def test_the_configuration_of_a_launcher_is_read(
    tmp_path: Path, strategy: str, zero: int, shard: int | None
) -> None:
    """It was passed over as without effect: no sharding, 32 bits, machines not known."""
    found = read(tmp_path, "--config_file c.yaml", c_yaml=FSDP % strategy)
    assert value(found, "parallel.zero") == zero
    assert value(found, "parallel.shard") == shard
    assert value(found, "training.precision") == "fp8"
    assert value(found, "training.global_batch") == 64
    assert value(found, "cluster.nodes") == 2
    assert value(found, "memory.optimizer_offload") == 1.0


def test_flags_of_the_launcher_win_over_its_file(tmp_path: Path) -> None:
    launcher = "--config_file c.yaml --mixed_precision bf16 --num_machines 4 --num_processes 32"
    found = read(tmp_path, launcher, c_yaml=FSDP % "1")
    assert value(found, "training.precision") == "bf16"
    assert value(found, "training.global_batch") == 128


def test_a_configuration_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    asked = {question.key for question in read(tmp_path, "--config_file c.yaml").questions}
    assert {"parallel.zero", "training.precision", "cluster.nodes"} <= asked


def test_deepspeed_by_flags_of_the_launcher(tmp_path: Path) -> None:
    launcher = ("--use_deepspeed --zero_stage 3 --offload_optimizer_device cpu --mixed_precision bf16"
                " --num_machines 2 --num_processes 16")  # fmt: skip
    found = read(tmp_path, launcher)
    assert value(found, "parallel.zero") == 3
    assert value(found, "stack") == "deepspeed-offload"
    assert value(found, "memory.optimizer_offload") == 1.0


def test_deepspeed_s_file_inside_accelerate_s(tmp_path: Path) -> None:
    inside = "distributed_type: DEEPSPEED\ndeepspeed_config: {deepspeed_config_file: ds.json}\n"
    inside += "num_machines: 1\nnum_processes: 8\n"
    settings = '{"zero_optimization": {"stage": 1}, "bf16": {"enabled": true}}'
    found = read(tmp_path, "--config_file c.yaml", c_yaml=inside, ds_json=settings)
    assert (value(found, "parallel.zero"), value(found, "training.precision")) == (1, "bf16")


def test_megatron_under_accelerate_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Megatron-LM under Accelerate is not read"):
        read(tmp_path, "--config_file c.yaml", c_yaml="distributed_type: MEGATRON_LM\n")


def test_a_number_format_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    """It was taken for 32 bits."""
    found = read(tmp_path, "--mixed_precision hif8 --num_machines 1 --num_processes 8")
    assert "training.precision" in {question.key for question in found.questions}


def test_sizes_of_a_batch_that_deepspeed_would_refuse_cannot_be(tmp_path: Path) -> None:
    """Four of eight devices share a sequence: two replicas of 2 x 8 make 32 sequences, not 512."""
    (tmp_path / "ds.json").write_text(
        '{"train_batch_size": 512, "train_micro_batch_size_per_gpu": 2,'
        ' "gradient_accumulation_steps": 8, "sequence_parallel_size": 4,'
        ' "zero_optimization": {"stage": 3}, "bf16": {"enabled": true}}'
    )
    path = tmp_path / "run.sh"
    path.write_text(f"deepspeed --num_gpus 8 --num_nodes 1 {TRAIN} --deepspeed ds.json\n")
    wrong = " ".join(import_file(path).wrong)
    assert (
        "train_batch_size 512 is not micro-batch 2 x 8 rounds of accumulation x 2 replicas = 32"
        in wrong
    )


@pytest.mark.parametrize("word", ["--config recipes/r.yaml", "recipes/r.yaml"])
def test_arguments_of_the_trainer_in_a_file_of_their_own(tmp_path: Path, word: str) -> None:
    """The file was passed over, and its batch of 2 taken for the default of 8."""
    (tmp_path / "r.yaml").write_text(
        "model_name_or_path: meta-llama/Llama-2-7b-hf\nper_device_train_batch_size: 2\nbf16: true\n"
        "gradient_checkpointing: true\nmax_length: 4096\nmax_steps: 10\n"
    )
    path = tmp_path / "run.sh"
    start = "accelerate launch --num_machines 1 --num_processes 8 sft.py"
    path.write_text(f"{start} {word} --output_dir x --max_steps 20\n")
    found = import_file(path)
    assert value(found, "training.micro_batch") == 2
    assert value(found, "training.steps") == 20  # the command line wins
    assert value(found, "parallel.recompute") == "full"
    (tmp_path / "r.yaml").unlink()
    asked = {question.key for question in import_file(path).questions}
    assert {"model", "training.micro_batch", "training.precision", "parallel.recompute"} <= asked
