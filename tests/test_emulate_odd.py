"""Scripts that do what few do: Triton by hand, profilers, own optimizers, experts in eight bits."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_emulate_torch import ONE_STEP, SCRIPTS, emulated

torch = pytest.importorskip("torch", reason="the emulator runs scripts under PyTorch")

MIB = 2**20


def written(folder: Path, code: str, *options: str, status: int = 0) -> tuple[Any, str]:
    """Return the emulation of a script's text on an H800, to its end."""
    (folder / "train.py").write_text(code)
    words = ["--node", "h800-8", "--steps", "0", "--timer", "roofline", *options]
    return emulated(folder, words, ["train.py"], status=status)


def counts(result: Any) -> dict[str, tuple[int, float]]:
    """Return how often each operator runs in a step, and for how long."""
    return {name: (count, seconds) for name, count, seconds in result["operators"]}


RECIPES = {"DelayedScaling": 6.0, "Float8CurrentScaling": 10.0, "Float8BlockScaling": 6 + 8 / 128,
           "MXFP8BlockScaling": 6 + 2 / 32}  # fmt: skip  # bytes of a cast for each number in fp32


@pytest.mark.parametrize("recipe", ["", *RECIPES])
def test_experts_in_eight_bits_are_their_products_and_casts(recipe: str) -> None:
    """256 rows of 256 to 512 columns, three products each; input, three weights and the gradient are cast."""
    words = [str(SCRIPTS / "grouped.py"), *([recipe] if recipe else [])]
    options = ["--with", "transformer_engine", "--timer", "roofline"]
    result, _ = emulated(SCRIPTS, [*ONE_STEP, *options], words)
    assert result["ranks"][0]["flop"] == 3 * 2 * 256 * 256 * 512
    found = counts(result)
    assert ("new scales" in found) == (recipe == "DelayedScaling")  # of maxima of earlier steps
    if not recipe:
        assert "cast to fp8" not in found
        return
    count, seconds = found["cast to fp8"]
    assert count == 1 + 3 + 1
    numbers = 256 * 256 + 3 * 256 * 512 + 256 * 512
    bandwidth = 3.35e12  # bytes/s of an H800
    assert seconds >= numbers * RECIPES[recipe] / bandwidth * (1 - 1e-9)
    assert seconds == pytest.approx(numbers * RECIPES[recipe] / bandwidth, rel=0.02, abs=5 * 2e-6)


BY_HAND = """
import torch, triton, triton.language as tl
@triton.jit
def add_kernel(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) + tl.load(y + at, mask=at < n), mask=at < n)
p = torch.nn.Parameter(torch.ones(1 << 22, device='cuda'))
optimizer = torch.optim.SGD([p])
for _ in range(2):
    out = torch.empty_like(p)
    add_kernel[(4096,)](p, p.detach() * 2, out, 1 << 22, BLOCK=1024)
    (p * out).sum().backward()
    optimizer.step()
"""


def test_a_triton_kernel_launched_by_hand_is_its_bytes_and_is_named(tmp_path: Path) -> None:
    """Three tensors of 16 MiB, each once, at 3.35 TB/s; the report says where, and what share it may hide."""
    pytest.importorskip("triton")
    result, _ = written(tmp_path, BY_HAND)
    count, seconds = counts(result)["triton add_kernel"]
    assert count == 1
    assert seconds == pytest.approx(3 * 16 * MIB / 3.35e12, rel=0.02)
    assert any(
        "train.py:11 launches the Triton kernel add_kernel" in s for s in result["assumptions"]
    )
    assert any("without a rule" in s and "triton add_kernel" in s for s in result["assumptions"])


NO_SHAPES = """
import torch
@torch.library.custom_op('mine::twice', mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    BODY
p = torch.nn.Parameter(torch.ones(4, 4, device='cuda'))
optimizer = torch.optim.SGD([p])
for _ in range(2):
    y = twice(p.detach())
    (p * y[:4]).sum().backward()
    optimizer.step()
print(tuple(y.shape))
"""


def test_an_operator_without_shapes_is_run_to_see_them_or_refused_by_name(tmp_path: Path) -> None:
    result, said = written(tmp_path, NO_SHAPES.replace("BODY", "return x.repeat(2, 1)"))
    assert "(8, 4)" in said
    assert any("shapes of mine.twice.default found" in place for place in result["policies"])
    _, said = written(
        tmp_path, NO_SHAPES.replace("BODY", "raise OSError('no such device')"), status=2
    )
    assert "mine.twice.default at train.py:9 has no rule for the shapes of its result" in said
    assert "register_fake" in said


def test_an_operator_that_cannot_be_timed_live_is_said(tmp_path: Path) -> None:
    """The process that times knows PyTorch alone, and not an operator that the script defines."""
    code = NO_SHAPES.replace("BODY", "return x.repeat(2, 1)")
    result, _ = written(tmp_path, code, "--timer", "live")
    words = [a for a in result["assumptions"] if "cannot be timed live" in a]
    assert words
    assert all(w.startswith("mine.twice.default cannot be timed live (") for w in words)
    assert words[0].endswith("): its time is modelled")
    (modelled,) = [a for a in result["assumptions"] if "could not be timed live" in a]
    assert re.search(r"[0-9.]+ % of the step \(mine\.twice\.default ", modelled)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device to attach")
def test_a_device_that_is_not_attached_is_refused_before_the_script_begins(tmp_path: Path) -> None:
    code = "print('begun')"
    _, said = written(tmp_path, code, "--timer", "live", "--attach", "cuda", status=2)
    assert "--timer live: device cuda: is not attached" in said
    assert "Traceback" not in said
    assert "begun" not in said


def test_what_the_cache_holds_is_said(tmp_path: Path) -> None:
    result, _ = written(tmp_path, OWN_STEPS, "--timer", "live")
    assert any("touched last in the cache of cpu" in a for a in result["assumptions"])


OWN_STEPS = """
import torch
layer = torch.nn.Linear(8, 8).cuda()
for _ in range(3):
    layer(torch.ones(2, 8, device='cuda')).sum().backward()
    with torch.no_grad():
        for p in layer.parameters():
            p -= 0.1 * p.grad
            p.grad = None
"""


@pytest.mark.parametrize(("node", "warp"), [("h800-8", 32), ("mi300x-8", 64)])
def test_threads_in_step_are_the_vendor_s(node: str, warp: int, tmp_path: Path) -> None:
    """A warp of CUDA has 32 threads, a wavefront of AMD's CDNA 64."""
    tell = "print('threads', torch.cuda.get_device_properties(0).warp_size)\n"
    code = f"import torch\n{tell}{OWN_STEPS}"
    _, said = written(tmp_path, code, "--node", node)
    assert f"threads {warp}\n" in said


ASKS = """
import torch
found = torch.cuda.get_device_properties(0)
for name in NAMES:
    try:
        print(name, getattr(found, name))
    except AttributeError as error:
        print('no', error)
print(torch.cuda.temperature())
"""


def test_properties_are_the_architecture_s_or_said_not_to_be_known(tmp_path: Path) -> None:
    """64 KiB of LDS on CDNA 3, 164 KB of shared memory on an A100; of a PPU nobody has published any."""
    names = [
        "gcnArchName",
        "shared_memory_per_block",
        "regs_per_multiprocessor",
        "memory_bus_width",
    ]
    code = ASKS.replace("NAMES", repr(names)) + OWN_STEPS
    result, said = written(tmp_path, code, "--node", "mi300x-8")
    assert "gcnArchName gfx942:sramecc+:xnack-\nshared_memory_per_block 65536\n" in said
    for name in names[2:]:
        assert f"no {name} of Instinct MI300X is not known to the emulator" in said
    assert any(
        place.startswith("temperature in C of the device, 60") for place in result["policies"]
    )
    names = [
        "shared_memory_per_multiprocessor",
        "max_threads_per_block",
        "L2_cache_size",
        "warp_size",
    ]
    code = ASKS.replace("NAMES", repr(names)) + OWN_STEPS
    _, said = written(tmp_path, code, "--node", "a100-80-8")
    assert "shared_memory_per_multiprocessor 167936\nmax_threads_per_block 1024\n" in said
    result, said = written(tmp_path, code, "--node", "ppu-810e-16")
    assert "no shared_memory_per_multiprocessor of T-Head" in said
    assert "warp_size 32\n" in said
    for told in (
        "warp_size of the device, 32 (as CUDA's)",
        "L2_cache_size of the device, 50000000 (not",
    ):
        assert any(place.startswith(told) for place in result["policies"]), told


def test_backward_passes_are_steps_where_no_optimizer_steps(tmp_path: Path) -> None:
    result, _ = written(tmp_path, OWN_STEPS)
    assert result["step_s"] > 0
    assert any("no optimizer of torch.optim has stepped" in line for line in result["assumptions"])


UNSEEN = {
    "from multiprocessing import Process as P\np = P(target=print)\np.start()\np.join()": "at train.py:3 (1)",
    "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])": "not seen, at train.py:2 (1)",
    "import torch\nprint(torch.ones(2).cuda())": "no backward pass in",
}


@pytest.mark.parametrize("code", list(UNSEEN))
def test_a_script_whose_work_is_not_seen_is_told_why(code: str, tmp_path: Path) -> None:
    _, said = written(tmp_path, code, status=2)
    assert UNSEEN[code] in said.splitlines()[-1]


def test_an_endless_loop_is_told_where_it_is(tmp_path: Path) -> None:
    code = "import torch\nx = torch.ones(2, device='cuda')\nwhile True:\n    x = x * 2"
    _, said = written(tmp_path, code, "--patience", "9", status=2)
    assert "it is at train.py:4" in said


DOCUMENTS = """
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
document = torch.arange(1024, device='cuda') // 256
mask = create_block_mask(lambda b, h, q, k: (q >= k) & (document[q] == document[k]), 1, None, 1024, 1024,
                         device='cuda')
w = torch.nn.Parameter(torch.randn(1, 4, 1024, 64, device='cuda', dtype=torch.bfloat16))
optimizer = torch.optim.SGD([w])
for _ in range(2):
    flex_attention(w, w, w, block_mask=mask).sum().backward()
    optimizer.step()
"""


def test_flexible_attention_sees_the_blocks_of_its_mask(tmp_path: Path) -> None:
    """Documents of two blocks of 128: one and two of eight, 192 keys on average; 2 and 5 products."""
    result, _ = written(tmp_path, DOCUMENTS)
    assert result["ranks"][0]["flop"] == pytest.approx(2 * 4 * 1024 * 192 * 64 * (2 + 5))
    assert not any("half of all keys" in line for line in result["assumptions"])


RECOMPUTED = """
import torch
from torch.utils.checkpoint import checkpoint
p = torch.nn.Parameter(torch.ones(64, 64, device='cuda'))
optimizer = torch.optim.SGD([p])
places = torch.randperm(64, device='cuda')
def block(x):
    return (x @ p).exp()[places]  # computing it again is left by an exception inside the last operator
for _ in range(2):
    checkpoint(block, p * 1, use_reentrant=False).sum().backward()
    optimizer.step()
print('gradient', tuple(p.grad.shape))
"""


def test_an_exception_of_pythons_passes_through_indexing(tmp_path: Path) -> None:
    _, said = written(tmp_path, RECOMPUTED)
    assert "gradient (64, 64)" in said
    assert "SystemError" not in said


PROFILED = """
import json, torch
from torch.profiler import ProfilerActivity, profile, schedule
p = torch.nn.Parameter(torch.ones(1024, 1024, device='cuda'))
optimizer = torch.optim.SGD([p])
def ready(found):
    print(found.key_averages().table(sort_by='cuda_time_total'))
    found.export_chrome_trace('profile.json')
with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA],
             schedule=schedule(wait=1, warmup=1, active=1), on_trace_ready=ready) as profiler:
    for _ in range(4):
        (p @ p).sum().backward()
        optimizer.step()
        profiler.step()
"""


def test_a_profiler_sees_the_simulated_device(tmp_path: Path) -> None:
    """One active step: a product forward, two backward."""
    _, said = written(tmp_path, PROFILED)
    (row,) = (line for line in said.splitlines() if line.startswith("aten.mm.default"))
    assert row.split()[-2:] == ["3", "calls"]
    events = json.loads((tmp_path / "profile.json").read_text())["traceEvents"]
    assert sum(e["name"] == "aten.mm.default" for e in events) == 3


def test_norms_over_all_ranks_have_shapes(tmp_path: Path) -> None:
    code = """
import os, torch, torch.distributed as dist
dist.init_process_group('nccl')
net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(torch.nn.BatchNorm2d(4)).cuda()
net = torch.nn.parallel.DistributedDataParallel(net)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for _ in range(2):
    net(torch.randn(2, 4, 8, 8, device='cuda')).sum().backward()
    optimizer.step()
found = [None] * 8
dist.scatter_object_list(scatter_object_output_list=found, scatter_object_input_list=list(range(8)))
print('mine', found[0])
"""
    (tmp_path / "train.py").write_text(code)
    words = ["torchrun", "--nproc-per-node", "8", "train.py"]
    result, said = emulated(tmp_path, ["--node", "h800-8", "--steps", "0"], words)
    assert "mine 0" in said
    assert {("all_gather", 8), ("all_reduce", 8)} <= {
        (r["kind"], r["size"]) for r in result["collectives"]
    }


def test_two_devices_of_a_process_are_said_to_be_counted_as_one(tmp_path: Path) -> None:
    code = """
import torch
p = torch.nn.Parameter(torch.ones(8, device='cuda:0'))
optimizer = torch.optim.SGD([p])
for _ in range(2):
    (p.to('cuda:1') * 2).sum().backward()
    optimizer.step()
"""
    result, _ = written(tmp_path, code)
    assert any("uses device 1 beside others" in line for line in result["assumptions"])


def test_products_in_a_format_that_a_device_lacks_are_said(tmp_path: Path) -> None:
    """An H800 multiplies no fp32 with its matrix units: such products run at the vector units' rate."""
    code = "import torch\n" + OWN_STEPS
    result, _ = written(tmp_path, code)
    (said,) = [line for line in result["assumptions"] if line.startswith("products in fp32, ")]
    assert said.endswith("of matrix units for them; they are taken at 66.9 TFLOP/s")
