"""Build the program of a step from a plan: blocks for every stage and phase, and the tail.

Where gradients and parameters travel: with ZeRO 0 and 1 gradients are reduced in the last backward
pass of each chunk (beside it when the stack overlaps) and parameters gathered beside the first
forward pass or after the optimiser; with ZeRO 2, which holds no whole gradients, in every backward
pass, or in the last of each run of a chunk's; with ZeRO 3 every layer is gathered before each use,
one layer ahead, and its gradients scattered after each backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.kernels.kernel import (
    Kernel,
    Timer,
    calibrated_time,
    kernel_constants,
    memory_kernel,
)
from ersatz.sim.plan.borders import (
    Border,
    Step,
    joined,
    joint_border,
    schedule_steps,
    stage_borders,
)
from ersatz.sim.plan.layout import (
    Chunk,
    chunk_params,
    chunk_whole_params,
    copies_table,
    rank_shape,
    split_layers,
)
from ersatz.sim.plan.memory import repeated_modules
from ersatz.sim.plan.network import placed_communicators
from ersatz.sim.plan.schedules import Place, Schedule, Variant, chunk_places, make_schedule
from ersatz.sim.scenario.scenario import Joint, Pool, Scenario
from ersatz.sim.step.assemble import Assembler, Times
from ersatz.sim.step.program import GATHER, INPUT, PIPE, REDUCE, Block, Program, overlap_blocks
from ersatz.sim.step.weights import Bucket, Part, WeightTraffic
from ersatz.sim.workload.layer import Layer
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.ops import embedding_work, head_work, kind_work, predict_work
from ersatz.sim.workload.pieces import Comm, PartWork, Piece, Shard
from ersatz.sim.workload.recompute import repeated

Way = tuple[int, Border]  # stages from here to where a message goes, and what it finds on its way


def build_program(
    scenario: Scenario, timer: Timer = calibrated_time, *, shares: Sequence[Scenario] = ()
) -> tuple[Program, float]:
    """Return the step's program and the FLOPs that its ranks execute, recomputation included.

    `shares` are the parts of a job whose replicas run on several kinds of device, this one among
    them: gradients then travel only at the end, over the slowest of their networks and the joint.
    """
    parallel, training = scenario.parallel, scenario.training
    microbatches = training.global_batch // (training.micro_batch * parallel.dp)
    schedule = make_schedule(
        parallel.schedule, parallel.pp, microbatches, parallel.vp, parallel.custom_schedule,
        runs=parallel.zero == 2,
    )  # fmt: skip
    pools = stage_pools(scenario)
    borders = stage_borders(scenario, pools, schedule_steps(schedule))
    made = {id(pool): StageBuilder(scenario, pool, timer, tuple(shares), borders) for pool in pools}
    builders = [made[id(pool)] for pool in pools]
    blocks: dict[tuple[int, Variant], Block] = {}
    for visit in schedule.walk:
        key = visit.stage, visit.block
        if key not in blocks:
            blocks[key] = builders[visit.stage].block(schedule, *key)
    tails = tuple(builders[s].tail(schedule, s) for s in range(parallel.pp))
    flop = _executed_flop(schedule, builders) * parallel.tp * parallel.cp * parallel.dp
    return Program(schedule, rank_shape(parallel), blocks, tails), flop


def stage_pools(scenario: Scenario) -> list[Pool]:
    """Return the pool that each stage runs on."""
    names = scenario.parallel.stage_pools
    if not names:
        return [scenario.pools[0]] * scenario.parallel.pp
    by_name = {pool.name: pool for pool in scenario.pools}
    return [by_name[name] for name in names]


def _executed_flop(schedule: Schedule, builders: list[StageBuilder]) -> float:
    total = 0.0
    for visit in schedule.walk:
        for phase, chunk, _ in visit.block:
            position = schedule.places[visit.stage][chunk].position
            total += builders[visit.stage].flop.get((phase, position), 0.0)
    return total


@dataclass(slots=True)
class StageBuilder:
    """Builds the blocks of the stages that run on one pool."""

    scenario: Scenario
    pool: Pool
    timer: Timer
    shares: tuple[Scenario, ...] = ()
    borders: Mapping[Step, Border] = field(default_factory=dict)
    times: Times = field(init=False)
    shard: Shard = field(init=False)
    chunks: tuple[Chunk, ...] = field(init=False)
    traffic: WeightTraffic = field(init=False)
    flop: dict[tuple[str, int], float] = field(default_factory=dict)
    parts: dict[Chunk, list[Part]] = field(default_factory=dict)
    cut: dict[Chunk, list[Bucket]] = field(default_factory=dict)
    seconds: dict[int, float] = field(
        default_factory=dict
    )  # of pieces that parts hold, by identity
    built: dict[object, tuple[Block, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s, parallel = self.scenario, self.scenario.parallel
        self.times = self._times(s, self.pool)
        others = [share for share in self.shares if share.pools[0] is not self.pool]
        elsewhere = tuple(self._times(share, share.pools[0]) for share in others)
        joint = None
        if elsewhere:
            ranks = min(share.parallel.world for share in self.shares)
            joint = joint_border([x.pools[0] for x in self.shares], s.joint or Joint(), ranks)
        self.traffic = WeightTraffic(s, self.pool.stack, self.times, elsewhere, joint)
        self.chunks = split_layers(s.model, parallel)
        tokens = s.training.micro_batch * s.training.sequence_length / parallel.cp
        self.shard = Shard(
            s.model, self.pool.stack, tokens, s.training.sequence_length, s.training.precision,
            parallel.tp, parallel.cp, parallel.ep, parallel.etp,
            parallel.sequence_parallel and parallel.tp > 1, s.training.document_tokens,
            parallel.cp_comm, parallel.cp_inner,
        )  # fmt: skip

    def _times(self, share: Scenario, pool: Pool) -> Times:
        """Return the times on a pool; groups of replicas on several pools are slowed by the joint."""
        parallel = share.parallel
        replicas = sum(other.parallel.dp for other in self.shares) or parallel.dp
        groups = dict(placed_communicators(parallel, pool, replicas, share.fabric, share.seed))
        if len(self.shares) > 1:
            own = placed_communicators(parallel, pool, parallel.dp, share.fabric, share.seed)
            pools = [other.pools[0] for other in self.shares]
            for name, rings in (("dp", parallel.tp), ("edp", parallel.ep * parallel.etp)):
                joint = share.joint or Joint()
                groups[name] = joined(groups[name], pools, joint, rings * parallel.pp)
                groups[f"own {name}"] = own[name]
        return Times(pool.node, pool.stack, groups, self.timer)

    def block(self, schedule: Schedule, stage: int, variant: Variant) -> Block:
        """Return the block of one slot of a stage."""
        overlaps = len(variant) > 1
        blocks: list[Block] = []
        keys: list[object] = []
        for phase, chunk, edge in variant:
            position = schedule.places[stage][chunk].position
            to = schedule.steps_to(stage, chunk, phase)
            same = replace(self.chunks[position], position=min(position, 1))
            way = None if to is None else (to, self._border(stage, stage + to))
            key = phase, same, edge, way, overlaps
            if key not in self.built:  # chunks with the same content share a block
                self.built[key] = self._phase(phase, self.chunks[position], edge, way, overlaps)
            block, self.flop[phase, position] = self.built[key]
            blocks.append(block)
            keys.append(key)
        if len(blocks) == 1:
            return blocks[0]
        both = tuple(keys)
        if both not in self.built:
            self.built[both] = overlap_blocks(*blocks), 0.0
        return self.built[both][0]

    def _phase(
        self, phase: str, chunk: Chunk, edge: str, way: Way | None, overlaps: bool
    ) -> tuple[Block, float]:
        """Return the block of one phase of a chunk, and its FLOPs."""
        make = Assembler(self.times, overlaps, "forward" if phase == "F" else "backward")
        sent: tuple[tuple[int, int], ...] = ()
        if phase == "W":
            due = self._due(chunk, edge)
            for place, part in reversed(list(enumerate(self._parts(chunk)))):
                self._weight_grad(make, chunk, part, due.get(place, ()))
            return make.block(sent), make.flop
        self._receive(make, way)
        if phase == "F":
            self._forward(make, chunk, edge)
        else:
            self._backward(make, chunk, edge, whole=phase == "B")
        sent = self._send(make, way)
        return make.block(sent), make.flop

    def _parts(self, chunk: Chunk) -> list[Part]:
        """Embedding, layers, prediction modules and head of a chunk, in order."""
        if chunk not in self.parts:
            self.parts[chunk] = list(self._describe(chunk))
        return self.parts[chunk]

    def _describe(self, chunk: Chunk) -> Iterator[Part]:
        shard, model = self.shard, self.scenario.model
        none = replace(chunk, runs=(), embedding=False, head=False, predict=0)
        kinds: list[tuple[Chunk, int, Callable[[Shard], PartWork], Layer | None]] = []
        if chunk.embedding:
            kinds.append((replace(none, embedding=True), 1, embedding_work, None))
        for kind, count in chunk.runs:
            kinds.append((replace(none, runs=((kind, 1),)), count, kind_work, kind))
        kinds.append((replace(none, predict=1), chunk.predict, predict_work, None))
        if chunk.head:
            kinds.append((replace(none, head=True), 1, head_work, None))
        made: dict[Chunk, Part] = {}
        for part, count, work, layer in kinds:
            if count and part not in made:
                weights = chunk_params(model, part, self.scenario.parallel)
                moe = bool(layer and layer.experts)
                made[part] = Part(
                    work(replace(shard, kind=layer)), *weights, layer is not None, moe
                )
            yield from [made[part]] * count if count else ()

    def _buckets(self, chunk: Chunk) -> list[Bucket]:
        if chunk not in self.cut:
            first = chunk.position == 0
            self.cut[chunk] = self.traffic.buckets(self._parts(chunk), first_chunk=first)
        return self.cut[chunk]

    def _due(self, chunk: Chunk, edge: str) -> dict[int, list[Bucket]]:
        """Return the buckets to be reduced in a backward pass, by the part that completes them."""
        due: dict[int, list[Bucket]] = {}
        if self.traffic.reduces_after(edge):
            for bucket in self._buckets(chunk):
                due.setdefault(bucket.first, []).append(bucket)
        return due

    def _forward(self, make: Assembler, chunk: Chunk, edge: str) -> None:
        parts, buckets = self._parts(chunk), self._buckets(chunk)
        gathers = buckets if self.traffic.gathers_forward(edge) else []
        order = list(range(len(parts)))
        for place in self._prefetched(make, parts, order, gathers, self._forward_seconds):
            if edge == "first" and parts[place].is_layer:
                self._cast_weights(make, parts[place])
            make.add(parts[place].work.forward)

    def _cast_weights(self, make: Assembler, part: Part) -> None:
        """Weights change once a step: the first micro-batch brings them into 8 bits or fewer.

        Frozen ones do not change.
        """
        each = self.pool.stack.weight_cast_bytes
        if each and self.shard.narrow and self.shard.trains:
            cast = memory_kernel("weight cast", each * (part.dense + part.expert), "cast")
            make.compute(self.times.kernel(cast), cast.category)

    def _backward(self, make: Assembler, chunk: Chunk, edge: str, *, whole: bool) -> None:
        parts = self._parts(chunk)
        gathers = [bucket for bucket in self._buckets(chunk) if self._gathers_again(chunk, bucket)]
        order = list(range(len(parts) - 1, -1, -1))
        due = self._due(chunk, edge)
        for place in self._prefetched(make, parts, order, gathers, self._backward_seconds):
            part = parts[place]
            self._recompute(make, part, place - (not parts[0].is_layer))
            make.add(part.work.input_grad if whole else alone(part.work.input_grad))
            if whole:
                self._weight_grad(make, chunk, part, due.get(place, ()))

    def _gathers_again(self, chunk: Chunk, bucket: Bucket) -> bool:
        """Tell whether ZeRO 3 gathers weights for a backward pass: the head's follows at once."""
        first, last = bucket.first == 0, bucket.first == len(self._parts(chunk)) - 1
        kept = chunk.head and last
        needless = chunk.embedding and first and not self.pool.stack.regather_embedding
        return self.scenario.parallel.zero == 3 and not kept and not needless

    def _recompute(self, make: Assembler, part: Part, layer: int) -> None:
        """Run a layer's forward pass again, or some modules of it; `layer` counts within the chunk."""
        parallel = self.scenario.parallel
        if not part.is_layer or parallel.recompute == "none":
            return
        if 0 < parallel.recompute_layers <= layer:
            return
        again: Iterable[Piece] = part.work.forward
        if parallel.recompute == "selective":
            modules = repeated_modules(parallel, self.pool.stack)
            again = repeated(part.work.forward, modules, moe=part.moe)
        make.repeat(again)

    def _weight_grad(
        self, make: Assembler, chunk: Chunk, part: Part, due: Iterable[Bucket]
    ) -> None:
        """Append a part's weight gradients, and reduce the buckets that these complete."""
        make.add(part.work.weight_grad)
        for bucket in due:
            self._reduce(make, chunk, bucket)

    def _reduce(self, make: Assembler, chunk: Chunk, bucket: Bucket) -> None:
        """Reduce a bucket's gradients, of which the last are there now."""
        found = self.traffic.reduce(bucket)
        if not self.pool.stack.overlap_grad_reduce and self.scenario.parallel.zero < 3:
            for group, moved in found:
                make.blocking("reduce", "data parallel", moved, self._sync(group))
            return
        parts = self._parts(chunk)[bucket.first : bucket.last + 1]
        make.tax((moved for _, moved in found), math.fsum(map(self._backward_seconds, parts)))
        stream = GATHER if self.traffic.reduces_each_time else REDUCE  # in turn on the same links
        for group, moved in found:
            make.beside("reduce", stream, "data parallel", moved, self._sync(group), make.flush())

    def _sync(self, group: str) -> tuple[int, ...]:
        return self.times.communicators[group].sync

    def _forward_seconds(self, part: Part) -> float:
        """Seconds of a part's kernels in a forward pass."""
        return self._seconds_of(part.work.forward)

    def _seconds_of(self, pieces: Sequence[Piece]) -> float:
        found = self.seconds.get(id(pieces))
        if found is None:
            found = self.seconds[id(pieces)] = self.times.kernels_of(pieces)
        return found

    def _backward_seconds(self, part: Part) -> float:
        """Seconds of a part's kernels in a backward pass, without what is computed again."""
        work = part.work
        return self._seconds_of(work.input_grad) + self._seconds_of(work.weight_grad)

    def _prefetched(
        self, make: Assembler, parts: list[Part], order: Sequence[int], gathers: list[Bucket],
        seconds: Callable[[Part], float],
    ) -> Iterator[int]:  # fmt: skip
        """Yield places in order; the next bucket's weights are gathered while one is in use."""
        rank = {place: number for number, place in enumerate(order)}
        due: dict[int, list[Bucket]] = {}
        for bucket in gathers:
            due.setdefault(min(rank[bucket.first], rank[bucket.last]), []).append(bucket)
        starts = sorted(due)
        work = [seconds(parts[place]) for place in order] if due else []
        end: int | None = None
        waits: dict[int, list[int]] = {}
        if starts:
            waits[starts[0]] = self._gather(
                make, due[starts[0]], end, math.fsum(work[: starts[0] + 1])
            )
        for number, place in enumerate(order):
            if number in due:
                after = starts.index(number) + 1
                if after < len(starts):
                    beside = math.fsum(work[number : starts[after]])
                    waits[starts[after]] = self._gather(make, due[starts[after]], end, beside)
                for index in waits[number]:
                    make.join(index)
            yield place
            end = make.flush()

    def _gather(
        self, make: Assembler, buckets: list[Bucket], after: int | None, beside: float
    ) -> list[int]:
        """Gather weights when op `after` has ended, while kernels of `beside` s run."""
        found = [move for bucket in buckets for move in self.traffic.gather(bucket)]
        indexes = [make.beside("gather", GATHER, "data parallel", moved, self._sync(group), after)
                   for group, moved in found]  # fmt: skip
        make.tax((moved for _, moved in found), beside)
        return indexes

    @property
    def _messages_overlap(self) -> bool:
        """Messages do not hold the compute stream: some stacks see to it only with several chunks."""
        stack, parallel = self.pool.stack, self.scenario.parallel
        several = max(place.position for place in self.schedule_places) >= parallel.pp
        return stack.overlap_p2p and (
            stack.overlap_p2p_plain or several or parallel.schedule == "dualpipe"
        )

    @property
    def schedule_places(self) -> list[Place]:
        """Places of all chunks of all stages."""
        parallel = self.scenario.parallel
        rows = chunk_places(parallel.schedule, parallel.pp, parallel.vp)
        return [place for row in rows for place in row]

    def _border(self, stage: int, other: int) -> Border:
        return self.borders[min(stage, other), max(stage, other)]

    def _receive(self, make: Assembler, way: Way | None) -> None:
        """Gather over the tensor group a message that was scattered over it."""
        if not self._scatters or way is None:
            return
        moved = self.times.collective("all_gather", self._message_bytes, "tp")
        make.blocking("message gather", "pipeline", moved, self._sync("tp"), "tp")

    def _send(self, make: Assembler, way: Way | None) -> tuple[tuple[int, int], ...]:
        """Send the result on to another stage, if any."""
        if way is None:
            return ()
        to, border = way
        nbytes = self._message_bytes / (self.shard.tp if self._scatters else 1)
        moved = self.times.message(nbytes, border)
        if self._messages_overlap:
            before = make.flush()
            after = INPUT if before is None else before
            index = make.beside("send", PIPE, "pipeline", moved, (), after, to)
        else:
            waits = self.pool.stack.p2p_host_sync
            index = make.blocking("send", "pipeline", moved, (), to=to, host_waits=waits)
        return ((index, 0),)

    @property
    def _message_bytes(self) -> float:
        """Bytes of the rows that a rank holds between stages."""
        shard, model = self.shard, self.scenario.model
        return shard.element_bytes * shard.tokens * model.hidden * model.streams / shard.spread

    @property
    def _scatters(self) -> bool:
        """Old Megatron splits whole messages over the tensor group."""
        return self.pool.stack.scatter_messages and self.shard.tp > self.shard.spread

    def tail(self, schedule: Schedule, stage: int) -> Block:
        """What follows the last gradient: reduction if not done, norm, optimiser, gathering."""
        make = Assembler(self.times, phase="optimizer")
        parallel, stack = self.scenario.parallel, self.pool.stack
        held = {place.position for place in schedule.places[stage]}
        parts = [chunk_params(self.scenario.model, self.chunks[q], parallel) for q in sorted(held)]
        dense, expert = math.fsum(d for d, _ in parts), math.fsum(e for _, e in parts)
        make.compute(0.0, "launch", stack.step_host_s)
        whole = [Bucket("dp", dense, False, 0, 0), Bucket("edp", expert, False, 0, 0)]
        if self.traffic.reduces_at_end:
            for group, moved in (move for bucket in whole for move in self.traffic.reduce(bucket)):
                make.blocking("reduce", "data parallel", moved, self._sync(group))
        self._sum_copies(make, [self.chunks[q] for q in sorted(held)])
        if self.times.communicators["world"].group.size > 1:
            norm = self.times.collective("all_reduce", 4.0, "world")
            make.blocking("norm", "optimizer", norm, self._sync("world"))
        nbytes = stack.optimizer_bytes_per_param * self._own_params(dense, expert)
        update = memory_kernel("optimizer", nbytes, dtype=self.shard.wide,
                               m=self._own_params(dense, expert), n=1.0)  # fmt: skip
        self._update(make, nbytes, update)
        if self.traffic.gathers_at_end:
            for group, moved in (move for bucket in whole for move in self.traffic.gather(bucket)):
                make.blocking("gather", "data parallel", moved, self._sync(group))
        return make.block()

    def _update(self, make: Assembler, nbytes: float, update: Kernel) -> None:
        """Update the weights: on the device, and on the host what is kept there."""
        away = self.pool.stack.optimizer_offload
        if away < 1:
            make.compute((1 - away) * self.times.kernel(update), "optimizer",
                         kernel=None if away else update)  # fmt: skip
        if away:
            make.compute(away * nbytes / self.pool.stack.optimizer_bandwidth, "optimizer")

    def _sum_copies(self, make: Assembler, held: list[Chunk]) -> None:
        """Sum gradients of weights that stand twice: over the tensor group, and of the vocabulary.

        With sequence parallelism the ranks of a tensor group see different rows of the weights that
        each holds whole. An embedding that the last stage has a copy of is summed over both ends.
        """
        model, parallel = self.scenario.model, self.scenario.parallel
        size = DTYPE_BYTES[self.pool.stack.gradient_dtype]
        if not self.shard.trains:
            return
        if self.shard.sequence_parallel:
            nbytes = size * math.fsum(chunk_whole_params(model, chunk) for chunk in held)
            moved = self.times.collective("all_reduce", nbytes, "tp")
            make.blocking("whole weights", "tensor parallel", moved, self._sync("tp"), "tp")
        ends = any(chunk.embedding or chunk.head for chunk in held)
        if ends and copies_table(model, parallel):
            nbytes = size * model.hidden * model.vocab / parallel.tp
            moved = self.times.collective("all_reduce", nbytes, "ends")
            make.blocking("embedding sum", "pipeline", moved, ())

    def _own_params(self, dense: float, expert: float) -> float:
        """Weights that this rank's optimiser updates."""
        model: Model = self.scenario.model
        if model.lora_rank:
            return kernel_constants().adapter_share * (dense + expert)
        if self.scenario.parallel.zero == 0:
            return dense + expert
        groups = self.times.communicators
        return dense / groups["dp"].group.size + expert / groups["edp"].group.size


def alone(input_grad: Sequence[Piece]) -> list[Piece]:
    """Return an input gradient whose weight gradient is put off: nothing runs beside its sums."""
    return [replace(piece, chunks=1) if isinstance(piece, Comm) and piece.beside_weight else piece
            for piece in input_grad]  # fmt: skip
