"""The words in which a table of operations is written by hand, and how it is held against a step.

A row says what one rank issues in a step: phase, kind, members, how often, bytes of each. Weights
of norms (below 0.1 %) and what `ersatz run --ops` says it leaves out are not written down.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from ersatz.device_models.catalog.reading import load_node, load_stack
from ersatz.sim.records import OperationsResult
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario, Training
from ersatz.sim.step.operations import step_operations
from ersatz.sim.workload.model import Model
from tests.factories import make_scenario

SAME = 0.004  # relative: what differs by less is the same but for norms
GATHER, SCATTER, REDUCE = "all_gather", "reduce_scatter", "all_reduce"
EXCHANGE, SEND = "all_to_all", "send"
F, A, B, OPT, P = "forward", "recompute", "backward", "optimizer", "pipeline"
TENSOR, CONTEXT, EXPERTS, WEIGHTS, PIPELINE = "tensor", "context", "experts", "weights", "pipeline"
ASPECTS = (TENSOR, CONTEXT, EXPERTS, WEIGHTS, PIPELINE)
ASPECT_OF = {
    "tp": TENSOR,
    "cp": CONTEXT,
    "ulysses": CONTEXT,
    "ep": EXPERTS,
    "etp": EXPERTS,
    "pp": PIPELINE,
}
KIND_OF = {"node_limited_all_to_all": EXCHANGE, "ring_shift": SEND}


class Row(NamedTuple):
    """What a rank issues: in which phase, of which kind, among how many, how often, of what size."""

    phase: str
    kind: str
    size: int
    times: float
    each: float  # bytes, as `collective_time` counts them


class Flop(NamedTuple):
    """FLOPs of one kind: all, of which those computed before and those for nothing."""

    flop: float
    again: float = 0.0
    padding: float = 0.0


Rows = Mapping[int, list[Row]]  # by stage
Flops = Mapping[int, Mapping[tuple[str, str], Flop]]  # by stage, phase and kind


@dataclass(frozen=True)
class Layout:
    """A scenario and the table that was written for it; an aspect that is not there sends nothing."""

    name: str
    scenario: Scenario
    sends: Mapping[str, Rows]
    flops: Flops
    in_sum: frozenset[str] = field(default_factory=frozenset)  # aspects of which bytes in all count
    inside: Mapping[str, int] = field(default_factory=dict)  # of an aspect's groups, in one domain


def layout_scenario(
    model: Model, stack: str, node: str, nodes: int, parallel: Parallel, *,
    sequence: int, batch: int, **training: Any,
) -> Scenario:  # fmt: skip
    """Return a scenario on shipped hardware under shipped software."""
    pool = Pool("", load_node(node), nodes, load_stack(stack))
    return make_scenario(model=model, pools=(pool,), parallel=parallel,
                         training=Training(sequence, batch, 1, **training))  # fmt: skip


def everywhere(stages: int, rows: list[Row]) -> Rows:
    """Return the same rows for every stage."""
    return dict.fromkeys(range(stages), rows)


@lru_cache(maxsize=64)
def _operations(layout: str, scenario_id: int) -> OperationsResult:
    return step_operations(_SCENARIOS[scenario_id])


_SCENARIOS: dict[int, Scenario] = {}


def operations(layout: Layout) -> OperationsResult:
    """Return what the engine's program issues, counted once per layout."""
    _SCENARIOS[id(layout.scenario)] = layout.scenario
    return _operations(layout.name, id(layout.scenario))


def found_rows(layout: Layout, aspect: str, stage: int) -> list[Row]:
    """Return what the ranks of a stage issue in the groups of an aspect."""
    return [
        Row(r.phase, KIND_OF.get(r.kind, r.kind), r.size, r.count, r.nbytes)
        for r in operations(layout).collectives
        if stage in r.stages and r.group != "world" and ASPECT_OF.get(r.group, WEIGHTS) == aspect
    ]


def merged(rows: Iterable[Row]) -> Iterator[Row]:
    """Add up the rows that are alike, sorted."""
    last: Row | None = None
    for row in sorted(rows):
        alike = last and last[:3] == row[:3] and abs(row.each - last.each) <= SAME * row.each
        if last and alike:
            last = last._replace(times=last.times + row.times)
            continue
        if last:
            yield last
        last = row
    if last:
        yield last


def in_all(rows: Iterable[Row]) -> Mapping[tuple[str, str, int], float]:
    """Return the bytes of all rows by phase, kind and size of the group."""
    total: dict[tuple[str, str, int], float] = defaultdict(float)
    for row in rows:
        total[row[:3]] += row.times * row.each
    return total


def found_flops(layout: Layout, stage: int) -> Mapping[tuple[str, str], Flop]:
    """Return the FLOPs of a rank of a stage."""
    return {
        (r.phase, r.kind): Flop(r.flop, r.recomputed_flop, r.padding_flop)
        for r in operations(layout).flops
        if stage in r.stages
    }
