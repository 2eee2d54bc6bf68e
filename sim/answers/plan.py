"""Plans: the best layout of a job, the fewest devices for a date, the soonest for a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from ersatz.device_models.catalog.export import load_part
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.units import UnitError, format_bytes, parse_money, parse_quantity
from ersatz.sim.answers.answer import Answer, Overrides, override_texts
from ersatz.sim.answers.legal import legal
from ersatz.sim.answers.mixes import is_mix, plan_mix
from ersatz.sim.errors import InfeasibleError, LayoutError
from ersatz.sim.exporting.formats import export_scenario
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.report.pictures.plan_plot import plan_pictures
from ersatz.sim.report.planning import Given, Told, plan_record, render_plan, told_plans
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.journal import Journal, Remembering, question_key
from ersatz.sim.search.mix.choice import MixOption
from ersatz.sim.search.pricing import VERDICTS, Price, Pricer, Watched
from ersatz.sim.search.reading import Question, read_question
from ersatz.sim.search.remote import on_cluster
from ersatz.sim.search.whatif import what_ifs
from ersatz.sim.search.wish import (
    MOST_DEVICES,
    Objective,
    Option,
    Planned,
    Pricers,
    Wish,
    in_place,
    seek,
)
from ersatz.sim.search.workers import Tell, many
from ersatz.sim.search.writing import scenario_text
from ersatz.sim.step.step import step_seconds

FORMATS = {"megatron": "megatron", "mindspeed": "mindspeed", "primus": "primus", "ling": "megatron",
           "torchtitan": "torchtitan", "automodel": "automodel", "deepspeed": "deepspeed",
           "pangu": "mindspeed"}  # by how a stack's name begins  # fmt: skip


def plan(
    scenario: str | Path, overrides: Overrides = (), seed: int | None = None, *,
    on: Sequence[str] = (), devices: Sequence[int] = (), by: str | float | None = None,
    budget: str | None = None, objective: str | None = None, keep: Sequence[str] = (),
    most: int = MOST_DEVICES, memory: str = "fits", everything: bool = False,
    tokens: str | None = None, legal_on: str | None = None, to: str = "China",
    workers: int = 1, journals: Sequence[Path] = (), shard: tuple[int, int] | None = None,
    tell: Tell = lambda words: None, seen: Callable[[Price], None] | None = None,
    mix: str | None = None, some: bool = False, ray: str | None = None, what_if: bool = False,
) -> Answer[Option] | Answer[MixOption]:  # fmt: skip
    """Find the fastest layout of a job, on devices as given or to be chosen.

    Takes a scenario, a launch file or the name of a model. `on` names nodes or devices, `devices` how
    many to look at; with `by` (days, or a text such as "60 days") it looks for the fewest that are done
    in time, with `budget` ("20 M USD") for the soonest that keeps to it. `objective` is time, money,
    energy or devices; `keep` holds axes of the file's layout; `memory` is the least verdict, fits or
    tight; with `everything` the stack is offered schedules that it is not known to run. Devices that may
    not be bought on the day `legal_on` are left out.

    `workers` processes price layouts. `journals` keep what was priced: a search that was killed goes on
    where it was, with the same answer; the first is written, all are read. `shard` (i, n) looks at every
    n-th layout alone; a search that reads the journals of all shards merges them. `ray` is the address of a
    running Ray cluster that prices layouts instead, by `workers` or all of its processors. `tell` hears what
    goes wrong with processes, `seen` each price of a layout as the search goes on.

    `mix` names several kinds of node that share one job, and how many of each ("h800:64,910B2:64"); so
    does a scenario with `cluster.pools`. With `some` any number of each up to that may be taken.

    With `what_if` the best layout is looked for again on machines with another network, links or memory.

    Raises `InputError` for what is wrong and `InfeasibleError` where no choice can be run.
    """
    texts = override_texts(overrides)
    question = read_question(
        str(scenario), texts, seed, on=on, keep=keep, tokens=tokens, placed_later=bool(mix)
    )
    if is_mix(question, mix):
        _plain({"--on": on, "--devices": devices, "--keep": keep, "--journal": journals, "--shard": shard,
                "--legal": legal_on, "--workers": workers > 1, "--ray": ray,
                "--what-if": what_if})  # fmt: skip
        wish = _wish(by, budget, objective or "time", most, memory, everything)
        return plan_mix(question, wish, mix, some=some, tell=tell)
    if some:
        raise InputError([Problem("--some", 0, 0, "", "", "needs several pools: say --mix")])
    wish = replace(_wish(by, budget, objective, most, memory, everything), shard=shard)
    barred = _barred(question, legal_on, to)
    with _pricers(workers, journals, tell, ray, seen) as pricers:
        planned = seek(question, wish, devices, pricers)
    planned = replace(planned, failed=(*barred, *planned.failed))
    if not planned.options and not planned.others:
        raise InfeasibleError("\n".join(planned.failed))
    return _answer(question, planned, memory if what_if else None)


def _answer(question: Question, planned: Planned, changed: str | None) -> Answer[Option]:
    """Return what was found; with `changed` also on other machines, that being the least verdict."""
    plans = told_plans(planned.options[0]) if planned.options else []
    given = _given(question, planned)
    changes = (
        list(what_ifs(planned.options[0], question.held, changed))
        if changed and planned.options else []
    )  # fmt: skip
    return Answer(
        "plan", {_name(option): option for option in planned.options},
        view=lambda: render_plan(planned, plans, given, changes),
        record=lambda: plan_record(planned, plans, given, changes),
        files=lambda: {**_layout_files(planned, plans), **plan_pictures(planned, plans)},
        reasons=() if planned.options else ("infeasible: nothing keeps to what was asked",),
    )  # fmt: skip


def _plain(options: Mapping[str, object]) -> None:
    """Refuse what a mix does not go with, all at once."""
    problems = [Problem(name, 0, 0, "", "", "does not go with a mix of devices")
                for name, value in options.items() if value]  # fmt: skip
    if problems:
        raise InputError(problems)


def _wish(
    by: str | float | None, budget: str | None, objective: str | None, most: int, memory: str,
    everything: bool,
) -> Wish:  # fmt: skip
    """Return what is wished for; every fault of it at once."""
    problems = []

    def wrong(option: str, value: object, words: str) -> None:
        problems.append(Problem(option, 0, 0, "", str(value)[:40], words))

    by_s, amount = math.inf, math.inf
    try:
        by_s = _days(by)
    except UnitError as error:
        wrong("--by", by, str(error))
    try:
        amount = parse_money(budget, "money")[0] if budget else math.inf
        if amount <= 0:
            raise UnitError("expected money above 0")
    except UnitError as error:
        wrong("--budget", budget, str(error))
    chosen = objective or ("devices" if by_s < math.inf else "time")
    if chosen not in get_args(Objective):
        wrong("--for", chosen, f"expected one of {', '.join(get_args(Objective))}")
    if memory not in VERDICTS[1:]:
        wrong("--memory", memory, f"expected one of {', '.join(VERDICTS[1:])}")
    if problems:
        raise InputError(problems)
    return Wish(cast(Objective, chosen), by_s, amount, most, memory, everything)


def _days(by: str | float | None) -> float:
    """Return seconds of days, which need no unit, or of a text with one; raises `UnitError`."""
    if by is None:
        return math.inf
    text = str(by).strip()
    found = parse_quantity(f"{text} days" if text[-1:].isdigit() else text, "time")
    if found <= 0:
        raise UnitError("expected days, or a time with its unit, above 0")
    return found


def _barred(question: Question, day: str | None, to: str) -> list[str]:
    """Take nodes whose devices may not be bought on a day out of a question; says which and why."""
    if day is None:
        if to != "China":
            raise InputError(
                [Problem("--to", 0, 0, "", to[:40], "says where to buy: needs --legal DATE")]
            )
        return []
    names = [node.device.name for node in question.nodes]
    if not names:
        raise InputError([Problem("--legal", 0, 0, "", day, "needs the devices: say --on NODE")])
    (answer,) = legal(*names, dates=day, to=to).values()
    verdicts = {
        name: answer.verdicts[load_part(name).name][0] for name in names
    }  # a die is sold whole
    barred = [f"{name} may not be bought on {day} in {to}: {verdicts[name].meaning}"
              for name in names if not verdicts[name].may_buy]  # fmt: skip
    question.nodes = tuple(n for n in question.nodes if verdicts[n.device.name].may_buy)
    if not question.nodes:
        raise InfeasibleError("\n".join(barred))
    return barred


@contextmanager
def _pricers(
    workers: int, journals: Sequence[Path], tell: Tell, ray: str | None,
    seen: Callable[[Price], None] | None,
) -> Iterator[Pricers]:  # fmt: skip
    """Give what prices layouts: here, in processes or on a cluster, remembered in journals, watched."""
    with ExitStack() as open_:
        make = in_place if workers == 1 else many(workers, tell)
        if ray:
            make = open_.enter_context(on_cluster(ray, workers, tell))
        if journals:
            make = _remembered(journals, make, open_)
        yield _watched(make, seen) if seen else make


def _remembered(journals: Sequence[Path], make: Pricers, open_: ExitStack) -> Pricers:
    """Give what looks into journals first: they are opened once there is something to price."""
    opened: list[Journal] = []

    def remembering(case: Scenario, least: str) -> Pricer:
        if not opened:
            opened.append(Journal(journals))
            open_.callback(opened[0].close)
        return Remembering(opened[0], question_key(case, least), make(case, least))

    return remembering


def _watched(make: Pricers, seen: Callable[[Price], None]) -> Pricers:
    return lambda case, least: Watched(make(case, least), seen)


def _given(question: Question, planned: Planned) -> Given:
    """Return the step of the file's own layout on the same devices, or why there is none."""
    if question.given is None or not planned.options:
        return Given()
    best = planned.options[0].scenario.pools
    own = question.given.pools
    if [(p.node, p.nodes, p.stack) for p in own] != [(p.node, p.nodes, p.stack) for p in best]:
        return Given(remark="is for other devices: not compared")
    try:
        seconds = step_seconds(question.given)
    except (InfeasibleError, LayoutError) as error:
        return Given(remark=f"cannot be run: {error}")
    memory = plan_memory(question.given, advise=False)
    if VERDICTS.index(memory.verdict) >= VERDICTS.index(planned.wish.least):
        return Given(seconds)
    held = f"{format_bytes(memory.peak_bytes)} of {format_bytes(memory.capacity_bytes)}"
    says = "is tight" if memory.verdict == "tight" else memory.verdict
    return Given(seconds, f"{says}: it takes {held} of memory")


def _name(option: Option) -> str:
    return f"{option.devices} x {option.scenario.pools[0].node.device.name}"


def _layout_files(planned: Planned, plans: Sequence[Told]) -> Mapping[str, str]:
    """Return a scenario file of each layout, and the flags of each where a trainer's are known."""
    if not planned.options:
        return {}
    data, files = planned.options[0].data, {}
    for number, told in enumerate(plans, start=1):
        beside = {"memory": told.leaving.keys if told.leaving else {}, "fabric": told.place}
        files[f"plan-{number:02}.yaml"] = scenario_text(data, told.scenario, told.seconds, beside)
        if text := _flags(told.scenario):
            files[f"plan-{number:02}.txt"] = text
    return files


def _flags(scenario: Scenario) -> str | None:
    """Return a layout as the flags of its stack's trainer; None where they are not known."""
    name = scenario.pools[0].stack.name
    to = next((to for begin, to in FORMATS.items() if name.startswith(begin)), None)
    try:
        return export_scenario(scenario, to).text if to else None
    except InputError:
        return None
