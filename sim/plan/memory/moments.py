"""The moments of a step at which a stage may hold the most, as arrays, and what is alive in each.

A stage runs its slots in the order of its schedule. Activations of a chunk stand from its forward pass
until its backward pass, or until its weight gradients where these are put off. Four moments of a slot
count: the end of a forward pass; the loss, when a backward pass begins at the head; the layer in work;
the end of a backward pass. The optimiser's step is the last. Orders are cached per shape, without what
repeats: a plan then is a product of small matrices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ersatz.sim.plan.layout import Chunk
from ersatz.sim.plan.memory import activations, state
from ersatz.sim.plan.schedules import Order, make_schedule
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.workload.adapters import trained_share

Bytes = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

KINDS = ("weights", "gradients", "optimizer", "messages", "activations", "loss", "working set",
         "fresh gradients", "whole gradients", "gathered weights", "update")  # fmt: skip
STAY = KINDS[:4]  # all through the step
FORWARD, LOSS, LAYER, BACKWARD, UPDATE = range(5)
WORDS = ("the end of a forward pass", "the loss", "a layer's backward pass",
         "the end of a backward pass", "the optimiser's step")  # fmt: skip
ROUNDS = 4  # of micro-batches per stage, after which the peak of a schedule does not change
ENDLESS = (
    "1f1b",
    "interleaved",
    "zb-h1",
    "zb-v",
    "dualpipe",
    "dualpipev",
)  # in flight: not more with more of them


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of one stage in order: what happens, in which chunk, what is in flight."""

    what: Counts  # FORWARD .. UPDATE
    chunk: Counts
    flying: Counts  # (moments, chunks) micro-batches whose activations stand
    due: Counts  # (moments, chunks) those whose backward pass has not run: their logits stand
    summed: Counts  # 1 once a backward pass of the stage has ended
    slot: Counts  # of the stage's order
    microbatch: Counts


def stage_moments(scenario: Scenario, stage: int, *, whole: bool = False) -> Moments:
    """Return the moments of a stage that can hold its peak, or all of them (`whole`)."""
    parallel, training = scenario.parallel, scenario.training
    count = training.global_batch // (training.micro_batch * parallel.dp)
    most = ROUNDS * parallel.pp
    if not whole and parallel.schedule in ENDLESS and not parallel.custom_schedule:
        count = most + count % parallel.pp if count > most + parallel.pp else count
    shape = (parallel.schedule, parallel.pp, count, parallel.vp, parallel.custom_schedule)
    return _moments(*shape, stage, whole)


@lru_cache(maxsize=1024)
def _moments(
    name: str, p: int, m: int, v: int,
    custom: tuple[tuple[tuple[str, int, int], ...], ...], stage: int, whole: bool,
) -> Moments:  # fmt: skip
    order = make_schedule(name, p, m, v, custom).orders[stage]
    found = _listed(order, 1 + max(part.chunk for slot in order for part in slot))
    return found if whole else _distinct(found)


def _listed(order: Order, chunks: int) -> Moments:
    """Walk a stage's order once and note every moment."""
    late = {(part.chunk, part.microbatch) for slot in order for part in slot if part.phase == "W"}
    flying, due, summed = [0] * chunks, [0] * chunks, 0
    rows: list[tuple[object, ...]] = []
    for number, slot in enumerate(order):
        for phase, chunk, microbatch in slot:
            flying[chunk] += phase == "F"
            due[chunk] += phase == "F"
            met = chunk, (*flying,), (*due,), summed, number, microbatch
            rows += [(what, *met) for what in _met(phase)]
            due[chunk] -= phase in "BI"
            if phase == "W" or (phase == "B" and (chunk, microbatch) not in late):
                flying[chunk], summed = flying[chunk] - 1, 1
                rows.append((BACKWARD, chunk, (*flying,), (*due,), 1, number, microbatch))
    rows.append((UPDATE, 0, (*flying,), (*due,), 1, len(order), 0))
    return Moments(*(np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)))


def _met(phase: str) -> tuple[int, ...]:
    """Return the moments that a phase has before what it frees is gone."""
    return {"F": (FORWARD,), "B": (LOSS, LAYER), "I": (LOSS, LAYER)}.get(phase, ())


def _distinct(found: Moments) -> Moments:
    """Return the first of each group of moments that hold the same."""
    table = np.column_stack([found.what, found.chunk, found.flying, found.due, found.summed])
    first = np.sort(np.unique(table, axis=0, return_index=True)[1])
    return Moments(*(getattr(found, name)[first] for name in Moments.__slots__))


@dataclass(frozen=True, slots=True)
class StageBytes:
    """Bytes of a stage by kind: what stays, and per chunk what comes and goes."""

    kept: Mapping[str, float]  # weights, gradients, optimizer, messages
    update: float
    always_summed: bool  # the gradients' buffer stands all the time
    whole_to_end: bool  # unsharded gradients stand until a run of micro-batches ends
    activations: Bytes  # (chunks) of one micro-batch
    logits: Bytes
    loss: Bytes
    working: Bytes
    fresh: Bytes
    whole: Bytes
    gathered: Bytes


def stage_bytes(scenario: Scenario, pool: Pool, chunks: Sequence[Chunk]) -> StageBytes:
    """Return what the chunks of a stage take on one rank."""
    stack = pool.stack
    held = state.held_of(scenario, chunks)
    head = [(1 + chunk.predict) * chunk.head for chunk in chunks]
    logits = activations.loss_bytes(scenario, stack)

    def each(values: Sequence[float]) -> Bytes:
        return np.array(values, dtype=np.float64)

    gradients = held.of(state.gradient_bytes(scenario, stack), sharded=scenario.parallel.zero >= 2)
    gradients += held.of(stack.gradient_copy_bytes * trained_share(scenario.model), sharded=False)
    return StageBytes(
        kept={
            "weights": state.weights_kept(scenario, stack, held),
            "gradients": gradients,
            "optimizer": state.state_kept(scenario, stack, held),
            "messages": sum(activations.message_bytes(scenario, pool, chunk) for chunk in chunks),
        },
        update=state.update_bytes(scenario, stack, held),
        always_summed=stack.gradient_buffer,
        whole_to_end=state.sums_runs(scenario.parallel, stack),
        activations=each([activations.chunk_kept(scenario, pool, chunk) for chunk in chunks]),
        logits=each([n * logits.kept for n in head]),
        loss=each([bool(n) * logits.working for n in head]),
        working=each([activations.chunk_working(scenario, pool, chunk) for chunk in chunks]),
        fresh=each([state.fresh_bytes(scenario, stack, state.held_of(scenario, [c])) for c in chunks]),
        whole=each([state.whole_gradients(scenario, stack, chunk, chunks) for chunk in chunks]),
        gathered=each([state.gathered_weights(scenario, stack, chunk) for chunk in chunks]),
    )  # fmt: skip


def alive(moments: Moments, stage: StageBytes) -> Bytes:
    """Return bytes alive by moment and kind: an array (moments, KINDS)."""
    what, chunk, flying = moments.what, moments.chunk, moments.flying
    layer, ends = what == LAYER, what == BACKWARD
    working = what != UPDATE
    found = np.zeros((what.size, len(KINDS)))

    def put(kind: str, values: npt.ArrayLike) -> None:
        found[:, KINDS.index(kind)] = values

    put("weights", stage.kept["weights"])
    put("optimizer", stage.kept["optimizer"])
    put("messages", stage.kept["messages"])
    there = np.ones_like(what) if stage.always_summed else moments.summed
    put("gradients", stage.kept["gradients"] * there)
    put("activations", flying @ stage.activations)
    put("loss", moments.due @ stage.logits + np.where(what == LOSS, stage.loss[chunk], 0.0)
        - np.where(layer, stage.logits[chunk], 0.0))  # fmt: skip
    put("working set", np.where(layer, stage.working[chunk], 0.0))
    put("fresh gradients", np.where(ends, stage.fresh[chunk], 0.0))
    put("whole gradients", np.where(layer | (ends & stage.whole_to_end), stage.whole[chunk], 0.0))
    put("gathered weights", np.where(working, stage.gathered[chunk], 0.0))
    put("update", np.where(working, 0.0, stage.update))
    return found
