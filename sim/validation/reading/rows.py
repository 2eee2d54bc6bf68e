"""Turn a measured row into a scenario: device, stack, model and layout, blanks filled and stated.

Blanks are filled from the stack's defaults and from the row's other cells, each filling with a
sentence; a blank that decides is left open, with its other readings. A row is refused only for a
stated reason (`Refused`): its device is not modelled, or its shape or layout cannot be known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario
from ersatz.sim.validation.reading.layouts import layout_of
from ersatz.sim.validation.reading.machines import node_of, precision_of, stack_of, trimmed
from ersatz.sim.validation.reading.metrics import measured_step_seconds, note_slow
from ersatz.sim.validation.reading.networks import with_network
from ersatz.sim.validation.reading.notes import check_notes
from ersatz.sim.validation.reading.rules import Filling, Refused, in_english
from ersatz.sim.validation.reading.shapes import model_of
from ersatz.sim.validation.reading.table import Run
from ersatz.sim.validation.reading.unread import list_network

IMPOSSIBLE = 1.5  # times the memory of a device: more than the memory model can be wrong by
RECOMPUTES: tuple[Literal["none", "selective", "full"], ...] = ("none", "selective", "full")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a row means: its scenario, its step time, and the readings that its blanks leave open."""

    scenario: Scenario
    measured_s: float | None  # None: the metric says nothing of a step's time
    open: Mapping[str, tuple[object, ...]]  # other readings, by what is blank


def read_run(
    run: Run,
    *,
    oddities: bool = False,
    choices: Mapping[str, object] | None = None,
    unknown: frozenset[str] = frozenset(),
    possible: bool = True,
) -> Reading:
    """Read a row; raises `Refused` with the reason when it cannot be read.

    With `oddities`, known faults of single clusters are modelled, too. `choices` asks for one of the
    readings that an earlier call left open; stacks that are `unknown` are not recognised. A blank that
    no device could hold is read otherwise where the run must have been `possible`.
    """
    run = in_english(run)
    fill = Filling(run, choices or {}, unknown)
    fill.assumptions += [f"{key} is blank: {words}" for key, words in run.inferred.items()]
    check_notes(fill)
    node = node_of(fill)
    precision = precision_of(fill, node)
    stack = stack_of(fill)
    model = model_of(fill)
    devices = run.count("n_devices")
    parallel, training = layout_of(fill, model, stack, precision)
    whole = with_network(node, fill, devices, oddities=oddities)
    if devices > whole.devices and not any("network note" in words for words in fill.assumptions):
        list_network(fill)
    node = trimmed(whole, devices)
    if node.devices < min(whole.devices, devices):
        fill.assumptions.append(f"{devices} devices are no whole nodes of {whole.devices}:"
                                f" {node.devices} of each node are taken")  # fmt: skip
    pool = Pool("", node, devices // node.devices, stack)

    def scenario() -> Scenario:
        return Scenario(
            name=run.id, question="", seed=0, model=model, pools=(pool,), training=training,
            parallel=parallel, assumptions=tuple(fill.assumptions),
        )  # fmt: skip

    if possible and not run.text("recompute"):
        parallel = _possible(fill, scenario())
    measured = measured_step_seconds(fill, scenario())
    if measured:
        note_slow(fill, scenario(), measured)
    return Reading(scenario(), measured, fill.open)


def _possible(fill: Filling, scenario: Scenario) -> Parallel:
    """Return the layout with as much recomputation as it takes to be possible at all.

    A blank that would need memory which no device has does not mean what it was taken for.
    """
    parallel = scenario.parallel
    need = _memory_share(scenario)
    for mode in RECOMPUTES[RECOMPUTES.index(parallel.recompute) + 1 :]:
        if need <= IMPOSSIBLE:
            return parallel
        words = f"recompute {parallel.recompute} would need {need:.1f} times the memory: {mode}"
        fill.assumptions.append(words)
        parallel = replace(parallel, recompute=mode)
        need = _memory_share(replace(scenario, parallel=parallel))
    unsplit = [key for key in ("tp", "pp") if not fill.run.number(key)]
    if need > IMPOSSIBLE and len(unsplit) == 2:
        raise Refused(
            f"tp and pp are blank, and not split it would need {need:.1f} times the memory"
        )
    return parallel


def _memory_share(scenario: Scenario) -> float:
    memory = plan_memory(scenario, advise=False)
    return memory.peak_bytes / memory.capacity_bytes


def scenario_of(run: Run, *, oddities: bool = False, possible: bool = True) -> Scenario:
    """Return the scenario that a row describes; raises `Refused` with the reason when it cannot."""
    return read_run(run, oddities=oddities, possible=possible).scenario
