"""`ersatz run` and `ersatz compare`: a training job, or several side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from sim.cli.app import JsonOption, OutOption, SeedOption, SetOption, app
from sim.cli.cases import find_scenario, finish, simulate


@app.command(epilog="Example: ersatz run ling-plus-substitution --set training.micro_batch=2")
def run(
    scenario: Annotated[str, typer.Argument(help="Scenario file, or name of a shipped one.")],
    json: JsonOption = None, out: OutOption = None, set_: SetOption = None, seed: SeedOption = None,
) -> None:  # fmt: skip
    """Simulate a training job, from operators to money."""
    from sim.report.text import render_run

    path = find_scenario(scenario)
    scenarios, results, reasons = simulate([path], set_ or [], seed)
    finish(
        [path], scenarios, results, render_run(scenarios, results), json, out, set_ or [], reasons
    )


@app.command(epilog="Example: ersatz compare deepseek-v3-h800 pangu-ultra-moe-910b")
def compare(
    scenarios: Annotated[list[str], typer.Argument(help="Scenario files or names.")],
    json: JsonOption = None, out: OutOption = None, set_: SetOption = None, seed: SeedOption = None,
) -> None:  # fmt: skip
    """Show several scenarios, and their cases, side by side."""
    from dataclasses import replace

    from rich.console import Group
    from rich.text import Text

    from sim.report.text import NOTICE, render_answers

    paths = [find_scenario(name) for name in scenarios]
    cases, results, reasons = simulate(paths, set_ or [], seed)
    named = [replace(r, name=r.name if r.name == s.name else s.name)
             for s, r in zip(cases, results, strict=True)]  # fmt: skip
    view = Group(render_answers(cases, named), Text(""), Text(NOTICE, style="dim"))
    finish(paths, cases, named, view, json, out, set_ or [], reasons)
