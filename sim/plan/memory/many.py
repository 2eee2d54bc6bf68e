"""Memory of many layouts of one job: what they have in common is worked out once.

Chunks, orders and what depends on few degrees are kept by these; a layout is then a few operations on
arrays over all stages. Moments that hold no more than another of their kind are left out: they are never
the peak, nor the most of any kind. What comes out equals `stage_peaks` to the last bit. Not covered:
several pools, orders that a scenario gives itself, layouts with more than degrees (layers recomputed).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.plan.layout import Chunk, split_layers
from ersatz.sim.plan.memory.activations import loss_bytes
from ersatz.sim.plan.memory.moments import (
    BACKWARD,
    COUNTS,
    ENDLESS,
    JOIN,
    KINDS,
    LAYER,
    LOSS,
    ROUNDS,
    UPDATE,
    Bytes,
    Moments,
    chunk_bytes,
    chunk_state,
    moments_of,
    stage_state,
)
from ersatz.sim.plan.memory.runtime import beside, wasted
from ersatz.sim.plan.memory.state import reshards_at_end, sums_runs, sums_step
from ersatz.sim.plan.schedules import chunk_places
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """The moments of all stages of a schedule that may be peaks: (stages, moments) each.

    Stages with fewer of them have their last one several times.
    """

    chunk: npt.NDArray[np.int64]
    flying: Bytes  # (stages, moments, chunks)
    due: Bytes
    summed: Bytes
    standing: Bytes
    done: Bytes
    masks: Bytes  # (6, stages, moments): loss, layer, end of a backward pass, in work, join, update


class Cut(NamedTuple):
    """How a schedule deals the model out: numbers of chunks by kind of stage, and each stage's kind."""

    kinds: tuple[tuple[int, ...], ...]
    stages: npt.NDArray[np.int64]


def peaks_of(name: str, p: int, m: int, v: int) -> Peaks:
    """Return what may be a peak of any stage; raises LayoutError as `make_schedule` does."""
    return _peaks(name, p, min(m, ROUNDS * p) if name in ENDLESS else m, v)


@lru_cache(maxsize=1024)
def _peaks(name: str, p: int, m: int, v: int) -> Peaks:
    if name == "gpipe":  # all stages alike
        stages = [_all_at_once(m)] * p
    else:
        stages = [_leading(moments_of(name, p, m, v, stage)) for stage in range(p)]
    most = max(one.what.size for one in stages)
    rows = [np.minimum(np.arange(most), one.what.size - 1) for one in stages]

    def stacked(column: str) -> npt.NDArray[np.int64]:
        return np.stack([getattr(one, column)[row] for one, row in zip(stages, rows, strict=True)])

    what = stacked("what")
    masks = [
        what == LOSS,
        what == LAYER,
        what == BACKWARD,
        what < JOIN,
        what == JOIN,
        what == UPDATE,
    ]
    counts = {name: stacked(name).astype(float) for name in COUNTS}
    return Peaks(chunk=stacked("chunk"), masks=np.stack(masks).astype(float), **counts)


def _all_at_once(m: int) -> Moments:
    """Return the leading moments of GPipe: those of two micro-batches, while the others stand, too."""
    few = _leading(moments_of("gpipe", 1, min(m, 2), 1, 0))
    more = (max(m - 2, 0) * (few.what < JOIN))[:, None]
    return replace(few, flying=few.flying + more, due=few.due + more)


def _leading(found: Moments) -> Moments:
    """Return the moments that no other of their kind and chunk surpasses, in order, each once."""
    held = np.column_stack([getattr(found, name) for name in COUNTS])
    kinds, which = np.unique(
        found.what * (found.chunk.max() + 1) + found.chunk, return_inverse=True
    )
    rows: list[int] = []
    for kind in range(kinds.size):
        left = np.flatnonzero(which == kind)
        while left.size:
            mine = held[left]
            most = int(mine.sum(axis=1).argmax())  # no other surpasses it
            rows.append(int(left[most]))
            left = left[(mine > mine[most]).any(axis=1)]
    rows.sort()
    return Moments(*(getattr(found, name)[rows] for name in Moments.__slots__))


@dataclass(slots=True)
class ManyPeaks:
    """Peaks of layouts of one job; holds what several of them need."""

    pool: Pool
    numbers: dict[Hashable, int] = field(default_factory=dict)  # of chunks, by what they hold
    chunks: list[Chunk] = field(default_factory=list)
    known: dict[Hashable, object] = field(default_factory=dict)

    def of(self, scenario: Scenario) -> list[float]:
        """Return the bytes that each stage's device must hold, as `stage_peaks` says.

        The scenario is the job with some layout of its own; raises ValueError where layers or
        micro-batches do not suit the schedule.
        """
        p, stack = scenario.parallel, self.pool.stack
        count = scenario.training.global_batch // (scenario.training.micro_batch * p.dp)
        cut = self._once(("cut", p.schedule, p.pp, p.vp), lambda: self._cut(scenario))
        peaks = peaks_of(p.schedule, p.pp, count, p.vp)
        found = _alive(peaks, self._table(scenario, cut, count), cut.stages, p, stack)
        stage = np.arange(p.pp)
        top = found[stage, found.sum(axis=2).argmax(axis=1)]
        lost = wasted(stack, found.max(axis=1), top)
        rest = self._once(("beside", *_degrees(p), p.pp),
                          lambda: list(beside(stack, p, scenario.model).values()))  # fmt: skip
        return [math.fsum([*parts, *rest, waste])
                for parts, waste in zip(top.tolist(), lost.tolist(), strict=True)]  # fmt: skip

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = make()
        return found  # type: ignore[return-value]

    def _cut(self, scenario: Scenario) -> Cut:
        p = scenario.parallel
        chunks = split_layers(scenario.model, p)
        held = [
            tuple(self._number(chunks[place.position]) for place in row)
            for row in chunk_places(p.schedule, p.pp, p.vp)
        ]
        kinds = tuple(dict.fromkeys(held))
        return Cut(kinds, np.array([kinds.index(one) for one in held]))

    def _number(self, chunk: Chunk) -> int:
        alike = chunk.runs, chunk.embedding, chunk.head, chunk.predict, chunk.table
        if alike not in self.numbers:
            self.numbers[alike] = len(self.chunks)
            self.chunks.append(chunk)
        return self.numbers[alike]

    def _table(self, scenario: Scenario, cut: Cut, count: int) -> _Table:
        """Return what each kind of stage holds, and what comes and goes in each of its chunks."""
        p, mb = scenario.parallel, scenario.training.micro_batch
        work = (p.tp, p.cp, p.ep, p.etp, p.sequence_parallel, mb, p.recompute)
        stack = self.pool.stack
        sent = (count, p.pp) if stack.pipeline_buffers or stack.keeps_results else ()
        state = _degrees(p)
        loss = self._once(("loss", work), lambda: loss_bytes(scenario, self.pool.stack))
        come, stay = [], []
        for kind in cut.kinds:
            chunks, rows, ends = [self.chunks[number] for number in kind], [], []
            for number, chunk in zip(kind, chunks, strict=True):
                one = self._once(
                    (number, work, sent), partial(chunk_bytes, scenario, self.pool, chunk, loss)
                )
                moved = self._once(
                    (number, state), partial(chunk_state, scenario, self.pool.stack, chunk)
                )
                rows.append((*one[:-2], *moved))
                ends.append(one[-2:])
            stays = self._once(
                (kind, state), partial(stage_state, scenario, self.pool.stack, chunks)
            )
            come.append(rows)
            stay.append((*stays, *(sum(column) for column in zip(*ends, strict=True))))
        return _Table(np.array(stay), np.array(come))


class _Table(NamedTuple):
    stay: Bytes  # (kinds of stage, weights gradients optimizer update messages joined)
    come: Bytes  # (kinds of stage, chunks, first four fields of ChunkBytes, fields of ChunkState)


def _degrees(p: Parallel) -> tuple[object, ...]:
    """Return what of a layout its weights, their state and its groups of ranks depend on."""
    return p.tp, p.cp, p.ep, p.etp, p.dp, p.zero, p.shard, p.schedule == "dualpipe"


def _alive(
    peaks: Peaks, table: _Table, stages: npt.NDArray[np.int64], p: Parallel, stack: Stack
) -> Bytes:
    """Return bytes alive by stage, moment and kind; `moments.alive` for all stages at once."""
    weights, gradients, optimizer, update, messages, joined = table.stay[stages].T[:, :, None]
    come = table.come[stages]  # (stages, chunks, fields)
    activations, logits = come[:, None, :, 0], come[:, None, :, 1]
    here = come[np.arange(len(stages))[:, None], peaks.chunk]  # (stages, moments, fields)
    loss, layer, ends, working, join, last = peaks.masks
    found = np.empty((*peaks.chunk.shape, len(KINDS)))

    def put(kind: str, values: npt.ArrayLike) -> None:
        found[:, :, _AT[kind]] = values

    put("weights", weights * (1 - peaks.done.min(axis=2)) if reshards_at_end(p, stack) else weights)
    step = sums_step(p, stack)
    if step:
        put("gradients", gradients * peaks.done.max(axis=2))
        put("whole gradients", (peaks.standing * come[:, None, :, 5]).sum(axis=2))
    else:
        put("gradients", gradients if stack.gradient_buffer else gradients * peaks.summed)
        put("whole gradients", here[:, :, 5] * (layer + ends if sums_runs(p, stack) else layer))
    put("optimizer", optimizer)
    put("messages", messages)
    flown = (peaks.flying * activations).sum(axis=2)
    put("activations", flown)
    put("graphs", stack.graph_pool_bytes or stack.graph_share * flown.max(axis=1, keepdims=True))
    put("loss", (peaks.due * logits).sum(axis=2) + here[:, :, 2] * loss - here[:, :, 1] * layer)
    put("working set", here[:, :, 3] * layer)
    put("fresh gradients", here[:, :, 4] * (layer + ends if step else ends))
    put("gathered weights", here[:, :, 6] * working)
    put("joined results", joined * join)
    put("update", update * last)
    return found


_AT = {kind: number for number, kind in enumerate(KINDS)}
