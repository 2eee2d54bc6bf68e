"""L1 at its fastest: a step's duration from folded blocks, slot by slot, without an op or an array.

A schedule is flattened once into numbers: which block each slot runs, and which messages it takes and
leaves. Streams that never pass the compute stream and never bind are dropped. What is left of most
blocks are a few constants (`Plain`); others keep the finite entries of their rows.

The result equals `ersatz.sim.step.folded` to the last bit. Not covered: stragglers (L2), shared links (L3).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.kept import Kept
from ersatz.sim.plan.borders import Border, Step, schedule_steps, stage_borders
from ersatz.sim.plan.schedules import Schedule, Variant, make_schedule
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.step.blocks import (
    NEVER,
    WIDTH,
    Folded,
    Matrix,
    Phase,
    fold,
    power,
    product,
    tail_seconds,
)
from ersatz.sim.step.build import StageBuilder, stage_builders, stage_pools
from ersatz.sim.step.program import COMPUTE, HOST, PIPE

MESSAGE = WIDTH  # column of a block's first message
SIDE = (2, 3, 4)  # streams that may be dropped: expert, gather, reduce
REPEATS = 8  # slots of one stage, from which on runs are looked for


class Sent(NamedTuple):
    """What a phase of a chunk of a stage is, and where its result goes."""

    phase: str
    position: int
    edge: str
    to: int | None  # stage


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """A schedule as numbers: slots of (stage, block, messages in, messages out); message 0 is none."""

    slots: tuple[tuple[int, int, tuple[int, ...], tuple[int, ...]], ...]
    blocks: tuple[tuple[int, tuple[Sent, ...]], ...]  # stage and phases of each block
    messages: int
    held: tuple[tuple[int, ...], ...]  # positions of each stage
    steps: tuple[Step, ...]


_FLAT: Kept[Flat] = Kept(64)


def flat_schedule(schedule: Schedule) -> Flat:
    """Return the flattened form of a schedule."""
    return _FLAT.get((schedule,), None, lambda: _flatten(schedule))


def _flatten(schedule: Schedule) -> Flat:
    numbers: dict[tuple[int, Variant], int] = {}
    messages = {-1: 0}
    slots = []
    for stage, variant, inputs, outputs in schedule.walk:
        block = numbers.setdefault((stage, variant), len(numbers))
        taken = tuple([messages.setdefault(message, len(messages)) for message in inputs])
        left = tuple([messages.setdefault(message, len(messages)) for message in outputs])
        slots.append((stage, block, taken, left))
    at = {place: stage for stage, row in enumerate(schedule.places) for place in row}
    blocks = []
    for stage, variant in numbers:
        sent = []
        for phase, chunk, edge in variant:
            place = schedule.places[stage][chunk]
            target = place._replace(position=place.position + (1 if phase == "F" else -1))
            sent.append(Sent(phase, place.position, edge, at.get(target)))
        blocks.append((stage, tuple(sent)))
    held = tuple(tuple(sorted({place.position for place in row})) for row in schedule.places)
    return Flat(tuple(slots), tuple(blocks), len(messages), held, schedule_steps(schedule))


_BORDERS: Kept[Mapping[Step, Border]] = Kept(64)


def _borders(
    scenario: Scenario, pools: Sequence[Pool], steps: tuple[Step, ...]
) -> Mapping[Step, Border]:
    """Return what messages find on their way, kept for layouts whose stages sit alike."""
    p = scenario.parallel
    kinds = list({id(pool): pool for pool in pools}.values())
    if len(kinds) > 1:
        return stage_borders(scenario, pools, steps)
    pool = kinds[0]
    place = (p.tp * p.cp * p.dp, len(pools), p.world, pool.nodes, scenario.fabric, scenario.seed)
    return _BORDERS.get((pool.node, pool.stack), (place, steps),
                        lambda: stage_borders(scenario, pools, steps))  # fmt: skip


def quick_times(
    scenario: Scenario, timer: Timer = calibrated_time, shares: Sequence[Scenario] = ()
) -> tuple[float, float]:
    """Return when every gradient is there and when the step ends, in seconds from its start.

    `shares` as in `build_program`. Raises ValueError where layers or micro-batches do not suit the
    schedule and `InfeasibleError` where a fault cuts off a rank.
    """
    parallel, training = scenario.parallel, scenario.training
    microbatches = training.global_batch // (training.micro_batch * parallel.dp)
    flat = flat_schedule(make_schedule(
        parallel.schedule, parallel.pp, microbatches, parallel.vp, parallel.custom_schedule,
        runs=parallel.zero == 2,
    ))  # fmt: skip
    pools = stage_pools(scenario)
    borders = _borders(scenario, pools, flat.steps)
    builders = stage_builders(scenario, pools, timer, tuple(shares), borders)
    folded = [_folded(builders[stage], stage, phases) for stage, phases in flat.blocks]
    barrier = _walk(flat, folded, parallel.pp)
    tail = max(_tail(builders[stage], held) for stage, held in enumerate(flat.held))
    return barrier, barrier + tail


def _folded(builder: StageBuilder, stage: int, phases: Sequence[Sent]) -> Folded:
    """Return the block of a slot, made once per bench for chunks of the same content."""
    made, classes, overlaps = builder.bench.made, builder.classes, len(phases) > 1
    key: list[object] = [builder.messages_overlap]
    ways = []
    for phase, position, edge, to in phases:
        border = None
        if to is not None and phase != "W":
            border = builder.borders[min(stage, to), max(stage, to)]
        ways.append(border)
        key.append((phase, classes[position], edge, border))
    found: Folded | None = made.get(tuple(key))
    if found is None:
        found = fold(builder, [
            Phase(sent.phase, builder.chunks[sent.position], sent.edge, border, overlaps)
            for sent, border in zip(phases, ways, strict=True)
        ])  # fmt: skip
        made[tuple(key)] = found
    return found


def _tail(builder: StageBuilder, held: Sequence[int]) -> float:
    """Return how long the end of a step takes a stage that holds these positions."""
    made = builder.bench.made
    key = "tail", tuple(builder.classes[position] for position in held)
    if key not in made:
        made[key] = tail_seconds(builder, [builder.chunks[position] for position in held])
    return float(made[key])


class Plain(NamedTuple):
    """A block with one message, as constants: with c and h the compute stream and the host,

    t = max(c, message);  c' = max(t + device, h + lead);  h' = h + host
    p' = max(t + before, p + link, h + lead_out);  the message arrives `flight` after p', or after c'
    where it holds the compute stream (`blocks`).
    """

    device: float
    lead: float
    host: float
    before: float
    link: float
    lead_out: float
    flight: float
    blocks: bool


Rows = list[tuple[int, list[tuple[int, float]]]]


class Sparse(NamedTuple):
    """A block that is not plain: rows that change anything, and its messages, by finite entries."""

    rows: Rows
    sends: Rows


def _dropped(folded: Collection[Folded]) -> set[int]:
    """Return the side streams that never pass the compute stream and never bind, in all blocks."""

    def below(one: Folded, k: int) -> bool:
        m = one.matrix
        still = m[k, k] == 0.0 and int((m[k] > NEVER).sum()) == 1 and m[COMPUTE, COMPUTE] >= 0.0
        behind = still or bool((m[k] <= m[COMPUTE]).all())
        others = [row for i, row in enumerate(m) if i != k] + [row for _, row in one.sends]
        return behind and all(row[k] <= row[COMPUTE] for row in others)

    return {k for k in SIDE if all(below(one, k) for one in folded)}


def _plain(one: Folded, dropped: set[int]) -> Plain | None:
    """Return the constants of a block, or None where it is not that simple."""
    m = one.matrix
    if one.inputs != 1 or len(one.sends) > 1:
        return None

    def columns(row: Matrix) -> set[int]:
        return {c for c in range(len(row)) if row[c] > NEVER and c not in dropped}

    still = [k for k in SIDE if k not in dropped]
    if any(columns(m[k]) != {k} or m[k, k] != 0.0 for k in still):
        return None
    compute = m[COMPUTE]
    if columns(m[HOST]) != {HOST} or not _joint(
        compute, columns(compute), {HOST, COMPUTE, MESSAGE}
    ):
        return None
    first = float(compute[COMPUTE]), float(compute[HOST]), float(m[HOST, HOST])
    quiet = columns(m[PIPE]) == {PIPE} and m[PIPE, PIPE] == 0.0
    if not one.sends:
        return Plain(*first, NEVER, 0.0, NEVER, 0.0, False) if quiet else None
    row = one.sends[0][1]
    if quiet and (flight := _shift(row, compute, columns(row) | columns(compute))) is not None:
        return Plain(*first, NEVER, 0.0, NEVER, flight, True)
    there = columns(row)
    flight = _shift(row, m[PIPE], there | columns(m[PIPE]))
    if flight is None or not _joint(row, there, {HOST, COMPUTE, PIPE, MESSAGE}):
        return None
    pipe = m[PIPE]
    return Plain(*first, float(pipe[COMPUTE]), float(pipe[PIPE]), float(pipe[HOST]), flight, False)


def _joint(row: Matrix, found: set[int], allowed: set[int]) -> bool:
    """Tell whether a row has entries in allowed columns only, of message and compute stream alike."""
    return found <= allowed and row[MESSAGE] == row[COMPUTE]


def _shift(row: Matrix, base: Matrix, columns: set[int]) -> float | None:
    """Return by how much a row is later than another in all columns; None where that differs."""
    if any((row[c] > NEVER) != (base[c] > NEVER) for c in columns):
        return None
    shifts = {float(row[c] - base[c]) for c in columns}
    return shifts.pop() if len(shifts) == 1 else None


def _sparse(one: Folded, dropped: set[int]) -> Sparse:
    def terms(row: Matrix) -> list[tuple[int, float]]:
        return [(c, w) for c, w in enumerate(row.tolist()) if w > NEVER and c not in dropped]

    rows = [(k, terms(row)) for k, row in enumerate(one.matrix) if k not in dropped]
    return Sparse([(k, found) for k, found in rows if found != [(k, 0.0)]],
                  [(part, terms(row)) for part, row in one.sends])  # fmt: skip


def _walk(flat: Flat, folded: Sequence[Folded], stages: int) -> float:
    """Walk all slots from time zero; returns when every stream of every stage is free."""
    if stages == 1 and len(flat.slots) >= REPEATS and all(one.inputs == 1 for one in folded):
        return _walk_alone(flat, folded)
    different = {id(one): one for one in folded}
    dropped = _dropped(different.values())
    forms = {key: _plain(one, dropped) or _sparse(one, dropped) for key, one in different.items()}
    programme = [forms[id(one)] for one in folded]
    state = [[0.0] * WIDTH for _ in range(stages)]
    messages = [NEVER] * flat.messages
    for stage, block, taken, left in flat.slots:
        form = programme[block]
        if len(form) == 2:
            state[stage] = _sparse_slot(form, state[stage], messages, taken, left)
            continue
        device, lead, host_s, before, link, lead_out, flight, blocks = form
        now = state[stage]
        host, time, message = now[0], now[1], messages[taken[0]]
        if message > time:
            time = message
        end, late = time + device, host + lead
        now[1] = end = late if late > end else end
        out = left[0]
        if out:
            if not blocks:
                end, late = time + before, now[5] + link
                if late > end:
                    end = late
                late = host + lead_out
                if late > end:
                    end = late
                now[5] = end
            messages[out] = end + flight
        now[0] = host + host_s
    return max(max(times) for times in state)


def _sparse_slot(
    form: Sparse, now: list[float], messages: list[float], taken: Sequence[int], left: Sequence[int]
) -> list[float]:
    """Return the state of a stage after a block that is not plain; leaves its messages."""
    ready = now + [messages[message] for message in taken]
    after = now[:]
    for row, terms in form.rows:
        after[row] = max([ready[column] + weight for column, weight in terms])
    for part, terms in form.sends:
        if left[part]:
            messages[left[part]] = max([ready[column] + weight for column, weight in terms])
    return after


def _walk_alone(flat: Flat, folded: Sequence[Folded]) -> float:
    """Walk a single stage: runs of the same pair of blocks are powers of its matrix."""
    order = [block for _, block, _, _ in flat.slots]
    square = {block: folded[block].matrix[:, :WIDTH] for block in set(order)}
    total = np.full((WIDTH, WIDTH), NEVER)
    total[range(WIDTH), range(WIDTH)] = 0.0
    at = 0
    pairs: dict[tuple[int, int], dict[int, Matrix]] = {}
    while at < len(order):
        count, pair = 1, tuple(order[at : at + 2])
        while tuple(order[at + 2 * count : at + 2 * count + 2]) == pair and len(pair) == 2:
            count += 1
        if count > 1:
            first, second = order[at], order[at + 1]
            squares = pairs.setdefault((first, second), {1: product(square[second], square[first])})
            total = product(power(squares, count), total)
            at += 2 * count
        else:
            total = product(square[order[at]], total)
            at += 1
    return float(total.max(initial=NEVER))
