"""Predict every row of a table of measured runs, and measure the error of step time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import step_seconds
from ersatz.sim.uncertainty.intervals import interval80
from ersatz.sim.validation.reading.metrics import measured_step_seconds
from ersatz.sim.validation.reading.rows import scenario_of
from ersatz.sim.validation.reading.rules import Refused
from ersatz.sim.validation.reading.table import Run

PROCESSES = 2
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

    @property
    def relative_error(self) -> float | None:
        """Predicted / measured step time - 1."""
        if self.measured_s is None or self.predicted_s is None:
            return None
        return self.predicted_s / self.measured_s - 1.0


def predict_run(run: Run, *, memory: bool = True, oddities: bool = False) -> Prediction:
    """Predict one row; never raises for what the row says."""
    try:
        scenario = scenario_of(run, oddities=oddities)
        measured = measured_step_seconds(run, scenario)
        if measured is None:
            raise Refused(f"metric {run.text('metric_name')!r} says nothing of a step's time")
        predicted = step_seconds(scenario)
    except Refused as refusal:
        return _refused(run, str(refusal))
    except (ValueError, InfeasibleError) as error:
        return _refused(run, f"no such layout can run: {error}")
    low, high = interval80(scenario, predicted)
    peak, fits = (None, None)
    if memory:
        result = plan_memory(scenario, advise=False)
        peak, fits = result.peak_bytes, result.fits
    return Prediction(run, scenario, "", measured, predicted, low, high, peak, fits)


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
    with get_context("fork").Pool(PROCESSES) as pool:
        yield from _told(pool.imap(work, runs, chunksize=8), progress)


def _told(
    found: Iterator[Prediction], progress: Callable[[str], None] | None
) -> Iterator[Prediction]:
    for prediction in found:
        if progress:
            progress(prediction.run.id)
        yield prediction
