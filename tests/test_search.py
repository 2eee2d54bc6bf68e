"""The search against exhaustive exact search on small spaces, and its bounds against exact steps."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from statistics import median

import numpy as np
import pytest
from factories import make_scenario
from test_quick_step import shrunk

from ersatz.device_models.catalog.reading import load_node, load_scale_out, load_stack
from ersatz.sim.errors import InfeasibleError, LayoutError
from ersatz.sim.plan.memory.many import ManyPeaks
from ersatz.sim.plan.memory.peaks import stage_peaks
from ersatz.sim.plan.memory.verdict import judge, room_for_sure
from ersatz.sim.plan.orders import PIPELINE_SCHEDULES, orders_of
from ersatz.sim.plan.schedules import edges_of, make_schedule
from ersatz.sim.scenario.scenario import FabricSpec, Pool, Scenario, Training
from ersatz.sim.search.best import search
from ersatz.sim.search.choices import SCHEDULES, Choices, choices_of, divisors
from ersatz.sim.search.least.bounds import WHOLE, Bounds, in_flight
from ersatz.sim.search.least.spared import Closer, Lighter, reductions
from ersatz.sim.search.least.ways import before_first, least_way
from ersatz.sim.search.pricing import InPlace, Price, Row, price_layout
from ersatz.sim.search.space import (
    COLUMNS,
    PP,
    SCHEDULE,
    VP,
    M,
    Space,
    layout_of,
    make_space,
    row_of,
)
from ersatz.sim.step.step import unshared

ALL = Choices(SCHEDULES, (0, 1, 2, 3), least_context_tokens=1024, most_micro_batch=2,
              most_chunks=4, most_tensor=4, recompute=("none", "full"))  # fmt: skip
SMALL = [  # model, layers, stack, node, nodes, batch, schedules, ZeRO
    ("llama3-8b", 4, "megatron-core", "h100-8", 1, 8, ("1f1b", "interleaved"), (0, 1)),
    ("llama3-8b", 4, "torchtitan", "h100-8", 1, 8, ("1f1b", "zb-v"), (3,)),
    ("llama3-8b", 8, "llama3", "h100-8", 1, 16, ("gpipe", "interleaved"), (1, 2)),
    ("llama3-70b", 4, "mindspeed", "ascend-910b2-8", 1, 8, ("1f1b", "zb-h1"), (1,)),
    ("llama3-70b", 3, "primus", "mi300x-8", 1, 8, ("1f1b",), (0, 2, 3)),
    ("mixtral-8x7b", 4, "megatron-core", "h100-8", 1, 4, ("1f1b",), (1,)),
    ("mixtral-8x7b", 2, "primus", "mi300x-8", 1, 4, ("zb-h1",), (1,)),
    ("deepseek-v3", 4, "deepseek", "h800-8", 1, 8, ("dualpipe", "dualpipev"), (1,)),
    ("qwen3-30b-a3b", 3, "megatron-core-2025", "h20-8", 1, 2, ("1f1b",), (1,)),
    ("gpt3-175b", 2, "megatron-2021", "a100-80-8", 1, 8, ("1f1b", "gpipe"), (0,)),
]  # fmt: skip


@lru_cache(maxsize=1)
def small_space(case: tuple) -> tuple[Space, dict[Row, Price]]:  # type: ignore[type-arg]
    """A space of some hundred layouts, on devices that half of them suit, and all exact prices."""
    name, layers, stack, node_name, nodes, batch, schedules, zero = case
    node = load_node(node_name)
    scenario = make_scenario(
        model=shrunk(name, layers), training=Training(2048, batch, 1),
        pools=(Pool("", node, nodes, load_stack(stack)),),
    )  # fmt: skip
    choices = replace(ALL, schedules=schedules, zero=zero)
    held: dict[str, object] = {"etp": 1} if scenario.model.experts else {}
    if scenario.model.experts and not scenario.model.predict_layers:
        held["recompute"] = "none"
    rows = [tuple(row) for row in make_space(scenario, choices, held).rows.tolist()]
    free = {row: price_layout(scenario, row, "does not fit") for row in rows}
    room = room_for_sure(median(price.peak_bytes for price in free.values()))
    tight = replace(node, device=replace(node.device, memory_bytes=room))
    there = replace(scenario, pools=(replace(scenario.pools[0], node=tight),))
    return make_space(there, choices, held), free


@pytest.mark.heavy
@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"{case[0]}-{case[2]}")
def test_the_winner_is_that_of_exhaustive_search_and_bounds_hold(case: tuple) -> None:  # type: ignore[type-arg]
    space, exact = small_space(case)
    capacity = space.scenario.pools[0].node.device.memory_bytes
    fitting = [p.seconds for p in exact.values() if judge(p.peak_bytes, capacity)[0] == "fits"]
    assert 0 < len(fitting) < len(exact)  # memory decides, too
    found = search(space)
    assert found.plans[0].price.seconds == min(fitting)
    for plan in found.plans:
        assert plan.price.seconds == exact[plan.row].seconds
    assert len({plan.kind for plan in found.plans}) == len(found.plans)
    lighter = Lighter(space.scenario)
    for row, price in exact.items():
        for other in lighter.of(row):
            if other in exact:
                assert exact[other].seconds <= price.seconds, dict(zip(COLUMNS, row, strict=True))
    bounds = Bounds(space.scenario)
    closer = Closer(bounds)
    for row, price in exact.items():
        assert closer.seconds(row) <= price.seconds, dict(zip(COLUMNS, row, strict=True))
        assert least_way(bounds, row) <= price.seconds, dict(zip(COLUMNS, row, strict=True))
    seconds, held = bounds.seconds(space.rows), bounds.bytes(space.rows)
    for row, least_s, least_bytes in zip(exact, seconds.tolist(), held.tolist(), strict=True):
        assert least_s <= exact[row].seconds, dict(zip(COLUMNS, row, strict=True))
        assert least_bytes <= exact[row].peak_bytes, dict(zip(COLUMNS, row, strict=True))


def test_where_links_are_shared_the_winner_is_that_of_exhaustive_search_and_few_are_followed() -> (
    None
):
    """Sixteen nodes of eight on a tree with a third of its links above the leaves."""
    model, stack = shrunk("llama3-8b", 8), load_stack("megatron-core")
    node = replace(load_node("h100-8"), scale_out=load_scale_out("oversubscribed-3to1"))
    scenario = make_scenario(
        model=model, pools=(Pool("", node, 16, stack),), training=Training(2048, 256, 1),
        fabric=FabricSpec(contention=True, placement="scattered"),
    )  # fmt: skip
    choices = replace(ALL, schedules=("1f1b",), zero=(1, 3), recompute=("none",))
    space = make_space(scenario, choices, {"micro_batch": 1, "cp": 1})
    prices = [price_layout(scenario, tuple(row)) for row in space.rows.tolist()]
    own = InPlace(unshared(scenario))
    shared = 0
    for row, price in zip(space.rows.tolist(), prices, strict=True):
        if price.verdict == "fits":
            alone = own.price(tuple(row)).seconds
            assert alone <= price.seconds
            shared += alone < 0.999 * price.seconds
    assert shared > 3  # sharing delays some
    found = search(space)
    assert found.plans[0].price.seconds == min(price.seconds for price in prices)
    assert found.timed < len(prices) / 2


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_in_flight_is_no_more_than_the_schedule_has(name: str) -> None:
    # Forward passes less backward passes of a stage, counted in the schedule itself.
    for p, m, v in ((2, 4, 2), (4, 8, 3), (4, 16, 2), (4, 24, 4)):
        schedule = make_schedule(name, p, m, v if name == "interleaved" else 1)
        rows = np.array([p]), np.array([v if name == "interleaved" else 1]), np.array([m])
        for stage in (0, p - 1):
            counted = in_flight(SCHEDULES.index(name), *rows, stage)[0]
            flying, most = [0] * len(counted), []
            for slot in schedule.orders[stage]:
                for phase, chunk, _ in slot:
                    flying[chunk] += (phase == "F") - (phase in "BW")
                most.append(tuple(flying))
            assert any(all(a >= b for a, b in zip(seen, counted, strict=True)) for seen in most)


@pytest.mark.parametrize("name", ["interleaved", "zb-v", "dualpipe", "dualpipev"])
def test_no_more_runs_go_back_through_a_chunk_than_the_schedule_has(name: str) -> None:
    # Backward passes after which the stage goes back through another chunk, or that are its last.
    for p, m, v in ((2, 4, 2), (4, 8, 3), (4, 16, 2), (8, 24, 4), (8, 16, 2)):
        row = [1] * len(COLUMNS)
        row[SCHEDULE], row[PP], row[M] = SCHEDULES.index(name), p, m
        stage, count = reductions(tuple(row))
        order = PIPELINE_SCHEDULES[name](p, m, v)[stage]
        ends = Counter(
            part.chunk for part, edge in edges_of(order, True).items() if edge != "first"
        )
        lines = 2 if name == "dualpipe" else 1
        assert all(found >= count / lines for found in ends.values())


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("p", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("v", [1, 2, 4])
def test_what_a_stage_does_before_its_first_pass_of_a_chunk_is_counted(
    name: str, p: int, v: int
) -> None:
    """Forward passes before it, and none back; and as many back after the last where these are whole."""
    for m in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):
        try:
            orders = orders_of(name, p, m, v)
        except LayoutError:
            continue
        if (v > 1) != (name == "interleaved"):
            continue
        lines = 2 if name == "dualpipe" else 1
        counts = before_first(SCHEDULES.index(name), p, v, m // lines)
        for stage, order in enumerate(orders):
            parts = [part for slot in order for part in slot]
            for chunk in range(counts.shape[1]):
                first = next(at for at, part in enumerate(parts) if part[:2] == ("F", chunk))
                assert not any(part[0] != "F" for part in parts[:first])
                last = max(
                    at for at, part in enumerate(parts) if part[0] in "BW" and part[1] == chunk
                )
                after = parts[last + 1 :]
                for other in {*range(counts.shape[1])} - {chunk}:
                    done = sum(part[1] == other for part in parts[:first])
                    assert done == counts[stage, chunk, other]
                    if SCHEDULES.index(name) in WHOLE:
                        left = sum(part[:2] == ("B", other) for part in after)
                        assert left == counts[stage, chunk, other]
                if SCHEDULES.index(name) in WHOLE:
                    assert not any(part[0] == "F" for part in after)


def test_rows_are_layouts_that_can_be_run_and_each_is_there_once() -> None:
    space, _ = small_space(SMALL[0])
    assert len({tuple(row) for row in space.rows.tolist()}) == len(space.rows)
    for row in space.rows.tolist():
        layout = layout_of(space.scenario, row)
        parallel = layout.parallel
        assert parallel.world == space.scenario.devices
        assert row[M] * row[PP] * row[VP] > 0
        assert row_of(layout) == tuple(row)
        make_schedule(parallel.schedule, parallel.pp, row[M], parallel.vp)


def test_held_axes_stay_as_they_are() -> None:
    space, _ = small_space(SMALL[0])
    only = make_space(space.scenario, space.choices, {"tp": 2, "recompute": "full"})
    assert 0 < len(only.rows) < len(space.rows)
    assert set(only.rows[:, COLUMNS.index("tp")].tolist()) == {2}
    assert set(only.rows[:, COLUMNS.index("recompute")].tolist()) == {2}


def test_an_empty_space_says_what_emptied_it() -> None:
    space, _ = small_space(SMALL[0])
    odd = replace(space.scenario, training=replace(space.scenario.training, global_batch=7))
    held = make_space(odd, replace(ALL, tensor=False, schedules=()))
    with pytest.raises(InfeasibleError, match="global batch that is a multiple of 8"):
        search(held)
    node = space.scenario.pools[0].node
    tiny = replace(node, device=replace(node.device, memory_bytes=1e9))
    small = replace(space.scenario, pools=(replace(space.scenario.pools[0], node=tiny),))
    with pytest.raises(InfeasibleError, match=r"the least that one needs is .* GiB"):
        search(make_space(small, ALL))


def test_every_stack_has_a_row_of_what_it_runs() -> None:
    scenario: Scenario = small_space(SMALL[0])[0].scenario
    pool = scenario.pools[0]
    for name, expected in (("deepseek", "dualpipe"), ("primus", "zb-v"), ("llama3", "gpipe")):
        chosen = choices_of(replace(scenario, pools=(replace(pool, stack=load_stack(name)),)))
        assert expected in chosen.schedules
    assert choices_of(scenario, everything=True).schedules == SCHEDULES
    assert divisors(12) == [1, 2, 3, 4, 6, 12]


def test_a_search_that_ends_early_says_what_that_may_cost() -> None:
    """After two exact steps: the proved winner lies within what is said to be left."""
    space, _ = small_space(SMALL[0])
    proved, early = search(space, kinds=1), search(space, kinds=1, most=2)
    assert proved.left == 0.0
    assert proved.timed > early.timed == 2
    best, found = proved.plans[0].price.seconds, early.plans[0].price.seconds
    assert found * (1 - early.left) <= best <= found


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["llama3-70b", "deepseek-v3", "mixtral-8x7b"])
def test_memory_of_many_layouts_is_that_of_each_alone_to_the_last_bit(name: str) -> None:
    """Layouts drawn from a whole space, with all schedules and ZeRO stages, on several stacks."""
    rng = random.Random(name)
    for stack in ("megatron-core", "torchtitan", "deepspeed", "deepseek"):
        scenario = make_scenario(
            model=shrunk(name, 9), pools=(Pool("", load_node("h100-8"), 4, load_stack(stack)),),
            training=Training(4096, 96, 1),
        )  # fmt: skip
        rows = make_space(scenario, choices_of(scenario, everything=True)).rows.tolist()
        peaks = ManyPeaks(scenario.pools[0])
        for row in rng.sample(rows, 50):
            case = layout_of(scenario, row)
            assert peaks.of(case) == [peak.total for peak in stage_peaks(case)], case.parallel
