"""The terminal report of a mix: the answer and who holds what, then each mix beside each pool alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.text.units import format_bytes, format_duration, format_money
from ersatz.sim.records import Difference
from ersatz.sim.report.json_out import plain
from ersatz.sim.report.run import NOTICE
from ersatz.sim.report.setting import own_layouts
from ersatz.sim.scenario.scenario import layout_words
from ersatz.sim.search.mix.choice import MixOption, PlannedMix, keeps
from ersatz.sim.search.writing import parallel_keys

DAY = 86_400.0
MOST_NOTES = 4


def render_mix(planned: PlannedMix) -> RenderableType:
    """Return the report."""
    every = [*planned.options, *planned.others]
    parts: list[RenderableType] = []
    if planned.options:
        parts += [Text(line, style=style) for line, style in _answer(planned.options[0])]
    else:
        parts.append(Text("No mix of these pools keeps to what was asked."))
    parts += [Text(""), _table(every, planned)]
    notes = [*planned.failed, *(planned.options[0].scenario.assumptions if planned.options else ())]
    parts += [Text(f"looked   {words}") for words in planned.reach]
    if notes:
        parts += [Text(""), Text("not possible, and assumed:" if planned.failed else
                                 "assumed, because nothing is said:")]  # fmt: skip
        parts += [Text(f" {n}. {words}") for n, words in enumerate(notes[:MOST_NOTES], start=1)]
        more = len(notes) - MOST_NOTES
        parts += [Text(f"    and {more} more (--json lists all)")] if more > 0 else []
    return Group(*parts, Text(NOTICE, style="dim"))


def _answer(best: MixOption) -> Iterator[tuple[str, str]]:
    result, found = best.result, best.found
    yield f"{devices_words(best)}: {_headline(best)}", "bold"
    layout = own_layouts(best.scenario) if best.scenario.parallel.pools else [
        layout_words(best.scenario)
    ]  # fmt: skip
    for number, words in enumerate(layout):
        yield f"{'' if number else 'layout':9}{words}", ""
    step, compared = result.step, ""
    if len(found.alone) > 1:
        alone = min(found.alone, key=lambda one: one.seconds)
        if alone.scenario is not None:
            faster = 100 * (alone.seconds / step.duration_s - 1)
            compared = f"; {faster:+.0f} % speed against {alone.name} alone"
    yield (f"step     {format_duration(step.duration_s)} (80 %: {format_duration(step.low80_s)} -"
           f" {format_duration(step.high80_s)}), MFU {100 * step.mfu:.1f} %{compared}"), ""  # fmt: skip
    memory = result.memory
    yield (f"memory   fullest {format_bytes(memory.peak_bytes)} of {format_bytes(memory.capacity_bytes)}:"
           f" {memory.verdict} ({100 * memory.fit_probability:.0f} % probable)"), ""  # fmt: skip
    yield f"searched {_searched(best)}", ""


def _searched(option: MixOption) -> str:
    found = option.found
    words = f"{found.timed:,} layouts were timed exactly; "
    if len(found.alone) > 1 and found.together_s < float("inf"):
        share = 100 * found.together_s / found.best.seconds
        words += f"{share:.0f} % of what the pools reach alone, added up; "
    return words + (f"another of these could be {100 * found.left:.0f} % faster at most" if found.left > 0.005
                    else "no other of these can be faster")  # fmt: skip


def _headline(option: MixOption) -> str:
    job, chance, cost = option.result.job, option.result.chance, option.result.cost
    if job is None or chance is None:
        return f"a step of {format_duration(option.result.step.duration_s)}"
    words = (f"{job.wall_s / DAY:.1f} days (80 %: {chance.wall_low80_s / DAY:.1f} -"
             f" {chance.wall_high80_s / DAY:.1f})")  # fmt: skip
    return words + (f", {format_money(cost.total, cost.currency)}" if cost else "")


def devices_words(option: MixOption) -> str:
    """Write how many of which devices a mix has."""
    return " + ".join(f"{p.devices:,} x {p.node.device.name}" for p in option.scenario.pools)


def _table(every: list[MixOption], planned: PlannedMix) -> Table:
    table = Table(box=None, pad_edge=False)
    jobs = any(option.result.job for option in every)
    saving = any(option.saves for option in every)
    heads = ["days" if jobs else "step", "cost", "devices"]
    heads += ["saves (80 %)", "P(20 %)"] if saving else []
    for name in (*heads, ""):
        table.add_column(name, justify="left" if name in ("devices", "") else "right")
    for option in every:
        cost, saved = option.result.cost, option.saves
        row = [
            f"{option.wall_s / DAY:.1f}" if jobs else format_duration(option.wall_s),
            format_money(cost.total, cost.currency) if cost else "-",
            devices_words(option),
        ]
        if saving:
            row += _saved(saved) if saved else ["", ""]
        way = option.scenario.parallel
        words = f"by {way.mixed}" if way.pools else "alone"
        table.add_row(*row, f"{words}, {why}" if (why := keeps(option, planned.wish)) else words)
    return table


def _saved(saved: Difference) -> list[str]:
    """Return what a mix saves, with its interval, and how likely that is a fifth."""
    low, high = 100 * saved.saving_low80, 100 * saved.saving_high80
    return [
        f"{100 * saved.saving:.0f} % ({low:.0f} to {high:.0f})",
        f"{100 * saved.p_saves_fifth:.0f} %",
    ]


def mix_record(planned: PlannedMix) -> dict[str, Any]:
    """Return the answer as plain data."""
    best = planned.options[0] if planned.options else None
    return {
        "question": str(planned.question.case.data.get("question", "")),
        "objective": planned.wish.objective,
        "best": _record(best) if best else None,
        "given_step_s": None,
        "given_remark": "",
        "plans": [],
        "options": [_record(option) for option in planned.options],
        "others": [
            {**_record(option), "fails": keeps(option, planned.wish)} for option in planned.others
        ],
        "failed": list(planned.failed),
        "looked": list(planned.reach),
        "notice": NOTICE,
    }


def _record(option: MixOption) -> dict[str, Any]:
    found = option.found
    return {
        "node": " + ".join(pool.node.name for pool in option.scenario.pools),
        "nodes": dict(option.counts),
        "devices": option.devices,
        "stack": " + ".join(pool.stack.name for pool in option.scenario.pools),
        "parallel": parallel_keys(option.scenario.parallel),
        "micro_batch": option.scenario.training.micro_batch,
        "result": plain(option.result),
        "saves": plain(option.saves),
        "search": {
            "timed": found.timed, "left": found.left,
            "ways": [{"way": one.way, "step_s": one.seconds,
                      "parallel": parallel_keys(one.scenario.parallel)} for one in found.plans],
            "alone_s": {one.name: one.seconds for one in found.alone if one.scenario is not None},
            "together_s": found.together_s if found.together_s < float("inf") else None,
            "remarks": [*found.notes],
        },
    }  # fmt: skip
