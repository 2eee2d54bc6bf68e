"""L1 at its fastest: a step's duration from folded blocks, slot by slot, without an op or an array.

A schedule is flattened once into numbers: which block each slot runs, and which messages it takes and
leaves. Streams that never pass the compute stream and never bind are dropped. What is left of most
blocks are a few constants (`Plain`); others keep the finite entries of their rows.

The result equals `ersatz.sim.step.folded` to the last bit. Not covered: stragglers (L2), shared links (L3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.kept import Kept
from ersatz.sim.plan.borders import Border, Step, stage_borders
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.step.build import StageBuilder, stage_builders, stage_pools
from ersatz.sim.step.quick.blocks import (
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
from ersatz.sim.step.quick.flat import Flat, Sent, flat_schedule
from ersatz.sim.step.quick.forms import Sparse, dropped_streams, plain, sparse

REPEATS = 8  # slots of one stage, from which on runs are looked for


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
    flat = flat_schedule(
        parallel.schedule, parallel.pp, microbatches, parallel.vp, parallel.custom_schedule,
        runs=parallel.zero == 2,
    )  # fmt: skip
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


def _walk(flat: Flat, folded: Sequence[Folded], stages: int) -> float:
    """Walk all slots from time zero; returns when every stream of every stage is free."""
    if stages == 1 and len(flat.slots) >= REPEATS and all(one.inputs == 1 for one in folded):
        return _walk_alone(flat, folded)
    different = {id(one): one for one in folded}
    dropped = dropped_streams(different.values())
    forms = {key: plain(one, dropped) or sparse(one, dropped) for key, one in different.items()}
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
