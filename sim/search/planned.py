"""A scenario without a layout, planned: the fastest one that fits, said as an assumption."""

from __future__ import annotations

import math
from dataclasses import replace

from ersatz.sim.scenario.scenario import Phase, Scenario, layout_words
from ersatz.sim.search.best import search
from ersatz.sim.search.choices import choices_of, with_defaults
from ersatz.sim.search.host.away import assumed, words_of_way
from ersatz.sim.search.space import HOST, make_space

MOST_TIMED = 200  # exact steps: whoever asks for one answer does not wait for a proof


def planned(scenario: Scenario) -> Scenario:
    """Return a scenario with the layout that was left open; one that leaves nothing open as it is.

    Of a job in phases each has its own; a batch that grows has the layout that it needs when it has grown.
    Raises `InfeasibleError` where no layout can be run.
    """
    if scenario.phases and any(phase.open for phase in scenario.phases):
        return _phase_by_phase(scenario)
    if "parallel" not in scenario.open:
        return scenario
    stack = scenario.pools[0].stack
    base = replace(scenario, parallel=with_defaults(scenario.parallel, stack))
    held: dict[str, object] = {}
    if "micro_batch" not in scenario.open:
        held["micro_batch"] = scenario.training.micro_batch
    choices = choices_of(base)
    found = search(make_space(base, choices, held), kinds=1, most=MOST_TIMED)
    best = found.best
    unproved = (
        f" of {found.timed:,} that were timed, others could be {100 * found.left:.0f} % faster at most"
        if found.left > 0.0
        else ""
    )
    way = found.plans[0].row[HOST]
    away = f", {words_of_way(way)}" if way else ""
    words = (
        f"parallel is not given: {layout_words(best)}{away}; of {found.layouts:,} layouts that {stack.name}"
        f" runs the fastest that fits for sure{unproved} (ersatz plan shows others)"
    )
    told = (words, *assumed(best, way))
    return replace(best, open=(), assumptions=(*told, *scenario.assumptions))


def _phase_by_phase(scenario: Scenario) -> Scenario:
    """Return a job with a layout for each phase that leaves it open.

    Phases share their software, so that nothing leaves for the host in one of them alone.
    """
    told: list[str] = []
    phases: list[Phase] = []
    ramp: list[Phase] = []
    for phase, part in zip(scenario.phases, scenario.parts, strict=True):
        if phase.ramp:
            ramp.append(phase)
            continue
        part = replace(part, open=tuple(axis for axis in part.open if axis != "offload"))
        grown, words = _for_all(part, [size.training.global_batch for size in ramp])
        told += [f"{phase.name}: {line}" for line in words]
        phases += [_laid_out(size, grown) for size in (*ramp, phase)]
        ramp = []
    main = phases[scenario.main_phase]
    return replace(
        scenario, phases=tuple(phases), parallel=main.parallel, open=(),
        training=replace(main.training, tokens=scenario.training.tokens),
        assumptions=(*told, *scenario.assumptions),
    )  # fmt: skip


def _laid_out(phase: Phase, plan: Scenario) -> Phase:
    training = replace(phase.training, micro_batch=plan.training.micro_batch)
    return replace(phase, training=training, parallel=plan.parallel, open=())


def _for_all(scenario: Scenario, sizes: list[int]) -> tuple[Scenario, list[str]]:
    """Return a phase with the layout that it leaves open, and what to say of it.

    Smaller batches must go over its replicas, too: where those of the fastest layout do not divide
    them, it is the fastest for what all of them have in common.
    """
    plan = planned(scenario)
    known, batch = len(scenario.assumptions), scenario.training.global_batch
    words = list(plan.assumptions[: len(plan.assumptions) - known])
    whole = plan.training.micro_batch * plan.parallel.dp
    if any(size % whole for size in sizes):
        common = math.gcd(batch, *sizes)
        small = replace(scenario, training=replace(scenario.training, global_batch=common))
        other = planned(small)
        words = list(other.assumptions[: len(other.assumptions) - known])
        words.append(
            f"planned for a batch of {common:,}, of which all sizes of the ramp are multiples"
        )
        plan = replace(other, training=replace(other.training, global_batch=batch))
    return plan, words
