"""Fit some parameters anew and leave the others as they are, in the files and fold by fold.

    python -m ersatz.sim.validation.fit --only PATTERN [RUNS.csv] [--dry]

For a mend that few stacks can show: the parameters whose names match PATTERN are fitted, from their
priors, on the rows that they concern. In each fold the others keep the values of that fold, which
have not seen what it leaves out either. A whole fit moves those, too, and is due before a release.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ersatz.sim.validation.fit.folds import Folds, Values, fit_folds, load_folds
from ersatz.sim.validation.fit.parameters import Parameter, fitted_parameters, shipped_values
from ersatz.sim.validation.fit.samples import Sample, samples, usable
from ersatz.sim.validation.fit.search import (
    errors_at,
    fit,
    fitted_values,
    fold_values,
    on_bound,
    write,
)
from ersatz.sim.validation.reading.lineages import SHIPPED
from ersatz.sim.validation.reading.table import read_table


def chosen_parameters(pattern: str) -> tuple[Parameter, ...]:
    """Return the parameters to be fitted; a relative outside keeps its value as their prior."""
    found = tuple(p for p in fitted_parameters() if re.search(pattern, p.name))
    names, shipped = {p.name for p in found}, {p.name: v for p, v in shipped_values().items()}
    return tuple(
        replace(p, prior=shipped[p.like], like="") if p.like and p.like not in names else p
        for p in found
    )


def fit_part(
    pattern: str, everything: Sequence[Sample], tell: Callable[[str], None] = print
) -> tuple[Values, Folds]:
    """Return the values of the matching parameters, and all folds with theirs.

    Raises `ValueError` where no parameter matches or no row concerns one.
    """
    parameters = chosen_parameters(pattern)
    concerned = [s for s in everything if any(p.concerns(s.scenario) for p in parameters)]
    if not concerned:
        raise ValueError(f"no parameter matches {pattern!r}, or no row concerns one")
    prior = {p: p.prior for p in parameters}
    rows = usable(concerned, errors_at(concerned, prior).tolist())
    tell(f"{len(rows)} configurations of {len(concerned)}, {len(parameters)} parameters")
    linear = fit(rows, tell, parameters)
    whole = fitted_values(linear)
    folds = fit_folds(
        [s.family for s in rows], [s.lineage for s in rows],
        lambda masks: [fold_values(linear, keep) for keep in masks],
    )  # fmt: skip
    known = load_folds()
    lineages = {k: mend(v, folds.lineages.get(k, whole)) for k, v in known.lineages.items()}
    families = {k: mend(v, folds.families.get(k, whole)) for k, v in known.families.items()}
    return _named(whole), Folds(lineages, families)


def _named(values: Values) -> Values:
    """Return values by the parameters of `fit.yaml`, whose priors may be others."""
    own = {p.name: p for p in fitted_parameters()}
    return {own[p.name]: v for p, v in values.items()}


def mend(values: Values, new: Mapping[Parameter, float]) -> Values:
    """Return a fold's values with some of them replaced, and none that is not fitted any more."""
    new = _named(new)
    return {p: new[p] if p in new else values[p] for p in fitted_parameters()}


def main_part(arguments: Sequence[str]) -> None:
    """Refit the parameters that `--only PATTERN` names, and write them and the folds."""
    at = arguments.index("--only")
    pattern = arguments[at + 1]
    tables = [a for a in (*arguments[:at], *arguments[at + 2 :]) if not a.startswith("--")]
    everything = samples(read_table(tables[0] if tables else str(SHIPPED)).runs)
    values, folds = fit_part(pattern, everything, partial(print, flush=True))
    for p, value in values.items():
        print(f"  {p.name} = {value:g} (prior {p.prior:g})")
    print("on a bound:", ", ".join(on_bound(values)) or "none")
    if "--dry" not in arguments:
        write(values, folds, f"refit alone: --only '{pattern}'")
