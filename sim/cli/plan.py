"""`ersatz plan`: the best layout of a job, and the devices that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ersatz.sim.cli.app import (
    HtmlOption,
    JsonOption,
    OutOption,
    SeedOption,
    SetOption,
    StackOption,
    app,
    with_stack,
)
from ersatz.sim.cli.cases import conclude


@app.command(epilog="Examples: ersatz plan llama3-405b-h100; ersatz plan deepseek-v3 --on 910C --by 60;"
             " ersatz plan llama3-70b --on h100,mi300x --devices 512,1024 --for money;"
             " ersatz plan llama3-70b --mix h800:64,910B2:64")  # fmt: skip
def plan(
    scenario: Annotated[
        str, typer.Argument(help="Scenario, launch file or config.json, name of a shipped scenario or model.")
    ],
    json: JsonOption = None, out: OutOption = None, set_: SetOption = None, seed: SeedOption = None,
    on: Annotated[
        str | None, typer.Option("--on", metavar="NODE[,NODE]", help="Nodes or devices to choose from.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option("--devices", metavar="N[,N]", help="How many; each is looked at.")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="DAYS", help="The fewest devices that are done in time.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="MONEY", help="The soonest that keeps to it: '20 M USD'."),
    ] = None,
    objective: Annotated[
        str | None, typer.Option("--for", metavar="WHAT", help="time, money, energy or devices.")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="KEY[,KEY]", help="Of the file's layout, such as tp,schedule."),
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="No more devices than that.")] = 65_536,
    memory: Annotated[
        str, typer.Option("--memory", help="The least verdict: fits (for sure) or tight.")
    ] = "fits",
    any_: Annotated[
        bool, typer.Option("--any", help="Schedules that the stack is not known to run, too.")
    ] = False,
    tokens: Annotated[
        str | None, typer.Option("--tokens", help="Of the whole job: '15 T tokens'.")
    ] = None,
    legal: Annotated[
        str | None,
        typer.Option("--legal", metavar="DATE", help="Only devices that may be bought on that day."),
    ] = None,
    to: Annotated[str, typer.Option("--to", help="Where they are bought, for --legal.")] = "China",
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="Processes.")] = 1,
    journal: Annotated[
        list[Path] | None,
        typer.Option("--journal", metavar="FILE", help="Keeps what was priced, to go on after a stop;"
                     " the first is written, all are read."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Every N-th layout, for an array job.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="A running Ray cluster that prices: auto, HOST:PORT."),
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option("--mix", metavar="NODE:N[,NODE:N]",
                     help="Several kinds of node in one job, and how many: h800:64,910B2:64."),
    ] = None,
    some: Annotated[
        bool, typer.Option("--some", help="Of a mix any number of nodes up to that.")
    ] = False,
    what_if: Annotated[
        bool, typer.Option("--what-if", help="The best layout with another network, links or memory, too.")
    ] = False,
    stack: StackOption = None, html: HtmlOption = None,
) -> None:  # fmt: skip
    """Find the best layout of a job: degrees, schedule, recomputation, sharding, micro-batch.

    Every layout that model, devices and stack allow is bounded; the winner is timed exactly and proved.
    A layout in the file is not followed but compared with; --keep holds axes of it.
    """
    from ersatz.sim.answers.plan import plan as answer
    from ersatz.sim.cli.process.terminal import say

    conclude(
        answer(
            scenario, with_stack(set_, stack) or (), seed, on=_words(on), devices=_numbers(devices),
            by=by, budget=budget, objective=objective, keep=_words(keep), most=most, memory=memory,
            everything=any_, tokens=tokens, legal_on=legal, to=to, workers=workers,
            journals=journal or (), shard=_shard(shard), tell=say,
            mix=mix, some=some, ray=ray, what_if=what_if,
        ),
        json, out, html,
    )  # fmt: skip


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _numbers(text: str | None) -> list[int]:
    from ersatz.device_models.text.problems import InputError, Problem

    found = []
    for word in _words(text):
        if not word.isdecimal() or len(word) > 7 or not int(word):
            expected = "expected whole numbers of devices, such as 512,1024"
            raise InputError([Problem("--devices", 0, 0, "", word[:40], expected)])
        found.append(int(word))
    return found


def _shard(text: str | None) -> tuple[int, int] | None:
    from ersatz.device_models.text.problems import InputError, Problem

    if text is None:
        return None
    part, slash, parts = text.partition("/")
    fine = slash and part.isdecimal() and parts.isdecimal() and len(parts) < 6
    if not fine or not 1 <= int(part) <= int(parts):
        expected = "expected I/N with I from 1 to N, such as 1/4"
        raise InputError([Problem("--shard", 0, 0, "", text[:40], expected)])
    return int(part), int(parts)
