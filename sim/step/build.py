"""Build the program of a step from a plan: blocks for every stage and phase, and the tail.

Where gradients and parameters travel: with ZeRO 0 and 1 gradients are reduced in the last backward
pass of each chunk (beside it when the stack overlaps) and parameters gathered beside the first
forward pass or after the optimiser; with ZeRO 2, which holds no whole gradients, in every backward
pass, or in the last of each run of a chunk's; with ZeRO 3 every layer is gathered before each use,
one layer ahead, and its gradients scattered after each backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.kernels.kernel import (
    Timer,
    calibrated_time,
    memory_kernel,
)
from ersatz.sim.plan.borders import (
    Border,
    Step,
    schedule_steps,
    seen_by,
    stage_borders,
)
from ersatz.sim.plan.layout import (
    Chunk,
    on_pool,
    rank_shape,
)
from ersatz.sim.plan.schedules import Schedule, Variant, chunk_places, make_schedule
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario
from ersatz.sim.step.assemble import Assembler, Times, Transfer
from ersatz.sim.step.bench import Bench, bench_of, content
from ersatz.sim.step.ending import StepEnd
from ersatz.sim.step.program import (
    COPY,
    GATHER,
    INPUT,
    PIPE,
    REDUCE,
    Block,
    Program,
    overlap_blocks,
)
from ersatz.sim.step.traffic.ahead import Ahead, Turn, turns
from ersatz.sim.step.traffic.offload import CATEGORY, HostCopies
from ersatz.sim.step.traffic.weights import Bucket, Part, WeightTraffic
from ersatz.sim.workload.pieces import Shard

FORWARD, BACKWARD = range(2)  # ways through a part
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
    borders = stage_borders(scenario, pools, schedule_steps(schedule.places))
    builders = stage_builders(scenario, pools, timer, tuple(shares), borders)
    blocks: dict[tuple[int, Variant], Block] = {}
    for visit in schedule.walk:
        key = visit.stage, visit.block
        if key not in blocks:
            blocks[key] = builders[visit.stage].block(schedule, *key)
    tails = tuple(builders[s].tail(schedule, s) for s in range(parallel.pp))
    flop = _executed_flop(schedule, builders)
    shape = (1, 1, 1, 1) if parallel.pools else rank_shape(parallel)  # pools' ranks are alike
    return Program(schedule, shape, blocks, tails), flop


def stage_builders(
    scenario: Scenario, pools: Sequence[Pool], timer: Timer, shares: tuple[Scenario, ...],
    borders: Mapping[Step, Border],
) -> list[StageBuilder]:  # fmt: skip
    """Return the builder of each stage, one for all stages of a pool."""
    made = {}
    for key, pool in {id(pool): pool for pool in pools}.items():
        own, ways = on_pool(scenario, pool), seen_by(borders, scenario, pools, pool)
        made[key] = StageBuilder(own, bench_of(own, pool, timer, shares), ways)
    return [made[id(pool)] for pool in pools]


def stage_pools(scenario: Scenario) -> list[Pool]:
    """Return the pool that each stage runs on."""
    names = scenario.parallel.stage_pools
    if not names:
        return [scenario.pools[0]] * scenario.parallel.pp
    by_name = {pool.name: pool for pool in scenario.pools}
    return [by_name[name] for name in names]


def _executed_flop(schedule: Schedule, builders: list[StageBuilder]) -> float:
    total: dict[int, float] = {}  # by the ranks of a stage
    for visit in schedule.walk:
        builder = builders[visit.stage]
        p = builder.scenario.parallel
        ranks = p.tp * p.cp * p.dp
        for phase, chunk, _ in visit.block:
            position = schedule.places[visit.stage][chunk].position
            total[ranks] = total.get(ranks, 0.0) + builder.flop.get((phase, position), 0.0)
    return sum(flop * ranks for ranks, flop in total.items())


@dataclass(slots=True)
class StageBuilder:
    """Builds the blocks of the stages that run on one pool."""

    scenario: Scenario
    bench: Bench
    borders: Mapping[Step, Border] = field(default_factory=dict)
    chunks: tuple[Chunk, ...] = field(init=False)
    classes: tuple[int, ...] = field(init=False)  # of chunks: the same number, the same content
    messages_overlap: bool = field(init=False)
    copies: HostCopies = field(init=False)
    flop: dict[tuple[str, int], float] = field(default_factory=dict)
    built: dict[object, tuple[Block, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chunks, self.classes = self.bench.split(self.scenario.parallel)
        self.copies = HostCopies(self.scenario, self.bench.pool)
        self.messages_overlap = _messages_overlap(self.bench.pool.stack, self.scenario.parallel)

    @property
    def pool(self) -> Pool:
        """The pool that the stages run on."""
        return self.bench.pool

    @property
    def times(self) -> Times:
        """Seconds of kernels and collectives there."""
        return self.bench.times

    @property
    def traffic(self) -> WeightTraffic:
        """Collectives for the weights there."""
        return self.bench.traffic

    @property
    def shard(self) -> Shard:
        """What one rank holds of a micro-batch and of every layer."""
        return self.bench.shard

    def block(self, schedule: Schedule, stage: int, variant: Variant) -> Block:
        """Return the block of one slot of a stage."""
        overlaps = len(variant) > 1
        blocks: list[Block] = []
        keys: list[object] = []
        for phase, chunk, edge in variant:
            position = schedule.places[stage][chunk].position
            to = schedule.steps_to(stage, chunk, phase)
            same = content(self.chunks[position])
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

    def phase_block(
        self, phase: str, chunk: Chunk, edge: str, border: Border | None, overlaps: bool
    ) -> Block:
        """Return the block of one phase of a chunk, whose message goes over a border."""
        way = None if border is None else (0, border)
        return self._phase(phase, chunk, edge, way, overlaps)[0]

    def _phase(
        self, phase: str, chunk: Chunk, edge: str, way: Way | None, overlaps: bool
    ) -> tuple[Block, float]:
        """Return the block of one phase of a chunk, and its FLOPs."""
        make = Assembler(self.times, overlaps, "forward" if phase == "F" else "backward")
        sent: tuple[tuple[int, int], ...] = ()
        if phase == "W":
            for place, part in reversed(list(enumerate(self.bench.parts_of(chunk)))):
                self._weight_grad(make, chunk, part, place, edge)
            return make.block(sent), make.flop
        if way:
            self.receive(make)
        if phase == "F":
            self._forward(make, chunk, edge)
        else:
            self._backward(make, chunk, edge, whole=phase == "B")
        sent = self.send(make, way)
        return make.block(sent), make.flop

    def _forward(self, make: Assembler, chunk: Chunk, edge: str) -> None:
        parts, gathers = self.bench.parts_of(chunk), self.gathers_forward(chunk, edge)
        order = range(len(parts))
        for place in self._prefetched(make, parts, order, gathers, FORWARD):
            self.forward_part(make, parts[place], edge)
            self.copies.leave(make, parts[place], place - (not parts[0].is_layer))

    def forward_part(self, make: Assembler, part: Part, edge: str) -> None:
        """Append the forward pass of one part."""
        if edge == "first" and part.is_layer:
            self._cast_weights(make, part)
        make.add(part.work.forward)

    def _cast_weights(self, make: Assembler, part: Part) -> None:
        """Weights change once a step: the first micro-batch brings them into 8 bits or fewer.

        Frozen ones do not change.
        """
        each = self.pool.stack.weight_cast_bytes
        if each and self.shard.narrow and self.shard.trains:
            traffic = each * (part.dense + part.expert) * self.shard.cast_factor
            cast = memory_kernel("weight cast", traffic, "cast")
            make.compute(self.times.kernel(cast), cast.category)

    def gathers_forward(self, chunk: Chunk, edge: str) -> list[Bucket]:
        """Return the weights that are gathered beside a forward pass."""
        return self.bench.buckets(chunk) if self.traffic.gathers_forward(edge) else []

    def gathers_backward(self, chunk: Chunk) -> list[Bucket]:
        """Return the weights that ZeRO 3 gathers for a backward pass: the head's follows at once."""
        if self.scenario.parallel.zero < 3:
            return []
        last = len(self.bench.parts_of(chunk)) - 1
        kept = last if chunk.head else -1
        needless = 0 if chunk.embedding and not self.pool.stack.regather_embedding else -1
        buckets = self.bench.buckets(chunk)
        return [bucket for bucket in buckets if bucket.first not in (kept, needless)]

    def _backward(self, make: Assembler, chunk: Chunk, edge: str, *, whole: bool) -> None:
        parts = self.bench.parts_of(chunk)
        order, gathers = range(len(parts) - 1, -1, -1), self.gathers_backward(chunk)
        places = self._prefetched(make, parts, order, gathers, BACKWARD)
        for place in self.copies.fetched(make, parts, places):
            layer = place - (not parts[0].is_layer)
            self.backward_part(make, parts[place], again=self.repeats(layer), whole=whole)
            if whole:
                self._weight_grad(make, chunk, parts[place], place, edge)

    def backward_part(self, make: Assembler, part: Part, *, again: bool, whole: bool) -> None:
        """Append the input gradient of one part, after what is computed again."""
        if again:
            self._recompute(make, part)
        make.add(part.work.input_grad if whole else self.bench.alone(part))

    def repeats(self, layer: int) -> bool:
        """Tell whether a layer, counted within its chunk, is computed again."""
        return not 0 < self.scenario.parallel.recompute_layers <= layer

    def _recompute(self, make: Assembler, part: Part) -> None:
        """Run a layer's forward pass again, or some modules of it."""
        parallel = self.scenario.parallel
        if not part.is_layer or parallel.recompute == "none":
            return
        make.repeat(self.bench.again(part))

    def _weight_grad(
        self, make: Assembler, chunk: Chunk, part: Part, place: int, edge: str
    ) -> None:
        make.add(part.work.weight_grad)
        for bucket in self.reduced_at(chunk, place, edge):
            self.reduce(make, bucket, self.reduced_beside(chunk, bucket))

    def reduced_at(self, chunk: Chunk, place: int, edge: str) -> list[Bucket]:
        """Return the buckets whose gradients leave after those of a place."""
        if not self.traffic.reduces_after(edge):
            return []
        return [bucket for bucket in self.bench.buckets(chunk) if bucket.first == place]

    def reduced_beside(self, chunk: Chunk, bucket: Bucket) -> float:
        """Seconds of the kernels whose gradients a bucket holds."""
        parts = self.bench.parts_of(chunk)[bucket.first : bucket.last + 1]
        return math.fsum(self.bench.kernel_seconds(part)[BACKWARD] for part in parts)

    def reduce(self, make: Assembler, bucket: Bucket, beside_s: float) -> None:
        """Reduce a bucket's gradients, of which the last are there now."""
        found = self.traffic.reduce(bucket)
        if not self.pool.stack.overlap_grad_reduce and self.scenario.parallel.zero < 3:
            for group, moved in found:
                make.blocking("reduce", "data parallel", moved, self._sync(group))
            return
        make.tax((moved for _, moved in found), beside_s)
        stream = GATHER if self.traffic.reduces_each_time else REDUCE  # in turn on the same links
        for group, moved in found:
            make.beside("reduce", stream, "data parallel", moved, self._sync(group), make.flush())

    def _sync(self, group: str) -> tuple[int, ...]:
        return self.times.communicators[group].sync

    def _prefetched(
        self, make: Assembler, parts: list[Part], order: Sequence[int], gathers: list[Bucket],
        way: int,
    ) -> Iterator[int]:  # fmt: skip
        """Yield places in order; the next bucket's weights are gathered while one is in use."""
        first, each = self.turns(parts, order, gathers, way)
        waits = self.gather(make, first, None) if first else []
        end: int | None = None
        for turn in each:
            own = waits
            if turn.ahead:
                waits = self.gather(make, turn.ahead, end)
            if turn.waits:
                for index in own:
                    make.join(index)
            yield turn.place
            end = make.flush()

    def turns(
        self, parts: list[Part], order: Sequence[int], gathers: list[Bucket], way: int
    ) -> tuple[Ahead | None, list[Turn]]:
        """Return what is gathered first, and the turns of a chunk's parts."""
        seconds = (
            [self.bench.kernel_seconds(parts[place])[way] for place in order] if gathers else []
        )
        return turns(order, gathers, seconds)

    def gather(self, make: Assembler, ahead: Ahead, after: int | None) -> list[int]:
        """Gather weights when op `after` has ended."""
        found = [move for bucket in ahead.buckets for move in self.traffic.gather(bucket)]
        copied = []
        if moved := self.copies.shards(ahead.buckets):
            after = make.beside("fetch weights", COPY, CATEGORY, moved, (), after)
            copied = [after]
        indexes = [make.beside("gather", GATHER, "data parallel", moved, self._sync(group), after)
                   for group, moved in found]  # fmt: skip
        make.tax((moved for _, moved in found), ahead.beside_s)
        return indexes or copied

    def _border(self, stage: int, other: int) -> Border:
        return self.borders[min(stage, other), max(stage, other)]

    def receive(self, make: Assembler) -> None:
        """Gather over the tensor group a message that was scattered over it."""
        if not self._scatters:
            return
        moved = self.times.collective("all_gather", self._message_bytes, "tp")
        make.blocking("message gather", "pipeline", moved, self._sync("tp"), "tp")

    def send(self, make: Assembler, way: Way | None) -> tuple[tuple[int, int], ...]:
        """Send the result on to another stage, if any."""
        if way is None:
            return ()
        to, border = way
        moved = self.message(border)
        if self.messages_overlap:
            before = make.flush()
            after = INPUT if before is None else before
            index = make.beside("send", PIPE, "pipeline", moved, (), after, to)
        else:
            waits = self.pool.stack.p2p_host_sync
            index = make.blocking("send", "pipeline", moved, (), to=to, host_waits=waits)
        return ((index, 0),)

    def message(self, border: Border) -> Transfer:
        """Return what sending a result over a border takes."""
        nbytes = self._message_bytes / (self.shard.tp if self._scatters else 1)
        return self.times.message(nbytes, border)

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
        """What follows the last gradient of a stage."""
        held = {place.position for place in schedule.places[stage]}
        return self.tail_block([self.chunks[position] for position in sorted(held)])

    def tail_block(self, held: Sequence[Chunk]) -> Block:
        """What follows the last gradient of a stage that holds these chunks."""
        return StepEnd(self.scenario, self.bench, self.copies).block(held)


def _messages_overlap(stack: Stack, parallel: Parallel) -> bool:
    """Messages do not hold the compute stream: some stacks see to it only with several chunks."""
    rows = chunk_places(parallel.schedule, parallel.pp, parallel.vp)
    several = max(place.position for row in rows for place in row) >= parallel.pp
    return stack.overlap_p2p and (
        stack.overlap_p2p_plain or several or parallel.schedule.startswith("dualpipe")
    )
