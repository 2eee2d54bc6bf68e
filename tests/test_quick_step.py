"""The quick step against the program that it stands for, and how plain its blocks are."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from factories import make_model, make_node, make_scale_up, make_scenario, make_stack

from ersatz.device_models.catalog.reading import load_node, load_stack
from ersatz.device_models.shipped import DATA
from ersatz.sim.plan.orders import PIPELINE_SCHEDULES
from ersatz.sim.plan.schedules import Variant, chunk_places, make_schedule
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario, Training
from ersatz.sim.step.build import build_program
from ersatz.sim.step.folded import folded_times
from ersatz.sim.step.quick.paces import Still
from ersatz.sim.step.quick.rounds import repeated, rounds_of
from ersatz.sim.step.quick.slots import Numbering
from ersatz.sim.step.quick.walk import quick_times
from ersatz.sim.step.step import step_seconds
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.model_file import load_model

STACKS = sorted(path.stem for path in (DATA / "stacks").glob("*.yaml"))
NODES = ("h100-8", "ascend-910b2-8", "mi300x-8")
SCHEDULES = ("1f1b", "gpipe", "interleaved", "zb-h1", "zb-v", "dualpipe")


def shrunk(name: str, layers: int) -> Model:
    """A model of the catalogue with fewer layers, so that a program is small."""
    model = load_model(name)
    experts = model.experts and replace(
        model.experts, dense_layers=min(model.experts.dense_layers, 1)
    )
    return replace(model, layers=layers, experts=experts)


def random_layout(seed: int, model: Model) -> Scenario | None:
    """A random layout on a random machine, or None where its schedule has no such shape."""
    rng = random.Random(seed)
    tp, cp = rng.choice((1, 2, 4, 8)), rng.choice((1, 1, 2))
    pp, dp = rng.choice((1, 2, 4)), rng.choice((1, 2, 4, 8))
    schedule = rng.choice(SCHEDULES)
    vp = rng.choice((1, 2, 3)) if schedule == "interleaved" and pp > 1 else 1
    schedule = "1f1b" if pp == 1 or (schedule == "interleaved" and vp == 1) else schedule
    m = pp * rng.choice((1, 2, 3, 4)) if schedule != "dualpipe" else 2 * pp * rng.choice((1, 2))
    if schedule == "zb-v":
        m *= 2
    if pp * (2 if schedule == "zb-v" else vp) > model.layers:
        return None
    mixed = bool(model.experts)
    ep = rng.choice([e for e in (1, 2, 4, 8) if tp * cp * dp % e == 0]) if mixed else 1
    if ep > 1 and not (ep % (tp * cp) == 0 or tp * cp % ep == 0):
        return None
    zero = rng.randrange(4)
    recompute = rng.choice(("none", "selective", "full"))
    parallel = Parallel(
        tp=tp, cp=cp, pp=pp, dp=dp, vp=vp, ep=ep, schedule=schedule, zero=zero,  # type: ignore[arg-type]
        sequence_parallel=tp > 1 and (mixed or rng.random() < 0.7), recompute=recompute,  # type: ignore[arg-type]
        recompute_layers=rng.choice((0, 0, 1, 2)) if recompute != "none" else 0,
        shard=rng.choice((0, 0, dp // 2)) if zero and dp > 1 else 0,
    )  # fmt: skip
    node, stack = load_node(rng.choice(NODES)), load_stack(rng.choice(STACKS))
    nodes = -(-parallel.world // node.devices)
    mb = rng.choice((1, 2))
    precision = "fp8" if rng.random() < 0.3 and node.device.supports("fp8") else "bf16"
    return make_scenario(
        model=model, pools=(Pool("", node, nodes, stack),), parallel=parallel,
        training=Training(4096, m * mb * dp, mb, precision),  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "layers"), [("llama3-70b", 7), ("deepseek-v3", 6), ("mixtral-8x7b", 5)]
)
def test_the_quick_step_equals_the_program_to_the_last_bit(name: str, layers: int) -> None:
    model, tried = shrunk(name, layers), 0
    for seed in range(40):
        scenario = random_layout(seed, model)
        if scenario is None:
            continue
        tried += 1
        expected = folded_times(build_program(scenario)[0])
        assert quick_times(scenario) == expected, (seed, scenario.parallel)
        assert step_seconds(scenario) == expected[1]
    assert tried > 15


def test_the_quick_step_waits_for_copies_to_the_host_as_the_program_does() -> None:
    """A forward pass whose activations leave holds nothing up itself, but those that come back wait."""
    model, slower = shrunk("llama3-70b", 7), 0
    for seed in range(40):
        scenario = random_layout(seed, model)
        if scenario is None or seed % 3:
            continue
        pool = scenario.pools[0]
        away = replace(pool.stack, activation_offload=0.5, host_bandwidth=20e9)
        leaving = replace(scenario, pools=(replace(pool, stack=away),))
        assert quick_times(leaving) == folded_times(build_program(leaving)[0]), seed
        slower += step_seconds(leaving) > step_seconds(scenario)
    assert slower > 3


@pytest.mark.parametrize("name", PIPELINE_SCHEDULES)
def test_rounds_are_what_a_schedule_has_more_with_each_further_micro_batch(name: str) -> None:
    """The beginning, some rounds and the end are the slots of the whole schedule, stage by stage."""
    for p, v, runs, beyond in (
        (1, 1, False, 3),
        (2, 2, True, 4),
        (4, 3, False, 5),
        (8, 2, True, 7),
    ):
        if (name == "interleaved" and p == 1) or (name == "dualpipe" and p % 2):
            continue
        v = v if name == "interleaved" else 1
        unit = {"interleaved": p, "dualpipe": 2}.get(name, 1)
        few, m = next(
            (found[0], m) for m in range(1, 200)
            if not m % unit and (found := rounds_of(name, p, m, v)) and found[1] == beyond
        )  # fmt: skip
        numbering = Numbering(chunk_places(name, p, v), runs=runs)
        apart = repeated(numbering, name, p, few, v)
        assert apart is not None
        blocks = [block for _, block in numbering.blocks]
        mine: list[list[Variant]] = [[] for _ in range(p)]
        for slots, again in apart:
            for slot in list(slots) * (beyond if again else 1):
                mine[slot.stage].append(blocks[slot.block])
        whole = make_schedule(name, p, m, v, runs=runs)
        assert mine == [[v.block for v in whole.walk if v.stage == stage] for stage in range(p)]


@pytest.mark.parametrize("name", PIPELINE_SCHEDULES)
def test_no_message_of_a_named_schedule_overtakes_another(name: str) -> None:
    """Lanes are first in, first out: every chunk takes its micro-batches in their order, each way."""
    for p in (1, 2, 4, 6, 8):
        for v in (2, 3) if name == "interleaved" else (1,):
            for m in (2 * p, 4 * p, 6 * p):
                if (name == "dualpipe" and p % 2) or (name == "interleaved" and p == 1):
                    continue
                for order in PIPELINE_SCHEDULES[name](p, m, v):
                    seen: dict[tuple[int, bool], list[int]] = {}
                    for part in (part for slot in order for part in slot if part.phase != "W"):
                        seen.setdefault((part.chunk, part.phase == "F"), []).append(part.microbatch)
                    assert all(found == sorted(found) for found in seen.values()), (p, m, v)


@pytest.mark.parametrize(
    ("name", "layers"), [("llama3-70b", 16), ("deepseek-v3", 8), ("mixtral-8x7b", 8)]
)
def test_many_micro_batches_take_what_the_program_does_to_the_last_bit(
    name: str, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds at their pace against every slot walked; most layouts reach a pace before they end."""
    model, tried, skipped = shrunk(name, layers), 0, []
    later = Still.later
    monkeypatch.setattr(
        Still, "later", lambda now, more, count: (skipped.append(count), later(now, more, count))[1]
    )
    for seed in range(30):
        base = random_layout(seed, model)
        if base is None or (base.parallel.pp == 1 and seed % 5):
            continue
        p, rng = base.parallel, random.Random(seed)
        if p.schedule == "1f1b" and rng.random() < 0.3:
            base = replace(base, parallel=replace(p, schedule="gpipe"))
        unit = {"interleaved": p.pp, "dualpipe": 2}.get(base.parallel.schedule, 1)
        m = (3 * p.pp + rng.randrange(8, 60)) // unit * unit
        batch = m * base.training.micro_batch * p.dp
        scenario = replace(base, training=replace(base.training, global_batch=batch))
        tried += 1
        assert quick_times(scenario) == folded_times(build_program(scenario)[0]), (seed, p)
    assert tried > 10
    assert len(skipped) > tried / 3
    assert sum(skipped) > 10 * tried


def test_a_step_of_one_layer_is_worked_out_by_hand() -> None:
    # Two stages of one layer each, 4 micro-batches of 1F1B: every slot of a stage has the same
    # length f or b, nothing is exchanged for free links, so (m + p - 1)(f + b) = 5 (f + b).
    model = make_model(layers=2, vocab=1)
    node = make_node(scale_up=make_scale_up(link_bandwidth=1e30), devices=8)
    pools = (Pool("", node, 1, make_stack()),)
    base = make_scenario(model=model, pools=pools, training=Training(1000, 4, 1),
                         parallel=Parallel(pp=2))  # fmt: skip
    long = replace(base, training=Training(1000, 8, 1))
    body, body_long = quick_times(base)[0], quick_times(long)[0]
    assert body_long / body == pytest.approx(
        9 / 5, rel=2e-3
    )  # the norm before the head is a thousandth


def test_what_is_kept_is_not_taken_for_another_machine() -> None:
    model = shrunk("llama3-70b", 7)
    base = next(found for seed in range(20) if (found := random_layout(seed, model)))
    first = step_seconds(base)
    pool = base.pools[0]
    slower = replace(pool.node, device=replace(pool.node.device, memory_bandwidth=1e11))
    assert step_seconds(replace(base, pools=(replace(pool, node=slower),))) > first
    assert step_seconds(base) == first
