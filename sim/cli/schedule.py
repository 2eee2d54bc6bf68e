"""`ersatz schedule`: a fleet under schedulers, and a verdict on each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ersatz.sim.cli.app import Failure, JsonOption, OutOption, SeedOption, SetOption, app
from ersatz.sim.cli.cases import find_scenario
from ersatz.sim.cli.output import deliver
from ersatz.sim.cli.process.terminal import progress

if TYPE_CHECKING:
    from ersatz.sim.fleet.compare import Outcome
    from ersatz.sim.fleet.file import Contest

DOORS = ("process", "batsim", "slurm")


@app.command(epilog="Example: ersatz schedule four-pools --policy fifo,easy:leaf,my_scheduler.py")
def schedule(
    scenario: Annotated[str, typer.Argument(help="Fleet file, or name of a shipped one.")],
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
    speed: Annotated[float, typer.Option("--speed", min=1, help="Of Slurm's clock.")] = 200.0,
    twice: Annotated[bool, typer.Option("--twice", help="Run all twice: is it deterministic?")] = False,
    json: JsonOption = None, out: OutOption = None, set_: SetOption = None, seed: SeedOption = None,
) -> None:  # fmt: skip
    """Run a fleet under schedulers, compare them, and judge whether each keeps the rules."""
    from ersatz.sim.fleet.compare import compare
    from ersatz.sim.fleet.file import load_contest
    from ersatz.sim.report.schedule import render_schedule
    from ersatz.sim.report.schedule_record import schedule_files, schedule_record

    contest = load_contest(find_scenario(scenario), set_ or [], seed, trace)
    outcomes = _outcomes(contest, policy, door, scheduler, endpoint, speed, twice=twice)
    differences = compare(outcomes)
    view = render_schedule(contest.question, outcomes, differences, contest.assumptions)
    record = schedule_record(contest.question, outcomes, differences, contest.assumptions)
    deliver("schedule", record, view, json, out, schedule_files(outcomes) if out else None)
    stopped = [
        f"infeasible: {o.policy}: {o.reason}" for draws in outcomes for o in draws if o.reason
    ]
    broken = [f"{draws[0].policy} breaks the rules" for draws in outcomes
              if not all(o.verdict.holds for o in draws)]  # fmt: skip
    if stopped or broken:
        raise Failure(1, [*dict.fromkeys(stopped or broken)])


def _outcomes(
    contest: Contest, policy: str | None, door: str, command: str, endpoint: str, speed: float, *,
    twice: bool,
) -> list[list[Outcome]]:  # fmt: skip
    """Run every policy on every draw."""
    from ersatz.sim.fleet.compare import run_policy
    from ersatz.sim.fleet.policies.registry import check_policies, make_scheduler

    if (command or endpoint) and door != "batsim":
        raise Failure(2, ["--scheduler and --endpoint: expected together with --door batsim"])
    if twice and door != "process":
        raise Failure(2, ["--twice: expected without --door; what is outside runs once"])
    names = list(contest.policies) if policy is None else [n for n in policy.split(",") if n]
    if not names:
        raise Failure(2, ["--policy: names nothing; expected at least one policy"])
    check_policies(names)  # every fault of a name before the first run
    if door != "process":
        outside = _at_door(contest, door, command, endpoint, speed)
        beside = names if policy else []
        return [
            *([run_policy(name, contest.specs[0], make_scheduler)] for name in beside),
            [outside],
        ]
    with progress(len(names) * len(contest.specs)) as advance:
        outcomes = []
        for name in names:
            draws = []
            for spec in contest.specs:
                draws.append(run_policy(name, spec, make_scheduler, twice=twice))
                advance(name)
            outcomes.append(draws)
    return outcomes


def _at_door(contest: Contest, kind: str, command: str, endpoint: str, speed: float) -> Outcome:
    """Run the first draw under a scheduler outside."""
    from ersatz.sim.fleet.compare import judged
    from ersatz.sim.fleet.doors.door import Door, run_at_door
    from ersatz.sim.fleet.engine.fleet import RunEndedError

    if kind not in DOORS:
        raise Failure(2, [f"--door: {kind!r} - expected one of {', '.join(DOORS)}"])
    door = Door(kind, command, endpoint, speed=speed)  # type: ignore[arg-type]
    spec = contest.specs[0]
    with progress(len(spec.workload.jobs) if kind == "slurm" else 0) as advance:
        try:
            log = run_at_door(spec, door, advance)
            reason = ""
        except RunEndedError as ended:
            log, reason = ended.log, str(ended)
    name = "slurm" if kind == "slurm" else f"{log.about['policy']}-batsim"
    return judged(name, log, reason)
