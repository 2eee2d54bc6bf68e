"""A pipeline whose stages stand on several pools: degrees of each, and layers by speed and memory.

Pools that see the same number of micro-batches go together. Layers are dealt out so that the slowest
stage is as fast as can be and none holds more than fits. A step lasts no shorter than its slowest stage,
and that no shorter than if layers could be cut: n layers of t_i seconds on p_i stages of pool i take
n / sum(p_i / t_i) each micro-batch. With m of them and 1F1B the stages before and after add to that: the
sum over stages of weights w_s times (m T_s + T of those before s) is a bound for any weights that add up to
1, and weights for which it does not depend on the split are found in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np
import numpy.typing as npt

from ersatz.sim.plan.memory.verdict import room_for_sure
from ersatz.sim.scenario.resolving.own import joined_layout
from ersatz.sim.scenario.scenario import Parallel, PoolLayout, Scenario
from ersatz.sim.search.least.prices import Array
from ersatz.sim.search.mix.parts import Part, Stages, layer_kinds, stages_of
from ersatz.sim.search.space import PP, M, Rows, layout_of

MOST_ROWS = {
    2: 120,
    3: 24,
}  # of a pool and number of micro-batches, the fastest of each use of memory
FEW_ROWS = 10
Places = npt.NDArray[np.intp]  # of rows
MOST_CHAINS = 200  # of an order of the pools and a number of micro-batches


@dataclass(frozen=True, slots=True)
class Chain:
    """A row of each pool, in the order of the pipeline."""

    order: tuple[int, ...]  # places of the pools in the scenario
    rows: tuple[int, ...]  # of each pool's `Stages`, in that order
    estimate: float  # seconds of a step
    bound: float


@dataclass(slots=True)
class Pipelines:
    """All pipelines over the pools of a scenario, the most promising first."""

    scenario: Scenario
    parts: Sequence[Part]
    stages: list[Stages]
    chains: list[Chain]
    least: float  # no pipeline takes less

    def layers(self, chain: Chain, caps: Sequence[int]) -> tuple[int, ...] | None:
        """Return the layers of each stage of a chain by speed, none above its cap; None: too few."""
        own = [self.stages[pool].some(np.array([row]))
               for pool, row in zip(chain.order, chain.rows, strict=True)]  # fmt: skip
        seconds = [one.seconds[0] for one in own for _ in range(int(one.rows[0, PP]))]
        kinds, _ = layer_kinds(self.scenario)
        return split_by_speed(kinds, seconds, own[0].first[0], own[-1].last[0], caps)

    def caps(self, chain: Chain) -> list[int]:
        """Return how many mean layers each stage can hold at most, by the bound on memory."""
        found: list[int] = []
        total = sum(int(self.stages[p].rows[r, PP])
                    for p, r in zip(chain.order, chain.rows, strict=True))  # fmt: skip
        for pool, row in zip(chain.order, chain.rows, strict=True):
            one = self.stages[pool]
            for _ in range(int(one.rows[row, PP])):
                flying = min(total - len(found), int(one.rows[row, M]))
                found.append(int(_cap(one, np.array([row]), np.array([flying]))[0]))
        return found

    def layout(self, chain: Chain, layers: tuple[int, ...]) -> Scenario:
        """Return the scenario of a chain whose stages hold so many layers."""
        names: list[str] = []
        found: dict[str, tuple[Parallel, int]] = {}
        for pool, row in zip(chain.order, chain.rows, strict=True):
            one = self.stages[pool]
            case = layout_of(one.part.scenario, one.rows[row])
            names += [one.part.pool.name] * case.parallel.pp
            found[one.part.pool.name] = case.parallel, case.training.micro_batch
        job = {"pp": len(names), "vp": 1, "schedule": "1f1b", "chunk_layers": layers,
               "stage_pools": tuple(names), "mixed": "stages", "own": True}  # fmt: skip
        own = [
            PoolLayout(pool.name, replace(found[pool.name][0], **job), found[pool.name][1])  # type: ignore[arg-type]
            for pool in self.scenario.pools
        ]
        training = replace(self.scenario.training, micro_batch=own[0].micro_batch)
        parallel = joined_layout(own[0].parallel, own)
        return replace(self.scenario, parallel=parallel, training=training, open=())


def pipelines(scenario: Scenario, parts: Sequence[Part]) -> Pipelines:
    """Return the pipelines over all pools of a scenario, ordered by their estimated step."""
    stages = [stages_of(part) for part in parts]
    _, counts = layer_kinds(scenario)
    chains: list[Chain] = []
    least = float("inf")
    for m in sorted(set.intersection(*(set(one.rows[:, M].tolist()) for one in stages))):
        few = [
            _front(one, np.flatnonzero(one.rows[:, M] == m), counts, len(stages)) for one in stages
        ]
        for order in permutations(range(len(stages))):
            found, bound = _chains(stages, few, order, int(m), counts)
            chains += found
            least = min(least, bound)
    chains.sort(key=lambda one: (one.estimate, one.order, one.rows))
    return Pipelines(scenario, parts, stages, chains, least)


def _front(one: Stages, rows: Places, counts: Array, pools: int) -> Places:
    """Return the rows that no other of as many stages beats in both time and memory, the best of them."""
    mean = one.mean(counts)
    found: list[int] = []
    for pp in sorted(set(one.rows[rows, PP].tolist())):
        mine = rows[one.rows[rows, PP] == pp]
        size = one.state[mine] + pp * one.kept[mine]
        least = float("inf")
        for at in np.lexsort((size, mean[mine])):
            if size[at] < least:
                least = size[at]
                found.append(int(mine[at]))
    most = MOST_ROWS.get(pools, FEW_ROWS)
    found.sort(key=lambda row: mean[row] / one.rows[row, PP])
    return np.array(found[:most], dtype=np.intp)


def _cap(one: Stages, rows: Places, flying: Rows) -> Array:
    """Return how many mean layers a stage of each row can hold with so many micro-batches in flight."""
    room = one.part.pool.node.device.memory_bytes / room_for_sure(1.0) - one.fixed[rows]
    each = one.state[rows] + flying * one.kept[rows]
    found: Array = np.floor(np.maximum(room, 0.0) / each + 1e-9)
    return found


def _chains(
    stages: Sequence[Stages], few: Sequence[Places], order: tuple[int, ...], m: int, counts: Array
) -> tuple[list[Chain], float]:
    """Return the best combinations of rows in one order of the pools, and a bound on all of them."""
    if not all(len(few[pool]) for pool in order):
        return [], float("inf")
    grid = np.array(list(product(*(few[pool].tolist() for pool in order))), dtype=np.intp)
    places = list(enumerate(order))
    pp = np.stack([stages[p].rows[grid[:, i], PP] for i, p in places], axis=1)
    mean = np.stack([stages[p].mean(counts)[grid[:, i]] for i, p in places], axis=1)
    total, layers = pp.sum(axis=1), counts.sum()
    ratio = np.stack([stages[p].seconds[grid[:, i]] / mean[:, i, None] for i, p in places])
    uneven = ratio.min(axis=0) @ counts / layers  # 1 where all layers are of a kind
    room = _rooms(stages, grid, order, pp, m)
    speed = pp / mean
    even = layers / speed.sum(axis=1)  # seconds of a micro-batch on every stage
    slowest = even
    for i, _ in places:  # a pool that can hold no more leaves more to the others
        others = np.maximum(speed.sum(axis=1) - speed[:, i], 1e-30)
        full = room[:, i] < even * speed[:, i]
        slowest = np.where(full, np.maximum(slowest, (layers - room[:, i]) / others), slowest)
    suits = room.sum(axis=1) >= layers
    one_kind = len(counts) == 1  # else a stage may hold more of the lighter layers
    bound = np.maximum(m * (slowest if one_kind else even * uneven),
                       _filled(pp, mean, m) * layers * uneven)  # fmt: skip
    possible = (total <= layers) & (suits | (not one_kind))
    ends = stages[order[0]].first[grid[:, 0]] + stages[order[-1]].last[grid[:, -1]]
    estimate = (m + total - 1) * (slowest + ends / total)
    fine = np.flatnonzero((total <= layers) & suits)
    best = fine[np.argsort(estimate[fine], kind="stable")][:MOST_CHAINS]
    found = [Chain(order, tuple(grid[at].tolist()), float(estimate[at]), float(bound[at]))
             for at in best]  # fmt: skip
    return found, float(bound[possible].min(initial=float("inf")))


def _rooms(
    stages: Sequence[Stages], grid: Places, order: tuple[int, ...], pp: Rows, m: int
) -> Array:
    """Return how many mean layers the stages of each pool can hold together, by combination."""
    behind = pp.sum(axis=1)[:, None] - np.cumsum(pp, axis=1)  # stages after those of each pool
    room = np.zeros(pp.shape)
    for i, p in enumerate(order):
        for back in range(1, int(pp[:, i].max()) + 1):  # each stage of it, from its last
            held = _cap(stages[p], grid[:, i], np.minimum(behind[:, i] + back, m))
            room[:, i] += np.where(back <= pp[:, i], held, 0.0)
    return room


def _filled(pp: Rows, mean: Array, m: int) -> Array:
    """Return what a mean layer adds at least, the way through the pipeline counted, for any split.

    With v_s = 1 / t_s and c = m / sum of v_s (1 - 1/m)^s over stages from the first, weights
    w_s = (c v_s - those after s) / m add up to 1, and each layer adds c t / t_s = c. Where a weight
    would be negative there is no such bound: 0.
    """
    shrink, pools = 1.0 - 1.0 / m, pp.shape[1]
    before, sums = np.zeros(len(pp)), np.zeros(len(pp))
    for i in range(pools):
        sums += shrink**before * (1.0 - shrink ** pp[:, i]) * m / mean[:, i]
        before = before + pp[:, i]
    c = m / sums
    after, fine = np.zeros(len(pp)), np.ones(len(pp), dtype=bool)
    for i in reversed(range(pools)):  # weights of a pool's stages have one sign
        own = c / mean[:, i]
        fine &= own >= after
        after = own - (own - after) * shrink ** pp[:, i]
    found: Array = np.where(fine, c, 0.0)
    return found


def split_by_speed(
    kinds: Sequence[int], seconds: Sequence[Array], first: float, last: float, caps: Sequence[int]
) -> tuple[int, ...] | None:
    """Return the layers of each stage so that the slowest is as fast as can be; None: caps are too low.

    `seconds[stage][kind]` are those of a layer; the first stage has the embedding's, the last one the
    head's beside them. Every stage has a layer.
    """
    if sum(caps) < len(kinds) or len(seconds) > len(kinds) or min(caps) < 1:
        return None
    low, high = 0.0, float(first + last + len(kinds) * max(each.max() for each in seconds))
    best = _fill(kinds, seconds, first, last, caps, high)
    for _ in range(50):
        limit = (low + high) / 2
        found = _fill(kinds, seconds, first, last, caps, limit)
        if found is None:
            low = limit
        else:
            best, high = found, limit
    return best


def _fill(
    kinds: Sequence[int], seconds: Sequence[Array], first: float, last: float, caps: Sequence[int],
    limit: float,
) -> tuple[int, ...] | None:  # fmt: skip
    """Fill stages from the last up to a limit, a layer left for each before; None if some are left."""
    counts, at = [0] * len(seconds), len(kinds)
    for stage in range(len(seconds) - 1, -1, -1):
        spent = last if stage == len(seconds) - 1 else 0.0
        spent += first if stage == 0 else 0.0
        while at > stage and counts[stage] < caps[stage]:
            more = spent + float(seconds[stage][kinds[at - 1]])
            if counts[stage] and more > limit:
                break
            spent = more
            at -= 1
            counts[stage] += 1
        if spent > limit:
            return None
    return tuple(counts) if at == 0 else None
