"""How right predictions are once two rows of a lineage that was left out have served as anchors.

Rows of one lineage, read as a stranger's, on one device and stack: two of them, drawn at random,
move the stack (`sim.anchor`), and the others are predicted with their intervals. Every lineage
weighs the same. The rows answer to the factors as they do before any is moved (linear).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from ersatz.sim.anchor.factors import NAMES, Array, slopes
from ersatz.sim.anchor.posterior import posterior, predictive
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.signals import obey_parent
from ersatz.sim.uncertainty.draws import END
from ersatz.sim.validation.errors.heldout import Judged, weighted_quantiles
from ersatz.sim.validation.errors.predict import PROCESSES
from ersatz.sim.validation.fit.folds import load_folds
from ersatz.sim.validation.fit.parameters import turned

ANCHORS, DRAWS = 2, 20
MOST = 24  # rows of a group that are asked about, drawn evenly
LEAST = ANCHORS + 2


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one lineage on one stack and device: their errors and how they answer to the factors."""

    lineage: str
    errors: Array  # log(predicted / measured), the lineage unseen
    slopes: Array  # rows x factors


@dataclass(frozen=True, slots=True)
class AnchoredErrors:
    """Left-out errors with two anchors: quantiles of |error|, and what the intervals cover."""

    groups: int
    lineages: int
    median: float
    p90: float
    coverage: float
    half_width: float  # median
    before: float  # median without anchors, of the same rows


def groups_of(judged: Sequence[Judged]) -> list[Group]:
    """Return the groups that are large enough, each with at most `MOST` different configurations."""
    rows: dict[tuple[str, str, str], dict[float, Judged]] = defaultdict(dict)
    for j in judged:
        stack = j.stranger.pools[0].stack.name
        rows[j.lineage, stack, j.device].setdefault(round(j.lineage_error, 6), j)
    chosen = {key: _thinned(list(found.values())) for key, found in sorted(rows.items())}
    chosen = {key: found for key, found in chosen.items() if len(found) >= LEAST}
    folds = load_folds()
    asked: list[Scenario] = []
    for found in chosen.values():
        for j in found:
            values = folds.without_lineage(j.run)
            assert values is not None
            asked.append(turned(j.stranger, values))
    with get_context("fork").Pool(PROCESSES, obey_parent) as pool:
        answers = iter(pool.map(_slopes, asked, chunksize=8))
    return [
        Group(lineage, np.array([j.lineage_error for j in found]),
              np.array([next(answers) for _ in found]))
        for (lineage, _, _), found in chosen.items()
    ]  # fmt: skip


def _thinned(rows: list[Judged]) -> list[Judged]:
    step = max(len(rows) / MOST, 1.0)
    return [rows[int(i * step)] for i in range(round(len(rows) / step))]


def _slopes(scenario: Scenario) -> Array:
    try:
        return slopes(scenario, [0.0] * len(NAMES))[1]
    except (InfeasibleError, ValueError):
        return np.zeros(len(NAMES))


def anchored_errors(groups: Sequence[Group], spread: float, seed: int = 0) -> AnchoredErrors:
    """Return the errors of rows beside two random anchors; `spread` is that of a single run."""
    rng = np.random.default_rng(seed)
    errors: list[float] = []
    halves: list[float] = []
    before: list[float] = []
    lineages: list[str] = []
    for group in groups:
        for _ in range(DRAWS):
            left, half, kept = _one_draw(group, spread, rng)
            errors += left.tolist()
            halves += half.tolist()
            before += group.errors[kept].tolist()
            lineages += [group.lineage] * len(left)
    sizes = np.abs(np.array(errors))
    inside = sizes <= np.array(halves)
    counts = {name: lineages.count(name) for name in dict.fromkeys(lineages)}
    weight = np.array([1.0 / counts[name] / len(counts) for name in lineages])
    median, p90 = weighted_quantiles([math.expm1(e) for e in errors], lineages)
    (was,) = weighted_quantiles([math.expm1(e) for e in before], lineages, (0.5,))
    (wide,) = weighted_quantiles([math.expm1(h) for h in halves], lineages, (0.5,))
    covered = float(inside @ weight)
    return AnchoredErrors(len(groups), len(counts), median, p90, covered, wide, was)


def _one_draw(group: Group, spread: float, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return errors, half widths and places of the rows that were not drawn as anchors."""
    places = rng.permutation(len(group.errors))
    mine, others = places[:ANCHORS], places[ANCHORS:]
    slope, error = group.slopes[mine], group.errors[mine]
    found = posterior(lambda logs: (error + slope @ logs, slope), spread)
    left = group.errors[others] + group.slopes[others] @ found.logs
    half = np.array([END * predictive(g, found.covariance, spread) for g in group.slopes[others]])
    return left, half, others


def fitting_spread(groups: Sequence[Group], level: float = 0.8) -> float:
    """Return the spread of a single run with which the intervals cover `level` of the rows."""
    low, high = 0.01, 0.5
    for _ in range(12):
        middle = math.sqrt(low * high)
        low, high = (
            (middle, high) if anchored_errors(groups, middle).coverage < level else (low, middle)
        )
    return math.sqrt(low * high)
