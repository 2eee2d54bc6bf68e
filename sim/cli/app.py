"""The verbs' common ground: the application, its shared options, and how a verb fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Simulate the training of large models on accelerators you cannot, or cannot yet, buy.",
)

JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="PATH|-", help="Write the records as JSON.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write all artefacts.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a scenario value; repeatable."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of all random draws.")]


class Failure(Exception):
    """Ends a verb with an exit status after the report was printed."""

    def __init__(self, status: int, lines: Sequence[str]) -> None:
        self.status, self.lines = status, tuple(lines)
        super().__init__("\n".join(lines))


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Simulate the training of large models on accelerators you cannot, or cannot yet, buy."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"ersatz {installed('ersatz')}")
        raise typer.Exit
