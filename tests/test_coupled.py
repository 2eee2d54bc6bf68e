"""L3: collectives that share links, by hand, against L2 and against SimPy."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coupled_oracle import coupled_oracle
from factories import make_node, make_scale_out, make_scenario, make_stack
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import SHAPES, make_program, random_op, random_program

from ersatz.device_models.networks.sharing import NO_LINK, max_min_rates
from ersatz.sim.plan.schedules import Variant, make_schedule
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.scenario import FabricSpec, Parallel, Pool, Training
from ersatz.sim.step.build import build_program
from ersatz.sim.step.coupled import coupled_step, fair_speeds
from ersatz.sim.step.folded import folded_step
from ersatz.sim.step.program import (
    COMPUTE,
    GATHER,
    INPUT,
    LINKS,
    PIPE,
    REDUCE,
    Block,
    Op,
    Program,
    Work,
    make_op,
    overlap_blocks,
    ticks,
)
from ersatz.sim.step.step import simulate_step
from ersatz.sim.step.vector import vector_step

ROOT = Path(__file__).resolve().parents[1]


def without_links(program: Program) -> Program:
    """Return the program on links of infinite width."""

    def free(block: Block) -> Block:
        return Block(tuple(replace(op, uses=()) for op in block.ops), block.sends)

    blocks = {key: free(block) for key, block in program.blocks.items()}
    return replace(program, blocks=blocks, tails=tuple(free(tail) for tail in program.tails))


def coupled_program(seed: int) -> Program:
    """A random program of one rank per stage whose single pieces of work use shares of links."""
    rng = random.Random(seed)

    def used(op: Op) -> Op:
        if len(op.work) > 1 or rng.random() < 0.3:
            return op
        kinds = rng.sample(LINKS, rng.randint(1, 3))
        return replace(op, uses=tuple((kind, rng.choice([0.3, 0.7, 1.0])) for kind in kinds),
                       to=rng.choice([-1, 0, 1]))  # fmt: skip

    def block(phase: str) -> Block:
        count = rng.randint(1, 5)
        ops = tuple(used(random_op(rng, f"{phase}{i}", i)) for i in range(count))
        return Block(ops, ((rng.randrange(count), 0),) if phase != "W" else ())

    return make_program(*rng.choice(SHAPES), (1, 1, 1, 1), block, lambda: block("W"))


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_shared_links_equal_the_oracle(seed: int) -> None:
    program = coupled_program(seed)
    assert coupled_step(program) == pytest.approx(coupled_oracle(program), rel=1e-9)


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_infinite_links_equal_l2_bit_for_bit(seed: int) -> None:
    program = without_links(coupled_program(seed))
    assert coupled_step(program) == vector_step(program)
    alike = random_program(seed)
    assert coupled_step(alike) == pytest.approx(vector_step(alike), rel=1e-12)


@pytest.mark.parametrize("name", ["deepseek-v3-h800", "llama3-405b-h100", "llama3-70b-mi300x"])
def test_infinite_links_equal_l1_on_whole_scenarios(name: str) -> None:
    program, _ = build_program(load_cases(ROOT / "scenarios" / f"{name}.yaml")[0])
    assert coupled_step(without_links(program)) == folded_step(program)
    assert coupled_step(program) >= folded_step(program)


def two_streams(share: float) -> Program:
    """One stage, one slot forward: two collectives of 1 s on streams of their own."""

    def block(phase: str) -> Block:
        if phase != "F":
            return Block((make_op("nothing", COMPUTE, [Work(0.0, 0.0, "x")], after=(INPUT,)),))
        work = [Work(0.0, ticks(1.0), "x")]
        ops = [make_op(n, s, work, scales=False, uses=(("out", share),))
               for n, s in (("gather", GATHER), ("reduce", REDUCE))]  # fmt: skip
        return Block(tuple(ops))

    return make_program("1f1b", 1, 1, 1, (1, 1, 1, 1), block, lambda: Block(()))


def test_two_collectives_on_one_link() -> None:
    # Each fills the card when alone: together 2 s. With 3/4 of it: speeds of 2/3, 1.5 s. With half: 1 s.
    assert coupled_step(two_streams(1.0)) == pytest.approx(2.0)
    assert coupled_step(two_streams(0.75)) == pytest.approx(1.5)
    assert coupled_step(two_streams(0.5)) == 1.0


def test_a_message_under_a_reduction() -> None:
    # Two stages. Stage 0 computes 1 s, then sends for 1 s (all of its card out, all of stage 1's in),
    # while stage 1 reduces for 3 s on its card inwards from 0 s on. Alone: message ends at 2 s.
    # Together from 1 s on at half speed: the message ends at 3 s, the reduction at 4 s.
    schedule = make_schedule("1f1b", 2, 1, 1)
    blocks: dict[tuple[int, Variant], Block] = {}
    second = Work(0.0, ticks(1.0), "x")
    for visit in schedule.walk:
        forward = visit.block[0][0] == "F"
        compute = make_op("compute", COMPUTE, [second if forward and visit.stage == 0 else Work(
            0.0, 0.0, "x")], after=(INPUT,))  # fmt: skip
        send = make_op("send", PIPE, [second], after=(0,), scales=False, to=1,
                       uses=(("out", 1.0), ("in", 1.0)))  # fmt: skip
        reduce_ = make_op("reduce", REDUCE, [Work(0.0, ticks(3.0), "x")], scales=False,
                          uses=(("in", 1.0),))  # fmt: skip
        if forward and visit.stage == 0:
            ops, sends = (compute, send), ((1, 0),)
        elif forward:
            ops, sends = (compute, reduce_), ()
        else:
            ops, sends = (compute,), ((0, 0),) if visit.stage else ()
        blocks[visit.stage, visit.block] = Block(ops, sends)
    program = Program(schedule, (1, 1, 1, 1), blocks, (Block(()), Block(())))
    assert coupled_step(program) == pytest.approx(4.0)
    assert coupled_oracle(program) == pytest.approx(4.0)
    assert folded_step(program) == 3.0


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_fair_speeds_equal_the_array_solver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    flows, links = int(rng.integers(1, 8)), int(rng.integers(1, 6))
    routes = np.full((flows, 3), NO_LINK)
    uses = np.zeros((flows, 3))
    for row in range(flows):
        count = int(rng.integers(1, min(3, links) + 1))
        routes[row, :count] = rng.permutation(links)[:count]
        uses[row, :count] = rng.choice([0.2, 0.5, 1.0], count)
    lists = [
        [((int(i), "out"), float(u)) for i, u in zip(routes[r], uses[r], strict=True) if i >= 0]
        for r in range(flows)
    ]
    expected = max_min_rates(routes, np.ones(links), bounds=np.ones(flows), uses=uses)
    assert fair_speeds(lists) == pytest.approx(expected.tolist(), rel=1e-9)


def test_contention_shows_in_a_step_and_in_its_breakdown() -> None:
    # ZeRO over two nodes with slow cards, overlapping with pipeline messages over the same cards.
    node = make_node(scale_out=make_scale_out(nic_bandwidth=1e9))
    base = make_scenario(
        pools=(Pool("", node, 4, make_stack()),),
        training=Training(sequence_length=1000, global_batch=64, micro_batch=1),
        parallel=Parallel(dp=16, pp=2, zero=1),
    )
    alone = simulate_step(base)
    shared = simulate_step(replace(base, fabric=FabricSpec(contention=True)))
    assert shared.duration_s > alone.duration_s
    longer = shared.duration_s - alone.duration_s
    assert shared.breakdown["link sharing"] == pytest.approx(longer)
    assert sum(shared.breakdown.values()) == pytest.approx(shared.duration_s)


def test_overlapped_blocks_keep_their_links() -> None:
    op = make_op("send", PIPE, [Work(0.0, 1.0, "x")], scales=False, uses=(("out", 1.0),), to=1)
    both = overlap_blocks(Block((op,)), Block((op,)))
    assert [(o.uses, o.to) for o in both.ops] == [((("out", 1.0),), 1)] * 2
