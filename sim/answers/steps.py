"""Recorded steps of others: `read_steps`, beside a prediction where one is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import load_node
from ersatz.device_models.kernels.kernel import calibrated_time, memory_kernel
from ersatz.sim.answers.answer import Answer, Overrides, by_name
from ersatz.sim.answers.cases import load
from ersatz.sim.emulate.emulate import STACK
from ersatz.sim.emulate.foreign.reading import read_step
from ersatz.sim.emulate.foreign.step import Step
from ersatz.sim.emulate.replaying.replay import recording_text, replay_text
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.plan.layout import group_extents, rank_shape
from ersatz.sim.report.launch.steps import Beside, Recorded, render_recorded
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import simulate_step

# What a kernel's name cannot tell apart stands together; what is left over is a kernel of another kind.
CLASSES = {
    "products and vocabulary": ("matrix", "experts", "vocabulary"), "attention": ("attention",),
    "tensor parallel": ("tensor parallel",), "data parallel": ("data parallel",),
    "expert parallel": ("expert parallel",), "pipeline": ("pipeline",),
    "context parallel": ("context parallel",), "idle": ("idle", "bubble", "launch", "straggler"),
}  # fmt: skip
PARALLEL = {
    "tp": "tensor parallel",
    "cp": "context parallel",
    "ep": "expert parallel",
    "dp": "data parallel",
}


def read_steps(
    *files: str | Path, node: str = "", against: str | Path | Scenario = "", overrides: Overrides = (),
) -> Answer[Recorded]:  # fmt: skip
    """Read a step that Kineto, msprof or Chakra recorded, one file for each rank, as causes of a step.

    `against` is a scenario whose prediction stands beside the measured seconds, by class of work. `node` is
    where it was measured: with it the answer holds a recording that runs on other devices. Raises
    `InputError` for a file that is no such trace, and for two files of one rank.
    """
    case = None
    if against:
        case = against if isinstance(against, Scenario) else load(against, overrides)[0]
    machine = load_node(node) if node else case.pools[0].node if case else None
    bandwidth = _bandwidth(machine) if machine else 0.0
    steps = [read_step(Path(file), _sizes(case) if case else {}, bandwidth) for file in files]
    ranks = [step.trace.rank for step in steps]
    if len(set(ranks)) < len(ranks):
        words = f"rank {max(ranks, key=ranks.count)} twice: expected a file for each rank"
        raise InputError([Problem(str(files[-1]), 0, 0, "", "", words)])
    found = [
        Recorded(Path(file).name, step.format, step.device, step.trace.rank, step.world, step.measured_s,
                 step.trace.step_s[-1], step.causes or _walked(step), step.said)
        for file, step in zip(files, steps, strict=True)
    ]  # fmt: skip
    beside = _beside(case, found) if case else None
    return Answer(
        "import", by_name((one.file, one) for one in found), view=lambda: render_recorded(found, beside),
        record=lambda: {"steps": [one.to_dict() for one in found],
                        **({"against": beside.to_dict()} if beside else {})},
        files=lambda: _files(steps, machine, case) if machine else {},
    )  # fmt: skip


def _bandwidth(node: Node) -> float:
    """Return the bytes/s that a kernel moves which does nothing else."""
    return 1e9 / calibrated_time(node.device, memory_kernel("copy", 1e9))


def _sizes(case: Scenario) -> Mapping[int, str]:
    """Return which parallelism has groups of so many ranks, where just one has."""
    extents = group_extents(case.parallel, case.parallel.dp)
    sizes = [(extents[name][1] * extents[name][2], words) for name, words in PARALLEL.items()]
    counts = [size for size, _ in sizes]
    return {size: words for size, words in sizes if size > 1 and counts.count(size) == 1}


def _walked(step: Step) -> Mapping[str, float]:
    """Return the causes of a step without times of its own: its work one after the other."""
    from ersatz.sim.emulate.replaying.program import program_of
    from ersatz.sim.step.breakdown import explain_step

    return explain_step(program_of(step.trace)).mean()


def classed(causes: Mapping[str, float]) -> dict[str, float]:
    """Return seconds by class of work; a class of its own for what none names."""
    place = {cause: name for name, row in CLASSES.items() for cause in row}
    found: dict[str, float] = {}
    for cause, seconds in causes.items():
        name = place.get(cause) or (cause if " among " in cause else "other kernels")
        found[name] = found.get(name, 0.0) + seconds
    return found


def _beside(case: Scenario, found: Sequence[Recorded]) -> Beside:
    """Return the mean of the ranks that were measured, and what is predicted of the same ones."""
    each = math.prod(rank_shape(case.parallel))
    wrong = [one for one in found if one.rank >= case.devices]
    if wrong:
        words = f"is of rank {wrong[0].rank}: {case.name} has {case.devices:,} devices"
        raise InputError([Problem(wrong[0].file, 0, 0, "", "", words)])
    step = simulate_step(case)
    measured: dict[str, float] = {}
    predicted: dict[str, float] = {}
    for one in found:
        stage = min(one.rank // each, len(step.by_stage) - 1)
        for into, causes in ((measured, one.causes), (predicted, step.by_stage[stage])):
            for name, seconds in classed(causes).items():
                into[name] = into.get(name, 0.0) + seconds / len(found)
    order = sorted(
        {*measured, *predicted}, key=lambda n: (-measured.get(n, 0.0), -predicted.get(n, 0.0), n)
    )
    rows = tuple((name, measured.get(name, 0.0), predicted.get(name, 0.0)) for name in order)
    took = sum(one.measured_s for one in found) / len(found)
    return Beside(case.name, took, step.duration_s, rows, tuple(_differences(case, found)))


def _differences(case: Scenario, found: Sequence[Recorded]) -> list[str]:
    """Say where the trace is not of the job that is predicted."""
    worlds = sorted({one.world for one in found if one.world > 1})
    said = [f"the trace is of {world:,} ranks, {case.name} has {case.devices:,} devices"
            for world in worlds if world != case.devices and found[0].format != "msprof"]  # fmt: skip
    return said


def _files(steps: Sequence[Step], node: Node, case: Scenario | None) -> dict[str, str]:
    """Return a recording, and the file that replays it on other devices."""
    world = max(step.world for step in steps)
    script = f"a {steps[0].format} trace"
    stack = case.pools[0].stack.name if case else STACK
    return {
        "ranks.json": recording_text(script, world, [step.trace for step in steps]),
        "replay.yaml": replay_text(script, node.name, math.ceil(world / node.devices), stack, 0),
    }
