"""The proof: train real small models on the attached device, and predict their steps beforehand.

Every model is simulated as `ersatz run` would, one device, plain PyTorch, with the calibrated kernel
times alone; nothing is fitted to a step of theirs. Steps of all models take turns, so that what else runs on
the machine meets all of them; the median step is compared, its spread is the noise. Short steps run
several in a row, as they do in training; of those that stay in a host's cache the quickest tenth
counts, as it does for passes over their kernels.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ersatz.device_models.calibration.measured import Calibration, calibrated_timer, kernel_key
from ersatz.device_models.calibration.table_timer import table_timer
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Kernel, Timer
from ersatz.sim.hil.cached import cached_share, step_timer
from ersatz.sim.hil.device.attached import Attached, dtype_of, unusable
from ersatz.sim.hil.proof.subjects import (
    Subject,
    precision_of,
    scenario_of,
    single_node,
    subjects_of,
)
from ersatz.sim.hil.proof.transformer import training_step
from ersatz.sim.hil.sentinels import CLASSES, Pace, Watch, undisturbed, watch_of
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import step_seconds

WARM_UP, FEWEST_STEPS, MOST_STEPS = 2, 5, 25
ROW_S, LONGEST_ROW = 0.05, 12  # short steps run in a row for this long


@dataclass(frozen=True, slots=True)
class Judgement:
    """One subject: what was predicted, and what its steps took."""

    name: str
    parameters: int
    measured_s: (
        float  # median step; the mean of the quickest tenth of those that stay in a host's cache
    )
    predicted_s: float  # by the calibrated timer
    table_s: float  # by the table timer
    times: tuple[float, ...]  # of its steps
    kernels: int  # distinct kernels of the step
    known_kernels: int  # of them, measured in the calibration with exactly these sizes
    pace: Pace  # of the sentinels that ran beside its steps, applied to the predictions
    unpaced_s: float  # predicted without them

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


def predict(subject: Subject, calibration: Calibration, timer: Timer) -> float:
    """Return the seconds of a step, simulated with the kernel times of `timer`."""
    node = single_node(calibration)
    precision = subject.precision or precision_of(calibration.origin.backend)
    return step_seconds(scenario_of(subject, node, precision), timer)


def prove(
    attached: Attached, calibration: Calibration, minutes: float,
    subjects: Sequence[Subject] = (), progress: Callable[[float, str], None] | None = None,
) -> list[Judgement]:  # fmt: skip
    """Predict every subject, then train it; those that do not fit the memory are passed over.

    Sentinel kernels of the calibration take turns with the steps; their ratio, which knows nothing
    of any step, is applied. Raises `InputError` when none fits, else `RuntimeError` as PyTorch does.
    """
    chosen = subjects or subjects_of(attached.backend)
    forecasts = Forecasts(calibration)
    watches = [watch_of(attached, calibration)]
    if calibration.small:
        watches.append(watch_of(attached, calibration.small))
    together = [chosen] if not attached.asynchronous else [(s,) for s in chosen]
    found: list[Judgement] = []
    for group in together:
        budget = minutes * 60.0 * len(group) / len(chosen)
        try:
            samples = _steps(attached, group, budget, progress, watches)
        except (RuntimeError, MemoryError) as error:
            if not attached.out_of_memory(error):
                raise
            continue
        pace, small = watches[0].pace(calibration), None
        if calibration.small:
            small = watches[1].pace(calibration.small)
        found += [forecasts.judge(subject, times, pace, small)
                  for subject, times in zip(group, samples, strict=True)]  # fmt: skip
    if not found:
        raise unusable(attached.hardware, "has too little memory for the models of the proof")
    return found


@dataclass(slots=True)
class Forecasts:
    """Predicts steps from a calibration alone."""

    calibration: Calibration
    known: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.known = {kernel_key(point.kernel) for point in self.calibration.points}

    def judge(
        self, subject: Subject, times: Sequence[float], pace: Pace, small_pace: Pace | None = None
    ) -> Judgement:
        """Hold the steps of a subject against its prediction."""
        asked: set[str] = set()
        case = self._case(subject)
        cached = cached_share(case, self.calibration) > 0.5
        timer = step_timer(calibrated_timer, self.calibration, case)

        def noting(device: Device, kernel: Kernel) -> float:
            asked.add(kernel_key(kernel))
            return timer(device, kernel)

        unpaced = predict(subject, self.calibration, noting)
        by_fit, by_table = (
            predict(subject, self.calibration,
                    step_timer(make, self.calibration, case, pace=pace, small_pace=small_pace))
            for make in (calibrated_timer, table_timer)
        )  # fmt: skip
        return Judgement(
            subject.name, subject.model.params(), _step_of(times, cached),
            by_fit, by_table, tuple(times), len(asked), len(asked & self.known),
            small_pace if cached and small_pace else pace, unpaced,
        )  # fmt: skip

    def _case(self, subject: Subject) -> Scenario:
        precision = subject.precision or precision_of(self.calibration.origin.backend)
        return scenario_of(subject, single_node(self.calibration), precision)


def _steps(
    attached: Attached, group: Sequence[Subject], budget_s: float,
    progress: Callable[[float, str], None] | None, watches: Sequence[Watch],
) -> list[list[float]]:  # fmt: skip
    """Return the step times of each subject, taken in turns until the budget is spent."""
    start = time.monotonic()
    runs = list(_prepared(attached, group))
    samples: list[list[float]] = [[] for _ in runs]
    for number in range(MOST_STEPS):
        for watch in watches:
            watch.passes() if watch.small else watch.turn()
        for place, run in enumerate(runs):
            if progress:
                progress(time.monotonic() - start, group[place].name)
            samples[place] += _in_a_row(attached, run)
        if number + 1 >= FEWEST_STEPS and time.monotonic() - start > budget_s:
            break
    return samples


def _step_of(times: Sequence[float], cached: bool) -> float:
    """Return what counts of the times of a step."""
    return undisturbed([times])[0] if cached else statistics.median(times)


def _in_a_row(attached: Attached, run: Callable[[], float]) -> list[float]:
    """Return the times of one step, or of some short ones; the first of these only warms."""
    first = attached.time_once(run)[0]
    count = min(int(ROW_S / first), LONGEST_ROW) if first > 0 else 0
    return [attached.time_once(run)[0] for _ in range(count)] if count > 1 else [first]


def _prepared(attached: Attached, group: Sequence[Subject]) -> Iterator[Callable[[], float]]:
    for subject in group:
        dtype = dtype_of(subject.precision or precision_of(attached.backend))
        run = training_step(subject.model, subject.batch, subject.sequence,
                            device=attached.device, dtype=dtype, pieces=attached.pieces)  # fmt: skip
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
        "unpaced_mean_error": float(np.mean([abs(j.unpaced_s / j.measured_s - 1) for j in judged])),
        **{f"pace_{k}": float(np.mean([j.pace.found[k] for j in judged])) for k in CLASSES},
        "mean_signed": float(np.mean([j.error for j in judged])),
        "table_mean_error": float(np.mean(np.abs([j.table_error for j in judged]))),
        "table_worst_error": float(np.max(np.abs([j.table_error for j in judged]))),
        "noise": float(np.median([j.noise for j in judged])),
    }
