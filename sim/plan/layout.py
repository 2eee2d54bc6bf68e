"""Where ranks sit: the rank axes, the group of each communicator, and who holds which layers.

Ranks are numbered with tp fastest, then cp, then dp (its inner part shared with experts), then pp,
and fill the nodes in that order, as Megatron does. A folded expert group spans ep x etp neighbouring
ranks across the tp, cp and dp axes; a strided one takes ep of the dp, its slices the tp (etp = tp).
The state that ZeRO shards is spread over `shard` replicas, or all; sharded gradients are then summed
over the groups of replicas. DualPipe holds each chunk on two stages, which share their state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any, NamedTuple

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.networks.group import Group, group_of
from ersatz.sim.errors import LayoutError
from ersatz.sim.kept import Kept
from ersatz.sim.plan.orders import stage_chunks
from ersatz.sim.plan.schedules import chunk_places
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario
from ersatz.sim.workload.layer import Layer
from ersatz.sim.workload.model import Model, Runs

TP, CP, EP, DP = range(4)  # the rank axes of a stage


@dataclass(frozen=True, slots=True)
class Communicator:
    """The members of one kind of group, what they run on, and the axes on which they wait."""

    group: Group
    sync: tuple[int, ...]
    node: Node  # as its members find it: what they get of the network
    above: float = 0.0  # share of the links above the leaves that it uses when all groups talk
    exchanges: bool = False  # it does all-to-all


@dataclass(frozen=True, slots=True)
class Chunk:
    """The consecutive parts of the model that stand at one position of the pipeline."""

    position: int
    runs: Runs  # kinds of layer in order, with counts
    embedding: bool
    head: bool
    predict: int  # multi-token prediction modules
    table: bool = False  # its head's stage holds the embedding, too

    @property
    def layers(self) -> int:
        """Layers of the chunk."""
        return sum(count for _, count in self.runs)


def rank_shape(parallel: Parallel) -> tuple[int, int, int, int]:
    """Return the sizes of the axes (tp, cp, ep, dp) of one stage; dp counts what is left of it."""
    if parallel.expert_layout == "strided":
        return parallel.tp, parallel.cp, parallel.ep, parallel.dp // parallel.ep
    inner = parallel.tp * parallel.cp
    spread = max(parallel.ep * parallel.etp // inner, 1)
    return parallel.tp, parallel.cp, spread, parallel.dp // spread


class Spread(NamedTuple):
    """Over how many ranks the state of one kind of weights is spread, and copies of that."""

    shard: int
    copies: int


def weight_spread(parallel: Parallel, dp: int = 0) -> tuple[Spread, Spread]:
    """Return how dense and expert weights are spread over `dp` replicas (default: the layout's).

    What one shard group holds is whole; `copies` such groups hold the same. Without sharding
    (ZeRO 0) all ranks that hold the same weights are one group.
    """
    dp = dp or parallel.dp
    twins = 2 if parallel.schedule == "dualpipe" else 1
    shard = parallel.shard if parallel.shard and parallel.zero else dp
    rows, inner = parallel.cp * twins, parallel.tp * parallel.cp
    expert = parallel.ep * parallel.etp
    block, whole = max(inner * shard // expert, 1), max(inner * dp // expert, 1)
    return (
        Spread(shard * rows, dp // shard),
        Spread(block * twins, whole // block),
    )


def communicators(parallel: Parallel, node: Node, dp: int) -> Mapping[str, Communicator]:
    """Return the groups by name: tp, cp, ulysses, ep, etp, dp, rep, edp, erep, world, pp, ends.

    dp and edp share the state of dense and expert weights, rep and erep join groups that hold the
    same; ends are the first and the last stage. `dp` counts the replicas of the whole job, which
    may run on several kinds of node.
    """
    groups = {
        name: _twice(group_of(node, stride, size, parallel.world), twins)
        for name, (stride, size, twins) in group_extents(parallel, dp).items()
    }
    expert_sync: tuple[int, ...] = (
        (CP, EP) if parallel.etp == parallel.tp and parallel.tp > 1 else (TP, CP, EP)
    )
    if parallel.expert_layout == "strided":
        expert_sync = (EP,)
    sync: dict[str, tuple[int, ...]] = {"tp": (TP,), "cp": (CP,), "ulysses": (CP,), "ep": expert_sync,
            "etp": (TP,) if parallel.etp > 1 else (), "dp": (CP, EP, DP), "rep": (CP, EP, DP),
            "edp": (DP,), "erep": (DP,), "world": (TP, CP, EP, DP), "pp": (), "ends": ()}  # fmt: skip
    return {name: Communicator(group, sync[name], node, exchanges=name in ("ep", "ulysses"))
            for name, group in groups.items()}  # fmt: skip


def group_extents(parallel: Parallel, dp: int) -> dict[str, tuple[int, int, int]]:
    """Return stride, size and stages of each kind of group among the ranks of a stage."""
    tp, cp, ep, etp = parallel.tp, parallel.cp, parallel.ep, parallel.etp
    stage = tp * cp * dp
    twins = 2 if parallel.schedule == "dualpipe" else 1
    dense, experts = weight_spread(parallel, dp)
    inner = {"a2a+p2p": parallel.cp_inner}.get(parallel.cp_comm, 1)
    first, expert = etp, ep * etp
    if parallel.expert_layout == "strided":
        first, expert = tp * cp, tp * cp * ep
    return {
        "tp": (1, tp, 1),
        "cp": (tp * inner, cp // inner, 1),
        "ulysses": (tp, inner, 1),
        "ep": (first, ep, 1),
        "etp": (1, etp, 1),
        "dp": (tp, dense.shard // twins, twins),
        "rep": (tp * dense.shard // twins, dense.copies, 1),
        "edp": (expert, experts.shard // twins, twins),
        "erep": (expert * experts.shard // twins, experts.copies, 1),
        "world": (1, stage * parallel.pp, 1),
        "pp": (stage, parallel.pp, 1),
        "ends": (stage * max(parallel.pp - 1, 1), min(parallel.pp, 2), 1),
    }


def share_of(parallel: Parallel, pool: Pool, pools: Sequence[Pool]) -> Parallel:
    """Return the degrees of a pool's own ranks: where pools run whole replicas, dp counts its own."""
    for one in parallel.pools:
        if one.pool == pool.name:
            return one.parallel
    if len(pools) == 1 or parallel.mixed == "stages":
        return parallel
    return replace(parallel, dp=pool.devices // (parallel.tp * parallel.cp * parallel.pp))


WHOLE = {
    "interleaved": 0,
    "dualpipe": 2,
}  # micro-batches that a schedule takes at once; 0: one a stage


def turn_of(parallel: Parallel, micro_batch: int) -> int:
    """Return the sequences by which the share of a pool of replicas grows: whole rounds of its schedule."""
    whole = (WHOLE.get(parallel.schedule, 1) or parallel.pp) if parallel.own else 1
    return whole * parallel.dp * micro_batch


def on_pool(scenario: Scenario, pool: Pool) -> Scenario:
    """Return the scenario with the layout and the micro-batch that a pool has of its own, if any.

    Where pools hold replicas each has whole rounds of the batch, as many as if all were as fast.
    """
    batch, turns = scenario.training.global_batch, {
        one.pool: turn_of(one.parallel, one.micro_batch) for one in scenario.parallel.pools
    }  # fmt: skip
    for one in scenario.parallel.pools:
        if one.pool == pool.name:
            if scenario.parallel.mixed == "replicas":
                batch = turns[pool.name] * max(round(batch / sum(turns.values())), 1)
            training = replace(scenario.training, micro_batch=one.micro_batch, global_batch=batch)
            return replace(scenario, parallel=one.parallel, training=training)
    return scenario


def _twice(group: Group, stages: int) -> Group:
    """Return a group with as many members again on another stage, which sits elsewhere."""
    return replace(group, size=group.size * stages, spans=group.spans * stages)


def pipeline_length(parallel: Parallel) -> int:
    """Positions of one pipeline: stages times chunks that follow each other."""
    return stage_chunks(parallel.schedule, parallel.vp) * parallel.pp


def split_layers(model: Model, parallel: Parallel) -> tuple[Chunk, ...]:
    """Cut the model into the pipeline's positions, evenly unless `chunk_layers` says otherwise.

    Layers that do not divide are dealt out by load (see `load_split`). Raises LayoutError for a
    split that is not one of the model's layers, and for more positions than layers.
    """
    length = pipeline_length(parallel)
    counts = parallel.chunk_layers or even_or_by_load(model, length)
    if len(counts) != length or sum(counts) != model.layers:
        raise LayoutError(
            f"{model.layers} layers do not divide over {length} chunks: give chunk_layers,"
            f" for example {list(even_split(model.layers, length))}"
        )
    table, last = ends_meet(parallel), length - 1
    runs = [list(run) for run in reversed(model.runs)]
    return tuple(
        Chunk(position, _take(runs, count), position == 0, position == last,
              model.predict_layers if position == last else 0, table)
        for position, count in enumerate(counts)
    )  # fmt: skip


def _take(runs: list[list[Any]], count: int) -> Runs:
    """Take the next `count` layers off the end of reversed runs."""
    taken = []
    while count:
        kind, left = runs[-1]
        some = min(left, count)
        taken.append((kind, some))
        count -= some
        runs[-1][1] -= some
        if not runs[-1][1]:
            runs.pop()
    return tuple(taken)


def even_or_by_load(model: Model, length: int) -> tuple[int, ...]:
    """Return the layers of each position where nothing is said: as many in each, or by load."""
    if model.layers < length:
        return even_split(model.layers, length)
    even = model.layers % length == 0
    if even:
        return (model.layers // length,) * length
    return _SPLITS.get((model,), length, lambda: load_split(model, length))


_SPLITS: Kept[tuple[int, ...]] = Kept(256)


def load_split(model: Model, length: int) -> tuple[int, ...]:
    """Deal layers out so that the heaviest position is as light as can be, the head counted.

    The load of a layer is its active weights, that of the head its own; among splits that are as
    good the later positions are the lighter ones.
    """
    loads, head = layer_loads(model), float(model.hidden * model.vocab)
    low, high = max(loads), sum(loads) + head
    best = even_split(model.layers, length)
    for _ in range(60):
        limit = (low + high) / 2
        found = _fill(loads, head, length, limit)
        if found is None:
            low = limit
        else:
            best, high = found, limit
    return best


def layer_loads(model: Model) -> list[float]:
    """Return the active weights of every layer, in order."""
    found: list[float] = []
    for kind, count in model.runs:
        found += [float(kind.params(active=True))] * count
    return found


def chunk_loads(model: Model, counts: Sequence[int]) -> list[float]:
    """Return the active weights of each position that holds so many layers, the head's counted."""
    loads, ends = layer_loads(model), list(accumulate(counts))
    found = [math.fsum(loads[end - count : end]) for end, count in zip(ends, counts, strict=True)]
    return [*found[:-1], found[-1] + float(model.hidden * model.vocab)]


def shown_split(counts: Sequence[int]) -> str:
    """Write layers per position in short: '4 x 3, 5 x 4'."""
    runs = [(size, len(list(same))) for size, same in groupby(counts)]
    return ", ".join(f"{size} x {many}" if many > 1 else f"{size}" for size, many in runs)


def _fill(loads: list[float], head: float, length: int, limit: float) -> tuple[int, ...] | None:
    """Fill positions from the last to `limit`, a layer left for each before; None if some are left."""
    counts, at = [0] * length, len(loads)
    for position in range(length - 1, -1, -1):
        held = head if position == length - 1 else 0.0
        while at > position and (not counts[position] or held + loads[at - 1] <= limit):
            at -= 1
            held += loads[at]
            counts[position] += 1
        if held > limit and not (position == length - 1 and counts[position] == 1):
            return None
    return tuple(counts) if at == 0 else None


def ends_meet(parallel: Parallel) -> bool:
    """Tell whether the stage of the head also holds the embedding."""
    places = chunk_places(parallel.schedule, parallel.pp, parallel.vp)
    held = [{place.position for place in row} for row in places]
    last = pipeline_length(parallel) - 1
    return any({0, last} <= positions for positions in held)


def copies_table(model: Model, parallel: Parallel) -> bool:
    """Tell whether the last stage holds a copy of the embedding: as its head, or to predict with."""
    return (model.tied or bool(model.predict_layers)) and not ends_meet(parallel)


def even_split(layers: int, chunks: int) -> tuple[int, ...]:
    """Split as evenly as possible with the lighter chunks at the ends, which hold the vocabulary."""
    base, extra = divmod(layers, chunks)
    counts = [base] * chunks
    order = sorted(range(chunks), key=lambda i: (i in (0, chunks - 1), i))
    for index in order[:extra]:
        counts[index] += 1
    return tuple(counts)


def cost_split(model: Model, stages: int) -> tuple[int, ...]:
    """Deal layers out until a stage holds its share of the cost, the head counted (nanotron).

    A stage takes layers until the running cost exceeds its share of the total; a layer costs 1 and
    the head 0.9 of its weights' share.
    """
    h = model.hidden
    head = 0.9 * model.vocab * h / (4 * h * h + (3 if model.gated else 2) * h * model.ffn_hidden)
    share = (model.layers + head) / stages
    counts = [0] * stages
    stage = 0
    for dealt in range(1, model.layers + 1):
        counts[stage] += 1
        if dealt > share * (stage + 1) and stage < stages - 1:
            stage += 1
    return tuple(counts)


def chunk_params(model: Model, chunk: Chunk, parallel: Parallel) -> tuple[float, float]:
    """Return the (dense, expert) weights of a chunk on one rank, before any sharding over dp.

    Norms, routers and latent down-projections are whole on every rank of a tensor group, and so is
    the head of keys or values that several ranks share.
    """
    tp, held = parallel.tp, held_runs(model, chunk)
    dense = sum(count * _split_params(kind, tp) for kind, count in held)
    dense += chunk_whole_params(model, chunk) + chunk.predict * 2.0 * model.hidden**2 / tp
    dense += (model.tables / tp) * chunk.embedding
    expert = sum(count * kind.expert_params() * kind.experts.routed
                 for kind, count in held if kind.experts)  # fmt: skip
    dense += _tables(model, chunk) * model.hidden * model.vocab / tp
    return dense, expert / (parallel.ep * parallel.etp)


def held_runs(model: Model, chunk: Chunk) -> Runs:
    """Return the kinds of layer of a chunk with counts, those of its prediction modules among them."""
    return (*chunk.runs, (model.predict_layer, chunk.predict)) if chunk.predict else chunk.runs


def chunk_whole_params(model: Model, chunk: Chunk) -> float:
    """Return the weights of a chunk that every rank of a tensor group holds whole."""
    return float(sum(count * _whole_params(kind) for kind, count in held_runs(model, chunk)))


@lru_cache(maxsize=4096)
def _whole_params(kind: Layer) -> int:
    """Weights of one layer that every rank of a tensor group holds whole."""
    whole = kind.blocks * kind.hidden + kind.stream_params()
    return whole + kind.whole_mlp_params() + kind.whole_mixer_params()


@lru_cache(maxsize=4096)
def _split_params(kind: Layer, tp: int) -> float:
    """Weights of one layer on one rank, of what is divided and is no routed expert."""
    mixer = kind.mixer_params() - kind.whole_mixer_params()
    mlp = kind.shared_params() if kind.experts else kind.mlp_params()
    copies = 0.0
    if kind.heads and not kind.latent and kind.kv_heads < tp:
        copies = kind.hidden * kind.key_products * (1.0 / kind.kv_heads - 1.0 / tp)
    return (mixer + mlp) / tp + copies


def _tables(model: Model, chunk: Chunk) -> int:
    """Embeddings and heads of a chunk, each counted once per stage."""
    head = chunk.head and not (model.tied and chunk.table)
    copy = chunk.head and chunk.predict and not chunk.table and not model.tied
    return chunk.embedding + head + bool(copy)
