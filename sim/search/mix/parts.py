"""The pools of a mix, each as if it were the whole job: what its layouts take, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ersatz.device_models.kernels.kernel import calibrated_time
from ersatz.sim.plan.memory import state
from ersatz.sim.plan.memory.runtime import beside
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario
from ersatz.sim.search.choices import Choices, choices_of, with_defaults
from ersatz.sim.search.least.bounds import (
    BACKWARD,
    FORWARD,
    FULL,
    SELECTIVE,
    SHARD_COLUMNS,
    THROUGH,
    Bounds,
    distinct,
)
from ersatz.sim.search.least.prices import Array, ShardPrices, kept_bytes, part_chunks
from ersatz.sim.search.space import (
    CP,
    DP,
    EP,
    ETP,
    MB,
    RECOMP,
    SHARD,
    TP,
    ZERO,
    Rows,
    Space,
    layout_of,
    make_space,
)

MOST_ZERO = 2  # with ZeRO 3 every layer would be gathered over what joins the pools


@dataclass(slots=True)
class Part:
    """One pool of a mix, as if it were the whole job."""

    pool: Pool
    scenario: Scenario  # on this pool alone
    choices: Choices
    prices: ShardPrices
    everything: bool = False
    bound: Bounds | None = None
    seen: dict[tuple[int, ...], Array] = field(default_factory=dict)

    def at(self, batch: int) -> Scenario:
        """Return the job with so many sequences a step."""
        return replace(self.scenario, training=replace(self.scenario.training, global_batch=batch))

    @property
    def bounds(self) -> Bounds:
        """Bounds on layouts with any number of sequences a step: rows have their micro-batches."""
        if self.bound is None:
            self.bound = Bounds(self.scenario, prices=self.prices)
        return self.bound


def parts_of(scenario: Scenario, *, everything: bool = False) -> list[Part]:
    """Return the pools of a scenario, each alone; raises nothing."""
    found = []
    for pool in scenario.pools:
        alone = replace(
            scenario, pools=(pool,), joint=None,
            parallel=with_defaults(Parallel(), pool.stack), open=("parallel", "micro_batch"),
            job=replace(scenario.job, pool_spares={}),
        )  # fmt: skip
        choices = choices_of(alone, everything=everything)
        zero = tuple(z for z in choices.zero if z <= MOST_ZERO)
        found.append(Part(pool, alone, replace(choices, zero=zero),
                          ShardPrices(scenario.model, pool, calibrated_time), everything))  # fmt: skip
    return found


@dataclass(frozen=True, slots=True)
class Stages:
    """Layouts of one pool as stages of a pipeline, with what a layer takes on each."""

    part: Part
    rows: Rows
    seconds: Array  # (rows, kinds of layer) of a micro-batch, both passes
    first: Array  # (rows) the embedding's
    last: Array  # (rows) the head's and the prediction modules'
    state: Array  # (rows) bytes of a mean layer that stand all through the step
    kept: Array  # (rows) bytes of a mean layer and micro-batch in flight
    fixed: Array  # (rows) bytes of a rank, whatever it holds

    def some(self, which: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Stages:
        """Return some of the rows."""
        return Stages(self.part, self.rows[which], self.seconds[which], self.first[which],
                      self.last[which], self.state[which], self.kept[which], self.fixed[which])  # fmt: skip

    def mean(self, counts: Array) -> Array:
        """Return the seconds of a mean layer by row; `counts` are the layers of each kind."""
        found: Array = self.seconds @ counts / counts.sum()
        return found


def stages_of(part: Part) -> Stages:
    """Return all layouts of a pool whose stages run 1F1B: numbers of stages, degrees, micro-batches."""
    held: dict[str, object] = {"schedule": "1f1b"}
    space: Space = make_space(part.scenario, part.choices, held)
    rows = space.rows[space.rows[:, SHARD] == 0] if len(space.rows) else space.rows
    if len(rows):
        rows = rows[rows[:, ZERO] == rows[:, ZERO].max()]
    bounds = part.bounds
    shards, which = distinct(rows, SHARD_COLUMNS)
    table = np.stack([bounds.priced(tuple(shard)) for shard in shards.tolist()]) if len(rows) else (
        np.zeros((0, 5, 3, len(part_chunks(part.scenario.model))))
    )  # fmt: skip
    through = table[:, :, THROUGH]
    both = (through[:, FORWARD] + through[:, BACKWARD])[which]
    again = np.stack([np.zeros_like(through[:, FULL]), through[:, SELECTIVE], through[:, FULL]])
    both = both + again[rows[:, RECOMP], which]
    state_, kept, fixed = _bytes(part, rows)
    return Stages(part, rows, both[:, 1:-2], both[:, 0], both[:, -2] + both[:, -1],
                  state_, kept, fixed)  # fmt: skip


def _bytes(part: Part, rows: Rows) -> tuple[Array, Array, Array]:
    """Return bytes of a mean layer's state and of its activations in flight, and those of a rank."""
    model, pool = part.scenario.model, part.pool
    layers = [chunk for chunk in part_chunks(model) if chunk.runs]
    counts = _counts(part.scenario)
    keys, which = distinct(rows, [TP, CP, EP, ETP, DP, ZERO])
    _, first = np.unique(which, return_index=True)
    states, fixed = np.zeros(len(keys)), np.zeros(len(keys))
    for number, at in enumerate(first):
        case = layout_of(part.scenario, rows[at])
        for chunk, count in zip(layers, counts, strict=True):
            held = state.held_of(case, [chunk])
            found = state.weights_kept(case, pool.stack, [chunk])
            found += state.state_kept(case, pool.stack, held)
            if pool.stack.gradient_buffer:
                found += state.gradients_kept(case, pool.stack, held)
            states[number] += found * count / counts.sum()
        fixed[number] = sum(beside(pool.stack, case.parallel, model).values())
    shards, one = distinct(rows, SHARD_COLUMNS[:-1])
    kept = np.zeros((len(shards), 3))
    for number, shard in enumerate(map(tuple, shards.tolist())):
        if shard not in part.seen:
            part.seen[shard] = kept_bytes(part.scenario, pool, shard)
        kept[number] = part.seen[shard][:, 1:-2] @ counts / counts.sum()
    return states[which], kept[one, rows[:, RECOMP]] * rows[:, MB], fixed[which]


def _counts(scenario: Scenario) -> Array:
    """Return how many layers of each kind the model has."""
    kinds = list(scenario.model.kinds)
    found = np.zeros(len(kinds))
    for kind, count in scenario.model.runs:
        found[kinds.index(kind)] += count
    return found


def layer_kinds(scenario: Scenario) -> tuple[list[int], Array]:
    """Return the kind of every layer in order, and how many there are of each."""
    kinds = list(scenario.model.kinds)
    order = [kinds.index(kind) for kind, count in scenario.model.runs for _ in range(count)]
    return order, _counts(scenario)
