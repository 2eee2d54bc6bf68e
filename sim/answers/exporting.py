"""Scenarios as trainers take them: `export`."""

from __future__ import annotations

from ersatz.sim.answers.answer import Answer, Overrides
from ersatz.sim.answers.cases import Named, load
from ersatz.sim.exporting.formats import export_scenario
from ersatz.sim.exporting.record import Exported
from ersatz.sim.report.launch.importing import render_export
from ersatz.sim.scenario.scenario import Scenario


def export(scenario: Named | Scenario, to: str, overrides: Overrides = ()) -> Answer[Exported]:
    """Write the model and the layout of a scenario's first case as flags or a configuration.

    `to` is megatron, mindspeed, primus, torchtitan, automodel, deepspeed or slurm. Raises `InputError`
    for another, and for a faulty scenario.
    """
    case = scenario if isinstance(scenario, Scenario) else load(scenario, overrides)[0]
    found = export_scenario(case, to)
    return Answer("export", {found.case: found}, view=lambda: render_export(found),
                  record=found.to_dict, files=lambda: {f"{to}.txt": found.text})  # fmt: skip
