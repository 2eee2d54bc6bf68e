"""Predict every complete run of a table as if its model, or its whole lineage, had never been seen.

Without its lineage a run is read as a stranger's would be: a stack that only this lineage showed is
not recognised.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from ersatz.sim.processes import side_by_side
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.uncertainty.intervals import kind_of
from ersatz.sim.validation.errors.baseline import spreadsheet_errors
from ersatz.sim.validation.errors.predict import Prediction, predict_table
from ersatz.sim.validation.fit.folds import Values, groups_by, load_folds
from ersatz.sim.validation.fit.parameters import turned
from ersatz.sim.validation.fit.samples import configuration, is_complete, is_verified, log_error
from ersatz.sim.validation.reading.lineages import SHIPPED, lineage_of, withheld
from ersatz.sim.validation.reading.networks import shows_oddity
from ersatz.sim.validation.reading.rows import read_run
from ersatz.sim.validation.reading.table import Run, read_table


@dataclass(frozen=True, slots=True)
class Judged:
    """Log errors of one run's predicted step time: with everything seen, and held out."""

    run: Run
    scenario: Scenario
    stranger: Scenario  # as read without its lineage
    others: int  # configurations of its kind outside its lineage
    open_ends: tuple[tuple[str, float], ...]
    measured_s: float
    seen_error: float
    family_error: float
    lineage_error: float
    sheet_family_error: float  # the spreadsheet's, relative, not logarithmic
    sheet_lineage_error: float

    @property
    def source(self) -> str:
        """Where the run was published."""
        return self.run.text("source")

    @property
    def lineage(self) -> str:
        """Its source's lineage."""
        return lineage_of(self.run)

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


@dataclass(frozen=True, slots=True)
class Job:
    """One run to be predicted twice: with values that know not its model, and not its lineage."""

    scenario: Scenario
    stranger: Scenario  # as read without its lineage
    measured_s: float
    family: Values
    lineage: Values


def judge(
    predictions: Iterable[Prediction], tell: Callable[[str], None] | None = None
) -> list[Judged]:
    """Return the held-out errors of the complete, verified runs of known sources."""
    folds = load_folds()
    chosen: list[Prediction] = []
    jobs: list[Job] = []
    for p in predictions:
        if p.scenario is None or p.measured_s is None or p.predicted_s is None:
            continue
        family, lineage = folds.without_family(p.run), folds.without_lineage(p.run)
        if is_complete(p.run) and is_verified(p.run) and lineage is not None:
            chosen.append(p)
            stranger = read_run(p.run, unknown=withheld(lineage_of(p.run))).scenario
            jobs.append(Job(p.scenario, stranger, p.measured_s, family or lineage, lineage))
    errors = _all_errors(chosen, jobs, tell)
    scenarios = [p.scenario for p in chosen if p.scenario]
    measured = [p.measured_s or 0.0 for p in chosen]
    sheets = [spreadsheet_errors(scenarios, measured, groups) for groups in (
        [(p.run.text("source"), p.run.text("model_name")) for p in chosen],
        [lineage_of(p.run) for p in chosen])]  # fmt: skip
    return [
        Judged(
            p.run,
            s,
            job.stranger,
            others,
            p.open_ends,
            t,
            math.log((p.predicted_s or 0.0) / t),
            family,
            lineage,
            a,
            b,
        )
        for p, s, job, others, t, (family, lineage), a, b in zip(
            chosen, scenarios, jobs, _others(chosen), measured, errors, *sheets, strict=True
        )
    ]


def _others(chosen: Sequence[Prediction]) -> list[int]:
    """Return how many runs of each run's kind there are outside of its lineage."""
    kinds = [kind_of(p.scenario, p.scenario.pools[0]) if p.scenario else "" for p in chosen]
    lineages = [lineage_of(p.run) for p in chosen]
    everywhere, inside = Counter(kinds), Counter(zip(kinds, lineages, strict=True))
    return [everywhere[k] - inside[k, name] for k, name in zip(kinds, lineages, strict=True)]


def _all_errors(
    chosen: Sequence[Prediction],
    jobs: Sequence[Job],
    tell: Callable[[str], None] | None,
) -> list[tuple[float, float]]:
    """Return the log errors of all jobs; a configuration that repeats is simulated once."""
    keys = [(p.run.text("model_name"), configuration(p.run, job.scenario))
            for p, job in zip(chosen, jobs, strict=True)]  # fmt: skip
    groups = groups_by(keys)
    errors: list[tuple[float, float]] = [(math.nan, math.nan)] * len(jobs)
    firsts = [jobs[places[0]] for places in groups.values()]
    found = side_by_side(_errors, firsts, 8)
    for places, (family, lineage) in zip(groups.values(), found, strict=True):
        measured = jobs[places[0]].measured_s
        for place in places:
            more = math.log(measured / jobs[place].measured_s)
            errors[place] = family + more, lineage + more
            if tell:
                tell(chosen[place].run.id)
    return errors


def _errors(job: Job) -> tuple[float, float]:
    return (log_error(turned(job.scenario, job.family), job.measured_s),
            log_error(turned(job.stranger, job.lineage), job.measured_s))  # fmt: skip


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
    "one whole lineage left out": lambda j: math.expm1(j.lineage_error),
    "everything seen (in-sample)": lambda j: math.expm1(j.seen_error),
    "spreadsheet, model left out": lambda j: j.sheet_family_error,
    "spreadsheet, lineage left out": lambda j: j.sheet_lineage_error,
}


def headline(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return median and 90th percentile of |error|, lineages weighted equally, by method and vendor.

    A method without a figure for any run of a slice (a spreadsheet needs a second run) says nothing.
    """
    everyone = [True] * len(judged)
    slices: dict[str, list[bool]] = {"all": everyone}
    for vendor in sorted({j.vendor for j in judged}):
        slices[vendor] = [j.vendor == vendor for j in judged]
    for kind in ("dense", "moe"):
        slices[kind] = [j.kind == kind for j in judged]
    models = Counter(
        lineage for lineage, _ in {(j.lineage, j.run.text("model_name")) for j in judged}
    )
    slices["lineages of several models"] = [models[j.lineage] > 1 for j in judged]
    slices["nanotron's slow layouts apart"] = [not shows_oddity(j.run) for j in judged]
    slices["without the nanotron sweep"] = [j.stack != "nanotron" for j in judged]
    return {
        method: {
            name: figures
            for name, keep in slices.items()
            if (figures := _figures(list(compress(judged, keep)), error))
        }
        for method, error in METHODS.items()
    }


def unbiased(judged: Sequence[Judged], key: Callable[[Judged], Hashable]) -> list[float]:
    """Return median and 90th percentile of |error| with lineages left out, each group's bias taken away.

    The bias is the median of a group's own errors: no prediction, but what would be left to one who
    knew of each group (a lineage, or its devices and frameworks apart) how far off it lies as a whole.
    A group of one run is then right.
    """
    errors, lineages = [], []
    for places in groups_by([key(j) for j in judged]).values():
        mine = np.array([judged[at].lineage_error for at in places])
        errors += np.expm1(mine - np.median(mine)).tolist()
        lineages += [judged[at].lineage for at in places]
    return weighted_quantiles(errors, lineages)


def _figures(judged: Sequence[Judged], error: Callable[[Judged], float]) -> dict[str, float]:
    known = [(error(j), j.lineage) for j in judged if np.isfinite(error(j))]
    if not known:
        return {}
    median, p90 = weighted_quantiles([e for e, _ in known], [s for _, s in known])
    lineages = len({s for _, s in known})
    return {"runs": len(known), "lineages": lineages, "median": median, "p90": p90}
