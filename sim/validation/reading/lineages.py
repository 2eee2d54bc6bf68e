"""Lineages: sources that share code, people or a cluster, and are left out together.

To be judged as a stranger would be, a run is read without what is known from its own lineage alone:
its stacks (a framework is then what the remaining rules take it for) and rules that name a source.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from ersatz.device_models.catalog.reading import load_stack
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.shipped import DATA
from ersatz.sim.validation.reading.rules import fits, rules
from ersatz.sim.validation.reading.table import Run, read_table

SHIPPED = DATA / "measured" / "training_runs.csv"
FITTED = ("FIT", "REFIT")  # sources of a stack's values that were fitted to runs
MEMORY = ("activation_memory", "memory_overhead_bytes", "memory_fragmentation")  # such of memory


def lineage_of(run: Run) -> str:
    """Return the lineage of a row's source."""
    named = next((rule["lineage"] for rule in rules("lineages") if fits(rule, run)), "")
    return named or run.text("source") or "unnamed"


def source_of(run: Run) -> str:
    """Return where a row was published."""
    return run.text("source")


def stacks_by(runs: Iterable[Run], group: Callable[[Run], str]) -> Mapping[str, frozenset[str]]:
    """Return which stacks each group of rows ran, as the reading rules take its frameworks."""
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        found[group(run)].add(next(rule["stack"] for rule in rules("stacks") if fits(rule, run)))
    return {name: frozenset(stacks) for name, stacks in found.items()}


@lru_cache(maxsize=2)
def _shipped_stacks(group: Callable[[Run], str]) -> Mapping[str, frozenset[str]]:
    return stacks_by(read_table(SHIPPED).runs, group)


def _only(name: str, groups: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return the stacks that one group alone ran."""
    return groups.get(name, frozenset()).difference(*(s for n, s in groups.items() if n != name))


def withheld(lineage: str) -> frozenset[str]:
    """Return the stacks that would not be known without a lineage of the table that travels along."""
    return _only(lineage, _shipped_stacks(lineage_of))


def withheld_memory(source: str) -> frozenset[str]:
    """Return the stacks whose memory would not be known without a source of that table.

    Those that it alone ran, and those that it ran of which a figure of memory was fitted to runs.
    """
    groups = _shipped_stacks(source_of)
    fitted = {name for name in groups.get(source, ()) if _is_fitted(load_stack(name))}
    return _only(source, groups) | fitted


def _is_fitted(stack: Stack) -> bool:
    return any(key in stack.facts and stack.facts[key].source in FITTED for key in MEMORY)
