"""Small programs for the engines' tests: uniform ones with closed forms, and random ones."""

from __future__ import annotations

import random

from ersatz.sim.plan.schedules import Variant, make_schedule
from ersatz.sim.step.program import (
    COMPUTE,
    INPUT,
    STREAMS,
    Block,
    Program,
    Work,
    make_op,
    overlap_blocks,
    ticks,
)

SHAPES = [("gpipe", 2, 2, 1), ("1f1b", 2, 3, 1), ("1f1b", 3, 5, 1), ("interleaved", 2, 4, 2),
          ("zb-h1", 3, 4, 1), ("zb-v", 2, 4, 1), ("dualpipe", 2, 4, 1),
          ("dualpipev", 2, 4, 1)]  # fmt: skip


def make_program(name, p, m, v, shape, block_of, tail_of):  # type: ignore[no-untyped-def]
    """Build a program whose single-phase blocks come from `block_of(phase)`."""
    schedule = make_schedule(name, p, m, v)
    blocks: dict[tuple[int, Variant], Block] = {}
    for visit in schedule.walk:
        if (visit.stage, visit.block) not in blocks:
            made = [block_of(phase) for phase, _, _ in visit.block]
            blocks[visit.stage, visit.block] = made[0] if len(made) == 1 else overlap_blocks(*made)
    return Program(schedule, shape, blocks, tuple(tail_of() for _ in range(p)))


def uniform_program(name: str, p: int, m: int, v: int, phases: dict[str, float]) -> Program:
    """One op per phase, no launch cost, no messages' time, one rank per stage."""

    def block(phase: str) -> Block:
        op = make_op(phase, COMPUTE, [Work(0.0, ticks(phases[phase]), "matrix")], after=(INPUT,))
        return Block((op,), ((0, 0),) if phase != "W" else ())

    return make_program(name, p, m, v, (1, 1, 1, 1), block, lambda: Block(()))


def random_program(seed: int) -> Program:
    """A program with random ops, streams, dependencies, groups and host reads."""
    rng = random.Random(seed)
    shape = tuple(rng.choice([1, 2]) for _ in range(4))

    def block(phase: str) -> Block:
        count = rng.randint(1, 5)
        ops = tuple(random_op(rng, f"{phase}{i}", i) for i in range(count))
        return Block(ops, ((rng.randrange(count), 0),) if phase != "W" else ())

    return make_program(*rng.choice(SHAPES), shape, block, lambda: block("W"))


def random_op(rng: random.Random, name: str, index: int):  # type: ignore[no-untyped-def]
    """An op that depends on random earlier ones."""
    after = {rng.randrange(index) for _ in range(rng.randrange(3))} if index else {INPUT}
    if rng.random() < 0.2:
        after.add(INPUT)
    sync = () if rng.random() < 0.6 else tuple(sorted(rng.sample(range(4), rng.randint(1, 2))))
    kernels = 1 if sync else rng.randint(1, 4)
    work = [Work(ticks(rng.random() * 0.3), ticks(rng.random()), "x") for _ in range(kernels)]
    return make_op(
        name, rng.choice([COMPUTE, COMPUTE, *range(1, len(STREAMS))]), work, after=sorted(after),
        sync=sync, scales=rng.random() < 0.7, host_waits=rng.random() < 0.1,
    )  # fmt: skip
