"""`ersatz export`: a scenario as the flags or the configuration of a trainer, or its step as traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ersatz.device_models.text.visible import visible
from ersatz.sim.cli.app import Failure, JsonOption, SetOption, app


@app.command(epilog="Examples: ersatz export deepseek-v3-h800 --as megatron > train.sh;"
             " ersatz export qwen2.5-72b-16x80 --as chakra --out step")  # fmt: skip
def export(
    scenario: Annotated[str, typer.Argument(help="Scenario file or name; of several cases the first.")],
    to: Annotated[
        str,
        typer.Option("--as", metavar="FORMAT", help="megatron, mindspeed, primus, torchtitan, automodel,"
                     " deepspeed, slurm; or chakra: its step, rank by rank."),
    ],
    json: JsonOption = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Of the traces (--as chakra).")
    ] = None,
    ranks: Annotated[
        str, typer.Option("--ranks", metavar="A,B,...", help="Of the traces; without it all.")
    ] = "",
) -> None:  # fmt: skip
    """Write a layout as the flags of a trainer, ready to paste; or its step as traces for ASTRA-sim."""
    if to == "chakra":
        _traces(scenario, set_ or [], ranks, out, json)
        return
    if given := [name for name, value in (("--out", out), ("--ranks", ranks)) if value]:
        raise Failure(2, [f"{name}: expected with --as chakra" for name in given])
    from ersatz.sim.answers.exporting import export as answer
    from ersatz.sim.cli.output import deliver
    from ersatz.sim.cli.process.terminal import say

    found = answer(scenario, to, set_ or [])
    (one,) = found.values()
    for words in one.unsaid if one.format == "deepspeed" else ():  # JSON has no remarks
        say(f"not said: {words}")
    deliver("export", found.to_dict(), visible(one.text), json)  # as it is: never wrapped


def _traces(scenario: str, set_: list[str], ranks: str, out: Path | None, json: str | None) -> None:
    from ersatz.sim.answers.exporting import export_step
    from ersatz.sim.cli.cases import conclude

    if out is None:
        raise Failure(2, ["--out: expected a folder, for traces are a file each rank"])
    words = [word.strip() for word in ranks.split(",") if word.strip()]
    if wrong := [word for word in words if not word.isdecimal() or len(word) > 9]:
        raise Failure(2, [f"--ranks: {wrong[0][:40]!r} - expected numbers such as 0,128"])
    conclude(export_step(scenario, [int(word) for word in words], set_), json, out)
