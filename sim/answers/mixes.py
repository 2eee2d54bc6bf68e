"""Mixes: several kinds of device in one job, which of them, and who does what."""

from __future__ import annotations

from collections.abc import Mapping

from ersatz.sim.answers.answer import Answer
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.report.plans.mixes import devices_words, mix_record, render_mix
from ersatz.sim.search.mix.choice import (
    MixOption,
    PlannedMix,
    pool_names,
    read_mix,
    seek_mix,
    with_pools,
)
from ersatz.sim.search.reading import Question
from ersatz.sim.search.wish import Wish
from ersatz.sim.search.workers import Tell
from ersatz.sim.search.writing import scenario_text


def is_mix(question: Question, mix: str | None) -> bool:
    """Tell whether a question is about several kinds of device in one job."""
    return bool(mix) or (len(pool_names(question)) > 1 and not question.nodes)


def plan_mix(
    question: Question, wish: Wish, mix: str | None, *, some: bool, tell: Tell
) -> Answer[MixOption]:  # fmt: skip
    """Find the best layout over several pools, beside each of them alone.

    Raises `InputError` for what is wrong and `InfeasibleError` where nothing can be run.
    """
    if mix:
        with_pools(question, read_mix(mix))
    planned = seek_mix(question, wish, some=some, tell=tell)
    if not planned.options and not planned.others:
        raise InfeasibleError("\n".join(planned.failed))
    return Answer(
        "plan", {devices_words(option): option for option in planned.options},
        view=lambda: render_mix(planned),
        record=lambda: mix_record(planned),
        files=lambda: _files(planned),
        reasons=() if planned.options else ("infeasible: nothing keeps to what was asked",),
    )  # fmt: skip


def _files(planned: PlannedMix) -> Mapping[str, str]:
    """Return a scenario file of each mix, and of each way to share the best one."""
    found = {}
    for number, option in enumerate(planned.options, start=1):
        for rank, one in enumerate(option.found.plans):
            name = f"mix-{number:02}{f'-{rank + 1}' if rank else ''}.yaml"
            found[name] = scenario_text(option.data, one.scenario, one.seconds)
    return found
