"""`ersatz legal`: which devices may be bought, when and where, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ersatz.sim.cli.app import HtmlOption, JsonOption, OutOption, app
from ersatz.sim.cli.cases import conclude


@app.command(
    epilog="Example: ersatz legal h20 h800 ascend-910b2 --date 2025-03-24 --date 2025-04-23"
)
def legal(
    devices: Annotated[
        list[str], typer.Argument(help="Devices, `all`, or one scenario file or shipped name.")
    ],
    date: Annotated[
        list[str] | None, typer.Option("--date", metavar="DAY", help="Day of export (today); repeatable.")
    ] = None,
    to: Annotated[str, typer.Option("--to", metavar="PLACE", help="Destination.")] = "China",
    buyer: Annotated[
        str, typer.Option("--buyer", metavar="KIND", help="Kind of buyer, or a party by its name.")
    ] = "company",
    units: Annotated[
        float | None, typer.Option("--units", metavar="N", help="How many devices are asked for.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Say what changes within 12 months after the day.")
    ] = False,
    origin: Annotated[
        str | None, typer.Option("--from", metavar="PLACE", help="Where it is shipped from.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", metavar="PATH", help="File or folder of your own rules.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a rule: rules.ID.criterion.NAME=4100."),
    ] = None,
    json: JsonOption = None, out: OutOption = None, html: HtmlOption = None,
) -> None:  # fmt: skip
    """Say what export and import rules allow at a date, with rule ids and arithmetic."""
    from ersatz.sim.answers.legal import legal as answer

    conclude(answer(*devices, dates=date or (), to=to, buyer=buyer, origin=origin, rules=rules,
                    changes=set_ or (), units=units, watching=watch), json, out, html)  # fmt: skip
