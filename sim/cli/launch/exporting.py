"""`ersatz export`: a scenario as the flags or the configuration of a trainer."""

from __future__ import annotations

from typing import Annotated

import typer

from ersatz.device_models.text.visible import visible
from ersatz.sim.cli.app import JsonOption, SetOption, app


@app.command(epilog="Example: ersatz export deepseek-v3-h800 --as megatron > train.sh")
def export(
    scenario: Annotated[str, typer.Argument(help="Scenario file or name; of several cases the first.")],
    to: Annotated[
        str,
        typer.Option("--as", metavar="FORMAT", help="megatron, mindspeed, primus, torchtitan, automodel,"
                     " deepspeed or slurm."),
    ],
    json: JsonOption = None,
    set_: SetOption = None,
) -> None:  # fmt: skip
    """Write a layout as the flags of a trainer, ready to paste."""
    from ersatz.sim.answers.exporting import export as answer
    from ersatz.sim.cli.output import deliver
    from ersatz.sim.cli.process.terminal import say

    found = answer(scenario, to, set_ or [])
    (one,) = found.values()
    for words in one.unsaid if one.format == "deepspeed" else ():  # JSON has no remarks
        say(f"not said: {words}")
    deliver("export", found.to_dict(), visible(one.text), json)  # as it is: never wrapped
