"""Scripts on virtual devices under PyTorch's CPU build: virtual times, bytes and counts are asserted."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from ersatz.device_models.shipped import DATA
from ersatz.sim.answers.answer import Answer
from ersatz.sim.answers.cases import run
from ersatz.sim.answers.emulate import emulate as answer
from ersatz.sim.emulate.records import EmulateResult
from ersatz.sim.errors import InfeasibleError, InputError
from ersatz.sim.step.step import simulate_step
from ersatz.sim.validation.reading.rows import scenario_of
from ersatz.sim.validation.reading.table import read_table
from tests.pace import pace

pytest.importorskip("torch", reason="the emulator runs scripts under PyTorch")

SCRIPTS = Path(__file__).parent / "emulated"
GPT = ("--layers", "2", "--width", "128", "--heads", "2", "--block", "64")
MIB = 2**20
ONE_STEP = ("--node", "h800-8", "--steps", "1")


def emulated(
    folder: Path, options: Sequence[str], script: Sequence[str], status: int = 0
) -> tuple[Any, str]:
    """Return the record of an emulation, and what was said on standard error."""
    said = StringIO()
    with redirect_stderr(said), contextlib.chdir(folder):
        if status:
            with pytest.raises(InfeasibleError if status == 1 else InputError) as refused:
                asked(options, script)
            return None, f"{said.getvalue()}\n{refused.value}"
        found = asked(options, script).record()
    assert "Traceback" not in said.getvalue()
    return json.loads(json.dumps(found)), said.getvalue()


def asked(options: Sequence[str], script: Sequence[str]) -> Answer[EmulateResult]:
    """Ask as the command line does, from `--option value` pairs."""
    pairs = {k.removeprefix("--"): v for k, v in zip(options[::2], options[1::2], strict=True)}
    numbers = {k: int(pairs.pop(k)) for k in ("nodes", "steps", "seed") if k in pairs}
    if "patience" in pairs:
        numbers["patience_s"] = int(pairs.pop("patience"))
    standins = [name for name in pairs.pop("with", "").split(",") if name]
    return answer(script, **numbers, **pairs, standins=standins)


@cache
def gpt(*options: str, script: tuple[str, ...] = GPT, launcher: str = "") -> tuple[Any, str]:
    """Return an emulation of the small GPT; each is run once."""
    words = [*launcher.split(), str(SCRIPTS / "gpt.py"), *script]
    return emulated(SCRIPTS, options, words)


def test_a_script_runs_as_it_is_and_reads_the_simulated_clock() -> None:
    result, said = gpt("--node", "h800-8")
    times = [
        float(line.split("time ")[1].split(" ms")[0])
        for line in said.splitlines()
        if "iter" in line
    ]
    assert len(times) == 4
    assert times[-1] == pytest.approx(1e3 * result["step_s"], rel=1e-3)
    assert result["shown_as"] == "NVIDIA H800"
    assert any("item() of an unknown float32 at gpt.py" in place for place in result["policies"])


def test_its_flops_are_those_of_its_shapes() -> None:
    """6 x rows x weights of the products, the head with them, and attention: 2 forward, 5 backward."""
    result, _ = gpt("--node", "h800-8")
    rows, width, layers = 4 * 64, 128, 2
    products = 6 * rows * (layers * 12 * width**2 + 256 * width)
    reach = (64 + 1) / 2
    attention = layers * 2 * 4 * 64 * reach * width * 7
    assert result["ranks"][0]["flop"] == pytest.approx(products + attention, rel=1e-9)


def test_live_clock_and_step_engine_give_one_number() -> None:
    result, _ = gpt("--node", "h800-8", "--nodes", "8")
    row = result["ranks"][0]
    assert row["step_s"] == pytest.approx(row["live_s"], rel=1e-9)
    assert sum(result["breakdown"].values()) == pytest.approx(result["step_s"], rel=1e-9)


def buckets(sizes: Sequence[int], first: int, cap: int) -> list[int]:
    """Return the bytes of PyTorch's buckets: full as soon as the limit is reached, the first sooner."""
    found, held, limit = [], 0, first
    for size in sizes:
        held += size
        if held >= limit:
            found.append(held)
            held, limit = 0, cap
    return [*found, held] if held else found


def test_ddp_at_64_ranks_has_the_buckets_of_pytorch() -> None:
    """Gradients in the order in which they come: the head last, for its weight is the embedding's."""
    shape = ("--layers", "4", "--width", "512", "--heads", "8", "--block", "64", "--vocab", "2048")
    result, _ = gpt(
        "--node", "h800-8", "--nodes", "8", script=shape, launcher="torchrun --nproc-per-node 8"
    )
    c = 512
    norm, square = 4 * c, 4 * c * c
    layer = [4 * square, 4 * square, norm, norm, square, 3 * square, norm, norm]  # from its end
    sizes = [norm, norm, *(4 * layer), 4 * 64 * c, 4 * 2048 * c]
    expected = buckets(sizes, MIB, 25 * MIB)
    (row,) = (r for r in result["collectives"] if r["kind"] == "all_reduce")
    assert row["count"] == len(expected) > 2
    assert row["count"] * row["nbytes"] == pytest.approx(sum(sizes), rel=1e-12)
    assert (row["size"], row["stride"]) == (64, 1)


def test_two_emulations_give_the_same_bytes() -> None:
    one, _ = gpt("--node", "h800-8")
    two, _ = gpt("--node", "h800-8", "--seed", "0")
    for result in (one, two):
        for row in result["ranks"]:
            row["cpu_s"] = row["rss_bytes"] = 0  # of this machine, not of the virtual one
    assert json.dumps(one) == json.dumps(two)


def test_eight_ranks_equal_two_classes_folded() -> None:
    """Two stages of four replicas: a rank of each stage stands for all, waits and sums included."""
    words = ["torchrun", "--nproc-per-node", "8", str(SCRIPTS / "pipeline.py")]
    folded, _ = emulated(SCRIPTS, ["--node", "h800-8", "--ranks", "0,4", "--steps", "2"], words)
    whole, _ = emulated(SCRIPTS, ["--node", "h800-8", "--ranks", "all", "--steps", "2"], words)
    assert len(whole["ranks"]) == 8
    assert whole["step_s"] == pytest.approx(folded["step_s"], rel=0.01)
    for row in whole["ranks"]:
        one = folded["ranks"][row["rank"] // 4]
        assert row["step_s"] == pytest.approx(one["step_s"], rel=0.01)
        assert (row["kernels"], row["flop"]) == (one["kernels"], one["flop"])
        assert row["peak_reserved"] == one["peak_reserved"]


def test_a_script_survives_an_out_of_memory_that_it_catches() -> None:
    shape = ("--survive", "--layers", "4", "--width", "1024", "--heads", "16", "--block", "1024",
             "--batch", "256", "--vocab", "50304")  # fmt: skip
    result, said = gpt("--node", "a100-40-8", script=shape)
    assert "out of memory with 256: CUDA out of memory. Tried to allocate" in said
    size = int(said.rsplit("batch ", 1)[1].split()[0])
    assert size < 256
    assert result["memory_bytes"] <= result["capacity_bytes"]


def test_without_a_net_the_same_script_is_infeasible(tmp_path: Path) -> None:
    shape = ["--layers", "4", "--width", "1024", "--heads", "16", "--block", "1024", "--batch", "256",
             "--vocab", "50304"]  # fmt: skip
    _, said = emulated(
        tmp_path, ["--node", "a100-40-8"], [str(SCRIPTS / "gpt.py"), *shape], status=1
    )
    assert "rank 0: OutOfMemoryError: CUDA out of memory" in said


def test_ascend_scripts_find_torch_npu_and_transfer(tmp_path: Path) -> None:
    result, said = emulated(tmp_path, ["--node", "ascend-910b2-8"], [str(SCRIPTS / "transfer.py")])
    assert result["shown_as"] == "Ascend910B2"
    assert "npu:0 True Ascend910B2" in said
    assert result["step_s"] > 0


WRONG = {
    "print('nothing')": "made no optimizer step and no backward pass in 0 operators",
    "import nowhere_to_be_found": "No module named 'nowhere_to_be_found'",
    "open('data.bin')": "No such file or directory: 'data.bin'",
    "import os; os._exit(0)": "ended without a trace",
    "import os; os._exit(3)": "ended with status 3",
    "import torch; torch.ones(2, device='cuda') @ torch.ones(3, device='cuda')": "RuntimeError",
    "import torch_npu": "No module named 'torch_npu'",
    "import torch.multiprocessing as m; m.spawn(print, nprocs=4)": "train.py:1 starts 4 processes by itself",
}


@pytest.mark.parametrize("code", list(WRONG))
def test_a_script_that_fails_ends_with_a_sentence(code: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(code)
    _, said = emulated(tmp_path, ["--node", "h800-8"], ["train.py"], status=2)
    assert WRONG[code] in said.splitlines()[-1]


def test_a_script_that_never_ends_is_given_up_with_all_that_it_started(tmp_path: Path) -> None:
    code = "import subprocess, time\nsubprocess.Popen(['sleep', '300'])\nwhile True: time.sleep(1)"
    (tmp_path / "train.py").write_text(code)
    _, said = emulated(tmp_path, ["--node", "h800-8", "--patience", "5"], ["train.py"], status=2)
    assert "has not ended after 5 s" in said


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_ends_all_ranks(sign: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        "open('rank' + os.environ['RANK'], 'w').write(str(os.getpid()))\n"
        "while True: time.sleep(1)"
    )
    (tmp_path / "train.py").write_text(code)
    words = [sys.executable, "-m", "ersatz", "emulate", "--node", "h800-8", "--ranks", "all", "--",
             "torchrun", "--nproc-per-node", "2", "train.py"]  # fmt: skip
    parent = subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # else ignored in the background
    )  # fmt: skip
    files = [tmp_path / "rank0", tmp_path / "rank1"]
    deadline = time.monotonic() + 300
    while not all(f.exists() and f.read_text() for f in files) and time.monotonic() < deadline:
        time.sleep(0.2)
    parent.send_signal(sign)
    assert parent.wait(60) == (130 if sign == signal.SIGINT else -signal.SIGKILL)
    pids = [int(file.read_text()) for file in files]
    while any(map(_lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_lives, pids))


def _lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


MEANINGS = """
import datetime, os, subprocess, time
import torch
from time import perf_counter
assert torch.cuda.is_available() and torch.cuda.device_count() == 1
x = torch.randint(0, 5, (1000,), device='cuda')
assert x.unique().tolist() == [0, 1, 2, 3, 4]
assert int((x == 3).sum()) == len(x[x == 3]) == torch.bincount(x).tolist()[3]
router = torch.randn(64, 8, device='cuda').topk(2, dim=-1).indices
assert torch.bincount(router.flatten(), minlength=8).sum().item() == 128
ones = torch.ones(4, device='cuda'); view = ones[:2]
view += 1
assert ones.tolist() == [2, 2, 1, 1]
big = torch.randn(4096, 4096, device='cuda', dtype=torch.bfloat16)
begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
begin.record(); y = big @ big; end.record(); torch.cuda.synchronize()
assert 0.1 < begin.elapsed_time(end) < 1, begin.elapsed_time(end)
a, now = perf_counter(), datetime.datetime.now(); time.sleep(3600)
assert perf_counter() - a >= 3600 and (datetime.datetime.now() - now).total_seconds() >= 3600
held = torch.cuda.memory_allocated(); z = torch.empty(1 << 20, device='cuda'); del y
assert torch.cuda.memory_allocated() - held == (4 << 20) - (32 << 20)
assert 'NVIDIA H800' in subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True).stdout
torch.cuda.memory._record_memory_history(); w = torch.empty(1 << 22, device='cuda'); del w
held = torch.cuda.memory._snapshot()
assert [e['action'] for e in held['device_traces'][0]] == ['alloc', 'free_requested', 'free_completed']
assert sum(s['allocated_size'] for s in held['segments']) == torch.cuda.memory_allocated()
from torch.cuda import _memory_viz
assert '16.0MiB' in _memory_viz.trace(held) and '<script' in _memory_viz.trace_plot(held)
import pynvml
pynvml.nvmlInit(); assert pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)) == 'NVIDIA H800'
torch.save({'x': big}, 'checkpoint.pt'); assert os.path.getsize('checkpoint.pt') < 10_000
assert torch.load('checkpoint.pt')['x'].shape == (4096, 4096)
p = torch.nn.Parameter(torch.zeros(8, device='cuda'))
optimizer = torch.optim.SGD([p]); scaler = torch.amp.GradScaler('cuda')
for _ in range(4):
    scaler.scale(p.sum()).backward(); scaler.step(optimizer); scaler.update()
assert scaler.get_scale() == 65536
print('all as it should be')
"""


def test_integers_are_real_floats_are_not_and_time_is_simulated(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(MEANINGS)
    _, said = emulated(tmp_path, ["--node", "h800-8", "--steps", "0"], ["train.py"])
    assert "all as it should be" in said
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pt", "train.py"]


def test_a_cuda_graph_is_its_kernels_with_one_launch(tmp_path: Path) -> None:
    """The same kernels as eager; alone it ends with the device's work, not with the host's launches."""
    result, said = emulated(
        tmp_path, ["--node", "h800-8", "--steps", "0"], [str(SCRIPTS / "graph.py")]
    )
    eager, graph = (float(said.split(f"{name} ")[1].split()[0]) for name in ("eager", "graph"))
    assert graph < 0.7 * eager
    row = result["ranks"][0]
    assert row["flop"] == pytest.approx(
        (3 * 8 - 1) * 2 * 64 * 256 * 256
    )  # the input wants no gradient
    assert any("CUDA graphs" in line for line in result["assumptions"])


UNUSUAL = """
import torch
@torch.library.custom_op('mine::twist', mutates_args=())
def twist(x: torch.Tensor) -> torch.Tensor:
    return x.clone()
twist.register_fake(lambda x: torch.empty_like(x))
@torch.compile
def never(x):
    return x
@torch.compile
def doubled(x):
    print(x.sum().item())
    return 2 * x
p = torch.nn.Parameter(torch.ones(1 << 20, device='cuda'))
optimizer = torch.optim.SGD([p])
for _ in range(3):
    (COMPILED(twist(p.detach())) + p).sum().backward()
    optimizer.step()
torch.save(p, '/nowhere/else.pt')
"""


def test_what_is_not_as_in_life_is_said(tmp_path: Path) -> None:
    """An operator without a rule has its share; a file outside is not written; compilation stands first."""
    (tmp_path / "train.py").write_text(UNUSUAL.replace("COMPILED", "doubled"))
    result, _ = emulated(tmp_path, ["--node", "h800-8", "--steps", "0"], ["train.py"])
    said = result["assumptions"]
    assert said[0].startswith("TORCH.COMPILE COULD NOT TRACE")
    assert any("without a rule" in line and "mine.twist" in line for line in said)
    assert any("not written: /nowhere/else.pt" in line for line in said)
    (tmp_path / "train.py").write_text(UNUSUAL.replace("COMPILED", ""))
    result, _ = emulated(tmp_path, ["--node", "h800-8", "--steps", "0"], ["train.py"])
    assert not any(
        "COMPILE" in line for line in result["assumptions"]
    )  # what is not called does not count


ROW = """
question: How long is a step of Llama 3 8B under FSDP on 512 H800?
model: llama3-8b
stack: torch-eager
cluster: {node: h800-8, nodes: 64}
training: {sequence_length: 4096, global_batch: 512, micro_batch: 1, precision: bf16}
parallel: {dp: 512, zero: 3, recompute: none}
"""


def test_fsdp2_of_8b_at_512_ranks(tmp_path: Path) -> None:
    """65 gathers: each layer forward and backward, and the rest once; 33 reductions in fp32."""
    words = ["torchrun", "--nproc-per-node", "8", str(SCRIPTS / "llama_fsdp.py")]
    result, said = emulated(SCRIPTS, ["--node", "h800-8", "--nodes", "64", "--steps", "2"], words)
    counts = {row["kind"]: row for row in result["collectives"] if row["size"] == 512}
    assert counts["all_gather"]["count"] == 65
    assert counts["reduce_scatter"]["count"] == 33
    weights = 8_030_261_248
    gathered = counts["reduce_scatter"]["count"] * counts["reduce_scatter"]["nbytes"]
    assert gathered == pytest.approx(4 * weights, rel=0.02)  # each summed in fp32, padded to 512
    assert result["ranks"][0]["rss_bytes"] < 3e9
    assert result["ranks"][0]["cpu_s"] < pace() * 3 * 8  # three steps and what comes before them
    assert "loss 1.000" in said
    (described,) = run(_written(tmp_path, ROW)).values()  # the same step from the table's columns
    assert result["step_s"] == pytest.approx(described.step.duration_s, rel=0.10)


def _written(folder: Path, text: str) -> Path:
    (folder / "row.yaml").write_text(text)
    return folder / "row.yaml"


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_the_trainer_of_hugging_face_reports_simulated_time(tmp_path: Path) -> None:
    words = [str(SCRIPTS / "trainer.py"), "--layers", "2", "--hidden", "512", "--steps", "4"]
    result, said = emulated(tmp_path, ["--node", "h800-8", "--steps", "0"], words)
    assert "train_samples_per_second" in said
    assert result["step_s"] > 0
    assert (tmp_path / "out" / "checkpoint-4" / "model.safetensors").exists()


def test_stages_of_a_pipeline_wait_for_each_other() -> None:
    """Both stages take one step; it is longer than a stage's own work by the other's first micro-batches."""
    words = ["torchrun", "--nproc-per-node", "2", str(SCRIPTS / "pipeline.py")]
    result, _ = emulated(SCRIPTS, ["--node", "h800-8", "--ranks", "all", "--steps", "2"], words)
    first, last = result["ranks"]
    assert first["step_s"] == pytest.approx(last["step_s"], rel=0.02)
    alone = sum(s for cause, s in result["breakdown"].items() if cause not in ("send", "launch"))
    assert (4 + 2 - 1) / 4 * alone * 0.9 < result["step_s"] < (4 + 2 - 1) / 4 * alone * 1.4


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.parametrize(("model", "routed"), [("mixtral", 2 * 2 * 256), ("qwen3", 2 * 4 * 256)])
def test_mixtures_of_experts_route_real_tokens(model: str, routed: int) -> None:
    """2 layers x 256 tokens x 2 of 8 or 4 of 16 experts: uneven, and none is lost."""
    words = [str(SCRIPTS / "experts.py"), "--model", model]
    result, said = emulated(SCRIPTS, ONE_STEP, words)
    counts = json.loads(said.rsplit("tokens per expert ", 1)[1].splitlines()[0])
    assert sum(counts) == routed
    assert max(counts) > min(counts) > 0
    assert any("grouped" in name for name, *_ in result["operators"])
    assert not any("cannot run on real values" in line for line in result["assumptions"])


def blocks(*options: str) -> Any:
    """Return the record of two blocks on one device."""
    words = [str(SCRIPTS / "compiled.py"), *options]
    return emulated(SCRIPTS, ONE_STEP, words)[0]


def test_a_compiled_script_has_the_products_of_eager_and_fewer_kernels() -> None:
    """What Dynamo cannot trace runs operator by operator, as if it were not compiled, and is said first."""
    eager, compiled = blocks(), blocks("--compile")
    assert compiled["ranks"][0]["flop"] == pytest.approx(eager["ranks"][0]["flop"], rel=1e-9)
    assert compiled["breakdown"]["elementwise"] < eager["breakdown"]["elementwise"]
    assert not any("COMPILE" in line for line in compiled["assumptions"])
    assert any(name.startswith("fused ") for name, *_ in compiled["operators"])
    refused = blocks("--compile", "--print")
    assert refused["assumptions"][0].startswith("TORCH.COMPILE COULD NOT TRACE")
    assert refused["ranks"][0]["flop"] == eager["ranks"][0]["flop"]


def kernels(function: Any, *given: Any) -> list[float]:
    """Return the bytes of each fused kernel of a function."""
    from torch.fx.experimental.proxy_tensor import make_fx

    from ersatz.sim.emulate.virtual.fusing import fused

    groups = dict.fromkeys(fused(make_fx(function, tracing_mode="fake")(*given)).values())
    return [g.kernel.nbytes for g in groups if g.kernel is not None]


def test_a_fused_kernel_reads_and_writes_once_what_others_need() -> None:
    """1,000 rows of 100 numbers of 4 bytes: chains, a norm, a product between, and what is computed twice."""
    import torch

    x, w = torch.ones(1000, 100), torch.ones(100, 100)
    size = 4 * 1000 * 100
    assert kernels(lambda x: (x.exp() + 1).tanh(), x) == [2 * size]
    assert kernels(lambda x: x * (x * x).sum(1, keepdim=True).rsqrt(), x) == [2 * size]
    assert kernels(lambda x, w: ((x.exp() @ w) + 1).tanh(), x, w) == [2 * size, 2 * size]
    columns_then_rows = kernels(lambda x: x.sum(0).sum() + x.sum(1).sum(), x)
    assert sum(columns_then_rows) == pytest.approx(2 * size, rel=0.03)  # each reads x: two ways
    twice = kernels(lambda x, w: ((x.exp() @ w) + x.exp(), (x.exp() @ w).sum(1)), x, w)
    # two exponentials are written for products, the third is computed by the kernel that adds it
    assert sum(twice) == 2 * 2 * size + 3 * size + size + 4 * 1000


def test_layers_of_transformer_engine_are_their_products() -> None:
    """Each product three times; queries see themselves and what is before; eight bits change no count."""
    found = {}
    for name in ("", "--fp8"):
        words = [str(SCRIPTS / "layers.py"), *([name] if name else [])]
        options = [*ONE_STEP, "--with", "transformer_engine"]
        found[name], _ = emulated(SCRIPTS, options, words)
    flop = 3 * 2 * 2 * 512 * 256 * 1024 + 4 * (512 * 513 / 2) * 256 * 3.5
    for result in found.values():
        assert result["ranks"][0]["flop"] == pytest.approx(flop, rel=1e-9)
    casts = {name: count for name, count, _ in found["--fp8"]["operators"]}["cast to fp8"]
    assert casts == 2 * 3  # of each layer: what comes in, the weight, the gradient
    assert found["--fp8"]["ranks"][0]["peak_allocated"] != found[""]["ranks"][0]["peak_allocated"]


ROWS = {  # of the measured table: the script in the style of what ran, its stand-ins, what it needs
    "mosaic-0018": ("mpt.py", "flash_attn", "torch"),
    "titan-0001": ("titan.py --compile", "", "torch"),
    "dgxc-0229": ("mcore_llama.py --document 200", "apex,transformer_engine", "megatron"),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", list(ROWS))
def test_an_emulated_row_is_the_row_predicted_from_its_columns(row: str) -> None:
    """Two ways to one number: operators that a framework emits, and the engine's list of a layer."""
    script, standins, package = ROWS[row]
    pytest.importorskip(package)
    table = read_table(DATA / "measured" / "training_runs.csv")
    scenario = scenario_of(next(r for r in table.runs if r.id == row))
    (pool,) = scenario.pools
    name, *rest = script.split()
    words = ["torchrun", "--nproc-per-node", "8", str(SCRIPTS / name), *rest]
    options = [
        "--node",
        pool.node.name,
        "--nodes",
        str(pool.nodes),
        "--stack",
        pool.stack.name,
        "--steps",
        "1",
    ]
    options += ["--with", standins] if standins else []
    result, _ = emulated(SCRIPTS, options, words)
    assert result["step_s"] == pytest.approx(simulate_step(scenario).duration_s, rel=0.10)


def megatron(*options: str) -> tuple[Any, str]:
    """Return an emulation of Megatron-Core on four devices, each rank a process."""
    words = [
        "torchrun",
        "--nproc-per-node",
        "4",
        str(SCRIPTS / "mcore.py"),
        "--micro",
        "2",
        *options,
    ]
    return emulated(SCRIPTS, ["--node", "h800-8", "--ranks", "all", "--steps", "1"], words)


@pytest.mark.skipif(find_spec("megatron") is None, reason="megatron-core is not installed")
def test_stages_and_shards_of_megatron_core_all_differ() -> None:
    """TP 2 x PP 2: of two micro-batches each goes forth and back once; the head is the last stage's."""
    result, said = megatron("--layers", "2", "--tp", "2", "--pp", "2")
    rows = {(r["rank"], r["kind"], r["size"], r["stride"]): r for r in result["collectives"]}
    for rank in range(4):
        sent = rows[rank, "send", 2, 2]
        assert sent["count"] == 2 * 2  # one sent and one received of each micro-batch
        assert sent["nbytes"] == 512 * 512 * 2
        assert (rank, "all_reduce", 2, 1) in rows
    first, last = result["ranks"][0]["flop"], result["ranks"][2]["flop"]
    assert last - first == pytest.approx(2 * 6 * 512 * 512 * 32000 / 2, rel=1e-9)
    assert "done True" in said


@pytest.mark.skipif(find_spec("megatron") is None, reason="megatron-core is not installed")
def test_experts_of_megatron_core_exchange_real_token_counts() -> None:
    """EP 4: each rank sends and computes by its own tokens, so that no two groups of them are alike."""
    result, _ = megatron("--layers", "1", "--tp", "1", "--ep", "4", "--experts", "8")
    sent = [r for r in result["collectives"] if r["kind"] == "all_to_all"]
    assert {(r["size"], r["stride"], r["count"]) for r in sent} == {(4, 1, sent[0]["count"])}
    assert len({r["nbytes"] for r in sent}) > 1
    flops = [r["flop"] for r in result["ranks"]]
    assert max(flops) > min(flops)


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
@pytest.mark.parametrize(
    ("stage", "kind"), [(1, "all_reduce"), (2, "all_gather"), (3, "reduce_scatter")]
)
def test_deepspeed_trains(stage: int, kind: str) -> None:
    words = ["deepspeed", str(SCRIPTS / "zero.py"), "--stage", str(stage), "--layers", "1"]
    options = ["--node", "h800-8", "--nodes", "2", "--steps", "1"]
    result, _ = emulated(SCRIPTS, options, words)
    assert (kind, 16) in {(r["kind"], r["size"]) for r in result["collectives"]}


def test_stand_ins_count_what_the_extensions_would_do() -> None:
    """Products of the input and of the head, three attentions: two of 256 tokens, one of 100 and 156.

    Queries see themselves and what is before them; backward does 5 products for 2. The input wants no
    gradient; the head's logits and both gradients are made on the way forward.
    """
    options = ["--with", "apex,flash_attn,liger_kernel,xformers"]
    result, said = emulated(SCRIPTS, [*ONE_STEP, *options], [str(SCRIPTS / "extensions.py")])
    products = 2 * 2 * 256 * 256 * 768 + 3 * 2 * 256 * 256 * 1000
    pairs = 2 * 256 * 257 / 2 + 100 * 101 / 2 + 156 * 157 / 2
    attention = 4 * pairs * 2 * (2 * 64) * 3.5
    assert result["ranks"][0]["flop"] == pytest.approx(products + attention, rel=1e-9)
    assert "(256, 4, 64)" in said
    assert any("stand-ins in place of compiled packages" in a for a in result["assumptions"])


def test_an_extension_without_a_stand_in_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import flash_attn\nflash_attn.flash_attn_sparse_func")
    options = ["--node", "h800-8", "--with", "flash_attn"]
    _, said = emulated(tmp_path, options, ["train.py"], status=2)
    assert "flash_attn.flash_attn_sparse_func has no stand-in in the emulator" in said
    _, said = emulated(tmp_path, ["--node", "h800-8"], ["train.py"], status=2)
    assert "--with flash_attn puts a stand-in in its place" in said
    _, said = emulated(tmp_path, ["--node", "h800-8", "--with", "triton"], ["train.py"], status=2)
    assert "expected one of apex, flash_attn" in said
