"""What the stages of one pool have in common, whatever the schedule: times, shards, parts of the model.

A search asks for many layouts that differ in schedule, chunks or batch alone. What these share is made
once and kept (`bench_of`), by the identity of the descriptions and the values of what is small.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from ersatz.device_models.kernels.kernel import TIMERS, Timer
from ersatz.sim.kept import Kept
from ersatz.sim.plan.borders import joined, joint_border
from ersatz.sim.plan.layout import Chunk, Communicator, chunk_params, split_layers
from ersatz.sim.plan.memory import repeated_modules
from ersatz.sim.plan.network import placed_communicators
from ersatz.sim.scenario.formats import cast_factor
from ersatz.sim.scenario.scenario import Joint, Parallel, Pool, Scenario
from ersatz.sim.step.assemble import Times
from ersatz.sim.step.traffic.weights import Bucket, Part, WeightTraffic
from ersatz.sim.workload.layer import Layer
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.ops import embedding_work, head_work, kind_work, predict_work
from ersatz.sim.workload.pieces import Comm, PartWork, Piece, Shard
from ersatz.sim.workload.recompute import all_again, repeated

MOST_BENCHES = 64


@dataclass(slots=True)
class Bench:
    """Times, shard and parts of the stages of one pool; `scenario` is read for what its key holds."""

    scenario: Scenario
    pool: Pool
    timer: Timer
    shares: tuple[Scenario, ...] = ()
    groups: Mapping[str, Communicator] | None = None  # as placed, where that is known
    times: Times = field(init=False)
    shard: Shard = field(init=False)
    traffic: WeightTraffic = field(init=False)
    parts: dict[Chunk, list[Part]] = field(default_factory=dict)  # by content: see `content`
    kinds: dict[Chunk, Part] = field(
        init=False
    )  # those of the shard, which other benches may have, too
    cut: dict[Chunk, list[Bucket]] = field(default_factory=dict)
    put_off: dict[int, list[Piece]] = field(default_factory=dict)  # by the identity of a part
    repeats: dict[int, list[Piece]] = field(default_factory=dict)
    seconds: dict[int, tuple[float, float]] = field(default_factory=dict)
    made: dict[Any, Any] = field(default_factory=dict)  # of blocks, by whoever folds them

    def __post_init__(self) -> None:
        s, parallel = self.scenario, self.scenario.parallel
        self.times = self._times(s, self.pool)
        others = [share for share in self.shares if share.pools[0] is not self.pool]
        elsewhere = tuple(self._times(share, share.pools[0]) for share in others)
        joint = None
        if elsewhere:
            ranks = [share.parallel.world for share in self.shares]
            if not parallel.own:  # as many of each talk as the smallest pool has
                ranks = [min(ranks)]
            joint = joint_border([x.pools[0] for x in self.shares], s.joint or Joint(), ranks)
            if parallel.own:
                joint = replace(joint, rate=joint.rate * min(ranks) / parallel.world)
        self.traffic = WeightTraffic(s, self.pool.stack, self.times, elsewhere, joint)
        tokens = s.training.micro_batch * s.training.sequence_length / parallel.cp
        self.shard = Shard(
            s.model, self.pool.stack, tokens, s.training.sequence_length, s.training.precision,
            parallel.tp, parallel.cp, parallel.ep, parallel.etp,
            parallel.sequence_parallel and parallel.tp > 1, s.training.document_tokens,
            parallel.cp_comm, parallel.cp_inner, operand_bytes=s.training.operand_bytes,
            cast_factor=cast_factor(s.training.recipe, self.pool.stack.name),
        )  # fmt: skip
        own = tuple([getattr(self.shard, name) for name in SIZES])
        self.kinds = _KINDS.get((s.model, self.pool.stack), own, dict)

    def _times(self, share: Scenario, pool: Pool) -> Times:
        """Return the times on a pool; groups of replicas on several pools are slowed by the joint."""
        parallel = share.parallel
        if parallel.own:  # shards of another layout cannot be in one ring with these
            groups = self.groups or placed_communicators(
                parallel, pool, parallel.dp, share.fabric, share.seed
            )
            return Times(pool.node, pool.stack, groups, self.timer)
        replicas = sum(other.parallel.dp for other in self.shares) or parallel.dp
        groups = dict(self.groups or placed_communicators(
            parallel, pool, replicas, share.fabric, share.seed
        ))  # fmt: skip
        if len(self.shares) > 1:
            own = placed_communicators(parallel, pool, parallel.dp, share.fabric, share.seed)
            pools = [other.pools[0] for other in self.shares]
            for name, rings in (("dp", parallel.tp), ("edp", parallel.ep * parallel.etp)):
                joint = share.joint or Joint()
                groups[name] = joined(groups[name], pools, joint, rings * parallel.pp)
                groups[f"own {name}"] = own[name]
        return Times(pool.node, pool.stack, groups, self.timer)

    def split(self, parallel: Parallel) -> tuple[tuple[Chunk, ...], tuple[int, ...]]:
        """Return the chunks of a layout of this bench, and a number of each for its content."""
        p = parallel
        key = p.schedule, p.pp, p.vp, p.chunk_layers
        return _CUTS.get((self.scenario.model,), key, lambda: _cut(self.scenario.model, parallel))

    def parts_of(self, chunk: Chunk) -> list[Part]:
        """Embedding, layers, prediction modules and head of a chunk, in order; equal parts are one."""
        same = content(chunk)
        if same not in self.parts:
            self.parts[same] = list(self._describe(chunk))
        return self.parts[same]

    def _describe(self, chunk: Chunk) -> Iterator[Part]:
        shard = self.shard
        none = replace(content(chunk), runs=(), embedding=False, head=False, predict=0)
        kinds: list[tuple[Chunk, int, Callable[[Shard], PartWork], Layer | None]] = []
        if chunk.embedding:
            kinds.append((replace(none, embedding=True), 1, embedding_work, None))
        for kind, count in chunk.runs:
            kinds.append((replace(none, runs=((kind, 1),)), count, kind_work, kind))
        kinds.append((replace(none, predict=1), chunk.predict, predict_work, None))
        if chunk.head:
            kinds.append((replace(none, head=True), 1, head_work, None))
        for part, count, work, layer in kinds:
            if count and part not in self.kinds:
                weights = chunk_params(self.scenario.model, part, self.scenario.parallel)
                moe = bool(layer and layer.experts)
                self.kinds[part] = Part(
                    work(replace(shard, kind=layer)), *weights, layer is not None, moe, layer
                )
            yield from [self.kinds[part]] * count if count else ()

    def buckets(self, chunk: Chunk) -> list[Bucket]:
        """Weights of a chunk that travel together."""
        same = content(chunk)
        if same not in self.cut:
            first = chunk.position == 0
            self.cut[same] = self.traffic.buckets(self.parts_of(chunk), first_chunk=first)
        return self.cut[same]

    def alone(self, part: Part) -> list[Piece]:
        """Return an input gradient whose weight gradient is put off: nothing runs beside its sums."""
        if id(part) not in self.put_off:
            self.put_off[id(part)] = alone(part.work.input_grad)
        return self.put_off[id(part)]

    def again(self, part: Part) -> list[Piece]:
        """Return what recomputation repeats of a part."""
        if id(part) not in self.repeats:
            self.repeats[id(part)] = list(self._repeated(part))
        return self.repeats[id(part)]

    def _repeated(self, part: Part) -> Iterable[Piece]:
        parallel, stack = self.scenario.parallel, self.pool.stack
        forward = part.work.forward
        if parallel.recompute == "full":
            return all_again(forward, stops_early=stack.recompute_stops_early)
        return repeated(forward, repeated_modules(parallel, stack), moe=part.moe)

    def kernel_seconds(self, part: Part) -> tuple[float, float]:
        """Seconds of a part's kernels forward and backward, without what is computed again."""
        if id(part) not in self.seconds:
            work, of = part.work, self.times.kernels_of
            self.seconds[id(part)] = of(work.forward), of(work.input_grad) + of(work.weight_grad)
        return self.seconds[id(part)]


SIZES = tuple(f.name for f in fields(Shard) if f.name not in ("model", "stack"))
_KINDS: Kept[dict[Chunk, Part]] = Kept(256)
_CUTS: Kept[tuple[tuple[Chunk, ...], tuple[int, ...]]] = Kept(512)
_NUMBERS = itertools.count()


def _cut(model: Model, parallel: Parallel) -> tuple[tuple[Chunk, ...], tuple[int, ...]]:
    chunks = split_layers(model, parallel)
    return chunks, tuple([_number(content(chunk)) for chunk in chunks])


@lru_cache(maxsize=16384)
def _number(same: Chunk) -> int:
    """Return a number for a content, which no other has; one that was long not asked for gets another."""
    return next(_NUMBERS)


def content(chunk: Chunk) -> Chunk:
    """Return a chunk without its place: only the first differs from others of the same content."""
    return chunk if chunk.position <= 1 else replace(chunk, position=1)


def alone(input_grad: Sequence[Piece]) -> list[Piece]:
    """Return an input gradient whose weight gradient is put off: nothing runs beside its sums."""
    return [replace(piece, chunks=1) if isinstance(piece, Comm) and piece.beside_weight else piece
            for piece in input_grad]  # fmt: skip


_BENCHES: Kept[Bench] = Kept(MOST_BENCHES)


def bench_of(
    scenario: Scenario, pool: Pool, timer: Timer, shares: tuple[Scenario, ...] = ()
) -> Bench:
    """Return the bench of a pool: kept where kernel times are a formula, which gives the same again."""
    if shares or timer not in TIMERS.values():
        return Bench(scenario, pool, timer, shares)
    training = scenario.training
    step = replace(training, global_batch=0, tokens=0.0)
    fabric = scenario.fabric, scenario.seed, pool.nodes, pool.name
    objects = scenario.model, pool.node, pool.stack, timer
    return _BENCHES.get(objects, (shared_layout(scenario.parallel), step, fabric),
                        lambda: Bench(scenario, pool, timer))  # fmt: skip


def shared_layout(parallel: Parallel) -> Parallel:
    """Return a layout without what is the schedule's alone: its order, and how chunks are cut."""
    both_ways = "dualpipe" if parallel.schedule == "dualpipe" else "1f1b"
    return replace(parallel, schedule=both_ways, vp=1, chunk_layers=(), custom_schedule=())
