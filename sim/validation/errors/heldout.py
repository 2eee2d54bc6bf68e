"""Predict every complete run of a table as if its model, or its source, had never been seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from multiprocessing import get_context
from typing import Any

import numpy as np

from ersatz.device_models.shipped import DATA
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.validation.errors.baseline import spreadsheet_errors
from ersatz.sim.validation.errors.predict import PROCESSES, Prediction, predict_table
from ersatz.sim.validation.fit.folds import Values, groups_by, load_folds
from ersatz.sim.validation.fit.parameters import turned
from ersatz.sim.validation.fit.samples import configuration, is_complete, is_verified, log_error
from ersatz.sim.validation.reading.table import Run, read_table

SHIPPED = DATA / "measured" / "training_runs.csv"


@dataclass(frozen=True, slots=True)
class Judged:
    """Log errors of one run's predicted step time: with everything seen, and held out."""

    run: Run
    scenario: Scenario
    measured_s: float
    seen_error: float
    family_error: float
    source_error: float
    sheet_family_error: float  # the spreadsheet's, relative, not logarithmic
    sheet_source_error: float

    @property
    def source(self) -> str:
        """Where the run was published."""
        return self.run.text("source")

    @property
    def family(self) -> tuple[str, str]:
        """Source and model."""
        return self.source, self.run.text("model_name")

    @property
    def vendor(self) -> str:
        """The vendor of its device."""
        return self.scenario.pools[0].node.device.vendor.lower()

    @property
    def device(self) -> str:
        """Its device."""
        return self.scenario.pools[0].node.device.name

    @property
    def stack(self) -> str:
        """Its software stack."""
        return self.scenario.pools[0].stack.name

    @property
    def kind(self) -> str:
        """Dense, or a mixture of experts."""
        return "moe" if self.scenario.model.experts else "dense"


def judge(
    predictions: Iterable[Prediction], tell: Callable[[str], None] | None = None
) -> list[Judged]:
    """Return the held-out errors of the complete, verified runs of known sources."""
    folds = load_folds()
    chosen: list[Prediction] = []
    jobs: list[tuple[Scenario, float, Values, Values]] = []
    for p in predictions:
        if p.scenario is None or p.measured_s is None or p.predicted_s is None:
            continue
        family, source = folds.without_family(p.run), folds.without_source(p.run)
        if is_complete(p.run) and is_verified(p.run) and source is not None:
            chosen.append(p)
            jobs.append((p.scenario, p.measured_s, family or source, source))
    errors = _all_errors(chosen, jobs, tell)
    scenarios = [p.scenario for p in chosen if p.scenario]
    measured = [p.measured_s or 0.0 for p in chosen]
    sheets = [spreadsheet_errors(scenarios, measured, groups) for groups in (
        [(p.run.text("source"), p.run.text("model_name")) for p in chosen],
        [p.run.text("source") for p in chosen])]  # fmt: skip
    return [
        Judged(p.run, s, t, math.log((p.predicted_s or 0.0) / t), family, source, a, b)
        for p, s, t, (family, source), a, b in zip(
            chosen, scenarios, measured, errors, *sheets, strict=True
        )
    ]


def _all_errors(
    chosen: Sequence[Prediction],
    jobs: Sequence[tuple[Scenario, float, Values, Values]],
    tell: Callable[[str], None] | None,
) -> list[tuple[float, float]]:
    """Return the log errors of all jobs; a configuration that repeats is simulated once."""
    keys = [(p.run.text("model_name"), configuration(p.run, job[0]))
            for p, job in zip(chosen, jobs, strict=True)]  # fmt: skip
    groups = groups_by(keys)
    errors: list[tuple[float, float]] = [(math.nan, math.nan)] * len(jobs)
    with get_context("fork").Pool(PROCESSES) as pool:
        firsts = [jobs[places[0]] for places in groups.values()]
        found = pool.imap(_errors, firsts, chunksize=8)
        for places, (family, source) in zip(groups.values(), found, strict=True):
            measured = jobs[places[0]][1]
            for place in places:
                more = math.log(measured / jobs[place][1])
                errors[place] = family + more, source + more
                if tell:
                    tell(chosen[place].run.id)
    return errors


def _errors(job: tuple[Scenario, float, Values, Values]) -> tuple[float, float]:
    scenario, measured, *values = job
    family, source = (log_error(turned(scenario, v), measured) for v in values)
    return family, source


def predict_shipped() -> list[Prediction]:
    """Predict the table that travels with ersatz."""
    return list(predict_table(read_table(SHIPPED).runs))


def judge_shipped() -> list[Judged]:
    """Return the held-out errors of the table that travels with ersatz."""
    return judge(predict_shipped())


def weighted_quantiles(
    errors: Sequence[float], sources: Sequence[str], levels: Sequence[float] = (0.5, 0.9)
) -> list[float]:
    """Return quantiles of |errors| with every source weighing the same."""
    size = np.abs(np.asarray(errors, dtype=float))
    names, place, counts = np.unique(np.asarray(sources), return_inverse=True, return_counts=True)
    weight = 1.0 / counts[place] / len(names)
    order = np.argsort(size, kind="stable")
    total = np.cumsum(weight[order])
    last = len(size) - 1
    return [float(size[order][min(int(np.searchsorted(total, q - 1e-12)), last)]) for q in levels]


METHODS: Mapping[str, Callable[[Judged], float]] = {
    "one model of a source left out": lambda j: math.expm1(j.family_error),
    "one whole source left out": lambda j: math.expm1(j.source_error),
    "everything seen (in-sample)": lambda j: math.expm1(j.seen_error),
    "spreadsheet, model left out": lambda j: j.sheet_family_error,
    "spreadsheet, source left out": lambda j: j.sheet_source_error,
}


def headline(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return median and 90th percentile of |error|, sources weighted equally, by method and vendor.

    A method without a figure for any run of a slice (a spreadsheet needs a second run) says nothing.
    """
    everyone = [True] * len(judged)
    slices: dict[str, list[bool]] = {"all": everyone}
    for vendor in sorted({j.vendor for j in judged}):
        slices[vendor] = [j.vendor == vendor for j in judged]
    for kind in ("dense", "moe"):
        slices[kind] = [j.kind == kind for j in judged]
    slices["without the nanotron sweep"] = [j.stack != "nanotron" for j in judged]
    return {
        method: {
            name: figures
            for name, keep in slices.items()
            if (figures := _figures(list(compress(judged, keep)), error))
        }
        for method, error in METHODS.items()
    }


def _figures(judged: Sequence[Judged], error: Callable[[Judged], float]) -> dict[str, float]:
    known = [(error(j), j.source) for j in judged if np.isfinite(error(j))]
    if not known:
        return {}
    median, p90 = weighted_quantiles([e for e, _ in known], [s for _, s in known])
    sources = len({s for _, s in known})
    return {"runs": len(known), "sources": sources, "median": median, "p90": p90}
