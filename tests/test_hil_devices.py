"""Accelerators that are not here: the paths of `npu` and ROCm under a PyTorch that only pretends.

What this cannot show, and nobody has tried: real device events, real L2 sizes and out-of-memory
errors, fused attention and AdamW of torch_npu and ROCm, 8-bit products outside a CPU.
"""

import io
import json
import os
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra [hil])")

from calibrations import ORIGIN, made_calibration  # noqa: E402
from fake_npu import fake_module  # noqa: E402
from rich.console import Console  # noqa: E402

from ersatz.device_models.catalog.reading import load_device  # noqa: E402
from ersatz.device_models.kernels.kernel import matmul, memory_kernel  # noqa: E402
from ersatz.sim.errors import InputError  # noqa: E402
from ersatz.sim.hil import benchmark  # noqa: E402
from ersatz.sim.hil.device import attached as attached_module  # noqa: E402
from ersatz.sim.hil.device.attached import Attached, attach  # noqa: E402
from ersatz.sim.hil.device.measure import Unmeasurable, measure  # noqa: E402
from ersatz.sim.hil.device.recipes import RECIPES  # noqa: E402
from ersatz.sim.hil.fit import fit_calibration  # noqa: E402
from ersatz.sim.hil.proof.proof import prove  # noqa: E402
from ersatz.sim.hil.proof.subjects import Subject  # noqa: E402
from ersatz.sim.hil.shapes import SMALL  # noqa: E402
from ersatz.sim.report.measured import calibration as report  # noqa: E402
from ersatz.sim.workload.model import Model  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SLOWER = 1e-3  # s that the made-up device takes for every kernel beside the host's own time


class SlowEvent:
    """A device event of a device that works a millisecond on everything."""

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        self.at += SLOWER

    def elapsed_time(self, other: "SlowEvent") -> float:
        return (other.at - self.at) * 1e3


def pretend(name: str, *, hip: str | None, cuda: str | None, count: int = 8) -> Any:
    """A PyTorch whose only accelerator is made up; its tensors live on the host."""
    module = fake_module(name)
    module.Event, module.device_count = SlowEvent, lambda: count
    return types.SimpleNamespace(
        cuda=module, __version__="2.13.0+pretended", zeros=torch.zeros, backends=torch.backends,
        version=types.SimpleNamespace(hip=hip, cuda=cuda),
        device=lambda kind, index: torch.device("cpu"),
    )  # fmt: skip


@pytest.fixture
def rocm(monkeypatch: pytest.MonkeyPatch) -> Attached:
    torch.set_num_threads(1)
    fake = pretend("AMD Instinct MI300X", hip="6.4", cuda=None)
    fake.zeros = lambda size, device: torch.zeros(min(size, 1024))
    monkeypatch.setattr(attached_module, "import_torch", lambda: fake)
    small = replace(SMALL, tokens=(32, 64), hidden=(64, 128))
    monkeypatch.setattr(benchmark, "ranges_of", lambda backend: small)
    return attach("rocm:1")


def test_rocm_is_told_from_cuda(rocm: Attached) -> None:
    assert (rocm.backend, rocm.catalog_name, rocm.driver) == ("rocm", "mi300x", "6.4")
    assert rocm.clock == "device events"
    assert rocm.asynchronous
    assert attach("auto").backend == "rocm"
    assert set(rocm.native_dtypes()) >= {"fp32", "bf16", "fp16"}
    with pytest.raises(InputError, match="rocm:9: does not exist: 8 attached"):
        attach("rocm:9")


def test_times_on_rocm_are_those_of_its_events(rocm: Attached) -> None:
    point = measure(rocm, matmul("up", 32, 32, 32, "fp32"))
    assert point.seconds > SLOWER
    assert 0 < point.host_s < point.seconds  # the host issues and goes on


@pytest.mark.slow
def test_a_benchmark_a_fit_and_a_proof_on_rocm(rocm: Attached) -> None:
    journal = benchmark.run_benchmark(rocm, ["bf16"], 10.0, most_kernels=150)
    assert not journal.missing
    origin = benchmark.origin_of(rocm, journal)
    assert (origin.backend, origin.device) == ("rocm", "mi300x")
    calibration, _ = fit_calibration(origin, load_device("mi300x"), journal.points)
    # every kernel takes a millisecond: a step of k kernels is predicted at k milliseconds at least
    assert calibration.parameters["kernel_launch_s"] > 0
    tiny = Subject(Model("tiny", 1, 64, 4, 2, 16, 128, 256), 1, 16)
    (judged,) = prove(rocm, calibration, 0.01, [tiny])
    assert judged.predicted_s > 25 * SLOWER
    assert judged.measured_s > SLOWER


def test_models_that_fill_the_memory_are_passed_over_in_the_proof(
    rocm: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ersatz.sim.hil.proof import proof

    def train(model: Model, *sizes: int, **_: object):  # type: ignore[no-untyped-def]
        if model.name == "large":
            raise RuntimeError("HIP out of memory. Tried to allocate 20 GiB")
        return lambda: 0.0

    monkeypatch.setattr(proof, "training_step", train)
    calibration = made_calibration(origin=replace(ORIGIN, device="mi300x", backend="rocm"))
    large, small = (
        Subject(Model(name, 1, 64, 4, 2, 16, 128, 256), 1, 16) for name in ("large", "small")
    )
    judged = prove(rocm, calibration, 0.0, [large, small])
    assert [j.name for j in judged] == ["small 1 x 16"]
    with pytest.raises(InputError, match="too little memory"):
        prove(rocm, calibration, 0.0, [large])
    monkeypatch.setattr(report, "subjects_of", lambda backend: (large, small))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report.render_proof(calibration, judged))
    assert "memory is too small: large 1 x 16" in console.export_text()


def test_cuda_that_was_asked_for_as_rocm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = pretend("NVIDIA H200", hip=None, cuda="12.8")
    monkeypatch.setattr(attached_module, "import_torch", lambda: fake)
    with pytest.raises(InputError, match="it speaks CUDA"):
        attach("rocm")
    assert attach("cuda").catalog_name == "h200"
    unknown = pretend("NVIDIA Unheard", hip=None, cuda="12.8")
    monkeypatch.setattr(attached_module, "import_torch", lambda: unknown)
    with pytest.raises(InputError, match="name one by --as"):
        attach("cuda")
    assert attach("cuda", catalog_name="h800").catalog_name == "h800"  # nothing speaks against it


def test_a_kernel_that_fills_the_memory_is_passed_over(rocm: Attached) -> None:
    emptied: list[int] = []
    rocm.module.empty_cache = lambda: emptied.append(1)
    with pytest.raises(Unmeasurable, match="memory is too small"):
        measure(rocm, memory_kernel("copy", 1.0, dtype="fp32", m=2.0**33, n=2.0**12))
    assert emptied


@pytest.mark.slow
def test_every_kernel_runs_on_a_fake_npu() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "fake_npu.py")], capture_output=True, text=True,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["backend"], found["device"]) == ("npu", "ascend-910b3")
    assert found["clock"] == "device events"
    assert {f"{operation} bf16" for operation in RECIPES} <= set(found["operations"])
    assert set(found["missing"]) <= {
        f"grouped{end}: has no recipe" for end in ("", " dgrad", " wgrad")
    }
    assert found["trained"] in ("whole step", "DataDependentOutputException")
    assert found["launch_s"] > 0
