"""`ersatz report`: results of earlier runs as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ersatz.sim.cli.app import JsonOption, app


@app.command(
    epilog="Example: ersatz run deepseek-v3-h800 --out result && ersatz report result --html deepseek.html"
)
def report(
    results: Annotated[
        list[str], typer.Argument(help="Folders of artefacts, or JSON files, of earlier runs.")
    ],
    html: Annotated[
        Path, typer.Option("--html", metavar="FILE", help="Where the page goes.")
    ] = Path("report.html"),
    date: Annotated[
        str, typer.Option("--date", metavar="DAY", help="Of the start, and for the law; last known day.")
    ] = "",
    to: Annotated[str, typer.Option("--to", metavar="PLACE", help="Destination, for the law.")] = "China",
    json: JsonOption = None,
) -> None:  # fmt: skip
    """Lay out results of run, compare, buy, legal, schedule and validate as one HTML file.

    It needs nothing else: no network, no other file. Light and dark, for paper and for a phone.
    """
    from rich.console import Group
    from rich.text import Text

    from ersatz.sim.answers.report import report as answer
    from ersatz.sim.cli.output import deliver

    page = answer(*results, date=date, to=to)
    size = len(page.html.encode())
    lines = [Text(question or "(no question)") for question in page.answers]
    view = Group(*lines, Text(f"{html}: {size / 1e3:,.0f} kB"))
    record = {"file": str(html), "bytes": size, "answers": list(page.answers)}
    deliver("report", record, view, json, drawings={html: page.html})
