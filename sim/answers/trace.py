"""Timelines for Perfetto: `trace`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ersatz.device_models.kernels.kernel import Timer
from ersatz.sim.answers.answer import Answer, Overrides
from ersatz.sim.answers.cases import load, simulate
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.records import RunResult
from ersatz.sim.report.timelines.fleet_trace import fleet_trace
from ersatz.sim.report.timelines.step_trace import calibrated_timer, step_trace
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.ranks.timeline import check_ranks, count_pieces

MOST_EVENTS = 3_000_000


def trace(
    what: str | Path | Scenario | Answer[Any], ranks: Sequence[int] = (), overrides: Overrides = (),
    seed: int | None = None,
) -> bytes:  # fmt: skip
    """Return a timeline that Perfetto opens: Chrome's trace format, compressed with gzip.

    Of a scenario (as `run` takes it) one step of `ranks` of each case, by default the first rank of
    every stage: kernels with shapes, collectives with bytes and group, the host's launches, memory. Of an
    answer of `schedule` the fleet under each policy, first draw. Raises `InputError` for a rank that
    there is not, and `InfeasibleError` where no case can be run.
    """
    if isinstance(what, Answer):
        if what.verb != "schedule":
            raise TypeError(f"{what.verb}: expected an answer of schedule, or a scenario")
        return fleet_trace([draws[0] for draws in what.values()], str(what.to_dict()["question"]))
    cases = (what,) if isinstance(what, Scenario) else load(what, overrides, seed)
    done, results, _ = simulate(cases)
    return trace_of(done, results, ranks)


def trace_of(
    cases: Sequence[Scenario], results: Sequence[RunResult], ranks: Sequence[int] = (),
    timer_of: Callable[[Scenario], Timer] = calibrated_timer,
) -> bytes:  # fmt: skip
    """Return the timeline of cases that were run; raises `InputError` for a rank that there is not."""
    ranks = tuple(dict.fromkeys(ranks))  # a rank is drawn once
    try:
        for case in cases:
            check_ranks(case, ranks)
    except ValueError as error:
        raise InputError([Problem("--ranks", 0, 0, "", "", str(error))]) from error
    events = sum(count_pieces(case, ranks, timer_of(case)) for case in cases)
    if events > MOST_EVENTS:
        words = f"would be {events:,} events; expected at most {MOST_EVENTS:,}: name fewer ranks"
        raise InputError([Problem("--ranks", 0, 0, "", "", words)])
    named = [replace(c, name=r.name) for c, r in zip(cases, results, strict=True)]
    return step_trace(named, results, ranks, timer_of)
