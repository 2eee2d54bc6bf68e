"""`ersatz schedule`: a fleet under schedulers, and a verdict on each of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ersatz.sim.cli.app import (
    Failure,
    HtmlOption,
    JsonOption,
    OutOption,
    SeedOption,
    SetOption,
    app,
)
from ersatz.sim.cli.cases import conclude
from ersatz.sim.cli.process.terminal import progress
from ersatz.sim.scenario.shipped import find_scenario

if TYPE_CHECKING:
    from ersatz.sim.answers.answer import Answer
    from ersatz.sim.cli.output import Drawing
    from ersatz.sim.fleet.compare import Outcome
    from ersatz.sim.fleet.doors.door import Door
    from ersatz.sim.fleet.log import Claims
    from ersatz.sim.fleet.reading.contest import Contest

DOORS = ("process", "batsim", "slurm")


@app.command(
    epilog="Examples: ersatz schedule four-pools --policy fifo,easy:leaf,my_scheduler.py;"
    " ersatz schedule --judge results/fifo.log.csv"
)
def schedule(
    scenario: Annotated[str, typer.Argument(help="Fleet file, or name of a shipped one.")] = "",
    policy: Annotated[
        str | None, typer.Option("--policy", metavar="A,B,...", help="Schedulers, by name or file.py.")
    ] = None,
    trace: Annotated[
        str, typer.Option("--trace", metavar="[KIND:]PATH", help="Jobs of a trace in place of the file's.")
    ] = "",
    door: Annotated[str, typer.Option("--door", help="process, batsim or slurm.")] = "process",
    scheduler: Annotated[
        str, typer.Option("--scheduler", metavar="COMMAND", help="What speaks Batsim at {endpoint}.")
    ] = "",
    endpoint: Annotated[
        str, typer.Option("--endpoint", metavar="ADDRESS", help="Where a running Batsim scheduler listens.")
    ] = "",
    state_numbers: Annotated[
        bool, typer.Option("--state-numbers", help="Tell it states of devices as numbers.")
    ] = False,
    speed: Annotated[
        float, typer.Option("--speed", min=1, help="Of Slurm's clock, or the exporter's.")
    ] = 200.0,
    slurm_conf: Annotated[
        str, typer.Option("--slurm-conf", metavar="FILE", help="Its partitions, priorities, preemption.")
    ] = "",
    slurm_assoc: Annotated[
        str, typer.Option("--slurm-assoc", metavar="FILE", help="Its accounts: a dump of sacctmgr.")
    ] = "",
    judge: Annotated[
        str, typer.Option("--judge", metavar="[KIND:]LOG", help="Judge a log: sacct, batsim, kubernetes.")
    ] = "",
    fleet: Annotated[
        str, typer.Option("--fleet", metavar="[KIND:]NODES", help="Nodes that the judged log ran on.")
    ] = "",
    claims: Annotated[
        str, typer.Option("--claims", metavar="A,B,...", help="What it promises: easy,reclaim=10 min,...")
    ] = "",
    exporter: Annotated[
        int, typer.Option("--exporter", metavar="PORT", help="Then serve the first run as DCGM's metrics.")
    ] = 0,
    twice: Annotated[bool, typer.Option("--twice", help="Run all twice: is it deterministic?")] = False,
    json: JsonOption = None, out: OutOption = None, set_: SetOption = None, seed: SeedOption = None,
    html: HtmlOption = None,
    timeline: Annotated[
        Path | None, typer.Option("--timeline", metavar="FILE", help="Write the fleets for Perfetto.")
    ] = None,
) -> None:  # fmt: skip
    """Run a fleet under schedulers, compare them, and judge whether each keeps the rules."""
    from ersatz.sim.answers.schedule import contest_answer, judge_answer
    from ersatz.sim.fleet.doors.door import Door
    from ersatz.sim.fleet.reading.contest import load_contest

    if judge:
        driven = bool(scenario or policy or trace or twice or door != "process")
        _refuse((driven, "--judge: expected alone with a log, without a scenario or a scheduler"))
        found = judge_answer(judge, fleet, claims)
        return conclude(found, json, out, html, _traced(timeline, found))
    _refuse(
        (claims and door != "batsim",
         "--claims: expected with --door batsim or --judge; others claim by themselves"),
        (slurm_conf and door != "slurm", "--slurm-conf: expected together with --door slurm"),
        (state_numbers and door != "batsim", "--state-numbers: expected together with --door batsim"),
        (slurm_assoc and not slurm_conf, "--slurm-assoc: expected together with --slurm-conf"),
        (fleet, "--fleet: expected with --judge; a scenario names its nodes itself"),
        (not scenario, "SCENARIO: is missing; expected a fleet file, or --judge with a log"),
    )  # fmt: skip
    contest = load_contest(find_scenario(scenario), set_ or [], seed, trace)
    outside = Door(door, scheduler, endpoint, speed=speed, claims=_promised(claims),  # type: ignore[arg-type]
                   conf=slurm_conf, assoc=slurm_assoc, state_numbers=state_numbers)  # fmt: skip
    contest = _as_told(contest, outside)
    outcomes = _outcomes(contest, policy, outside, twice=twice)
    asked = [n for n in (policy or "").split(",") if n]
    found = contest_answer(contest, outcomes, asked)
    conclude(found, json, out, html, _traced(timeline, found))
    if exporter:
        _export(outcomes[0][0], exporter, speed)


def _refuse(*faults: tuple[object, str]) -> None:
    """Refuse the first option that does not go with the others."""
    for wrong, words in faults:
        if wrong:
            raise Failure(2, [words])


def _promised(claims: str) -> Claims | None:
    """Return what a scheduler outside claims, where that was said."""
    from ersatz.sim.fleet.judge.claimed import read_claims

    return read_claims(claims) if claims else None


def _as_told(contest: Contest, door: Door) -> Contest:
    """Return the contest with what Slurm is told of it otherwise than it stands there."""
    from ersatz.sim.fleet.doors.door import told_to_slurm

    if door.kind != "slurm":
        return contest
    notes = told_to_slurm(contest.specs[0], door).notes
    return replace(contest, assumptions=(*contest.assumptions, *notes))


def _traced(file: Path | None, answer: Answer[list[Outcome]]) -> dict[Path, Drawing]:
    """Return the timeline that was asked for, by its file."""
    if file is None:
        return {}
    from ersatz.sim.answers.trace import trace
    from ersatz.sim.report.timelines.chrome import unpacked

    data = trace(answer)
    return {file: unpacked(data) if file.suffix == ".json" else data}


def _export(outcome: Outcome, port: int, speed: float) -> None:
    """Serve the metrics of a run until an interrupt."""
    from ersatz.sim.fleet.doors.exporter import exporter

    server = exporter(outcome.log, port, speed)
    typer.echo(f"metrics of {outcome.policy} at http://127.0.0.1:{port}/metrics, {speed:g} times as fast"
               " as real; Ctrl-C ends", err=True)  # fmt: skip
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()


def _outcomes(
    contest: Contest, policy: str | None, door: Door, *, twice: bool
) -> list[list[Outcome]]:
    """Run every policy on every draw."""
    from ersatz.sim.answers.schedule import contest_outcomes
    from ersatz.sim.fleet.policies.registry import check_policies

    names = list(contest.policies) if policy is None else [n for n in policy.split(",") if n]
    _refuse(
        (door.kind not in DOORS, f"--door: {door.kind!r} - expected one of {', '.join(DOORS)}"),
        ((door.scheduler or door.endpoint) and door.kind != "batsim",
         "--scheduler and --endpoint: expected together with --door batsim"),
        (twice and door.kind != "process", "--twice: expected without --door; what is outside runs once"),
        (not names, "--policy: names nothing; expected at least one policy"),
    )  # fmt: skip
    if door.kind == "process":
        return contest_outcomes(contest, names, twice=twice, watch=progress)
    first = replace(contest, specs=contest.specs[:1])
    check_policies(names)
    beside = contest_outcomes(first, names) if policy else []
    return [*beside, [_at_door(contest, door)]]


def _at_door(contest: Contest, door: Door) -> Outcome:
    """Run the first draw under a scheduler outside."""
    from ersatz.sim.fleet.compare import judged
    from ersatz.sim.fleet.doors.door import run_at_door
    from ersatz.sim.fleet.engine.fleet import RunEndedError

    spec = contest.specs[0]
    with progress(len(spec.workload.jobs) if door.kind == "slurm" else 0) as advance:
        try:
            log = run_at_door(spec, door, advance)
            reason = ""
        except RunEndedError as ended:
            log, reason = ended.log, str(ended)
    name = "slurm" if door.kind == "slurm" else f"{log.about['policy']}-batsim"
    return judged(name, log, reason)
