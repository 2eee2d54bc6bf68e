"""The terminal report of a plan: the answer and its layout first, then what else, and why not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.text.units import (
    format_bytes,
    format_duration,
    format_money,
    format_si,
)
from ersatz.sim.plan.memory.verdict import room_for_sure
from ersatz.sim.report.json_out import plain
from ersatz.sim.report.run import NOTICE
from ersatz.sim.scenario.scenario import Scenario, layout_words
from ersatz.sim.search.best import Priced
from ersatz.sim.search.space import layout_of
from ersatz.sim.search.wish import Option, Planned, Wish, front, keeps
from ersatz.sim.search.writing import parallel_keys
from ersatz.sim.step.step import simulate_step

DAY = 86_400.0
WORK = ("matrix", "attention", "experts", "vocabulary", "elementwise")  # that no layout spares
MOST_NOTES = 4
SMALL = 0.005  # of a step: differences that are not told


@dataclass(frozen=True, slots=True)
class Told:
    """A layout with where its time goes."""

    priced: Priced
    scenario: Scenario
    breakdown: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """Seconds of a step."""
        return self.priced.price.seconds

    @property
    def spare(self) -> float:
        """Bytes of the device that are left."""
        return self.scenario.pools[0].node.device.memory_bytes - self.priced.price.peak_bytes


def told_plans(option: Option) -> list[Told]:
    """Return the layouts of an option with where their time goes."""
    found = []
    for priced in option.found.plans:
        scenario = layout_of(option.found.scenario, priced.row)
        found.append(Told(priced, scenario, simulate_step(scenario).breakdown))
    return found


def render_plan(planned: Planned, plans: Sequence[Told], given: float | None) -> RenderableType:
    """Return the report: answer, layout, proof; the layouts that differ in kind; the other devices."""
    if not planned.options:
        return Group(*(Text(line) for line in _nothing(planned)))
    best = planned.options[0]
    parts: list[RenderableType] = [
        Text(line, style=style) for line, style in _answer(planned, given)
    ]
    if len(plans) > 1:
        parts += [Text(""), _layouts(plans)]
    if len(planned.options) + len(planned.others) > 1:
        parts += [Text(""), _options(planned)]
    parts += [Text(line) for line in _beyond(best, plans)]
    parts += [Text(line) for line in _notes(best, planned.failed)]
    return Group(*parts, Text(NOTICE, style="dim"))


def _answer(planned: Planned, given: float | None) -> Iterator[tuple[str, str]]:
    best, wish = planned.options[0], planned.wish
    result, found = best.result, best.found
    yield f"{_cluster(best)}: {_headline(best, wish)}", "bold"
    yield f"layout   {layout_words(best.scenario)}", ""
    memory = result.memory
    step = result.step
    compared = ""
    if given is not None:
        more = 100 * (given / step.duration_s - 1.0)
        compared = f"; the file's own layout takes {format_duration(given)} ({more:+.0f} %)"
    yield (f"step     {format_duration(step.duration_s)} (80 %: {format_duration(step.low80_s)} -"
           f" {format_duration(step.high80_s)}), MFU {100 * step.mfu:.1f} %{compared}"), ""  # fmt: skip
    yield (f"memory   {format_bytes(memory.peak_bytes)} of {format_bytes(memory.capacity_bytes)}:"
           f" {memory.verdict} ({100 * memory.fit_probability:.0f} % probable)"), ""  # fmt: skip
    yield f"limited by {_limits(best)}", ""
    yield (f"proved   of {found.layouts:,} layouts {found.may_fit:,} may fit; {found.timed:,} were timed"
           " exactly, and no other can be faster"), ""  # fmt: skip


def _headline(option: Option, wish: Wish) -> str:
    """Say what was asked for: the job with its interval, or the step alone."""
    job, chance, cost = option.result.job, option.result.chance, option.result.cost
    if job is None or chance is None:
        return f"a step of {format_duration(option.result.step.duration_s)}"
    words = (f"{job.wall_s / DAY:.1f} days (80 %: {chance.wall_low80_s / DAY:.1f} -"
             f" {chance.wall_high80_s / DAY:.1f})")  # fmt: skip
    if cost:
        words += f", {format_money(cost.total, cost.currency)}"
    if option.result.energy and wish.objective == "energy":
        words += f", {format_si(option.result.energy.kwh * 1e3, 'Wh')}"
    return words


def _cluster(option: Option) -> str:
    pool = option.scenario.pools[0]
    return f"{pool.devices:,} x {pool.node.device.name}"


def _limits(option: Option) -> str:
    """Name what of a step is no work of the model, the largest first."""
    step = option.result.step
    shares = [(seconds / step.duration_s, cause) for cause, seconds in step.breakdown.items()
              if cause not in WORK]  # fmt: skip
    found = [f"{cause} {100 * share:.0f} %" for share, cause in sorted(shares, reverse=True)[:3]
             if share >= SMALL]  # fmt: skip
    return ", ".join(found) or "the kernels alone"


def _layouts(plans: Sequence[Told]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("step", "free", "layout, each of another kind", "against the best"):
        table.add_column(name, justify="right" if name in ("step", "free") else "left")
    best = plans[0]
    for told in plans:
        table.add_row(format_duration(told.seconds), format_bytes(max(told.spare, 0.0)),
                      _short(told.scenario), _why(told, best))  # fmt: skip
    return table


def _short(scenario: Scenario) -> str:
    """Write a layout in few letters: tp8 pp16 vp8 dp128 z1 mb1."""
    p, t = scenario.parallel, scenario.training
    words = [f"{name}{value}" for name, value in (("tp", p.tp), ("cp", p.cp), ("ep", p.ep),
             ("etp", p.etp), ("pp", p.pp), ("vp", p.vp)) if value > 1]  # fmt: skip
    words += [p.schedule] if p.pp > 1 and p.vp == 1 else []
    words += [f"dp{p.dp}", f"z{p.zero}"] if p.dp > 1 else []
    words += [f"shard{p.shard}"] if p.shard else []
    words += [p.recompute] if p.recompute != "none" else []
    words += ["no-sp"] if p.tp > 1 and not p.sequence_parallel else []
    return " ".join([*words, f"mb{t.micro_batch}"])


def _why(told: Told, best: Told) -> str:
    """Say where a layout loses most against the best, and where it gains."""
    if told is best:
        return ""
    causes = {*told.breakdown, *best.breakdown}
    change = {c: told.breakdown.get(c, 0.0) - best.breakdown.get(c, 0.0) for c in causes}
    order = sorted(causes, key=lambda c: (-change[c], c))
    least = SMALL * best.seconds
    shown = [c for c in (order[0], order[-1]) if abs(change[c]) > least]
    words = [f"{c} {100 * change[c] / best.seconds:+.0f} %" for c in shown]
    return (
        f"{100 * (told.seconds / best.seconds - 1):+.1f} %: {', '.join(words) or 'little of each'}"
    )


def _options(planned: Planned) -> Table:
    """Return the choices of devices side by side; those on the front of time and money are marked."""
    table = Table(box=None, pad_edge=False)
    every = [*planned.options, *planned.others]
    jobs = any(option.result.job for option in every)
    best = {id(option) for option in front(every)}
    for name in ("devices", "days" if jobs else "step", "cost", "energy", "layout", ""):
        right = name in ("days", "step", "cost", "energy")
        table.add_column(name, justify="right" if right else "left")
    for option in every:
        cost, energy = option.result.cost, option.result.energy
        mark = keeps(option, planned.wish) or ("on the front" if id(option) in best else "")
        table.add_row(
            _cluster(option),
            f"{option.wall_s / DAY:.1f}" if jobs else format_duration(option.wall_s),
            format_money(cost.total, cost.currency) if cost else "-",
            format_si(energy.kwh * 1e3, "Wh") if energy else "-",
            _short(option.scenario), mark,
        )  # fmt: skip
    return table


def _beyond(option: Option, plans: Sequence[Told]) -> Iterator[str]:
    """Say what more memory would open: the least bound that did not fit."""
    roomier = option.found.roomier
    if roomier is None:
        return
    need = room_for_sure(roomier.price.peak_bytes)
    scenario = layout_of(option.found.scenario, roomier.row)
    yield ""
    yield (f"With {format_bytes(need)} on each device a step could take {format_duration(roomier.bound_s)}"
           f" at the least: {_short(scenario)}")  # fmt: skip


def _notes(option: Option, failed: Sequence[str]) -> Iterator[str]:
    words = [*failed, *_remarks(option), *option.scenario.assumptions]
    if not words:
        return
    yield ""
    yield "assumed, because nothing is said:" if not failed else "not possible, and assumed:"
    for number, text in enumerate(words[:MOST_NOTES], start=1):
        yield f" {number}. {text}"
    more = len(words) - MOST_NOTES
    if more > 0:
        yield f"    and {more} more (--json lists all)"


def _remarks(option: Option) -> list[str]:
    """Say what the search itself took for granted, and what it could not say."""
    unpriced = "no cost: no rent is known; --set 'cost={currency: USD, rent: 2 USD/h}' says one" * (
        not option.result.cost
    )
    return [*filter(None, [unpriced, option.choices.remark]), option.choices.reach]


def _nothing(planned: Planned) -> Iterator[str]:
    """Say why nothing keeps to the wish, and what comes nearest."""
    wish = planned.wish
    asked = []
    if wish.by_s < math.inf:
        asked.append(f"is done in {wish.by_s / DAY:g} days")
    if wish.budget < math.inf:
        asked.append("keeps to the budget")
    yield f"No choice of devices {' and '.join(asked) or 'can run the job'}, up to {wish.most_devices:,}."
    for option in planned.others:
        yield f"  {_cluster(option)}: {_headline(option, wish)}; {keeps(option, wish)}"
    yield from (f"  {words}" for words in planned.failed)


def plan_record(planned: Planned, plans: Sequence[Told], given: float | None) -> dict[str, Any]:
    """Return the answer as plain data."""
    best = planned.options[0] if planned.options else None
    return {
        "question": str(planned.question.case.data.get("question", "")),
        "objective": planned.wish.objective,
        "best": _record(best) if best else None,
        "given_step_s": given,
        "plans": [_told(told) for told in plans],
        "options": [_record(option) for option in planned.options],
        "others": [{**_record(option), "fails": keeps(option, planned.wish)}
                   for option in planned.others],
        "failed": list(planned.failed),
        "notice": NOTICE,
    }  # fmt: skip


def _record(option: Option) -> dict[str, Any]:
    found = option.found
    return {
        "node": option.scenario.pools[0].node.name, "devices": option.devices,
        "stack": option.scenario.pools[0].stack.name,
        "parallel": parallel_keys(option.scenario.parallel),
        "micro_batch": option.scenario.training.micro_batch,
        "result": plain(option.result),
        "search": {"layouts": found.layouts, "may_fit": found.may_fit, "checked": found.checked,
                   "timed": found.timed, "remarks": _remarks(option)},
    }  # fmt: skip


def _told(told: Told) -> dict[str, Any]:
    return {
        "parallel": parallel_keys(told.scenario.parallel),
        "micro_batch": told.scenario.training.micro_batch,
        "step_s": told.seconds, "bound_s": told.priced.bound_s,
        "memory_bytes": told.priced.price.peak_bytes, "memory": told.priced.price.verdict,
        "breakdown": plain(told.breakdown),
    }  # fmt: skip
