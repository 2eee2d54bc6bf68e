"""How right predictions are once two rows of a lineage that was left out have served as anchors.

Rows of one lineage, read as a stranger's, on one device and stack: two of them, drawn at random,
move the stack (`sim.anchor`), and the others are predicted with their intervals. Every lineage
weighs the same. The rows answer to the factors as they do before any is moved (linear).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ersatz.sim.anchor.factors import NAMES, Array, row_scale, slopes
from ersatz.sim.anchor.posterior import posterior
from ersatz.sim.anchor.width import anchored_half
from ersatz.sim.processes import side_by_side
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.uncertainty.intervals import components
from ersatz.sim.validation.errors.heldout import Judged, weighted_quantiles
from ersatz.sim.validation.errors.widths import features_of, weights
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
    widths: tuple[Mapping[str, float], ...]  # log half widths without an anchor, by reason


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
    answers = iter(list(side_by_side(_slopes, asked, 8)))
    return [
        Group(lineage, np.array([j.lineage_error for j in found]),
              np.array([next(answers) for _ in found]), tuple(_widths(j) for j in found))
        for (lineage, _, _), found in chosen.items()
    ]  # fmt: skip


def _widths(j: Judged) -> dict[str, float]:
    known = components()
    return {name: known[name] for name in features_of(j)}


def _thinned(rows: list[Judged]) -> list[Judged]:
    step = max(len(rows) / MOST, 1.0)
    return [rows[int(i * step)] for i in range(round(len(rows) / step))]


def _slopes(scenario: Scenario) -> Array:
    """Return how a predicted step depends on the facts of its stack: it was timed, so it can be run."""
    return slopes(scenario, [0.0] * len(NAMES))[1]


def anchored_errors(groups: Sequence[Group], seed: int = 0) -> AnchoredErrors:
    """Return the errors of rows beside two random anchors."""
    rng = np.random.default_rng(seed)
    errors: list[float] = []
    halves: list[float] = []
    before: list[float] = []
    lineages: list[str] = []
    for group in groups:
        for _ in range(DRAWS):
            left, half, kept = _one_draw(group, rng)
            errors += left.tolist()
            halves += half.tolist()
            before += group.errors[kept].tolist()
            lineages += [group.lineage] * len(left)
    sizes = np.abs(np.array(errors))
    inside = sizes <= np.array(halves)
    weight = weights(lineages)
    median, p90 = weighted_quantiles([math.expm1(e) for e in errors], lineages)
    (was,) = weighted_quantiles([math.expm1(e) for e in before], lineages, (0.5,))
    (wide,) = weighted_quantiles([math.expm1(h) for h in halves], lineages, (0.5,))
    covered = float(inside @ weight)
    return AnchoredErrors(len(groups), len(set(lineages)), median, p90, covered, wide, was)


def _one_draw(group: Group, rng: np.random.Generator) -> tuple[Array, Array, npt.NDArray[np.intp]]:
    """Return errors, half widths and places of the rows that were not drawn as anchors."""
    places = rng.permutation(len(group.errors))
    mine, others = places[:ANCHORS], places[ANCHORS:]
    slope, error = group.slopes[mine], group.errors[mine]
    found = posterior(lambda logs: (error + slope @ logs, slope), row_scale())
    left = group.errors[others] + group.slopes[others] @ found.logs
    half = [
        anchored_half(group.widths[i], group.slopes[i], found.covariance, found.spread)
        for i in others
    ]
    return left, np.array(half), others
