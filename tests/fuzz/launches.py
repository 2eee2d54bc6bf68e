"""Kinds of input from others' tools: launch files, logs and networks to import, layouts to export, measured
steps to anchor, tables of links, captured traces."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

from ersatz.sim.hil.captured import read_captured
from ersatz.sim.hil.links.tables import read_table

from . import seeds
from .judge import Input
from .mutate import mutated, mutated_bytes, mutated_rows, to_json, to_yaml
from .words import NUMBERS, TEXTS

SCRIPT = r"""#!/bin/bash
# how we train
set -e
export CUDA_DEVICE_MAX_CONNECTIONS=1
NODES=${NODES:-2}; GPUS=8
WORLD=$((NODES * GPUS))
TP="${TP:=4}"
case "$SIZE" in
  big) LAYERS=48 ;;
  *) LAYERS=24 ;;
esac
if [ $TP -gt 2 ] && [[ -n "$NODES" ]]; then
  MORE="--sequence-parallel"
fi
for x in 1 2; do LAST=$x; done
ARGS=(
  --num-layers $LAYERS --hidden-size 2048 --num-attention-heads 16 --seq-length 4096
  --max-position-embeddings 4096 --tensor-model-parallel-size $TP --pipeline-model-parallel-size 2
  --micro-batch-size 1 --global-batch-size $((WORLD * 4)) --train-iters 1000 --bf16 --swiglu
  --vocab-size 32000 --use-distributed-optimizer $MORE
)
torchrun --nproc_per_node $GPUS --nnodes "$NODES" pretrain_gpt.py ${ARGS[@]} \
  --recompute-activations 2>&1 | tee "log-$(date +%F).txt"
"""
BATCH = """#!/bin/bash
#SBATCH --nodes=4
#SBATCH --gpus-per-node=8
srun python -m torchtitan.train --job.config_file train.toml --training.seq_len 8192
"""
TITAN = """[model]
name = "llama3"
flavor = "8B"
[training]
seq_len = 4096
local_batch_size = 2
steps = 1000
[parallelism]
data_parallel_shard_degree = 8
tensor_parallel_degree = 2
pipeline_parallel_degree = 2
pipeline_parallel_schedule = "Interleaved1F1B"
[activation_checkpoint]
mode = "selective"
"""
DEEPSPEED = {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True},
             "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}},
             "gradient_accumulation_steps": 4,
             "activation_checkpointing": {"partition_activations": True}}  # fmt: skip
PRIMUS = """
modules:
  pre_trainer:
    framework: megatron
    config: pre_trainer.yaml
    model: llama3_8B.yaml
    overrides: {seq_length: "${LEN:8192}", tensor_model_parallel_size: "${TP:2}", fp8: null, num_layers: 4,
      global_batch_size: 16, train_iters: 10}
"""
FACTORY = """
model_name_or_path: meta-llama/Llama-3.1-8B
stage: sft
finetuning_type: full
deepspeed: ds.json
cutoff_len: 2048
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
num_train_epochs: 1.0
bf16: true
"""
GRAPH = """
devices:
  - {name: host, components: [{name: xpu, type: xpu, count: 8}, {name: nic, type: nic, count: 8}]}
  - {name: switch, components: [{name: port, type: custom, count: 64}]}
instances: [{name: hosts, device: host, count: 16}]
links: [{name: eth, bandwidth: {giga_bits_per_second: 400}}]
"""
TITAN_LOG = "\n".join(
    f"step: {i:2}  loss:  7.0  grad_norm: 1.0  memory: 11GiB(22%)  tps: 1,111  tflops: 2  mfu: 3%"
    for i in range(1, 9)
)
SPEED_LOG = "\n".join([*(f"epoch=0/micro_step={i}/global_step={i}, RunningAvgSamplesPerSec=7,"
                         " CurrSamplesPerSec=8.0, MemAllocated=1GB" for i in range(1, 9)),
                       "global batch size: 16", "world_size: 8"])  # fmt: skip
MEGATRON_LOG = "\n".join([
    "using world size: 16, data-parallel size: 4, tensor-model-parallel size: 2,"
    " pipeline-model-parallel size: 2",
    "------------------------ arguments ------------------------",
    *(f"  {key} ................ {value}" for key, value in {
        "num_layers": 24, "hidden_size": 2048, "num_attention_heads": 16, "seq_length": 4096,
        "micro_batch_size": 1, "global_batch_size": 64, "padded_vocab_size": 32256, "bf16": True,
        "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2, "train_iters": 2000}.items()),
    "-------------------- end of arguments ---------------------",
    *(f" iteration {i:8}/ 2000 | consumed samples: {64 * i} | elapsed time per iteration (ms): {s} |"
      for i, s in enumerate((30000.0, 3000.0, 2000.0, 9000.0, 2200.0, 2100.0), 1)),
])  # fmt: skip
TOPOLOGY = "\n".join([
    "\t" + "\t".join([*(f"GPU{i}" for i in range(4)), "NIC0", "CPU Affinity", "NUMA Affinity"]),
    *("\t".join([f"GPU{i}", *("X" if i == j else "NV18" for j in range(4)), "PIX", "0-47", "0"])
      for i in range(4)), "NIC0\tPIX\tPIX\tPIX\tPIX\tX", "", "Legend:", "  X = Self",
])  # fmt: skip
XML = """<system version="1"><cpu numaid="0">
 <pci busid="0000:0f:00.0" class="0x030200" device="0x2330" link_speed="32.0 GT/s PCIe" link_width="16">
  <gpu dev="0" sm="90" rank="0" gdr="1"><nvlink target="0000:01:00.0" count="18" tclass="0x068000"/>
  </gpu></pci>
 <nic><net name="mlx5_0" dev="0" speed="400000" latency="0.0" gdr="1"/></nic></cpu></system>
"""


def _nccl() -> str:
    """Return what nccl-tests print for 16 ranks at 100 us and 50 GB/s of bus bandwidth."""
    lines = ["# Collective test starting: all_reduce_perf",
             *(f"#  Rank {r:2d} Group  0 Pid {900 + r} on host{r // 8} device {r % 8} [0x1a] NVIDIA H20"
               for r in range(16)), "#  size count type redop root time algbw busbw"]  # fmt: skip
    for size in (1048576, 16777216, 268435456):
        seconds = 100e-6 + size * 1.875 / 50e9
        rate = size / seconds / 1e9
        one = f"{seconds * 1e6:.2f} {rate:.3f} {rate * 1.875:.3f} 0"
        lines.append(f"{size} {size // 4} float sum -1 {one} {one}")
    return "\n".join([*lines, ""])


NCCL = _nccl()
TEXT_FILES: Mapping[str, tuple[str, ...]] = {
    "run.sh": (SCRIPT, SCRIPT, SCRIPT, BATCH),
    "train.toml": (TITAN,),
    "run.log": (MEGATRON_LOG, TITAN_LOG, SPEED_LOG),
    "topo.txt": (TOPOLOGY, NCCL),
    "topo.xml": (XML,),
}
SNIPPETS = ("$(", "${", "}", '"', "'", "\\\n", "<<EOF\n", "$((", "))", "[[", "fi\n", "done\n", "case x in\n",
            "--num-layers", "--hidden-size 0", " -1 ", "${X:?no}", "${#ARGS[@]}", "$((1/0))", "$((9**9**9))",
            "&&", "source ./run.sh\n", "while true; do\n", "x=$x$x;", "for i in {1..99999999}; do :; done\n",
            "--global-batch-size 1e9", "--pipeline-model-parallel-layout 'Et*|(tt|)*3L'", "`date`",
            "@/run.sh", "../../etc/passwd", "[model]", "= [", "\x1b[31m", "|")  # fmt: skip


def _chopped(text: str, rng: random.Random) -> bytes:
    """Change a text by its lines and words, as people and other tools would."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        words = lines[at].split(" ")
        chance = rng.random()
        if chance < 0.15:
            del lines[at]
        elif chance < 0.3:
            lines.insert(at, rng.choice(lines))
        elif chance < 0.5:
            lines[at] = lines[at] + rng.choice((" ", "")) + rng.choice(SNIPPETS)
        elif chance < 0.85:
            value = rng.choice((str(rng.choice(NUMBERS)), rng.choice(TEXTS), rng.choice(SNIPPETS)))
            words[rng.randrange(len(words))] = value
            lines[at] = " ".join(words)
        else:
            lines[at] = lines[at].replace(
                rng.choice((" ", "=", ":", ",", '"')), rng.choice((" ", "=", ":", ""))
            )
        lines = lines or [""]
    raw = "\n".join(lines).encode("utf-8", "replace")
    return mutated_bytes(raw, rng) if rng.random() < 0.1 else raw


def imports(rng: random.Random) -> Input:
    """A launch file, configuration, log or network of others, imported or run as it is."""
    name = rng.choice(("run.sh", "run.sh", "run.sh", *TEXT_FILES, "c.yaml", "ds.json"))
    files = {"train.toml": TITAN.encode(), "ds.json": to_json(DEEPSPEED), "run.sh": SCRIPT.encode()}
    if name in TEXT_FILES:
        files[name] = _chopped(rng.choice(TEXT_FILES[name]), rng)
    elif name == "ds.json":
        files[name] = to_json(mutated(DEEPSPEED, [DEEPSPEED], rng))
    else:
        trees = [seeds.tree(text) for text in (PRIMUS, FACTORY, GRAPH)]
        files[name] = to_yaml(mutated(rng.choice(trees), trees, rng))
    node = ("--node", "h100-8") if rng.random() < 0.7 else ()
    more = rng.choice(((), (), ("--define", "NODES=4"), ("--define", f"TP={rng.choice(NUMBERS)}"),
                       ("--args", str(rng.choice(TEXTS)).replace("\0", ""))))  # fmt: skip
    if rng.random() < 0.3:
        return Input(
            "import", files, ("run", f"@/{name}", "--set", "cluster.node=h100-8", "--json", "-")
        )
    where = rng.choice((("--json", "-"), ("--out", "@/o.yaml"), ()))
    return Input("import", files, ("import", f"@/{name}", *node, *more, *where))


FORMATS = ("megatron", "mindspeed", "primus", "torchtitan", "automodel", "deepspeed", "slurm")


def exports(rng: random.Random) -> Input:
    """A scenario, changed, written as another tool's flags."""
    trees = [seeds.tree(text) for text in (seeds.RUN, seeds.EXPERTS, seeds.POOLS, seeds.ORDERS)]
    files = {"itself.yaml": to_yaml(mutated(rng.choice(trees), trees, rng))}
    where = rng.choice((("--json", "-"), ("--json", "@/o.json"), ()))
    return Input("export", files, ("export", "@/itself.yaml", "--as", rng.choice(FORMATS), *where))


ANCHOR = """
question: What does a step say?
model: {name: m, layers: 4, hidden: 512, heads: 8, vocab: 1000}
stack: torchtitan
cluster: {node: h100-8, nodes: 1}
training: {sequence_length: 512, global_batch: 64, micro_batch: 1, precision: bf16}
parallel: {tp: 1, zero: 3, recompute: none}
published: [{metric: step.duration_s, value: 0.2 s, source: own}]
"""


def anchors(rng: random.Random) -> Input:
    """Measured steps of one's own: a table, a scenario that publishes one, or a log."""
    name = rng.choice(("a.yaml", "a.yaml", "runs.csv", "run.log"))
    files: dict[str, bytes] = {}
    if name == "a.yaml":
        tree = seeds.tree(ANCHOR)
        files[name] = to_yaml(mutated(tree, [tree], rng))
    elif name == "runs.csv":
        head, lines = seeds.rows("training_runs.csv", 40, "torchtitan")
        text = "\n".join([head, rng.choice(lines), ""])
        files[name] = mutated_rows(text, rng).encode("utf-8", "replace")
    else:
        files[name] = _chopped(MEGATRON_LOG, rng)
    more = ("--set", "cluster.node=h100-8") if name == "run.log" else ()
    stack = (
        ("--stack", rng.choice(("torchtitan", "megatron-core", "x"))) if rng.random() < 0.2 else ()
    )
    where = rng.choice((("--out", "@/o.yaml"), ("--json", "-"), ()))
    return Input("anchor", files, ("anchor", f"@/{name}", *more, *stack, *where))


def links(rng: random.Random) -> Input:
    """A table of collectives, read by `calibrate --table`, or alone as it is read there."""
    raw = mutated_rows(NCCL, rng, " ").encode("utf-8", "replace")
    raw = mutated_bytes(raw, rng) if rng.random() < 0.1 else raw
    if rng.random() < 0.5:
        return Input("links", {"itself.txt": raw}, call=link_table)
    word = rng.choice(("", "", "all_reduce=", "x="))
    more = ("--ranks", str(rng.choice((0, 1, 2, 16))), "--per-node", str(rng.choice((0, 1, 8))))
    argv = ("calibrate", "--table", f"{word}@/itself.txt", "--as", rng.choice(("h20", "cpu", "x")),
            "--out", "@/o.yaml", *(more if rng.random() < 0.3 else ()))  # fmt: skip
    return Input("links", {"itself.txt": raw}, argv)


def link_table(folder: Path) -> None:
    """Read a table of collectives."""
    if (folder / "itself.txt").exists():
        read_table(folder / "itself.txt")


def _operator(name: str, *args: object) -> str:
    return json.dumps([name, args, []])


CAPTURED = {
    "traceEvents": [], "displayTimeUnit": "ms",
    "otherData": {"script": "train.py", "operators": [
        {"signature": _operator("aten.mm.default", ["tensor", [64, 32], [32, 1], "float32", "cuda"],
                                ["tensor", [32, 16], [16, 1], "float32", "cuda"]), "count": 3,
         "kernel": {"name": "mm", "kind": "matmul", "dtype": "fp32", "m": 64.0, "n": 16.0, "k": 32.0,
                    "groups": 1, "sequence": 0, "flop": 65536.0, "nbytes": 14336.0}},
        {"signature": _operator("aten.mul.Tensor", ["tensor", [64], [1], "float32", "cuda"], 0.5), "count": 1,
         "kernel": {"name": "mul", "kind": "memory", "dtype": "bf16", "m": 0.0, "n": 0.0, "k": 0.0,
                    "groups": 1, "sequence": 0, "flop": 0.0, "nbytes": 512.0}}]},
}  # fmt: skip


def captured(rng: random.Random) -> Input:
    """A trace of an emulation, whose operators a calibration would time."""
    raw = to_json(mutated(CAPTURED, [CAPTURED], rng))
    if rng.random() < 0.2:
        text = rng.choice(CAPTURED["otherData"]["operators"])["signature"]  # type: ignore[index]
        changed = mutated_bytes(text.encode(), rng).decode("utf-8", "replace")
        raw = to_json(CAPTURED).replace(json.dumps(text).encode(), json.dumps(changed).encode())
    raw = mutated_bytes(raw, rng) if rng.random() < 0.1 or raw == to_json(CAPTURED) else raw
    return Input("captured", {"trace.json": raw}, call=captured_trace)


def captured_trace(folder: Path) -> None:
    """Read a captured trace."""
    if (folder / "trace.json").exists():
        read_captured(folder / "trace.json")


KINDS = {
    "import": imports,
    "export": exports,
    "anchor": anchors,
    "links": links,
    "captured": captured,
}
CALLS = {"links": link_table, "captured": captured_trace}
WEIGHTS = {"import": 4}
