"""Fleets: schedulers side by side on the same jobs and failures, each judged by its log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ersatz.sim.answers.answer import Answer, Overrides, Watch, by_name, override_texts, unwatched
from ersatz.sim.fleet.compare import Difference, Outcome, compare, judged, run_policy
from ersatz.sim.fleet.foreign import parted, read_any_log, read_fleet
from ersatz.sim.fleet.judge.claimed import read_claims
from ersatz.sim.fleet.judge.metrics import series
from ersatz.sim.fleet.log import BROKEN_OFF, STARVED
from ersatz.sim.fleet.policies.conservative import DEPTH
from ersatz.sim.fleet.policies.registry import check_policies, make_scheduler, policy_notes
from ersatz.sim.fleet.reading.contest import Contest, load_contest
from ersatz.sim.report.schedule import render_schedule
from ersatz.sim.report.schedule_record import schedule_files, schedule_record
from ersatz.sim.scenario.shipped import find_scenario

Draws = list[Outcome]


def schedule(
    scenario: str | Path, policies: Sequence[str] = (), overrides: Overrides = (),
    seed: int | None = None, *, trace: str = "", twice: bool = False, watch: Watch = unwatched,
) -> Answer[Draws]:  # fmt: skip
    """Run a fleet under schedulers, compare them, and judge whether each keeps the rules.

    `policies` are names such as "easy:leaf" or files such as "mine.py", by default those of the
    file; `trace` gives the jobs of a trace in place of the file's, `twice` checks that a scheduler is
    deterministic. A record holds an outcome per draw. Raises `InputError` for a faulty file or an
    unknown policy; a scheduler that breaks a rule is no error, the reasons say so.
    """
    contest = load_contest(find_scenario(scenario), override_texts(overrides), seed, trace)
    names = [policies] if isinstance(policies, str) else list(policies)
    outcomes = contest_outcomes(contest, names, twice=twice, watch=watch)
    return contest_answer(contest, outcomes, names)


def contest_outcomes(
    contest: Contest, policies: Sequence[str] = (), *, twice: bool = False, watch: Watch = unwatched
) -> list[Draws]:
    """Run every policy on every draw."""
    names = list(policies or contest.policies)
    check_policies(names)  # every fault of a name before the first run
    outcomes: list[Draws] = []
    with watch(len(names) * len(contest.specs)) as advance:
        for name in names:
            draws = []
            for spec in contest.specs:
                draws.append(run_policy(name, spec, make_scheduler, twice=twice))
                advance(name)
            outcomes.append(draws)
    return outcomes


def contest_answer(
    contest: Contest, outcomes: Sequence[Draws], names: Sequence[str] = ()
) -> Answer[Draws]:
    """Return what outcomes say about a contest; `names` are its policies as they were asked for."""
    differences = compare(outcomes)
    notes = (*contest.assumptions, *policy_notes(names or contest.policies), *_limitless(outcomes),
             *_shallow(outcomes))  # fmt: skip
    told = contest.question, outcomes, differences, tuple(dict.fromkeys(notes))
    return Answer(
        "schedule", by_name((draws[0].policy, draws) for draws in outcomes),
        view=lambda: render_schedule(*told), record=lambda: schedule_record(*told),
        files=lambda: schedule_files(outcomes), reasons=_reasons(outcomes),
    )  # fmt: skip


def _limitless(outcomes: Sequence[Draws]) -> list[str]:
    """Say which policies backfill by limits that no job has."""
    return [f"{draws[0].policy} had no limits to work with: nobody can overtake, as under fifo; give limits"
            " (trace_limit, limit)" for draws in outcomes
            if draws[0].log.claims.backfill and draws[0].log.jobs
            and all(j.walltime_s == math.inf for o in draws for j in o.log.jobs.values())]  # fmt: skip


def _shallow(outcomes: Sequence[Draws]) -> list[str]:
    """Say where more jobs waited than conservative backfilling promises a start at once."""
    return [f"{draws[0].policy} promises the first {DEPTH:,} waiting jobs a start, up to {most:,} waited;"
            " those behind them wait without a promise" for draws in outcomes
            if draws[0].log.claims.backfill == "conservative"
            and (most := max(_longest_queue(o) for o in draws)) > DEPTH]  # fmt: skip


def _longest_queue(outcome: Outcome) -> int:
    return max(series(outcome.log, fragmentation=False).queue, default=0)


def judge_answer(log: str | Path, fleet: str = "", claims: str = "") -> Answer[Draws]:
    """Judge an event log as it is, ours or one made elsewhere (PATH or KIND:PATH).

    `fleet` is a list of the nodes that it ran on, likewise; `claims` what its scheduler promises, in
    place of what the log says (see `read_claims`). Raises `InputError` for a file that is none.
    """
    nodes = read_fleet(*parted(fleet)[::-1]) if fleet else None
    kind, path = parted(str(log))
    found = read_any_log(path, kind, nodes)
    if claims:
        found.log.claims = read_claims(claims)
    name = found.log.about.get("policy", "") or path.stem
    last = found.log.records[-1] if found.log.records else None
    broke_off = last is not None and last.event == "end" and last.value in (BROKEN_OFF, STARVED)
    outcome = judged(name, found.log, last.detail if last is not None and broke_off else "")
    question = f"Does {name} keep the rules, by its log alone?"
    told: tuple[str, list[Draws], list[Difference], tuple[str, ...]] = (
        question, [[outcome]], [], found.notes)  # fmt: skip
    return Answer(
        "schedule", {name: [outcome]}, view=lambda: render_schedule(*told),
        record=lambda: schedule_record(*told), files=lambda: schedule_files([[outcome]]),
        reasons=_reasons([[outcome]]),
    )  # fmt: skip


def _reasons(outcomes: Sequence[Draws]) -> tuple[str, ...]:
    """Say which runs broke off, else which schedulers break the rules or behave badly."""
    stopped = [
        f"infeasible: {o.policy}: {o.reason}" for draws in outcomes for o in draws if o.reason
    ]
    broken = [f"{draws[0].policy} {_how(worst.severity)}" for draws in outcomes
              if (worst := next((o.verdict.first for o in draws if not o.verdict.holds), None))]  # fmt: skip
    return tuple(dict.fromkeys(stopped or broken))


def _how(severity: str) -> str:
    return "breaks the rules" if severity == "rule" else "behaves badly"
