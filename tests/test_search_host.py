"""Layouts of which something leaves for the host: the search against exhaustive search, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_search import SMALL, small_space

import ersatz
from ersatz.device_models.catalog.reading import load_stack
from ersatz.sim.answers.cases import load
from ersatz.sim.answers.plan import plan
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.exporting.formats import export_scenario
from ersatz.sim.plan.memory.verdict import judge, room_for_sure
from ersatz.sim.search.best import search
from ersatz.sim.search.choices import RECOMPUTE
from ersatz.sim.search.host.away import (
    WAYS,
    keys_of,
    lesser,
    put_away,
    suits,
    ways_of,
    words_of_way,
)
from ersatz.sim.search.host.second import Second, in_way
from ersatz.sim.search.least.bounds import Bounds
from ersatz.sim.search.least.spared import Closer, Lighter
from ersatz.sim.search.pricing import price_layout
from ersatz.sim.search.space import COLUMNS, HOST, PP, RECOMP, SCHEDULE, SCHEDULES, ZERO, Space

PARTS = ("optimizer", "weights", "activations")


def tighter(case: tuple, every: int = 7, share: float = 0.03) -> Space:  # type: ignore[type-arg]
    """Some layouts of a small space on devices that suit few of them; of all tensors may leave."""
    space, free = small_space(case)
    rows = space.rows[::every]
    peaks = sorted(free[tuple(row)].peak_bytes for row in rows.tolist())
    pool = space.scenario.pools[0]
    room = room_for_sure(peaks[int(share * len(peaks))])
    device = replace(pool.node.device, memory_bytes=room)
    pool = replace(pool, node=replace(pool.node, device=device))
    parts = ("swapped",) if pool.stack.name == "mindspeed" else PARTS
    choices = replace(space.choices, away=ways_of(parts, pool.stack))
    scenario = replace(space.scenario, pools=(pool,))
    return Space(scenario, choices, space.held, rows)


@pytest.mark.heavy
@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"{case[0]}-{case[2]}")
def test_the_winner_with_offload_is_that_of_exhaustive_search(case: tuple) -> None:  # type: ignore[type-arg]
    """Every layout in every way that suits it is worked out; so are the claims that spare most of that."""
    space = tighter(case)
    bounds = Bounds(space.scenario)
    second = Second(space, bounds, Closer(bounds), 1.0)
    capacity = space.scenario.pools[0].node.device.memory_bytes
    exact, seconds = {}, bounds.seconds(space.rows)
    for row, bound in zip(map(tuple, space.rows.tolist()), seconds.tolist(), strict=True):
        ways = [w for w in space.choices.away if suits(w, row[ZERO], RECOMPUTE[row[RECOMP]])]
        for one in [row, *(in_way(row, way) for way in ways)]:
            price = exact[one] = price_layout(space.scenario, one, "does not fit")
            if one[HOST]:
                told = dict(zip(COLUMNS, one, strict=True))
                assert second.seconds(one, bound) <= price.seconds, told
                some = np.array([one])
                assert second._other(one[HOST]).bytes(some)[0] <= price.peak_bytes, told
    lighter = Lighter(space.scenario)
    for row, price in exact.items():
        for other in lighter.of(row):
            if other in exact:
                assert exact[other].seconds <= price.seconds, (other, row)
    fitting = {row: one.seconds for row, one in exact.items()
               if judge(one.peak_bytes, capacity)[0] == "fits"}  # fmt: skip
    best = min(fitting.values())
    found = search(space, kinds=1)
    assert found.plans[0].price.seconds == best
    here = min((s for row, s in fitting.items() if not row[HOST]), default=float("inf"))
    assert best <= here
    alone = replace(space, choices=replace(space.choices, away=()))
    if here < float("inf"):
        assert search(alone, kinds=1).plans[0].price.seconds == here


@pytest.mark.parametrize("first", ["1f1b", "dualpipe"])
def test_weights_from_the_host_are_those_of_the_schedule(first: str) -> None:
    """DualPipe spreads a stage's weights over the ranks of both ways: each brings half as much."""
    schedules = (first, "dualpipe" if first == "1f1b" else "1f1b")
    space = tighter(("llama3-8b", 8, "megatron-core", "h100-8", 1, 16, schedules, (3,)), every=1)
    bounds = Bounds(space.scenario)
    second, way = Second(space, bounds, Closer(bounds), 1.0), WAYS.index(("weights", "none"))
    order = [SCHEDULES.index(name) for name in schedules]
    rows = [tuple(row) for row in space.rows.tolist() if row[PP] > 1]
    rows = sorted(rows, key=lambda row: (order.index(row[SCHEDULE]), row))
    assert len({row[SCHEDULE] for row in rows}) == 2
    some = rows[:: max(len(rows) // 120, 1)]
    seconds = bounds.seconds(np.array(some)).tolist()
    for row, bound in zip(some, seconds, strict=True):
        one = in_way(row, way)
        assert (
            second.seconds(one, bound) <= price_layout(space.scenario, one, "does not fit").seconds
        )


@pytest.mark.heavy
def test_something_on_the_host_wins_in_some_small_spaces_and_in_some_not() -> None:
    ways = [search(tighter(case), kinds=1).plans[0].row[HOST] for case in SMALL]
    assert any(ways)
    assert not all(ways)


def test_ways_are_what_a_stack_has_and_less_leaves_in_lesser_ones() -> None:
    stack = load_stack("megatron-core")
    assert [words_of_way(way) for way in ways_of(["optimizer"], stack)] == ["optimiser on the host"]
    both = ways_of(PARTS, stack)
    assert len(both) == 5  # optimiser or weights with it, activations, and both together
    for way in both:
        assert 0 in lesser(way)
        assert all(set(keys_of(less)) <= set(keys_of(way)) for less in lesser(way))
    assert ways_of(PARTS, load_stack("deepspeed-offload")) == (WAYS.index(("none", "activations")),)
    assert not suits(WAYS.index(("weights", "none")), 2, "none")
    assert not suits(WAYS.index(("none", "checkpoints")), 1, "selective")


def test_a_way_is_what_the_scenarios_keys_do(tmp_path: Path) -> None:
    """The stack of a row's layout is that of a scenario which says the same."""
    path = tmp_path / "case.yaml"
    for way in ways_of(PARTS, load_stack("torchtitan")):
        text: dict[str, object] = {
                "question": "?", "model": "llama3-8b", "cluster": {"node": "h100-8", "nodes": 1},
                "stack": "torchtitan", "training": {"sequence_length": 4096, "global_batch": 16},
                "parallel": {"tp": 1, "zero": 3}}  # fmt: skip
        path.write_text(yaml.safe_dump(text))
        (plain,) = load(path)
        path.write_text(yaml.safe_dump({**text, "memory": keys_of(way)}))
        (said,) = load(path)
        assert put_away(plain, way).pools[0].stack == said.pools[0].stack


CROWDED = """question: How is a model trained that is too large for its devices?
model: llama3-70b
cluster: {node: h100-8, nodes: 1}
training: {sequence_length: 4096, global_batch: 64, micro_batch: 1}
parallel: {tp: 8, schedule: 1f1b}
"""


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    path = tmp_path / "crowded.yaml"
    path.write_text(CROWDED)
    return path


def test_a_model_that_fits_with_the_host_alone_is_planned_with_it_and_what_it_costs(
    crowded: Path, tmp_path: Path
) -> None:
    answer = plan(crowded, keep=["micro_batch", "schedule"])
    best = answer.to_dict()["best"]
    assert best["offload"] == {"optimizer_offload": 1.0}
    told = answer.to_dict()["plans"][0]["offload"]
    # 70.6e9 weights over 8 devices, 30 bytes each at 15 GB/s; the device itself is 100 times as fast
    assert told["more_s"] == pytest.approx(70.6e9 / 8 * 30 / 15e9, rel=0.03)
    held = answer.to_dict()["plans"][0]["memory_bytes"]
    assert told["needs_bytes"] - told["less_bytes"] == pytest.approx(held, rel=1e-6)
    assert told["needs_bytes"] > 80 * 2**30
    words = " ".join(str(answer).split())
    assert "optimiser on the host" in words
    assert "it updates weights at 15 GB/s per device, it has the memory" in words
    files = answer.files()
    assert "--optimizer-cpu-offload" in files["plan-01.txt"]
    assert "--use-precision-aware-optimizer" in files["plan-01.txt"]
    again = tmp_path / "again.yaml"
    again.write_text(files["plan-01.yaml"])
    (result,) = ersatz.run(again).values()
    assert result.step.duration_s == best["result"]["step"]["duration_s"]
    open_ = yaml.safe_load(CROWDED)
    del open_["parallel"]
    crowded.write_text(yaml.safe_dump(open_))
    (case,) = load(crowded)
    assert "optimiser on the host" in case.assumptions[0]
    assert case.pools[0].stack.optimizer_offload == 1.0


def test_what_a_scenario_says_of_the_host_is_not_overruled(crowded: Path) -> None:
    with pytest.raises(InfeasibleError, match=r"none of .* layouts fits"):
        plan(crowded, {"memory.optimizer_offload": 0})
    some = plan(crowded, {"memory.optimizer_offload": 0.9}, keep=["tp", "schedule", "micro_batch"])
    assert some.to_dict()["best"]["offload"] == {}
    assert "optimizer_offload: 0.9" in some.files()["plan-01.yaml"]
    with pytest.raises(InfeasibleError, match=r"least that one needs is .*optimiser on the host"):
        plan(crowded, {"model": "llama3-405b"})


def test_exports_say_what_is_on_the_host_or_that_they_cannot(tmp_path: Path) -> None:
    path = tmp_path / "away.yaml"
    text = {"question": "?", "model": "llama3-8b", "cluster": {"node": "h100-8", "nodes": 1},
            "stack": "torchtitan", "training": {"sequence_length": 4096, "global_batch": 16},
            "parallel": {"tp": 1, "zero": 3}}  # fmt: skip
    for keys, said in (
        ({"optimizer_offload": 1, "weights_offload": 1}, True),
        ({"optimizer_offload": 1}, False),
    ):
        path.write_text(yaml.safe_dump({**text, "memory": keys}))
        (case,) = load(path)
        titan, model = (export_scenario(case, to) for to in ("torchtitan", "automodel"))
        assert ("enable_cpu_offload = true" in titan.text) is said
        assert any("memory.optimizer_offload 1" in words for words in titan.unsaid) is not said
        assert any("memory.optimizer_offload 1" in words for words in model.unsaid)
        assert '"offload_optimizer"' in export_scenario(case, "deepspeed").text
