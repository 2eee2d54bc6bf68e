"""Resolve a checked scenario file: names to descriptions, defaults to stated assumptions.

Cross checks that need the hardware and the model stand in `ersatz.sim.scenario.checks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ersatz.device_models.catalog.reading import (
    EXPORT_ONLY,
)
from ersatz.device_models.text.units import UnitError, parse_quantity
from ersatz.sim.records import wrong_metric
from ersatz.sim.scenario.checks import check_layout, check_scenario
from ersatz.sim.scenario.keeping import check_keeping, keeping_assumptions, kept
from ersatz.sim.scenario.phases import PhaseFile, phase_files
from ersatz.sim.scenario.resolving.job import resolve_job
from ersatz.sim.scenario.resolving.joint import resolve_joint
from ersatz.sim.scenario.resolving.layout import (
    left_open,
    resolve_parallel,
    resolve_training,
    split_assumed,
)
from ersatz.sim.scenario.resolving.machines import load_named, resolve_fabric, resolve_pools
from ersatz.sim.scenario.resolving.money import resolve_cost
from ersatz.sim.scenario.resolving.own import own_layouts
from ersatz.sim.scenario.resolving.silent import silent_lines
from ersatz.sim.scenario.scenario import (
    EnergySpec,
    Phase,
    Pool,
    Published,
    Ramp,
    Scenario,
    Stragglers,
)
from ersatz.sim.scenario.schema import ScenarioFile
from ersatz.sim.scenario.sections.layout import RampSection
from ersatz.sim.workload.adapters import with_usual_targets
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.model_file import load_model

Blame = Callable[..., None]
METRIC_UNITS = {"_s": "time", "_bytes": "bytes", "_kg": "mass"}


def resolve(
    spec: ScenarioFile, name: str, folder: Path, blame: Blame, failed: Callable[[], bool],
    *, plans: bool = False,
) -> Scenario | None:  # fmt: skip
    """Return the scenario of one case; faults are told to `blame`, and None comes back then.

    Who `plans` is given a case without a layout as it is, with what is open noted; for others the
    layout is data parallel alone.
    """
    assumptions: list[str] = []
    model = load_named(load_model, spec.model, ("model",), blame, beside=folder)
    pools = resolve_pools(spec.cluster, spec.stack, folder, blame, assumptions)
    if model is None or not pools or failed():
        return None
    model = with_usual_targets(model, pools[0].stack.name)
    pools = _as_asked(pools, spec, model, blame, assumptions)
    files = phase_files(spec, blame)
    phases = [_phase(file, pools, model, assumptions, plans) for file in files]
    if failed() or not phases:
        return None
    scenario = _described(spec, name, phases[0], model, pools, blame, assumptions)
    if len(phases) > 1:
        scenario = _in_phases(scenario, phases, spec.training.batch_ramp)
    for i, (file, part) in enumerate(zip(files, scenario.parts, strict=True)):
        check_keeping(spec.memory, model, part.parallel.zero, file.blame)
        check = check_scenario if i == scenario.main_phase else check_layout
        check(part, file.spec, file.blame)
    return None if failed() else scenario


def _as_asked(
    pools: list[Pool], spec: ScenarioFile, model: Model, blame: Blame, assumptions: list[str]
) -> list[Pool]:
    """Return the pools with their stacks' habits as the scenario wants them."""
    pipeline = spec.parallel.pp > 1
    assumptions += keeping_assumptions(spec.memory, pools[0].stack, pipeline=pipeline)
    pools = [replace(pool, stack=kept(pool.stack, spec.memory)) for pool in pools]
    if full := spec.training.expert_imbalance:
        pools = [replace(p, stack=replace(p.stack, expert_imbalance=full)) for p in pools]
        if model.experts is None and not any(kind.experts for kind in model.kinds):
            blame(("training", "expert_imbalance"), full, f"{model.name} has no experts")
    return pools


def _described(
    spec: ScenarioFile, name: str, phase: Phase, model: Model, pools: list[Pool], blame: Blame,
    assumptions: list[str],
) -> Scenario:  # fmt: skip
    """Return the scenario of a job in one phase."""
    training = phase.training
    stated, steps = spec.training.tokens, spec.training.steps
    if stated and steps and abs(training.tokens - stated) > 1e-3 * stated:
        assumptions.append(f"training.steps counts, {steps:,}: training.tokens, {stated:.4g}, says nothing"
                           " beside it")  # fmt: skip
    if spec.training.batch_ramp and not training.tokens:
        assumptions.append(
            "training.batch_ramp: one step is of the full batch; without tokens there is no job"
        )
    return Scenario(
        name=name,
        question=spec.question,
        seed=spec.seed,
        model=model,
        pools=tuple(pools),
        training=training,
        parallel=phase.parallel,
        fabric=resolve_fabric(spec.fabric) if spec.fabric else None,
        joint=resolve_joint(spec.cluster.joint, pools, assumptions),
        stragglers=Stragglers(
            spec.stragglers.fraction, spec.stragglers.slowdown, dict(spec.stragglers.ranks)
        ),
        job=resolve_job(spec.job, pools, bool(training.tokens), blame, assumptions),
        cost=resolve_cost(spec.cost, pools, blame, assumptions) if spec.cost else None,
        energy=EnergySpec(
            spec.energy.pue, spec.energy.carbon_intensity,
            spec.energy.embodied_per_device, spec.energy.device_life,
        ),
        published=tuple(_published(spec, blame)),
        assumptions=(*assumptions, *_catalogue_assumptions(pools),
                     *silent_lines(spec.job, spec.cost, spec.energy, bool(training.tokens))),
        open=phase.open,
    )  # fmt: skip


def _phase(
    file: PhaseFile, pools: list[Pool], model: Model, assumptions: list[str], plans: bool
) -> Phase:
    """Return one phase of a job; what is assumed of it is said with its name, once for all alike."""
    said: list[str] = []
    open_ = left_open(file.spec, pools) if plans else ()
    parallel = resolve_parallel(file.spec.parallel, pools, model, [] if open_ else said)
    if file.spec.parallel.pools and not open_:
        parallel = own_layouts(parallel, file.spec, pools, file.blame)
    said += [*model.notes, *(() if open_ else split_assumed(model, parallel))]
    training = replace(resolve_training(file.spec, pools, said), tokens=file.tokens)
    if parallel.pools:
        training = replace(training, micro_batch=parallel.pools[0].micro_batch)
    new = [words for words in said if words not in assumptions]
    if not file.ramp:
        assumptions += [f"{file.name}: {words}" if file.later else words for words in new]
    return Phase(file.name, training, parallel, open_, file.ramp)


def _in_phases(scenario: Scenario, phases: list[Phase], growth: RampSection | None) -> Scenario:
    """Return a job of several phases; what one step of it means is said."""
    whole = math.fsum(phase.training.tokens for phase in phases)
    ramp = Ramp(growth.start, growth.increment, growth.sequences) if growth else None
    scenario = replace(scenario, phases=tuple(phases), ramp=ramp)
    main = phases[scenario.main_phase]
    words = (f"the job has {len(phases)} phases; one step and what it sends are those of {main.name}, which"
             " has the most tokens; memory is that of the fullest phase")  # fmt: skip
    return replace(
        scenario, training=replace(main.training, tokens=whole), parallel=main.parallel,
        open=main.open, assumptions=(words, *scenario.assumptions),
    )  # fmt: skip


def _published(spec: ScenarioFile, blame: Blame) -> Iterator[Published]:
    for i, row in enumerate(spec.published):
        value = row.value
        if isinstance(value, str) and (words := wrong_metric(row.metric)):  # which has no unit
            blame(("published", i, "metric"), row.metric, words)
            continue
        if isinstance(value, str):
            last = row.metric.rsplit(".", 1)[-1]
            unit = next((u for end, u in METRIC_UNITS.items() if last.endswith(end)), "fraction")
            try:
                value = parse_quantity(value, unit)
            except UnitError as error:
                blame(("published", i, "value"), row.value, str(error))
                continue
        if value <= 0:
            blame(("published", i, "value"), row.value, "expected a value above 0")
            continue
        yield Published(row.metric, value, row.source)


def _catalogue_assumptions(pools: list[Pool]) -> Iterator[str]:
    """Name the values of the catalogue that are assumptions themselves."""
    seen = set()
    for pool in pools:
        for part in (
            pool.node.device,
            pool.node.scale_up,
            pool.node.scale_out,
            pool.node,
            pool.stack,
        ):
            for fact in part.facts.values():
                used = fact.key not in EXPORT_ONLY
                if used and fact.confidence == "assumed" and (part.name, fact.key) not in seen:
                    seen.add((part.name, fact.key))
                    why = f" ({fact.note})" if fact.note else ""
                    yield f"{part.name}: {fact.key} is taken as {fact.text}{why}"
