"""Run the calibration on a made-up Ascend device: PyTorch's fake tensors under the name `npu`.

A script of its own, because PyTorch takes one such name per process. Prints what it found as JSON.
"""

import json
import sys
import time
import types
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from ersatz.device_models.catalog.reading import load_device
from ersatz.device_models.kernels.operations import operation_of
from ersatz.sim.hil import benchmark
from ersatz.sim.hil.device.attached import attach
from ersatz.sim.hil.fit import fit_calibration
from ersatz.sim.hil.proof.transformer import training_step
from ersatz.sim.hil.shapes import SMALL
from ersatz.sim.workload.model import Model


class Event:
    """A device event that is told the time of the host."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: "Event") -> float:
        return (other.at - self.at) * 1e3


def fake_module(name: str) -> Any:
    """What `torch.npu` has of what we use, and what PyTorch asks of a backend."""
    module = types.ModuleType("npu")
    answers: dict[str, Any] = dict(
        is_available=lambda: True, device_count=lambda: 8, set_device=lambda index: None,
        current_device=lambda: 0, get_device_name=lambda index: name, empty_cache=lambda: None,
        get_device_properties=lambda index: types.SimpleNamespace(L2_cache_size=192 * 2**20),
        synchronize=lambda *args: None, Event=Event, is_initialized=lambda: True,
        get_amp_supported_dtype=lambda: [torch.float16, torch.bfloat16],
    )  # fmt: skip
    for key, value in answers.items():
        setattr(module, key, value)
    return module


def main() -> None:
    """Benchmark, fit, and train one step on the fake device."""
    sys.modules["torch_npu"] = types.ModuleType("torch_npu")
    _setup_privateuseone_for_python_backend("npu", backend_module=fake_module("Ascend910B3"))
    small = replace(SMALL, tokens=(32, 64), hidden=(64, 128))
    benchmark.ranges_of = lambda backend: small  # type: ignore[attr-defined]
    with FakeTensorMode(allow_non_fake_inputs=True):
        attached = attach("npu")
        journal = benchmark.run_benchmark(attached, ["bf16", "fp8"], 10.0, most_kernels=110)
        model = Model("tiny", 1, 64, 4, 2, 16, 128, 256)
        step = training_step(model, 1, 16, device=attached.device, dtype=torch.bfloat16)
        try:
            step()
            trained = "whole step"
        except Exception as error:  # the loss has no value to read
            trained = type(error).__name__
    origin = benchmark.origin_of(attached, journal)
    calibration, _ = fit_calibration(origin, load_device("ascend-910b3"), journal.points)
    print(json.dumps({
        "backend": origin.backend, "device": origin.device, "hardware": origin.hardware,
        "clock": origin.clock, "missing": journal.missing, "trained": trained,
        "operations": sorted({f"{operation_of(p.kernel)} {p.kernel.dtype}" for p in journal.points}),
        "launch_s": calibration.parameters["kernel_launch_s"],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
