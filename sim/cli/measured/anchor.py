"""`ersatz anchor`: one's own measured steps make a stack of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ersatz.sim.cli.app import JsonOption, SetOption, app
from ersatz.sim.cli.output import deliver


@app.command(
    epilog="Example: ersatz anchor my-runs.csv --out my-stack.yaml, then:"
    " ersatz run ling-plus-substitution --stack my-stack.yaml"
)
def anchor(
    runs: Annotated[
        list[str],
        typer.Argument(help="Tables of measured runs, scenarios that publish step.duration_s, or logs."),
    ],
    stack: Annotated[
        str, typer.Option("--stack", metavar="NAME", help="The stack to start from.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the stack file goes.")
    ] = None,
    json: JsonOption = None, set_: SetOption = None,
) -> None:  # fmt: skip
    """Move a stack to where a few measured steps of your own cluster are."""
    from ersatz.sim.answers.anchor import anchor as anchored

    answer = anchored(runs, stack, out.stem if out else "my-stack", overrides=set_ or ())
    (record,) = answer.values()
    places = {out: record.text} if out else {}
    deliver("anchor", answer.to_dict(), answer.view(), json, drawings=places)
