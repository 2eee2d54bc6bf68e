"""What the parts of a model cost one rank, by shard: tables from which bounds on whole layouts are made.

A shard is (tp, cp, ep, etp, sequence parallel, micro-batch). Its parts are priced with the stack's own
kernels and collectives. Each entry is the least that a pass of the part adds to a stream: an entry of
its max-plus matrix, so that sums over parts are never above what a step takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ersatz.device_models.kernels.kernel import Timer
from ersatz.sim.plan.layout import Chunk, Communicator, split_layers
from ersatz.sim.plan.memory import repeated_modules
from ersatz.sim.plan.memory.activations import chunk_kept
from ersatz.sim.plan.network import placed_communicators
from ersatz.sim.plan.schedules import chunk_places
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario
from ersatz.sim.search.choices import RECOMPUTE, SCHEDULES
from ersatz.sim.step.assemble import Assembler
from ersatz.sim.step.bench import Bench, alone
from ersatz.sim.step.program import COMPUTE, HOST
from ersatz.sim.step.quick.blocks import UNIT, run_ops
from ersatz.sim.workload.attention import mixer_block
from ersatz.sim.workload.experts import expert_block
from ersatz.sim.workload.layer import Layer
from ersatz.sim.workload.mlp import mlp_block
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.ops import embedding_work, head_work
from ersatz.sim.workload.pieces import PartWork, Piece, Shard
from ersatz.sim.workload.recompute import all_again, repeated

Array = npt.NDArray[np.float64]


class Pass(NamedTuple):
    """What one pass of a part adds at least: to the compute stream, to it alone, and to the host."""

    through: float  # from the compute stream's start to its end, waits included
    busy: float  # what the compute stream itself does: waits may be filled by another block
    host: float


SHARED = ("tp", "cp", "ulysses", "ep", "etp")  # groups inside a shard
PASSES = ("forward", "backward", "split backward", "selective", "full")  # of a part, in this order
AGAIN = PASSES.index("selective")


def part_chunks(model: Model) -> list[Chunk]:
    """Return the kinds of parts of a model: embedding, each kind of layer, prediction module, head."""
    none = Chunk(1, (), False, False, 0)
    kinds = [replace(none, runs=((kind, 1),)) for kind in model.kinds]
    return [
        replace(none, embedding=True),
        *kinds,
        replace(none, predict=1),
        replace(none, head=True),
    ]


def shard_scenario(base: Scenario, shard: Sequence[int]) -> Scenario:
    """Return a scenario whose one stage holds a shard, all replicas beside one another."""
    tp, cp, ep, etp, sp, mb = map(int, shard)
    parallel = base.parallel
    layout = Parallel(
        tp=tp, cp=cp, ep=ep, etp=etp, dp=base.devices // (tp * cp), sequence_parallel=bool(sp),
        zero=0, recompute="selective", cp_comm=parallel.cp_comm if cp > 1 else "p2p",
        cp_inner=parallel.cp_inner if cp > 1 else 1,
        expert_layout=parallel.expert_layout if ep > 1 and tp * cp > 1 else "folded",
    )  # fmt: skip
    return replace(base, parallel=layout, training=replace(base.training, micro_batch=mb))


@dataclass(slots=True)
class ShardPrices:
    """Passes of all parts by shard; what shards share (mixers, vocabulary) is priced once.

    Layers are priced by halves, mixer and MLP, whose sum is no more than the whole. A prediction
    module is taken as its layer and the head. One object serves any number of devices of a kind.
    """

    model: Model
    pool: Pool
    timer: Timer
    known: dict[object, Array] = field(default_factory=dict)
    halves: dict[object, Array] = field(default_factory=dict)

    def of(self, base: Scenario, shard: Sequence[int], *, apart: bool = True) -> Array:
        """Return the passes of all parts of a shard: (PASSES, Pass fields, parts).

        Where no schedule puts weight gradients off (not `apart`), split backward passes are not priced:
        they stand as whole ones.
        """
        scenario = shard_scenario(base, shard)
        groups = placed_communicators(
            scenario.parallel, self.pool, scenario.parallel.dp, base.fabric, base.seed
        )
        training = replace(scenario.training, global_batch=0, tokens=0.0)
        key = tuple(shard), tuple(_seat(groups[name]) for name in SHARED), training, apart
        if key not in self.known:
            self.known[key] = self._price(scenario, groups, key, apart)
        return self.known[key]

    def _price(
        self, scenario: Scenario, groups: Mapping[str, Communicator], key: object, apart: bool
    ) -> Array:
        bench = Bench(scenario, self.pool, self.timer, groups=groups)
        shard, model, p = bench.shard, self.model, scenario.parallel
        training = replace(scenario.training, global_batch=0, tokens=0.0)
        seats = [_seat(groups[name]) for name in ("tp", "cp", "ulysses")]
        alike = p.tp, p.cp, p.sequence_parallel, training, apart, *seats

        def half(name: str, kind: Layer, work: Callable[[Shard], PartWork], moe: bool) -> Array:
            place = (name, kind, key if moe else alike)
            if place not in self.halves:
                last = name == "mlp" or not kind.has_mlp
                made = work(replace(shard, kind=kind))
                self.halves[place] = _passes(bench, made, moe, last=last, apart=apart)
            return self.halves[place]

        def end(name: str, work: Callable[[Shard], PartWork]) -> Array:
            place = (name, alike)
            if place not in self.halves:
                self.halves[place] = _passes(bench, work(shard), None, apart=apart)
            return self.halves[place]

        none = np.zeros((len(PASSES), len(Pass._fields)))

        def layer(kind: Layer) -> Array:
            moe = bool(kind.experts)
            mixer = half("mixer", kind, mixer_block, False) if kind.has_mixer else none
            work = expert_block if moe else mlp_block
            return mixer + (half("mlp", kind, work, moe) if kind.has_mlp else none)

        head = end("head", head_work)
        predict = layer(model.predict_layer) + head if model.predict_layers else none.copy()
        predict[AGAIN:] = 0.0  # no module of it is computed again
        kinds = [layer(kind) for kind in model.kinds]
        return np.stack([end("embedding", embedding_work), *kinds, predict, head], axis=2)


def _seat(communicator: Communicator) -> tuple[object, ...]:
    """Return all of a communicator that the time of its collectives depends on."""
    up, out = communicator.node.scale_up, communicator.node.scale_out
    return (communicator.group, up.efficiency, up.all_to_all, out.efficiency, out.all_to_all,
            out.oversubscription, communicator.node.nics)  # fmt: skip


def _passes(
    bench: Bench, work: PartWork, moe: bool | None, *, last: bool = True, apart: bool
) -> Array:
    """Return the passes of a half of a layer, the last or not, or (`moe` None) of an end of the model."""
    forward = _priced(bench, work.forward, "forward")
    whole = _priced(bench, (*work.input_grad, *work.weight_grad), "backward")
    split = _split(bench, work) if apart else whole
    none = Pass(0.0, 0.0, 0.0)
    if moe is None:
        return np.array([forward, whole, split, none, none])
    modules = repeated_modules(bench.scenario.parallel, bench.pool.stack)
    some = _priced(bench, list(repeated(work.forward, modules, moe=moe)), "recompute")
    early = last and bench.pool.stack.recompute_stops_early
    again = _priced(bench, all_again(work.forward, stops_early=early), "recompute")
    return np.array([forward, whole, split, some, again])


def _split(bench: Bench, work: PartWork) -> Pass:
    """Return a backward pass whose weight gradients are put off."""
    one = _priced(bench, alone(work.input_grad), "backward")
    other = _priced(bench, work.weight_grad, "backward")
    return Pass(*(a + b for a, b in zip(one, other, strict=True)))


def _priced(bench: Bench, pieces: Sequence[Piece], phase: str) -> Pass:
    make = Assembler(bench.times, phase=phase)
    make.add(pieces)
    ops = make.block().ops
    rows = list(UNIT)
    run_ops(ops, rows)
    busy = sum(op.device_s for op in ops if op.stream == COMPUTE)
    return Pass(float(rows[COMPUTE][COMPUTE]), busy, float(rows[HOST][HOST]))


def kept_bytes(base: Scenario, pool: Pool, shard: Sequence[int]) -> Array:
    """Return what a micro-batch of one sequence leaves in each part until its backward pass.

    Shape (RECOMPUTE, parts); embedding and head leave nothing that is counted here.
    """
    found = []
    for mode in RECOMPUTE:
        scenario = shard_scenario(base, (*shard[:5], 1))
        parallel = replace(scenario.parallel, recompute=mode)  # type: ignore[arg-type]
        scenario = replace(scenario, parallel=parallel)
        found.append([
            0.0 if chunk.embedding or chunk.head or (chunk.predict and not base.model.predict_layers)
            else chunk_kept(scenario, pool, chunk) for chunk in part_chunks(base.model)
        ])  # fmt: skip
    return np.array(found)


@dataclass(frozen=True, slots=True)
class Split:
    """Parts by stage of a schedule's pipeline: how many of each kind a stage runs and passes first."""

    held: tuple[tuple[Chunk, ...], ...]  # of each stage
    stage: Array  # (stages, parts) of all chunks of one line or of both, per micro-batch pair
    chunk: Array  # (stages, chunks of a stage, parts)
    lines: int  # directions in which micro-batches travel


def split_of(model: Model, schedule: int, pp: int, vp: int) -> Split:
    """Return how a model is cut over the stages of a schedule; raises ValueError for too many."""
    name = SCHEDULES[schedule]
    chunks = split_layers(model, Parallel(pp=pp, vp=vp, schedule=name))
    places = chunk_places(name, pp, vp)
    kinds = {kind: number for number, kind in enumerate(model.kinds)}
    each = np.zeros((len(chunks), len(kinds) + 3))
    for row, one in zip(each, chunks, strict=True):
        row[0], row[-1], row[-2] = one.embedding, one.head, one.predict
        for kind, count in one.runs:
            row[1 + kinds[kind]] += count
    held = np.stack([each[[place.position for place in row]] for row in places])
    lines = 1 + max(place.line for row in places for place in row)
    stages = tuple(tuple(chunks[place.position] for place in row) for row in places)
    return Split(stages, held.sum(axis=1), held, lines)
