"""Launch files become scenarios: known answers, worked out from what each framework does by default."""

import json
from pathlib import Path

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.importing.cases import load_any
from ersatz.sim.importing.formats import import_file
from ersatz.sim.importing.megatron.patterns import PatternError, number_list, pipeline_layout
from ersatz.sim.importing.record import Imported
from ersatz.sim.importing.writing import scenario_yaml
from ersatz.sim.scenario.file import load_cases

HEAD = "#!/bin/bash\nGPUS=8\nNODES=${NODES:-2}\n"
SIZES = "--num-layers 24 --hidden-size 2048 --num-attention-heads 16 --seq-length 4096"
BATCH = "--micro-batch-size 1 --global-batch-size 64 --train-iters 1000 --bf16 --vocab-size 32000"
RUN = "torchrun --nproc_per_node $GPUS --nnodes $NODES pretrain_gpt.py"


def script(tmp_path: Path, flags: str, head: str = HEAD) -> Path:
    path = tmp_path / "train.sh"
    path.write_text(f"{head}{RUN} {SIZES} {BATCH} {flags}\n")
    return path


def value(found: Imported, key: str) -> object:
    at: object = found.scenario
    for part in key.split("."):
        at = at.get(part) if isinstance(at, dict) else None
    return at


def values(found: Imported, *keys: str) -> list[object]:
    return [value(found, key) for key in keys]


def test_a_bare_script_has_megatrons_defaults_and_says_so(tmp_path: Path) -> None:
    """No --swiglu: 4 x 2,048 and no gate; no untie flag: tied; no distributed optimizer: ZeRO 0."""
    found = import_file(script(tmp_path, ""))
    assert values(found, "model.ffn_hidden", "model.gated", "model.tied", "model.kv_heads") == [
        8192, False, True, 16]  # fmt: skip
    assert values(found, "parallel.zero", "parallel.sequence_parallel", "parallel.recompute") == [
        0, False, "none"]  # fmt: skip
    assert value(found, "model.vocab") == 32000  # 250 x 128
    assert (found.devices, value(found, "cluster.nodes"), found.format) == (16, 2, "megatron-sh")
    assert [q.key for q in found.questions] == ["cluster.node"]
    assert {"model.ffn_hidden", "$NODES", "stack (overlap_grad_reduce)"} <= {
        a.key for a in found.assumed
    }
    assert found.origins["model.layers"] == (str(tmp_path / "train.sh"), 4, "--num-layers")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        # Gated: two thirds of 4 x 2,048, down to a multiple of 64: 5461 -> 85 x 64 = 5,440.
        ("--swiglu", {"model.ffn_hidden": 5440, "model.gated": True}),
        ("--swiglu --ffn-hidden-size 5504", {"model.ffn_hidden": 5504}),
        ("--group-query-attention --num-query-groups 4", {"model.kv_heads": 4}),
        ("--num-query-groups 4", {"model.kv_heads": 16}),  # counts only with the other flag
        ("--group-query-attention", {"model.kv_heads": 1}),
        ("--kv-channels 256", {"model.head_dim": 256}),
        # 32,000 up to a multiple of 128 x 4 = 512: 63 x 512.
        ("--tensor-model-parallel-size 4", {"parallel.tp": 4, "model.vocab": 32256}),
        ("--make-vocab-size-divisible-by 1000", {"model.vocab": 32000}),
        ("--tensor-model-parallel-size 1 --sequence-parallel", {"parallel.sequence_parallel": False}),
        ("--tensor-model-parallel-size 2 --sequence-parallel", {"parallel.sequence_parallel": True}),
        ("--use-distributed-optimizer", {"parallel.zero": 1}),
        ("--use-megatron-fsdp --data-parallel-sharding-strategy optim_grads", {"parallel.zero": 2}),
        ("--use-megatron-fsdp", {"parallel.zero": 3}),
        ("--use-torch-fsdp2", {"parallel.zero": 3}),
        ("--use-distributed-optimizer --num-distributed-optimizer-instances 4", {"parallel.shard": 4}),
        ("--recompute-activations", {"parallel.recompute": "selective"}),
        ("--recompute-granularity selective --recompute-modules core_attn moe",
         {"parallel.recompute_modules": ["core_attn", "experts"]}),
        ("--recompute-granularity full --recompute-method uniform --recompute-num-layers 1",
         {"parallel.recompute": "full"}),
        ("--recompute-granularity full --recompute-method block --recompute-num-layers 0",
         {"parallel.recompute": "none"}),
        ("--recompute-granularity full --recompute-method block --recompute-num-layers 24",
         {"parallel.recompute": "full", "parallel.recompute_layers": None}),
        ("--fp8-format hybrid", {"training.precision": "fp8"}),
        # 24 layers over 4 stages in chunks of 3: two to a stage.
        ("--pipeline-model-parallel-size 4 --num-layers-per-virtual-pipeline-stage 3",
         {"parallel.vp": 2, "parallel.schedule": "interleaved"}),
        ("--pipeline-model-parallel-size 4 --num-virtual-stages-per-pipeline-rank 3", {"parallel.vp": 3}),
        # 22 layers in front of the last stage's 2: (24 - 4 - 2) / 2 = 9 in the middle.
        ("--pipeline-model-parallel-size 4 --decoder-first-pipeline-num-layers 4"
         " --decoder-last-pipeline-num-layers 2", {"parallel.chunk_layers": [4, 9, 9, 2]}),
        ("--pipeline-model-parallel-size 2 --pipeline-model-parallel-layout 'Et*11|t*13L'",
         {"parallel.chunk_layers": [11, 13], "parallel.vp": 1}),
        ("--pipeline-model-parallel-size 2 --num-layers 22 --account-for-embedding-in-pipeline-split"
         " --account-for-loss-in-pipeline-split", {"model.layers": 22, "parallel.chunk_layers": None}),
        ("--context-parallel-size 2", {"parallel.cp_comm": "p2p"}),
        ("--context-parallel-size 2 --cp-comm-type a2a", {"parallel.cp_comm": "a2a"}),
        ("--cp-comm-type a2a", {"parallel.cp_comm": None}),  # without context ranks it has no effect
        ("--window-size 128,0 --window-attn-skip-freq 4", {"model.window": 128, "model.window_layers": 18}),
        ("--position-embedding-type alibi", {"model.fused_attention": False}),
        ("--num-layers 12 --num-layers=18", {"model.layers": 18}),  # the last one wins
        ("--mtp-num-layers 1", {"model.predict_layers": 1}),
        ("--multi-latent-attention --kv-lora-rank 512",
         {"model.latent": {"q_rank": 0, "kv_rank": 512, "rope_dim": 64, "nope_dim": 128, "v_dim": 128}}),
    ],
)  # fmt: skip
def test_what_a_flag_means(tmp_path: Path, flags: str, expected: dict[str, object]) -> None:
    found = import_file(script(tmp_path, flags))
    assert {key: value(found, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", {"hidden": 8192, "top_k": 2, "shared": 0, "dense_layers": 0}),
        ("--moe-ffn-hidden-size 1408 --moe-router-topk 6", {"hidden": 1408, "top_k": 6}),
        ("--moe-ffn-hidden-size 1408 --moe-shared-expert-intermediate-size 2816", {"shared": 2}),
        ("--moe-layer-freq '([0]*3+[1]*21)'", {"dense_layers": 3}),
        ("--moe-layer-freq 2", {"dense_layers": 12}),  # every second layer, and it is said
        ("--first-k-dense-replace 1", {"dense_layers": 1}),
        ("--moe-router-num-groups 8 --moe-router-group-topk 4", {"groups_limit": 4}),
        ("--moe-router-num-groups 1 --moe-router-group-topk 1", {"groups_limit": None}),  # no limit
    ],
)
def test_experts(tmp_path: Path, flags: str, expected: dict[str, object]) -> None:
    found = import_file(script(tmp_path, f"--num-experts 8 {flags}"))
    experts = found.scenario["model"]["experts"]
    assert {key: experts.get(key) for key in expected} == expected


def test_experts_are_sliced_as_attention_is_unless_said(tmp_path: Path) -> None:
    flags = "--num-experts 8 --tensor-model-parallel-size 2 --expert-model-parallel-size 4"
    assert values(import_file(script(tmp_path, flags)), "parallel.ep", "parallel.etp") == [4, 2]
    found = import_file(script(tmp_path, f"{flags} --expert-tensor-parallel-size 1"))
    assert value(found, "parallel.etp") == 1


def test_fillers_take_places_and_no_time(tmp_path: Path) -> None:
    """26 places over two stages are 13 each; the two fillers at the end leave 11 in the second."""
    flags = "--num-layers 26 --noop-layers 24,25 --pipeline-model-parallel-size 2"
    found = import_file(script(tmp_path, flags))
    assert values(found, "model.layers", "parallel.chunk_layers") == [24, [13, 11]]
    assert found.format == "mindspeed-sh"


def test_every_flag_is_in_exactly_one_list(tmp_path: Path) -> None:
    flags = "--swap-attention --never-heard-of 3 --lr 1e-4 --overlap-grad-reduce --recompute-method block"
    found = import_file(script(tmp_path, flags))
    lists = [{x.flag for x in rows} for rows in (found.read, found.not_modelled, found.ignored)]
    for flag in [f for f in f"{SIZES} {BATCH} {flags}".split() if f.startswith("--")]:
        assert sum(flag in one for one in lists) == 1, flag
    effects = {n.flag: n.effect for n in found.not_modelled}
    assert effects["--never-heard-of"] == "unknown"
    assert "leave the device" in effects["--swap-attention"]
    assert "--lr" in lists[2]


@pytest.mark.parametrize(
    ("head", "flags", "key", "words"),
    [
        (HEAD, "--tensor-model-parallel-size $1", "parallel.tp", "argument 1 of the script"),
        (HEAD, "--tensor-model-parallel-size $TP", "parallel.tp", "environment variable TP"),
        (HEAD + 'if [ "$BIG" = yes ]; then S=8192; else S=4096; fi\n', "--seq-length $S",
         "training.sequence_length", "a condition that is not known (line 4)"),
        ("#!/bin/bash\nGPUS=8\nNODES=$(wc -l < hosts)\n", "", "cluster.nodes", "is not run"),
        (HEAD, "--reset-attention-mask", "training.document_tokens", "attention ends with each document"),
        (HEAD + "for s in $SIZES; do L=$s; done\n", "--num-layers $L", "model.layers", "a loop (line 4)"),
    ],
)  # fmt: skip
def test_what_is_missing_is_asked_for_with_its_line(
    tmp_path: Path, head: str, flags: str, key: str, words: str
) -> None:
    found = import_file(script(tmp_path, flags, head))
    (question,) = [q for q in found.questions if q.key == key]
    assert words in question.why
    with pytest.raises(InputError) as caught:
        load_any(tmp_path / "train.sh", ["cluster.node=h100-8"])
    assert any(p.key == key for p in caught.value.problems)


def test_choices_of_a_branch_are_offered(tmp_path: Path) -> None:
    head = HEAD + 'if [ "$BIG" = yes ]; then S=8192; else S=4096; fi\n'
    found = import_file(script(tmp_path, "--seq-length $S", head))
    assert next(q.choices for q in found.questions if q.key.endswith("length")) == ("8192", "4096")
    found = import_file(script(tmp_path, "--seq-length $S", head), [], {"BIG": "yes"})
    assert value(found, "training.sequence_length") == 8192


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--tensor-model-parallel-size 3", "16 devices are no multiple of tp 3"),
        ("--global-batch-size 63", "63 is no multiple of micro-batch 1 x dp 16"),
        ("--pipeline-model-parallel-size 2 --num-layers 23", "23 layers do not divide"),
        ("--num-experts 8 --moe-layer-freq '([0]*3+[1]*58)'", "61 entries for 24 layers"),
    ],
)
def test_a_script_that_contradicts_itself_is_told(tmp_path: Path, flags: str, words: str) -> None:
    found = import_file(script(tmp_path, flags))
    assert any(words in one for one in found.wrong)


def test_reinforcement_learning_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"train.sh:4:1: --perform-rl-step: reinforcement learning"
    ):
        import_file(script(tmp_path, "--perform-rl-step"))


def test_a_script_runs_on_other_chips_in_their_stack(tmp_path: Path) -> None:
    """16 devices in nodes of 16 dies are one node; on Ascend Megatron runs as MindSpeed."""
    path = script(tmp_path, "--use-distributed-optimizer")
    (case,) = load_any(path, ["cluster.node=ascend-910c-die-16"])
    assert (case.devices, case.pools[0].nodes, case.pools[0].stack.name) == (16, 1, "mindspeed")
    assert any("runs its port" in a or "run its port" in a for a in case.assumptions)
    (case,) = load_any(path, ["cluster.node=h100-8"])
    assert (case.devices, case.pools[0].nodes, case.pools[0].stack.name) == (16, 2, "megatron-core")
    assert case.training.tokens == 1000 * 64 * 4096


def test_a_fault_of_a_scenario_is_placed_in_the_script(tmp_path: Path) -> None:
    sizes = "--num-attention-heads 24 --hidden-size 3072"
    path = script(tmp_path, f"--tensor-model-parallel-size 16 {sizes}")
    with pytest.raises(
        InputError, match=r"train.sh:4:1: parallel.tp: '16' - does not divide the 24"
    ):
        load_any(path, ["cluster.node=h100-8"])


def test_what_is_printed_is_a_scenario(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "--swiglu --pipeline-model-parallel-size 4 --num-virtual-stages-per-pipeline-rank 2",
    )
    found = import_file(path, ["cluster.node=h100-8"])
    written = tmp_path / "mine.yaml"
    written.write_text(scenario_yaml(found))
    assert "layers: 24" in written.read_text()
    assert "# train.sh:4 --num-layers" in written.read_text()
    (again,), (direct,) = load_cases(written), load_any(path, ["cluster.node=h100-8"])
    assert (again.model, again.training, again.parallel) == (
        direct.model,
        direct.training,
        direct.parallel,
    )


def test_a_slurm_head_gives_the_machines(tmp_path: Path) -> None:
    path = tmp_path / "job.sbatch"
    path.write_text(f"#!/bin/bash\n#SBATCH -N 4\n#SBATCH --gres=gpu:h100:8\n"
                    f"srun python pretrain_gpt.py {SIZES} {BATCH}\n")  # fmt: skip
    found = import_file(path)
    assert (found.devices, found.devices_per_node, value(found, "cluster.nodes")) == (32, 8, 4)
    (question,) = found.questions
    assert question.choices
    assert all("h100" in name for name in question.choices)


def test_a_batch_script_inside_a_script(tmp_path: Path) -> None:
    path = tmp_path / "submit.sh"
    path.write_text(f"#!/bin/bash\nN=2\nsbatch <<EOF\n#!/bin/bash\n#SBATCH --nodes=$N\n"
                    "#SBATCH --gpus-per-node=8\n"
                    f"srun python pretrain_gpt.py {SIZES} {BATCH}\nEOF\n")  # fmt: skip
    assert import_file(path).devices == 16


def test_a_command_in_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "t.sh"
    path.write_text(
        f'CMD="torchrun --nproc_per_node 8 --nnodes 1 pretrain_gpt.py {SIZES} {BATCH}"\neval $CMD\n'
    )
    assert import_file(path).devices == 8
    path.write_text(f'CMD="pretrain_gpt.py {SIZES} {BATCH}"\n'
                    'srun --nodes=2 --ntasks-per-node=8 bash -c "python -u $CMD"\n')  # fmt: skip
    assert import_file(path).devices == 16


# Logs

ARGUMENTS = {
    "world_size": 16, "data_parallel_size": 4, "tensor_model_parallel_size": 2,
    "pipeline_model_parallel_size": 2, "context_parallel_size": 1, "num_layers": 24, "hidden_size": 2048,
    "ffn_hidden_size": 5504, "num_attention_heads": 16, "num_query_groups": 1, "kv_channels": 128,
    "group_query_attention": False, "swiglu": True, "seq_length": 4096, "micro_batch_size": 1,
    "global_batch_size": 64, "train_iters": None, "train_samples": 128_000, "bf16": True, "fp16": False,
    "fp8": None, "padded_vocab_size": None, "vocab_size": None, "sequence_parallel": True,
    "use_distributed_optimizer": True, "overlap_grad_reduce": True, "overlap_param_gather": True,
    "untie_embeddings_and_output_weights": True, "recompute_granularity": None, "num_experts": None,
    "virtual_pipeline_model_parallel_size": 3, "hidden_dropout": 0.0, "swap_optimizer": True,
}  # fmt: skip


def log(path: Path, seconds: list[float], prefix: str = "") -> Path:
    rows = [f"{prefix}{'-' * 24} arguments {'-' * 24}"]
    rows += [f"{prefix}  {k} {'.' * (48 - len(k))} {v}" for k, v in sorted(ARGUMENTS.items())]
    rows += [f"{prefix}{'-' * 20} end of arguments {'-' * 21}",
             f"{prefix} > padded vocab (size: 32000) with 256 dummy tokens (new size: 32256)"]  # fmt: skip
    rows += [f"{prefix} [2026-01-01 00:00:00] iteration {i:8}/ 2000 | consumed samples: {i * 64} |"
             f" elapsed time per iteration (ms): {s * 1e3:.1f} | global batch size:    64 | lm loss: 1.0 |"
             for i, s in enumerate(seconds, 1)]  # fmt: skip
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("prefix", ["", "[default7]:", "3: ", "\x1b[32m"])
def test_a_log_needs_no_defaults_and_brings_its_step(tmp_path: Path, prefix: str) -> None:
    """The first two iterations are warm-up, 9.0 is a checkpoint: the median of 2.0, 2.2, 2.1."""
    found = import_file(log(tmp_path / "run.log", [30.0, 3.0, 2.0, 9.0, 2.2, 2.1], prefix))
    assert found.format == "megatron-log"
    assert found.version is None
    assert values(found, "model.kv_heads", "model.vocab", "parallel.vp", "parallel.zero") == [
        16,
        32256,
        3,
        1,
    ]
    assert value(found, "training.steps") == 2000  # 128,000 / 64
    assert found.devices == 16
    assert found.measured_step_s == pytest.approx(2.1)
    assert not found.not_modelled
    assert values(found, "memory.optimizer_offload", "memory.optimizer_update") == [1.0, "device"]
    (case,) = load_any(tmp_path / "run.log", ["cluster.node=h100-8"])
    assert case.parallel.dp == 4
    assert (case.published[0].metric, case.published[0].value) == ("step.duration_s", 2.1)


def test_too_few_steps_are_no_measurement(tmp_path: Path) -> None:
    found = import_file(log(tmp_path / "run.log", [30.0, 3.0, 2.0]))
    assert found.measured_step_s is None
    assert "only 3 lines" in str(found.measured_from)


@pytest.mark.parametrize(
    ("lines", "kind", "seconds"),
    [
        # 8 samples/s with a batch of 16 is 2 s.
        ([f"epoch=0/micro_step={i}/global_step={i}, RunningAvgSamplesPerSec=7, CurrSamplesPerSec=8.0,"
          for i in range(1, 9)] + ["global batch size: 16"], "deepspeed-log", 2.0),
        (["{'train_runtime': 100.0, 'train_steps_per_second': 0.5, 'epoch': 1.0}"], "trainer-log", 2.0),
        (["Max iter time: 1.500000 seconds", "step 1 | epoch 0 | loss 1 | tps 8.0(1.0/gpu)"],
         "automodel-log", 1.5),
        ([f"[INFO|DP=0|TP=0|h]: iteration: {i} / 9 | consumed_tokens: 4M | time_per_iteration_ms: 1.5K |"
          for i in range(1, 9)], "nanotron-log", 1.5),
        ([f"Training epoch 0, iteration {i}/99 | lr: 1 | global_batch_size: 16 | train_step_timing in s: 1.25"
          for i in range(9)], "nemo-log", 1.25),
        ([f"step: {i:2}  loss:  7.0  grad_norm: 1.0  memory: 11GiB(22%)  tps: 1,111  tflops: 2  mfu: 3%"
          for i in range(1, 9)], "torchtitan-log", None),
    ],
)  # fmt: skip
def test_other_logs_bring_their_step(
    tmp_path: Path, lines: list[str], kind: str, seconds: float | None
) -> None:
    path = tmp_path / "run.txt"
    path.write_text("\n".join(lines) + "\n")
    found = import_file(path)
    assert (found.format, found.measured_step_s) == (kind, seconds and pytest.approx(seconds))
    assert "model" in {q.key for q in found.questions}


# Configurations


def test_primus_has_defaults_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "modules:\n  pre_trainer:\n    framework: megatron\n    config: pre_trainer.yaml\n"
        "    model: llama3_8B.yaml\n    overrides:\n      seq_length: ${LEN:8192}\n"
        "      tensor_model_parallel_size: ${TP:2}\n      fp8: null\n      num_layers: 4\n"
    )
    found = import_file(path, [], {"TP": "4"})
    assert values(found, "parallel.tp", "parallel.zero", "training.precision") == [4, 1, "bf16"]
    assert values(found, "model.layers", "model.hidden", "model.vocab") == [
        4,
        4096,
        128512,
    ]  # 251 x 512
    assert values(found, "training.global_batch", "training.steps") == [16, 1000]
    assert {"cluster.node", "cluster.nodes"} == {q.key for q in found.questions}
    assert "training.global_batch" in {a.key for a in found.assumed}


TITAN = """[model]
name = "llama3"
flavor = "8B"
[training]
seq_len = 4096
[parallelism]
data_parallel_shard_degree = 8
tensor_parallel_degree = 2
"""


def test_torchtitan_by_its_defaults(tmp_path: Path) -> None:
    """Local batch 8 on 8 replicas is 64; degrees make 16 devices; FSDP reshards without a pipeline."""
    path = tmp_path / "t.toml"
    path.write_text(TITAN)
    found = import_file(path)
    assert found.devices == 16
    assert values(found, "training.global_batch", "parallel.zero", "training.steps") == [
        64,
        3,
        10_000,
    ]
    assert values(found, "parallel.sequence_parallel", "model.vocab") == [True, 128_256]
    assert found.origins["training.sequence_length"][1:] == (5, "training.seq_len")
    path.write_text(
        TITAN + 'pipeline_parallel_degree = 2\npipeline_parallel_schedule = "Interleaved1F1B"\n'
    )
    found = import_file(path)
    # 32 layers and two places for embedding and head over 4 stages: 9, 9, 8, 8, less one at each end.
    assert values(found, "parallel.vp", "parallel.zero", "parallel.chunk_layers") == [
        2,
        2,
        [8, 9, 8, 7],
    ]


def test_a_script_with_a_job_file_of_torchtitan(tmp_path: Path) -> None:
    """The command line wins over the file; 16 devices of the launcher are those of the degrees."""
    (tmp_path / "t.toml").write_text(TITAN)
    path = tmp_path / "run.sh"
    path.write_text("torchrun --nproc_per_node 8 --nnodes 2 -m torchtitan.train --job.config_file ./x/t.toml"
                    " --training.seq_len 8192\n")  # fmt: skip
    found = import_file(path)
    assert values(found, "training.sequence_length", "cluster.nodes") == [8192, 2]
    assert found.devices == 16


def test_swift_has_defaults_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "s.sh"
    path.write_text(
        "NPROC_PER_NODE=8 megatron sft --model Qwen/Qwen3-8B --max_length 4096 --train_iters 9\n"
    )
    found = import_file(path)
    assert (found.format, found.devices_per_node) == ("swift-sh", 8)
    assert values(found, "training.global_batch", "parallel.zero", "parallel.recompute") == [
        16,
        1,
        "selective",
    ]
    assert values(found, "model.hidden", "training.sequence_length") == [4096, 4096]


def test_a_trainer_and_its_settings(tmp_path: Path) -> None:
    """2 x 4 rounds x 16 devices = 128; the stage stands in the file beside."""
    (tmp_path / "ds.json").write_text(
        json.dumps({"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}})
    )
    path = tmp_path / "t.sh"
    path.write_text(
        "deepspeed --num_nodes 2 --num_gpus 8 train.py --deepspeed ds.json --model_name_or_path"
        " meta-llama/Llama-3.1-8B --per_device_train_batch_size 2 --gradient_accumulation_steps 4"
        " --model_max_length 4096 --max_steps 100\n"
    )
    found = import_file(path)
    assert values(found, "training.global_batch", "parallel.zero", "training.precision") == [
        128,
        2,
        "bf16",
    ]
    assert values(found, "model.hidden", "stack", "parallel.recompute") == [
        4096,
        "deepspeed",
        "none",
    ]
    assert found.devices == 16


def test_megatron_deepspeed_has_its_stage_in_settings_that_the_script_writes(
    tmp_path: Path,
) -> None:
    """--num-experts 1 is no mixture of experts; without a pipeline pp is 1."""
    path = tmp_path / "ds.sh"
    path.write_text(
        'Z=2\ncat <<EOT > ds.json\n{"zero_optimization": {"stage": $Z}}\nEOT\n'
        f"deepspeed --num_nodes 2 --num_gpus 8 pretrain_gpt.py {SIZES} {BATCH} --deepspeed"
        " --deepspeed_config ds.json --num-experts 1 --pipeline-model-parallel-size 2"
        " --no-pipeline-parallel --deepspeed-activation-checkpointing --topk 2\n"
    )
    found = import_file(path)
    assert (found.format, found.devices) == ("megatron-deepspeed-sh", 16)
    assert values(found, "parallel.zero", "parallel.pp", "parallel.recompute", "model.experts") == [
        2, 1, "full", None]  # fmt: skip


def test_settings_that_a_script_writes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.sh"
    path.write_text(
        'STAGE=3\ncat <<EOT > ds.json\n{"zero_optimization": {"stage": $STAGE}}\nEOT\n'
        "deepspeed --num_nodes 1 --num_gpus 8 t.py --deepspeed ds.json --model_name_or_path Qwen/Qwen3-8B"
        " --max_steps 5 --model_max_length 2048\n"
    )
    assert value(import_file(path), "parallel.zero") == 3


def test_a_recipe_of_llama_factory(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "model_name_or_path: Qwen/Qwen2.5-7B-Instruct\nstage: sft\nbf16: true\nmax_steps: 5\n"
    )
    found = import_file(path)
    assert values(found, "model.lora_rank", "training.sequence_length", "parallel.recompute") == [
        8, 2048, "full"]  # fmt: skip
    assert {"cluster.node", "cluster.nodes", "training.global_batch"} == {
        q.key for q in found.questions
    }
    path.write_text("model_name_or_path: Qwen/Qwen2.5-7B-Instruct\nstage: dpo\n")
    with pytest.raises(InputError, match=r"r.yaml:2:1: stage: dpo: reinforcement learning"):
        import_file(path)


def test_automodel(tmp_path: Path) -> None:
    """48 layers in stages of 4 are 12, three to each of 4 ranks; weights stay gathered under a pipeline."""
    path = tmp_path / "a.yaml"
    path.write_text(
        "step_scheduler: {global_batch_size: 64, local_batch_size: 4, max_steps: 9}\n"
        "distributed:\n  strategy: fsdp2\n  pp_size: 4\n  dp_size: 8\n  ep_size: 8\n"
        "  pipeline: {pp_schedule: interleaved1f1b, layers_per_stage: 4}\n"
        "model: {pretrained_model_name_or_path: Qwen/Qwen3-30B-A3B}\ndataset: {seq_len: 4096}\n"
    )
    found = import_file(path)
    assert values(found, "parallel.vp", "parallel.zero", "training.micro_batch") == [3, 2, 1]
    assert found.devices == 32


def test_flagscale_and_bridge_and_test_cases_have_megatrons_names(tmp_path: Path) -> None:
    flat = {"num_layers": 24, "hidden_size": 2048, "num_attention_heads": 16, "seq_length": 4096}
    files = {
        "f.yaml": {"system": {"tensor_model_parallel_size": 2, "precision": {"bf16": True}},
                   "model": {**flat, "micro_batch_size": 1, "global_batch_size": 64, "train_iters": 9},
                   "data": {"tokenizer": {"vocab_size": 32000}}},
        "b.yaml": {"model": {**flat, "tensor_model_parallel_size": 2, "vocab_size": 32000, "bf16": True,
                             "num_query_groups": 4, "share_embeddings_and_output_weights": False},
                   "train": {"micro_batch_size": 1, "global_batch_size": 64, "train_iters": 9},
                   "ddp": {"use_distributed_optimizer": True}},
        "c.yaml": {"MODEL_ARGS": {"--num-layers": 24, "--hidden-size": 2048, "--num-attention-heads": 16,
                                  "--seq-length": 4096, "--tensor-model-parallel-size": 2, "--bf16": True,
                                  "--micro-batch-size": 1, "--global-batch-size": 64, "--vocab-size": 32000}},
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_text(json.dumps(data))
        found = import_file(tmp_path / name)
        keys = ("model.layers", "parallel.tp", "training.global_batch", "training.precision")
        assert values(found, *keys) == [24, 2, 64, "bf16"], name
    assert values(import_file(tmp_path / "b.yaml"), "model.kv_heads", "model.tied", "parallel.zero") == [
        4, False, 1]  # fmt: skip


# Bad input


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.sh", "echo hello\n", "starts no training that is known"),
        ("a.sh", "X='", "never ends"),
        ("a.toml", "[a\n", "is no valid TOML"),
        ("a.json", "{", "is no valid JSON"),
        ("a.yaml", "x: 1\n", "is no configuration that is known"),
        ("a.txt", "hello\n", "is of no known format"),
        ("a.sh", f"torchrun pretrain_bert.py {SIZES} {BATCH}\n", "an encoder (BERT)"),
        ("v.yaml", "actor_rollout_ref: {}\n", "reinforcement learning"),
        (
            "a.sh",
            f"torchrun p.py {SIZES} {BATCH} --num-layers many\n",
            "a.sh:1:1: --num-layers: 'many'",
        ),
    ],
)
def test_bad_files_are_refused_in_words(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        import_file(path)
    assert words in str(caught.value)


def test_a_named_file_is_read_only_beside(tmp_path: Path) -> None:
    """A path out of the folder is not followed: the model is asked for."""
    outside = tmp_path / "config.json"
    outside.write_text(
        '{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100,'
        ' "intermediate_size": 256}'
    )
    folder = tmp_path / "inner"
    folder.mkdir()
    path = folder / "r.yaml"
    path.write_text("model_name_or_path: ../config.json\nstage: sft\n")
    assert "model" in {q.key for q in import_file(path).questions}
    (folder / "config.json").write_text(outside.read_text())
    path.write_text("model_name_or_path: config.json\nstage: sft\n")
    assert value(import_file(path), "model.layers") == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2", (1, 2)), ("(128, 0)", (128, 0)), ("[0]*3+[1]*2", (0, 0, 0, 1, 1)),
        ("([0]*1+[1]*2)", (0, 1, 1)), ("[0,1]*2", (0, 1, 0, 1)), ("[1]", (1,)),
    ],
)  # fmt: skip
def test_lists_are_parsed_and_never_evaluated(text: str, expected: tuple[int, ...]) -> None:
    assert number_list(text) == expected


@pytest.mark.parametrize("text", ["__import__('os')", "[1]*99999999", "[x]", "a,b"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(PatternError):
        number_list(text)


def test_layouts_of_a_pipeline() -> None:
    assert [s.count("t") for s in pipeline_layout("Et*3|(tt|)*2,m|L")] == [3, 2, 2, 0, 0]
    with pytest.raises(PatternError):
        pipeline_layout("Ex|L")
