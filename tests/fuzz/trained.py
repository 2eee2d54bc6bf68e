"""Laws of what a training has beside its step: phases, a batch that grows, adapters, what one rank does."""

from __future__ import annotations

from ersatz.sim.emulate.foreign.simulated import simulated_traces

from .lawbook import NOISE, SAME, differs, first_of, law, rises
from .plans import Plan

STALL = 1.01  # by which zb-v may wait more in a longer schedule


@law
def a_phase_cut_in_two_is_the_same_phase(plan: Plan) -> str:
    """Nothing happens between two phases that are alike: at most one more step is begun."""
    if plan.result.job is None:
        return ""
    calm = plan.changed("job", "failures", "scale", to=0)
    halves = calm.changed("training", "phases", to=[{"share": "50 %"}, {"share": "50 %"}])
    one, two = calm.result.job, halves.result.job
    assert one
    assert two
    each = plan.result.step.duration_s
    more = two.steps - one.steps
    return first_of(
        "" if more in (0, 1) else f"{more} more steps",
        differs("productive", two.productive_s, two.steps * each, SAME),
        differs("wall", two.wall_s, one.wall_s, 2 / one.steps + NOISE),
        differs(
            "parts", sum(part.productive_s for part in halves.result.phases), two.productive_s, SAME
        ),
        differs("memory", halves.result.memory.peak_bytes, plan.result.memory.peak_bytes),
    )


@law
def a_batch_that_grows_takes_no_less(plan: Plan) -> str:
    """Half of a batch takes at least half of its step, so the same tokens take no less."""
    training, job = plan.scenario.training, plan.result.job
    half, odd = divmod(training.global_batch, 2)
    if job is None or odd or job.steps < 50:
        return ""
    ramp = {"start": half, "increment": half, "sequences": 8 * half}
    grown = plan.changed("training", "batch_ramp", to=ramp).result.job
    assert grown
    most = grown.productive_s * (STALL if plan.scenario.parallel.schedule == "zb-v" else 1.0)
    return rises("productive, from a growing batch", most, job.productive_s)


@law
def wider_adapters_are_neither_faster_nor_smaller(plan: Plan) -> str:
    """An adapter of twice the rank computes and holds no less; what is frozen stays what it is."""
    found = [plan.changed("model", "lora_rank", to=rank).result for rank in (16, 32)]
    return first_of(
        rises("step, from wider adapters", found[1].step.duration_s, found[0].step.duration_s),
        rises(
            "memory, from wider adapters", found[1].memory.peak_bytes, found[0].memory.peak_bytes
        ),
    )


@law
def a_rank_alone_takes_no_longer_than_the_step(plan: Plan) -> str:
    """What a rank does is part of the step: waiting for others only adds to it."""
    if plan.data["stragglers"]:  # whose waits no rank tells by itself
        return ""
    step = plan.result.step
    (trace,) = simulated_traces(plan.scenario, [0])
    return rises("a rank alone", step.duration_s, trace.step_s[-1])
