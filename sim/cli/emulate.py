"""`ersatz emulate`: an unmodified PyTorch script on devices that are not there."""

from __future__ import annotations

from typing import Annotated

import typer

from ersatz.sim.cli.app import CalibrationOption, JsonOption, OutOption, app


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Examples: ersatz emulate --node h800-8 -- train.py --batch-size 8;"
    " ersatz emulate --node ascend-910b2-8 --nodes 8 -- torchrun --nproc-per-node 8 train.py",
)
def emulate(
    script: Annotated[
        list[str], typer.Argument(help="The command that would start it: [torchrun ...] train.py ARGS.")
    ],
    node: Annotated[str, typer.Option("--node", help="Node of the catalogue, or path of a node file.")],
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=250_000, help="How many.")] = 1,
    stack: Annotated[str, typer.Option("--stack", help="Whose attention kernels and network software.")]
    = "torch-eager",
    ranks: Annotated[
        str, typer.Option("--ranks", help="Ranks that run, by comma, or all; the rest is folded.")
    ] = "0",
    steps: Annotated[
        int, typer.Option("--steps", min=0, help="Stop after so many whole steps; 0: when the script ends.")
    ] = 4,
    timer: Annotated[
        str, typer.Option("--timer", help="Kernel times: calibrated, roofline, table, live.")
    ] = "calibrated",
    calibration: CalibrationOption = None,
    attach: Annotated[
        str, typer.Option("--attach", metavar="BACKEND", help="Device on which live times operators.")
    ] = "cpu",
    patience: Annotated[
        float, typer.Option("--patience", min=1, help="Real seconds after which it is given up.")
    ] = 600.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the script's random numbers.")] = 0,
    with_: Annotated[
        str,
        typer.Option("--with", metavar="NAMES", help="Stand-ins: apex, flash_attn, liger_kernel, xformers."),
    ] = "",
    json: JsonOption = None, out: OutOption = None,
) -> None:  # fmt: skip
    """Run a PyTorch script as it is on virtual devices: step time, memory, collectives, a timeline."""
    from ersatz.sim.answers.emulate import emulate as answer
    from ersatz.sim.cli.cases import conclude

    found = answer(script, node, nodes, stack=stack, ranks=ranks, steps=steps, timer=timer,
                   calibration=calibration or "", attach=attach, patience_s=patience, seed=seed,
                   standins=[n.strip() for n in with_.split(",") if n.strip()])  # fmt: skip
    conclude(found, json, out)
