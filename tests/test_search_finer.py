"""Uneven stages and places of ranks: known answers, what is held, and what a plan says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_node, make_scale_out, make_scenario, make_stack
from test_quick_step import shrunk

import ersatz
from ersatz.device_models.catalog.reading import load_node, load_stack
from ersatz.sim.answers.plan import plan
from ersatz.sim.plan.memory.verdict import room_for_sure
from ersatz.sim.scenario.scenario import FabricSpec, Parallel, Pool, Scenario, Training
from ersatz.sim.search.finer.chosen import Exactly
from ersatz.sim.search.finer.places import best_place, place_keys
from ersatz.sim.search.finer.stages import moved, split_now
from ersatz.sim.search.least.bounds import Bounds
from ersatz.sim.search.space import row_of
from ersatz.sim.step.step import step_seconds


def two_stages(layers: int, batch: int = 32) -> Scenario:
    """A model in two stages whose head weighs as much as two and a half of its layers."""
    return make_scenario(
        model=shrunk("llama3-8b", layers), training=Training(2048, batch, 1),
        pools=(Pool("", load_node("h100-8"), 1, load_stack("megatron-core")),),
        parallel=Parallel(tp=4, pp=2, dp=1, zero=0),
    )  # fmt: skip


@pytest.mark.parametrize("layers", [8, 12, 17])
def test_layers_move_to_the_split_that_is_the_best_of_all(layers: int) -> None:
    """Two stages have one split for each number of layers on the first: all are worked out."""
    scenario, exact = two_stages(layers), Exactly("fits")
    price = exact(scenario)
    assert price is not None
    found, better = moved(scenario, row_of(scenario), Bounds(scenario), price, exact)
    every = {
        first: step_seconds(replace(scenario, parallel=replace(
            scenario.parallel, chunk_layers=(first, layers - first))))
        for first in range(1, layers)
    }  # fmt: skip
    assert better.seconds == min(every.values()) == every[split_now(found)[0]]
    assert step_seconds(found) == better.seconds <= price.seconds
    if layers < 17:  # which do not divide, so that they are dealt out by load already
        first, last = found.parallel.chunk_layers
        assert first - last in (2, 3)  # the head is 2.4 layers' work
        assert better.seconds < price.seconds
    assert exact.count < 20


def test_a_split_that_does_not_fit_is_not_taken() -> None:
    scenario = two_stages(12)
    exact = Exactly("fits")
    price = exact(scenario)
    assert price is not None
    fuller = replace(scenario, parallel=replace(scenario.parallel, chunk_layers=(7, 5)))
    more = exact(fuller)
    assert more is not None
    assert more.peak_bytes > price.peak_bytes
    pool = scenario.pools[0]
    room = room_for_sure((price.peak_bytes + more.peak_bytes) / 2)
    device = replace(pool.node.device, memory_bytes=room)
    crowded = replace(scenario, pools=(replace(pool, node=replace(pool.node, device=device)),))
    assert exact(fuller) is not None
    found, same = moved(crowded, row_of(crowded), Bounds(crowded), price, exact)
    assert found.parallel.chunk_layers == ()
    assert same == price


def across(sequence: int, batch: int, **network: float) -> Scenario:
    """Two stages of eight replicas on two nodes: in the usual order each stage has a node of its own."""
    node = make_node(scale_out=make_scale_out(nic_bandwidth=1e9, leaf_nodes=1, tiers=2, **network))
    stack = make_stack(overlap_p2p=False, overlap_grad_reduce=False, overlap_param_gather=False)
    return make_scenario(
        model=shrunk("llama3-8b", 4), training=Training(sequence, batch, 1),
        pools=(Pool("", node, 2, stack),),
        parallel=Parallel(tp=1, pp=2, dp=8, zero=1, schedule="1f1b"),
    )  # fmt: skip


def test_ranks_are_dealt_over_nodes_where_messages_weigh_more_than_gradients() -> None:
    """In the usual order messages between stages cross the network; dealt out, gradients do."""
    many, few = across(8192, 8 * 64), across(512, 8)
    for scenario, keys in ((many, {"rank_order": "dealt"}), (few, {})):
        exact = Exactly("tight")
        price = exact(scenario)
        assert price is not None
        found, better = best_place(scenario, price, exact)
        dealt = replace(scenario, fabric=FabricSpec(rank_order="dealt"))
        assert better.seconds == min(price.seconds, step_seconds(dealt))
        assert place_keys(found, scenario.fabric) == keys


def test_a_place_that_a_scenario_gives_stays() -> None:
    scenario = across(8192, 8 * 64)
    exact = Exactly("tight")
    price = exact(scenario)
    assert price is not None
    found, same = best_place(scenario, price, exact, frozenset({"rank_order", "placement"}))
    assert found == scenario
    assert same == price
    own = replace(scenario, fabric=FabricSpec(positions=(1, 0), size=4))
    assert best_place(own, price, exact, frozenset({"placement"}))[0].fabric.positions == (1, 0)  # type: ignore[union-attr]


UNEVEN = """question: How is a model with a heavy head trained?
model: llama3-8b
cluster: {node: h100-8, nodes: 1}
training: {sequence_length: 4096, global_batch: 64, micro_batch: 1}
parallel: {pp: 4, tp: 2, cp: 1, schedule: 1f1b}
"""


def test_a_plan_says_which_split_it_took_and_its_file_and_flags_have_it(tmp_path: Path) -> None:
    path = tmp_path / "uneven.yaml"
    path.write_text(UNEVEN)
    keep = ["pp", "tp", "cp", "micro_batch", "schedule"]
    answer = plan(path, keep=keep)
    (first, *_) = answer.to_dict()["plans"]
    layers = first["parallel"]["chunk_layers"]
    assert sum(layers) == 32
    assert layers[-1] == min(layers)
    assert first["step_s"] < first["as_found_s"]
    assert "moved    layers" in str(answer)
    assert "not proved" in " ".join(str(answer).split())
    again = tmp_path / "again.yaml"
    again.write_text(answer.files()["plan-01.yaml"])
    (result,) = ersatz.run(again).values()
    assert result.step.duration_s == first["step_s"]
    assert "--pipeline-model-parallel-layout" in answer.files()["plan-01.txt"]
    even = plan(path, ["stack=llama3"], keep=keep)  # which is not known to run such stages
    assert "chunk_layers" not in even.to_dict()["plans"][0]["parallel"]
