"""Build the program of a step from a plan: blocks for every stage and phase, and the tail.

Where gradients and parameters travel: with ZeRO 0-2 gradients are reduced in the last backward
pass of each chunk (beside it when the stack overlaps) and parameters gathered beside the first
forward pass or after the optimiser; with ZeRO 3 every layer is gathered before each use, one layer
ahead, and its gradients scattered after each backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.kernels.kernel import (
    Timer,
    calibrated_time,
    kernel_constants,
    memory_kernel,
)
from ersatz.sim.plan.layout import Chunk, chunk_params, rank_shape, split_layers
from ersatz.sim.plan.network import placed_communicators
from ersatz.sim.plan.schedules import Schedule, Variant, make_schedule
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.step.assemble import Assembler, Times, Transfer
from ersatz.sim.step.program import GATHER, INPUT, PIPE, REDUCE, Block, Program, overlap_blocks
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.ops import embedding_work, head_work, layer_work, predict_work
from ersatz.sim.workload.pieces import PartWork, Shard


def build_program(
    scenario: Scenario, timer: Timer = calibrated_time, *, replicas: int = 0
) -> tuple[Program, float]:
    """Return the step's program and the FLOPs that its ranks execute, recomputation included.

    `replicas` counts those that exchange gradients when they are more than the scenario's dp
    (the others run on another kind of device); gradients then travel only at the end.
    """
    parallel, training = scenario.parallel, scenario.training
    microbatches = training.global_batch // (training.micro_batch * parallel.dp)
    schedule = make_schedule(
        parallel.schedule, parallel.pp, microbatches, parallel.vp, parallel.custom_schedule
    )
    pools = stage_pools(scenario)
    made = {id(pool): StageBuilder(scenario, pool, timer, replicas) for pool in pools}
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


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a chunk with the weights that one rank holds of it."""

    work: PartWork
    dense: float
    expert: float
    is_layer: bool


@dataclass(slots=True)
class StageBuilder:
    """Builds the blocks of the stages that run on one pool."""

    scenario: Scenario
    pool: Pool
    timer: Timer
    replicas: int = 0
    times: Times = field(init=False)
    shard: Shard = field(init=False)
    chunks: tuple[Chunk, ...] = field(init=False)
    flop: dict[tuple[str, int], float] = field(default_factory=dict)
    parts: dict[Chunk, list[_Part]] = field(default_factory=dict)
    built: dict[object, tuple[Block, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s, parallel = self.scenario, self.scenario.parallel
        groups = placed_communicators(
            parallel, self.pool, self.replicas or parallel.dp, s.fabric, s.seed
        )
        self.times = Times(self.pool.node, self.pool.stack, groups, self.timer)
        self.chunks = split_layers(s.model, parallel)
        tokens = s.training.micro_batch * s.training.sequence_length / parallel.cp
        self.shard = Shard(
            s.model, self.pool.stack, tokens, s.training.sequence_length, s.training.precision,
            parallel.tp, parallel.cp, parallel.ep, parallel.etp,
            parallel.sequence_parallel and parallel.tp > 1, s.training.document_tokens,
        )  # fmt: skip

    def block(self, schedule: Schedule, stage: int, variant: Variant) -> Block:
        """Return the block of one slot of a stage."""
        overlaps = len(variant) > 1
        blocks: list[Block] = []
        keys: list[object] = []
        for phase, chunk, edge in variant:
            position = schedule.places[stage][chunk].position
            to = schedule.steps_to(stage, chunk, phase)
            key = phase, replace(self.chunks[position], position=0), edge, to, overlaps
            if key not in self.built:  # chunks with the same content share a block
                self.built[key] = self._phase(phase, self.chunks[position], edge, to, overlaps)
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
        self, phase: str, chunk: Chunk, edge: str, to: int | None, overlaps: bool
    ) -> tuple[Block, float]:
        """Return the block of one phase of a chunk, and its FLOPs."""
        make = Assembler(self.times, overlaps)
        sent: tuple[tuple[int, int], ...] = ()
        if phase == "W":
            for part in reversed(self._parts(chunk)):
                self._weight_grad(make, part, edge == "last")
        elif phase == "F":
            self._forward(make, chunk, edge == "first")
            sent = self._send(make, to)
        else:
            self._backward(make, chunk, whole=phase == "B", last=edge == "last")
            sent = self._send(make, to)
        return make.block(sent), make.flop

    def _parts(self, chunk: Chunk) -> list[_Part]:
        """Embedding, layers, prediction modules and head of a chunk, in order."""
        if chunk not in self.parts:
            self.parts[chunk] = list(self._describe(chunk))
        return self.parts[chunk]

    def _describe(self, chunk: Chunk) -> Iterator[_Part]:
        shard, model = self.shard, self.scenario.model
        none = Chunk(chunk.position, 0, 0, False, False, 0)
        kinds: list[tuple[Chunk, Callable[[Shard], PartWork]]] = []
        if chunk.embedding:
            kinds.append((replace(none, embedding=True), embedding_work))
        kinds += [(replace(none, dense=1), lambda s: layer_work(s, moe=False))] * chunk.dense
        kinds += [(replace(none, moe=1), lambda s: layer_work(s, moe=True))] * chunk.moe
        kinds += [(replace(none, predict=1), predict_work)] * chunk.predict
        if chunk.head:
            kinds.append((replace(none, head=True), head_work))
        made: dict[Chunk, _Part] = {}
        for kind, work in kinds:
            if kind not in made:
                weights = chunk_params(model, kind, self.scenario.parallel)
                made[kind] = _Part(work(shard), *weights, kind.layers > 0)
            yield made[kind]

    def _forward(self, make: Assembler, chunk: Chunk, first: bool) -> None:
        zero = self.scenario.parallel.zero
        gathers = zero == 3 or (first and zero > 0 and self.pool.stack.overlap_param_gather)
        for part in self._prefetched(make, self._parts(chunk), gathers, self._forward_seconds):
            if first and part.is_layer:
                self._cast_weights(make, part)
            make.add(part.work.forward)

    def _cast_weights(self, make: Assembler, part: _Part) -> None:
        """Weights change once a step: the first micro-batch brings them into 8 bits or fewer."""
        each = self.pool.stack.weight_cast_bytes
        if each and DTYPE_BYTES[self.scenario.training.precision] <= 1:
            cast = memory_kernel("weight cast", each * (part.dense + part.expert), "cast")
            make.compute(self.times.kernel(cast), cast.category)

    def _backward(self, make: Assembler, chunk: Chunk, *, whole: bool, last: bool) -> None:
        parts = self._parts(chunk)[::-1]
        gathers = self.scenario.parallel.zero == 3
        for part in self._prefetched(make, parts, gathers, self._backward_seconds):
            self._recompute(make, part)
            make.add(part.work.input_grad)
            if whole:
                self._weight_grad(make, part, last)

    def _recompute(self, make: Assembler, part: _Part) -> None:
        mode, stack = self.scenario.parallel.recompute, self.pool.stack
        if not part.is_layer or mode == "none":
            return
        if mode == "full":
            make.add(part.work.forward)
            return
        again = Assembler(self.times)
        again.add(part.work.forward)
        again.flush()
        seconds = math.fsum(op.device_s for op in again.ops if op.scales)
        make.compute(seconds * stack.selective_recompute_fraction, "recompute")
        make.flop += again.flop * stack.selective_recompute_fraction

    def _weight_grad(self, make: Assembler, part: _Part, last: bool) -> None:
        make.add(part.work.weight_grad)
        parallel, stack = self.scenario.parallel, self.pool.stack
        each_time = parallel.zero == 3
        if each_time or (last and stack.overlap_grad_reduce and not self._mixed):
            found = self._reduce_times(part.dense, part.expert)
            make.tax((moved for _, moved in found), self._backward_seconds(part))
            for group, moved in found:
                sync = self.times.communicators[group].sync
                stream = GATHER if each_time else REDUCE  # one at a time on the same links
                make.beside("reduce", stream, "data parallel", moved, sync, make.flush())

    def _forward_seconds(self, part: _Part) -> float:
        """Seconds of a part's kernels in a forward pass."""
        return self.times.kernels_of(part.work.forward)

    def _backward_seconds(self, part: _Part) -> float:
        """Seconds of a part's kernels in a backward pass, without what is computed again."""
        work = part.work
        return self.times.kernels_of(work.input_grad) + self.times.kernels_of(work.weight_grad)

    def _prefetched(
        self, make: Assembler, parts: list[_Part], gathers: bool, seconds: Callable[[_Part], float]
    ) -> Iterator[_Part]:
        """Yield parts in order; each one's weights are gathered while the one before runs."""
        end: int | None = None
        waits = self._gather(make, parts[0], end, seconds(parts[0])) if gathers and parts else []
        for place, part in enumerate(parts):
            more = gathers and place + 1 < len(parts)
            ahead = self._gather(make, parts[place + 1], end, seconds(part)) if more else []
            for index in waits:
                make.join(index)
            yield part
            end, waits = make.flush(), ahead

    def _gather(self, make: Assembler, part: _Part, after: int | None, beside: float) -> list[int]:
        """Gather a part's weights when op `after` has ended, while kernels of `beside` s run."""
        indexes = []
        found = self._gather_times(part.dense, part.expert)
        for group, moved in found:
            sync = self.times.communicators[group].sync
            indexes.append(make.beside("gather", GATHER, "data parallel", moved, sync, after))
        make.tax((moved for _, moved in found), beside)
        return indexes

    @property
    def _mixed(self) -> bool:
        """Replicas on several kinds of device exchange gradients only at the end."""
        return self.replicas > self.scenario.parallel.dp

    def _reduce_times(self, dense: float, expert: float) -> list[tuple[str, Transfer]]:
        """Time to reduce the gradients of so many weights, by group."""
        size = DTYPE_BYTES[self.pool.stack.gradient_dtype]
        kind = "all_reduce" if self.scenario.parallel.zero == 0 else "reduce_scatter"
        return self._by_group(kind, dense * size, expert * size)

    def _gather_times(self, dense: float, expert: float) -> list[tuple[str, Transfer]]:
        """Time to gather so many weights in 16 bits, by group."""
        return self._by_group("all_gather", dense * 2.0, expert * 2.0)

    def _by_group(self, kind: str, dense: float, expert: float) -> list[tuple[str, Transfer]]:
        if self.scenario.model.lora_rank:
            return []
        sizes = (("dp", dense), ("edp", expert))
        found = [(group, self.times.collective(kind, nbytes, group)) for group, nbytes in sizes]
        return [(group, moved) for group, moved in found if moved.seconds > 0]

    def _send(self, make: Assembler, to: int | None) -> tuple[tuple[int, int], ...]:
        """Send the result on to the stage `to` further, if any."""
        if to is None:
            return ()
        nbytes = 2.0 * self.shard.tokens * self.scenario.model.hidden / self.shard.tp
        moved = self.times.collective("send", nbytes, "pp")
        if self.pool.stack.overlap_p2p:
            before = make.flush()
            after = INPUT if before is None else before
            index = make.beside("send", PIPE, "pipeline", moved, (), after, to)
        else:
            index = make.blocking("send", "pipeline", moved, (), to=to)
        return ((index, 0),)

    def tail(self, schedule: Schedule, stage: int) -> Block:
        """What follows the last gradient: reduction if not done, norm, optimiser, gathering."""
        make = Assembler(self.times)
        parallel, stack = self.scenario.parallel, self.pool.stack
        held = {place.position for place in schedule.places[stage]}
        parts = [chunk_params(self.scenario.model, self.chunks[q], parallel) for q in sorted(held)]
        dense, expert = math.fsum(d for d, _ in parts), math.fsum(e for _, e in parts)
        make.compute(0.0, "launch", stack.step_host_s)
        if parallel.zero < 3 and (self._mixed or not stack.overlap_grad_reduce):
            for group, moved in self._reduce_times(dense, expert):
                sync = self.times.communicators[group].sync
                make.blocking("reduce", "data parallel", moved, sync)
        norm = self.times.collective("all_reduce", 4.0, "world")
        make.blocking("norm", "optimizer", norm, self.times.communicators["world"].sync)
        nbytes = stack.optimizer_bytes_per_param * self._own_params(dense, expert)
        update = memory_kernel("optimizer", nbytes, dtype=self.shard.wide,
                               m=self._own_params(dense, expert), n=1.0)  # fmt: skip
        host = stack.optimizer_bandwidth
        seconds = nbytes / host if host else self.times.kernel(update)
        make.compute(seconds, "optimizer", kernel=None if host else update)
        if 0 < parallel.zero < 3 and not stack.overlap_param_gather:
            for group, moved in self._gather_times(dense, expert):
                sync = self.times.communicators[group].sync
                make.blocking("gather", "data parallel", moved, sync)
        return make.block()

    def _own_params(self, dense: float, expert: float) -> float:
        """Weights that this rank's optimiser updates."""
        model: Model = self.scenario.model
        if model.lora_rank:
            return kernel_constants().adapter_share * (dense + expert)
        if self.scenario.parallel.zero == 0:
            return dense + expert
        groups = self.times.communicators
        return dense / groups["dp"].group.size + expert / groups["edp"].group.size
