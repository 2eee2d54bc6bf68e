"""Where ranks sit: the rank axes, the group of each communicator, and who holds which layers.

Ranks are numbered with tp fastest, then cp, then dp (its inner part shared with experts), then pp,
and fill the nodes in that order, as Megatron does. An expert group spans ep x etp neighbouring
ranks across the tp, cp and dp axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.networks.group import Group, group_of
from ersatz.sim.plan.schedules import chunk_places
from ersatz.sim.scenario.scenario import Parallel
from ersatz.sim.workload.model import Model

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
    dense: int  # layers with a dense MLP; they come first
    moe: int
    embedding: bool
    head: bool
    predict: int  # multi-token prediction modules

    @property
    def layers(self) -> int:
        """Transformer layers of the chunk."""
        return self.dense + self.moe


def rank_shape(parallel: Parallel) -> tuple[int, int, int, int]:
    """Return the sizes of the axes (tp, cp, ep, dp) of one stage; dp counts what is left of it."""
    inner = parallel.tp * parallel.cp
    spread = max(parallel.ep * parallel.etp // inner, 1)
    return parallel.tp, parallel.cp, spread, parallel.dp // spread


def communicators(parallel: Parallel, node: Node, dp: int) -> Mapping[str, Communicator]:
    """Return the groups tp, cp, ep, dp (dense gradients), edp (expert gradients), world and pp.

    `dp` counts the replicas of the whole job, which may run on several kinds of node.
    """
    tp, cp = parallel.tp, parallel.cp
    replicas = tp * cp * dp
    expert = parallel.ep * parallel.etp
    shard = parallel.shard * cp if parallel.shard else cp * dp
    expert_sync = (CP, EP) if parallel.etp == tp and tp > 1 else (TP, CP, EP)

    def placed(stride: int, size: int) -> Group:
        return group_of(node, stride, size, parallel.world)

    return {
        "tp": Communicator(placed(1, tp), (TP,), node),
        "cp": Communicator(placed(tp, cp), (CP,), node),
        "ep": Communicator(placed(parallel.etp, parallel.ep), expert_sync, node, exchanges=True),
        "dp": Communicator(placed(tp, shard), (CP, EP, DP), node),
        "edp": Communicator(placed(expert, max(replicas // expert, 1)), (DP,), node),
        "world": Communicator(placed(1, replicas * parallel.pp), (TP, CP, EP, DP), node),
        "pp": Communicator(placed(replicas, parallel.pp), (), node),
    }


def pipeline_length(parallel: Parallel) -> int:
    """Positions of one pipeline: stages times chunks that follow each other."""
    places = chunk_places(parallel.schedule, parallel.pp, parallel.vp)
    return 1 + max(place.position for row in places for place in row)


def split_layers(model: Model, parallel: Parallel) -> tuple[Chunk, ...]:
    """Cut the model into the pipeline's positions, evenly unless `chunk_layers` says otherwise.

    Raises ValueError when the layers do not divide and no split is given.
    """
    length = pipeline_length(parallel)
    counts = parallel.chunk_layers or (model.layers // length,) * length
    if len(counts) != length or sum(counts) != model.layers:
        raise ValueError(
            f"{model.layers} layers do not divide over {length} chunks: give chunk_layers,"
            f" for example {list(even_split(model.layers, length))}"
        )
    dense_left = model.layers - model.moe_layers
    chunks = []
    for position, count in enumerate(counts):
        dense = min(dense_left, count)
        dense_left -= dense
        last = position == length - 1
        predict = model.predict_layers if last else 0
        chunks.append(Chunk(position, dense, count - dense, position == 0, last, predict))
    return tuple(chunks)


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
    head = 0.9 * model.vocab * h / (4 * h * h + model.mlp_matrices * h * model.ffn_hidden)
    share = (model.layers + head) / stages
    counts = [0] * stages
    stage = 0
    for dealt in range(1, model.layers + 1):
        counts[stage] += 1
        if dealt > share * (stage + 1) and stage < stages - 1:
            stage += 1
    return tuple(counts)


def chunk_params(model: Model, chunk: Chunk, parallel: Parallel) -> tuple[float, float]:
    """Return the (dense, expert) weights of a chunk on one rank, before any sharding over dp."""
    experts = model.experts
    layers = chunk.layers + chunk.predict
    dense = layers * (model.attention_params() + 2.0 * model.hidden)
    dense += chunk.dense * model.mlp_params(moe=False)
    dense += chunk.predict * 2.0 * model.hidden**2
    expert = 0.0
    if experts:
        moe = chunk.moe + chunk.predict
        one = model.mlp_matrices * model.hidden * experts.hidden
        dense += moe * (one * experts.shared + model.hidden * experts.routed)
        expert = moe * one * experts.routed / (parallel.ep * parallel.etp)
    elif chunk.predict:
        dense += chunk.predict * model.mlp_params(moe=False)
    vocabulary = model.hidden * model.vocab
    dense += vocabulary * (chunk.embedding + (chunk.head and not (model.tied and chunk.embedding)))
    return dense / parallel.tp, expert
