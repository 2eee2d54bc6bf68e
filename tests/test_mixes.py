"""Searching over mixes: bounds below what is exact, splits as by brute force, the answer's own file."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from factories import make_scenario
from test_quick_step import shrunk

import ersatz
from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import load_node, load_stack
from ersatz.sim.answers.plan import plan
from ersatz.sim.errors import InfeasibleError, InputError
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.scenario.scenario import Joint, Pool, Scenario, Training
from ersatz.sim.search.mix.choice import LOST, MOST_MIXES, _guess, _promising
from ersatz.sim.search.mix.mix import FoundMix, _fitting, search_mix
from ersatz.sim.search.mix.parts import parts_of
from ersatz.sim.search.mix.stages import Pipelines, pipelines, split_by_speed
from ersatz.sim.search.wish import Wish
from ersatz.sim.step.step import step_seconds


@lru_cache(maxsize=2)
def small(name: str, layers: int, batch: int, room: float = 1.0) -> tuple[Scenario, Pipelines]:
    """One node of H800 and one of 910B2 with a few layers of a model, and all pipelines over them."""
    pools = tuple(
        Pool(name, _roomy(load_node(node), room), 1, load_stack(stack))
        for name, node, stack in (
            ("h", "h800-8", "megatron-core"),
            ("a", "ascend-910b2-8", "mindspeed"),
        )
    )
    case = make_scenario(
        model=shrunk(name, layers), pools=pools, training=Training(2048, batch, 1),
        joint=Joint("host", 12.5e9, float("inf"), 1e-4, 20e9),
    )  # fmt: skip
    return case, pipelines(case, parts_of(case))


def _roomy(node: Node, room: float) -> Node:
    """A node whose devices have more memory."""
    return replace(node, device=replace(node.device, memory_bytes=room * node.device.memory_bytes))


@pytest.mark.parametrize(
    ("name", "layers", "batch", "room"), [("llama3-70b", 6, 16, 1.0), ("deepseek-v3", 4, 8, 8.0)]
)
def test_no_pipeline_over_two_pools_is_faster_than_its_bound(
    name: str, layers: int, batch: int, room: float
) -> None:
    _, lines = small(name, layers, batch, room)
    chains = lines.chains[:: max(len(lines.chains) // 30, 1)]
    tried = 0
    for chain in chains:
        assert chain.bound >= lines.least
        case = _fitting(lines, chain, "tight")
        if case is None:
            continue
        seconds = step_seconds(case)
        tried += 1
        assert chain.bound <= seconds, chain
        # nor with other layers: one moved from the fullest stage to its neighbour
        counts = list(case.parallel.chunk_layers)
        full = counts.index(max(counts))
        if counts[full] > 1 and len(counts) > 1:
            counts[full] -= 1
            counts[full - 1 if full else 1] += 1
            own = [replace(one, parallel=replace(one.parallel, chunk_layers=tuple(counts)))
                   for one in case.parallel.pools]  # fmt: skip
            moved = replace(case, parallel=replace(case.parallel, pools=tuple(own),
                                                   chunk_layers=tuple(counts)))  # fmt: skip
            assert chain.bound <= step_seconds(moved), chain
    assert tried > 10


def test_layers_are_dealt_out_as_brute_force_does() -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        layers, stages = int(rng.integers(3, 9)), int(rng.integers(1, 4))
        kinds = sorted(rng.integers(0, 2, layers).tolist())
        seconds = [rng.random(2) + 0.1 for _ in range(stages)]
        first, last = rng.random(2) / 2
        caps = rng.integers(1, layers + 1, stages).tolist()
        best = float("inf")
        for cuts in combinations(range(1, layers), stages - 1):
            ends = [0, *cuts, layers]
            counts = [b - a for a, b in pairwise(ends)]
            if all(n <= cap for n, cap in zip(counts, caps, strict=True)):
                best = min(best, _slowest(kinds, seconds, counts, first, last))
        found = split_by_speed(kinds, seconds, first, last, caps)
        assert (found is None) == (best == float("inf"))
        if found:
            assert sum(found) == layers
            assert all(n <= cap for n, cap in zip(found, caps, strict=True))
            assert _slowest(kinds, seconds, found, first, last) == pytest.approx(best, rel=1e-6)


def _slowest(kinds, seconds, counts, first, last) -> float:  # type: ignore[no-untyped-def]
    loads, at = [], 0
    for stage, count in enumerate(counts):
        loads.append(sum(seconds[stage][kind] for kind in kinds[at : at + count]))
        at += count
    loads[0] += first
    loads[-1] += last
    return max(loads)


@lru_cache(maxsize=1)
def found_mix() -> FoundMix:
    return search_mix(small("llama3-70b", 6, 16)[0])


def test_a_mix_is_bounded_and_fits() -> None:
    found = found_mix()
    assert 0 < found.least_s <= found.best.seconds == min(one.seconds for one in found.plans)
    assert {one.way for one in found.plans} == {"stages", "replicas"}
    for one in found.plans:
        assert plan_memory(one.scenario).verdict == "fits"
        assert one.seconds == step_seconds(one.scenario)
    rates = [1 / one.seconds for one in found.alone]
    assert found.together_s == pytest.approx(1 / sum(rates))


def test_the_search_finds_no_worse_than_layouts_at_random() -> None:
    found, (_, lines) = found_mix(), small("llama3-70b", 6, 16)
    rng = np.random.default_rng(1)
    for place in rng.choice(len(lines.chains), 20, replace=False):
        case = _fitting(lines, lines.chains[int(place)], "fits")
        assert case is None or step_seconds(case) >= found.best.seconds


FILE = """question: Which of these train it best together?
model: llama3-8b
cluster:
  pools: [{name: h, node: h800-8, nodes: 1}, {name: a, node: ascend-910b2-8, nodes: 1}]
training: {sequence_length: 4096, global_batch: 256, tokens: 10 B tokens}
cost: {currency: CNY, rent: {h: 27.5 CNY/h, a: 7 CNY/h}}
job: {replicas: 4}
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> object:
    path = tmp_path_factory.mktemp("mix") / "mix.yaml"
    path.write_text(FILE)
    return plan(path), path.parent


def test_the_answer_stands_first_and_its_files_say_the_same(answer) -> None:  # type: ignore[no-untyped-def]
    told, folder = answer
    text, record = str(told), told.to_dict()
    assert text.startswith("8 x h800 + 8 x ascend-910b2: ")
    assert max(map(len, text.splitlines())) <= 100
    assert "speed against h alone" in text
    assert len(record["options"]) == 3  # both together, and each alone
    best = record["best"]
    assert 0 <= best["search"]["left"] < 1
    assert best["saves"]["against"] == "1 nodes of h"
    for name, written in told.files().items():
        (folder / name).write_text(written)
        (result,) = ersatz.run(folder / name).values()
        if name == "mix-01.yaml":
            assert result.step.duration_s == best["result"]["step"]["duration_s"]
    assert "another of these could be" in told.to_html()


def test_mixes_are_ordered_by_what_the_pools_reach_alone(answer) -> None:  # type: ignore[no-untyped-def]
    # Rates and rents add up: half of the nodes of h cost half as much a day and take twice as long.
    told, _ = answer
    singles = {"h": told["8 x h800"], "a": told["8 x ascend-910b2"]}
    counts = {"h": 4, "a": 8}
    h, a = (singles[name].wall_s for name in ("h", "a"))
    both = 1 / (1 / h / 2 + 1 / a) / LOST
    wish = Wish(objective="time", by_s=both * 1.01)
    assert _guess(singles, {"h": 2, "a": 8}, counts, wish)[:2] == (0.0, pytest.approx(both))
    assert _guess(singles, {"h": 2, "a": 8}, counts, replace(wish, by_s=both * 0.99))[0] == 1.0
    best = _promising(singles, counts, wish)
    assert best[0] == counts  # all of both is the soonest
    assert len({tuple(sorted(one.items())) for one in best}) == len(best) == MOST_MIXES
    cheap = _promising(singles, counts, Wish(objective="money"))
    assert all(len(one) >= 1 for one in cheap)
    assert cheap != best


@pytest.mark.slow
def test_any_number_of_each_is_searched_by_what_the_wish_asks(answer) -> None:  # type: ignore[no-untyped-def]
    _, folder = answer
    (folder / "two.yaml").write_text(FILE.replace("nodes: 1}", "nodes: 2}"))
    cheap = plan(folder / "two.yaml", some=True, objective="money", by=3)
    costs = [one.cost for one in cheap.values()]
    assert costs == sorted(costs)
    assert len(costs) > 2
    assert all(one.wall_s <= 3 * 86_400 for one in cheap.values())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"mix": "h800"}, "expected a node or device and how many nodes"),
        ({"mix": "h800:0"}, "expected a node or device and how many nodes"),
        ({"mix": "h800:1"}, "expected 2 to 4 different devices"),
        ({"mix": "h800:1,h800:2"}, "expected 2 to 4 different devices"),
        ({"mix": "h800:1,nothing:2"}, "is neither a node nor a device"),
        ({"mix": "h800:1,910b2:1", "devices": [8]}, "does not go with a mix"),
        ({"some": True, "on": ["h800"], "devices": [8]}, "needs several pools"),
    ],
)
def test_what_is_no_mix_is_named(keys: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        plan("llama3-8b", **keys)  # type: ignore[arg-type]
    assert words in str(caught.value)


@pytest.mark.slow
def test_a_model_too_large_for_all_pools_is_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="no layout over all pools"):
        plan("llama3-405b", mix="h800:1,910B2:1")


def test_a_pool_named_in_a_scenario_of_its_own_is_still_planned_by_on(tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text(FILE.replace("cost: {currency: CNY, rent: {h: 27.5 CNY/h, a: 7 CNY/h}}\n", ""))
    (best,) = plan(path, on=["h800"], devices=[8]).values()
    assert best.devices == 8


def test_the_story_quotes_the_stored_mix() -> None:
    root = Path(__file__).resolve().parents[1]
    out, story = (
        (root / "scenarios/ling-plus-mix.out").read_text("utf-8"),
        " ".join((root / "docs/story-ant.md").read_text("utf-8").split()),
    )
    row = {line[:22].strip(): line for line in out.splitlines()[:27]}
    step = re.search(r"([\d.]+) s \(-(\d+) %\)", row["step"])
    assert step
    assert f"take a step in {step[1]} s, {step[2]} % sooner than 512 H800 alone" in story
    assert "(+2 %)" in row["per 1e12 tokens"]
    assert row["P(saves 20 %)"].split()[-4:] == ["1", "%", "23", "%"]
    assert "a fifth is saved with 1 % probability" in story
    assert "together save it with 23 %" in story
