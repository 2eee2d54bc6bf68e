"""Predict every row of a table of measured runs, and measure the error of step time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ersatz.sim.errors import InfeasibleError, LayoutError
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.processes import side_by_side
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import step_seconds
from ersatz.sim.uncertainty.intervals import interval80
from ersatz.sim.validation.reading.metrics import least_step_seconds
from ersatz.sim.validation.reading.rows import Reading, read_run
from ersatz.sim.validation.reading.rules import Refused
from ersatz.sim.validation.reading.table import Run

FEW = 50  # rows that are not worth a second process


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's outcome; the numbers are None when the row is refused."""

    run: Run
    scenario: Scenario | None
    reason: str
    measured_s: float | None
    predicted_s: float | None
    low80_s: float | None
    high80_s: float | None
    peak_bytes: float | None
    memory_fits: bool | None
    open_ends: tuple[tuple[str, float], ...] = ()  # what is left open: log factor on the error

    @property
    def relative_error(self) -> float | None:
        """Predicted / measured step time - 1."""
        if self.measured_s is None or self.predicted_s is None:
            return None
        return self.predicted_s / self.measured_s - 1.0


def predict_run(run: Run, *, memory: bool = True, oddities: bool = False) -> Prediction:
    """Predict one row; never raises for what the row says."""
    try:
        reading = read_run(run, oddities=oddities)
        scenario, measured = reading.scenario, reading.measured_s
        if measured is None:
            raise Refused(f"metric {run.text('metric_name')!r} says nothing of a step's time")
        least = least_step_seconds(reading.open, scenario)
        if measured < least:
            words = f"its step of {measured:.3g} s is shorter than the {least:.3g} s of its products at peak"
            raise Refused(words)
        predicted = step_seconds(scenario)
        ends = open_ends(run, reading, predicted, oddities=oddities)
    except Refused as refusal:
        return _refused(run, str(refusal))
    except (ValueError, InfeasibleError) as error:
        return _refused(run, f"no such layout can run: {error}")
    low, high = spanned(interval80(scenario, predicted), predicted, ends)
    peak, fits = (None, None)
    if memory:
        result = plan_memory(scenario, advise=False)
        peak, fits = result.peak_bytes, result.fits
    return Prediction(run, scenario, "", measured, predicted, low, high, peak, fits, ends)


def open_ends(
    run: Run, reading: Reading, predicted: float, *, oddities: bool = False
) -> tuple[tuple[str, float], ...]:
    """Return what each reading that a row leaves open would change: log factors on predicted / measured.

    A reading that no layout can run is none.
    """
    ends = []
    for key, others in reading.open.items():
        for other in others:
            try:
                read = read_run(run, oddities=oddities, choices={key: other})
                seconds = step_seconds(read.scenario)
            except (Refused, LayoutError, InfeasibleError):
                continue
            if read.measured_s and reading.measured_s:
                ratio = seconds / read.measured_s * reading.measured_s / predicted
                ends.append((f"{key} {other}", math.log(ratio)))
    return tuple(ends)


def spanned(
    interval: tuple[float, float], predicted: float, ends: Sequence[tuple[str, float]]
) -> tuple[float, float]:
    """Widen an interval so that it spans the readings that a row leaves open.

    Readings of different blanks are independent: their log factors add in squares, upwards and
    downwards apart, to the interval's own.
    """
    low, high = (abs(math.log(end / predicted)) for end in interval)
    down = math.hypot(low, *(factor for _, factor in ends if factor < 0))
    up = math.hypot(high, *(factor for _, factor in ends if factor > 0))
    return predicted * math.exp(-down), predicted * math.exp(up)


def _refused(run: Run, reason: str) -> Prediction:
    return Prediction(run, None, reason, None, None, None, None, None, None)


def predict_table(
    runs: Sequence[Run], progress: Callable[[str], None] | None = None, *, oddities: bool = False
) -> Iterator[Prediction]:
    """Predict rows in order; `progress` is told the id of each that is done."""
    work = partial(predict_run, oddities=oddities)
    if len(runs) < FEW:
        found: Iterator[Prediction] = map(work, runs)
        yield from _told(found, progress)
        return
    yield from _told(side_by_side(work, runs, 8), progress)


def _told(
    found: Iterator[Prediction], progress: Callable[[str], None] | None
) -> Iterator[Prediction]:
    for prediction in found:
        if progress:
            progress(prediction.run.id)
        yield prediction
