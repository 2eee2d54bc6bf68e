"""Lineages: sources that share code, people or a cluster, and are left out together.

To be judged as a stranger would be, a run is read without what is known from its own lineage alone:
its stacks (a framework is then what the remaining rules take it for) and rules that name a source.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache

from ersatz.device_models.shipped import DATA
from ersatz.sim.validation.reading.rules import fits, rules
from ersatz.sim.validation.reading.table import Run, read_table

SHIPPED = DATA / "measured" / "training_runs.csv"


def lineage_of(run: Run) -> str:
    """Return the lineage of a row's source."""
    named = next((rule["lineage"] for rule in rules("lineages") if fits(rule, run)), "")
    return named or run.text("source") or "unnamed"


def stacks_by_lineage(runs: Iterable[Run]) -> Mapping[str, frozenset[str]]:
    """Return which stacks each lineage ran, as the reading rules take its frameworks."""
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        found[lineage_of(run)].add(
            next(rule["stack"] for rule in rules("stacks") if fits(rule, run))
        )
    return {lineage: frozenset(stacks) for lineage, stacks in found.items()}


@lru_cache(maxsize=1)
def _shipped_stacks() -> Mapping[str, frozenset[str]]:
    return stacks_by_lineage(read_table(SHIPPED).runs)


def withheld(lineage: str) -> frozenset[str]:
    """Return the stacks that would not be known without a lineage of the table that travels along."""
    mine = _shipped_stacks().get(lineage, frozenset())
    others = frozenset().union(*(s for name, s in _shipped_stacks().items() if name != lineage))
    return mine - others
