"""The verbs' common ground: the application, its shared options, and how a verb fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Simulate the training of large models on accelerators you cannot, or cannot yet, buy.",
    epilog="Exit status: 0 done; 1 infeasible; 2 bad input; 3 something cannot be written (what stood"
    " there before still does); 70 a fault of ersatz; 130, 141, 143 interrupted, reader gone, terminated.",
)

JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="PATH|-", help="Write the records as JSON.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write all artefacts.")
]
HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a page of its own: one HTML file."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a scenario value; repeatable."),
]
StackOption = Annotated[
    str | None,
    typer.Option("--stack", metavar="NAME|FILE", help="Software stack of all cases; see anchor."),
]
CalibrationOption = Annotated[
    str | None, typer.Option("--calibration", metavar="FILE", help="Of `ersatz calibrate`.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of all random draws.")]


_WHERE = (
    "--json",
    "--out",
    "--html",
    "--trace",
)  # options that say where an answer goes, not what it is
_words: tuple[str, ...] = ()  # of the command line that is being answered


@cache
def _commands() -> Any:
    """Return the verbs as Click sees them: to make that costs 30 ms, as much as a small answer."""
    return typer.main.get_command(app)


def invoke(arguments: Sequence[str]) -> int:
    """Answer a command line; returns the exit status. Raises what the verb raises."""
    global _words
    _words = tuple(arguments)
    status = _commands()(list(arguments), standalone_mode=False)
    return status if isinstance(status, int) else 0


def with_stack(overrides: list[str] | None, stack: str | None) -> list[str] | None:
    """Return overrides with the software stack that was asked for."""
    return [*(overrides or []), f"stack={json.dumps(stack)}"] if stack else overrides


def asked_words() -> tuple[str, list[str]]:
    """Return the verb and its arguments but for where the answer goes."""
    verb, *words = _words or ("",)
    kept, skip = [], False
    for word in words:
        goes = word.startswith(tuple(f"{option}=" for option in _WHERE))
        if not skip and word not in _WHERE and not goes:
            kept.append(word)
        skip = not skip and word in _WHERE
    return verb, kept


def asked_line() -> str:
    """Return the command line that is being answered, but for where the answer goes."""
    verb, words = asked_words()
    return " ".join(
        ["ersatz", verb, *(json.dumps(w, ensure_ascii=False) if " " in w else w for w in words)]
    )


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
