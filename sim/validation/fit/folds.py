"""Parameters fitted without a lineage, or without one model of a source: for honest errors.

`python -m ersatz.sim.validation.fit` writes one row of values for each group that was left out; a run of that
group is then predicted as if nothing of the group had ever been seen. Groups are named as the table
and its lineages name them, so any table with these sources can be judged.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.csvtext import csv_text
from ersatz.sim.validation.fit.parameters import Parameter, fitted_parameters
from ersatz.sim.validation.reading.lineages import lineage_of
from ersatz.sim.validation.reading.table import Run

PATH = DATA / "validation" / "folds.csv"
Values = Mapping[Parameter, float]
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Folds:
    """Values by the lineage left out, and by the (source, model) left out."""

    lineages: Mapping[str, Values]
    families: Mapping[tuple[str, str], Values]

    def without_lineage(self, run: Run) -> Values | None:
        """Return the values that know nothing of the run's lineage, or None for an unknown one."""
        return self.lineages.get(lineage_of(run))

    def without_family(self, run: Run) -> Values | None:
        """Return the values that know nothing of the run's model in its source."""
        return self.families.get((run.text("source"), run.text("model_name")))


def groups_by(keys: Sequence[Key]) -> dict[Key, list[int]]:
    """Return the places of each key, in the order of first appearance."""
    found: dict[Key, list[int]] = {}
    for place, key in enumerate(keys):
        found.setdefault(key, []).append(place)
    return found


def folds_text(folds: Folds) -> str:
    """Return the values as CSV, a row for each group."""
    names = [p.name for p in fitted_parameters()]
    groups = [((lineage, "*"), values) for lineage, values in folds.lineages.items()]
    groups += list(folds.families.items())
    rows = []
    for key, values in sorted(groups, key=lambda group: group[0]):
        by_name = {p.name: v for p, v in values.items()}
        rows.append([*key, *(f"{by_name[name]:.3g}" for name in names)])
    return csv_text(["source", "model_name", *names], rows)


@lru_cache(maxsize=1)
def load_folds() -> Folds:
    """Read the values of all groups; empty when the file is not there."""
    lineages: dict[str, Values] = {}
    families: dict[tuple[str, str], Values] = {}
    known = {p.name: p for p in fitted_parameters()}
    with PATH.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            source, model = row.pop("source"), row.pop("model_name")
            values = {known[n]: float(cell) for n, cell in row.items() if n in known}
            if model == "*":
                lineages[source] = values
            else:
                families[source, model] = values
    return Folds(lineages, families)


def fit_folds(
    keys: Sequence[tuple[str, str]],
    lineages: Sequence[str],
    solve: Callable[[Sequence[np.ndarray]], Sequence[Values]],
) -> Folds:
    """Fit without each lineage and each family: `keys` has one (source, model) for each sample.

    `solve` gets a mask of the samples to keep for each fold; a lineage of one model is solved once.
    """
    groups = groups_by(list(lineages))
    families = groups_by(list(keys))
    folds = list(dict.fromkeys(tuple(p) for p in [*groups.values(), *families.values()]))
    found = dict(zip(folds, solve([_without(places, len(keys)) for places in folds]), strict=True))
    return Folds(
        {name: found[tuple(p)] for name, p in groups.items()},
        {f: found[tuple(p)] for f, p in families.items()},
    )


def _without(places: Sequence[int], count: int) -> np.ndarray:
    keep = np.ones(count, dtype=bool)
    keep[list(places)] = False
    return keep
