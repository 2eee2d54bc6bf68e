"""The moments of a step at which a stage may hold the most, as arrays, and what is alive in each.

A stage runs its slots in the order of its schedule. Activations of a chunk stand from its forward pass
until its backward pass, or until its weight gradients where these are put off. Four moments of a slot
count: the end of a forward pass; the loss, when a backward pass begins at the head; the layer in work;
the end of a backward pass. Then the results of the micro-batches may be joined, and the optimiser's step
is the last. Orders are cached per shape, without what repeats: a plan then is a product of small matrices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.plan.layout import Chunk
from ersatz.sim.plan.memory import activations, state
from ersatz.sim.plan.orders import Slot, orders_of
from ersatz.sim.plan.schedules import make_schedule
from ersatz.sim.scenario.scenario import Pool, Scenario

Bytes = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

KINDS = ("weights", "gradients", "optimizer", "messages", "graphs", "activations", "loss", "working set",
         "fresh gradients", "whole gradients", "gathered weights", "joined results",
         "update")  # fmt: skip
STAY = KINDS[:5]  # all through the step
FORWARD, LOSS, LAYER, BACKWARD, JOIN, UPDATE = range(6)
WORDS = ("the end of a forward pass", "the loss", "a layer's backward pass",
         "the end of a backward pass", "the joining of results", "the optimiser's step")  # fmt: skip
COUNTS = (
    "flying",
    "due",
    "summed",
    "standing",
    "done",
)  # columns of `Moments` that say what is held
PHASES = {"F": 0, "B": 1, "I": 2, "W": 3}
ENTERS, WHOLE, INPUT, WEIGHT = range(4)
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
    standing: Counts  # (moments, chunks) 1 from the first weight gradients of a chunk to its last
    done: Counts  # (moments, chunks) 1 once all weight gradients of a chunk are there
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


def moments_of(name: str, p: int, m: int, v: int, stage: int) -> Moments:
    """Return all moments of a stage; raises ValueError as the schedule's function does."""
    order = orders_of(name, p, m, v)[stage]
    return _listed(order, 1 + max(part.chunk for slot in order for part in slot))


def _listed(order: Sequence[Slot], chunks: int) -> Moments:
    """Note every moment of a stage's order."""
    parts = [
        (PHASES[p.phase], p.chunk, p.microbatch, n) for n, slot in enumerate(order) for p in slot
    ]
    phase, chunk, microbatch, slot = np.array(parts, dtype=np.int64).T
    enters, leaves = phase == ENTERS, (phase == WHOLE) | (phase == INPUT)
    whole = _ends_a_backward_pass(phase, chunk, microbatch)
    of = chunk[:, None] == np.arange(chunks)
    in_, out, left = (of * did[:, None] for did in (enters, whole, leaves))
    begun, ended, gone = (np.cumsum(each, axis=0) for each in (in_, out, left))
    counts = np.where(enters, 1, 2 * leaves) + whole  # moments of each part
    part = np.repeat(np.arange(len(phase)), counts)
    end = np.cumsum(counts)
    place = np.arange(part.size) - (end - counts)[part]  # of a moment in its part
    after = whole[part] & (place == counts[part] - 1)  # what the part frees is gone
    what = np.where(after, BACKWARD, np.where(enters[part], FORWARD, LOSS + place))
    before = ~after[:, None]
    flying = (begun - ended)[part] + out[part] * before
    due = (begun - gone)[part] + left[part] * before
    summed = after | ((np.cumsum(whole) - whole)[part] > 0)
    at, never = np.arange(part.size + 2)[:, None], part.size + 2
    first, last = np.full((2, chunks), never)  # moments of a chunk's weight gradients
    for number in np.unique(chunk[whole]):
        mine = np.flatnonzero(whole & (chunk == number))
        first[number] = end[mine[0]] - 1 - (phase[mine[0]] == WHOLE)  # the layer in work has some
        last[number] = end[mine[-1]] - 1
    standing, done = (at >= first) & (at <= last), at > last
    still = (begun - ended)[-1:], (begun - gone)[-1:]
    columns: tuple[tuple[Any, Any], ...] = (
        (what, [JOIN, UPDATE]), (chunk[part], [0, 0]), (flying, np.repeat(still[0], 2, axis=0)),
        (due, np.repeat(still[1], 2, axis=0)), (summed, [1, 1]), (standing, []), (done, []),
        (slot[part], [len(order)] * 2), (microbatch[part], [0, 0]),
    )  # fmt: skip
    return Moments(*(np.concatenate([rows, more] if len(more) else [rows]).astype(np.int64)
                     for rows, more in columns))  # fmt: skip


def _ends_a_backward_pass(
    phase: Counts, chunk: Counts, microbatch: Counts
) -> npt.NDArray[np.bool_]:
    """Tell which parts bring the last gradients of a micro-batch: weights, or whole ones none follow."""
    key = chunk * (int(microbatch.max()) + 1) + microbatch
    late = np.zeros(int(key.max()) + 1, dtype=bool)
    late[key[phase == WEIGHT]] = True
    found: npt.NDArray[np.bool_] = (phase == WEIGHT) | ((phase == WHOLE) & ~late[key])
    return found


def _distinct(found: Moments) -> Moments:
    """Return the first of each group of moments that hold the same."""
    table = np.column_stack([found.what, found.chunk, *(getattr(found, name) for name in COUNTS)])
    first = np.sort(np.unique(table, axis=0, return_index=True)[1])
    return Moments(*(getattr(found, name)[first] for name in Moments.__slots__))


@dataclass(frozen=True, slots=True)
class StageBytes:
    """Bytes of a stage by kind: what stays, and per chunk what comes and goes."""

    kept: Mapping[str, float]  # weights, gradients, optimizer, messages
    update: float
    always_summed: bool  # the gradients' buffer stands all the time
    whole_to_end: bool  # unsharded gradients stand until a run of micro-batches ends
    whole_all_step: bool  # they stand until a chunk's last micro-batch
    reshards: bool  # so do its weights, which then are shards again
    joined: float  # results of all micro-batches in one tensor, at the end of the schedule
    graph_pool: float  # pools of captured graphs; 0: a share of the most activations that stand
    graph_share: float
    activations: Bytes  # (chunks) of one micro-batch
    logits: Bytes
    loss: Bytes
    working: Bytes
    fresh: Bytes
    whole: Bytes
    gathered: Bytes


class ChunkBytes(NamedTuple):
    """Bytes of one micro-batch in a chunk, by what comes and goes; of its buffers for messages."""

    activations: float
    logits: float
    loss: float
    working: float
    messages: float
    joined: float  # its results of all micro-batches in one tensor


class ChunkState(NamedTuple):
    """Bytes of a chunk's weights and gradients that stand whole for a moment."""

    fresh: float
    whole: float
    gathered: float


class StageState(NamedTuple):
    """Bytes of a stage that stay all through the step, and those of the optimiser's step."""

    weights: float
    gradients: float
    optimizer: float
    update: float


def chunk_bytes(
    scenario: Scenario, pool: Pool, chunk: Chunk, loss: activations.LossBytes
) -> ChunkBytes:
    """Return what the micro-batches of a chunk take; `loss` is what one head takes."""
    head = (1 + chunk.predict) * chunk.head
    return ChunkBytes(
        activations.chunk_kept(scenario, pool, chunk), head * loss.kept, bool(head) * loss.working,
        activations.chunk_working(scenario, pool, chunk), activations.message_bytes(scenario, pool, chunk),
        activations.joined_bytes(scenario, pool, chunk),
    )  # fmt: skip


def chunk_state(scenario: Scenario, stack: Stack, chunk: Chunk) -> ChunkState:
    """Return what a chunk holds whole for a moment."""
    return ChunkState(
        state.fresh_bytes(scenario, stack, chunk),
        state.whole_gradients(scenario, stack, chunk),
        state.gathered_weights(scenario, stack, chunk),
    )


def stage_state(scenario: Scenario, stack: Stack, chunks: Sequence[Chunk]) -> StageState:
    """Return the weights, gradients and optimiser state of the chunks of a stage."""
    held = state.held_of(scenario, chunks)
    return StageState(
        state.weights_kept(scenario, stack, chunks),
        state.gradients_kept(scenario, stack, held) + state.standing_bucket(scenario, stack),
        state.state_kept(scenario, stack, held), state.update_bytes(scenario, stack, held),
    )  # fmt: skip


def stage_bytes(scenario: Scenario, pool: Pool, chunks: Sequence[Chunk]) -> StageBytes:
    """Return what the chunks of a stage take on one rank."""
    stack = pool.stack
    loss = activations.loss_bytes(scenario, stack)
    stays = stage_state(scenario, stack, chunks)
    work = [chunk_bytes(scenario, pool, chunk, loss) for chunk in chunks]
    moved = [chunk_state(scenario, stack, chunk) for chunk in chunks]

    def each(values: Iterable[float]) -> Bytes:
        return np.array(list(values), dtype=np.float64)

    return StageBytes(
        kept={"weights": stays.weights, "gradients": stays.gradients, "optimizer": stays.optimizer,
              "messages": sum(one.messages for one in work)},
        update=stays.update,
        always_summed=stack.gradient_buffer,
        whole_to_end=state.sums_runs(scenario.parallel, stack),
        whole_all_step=state.sums_step(scenario.parallel, stack),
        reshards=state.reshards_at_end(scenario.parallel, stack),
        graph_pool=stack.graph_pool_bytes,
        graph_share=stack.graph_share,
        joined=sum(one.joined for one in work),
        activations=each(one.activations for one in work),
        logits=each(one.logits for one in work),
        loss=each(one.loss for one in work),
        working=each(one.working for one in work),
        fresh=each(one.fresh for one in moved),
        whole=each(one.whole for one in moved),
        gathered=each(one.gathered for one in moved),
    )  # fmt: skip


def alive(moments: Moments, stage: StageBytes) -> Bytes:
    """Return bytes alive by moment and kind: an array (moments, KINDS)."""
    what, chunk, flying = moments.what, moments.chunk, moments.flying
    layer, ends = what == LAYER, what == BACKWARD
    working = what < JOIN
    found = np.zeros((what.size, len(KINDS)))

    def put(kind: str, values: npt.ArrayLike) -> None:
        found[:, KINDS.index(kind)] = values

    there = np.ones_like(what) if stage.always_summed else moments.summed
    whole = np.where(layer | (ends & stage.whole_to_end), stage.whole[chunk], 0.0)
    weights = 1 - moments.done.min(axis=1) if stage.reshards else np.ones_like(what)
    if stage.whole_all_step:
        there = moments.done.max(axis=1)
        whole = (moments.standing * stage.whole).sum(axis=1)
    put("weights", stage.kept["weights"] * weights)
    put("optimizer", stage.kept["optimizer"])
    put("messages", stage.kept["messages"])
    put("gradients", stage.kept["gradients"] * there)
    flown = (flying * stage.activations).sum(axis=1)
    put("activations", flown)
    put("graphs", stage.graph_pool or stage.graph_share * flown.max())
    put("loss", (moments.due * stage.logits).sum(axis=1) + np.where(what == LOSS, stage.loss[chunk], 0.0)
        - np.where(layer, stage.logits[chunk], 0.0))  # fmt: skip
    put("working set", np.where(layer, stage.working[chunk], 0.0))
    put("fresh gradients", np.where(ends | (layer & stage.whole_all_step), stage.fresh[chunk], 0.0))
    put("whole gradients", whole)
    put("gathered weights", np.where(working, stage.gathered[chunk], 0.0))
    put("joined results", np.where(what == JOIN, stage.joined, 0.0))
    put("update", np.where(what == UPDATE, stage.update, 0.0))
    return found
