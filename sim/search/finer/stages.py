"""Uneven stages: layers moved from the busiest stage to the idlest, as long as the exact step gets shorter.

A small search from one layout: it proves nothing of other splits, only that it is faster where it changes
anything. Its order follows from the kernels' times alone, so that it is the same each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ersatz.sim.plan.layout import even_or_by_load, pipeline_length, split_layers
from ersatz.sim.plan.schedules import chunk_places
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.least.bounds import BACKWARD, BUSY, FORWARD, FULL, SELECTIVE, Bounds
from ersatz.sim.search.pricing import Price, Row
from ersatz.sim.search.space import CP, EP, ETP, MB, SP, TP
from ersatz.sim.workload.model import Model

SHARD = (TP, CP, EP, ETP, SP, MB)
MOST_MOVES = 8
NEAR = 2  # stages at either end of the order by load that are tried with each other
Exact = Callable[[Scenario], Price | None]  # None where the memory does not suffice


def moved(
    scenario: Scenario, row: Row, bounds: Bounds, price: Price, exact: Exact
) -> tuple[Scenario, Price]:
    """Return a layout with its layers dealt out so that its step is shorter, and its price.

    It is given back as it is where no move of one layer helps. `exact` prices a layout.
    """
    if scenario.parallel.pp == 1:
        return scenario, price
    each = _passes(bounds, row, scenario.parallel.recompute)
    for _ in range(MOST_MOVES):
        for other in _moves(scenario, each):
            found = exact(other)
            if found is not None and found.seconds < price.seconds:
                scenario, price = other, found
                break
        else:
            break
    return scenario, price


def split_now(scenario: Scenario) -> tuple[int, ...]:
    """Return the layers of each position."""
    parallel = scenario.parallel
    return parallel.chunk_layers or even_or_by_load(scenario.model, pipeline_length(parallel))


def _moves(scenario: Scenario, each: Sequence[float]) -> Iterator[Scenario]:
    """Yield layouts with one layer less on a busy stage and one more on an idle one."""
    counts, parallel = split_now(scenario), scenario.parallel
    rows = chunk_places(parallel.schedule, parallel.pp, parallel.vp)
    held = [sorted({place.position for place in row}) for row in rows]
    loads = position_loads(scenario, each)
    stages = [sum(loads[at] for at in positions) for positions in held]
    busy = sorted(range(len(held)), key=lambda stage: (-stages[stage], stage))
    for heavy in busy[:NEAR]:
        for light in busy[: -NEAR - 1 : -1]:
            source = max(held[heavy], key=lambda at: (counts[at], at))
            target = min(held[light], key=lambda at: (counts[at], at))
            if counts[source] > 1 and stages[light] < stages[heavy]:
                new = list(counts)
                new[source] -= 1
                new[target] += 1
                yield _with_split(scenario, tuple(new))


def _with_split(scenario: Scenario, counts: tuple[int, ...]) -> Scenario:
    usual = even_or_by_load(scenario.model, len(counts))
    given = () if counts == usual else counts
    return replace(scenario, parallel=replace(scenario.parallel, chunk_layers=given))


def position_loads(scenario: Scenario, each: Sequence[float]) -> list[float]:
    """Return the seconds of each position's kernels for one micro-batch; `each` by part of the model."""
    model: Model = scenario.model
    kinds = {kind: number for number, kind in enumerate(model.kinds, start=1)}
    found = []
    for chunk in split_layers(model, scenario.parallel):
        seconds = chunk.embedding * each[0] + chunk.predict * each[-2] + chunk.head * each[-1]
        found.append(seconds + sum(count * each[kinds[kind]] for kind, count in chunk.runs))
    return found


def _passes(bounds: Bounds, row: Row, recompute: str) -> list[float]:
    """Return the seconds of both passes of each part, with what is computed again."""
    table = bounds.priced(tuple(row[column] for column in SHARD))[:, BUSY]
    again = {"selective": table[SELECTIVE], "full": table[FULL]}.get(recompute, np.zeros(1))
    found: list[float] = (table[FORWARD] + table[BACKWARD] + again).tolist()
    return found
