"""Scenarios as trainers take them: `export`; and their step as other simulators do: `export_step`."""

from __future__ import annotations

from collections.abc import Sequence

from ersatz.sim.answers.answer import Answer, Overrides
from ersatz.sim.answers.cases import Named, load
from ersatz.sim.emulate.foreign.simulated import count_entries, simulated_traces, unsaid_of
from ersatz.sim.emulate.replaying.chakra import chakra_files, groups_text
from ersatz.sim.emulate.replaying.replay import recording_text, replay_text
from ersatz.sim.emulate.trace import Trace
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.exporting.formats import export_scenario
from ersatz.sim.exporting.record import Exported
from ersatz.sim.report.launch.importing import render_export
from ersatz.sim.report.launch.steps import ExportedStep, render_exported_step
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.ranks.timeline import check_ranks
from ersatz.sim.step.step import simulate_step

MOST_NODES = 1_000_000  # of all files together: 150 MB


def export(scenario: Named | Scenario, to: str, overrides: Overrides = ()) -> Answer[Exported]:
    """Write the model and the layout of a scenario's first case as flags or a configuration.

    `to` is megatron, mindspeed, primus, torchtitan, automodel, deepspeed or slurm. Raises `InputError`
    for another, and for a faulty scenario.
    """
    case = scenario if isinstance(scenario, Scenario) else load(scenario, overrides)[0]
    found = export_scenario(case, to)
    return Answer("export", {found.case: found}, view=lambda: render_export(found),
                  record=found.to_dict, files=lambda: {f"{to}.txt": found.text})  # fmt: skip


def export_step(
    scenario: Named | Scenario, ranks: Sequence[int] = (), overrides: Overrides = ()
) -> Answer[ExportedStep]:
    """Write a step of a scenario's first case as Chakra execution traces, a file for each rank.

    They are what ASTRA-sim reads, with `groups.json` for its groups. Beside them stand a recording and
    a file that replays it on other devices. By default all ranks. Raises `InputError` for a rank that
    there is not, for too many, and for replicas on several kinds of device.
    """
    case = scenario if isinstance(scenario, Scenario) else load(scenario, overrides)[0]
    ranks = tuple(dict.fromkeys(ranks))  # a rank is told once
    try:
        check_ranks(case, ranks)
        share = len(ranks) / case.devices if ranks else 1.0
        nodes = round(count_entries(case) * share)
        if nodes > MOST_NODES:
            raise ValueError(f"{nodes:,} nodes: expected at most {MOST_NODES:,}; name fewer ranks")
        traces = simulated_traces(case, ranks)
    except ValueError as error:
        raise InputError([Problem("--ranks", 0, 0, "", "", str(error))]) from error
    found = ExportedStep(
        case.name, case.devices, tuple(trace.rank for trace in traces),
        sum(entry.work >= 0 for trace in traces for entry in trace.entries),
        simulate_step(case).duration_s, unsaid_of(case),
    )  # fmt: skip
    return Answer("export", {found.case: found}, view=lambda: render_exported_step(found),
                  record=found.to_dict, files=lambda: _step_files(case, traces))  # fmt: skip


def _step_files(case: Scenario, traces: Sequence[Trace]) -> dict[str, str | bytes]:
    pool, t = case.pools[0], case.training
    script = f"the step of {case.name}"
    return {
        **{f"chakra.{rank}.et": data for rank, data in chakra_files(traces).items()},
        "groups.json": groups_text(traces),
        "ranks.json": recording_text(script, case.devices, traces),
        "replay.yaml": replay_text(
            script, pool.node.name, case.devices // pool.node.devices, pool.stack.name,
            traces[0].facts["parameters"], t.global_batch * t.sequence_length,
        ),
    }  # fmt: skip
