"""Time one kernel on the attached device: medians, with operands where a training step leaves them."""

from __future__ import annotations

import statistics

from ersatz.device_models.calibration.measured import Point
from ersatz.device_models.kernels.kernel import Kernel
from ersatz.device_models.kernels.operations import operation_of
from ersatz.sim.hil.device.attached import Attached
from ersatz.sim.hil.device.recipes import Operands, Trial, prepare

COLD_SAMPLES, WARM_SAMPLES = 7, 3
LONG_S = 0.05  # kernels longer than this are sampled less often


class Unmeasurable(Exception):
    """The device cannot run this kernel; the message says why."""


def measure(attached: Attached, kernel: Kernel, *, seed: int = 0, engine_s: float = 0.0) -> Point:
    """Return the measured point of a kernel.

    `engine_s` is what autograd needs to start, which a step pays once and not per kernel: it is
    taken off what the host's clock told, and nothing else, since a device's events do not hold it.
    Raises `Unmeasurable` when the device has no such kernel or too little memory.
    """
    return measure_trial(attached, kernel, prepare_trial(attached, kernel, seed), engine_s)


def measure_trial(attached: Attached, kernel: Kernel, trial: Trial, engine_s: float) -> Point:
    """Return the measured point of a kernel that is ready to run; raises `Unmeasurable`."""
    try:
        cold, host = _cold_samples(attached, trial)
        warm = [attached.time_queued(trial.run, trial.run)[0] for _ in range(WARM_SAMPLES)]
    except (RuntimeError, MemoryError) as error:
        raise unmeasurable(attached, kernel, error) from error
    start = engine_s if trial.backward else 0.0
    issue = max(statistics.median(host) - start, 0.1 * statistics.median(host))
    if attached.asynchronous:
        start = 0.0
    middle = statistics.median(cold)
    if middle <= 0.0:
        words = f"{operation_of(kernel)}: the clock did not move while it ran"
        raise Unmeasurable(words)
    return Point(
        kernel, max(middle - start, middle * 0.1), max(statistics.median(warm) - start, middle * 0.05),
        _spread(cold), len(cold), issue,
    )  # fmt: skip


def _cold_samples(attached: Attached, trial: Trial) -> tuple[list[float], list[float]]:
    """Return (device seconds, host seconds) of calls that find the cache as a step leaves it."""
    first = [attached.time_once(trial.run)[0] for _ in range(2)][-1]
    count = COLD_SAMPLES if first < LONG_S else max(COLD_SAMPLES - 4, 3)

    def emptied() -> None:
        attached.empty_cache(trial.fresh)

    cold, host = zip(*(attached.time_queued(trial.run, emptied) for _ in range(count)), strict=True)
    return list(cold), list(host)


def sample_in_turn(attached: Attached, trial: Trial, engine_s: float, *, emptied: bool) -> float:
    """Return the seconds of one call that follows other kernels, with its fresh operands at hand.

    Where not `emptied`, the cache is what the kernels before have left, as in a step.
    """

    def prelude() -> None:
        if emptied:
            attached.empty_cache(trial.fresh)
        else:
            for operand in trial.fresh:
                operand.sum()

    seconds = attached.time_queued(trial.run, prelude)[0]
    start = engine_s if trial.backward and not attached.asynchronous else 0.0
    return max(seconds - start, 0.1 * seconds)


def prepare_trial(attached: Attached, kernel: Kernel, seed: int = 0) -> Trial:
    """Return a kernel with its operands on the device; raises `Unmeasurable`."""
    import torch

    try:
        dtype = attached.tensor_dtype(kernel.dtype)
        generator = torch.Generator().manual_seed(seed)
        return prepare(kernel, Operands(attached.device, dtype, generator, attached.pieces))
    except KeyError as error:
        raise Unmeasurable(f"{operation_of(kernel)}: has no recipe") from error
    except (RuntimeError, MemoryError) as error:
        raise unmeasurable(attached, kernel, error) from error


def unmeasurable(attached: Attached, kernel: Kernel, error: BaseException) -> Unmeasurable:
    """Return what to raise for an error of PyTorch: whose kernel it was, and its first line."""
    name = f"{operation_of(kernel)} {kernel.dtype} {kernel.m:.0f} x {kernel.n:.0f} x {kernel.k:.0f}"
    if attached.out_of_memory(error):
        return Unmeasurable(f"{name}: the device's memory is too small")
    reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return Unmeasurable(f"{name}: {reason}")


def _spread(samples: list[float]) -> float:
    ordered = sorted(samples)
    low, high = ordered[len(ordered) // 5], ordered[-1 - len(ordered) // 5]
    return (high - low) / statistics.median(ordered)


def engine_start(attached: Attached) -> float:
    """Return the host's seconds in which autograd starts and does nothing."""
    import torch

    x = torch.ones(1, device=attached.device, requires_grad=True)
    out, grad = x.view(1), torch.ones(1, device=attached.device)

    def run() -> object:
        return torch.autograd.grad(out, x, grad, retain_graph=True)

    told = [attached.time_queued(run, lambda: None) for _ in range(60)]
    return statistics.median(host if attached.asynchronous else s for s, host in told[10:])
