"""What must hold of any plan, whatever its figures: sums, bounds, and which way a change may go.

Each law is a function from a plan to what it violates (an empty text where it holds), with its reason in
the first line of its docstring. `LAWS` are checked on drawn plans; `check_purchases` on drawn purchases.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.text.problems import InputError
from ersatz.sim.errors import InfeasibleError

from . import trained  # noqa: F401  (laws of its own)
from .lawbook import EXACT, LAWS, NOISE, SAME, differs, first_of, law, rises
from .plans import Plan, drawn_plans, scenario_of
from .purchases import check_purchases

BUCKET_BYTES = (
    2e9  # of gradients that ZeRO 2 reduces at a time: 500 M of 4 bytes, DeepSpeed's usual
)
BESIDE = "contention"  # what collectives take from the work beside them
DRAWS = 400  # of a job that fails now and then: one early failure must not decide


# -- one result ------------------------------------------------------------------------------------------


@law
def the_breakdown_adds_up(plan: Plan) -> str:
    """Every second of the step is explained once, on each stage and on their mean."""
    step = plan.result.step
    found = [differs(f"stage {i}", sum(parts.values()), step.duration_s)
             for i, parts in enumerate(step.by_stage)]  # fmt: skip
    negative = [
        f"{key} is {s} s"
        for parts in step.by_stage
        for key, s in parts.items()
        if s < -EXACT * step.duration_s
    ]
    return first_of(
        differs("mean", sum(step.breakdown.values()), step.duration_s), *found, *negative
    )


@law
def the_interval_holds_the_value(plan: Plan) -> str:
    """An interval that does not hold its own middle says nothing."""
    step = plan.result.step
    inside = 0 < step.low80_s <= step.duration_s <= step.high80_s < math.inf
    return "" if inside else f"{step.duration_s} is not between {step.low80_s} and {step.high80_s}"


@law
def utilisation_is_bounded(plan: Plan) -> str:
    """What counts as the model's work is done (MFU <= HFU), and no device does more than its peak."""
    step = plan.result.step
    mfu = step.model_flop / (step.duration_s * step.peak_flop_per_s)
    ordered = 0 < step.mfu <= step.hfu * (
        1 + SAME
    ) <= 1 + 2 * SAME and step.mfu <= step.mfu_noncausal * (1 + SAME)
    return first_of(
        differs("MFU", step.mfu, mfu),
        "" if ordered else f"MFU {step.mfu}, full square {step.mfu_noncausal}, HFU {step.hfu}",
    )


@law
def tokens_per_second_are_tokens_over_time(plan: Plan) -> str:
    """A rate is a count over a time, and the count is batch x sequence."""
    step, training = plan.result.step, plan.scenario.training
    tokens = training.global_batch * training.sequence_length
    rate = tokens / step.duration_s / step.devices
    return first_of(
        differs("tokens", step.tokens, tokens),
        differs("rate", step.tokens_per_s_per_device, rate),
    )


@law
def memory_adds_up(plan: Plan) -> str:
    """The fullest rank's parts are its peak, the peak is that of the fullest stage, and decides."""
    memory = plan.result.memory
    verdict = memory.fits == (memory.peak_bytes <= memory.capacity_bytes)
    return first_of(
        differs("parts", sum(memory.parts.values()), memory.peak_bytes),
        differs("fullest stage", max(memory.by_stage), memory.peak_bytes),
        "" if verdict else f"fits is {memory.fits}",
        *(f"{k} is {v}" for k, v in memory.parts.items() if v < 0),
    )


@law
def the_wall_time_adds_up(plan: Plan) -> str:
    """A job is productive or loses time to a named cause; goodput is the productive share."""
    job = plan.result.job
    if job is None:
        return ""
    whole = job.productive_s + sum(job.lost_s.values())
    bounded = 0 < job.goodput <= 1 + EXACT and all(
        s >= -EXACT * job.wall_s for s in job.lost_s.values()
    )
    return first_of(
        differs("wall", whole, job.wall_s, 1e-6),
        "" if bounded else f"goodput {job.goodput}, {dict(job.lost_s)}",
        differs("goodput", job.goodput, job.productive_s / job.wall_s, 1e-6),
    )


@law
def money_and_energy_add_up(plan: Plan) -> str:
    """Totals are the sums of their parts, and unit prices are totals over counts."""
    result, tokens = plan.result, plan.scenario.training.tokens
    if result.cost is None or result.energy is None or result.job is None:
        return ""
    cost, energy = result.cost, result.energy
    return first_of(
        differs("cost", sum(cost.parts.values()), cost.total, 1e-6),
        differs("per token", cost.per_trillion_tokens, cost.total / tokens * 1e12, 1e-6),
        differs("per hour", cost.per_device_hour, cost.total / result.job.device_hours, 1e-6),
        differs("energy", sum(energy.parts_kwh.values()), energy.kwh, 1e-6),
    )  # fmt: skip


@law
def the_same_again_is_the_same(plan: Plan) -> str:
    """Nothing but the scenario decides."""
    again = Plan(plan.data, plan.scenario).result
    return "" if again == plan.result else "a second run differs"


# -- better machines ---------------------------------------------------------------------------------------


def _not_slower(plan: Plan, make: Callable[[Node], Node], what: str) -> str:
    before = plan.result.step.duration_s * _reordered(plan)
    return rises(what, before, plan.on(make).result.step.duration_s)


def _reordered(plan: Plan) -> float:
    """By how much a step may move as pairs of passes are put in another order, as their times suggest.

    DualPipe runs a forward and a backward pass of experts side by side; whose piece comes first follows from
    how long each takes, so that a faster one may well make a worse pair.
    """
    paired = plan.scenario.parallel.schedule in ("dualpipe", "dualpipev")
    return 1.02 if paired and plan.scenario.model.experts else 1.0


def _taken(before: Plan, after: Plan) -> float:
    """Return by how many seconds collectives take more of the work beside them, on all stages together.

    A library opens channels in proportion to what feeds a ring, and each holds a part of the device.
    """
    stages = zip(before.result.step.by_stage, after.result.step.by_stage, strict=True)
    return sum(max(b.get(BESIDE, 0.0) - a.get(BESIDE, 0.0), 0.0) for a, b in stages)


@law
def more_bandwidth_is_not_slower(plan: Plan) -> str:
    """A link that carries twice as much can still carry the same, but for the channels that it feeds."""

    def links(node: Node) -> Node:
        return replace(
            node, scale_up=replace(node.scale_up, link_bandwidth=2 * node.scale_up.link_bandwidth)
        )

    def cards(node: Node) -> Node:
        return replace(
            node, scale_out=replace(node.scale_out, nic_bandwidth=2 * node.scale_out.nic_bandwidth)
        )

    before = plan.result.step.duration_s * _reordered(plan)
    return first_of(*(
        rises(f"step with faster {name}", before + _taken(plan, faster), faster.result.step.duration_s)
        for name, faster in (("links", plan.on(links)), ("cards", plan.on(cards)))
    ))  # fmt: skip


@law
def less_latency_is_not_slower(plan: Plan) -> str:
    """A message that starts earlier does not end later."""

    def make(node: Node) -> Node:
        return replace(
            node, scale_up=replace(node.scale_up, latency_s=node.scale_up.latency_s / 2,
                                   bulk_latency_s=node.scale_up.bulk_latency_s / 2),
            scale_out=replace(node.scale_out, latency_s=node.scale_out.latency_s / 2))  # fmt: skip

    return _not_slower(plan, make, "step with half the latency")


@law
def a_faster_device_is_not_slower(plan: Plan) -> str:
    """Kernels that take less time each do not take more together."""

    def compute(node: Node) -> Node:
        d = node.device
        faster = {key: 1.5 * value for key, value in d.matrix_peak.items()}
        vector = {key: 1.5 * value for key, value in d.vector_peak.items()}
        return replace(
            node,
            device=replace(d, matrix_peak=faster, vector_peak=vector, clock_hz=1.5 * d.clock_hz),
        )

    def memory(node: Node) -> Node:
        return replace(
            node, device=replace(node.device, memory_bandwidth=1.5 * node.device.memory_bandwidth)
        )

    return first_of(_not_slower(plan, compute, "step with a faster clock"),
                  _not_slower(plan, memory, "step with faster memory"))  # fmt: skip


@law
def a_worse_network_is_not_faster(plan: Plan) -> str:
    """Oversubscription, foreign traffic and a broken uplink take something away."""

    def thin(node: Node) -> Node:
        return replace(
            node,
            scale_out=replace(node.scale_out, oversubscription=3 * node.scale_out.oversubscription),
        )

    base = plan.changed("fabric", to={"routing": "spread"})
    busy = base.changed("fabric", "background", to=0.5)
    return first_of(
        rises(
            "step, from oversubscribed",
            plan.on(thin).result.step.duration_s,
            plan.result.step.duration_s,
        ),
        rises("step, from busy", busy.result.step.duration_s, base.result.step.duration_s),
    )


@law
def slow_devices_slow_the_step_by_their_own_slowdown_at_most(plan: Plan) -> str:
    """A step waits for its slowest device, and no longer than that device takes more."""
    none = plan.changed("stragglers", to={})
    one = plan.changed("stragglers", to={"ranks": {0: "30 %"}}).result.step.duration_s
    before = none.result.step.duration_s
    return first_of(rises("step without stragglers", one, before), rises("step", before * 1.3, one))


# -- more work ----------------------------------------------------------------------------------------------


def _duration(plan: Plan) -> float:
    return plan.result.step.duration_s


def _stalls(plan: Plan) -> float:
    """By how much a longer schedule may wait more: zb-v's order is made for chunks of equal time."""
    return 1.01 if plan.scenario.parallel.schedule == "zb-v" else 1.0


@law
def more_work_takes_more_time(plan: Plan) -> str:
    """Twice the layers, sequence or batch are not done sooner; twice the batch takes at most twice."""
    training, before = plan.scenario.training, _duration(plan)
    batch = _duration(plan.changed("training", "global_batch", to=2 * training.global_batch))
    longer = _duration(plan.changed("training", "sequence_length", to=2 * training.sequence_length))
    deeper = _duration(plan.changed("model", "layers", to=2 * plan.scenario.model.layers))
    return first_of(
        rises("step, from twice the batch", batch, before),
        rises("step per batch", 2 * before * _stalls(plan), batch),
        rises("step, from twice the sequence", longer, before),
        rises("step, from twice the layers", deeper, before),
    )


@law
def a_larger_model_needs_more_memory(plan: Plan) -> str:
    """Twice the layers, the sequence or the micro-batch need no less."""
    training, peak = plan.scenario.training, plan.result.memory.peak_bytes
    batch = plan.changed("training", "global_batch", to=2 * training.global_batch)
    changes = {
        "layers": plan.changed("model", "layers", to=2 * plan.scenario.model.layers),
        "sequence": plan.changed("training", "sequence_length", to=2 * training.sequence_length),
        "micro-batch": batch.changed("training", "micro_batch", to=2 * training.micro_batch),
    }
    return first_of(
        *(
            rises(f"memory, from twice the {name}", changed.result.memory.peak_bytes, peak)
            for name, changed in changes.items()
        )
    )


@law
def recomputation_saves_memory_and_costs_time(plan: Plan) -> str:
    """What is computed again need not be kept: memory none >= selective >= full, time the other way."""
    found = [
        plan.changed("parallel", "recompute", to=kind).result
        for kind in ("none", "selective", "full")
    ]
    memory = [r.memory.peak_bytes for r in found]
    seconds = [r.step.duration_s for r in found]
    most = _reordered(plan)
    return first_of(rises("memory none to selective", memory[0], memory[1]),
                  rises("memory selective to full", memory[1], memory[2]),
                  rises("time selective to none", seconds[1] * most, seconds[0]),
                  rises("time full to selective", seconds[2] * most, seconds[1]))  # fmt: skip


@law
def sharding_saves_memory(plan: Plan) -> str:
    """Each ZeRO stage shards more, but for the buffers of its exchange; with one replica all are alike.

    Stage 2 may need a bucket of gradients, stage 3 the gathered weights of the layers at work. Experts
    have replicas of their own: tensor ranks that hold the same experts are some.
    """
    stages = (0, 1, 2, 3)
    memory = [plan.changed("parallel", "zero", to=stage).result.memory for stage in stages]
    peaks = [result.peak_bytes for result in memory]
    if _has_no_replicas(plan):
        return first_of(
            *(differs(f"memory, zero {s} against 0", peaks[s], peaks[0]) for s in stages)
        )
    buffers = (0.0, 0.0, BUCKET_BYTES, memory[3].parts.get("gathered weights", 0.0))
    return first_of(
        *(
            rises(f"memory zero {s - 1} to {s}", peaks[s - 1] + buffers[s], peaks[s])
            for s in stages[1:]
        )
    )


def _has_no_replicas(plan: Plan) -> bool:
    """Tell whether nothing at all is held twice, but for tensor-parallel ranks of dense layers."""
    parallel = plan.scenario.parallel
    spread = parallel.ep * parallel.etp if plan.scenario.model.experts else parallel.tp
    twins = parallel.schedule == "dualpipe"  # whose ranks hold two stages, each twice in the job
    return parallel.dp * parallel.cp == 1 and spread == parallel.tp and not twins


@law
def twice_the_devices_are_at_most_twice_as_fast(plan: Plan) -> str:
    """Replicas share a batch: each still does its part, and they also have to agree."""
    parallel, training = plan.scenario.parallel, plan.scenario.training
    count = training.global_batch // (training.micro_batch * parallel.dp)
    if count % 2:
        return ""
    data: dict[str, Any] = {
        **plan.data,
        "cluster": {**plan.data["cluster"], "nodes": 2 * plan.data["cluster"]["nodes"]},
        "parallel": {**plan.data["parallel"], "dp": 2 * parallel.dp},
    }
    doubled = Plan(data, scenario_of(data))
    most = 2 * _duration(doubled) * _stalls(plan)
    return rises("step over half of the devices", most, _duration(plan))


# -- the job ------------------------------------------------------------------------------------------------


@law
def twice_the_tokens_take_twice_the_time_and_money(plan: Plan) -> str:
    """A job is its steps, one after the other."""
    if plan.result.job is None or plan.result.cost is None:
        return ""
    calm = plan.changed("job", "failures", "scale", to=0)
    tokens = plan.scenario.training.tokens
    doubled = calm.changed("training", "tokens", to=f"{2 * tokens / 1e9:.12g} B tokens")
    one, two = calm.result, doubled.result
    assert one.job
    assert two.job
    assert one.cost
    assert two.cost
    several = one.job.steps > 50  # a part of a checkpoint interval weighs less then
    tolerance = 2 / one.job.steps + (NOISE if several else 0.5)
    return first_of(differs("wall", two.job.wall_s / one.job.wall_s, 2.0, tolerance),
                  differs("cost", two.cost.total / one.cost.total, 2.0, tolerance))  # fmt: skip


@law
def failures_cost_time(plan: Plan) -> str:
    """A machine that breaks more often does not finish earlier."""
    if plan.result.job is None:
        return ""
    walls = []
    for scale in (0, 1, 50):
        many = plan.changed("job", "replicas", to=DRAWS)
        job = many.changed("job", "failures", "scale", to=scale).result.job
        assert job
        walls.append(job.wall_s)
    return first_of(
        rises("wall, from failures", walls[1], walls[0], SAME),
        rises("wall, from more failures", walls[2], walls[1], NOISE),
    )


@law
def prices_pass_through(plan: Plan) -> str:
    """Rent at twice the price costs twice as much, and nothing else changes."""
    if plan.result.cost is None or plan.scenario.cost is None:
        return ""
    low, high = (plan.changed("cost", "rent", to=f"{price} CNY/h").result for price in (10, 20))
    assert low.cost
    assert high.cost
    return first_of(
        differs("cost", high.cost.total, 2 * low.cost.total),
        "" if low.job == high.job else "the job changed",
        "" if low.step == high.step else "the step changed",
    )


# -- checking -----------------------------------------------------------------------------------------------


def violations(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield each law that a plan breaks, with the figures; a change that makes no plan says nothing."""
    for name, check in LAWS.items():
        try:
            if words := check(plan):
                yield name, words
        except (InputError, InfeasibleError):
            continue


def check_plans(count: int, seed: int) -> int:
    """Check the laws on drawn plans, then those of purchases; prints what is broken, returns a status."""
    broken: Counter[str] = Counter()
    last = time.monotonic()
    for number, plan in enumerate(drawn_plans(count, seed)):
        for name, words in violations(plan):
            broken[name] += 1
            if broken[name] <= 3:
                print(f"{name}: {words}\n    {dict(plan.data)}")
        if time.monotonic() - last > 20:
            last = time.monotonic()
            print(f"{number + 1} of {count} plans, {broken.total()} violations", file=sys.stderr)
    for name, words, data in check_purchases(max(count // 20, 2), seed):
        broken[name] += 1
        print(f"{name}: {words}\n    {data}")
    print(f"{count} plans, {len(LAWS)} laws")
    for name, times in broken.most_common():
        print(f"{times:>6}  {name}")
    return 1 if broken else 0
