"""`ersatz devices`: what is modelled, with sources."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ersatz.sim.cli.app import JsonOption, app
from ersatz.sim.cli.output import deliver


@app.command(epilog="Example: ersatz devices h800")
def devices(
    name: Annotated[str | None, typer.Argument(help="A device, or the path of its file.")] = None,
    json: JsonOption = None,
) -> None:
    """List the modelled accelerators, or explain one with its sources."""
    from ersatz.sim.report import devices as view

    record: Any = view.device_record(name) if name else view.device_list_records()
    shown = view.render_device(name) if name else view.render_device_list()
    deliver("devices", record, shown, json)
