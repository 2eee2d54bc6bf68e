"""`ersatz import`: launch scripts, configurations and logs of trainers become scenarios."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ersatz.sim.cli.app import Failure, JsonOption, SetOption, app
from ersatz.sim.cli.cases import conclude


@app.command("import", epilog="Examples: ersatz import pretrain.sh --node ascend-910b2-8 --out mine.yaml;"
             " ersatz run pretrain.sh --set cluster.node=ascend-910b2-8;"
             " ersatz import trace.json.gz --against mine.yaml")  # fmt: skip
def import_(
    files: Annotated[
        list[str],
        typer.Argument(help="Launch scripts, configurations, logs; network tables; recorded"
                       " steps (Kineto, msprof, Chakra). Nothing is run."),
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
    against: Annotated[
        str, typer.Option("--against", metavar="SCENARIO", help="Put its step beside a recorded one.")
    ] = "",
) -> None:  # fmt: skip
    """Read what you train today, and where each value stands, as a scenario."""
    from ersatz.sim.answers.importing import read_launch
    from ersatz.sim.emulate.foreign.reading import is_trace

    if any(is_trace(Path(file)) for file in files):
        _steps(files, node or "", against, set_ or [], json, out)
        return
    if against:
        raise Failure(2, ["--against: expected with a recorded step (Kineto, msprof, Chakra)"])
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


def _steps(
    files: list[str], node: str, against: str, set_: list[str], json: str | None, out: Path | None
) -> None:
    """Read recorded steps; `out` is the file that replays them, its recording beside it."""
    from ersatz.sim.answers.steps import read_steps
    from ersatz.sim.cli.output import cannot_be_written, write_file

    answer = read_steps(*files, node=node, against=against, overrides=set_)
    if out:
        made = {name: str(text) for name, text in answer.files().items()}
        if not made:
            raise Failure(
                2, ["--node: expected where it was measured, to replay it elsewhere (--out)"]
            )
        recording = out.with_suffix(".ranks.json")
        text = made["replay.yaml"].replace("emulated: ranks.json", f"emulated: {recording.name}")
        for file, what in ((recording, made["ranks.json"]), (out, text)):
            try:
                write_file(file, what, file.suffix)
            except OSError as error:
                raise Failure(3, [cannot_be_written(file, error)]) from error
    conclude(answer, json)
