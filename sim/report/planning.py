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
from ersatz.sim.plan.layout import shown_split
from ersatz.sim.plan.memory.verdict import room_for_sure
from ersatz.sim.report.json_out import plain
from ersatz.sim.report.run import NOTICE
from ersatz.sim.scenario.scenario import Scenario, layout_words
from ersatz.sim.search.best import Priced
from ersatz.sim.search.finer.chosen import Chosen
from ersatz.sim.search.host.away import WAYS, keys_of
from ersatz.sim.search.host.second import Leaving, leaving
from ersatz.sim.search.space import HOST, layout_of
from ersatz.sim.search.whatif import WhatIf
from ersatz.sim.search.wish import Option, Planned, Wish, front, keeps
from ersatz.sim.search.writing import parallel_keys
from ersatz.sim.step.step import shares_links, simulate_step

DAY = 86_400.0
WORK = ("matrix", "attention", "experts", "vocabulary", "elementwise")  # that no layout spares
MOST_NOTES = 4
PLACES = {"rank_order": "ranks", "placement": "nodes"}  # keys of `fabric` in words
SMALL = 0.005  # of a step: differences that are not told


@dataclass(frozen=True, slots=True)
class Given:
    """What the file's own layout takes on the devices of the best one, and what is to be said of it."""

    seconds: float | None = None  # of a step; None: none can be made, or not on these devices
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """A layout with where its time goes."""

    chosen: Chosen
    breakdown: Mapping[str, float]
    leaving: Leaving | None = None  # what is on the host

    @property
    def scenario(self) -> Scenario:
        """The job with the layout."""
        return self.chosen.scenario

    @property
    def priced(self) -> Priced:
        """The layout as the search found it."""
        return self.chosen.priced

    @property
    def place(self) -> Mapping[str, Any]:
        """What of the place of ranks and nodes was chosen, as keys of `fabric`."""
        return self.chosen.place

    @property
    def seconds(self) -> float:
        """Seconds of a step."""
        return self.chosen.price.seconds

    @property
    def spare(self) -> float:
        """Bytes of the device that are left."""
        return self.scenario.pools[0].node.device.memory_bytes - self.chosen.price.peak_bytes


def told_plans(option: Option) -> list[Told]:
    """Return the layouts of an option with where their time goes."""
    found = []
    for one in option.chosen:
        away = leaving(option.found.scenario, one.priced.row, one.priced.price)
        found.append(Told(one, simulate_step(one.scenario).breakdown, away))
    return found


def render_plan(
    planned: Planned, plans: Sequence[Told], given: Given, changes: Sequence[WhatIf] = ()
) -> RenderableType:
    """Return the report: answer, layout, proof; the layouts that differ in kind; the other devices."""
    if not planned.options:
        return Group(*(Text(line) for line in _nothing(planned)))
    best = planned.options[0]
    parts: list[RenderableType] = [
        Text(line, style=style) for line, style in _answer(planned, plans[0], given)
    ]
    if len(plans) > 1:
        parts += [Text(""), _layouts(plans)]
    if len(planned.options) + len(planned.others) > 1:
        parts += [Text(""), _options(planned)]
    parts += [Text(line) for line in _beyond(best, plans)]
    if changes:
        parts += [Text(""), _changes(best, changes)]
    parts += [Text(line) for line in _notes(best, planned.failed)]
    return Group(*parts, Text(NOTICE, style="dim"))


def _answer(planned: Planned, told: Told, given: Given) -> Iterator[tuple[str, str]]:
    best, wish = planned.options[0], planned.wish
    result, found = best.result, best.found
    yield f"{_cluster(best)}: {_headline(best, wish)}", "bold"
    away = told.leaving
    yield f"layout   {layout_words(best.scenario)}{f', {away.words}' if away else ''}", ""
    memory = result.memory
    step = result.step
    compared = ""
    if given.seconds is not None:
        more = 100 * (given.seconds / step.duration_s - 1.0)
        compared = f"; the file's own layout takes {format_duration(given.seconds)} ({more:+.0f} %)"
    yield (f"step     {format_duration(step.duration_s)} (80 %: {format_duration(step.low80_s)} -"
           f" {format_duration(step.high80_s)}), MFU {100 * step.mfu:.1f} %{compared}"), ""  # fmt: skip
    if given.remark:
        yield f"given    the file's own layout {given.remark}", ""
    yield (f"memory   {format_bytes(memory.peak_bytes)} of {format_bytes(memory.capacity_bytes)}:"
           f" {memory.verdict} ({100 * memory.fit_probability:.0f} % probable)"), ""  # fmt: skip
    if away:
        yield (f"host     {format_bytes(away.less_bytes)} less on a device for"
               f" {format_duration(away.more_s)} more in a step"
               f" ({100 * away.more_s / step.duration_s:.0f} %); all here would need"
               f" {format_bytes(away.needs_bytes)}"), ""  # fmt: skip
    if words := _finer(told.chosen):
        yield words, ""
    yield f"limited by {_limits(best)}", ""
    others = f", {found.away:,} more with the host" if found.away else ""
    yield (f"proved   of {found.layouts:,} layouts {found.may_fit:,} may fit{others};"
           f" {found.timed:,} were timed exactly, and no other can be faster"), ""  # fmt: skip


def _finer(one: Chosen) -> str:
    """Say which split of the layers and which place were taken in place of the usual ones."""
    parallel, words = one.scenario.parallel, []
    if parallel.chunk_layers:
        words.append(f"layers {shown_split(parallel.chunk_layers)}")
    words += [f"{PLACES[key]} {value}" for key, value in one.place.items()]
    if not words:
        return ""
    return (f"moved    {'; '.join(words)}: {100 * one.gains:.1f} % faster than as usual; not proved to be"
            " the best of such")  # fmt: skip


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
                      _short(told.scenario, told.priced.row[HOST]), _why(told, best))  # fmt: skip
    return table


def _short(scenario: Scenario, way: int = 0) -> str:
    """Write a layout in few letters: tp8 pp16 vp8 dp128 z1 mb1."""
    p, t = scenario.parallel, scenario.training
    words = [f"{name}{value}" for name, value in (("tp", p.tp), ("cp", p.cp), ("ep", p.ep),
             ("etp", p.etp), ("pp", p.pp), ("vp", p.vp)) if value > 1]  # fmt: skip
    words += [p.schedule] if p.pp > 1 and p.vp == 1 else []
    words += ["uneven"] if p.chunk_layers else []
    words += [f"dp{p.dp}", f"z{p.zero}"] if p.dp > 1 else []
    words += [f"shard{p.shard}"] if p.shard else []
    words += [p.recompute] if p.recompute != "none" else []
    away = [part for part in WAYS[way] if part != "none"]
    words += [f"host:{'+'.join(away)}"] if away else []
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
            _short(option.scenario, option.chosen[0].priced.row[HOST]), mark,
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


def _changes(option: Option, changes: Sequence[WhatIf]) -> Table:
    """Return what the best layout would be on other machines, and what today's would take there."""
    table = Table(box=None, pad_edge=False)
    for name, justify in (("with", "left"), ("step", "right"), ("", "right"), ("best layout", "left"),
                          ("this one", "right")):  # fmt: skip
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    now = option.found.plans[0].price.seconds
    for one in changes:
        if one.scenario is None:
            table.add_row(one.words, "-", "", "none fits", "")
            continue
        same = one.seconds == one.kept_s
        kept = format_duration(one.kept_s) if one.kept_s < math.inf else "does not fit"
        more = f", or {100 * one.left:.0f} % less at most" if one.left else ""
        table.add_row(one.words, format_duration(one.seconds), f"{100 * (one.seconds / now - 1):+.0f} %",
                      "the same" + more if same else _short(one.scenario) + more,
                      "" if same else kept)  # fmt: skip
    return table


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
    shared = (
        "collectives share links, so that a step takes seconds to follow: of other kinds one is shown, and"
        " other places are tried for the best alone"
    ) * shares_links(option.scenario)
    return [*filter(None, [unpriced, shared, option.choices.remark]), option.choices.reach]


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


def plan_record(
    planned: Planned, plans: Sequence[Told], given: Given, changes: Sequence[WhatIf] = ()
) -> dict[str, Any]:
    """Return the answer as plain data."""
    best = planned.options[0] if planned.options else None
    return {
        "question": str(planned.question.case.data.get("question", "")),
        "objective": planned.wish.objective,
        "best": _record(best) if best else None,
        "given_step_s": given.seconds,
        "given_remark": given.remark,
        "plans": [_told(told) for told in plans],
        "options": [_record(option) for option in planned.options],
        "others": [{**_record(option), "fails": keeps(option, planned.wish)}
                   for option in planned.others],
        "what_if": [_changed(one) for one in changes],
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
        "offload": keys_of(option.chosen[0].priced.row[HOST]),
        "result": plain(option.result),
        "search": {"layouts": found.layouts, "may_fit": found.may_fit, "checked": found.checked,
                   "timed": found.timed, "away": found.away, "tried_finer": option.tried,
                   "remarks": _remarks(option)},
    }  # fmt: skip


def _changed(one: WhatIf) -> dict[str, Any]:
    return {
        "with": one.words,
        "step_s": plain(one.seconds) if one.scenario else None,
        "parallel": parallel_keys(one.scenario.parallel) if one.scenario else None,
        "micro_batch": one.scenario.training.micro_batch if one.scenario else None,
        "unchanged_layout_s": one.kept_s if one.kept_s < math.inf else None,
        "could_be_less": one.left,
    }


def _told(told: Told) -> dict[str, Any]:
    return {
        "parallel": parallel_keys(told.scenario.parallel), "place": dict(told.place),
        "as_found_s": told.priced.price.seconds,
        "micro_batch": told.scenario.training.micro_batch,
        "step_s": told.seconds, "bound_s": told.priced.bound_s,
        "offload": plain(told.leaving),
        "memory_bytes": told.chosen.price.peak_bytes, "memory": told.chosen.price.verdict,
        "breakdown": plain(told.breakdown),
    }  # fmt: skip
