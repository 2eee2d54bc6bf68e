"""The proof: train real small models on the attached device, and predict their steps beforehand.

Every model is simulated as `ersatz run` would, one device, plain PyTorch, with the calibrated kernel
times alone; nothing is fitted to a step. Steps of all models take turns, so that what else runs on
the machine meets all of them; the median step is compared, its spread is the noise.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ersatz.device_models.calibration.measured import (
    Calibration,
    calibrated_device,
    calibrated_timer,
)
from ersatz.device_models.calibration.table_timer import table_timer
from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import list_nodes, load_device, load_node, load_stack
from ersatz.device_models.kernels.kernel import Timer
from ersatz.sim.hil.benchmark import kernel_key
from ersatz.sim.hil.device.attached import Attached, dtype_of, unusable
from ersatz.sim.hil.proof.transformer import training_step
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario, Training
from ersatz.sim.step.step import step_seconds
from ersatz.sim.workload.model import Experts, Model

WARM_UP, FEWEST_STEPS, MOST_STEPS = 2, 5, 25


@dataclass(frozen=True, slots=True)
class Subject:
    """One model to be trained for some steps."""

    model: Model
    batch: int
    sequence: int

    @property
    def name(self) -> str:
        """What a table calls it."""
        return f"{self.model.name} {self.batch} x {self.sequence}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One subject: what was predicted, and what its steps took."""

    name: str
    parameters: int
    measured_s: float  # median step
    predicted_s: float  # by the calibrated timer
    table_s: float  # by the table timer
    times: tuple[float, ...]  # of its steps
    kernels: int  # distinct kernels of the step
    known_kernels: int  # of them, measured in the calibration with exactly these sizes

    @property
    def error(self) -> float:
        """Predicted / measured - 1."""
        return self.predicted_s / self.measured_s - 1.0

    @property
    def steps(self) -> int:
        """Steps that were timed."""
        return len(self.times)

    @property
    def noise(self) -> float:
        """(80th - 20th percentile) / median of its steps."""
        low, high = np.quantile(self.times, [0.2, 0.8])
        return float(high - low) / self.measured_s

    @property
    def table_error(self) -> float:
        """The same with the table timer."""
        return self.table_s / self.measured_s - 1.0


def _gpt(hidden: int, layers: int, heads: int, vocab: int) -> Model:
    return Model(f"gpt-{hidden}-{layers}", layers, hidden, heads, heads, hidden // heads, 4 * hidden,
                 vocab, gated=False)  # fmt: skip


def _llama(hidden: int, layers: int, heads: int, kv: int, inner: int, vocab: int) -> Model:
    return Model(
        f"llama-{hidden}-{layers}", layers, hidden, heads, kv, hidden // heads, inner, vocab
    )


def _moe(hidden: int, layers: int, heads: int, kv: int, vocab: int, experts: Experts) -> Model:
    return Model(f"moe-{hidden}-{layers}", layers, hidden, heads, kv, hidden // heads, 0, vocab,
                 experts=experts)  # fmt: skip


# Shapes of no calibration: they were written down, not drawn.
SMALL = (
    Subject(_gpt(192, 3, 6, 2048), 4, 128), Subject(_gpt(256, 4, 4, 5000), 2, 256),
    Subject(_gpt(384, 4, 6, 4096), 3, 160), Subject(_gpt(448, 3, 7, 8000), 1, 512),
    Subject(_gpt(512, 3, 8, 8192), 4, 128), Subject(_gpt(640, 2, 10, 3000), 2, 192),
    Subject(_gpt(320, 6, 5, 1000), 16, 32), Subject(_llama(192, 5, 6, 6, 512, 6000), 8, 64),
    Subject(_llama(256, 4, 8, 4, 688, 4096), 4, 128), Subject(_llama(384, 3, 6, 2, 1024, 8000), 2, 256),
    Subject(_llama(512, 4, 8, 8, 1376, 4096), 1, 512), Subject(_llama(320, 5, 5, 5, 864, 6000), 6, 96),
    Subject(_llama(768, 2, 12, 4, 2048, 2000), 1, 384), Subject(_llama(576, 3, 9, 3, 1536, 7000), 3, 128),
    Subject(_moe(256, 3, 4, 4, 4096, Experts(8, 2, 352)), 4, 128),
    Subject(_moe(384, 2, 6, 3, 3000, Experts(16, 4, 192, shared=1)), 2, 256),
)  # fmt: skip
LARGE = (
    Subject(_gpt(1024, 12, 16, 50304), 16, 1024), Subject(_gpt(2048, 8, 16, 50304), 8, 1024),
    Subject(_gpt(2560, 8, 20, 50304), 4, 2048), Subject(_gpt(4096, 4, 32, 50304), 4, 2048),
    Subject(_gpt(6144, 2, 48, 50304), 2, 2048), Subject(_llama(1536, 12, 12, 4, 4096, 32000), 16, 1024),
    Subject(_llama(2048, 8, 16, 8, 5632, 32000), 8, 2048),
    Subject(_llama(3072, 6, 24, 8, 8192, 32000), 4, 2048),
    Subject(_llama(4096, 4, 32, 32, 11008, 32000), 4, 2048),
    Subject(_llama(4096, 4, 32, 8, 14336, 128256), 1, 8192),
    Subject(_llama(5120, 3, 40, 8, 13824, 32000), 2, 4096),
    Subject(_llama(8192, 2, 64, 8, 28672, 32000), 1, 4096),
    Subject(_moe(2048, 4, 16, 16, 102400, Experts(64, 6, 1408, shared=2)), 2, 4096),
)  # fmt: skip


def subjects_of(backend: str) -> tuple[Subject, ...]:
    """Return the models of the proof on a backend."""
    return SMALL if backend == "cpu" else LARGE


def precision_of(backend: str) -> str:
    """Return the precision in which the proof trains."""
    return "fp32" if backend == "cpu" else "bf16"


def single_node(calibration: Calibration) -> Node:
    """Return a node with one device, the calibrated one."""
    name = calibration.origin.device
    device = calibrated_device(load_device(name), calibration)
    nodes = (load_node(node) for node in list_nodes())
    node = next((n for n in nodes if n.device.name == name), load_node("cpu-1"))
    return replace(node, device=device, devices=1, nics=min(node.nics, 1))


def scenario_of(subject: Subject, node: Node, precision: str) -> Scenario:
    """Return the step study of one subject on one device."""
    return Scenario(
        subject.name, "", 0, subject.model, (Pool("", node, 1, load_stack("torch-eager")),),
        Training(subject.sequence, subject.batch, subject.batch, precision),  # type: ignore[arg-type]
        Parallel(zero=0, sequence_parallel=False),
    )  # fmt: skip


def predict(subject: Subject, calibration: Calibration, timer: Timer) -> float:
    """Return the seconds of a step, simulated with the kernel times of `timer`."""
    node = single_node(calibration)
    return step_seconds(scenario_of(subject, node, precision_of(calibration.origin.backend)), timer)


def prove(
    attached: Attached, calibration: Calibration, minutes: float,
    subjects: Sequence[Subject] = (), progress: Callable[[float, str], None] | None = None,
) -> list[Judgement]:  # fmt: skip
    """Predict every subject, then train it; those that do not fit the memory are passed over.

    Raises `InputError` when none fits, else `RuntimeError` as PyTorch does.
    """
    chosen = subjects or subjects_of(attached.backend)
    known = {kernel_key(point.kernel) for point in calibration.points}
    forecasts = [_forecast(subject, calibration, known) for subject in chosen]
    together = [chosen] if not attached.asynchronous else [(s,) for s in chosen]
    found: list[Judgement] = []
    for group in together:
        budget = minutes * 60.0 * len(group) / len(chosen)
        try:
            samples = _steps(attached, group, budget, progress)
        except (RuntimeError, MemoryError) as error:
            if not attached.out_of_memory(error):
                raise
            continue
        for subject, times in zip(group, samples, strict=True):
            predicted, table, kernels, familiar = forecasts[chosen.index(subject)]
            found.append(Judgement(
                subject.name, subject.model.params(), statistics.median(times), predicted, table,
                tuple(times), kernels, familiar,
            ))  # fmt: skip
    if not found:
        raise unusable(attached.hardware, "has too little memory for the models of the proof")
    return found


def _forecast(
    subject: Subject, calibration: Calibration, known: set[str]
) -> tuple[float, float, int, int]:
    asked: set[str] = set()
    timer = calibrated_timer(calibration)

    def noting(device, kernel):  # type: ignore[no-untyped-def]
        asked.add(kernel_key(kernel))
        return timer(device, kernel)

    predicted = predict(subject, calibration, noting)
    table = predict(subject, calibration, table_timer(calibration))
    return predicted, table, len(asked), len(asked & known)


def _steps(
    attached: Attached, group: Sequence[Subject], budget_s: float,
    progress: Callable[[float, str], None] | None,
) -> list[list[float]]:  # fmt: skip
    """Return the step times of each subject, taken in turns until the budget is spent."""
    start = time.monotonic()
    runs = list(_prepared(attached, group))
    samples: list[list[float]] = [[] for _ in runs]
    for number in range(MOST_STEPS):
        for place, run in enumerate(runs):
            if progress:
                progress(time.monotonic() - start, group[place].name)
            samples[place].append(attached.time_once(run)[0])
        if number + 1 >= FEWEST_STEPS and time.monotonic() - start > budget_s:
            break
    return samples


def _prepared(attached: Attached, group: Sequence[Subject]) -> Iterator[Callable[[], float]]:
    dtype = dtype_of(precision_of(attached.backend))
    for subject in group:
        run = training_step(subject.model, subject.batch, subject.sequence,
                            device=attached.device, dtype=dtype)  # fmt: skip
        for _ in range(WARM_UP):
            run()
        yield run


def half_width(judged: Sequence[Judgement], level: float = 0.8) -> float:
    """Return the relative half width that covers a single step of an unseen model with `level`.

    Conformal: a quantile of |log (predicted / step)| over all steps, models weighted equally, with
    one model more than there are, whose steps may err by anything.
    """
    errors = [abs(math.log(j.predicted_s / t)) for j in judged for t in j.times]
    weights = [1.0 / j.steps for j in judged for _ in j.times]
    order = np.argsort(errors, kind="stable")
    reached = np.cumsum(np.array(weights)[order])
    place = int(np.searchsorted(reached, level * (len(judged) + 1) - 1e-9))
    return math.expm1(errors[order[min(place, len(errors) - 1)]])


def proof_figures(judged: Sequence[Judgement]) -> dict[str, float]:
    """Return the figures that a calibration keeps of its proof."""
    errors = np.abs([j.error for j in judged])
    return {
        "models": float(len(judged)),
        "mean_error": float(errors.mean()),
        "worst_error": float(errors.max()),
        "half_width": half_width(judged),
        "mean_signed": float(np.mean([j.error for j in judged])),
        "table_mean_error": float(np.mean(np.abs([j.table_error for j in judged]))),
        "table_worst_error": float(np.max(np.abs([j.table_error for j in judged]))),
        "noise": float(np.median([j.noise for j in judged])),
    }
