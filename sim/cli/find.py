"""`ersatz list` and `ersatz show`: what is known by name, and each thing with its sources."""

from __future__ import annotations

from typing import Annotated

import typer

from ersatz.sim.cli.app import JsonOption, app
from ersatz.sim.cli.cases import conclude


@app.command("list", epilog="Example: ersatz list models")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="models, scenarios, rules, devices, parts, nodes, networks, stacks, prices or"
            " schedulers; without it, the kinds."
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """List what is known by name, a line each."""
    from ersatz.sim.answers.find import catalogue

    conclude(catalogue(kind), json)


@app.command(epilog="Example: ersatz show deepseek-v3")
def show(
    name: Annotated[str, typer.Argument(help="Anything that `ersatz list` names; or a path.")],
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND", help="Of what kind it is, if that is not clear."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Explain one thing: every value with its source."""
    from ersatz.sim.answers.find import show as answer

    conclude(answer(name, kind), json)
