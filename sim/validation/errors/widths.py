"""Set the sizes of what makes intervals wide, from the errors of lineages left out.

    python -m ersatz.sim.validation.errors.widths

Errors are taken to be Laplace-distributed about zero with a scale whose square is the sum of the
squares of the components that concern a run (`uncertainty.intervals.features`); the likelihood is
maximised with every lineage weighing the same, and all are scaled by one factor so that the 80 %
intervals cover 80 % of the lineages' rows. What a row was off beyond `FAR` says of one cluster's slow mode
only, and counts as that. Coverage is judged by sizes that have not seen a lineage.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.whole import write_whole
from ersatz.sim.uncertainty.intervals import features, kind_of
from ersatz.sim.validation.errors.heldout import Judged, judge, predict_shipped
from ersatz.sim.validation.errors.predict import Prediction
from ersatz.sim.validation.fit.folds import groups_by

NAMES = ("cluster", "stack", "device", "few", "early", "short", "experts", "adapters", "long")
LEVEL = 0.80
TO_HALF = math.log(1 / (1 - LEVEL))  # half width over scale of a Laplace distribution
WIDER, FURTHER = (
    0.90,
    1.25,
)  # a device without any run: this quantile, and so much wider than the widest
FAR = 0.6  # log error that an outlier counts as, where spreads are compared
LEAST = 0.02  # log half width below which a component is not told from none
SMALL = 0.01  # pull towards `LEAST` of what little data show, as a share of a row's weight

Array = npt.NDArray[np.float64]


def weights(groups: Sequence[str]) -> Array:
    """Return weights of rows with which every group weighs the same; they sum to one."""
    counts = Counter(groups)
    found: Array = np.array([1.0 / counts[g] / len(counts) for g in groups])
    return found


def matrix(judged: Sequence[Judged]) -> Array:
    """Return which components concern each run, as ones and zeros: runs x components."""
    rows = [set(features_of(j)) for j in judged]
    return np.array([[float(name in row) for name in NAMES] for row in rows])


def features_of(j: Judged) -> list[str]:
    """Name the components of a run judged without its lineage."""
    return list(features(j.stranger, j.stranger.pools[0], runs=j.others))


def bounded(errors: Iterable[float]) -> Array:
    """Return log errors, those of outliers as `FAR`."""
    found: Array = np.clip(np.asarray(list(errors), dtype=float), -FAR, FAR)
    return found


def fit_components(concerned: Array, errors: Array, weight: Array) -> Array:
    """Return the log half widths of the components by maximum likelihood, scaled to cover `LEVEL`."""
    from scipy.optimize import minimize

    size = np.abs(errors)

    def cost(theta: Array) -> float:
        scale = np.sqrt(concerned @ np.exp(2 * theta))
        pull = SMALL * np.sum(np.exp(theta)) / len(theta)
        return float(weight @ (np.log(scale) + size / scale) + pull)

    start = np.full(concerned.shape[1], math.log(0.05))
    bounds = [(math.log(LEAST / TO_HALF), math.log(1.0))] * len(start)
    theta = minimize(cost, start, bounds=bounds, method="L-BFGS-B").x
    half = np.exp(theta) * TO_HALF
    ratio = size / np.sqrt(concerned @ half**2)
    order = np.argsort(ratio)
    place = int(np.searchsorted(np.cumsum(weight[order]), LEVEL))
    scaled: Array = half * float(ratio[order][min(place, len(ratio) - 1)])
    return scaled


def unmeasured(half: Array, errors: Array, weight: Array) -> float:
    """Return the log half width that a device without any published run gets beside the others.

    An assumption: such a device errs like the worst tenth of unseen lineages, and at least a quarter
    more than a known one.
    """
    order = np.argsort(np.abs(errors))
    place = int(np.searchsorted(np.cumsum(weight[order]), WIDER))
    worst = float(np.abs(errors)[order][min(place, len(errors) - 1)])
    known = float(half[NAMES.index("cluster")])
    wanted = max(worst, math.log1p(FURTHER * math.expm1(known)))
    return math.sqrt(wanted**2 - known**2)


def common(judged: Sequence[Judged]) -> dict[str, float]:
    """Return which shares of squared errors belong to a lineage, to its device, and to a run alone.

    Spreads are taken between medians, every lineage weighing the same: of runs about those of their
    lineage on their device, of a lineage's devices about their mean, and of lineages about zero.
    Errors beyond a factor of `FAR` count as that.
    """
    groups: dict[str, dict[str, list[float]]] = {}
    for j in judged:
        (error,) = bounded([j.lineage_error]).tolist()
        groups.setdefault(j.lineage, {}).setdefault(j.device, []).append(error)
    middles = {name: [float(np.median(e)) for e in by.values()] for name, by in groups.items()}
    run = [np.mean([np.mean((np.array(e) - np.median(e)) ** 2) for e in by.values() if len(e) > 1])
           for by in groups.values() if any(len(e) > 1 for e in by.values())]  # fmt: skip
    device = [np.var(m, ddof=1) for m in middles.values() if len(m) > 1]
    lineage = [np.mean(m) ** 2 for m in middles.values()]
    squares = {"lineage": lineage, "device": device, "run": run}
    size = {name: float(np.mean(found)) for name, found in squares.items()}
    return {name: value / sum(size.values()) for name, value in size.items()}


def coverage(judged: Sequence[Judged]) -> list[bool]:
    """Tell of every run whether its error lies within an interval whose sizes know not its lineage."""
    concerned, errors = matrix(judged), np.array([j.lineage_error for j in judged])
    lineages = [j.lineage for j in judged]
    inside = [False] * len(judged)
    for places in groups_by(lineages).values():
        mine = set(places)
        others = [i for i in range(len(judged)) if i not in mine]
        half = fit_components(
            concerned[others], bounded(errors[others]), weights([lineages[i] for i in others])
        )
        width = np.sqrt(concerned @ half**2)
        for i in places:
            inside[i] = bool(abs(errors[i]) <= spanned_width(judged[i], width[i]))
    return inside


def spanned_width(j: Judged, width: float) -> float:
    """Return a run's log half width on the side of its error, with what its blanks leave open."""
    ends = [f for _, f in j.open_ends if f * j.lineage_error > 0 or j.lineage_error == 0]
    return math.hypot(width, *ends)


def write_widths(judged: Sequence[Judged], predictions: Iterable[Prediction], date: str) -> None:
    """Write data/intervals.yaml."""
    concerned, errors = matrix(judged), np.array([j.lineage_error for j in judged])
    weight = weights([j.lineage for j in judged])
    half = fit_components(concerned, bounded(errors), weight)
    alone = unmeasured(half, errors, weight)
    lines = [
        "# What makes the 80 % interval of a predicted step time wide: log half widths whose squares add up",
        "# (sim/uncertainty/intervals.py), and the published configurations of each kind. Written by",
        "# `python -m ersatz.sim.validation.errors.widths`.",
        "sources:",
        '  HELD: "errors of whole lineages left out, measured/training_runs.csv: maximum likelihood,',
        '    lineages equal"',
        '  WIDE: "assumption: a device without any published run errs like the worst tenth of unseen',
        '    lineages, and at least a quarter more than a known one"',
        "components:",
    ]
    for name, value, column in zip(NAMES, half, concerned.T, strict=True):
        rows = int(column.sum())
        confidence = "high" if rows > 100 else "medium" if rows > 20 else "low"
        lines.append(f"  {name}: {{value: {value:.3g}, source: HELD, date: {date},"
                     f' confidence: {confidence}, note: "{rows} runs"}}')  # fmt: skip
    lines.append(
        f"  unmeasured: {{value: {alone:.3g}, source: WIDE, date: {date}, confidence: assumed}}"
    )
    lines.append(
        "common:  # shares of squared errors that belong to software, to it on a device, to a run alone"
    )
    lines += [f"  {name}: {{value: {share:.3g}, source: HELD, date: {date}, confidence: low}}"
              for name, share in common(judged).items()]  # fmt: skip
    lines.append("runs:  # published configurations by device, number format and kind of model")
    counts = Counter(
        kind_of(p.scenario, p.scenario.pools[0]) for p in predictions if p.scenario and not p.reason
    )
    lines += [f"  {kind}: {counts[kind]}" for kind in sorted(counts)]
    write_whole(DATA / "intervals.yaml", "\n".join(lines) + "\n")


def main() -> None:
    """Judge the shipped table and write the widths."""
    predictions = predict_shipped()
    judged = judge(predictions)
    write_widths(judged, predictions, "2026-11")
    inside = np.array(coverage(judged), dtype=float)
    covered = float(inside @ weights([j.lineage for j in judged]))
    print(f"{len(judged)} runs, coverage {covered:.3f}, lineages equal")


if __name__ == "__main__":
    main()
