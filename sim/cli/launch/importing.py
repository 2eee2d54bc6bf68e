"""`ersatz import`: launch scripts, configurations and logs of trainers become scenarios."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ersatz.sim.cli.app import Failure, JsonOption, SetOption, app
from ersatz.sim.cli.cases import conclude


@app.command("import", epilog="Examples: ersatz import pretrain.sh --node ascend-910b2-8 --out mine.yaml;"
             " ersatz run pretrain.sh --set cluster.node=ascend-910b2-8")  # fmt: skip
def import_(
    files: Annotated[
        list[str],
        typer.Argument(help="Launch scripts, configurations, logs; network tables. Nothing is run."),
    ],
    json: JsonOption = None,
    node: Annotated[
        str | None, typer.Option("--node", metavar="NODE", help="The machine: cluster.node.")
    ] = None,
    set_: SetOption = None,
    define: Annotated[
        list[str] | None,
        typer.Option("--define", metavar="NAME=VALUE", help="A variable of the script; repeatable."),
    ] = None,
    args: Annotated[
        str | None, typer.Option("--args", metavar='"A B C"', help="The script's arguments.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the scenario there.")
    ] = None,
) -> None:  # fmt: skip
    """Read what you train today, and where each value stands, as a scenario."""
    from ersatz.sim.answers.importing import read_launch

    overrides = [*([f"cluster.node={node}"] if node else []), *(set_ or [])]
    answer = read_launch(*files, overrides=overrides, defines=_defines(define or []),
                         arguments=_arguments(args))  # fmt: skip
    if out:
        _write(out, [text for text in answer.files().values() if isinstance(text, str)])
    conclude(answer, json)


def _defines(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (name, equals, _) in zip(given, pairs, strict=True)
                 if not equals or not name.isidentifier()]:  # fmt: skip
        raise Failure(2, [f"--define: {text[:60]!r} - expected NAME=VALUE" for text in wrong])
    return {name: value for name, _, value in pairs}


def _arguments(text: str | None) -> list[str] | None:
    if text is None:
        return None
    try:
        return shlex.split(text)
    except ValueError as error:
        raise Failure(2, [f"--args: {text[:60]!r} - {str(error).lower()}"]) from error


def _write(out: Path, texts: list[str]) -> None:
    from ersatz.sim.cli.output import cannot_be_written, write_file

    if len(texts) > 1:
        raise Failure(2, ["--out: expected one file to import"])
    try:
        write_file(out, texts[0], ".scenario")
    except OSError as error:
        raise Failure(3, [cannot_be_written(out, error)]) from error
