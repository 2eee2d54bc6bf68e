"""The terminal report of a run: the answer first, then why, then what was assumed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.text.units import (
    format_bytes,
    format_count,
    format_duration,
    format_money,
    format_share,
    format_si,
)
from ersatz.sim.emulate.records import ReplayResult
from ersatz.sim.job.chance import differences
from ersatz.sim.records import MemoryResult, RunResult
from ersatz.sim.report.tables.phases import phase_tables, phases_words
from ersatz.sim.scenario.scenario import Scenario

NOTICE = "A model's estimate, no measurement; docs/validation.md says how far off it can be."
MOST_ASSUMPTIONS = 12
TIMES = "kernel times"  # how a source begins that is a measurement of kernels
BAR = 24


def render_run(scenarios: Sequence[Scenario], results: Sequence[RunResult]) -> RenderableType:
    """Return the report of one scenario: its cases side by side, then each in turn."""
    parts: list[RenderableType] = [Text(scenarios[0].question, style="bold"), Text("")]
    parts.append(render_answers(scenarios, results))
    for scenario, result in zip(scenarios, results, strict=True):
        parts += _case(scenario, result, titled=len(results) > 1)
    parts += [Text(""), Text(NOTICE, style="dim")]
    return Group(*parts)


def render_comparison(
    scenarios: Sequence[Scenario], results: Sequence[RunResult]
) -> RenderableType:
    """Return the answers of several scenarios side by side, without the reasons."""
    return Group(render_answers(scenarios, results), Text(""), Text(NOTICE, style="dim"))


def times_notes(results: Sequence[RunResult]) -> list[RenderableType]:
    """Return where measured kernel times come from: the first of the sources, said aloud."""
    notes = dict.fromkeys(line for r in results for line in r.sources if line.startswith(TIMES))
    return [Text(""), *(Text(line) for line in notes)]


def render_answers(scenarios: Sequence[Scenario], results: Sequence[RunResult]) -> RenderableType:
    """Return the table of answers: a column per case, differences to the first in percent."""
    if len(results) > 4:
        return Group(*(render_answers(scenarios[i : i + 4], results[i : i + 4])
                       for i in range(0, len(results), 4)))  # fmt: skip
    table = Table(box=None, pad_edge=False, show_header=len(results) > 1)
    table.add_column("")
    for result in results:
        table.add_column(result.name, justify="right", overflow="fold")
    for label, values in _answers(scenarios, results):
        table.add_row(label, *values)
    return table


def _answers(
    scenarios: Sequence[Scenario], results: Sequence[RunResult]
) -> Iterator[tuple[str, list[str]]]:
    steps = [r.step for r in results]
    yield "cluster", [_cluster(s) for s in scenarios]
    yield "step", _against([s.duration_s for s in steps], format_duration)
    yield (
        "  80 % interval",
        [f"{format_duration(s.low80_s)} - {format_duration(s.high80_s)}" for s in steps],
    )
    yield "tokens/s per device", _against([s.tokens_per_s_per_device for s in steps], _number)
    yield (
        "MFU causal / full / 6N",
        [
            f"{100 * s.mfu:.1f} / {100 * s.mfu_noncausal:.1f} / {100 * s.mfu_6n:.1f} %"
            for s in steps
        ],
    )
    if any(r.phases for r in results):
        yield (
            "phases, share of time",
            [phases_words(r.phases) if r.phases else "-" for r in results],
        )
    yield "memory", [_memory(r) for r in results]
    if any(r.job for r in results):
        yield (
            "wall time",
            _against([r.job.wall_s if r.job else None for r in results], format_duration),
        )
        yield "  80 % interval", [_wall_interval(r) for r in results]
        yield "goodput", [f"{100 * r.job.goodput:.1f} %" if r.job else "-" for r in results]
        yield (
            "device-hours",
            _against([r.job.device_hours if r.job else None for r in results], _number),
        )
    if any(r.cost for r in results):
        yield "cost", [_money(r, results[0], "total") for r in results]
        yield "  per 1e12 tokens", [_money(r, results[0], "per_trillion_tokens") for r in results]
        yield "  80 % interval", [_cost_interval(r) for r in results]
        yield "  made wide by", [_cost_causes(r) for r in results]
        yield from _savings(scenarios, results)
    if any(r.energy for r in results):
        yield "energy", _against([r.energy.kwh if r.energy else None for r in results],
                                 lambda v: format_si(v * 1e3, "Wh"))  # fmt: skip
        yield "carbon", _against([r.energy.carbon_kg if r.energy else None for r in results],
                                 lambda v: f"{v / 1e3:,.0f} t CO2")  # fmt: skip


def _against(values: Sequence[float | None], form) -> list[str]:  # type: ignore[no-untyped-def]
    """Write values, each but the first with its difference to the first."""
    first = values[0]
    texts = []
    for i, value in enumerate(values):
        if value is None:
            texts.append("-")
        elif i and first:
            texts.append(f"{form(value)} ({100 * (value / first - 1):+.0f} %)")
        else:
            texts.append(form(value))
    return texts


def _money(result: RunResult, first: RunResult, key: str) -> str:
    """Write an amount, with its difference to the first where the currency is the same."""
    cost, base = result.cost, first.cost
    if cost is None:
        return "-"
    amount = float(getattr(cost, key))
    text = format_money(amount, cost.currency)
    if base is None or result is first or base.currency != cost.currency or not base.total:
        return text
    return f"{text} ({100 * (amount / getattr(base, key) - 1):+.0f} %)"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cluster(scenario: Scenario) -> str:
    return " + ".join(f"{p.devices:,} x {p.node.device.name}" for p in scenario.pools)


def _memory(result: RunResult) -> str:
    memory = result.memory
    verdict = "DOES NOT FIT" if memory.verdict == "does not fit" else memory.verdict
    return f"{format_bytes(memory.peak_bytes)} of {format_bytes(memory.capacity_bytes)}: {verdict}"


def _wall_interval(result: RunResult) -> str:
    """How early and late the job may be done: its step and its stops drawn together."""
    chance = result.chance
    if chance is None:
        return "-"
    return f"{format_duration(chance.wall_low80_s)} - {format_duration(chance.wall_high80_s)}"


def _cost_interval(result: RunResult) -> str:
    """What 1e12 tokens may cost: step, stops, prices and power drawn together."""
    cost, chance = result.cost, result.chance
    if cost is None or chance is None:
        return "-"
    ends = (chance.cost_low80, chance.cost_high80)
    return " - ".join(format_money(end, cost.currency) for end in ends if end is not None)


def _cost_causes(result: RunResult) -> str:
    causes = result.chance.causes if result.cost and result.chance else {}
    told = [f"{name} {100 * share:.0f}" for name, share in causes.items() if share >= 0.005]
    return f"{', '.join(told)} %" if told else "-"


def _savings(
    scenarios: Sequence[Scenario], results: Sequence[RunResult]
) -> Iterator[tuple[str, list[str]]]:
    """What the other cases save against the first, and how probable that is."""
    found = {d.name: d for d in differences(scenarios, results)}
    if not found:
        return
    rows = [found.get(result.name) for result in results]
    yield "saves per token", [f"{100 * d.saving:.0f} %" if d else "" for d in rows]
    yield "  80 % interval", [f"{100 * d.saving_low80:.0f} to {100 * d.saving_high80:.0f} %" if d
                              else "" for d in rows]  # fmt: skip
    yield "  P(cheaper)", [f"{100 * d.p_cheaper:.0f} %" if d else "" for d in rows]
    yield "  P(saves 20 %)", [f"{100 * d.p_saves_fifth:.0f} %" if d else "" for d in rows]


def _case(scenario: Scenario, result: RunResult, *, titled: bool) -> list[RenderableType]:
    parts: list[RenderableType] = [Text("")]
    if titled:
        parts += [Text(f"== {result.name} ==", style="bold"), Text("")]
    parts += [Text(line) for line in _setting(scenario)]
    parts += phase_tables(result.phases)
    parts += [Text(""), _breakdown(result), Text(""), _memory_table(result)]
    parts += [Text(line, style=style) for line, style in _memory_words(result.memory)]
    parts += job_tables(result)
    if result.published:
        parts += [Text(""), _published(result)]
    parts += [Text(""), *_assumptions(result)]
    return parts


def _setting(scenario: Scenario) -> Iterator[str]:
    p, t = scenario.parallel, scenario.training
    model = scenario.model
    recipe = f" ({t.recipe})" if t.recipe else ""
    yield (f"model    {model.name}: {format_count(model.params())} parameters,"
           f" {format_count(model.params(active=True))} active; {t.precision}{recipe}")  # fmt: skip
    for pool in scenario.pools:
        name = f"{pool.name}: " if pool.name else ""
        yield f"cluster  {name}{pool.nodes:,} x {pool.node.title}, {pool.node.scale_out.title}"
        yield f"         software: {pool.stack.title}"
    yield (f"layout   tp {p.tp}, pp {p.pp} x {p.vp} chunks, cp {p.cp}, ep {p.ep}, dp {p.dp},"
           f" ZeRO {p.zero}, {p.schedule}, recompute {p.recompute}")  # fmt: skip
    yield (f"batch    {t.global_batch:,} sequences of {t.sequence_length:,}"
           f" ({format_count(t.global_batch * t.sequence_length)} tokens), micro-batch {t.micro_batch}"
           + (f"; {t.tokens / 1e12:g} T tokens in all" if t.tokens else "")
           + (f", in {len(scenario.phases)} phases" if scenario.phases else ""))  # fmt: skip


def _breakdown(result: RunResult) -> Table:
    table = _table("where the time of a step goes (mean over stages)", "time", "share", "")
    step = result.step
    for cause, seconds in step.breakdown.items():
        share = seconds / step.duration_s
        if share >= 0.0005:
            bar = "#" * round(share * BAR)
            table.add_row(
                cause, format_duration(seconds), format_share(seconds, step.duration_s), bar
            )
    return table


def _memory_words(memory: MemoryResult) -> Iterator[tuple[str, str]]:
    """Say when the peak is, how sure the verdict is, and what would help; each line with its style."""
    yield (f"Peak at {memory.moment}: {format_bytes(memory.allocated_bytes)} allocated,"
           f" {format_bytes(memory.reserved_bytes)} reserved; fits with"
           f" {100 * memory.fit_probability:.0f} % probability."), ""  # fmt: skip
    if memory.verdict == "fits":
        return
    missing = memory.peak_bytes - memory.capacity_bytes
    room = (
        f"Short by {format_bytes(missing)}" if missing > 0 else f"{format_bytes(-missing)} to spare"
    )
    style = "red" if missing > 0 else ""
    yield f"{room} on stage {memory.stage}. Any of these would make it fit for sure:", style
    yield from ((f"  {line}", style) for line in memory.advice)


def _memory_table(result: RunResult) -> Table:
    table = _table(f"memory of the fullest rank (stage {result.memory.stage})", "size", "share", "")
    for use, nbytes in sorted(result.memory.parts.items(), key=lambda item: -item[1]):
        if nbytes:
            share = nbytes / result.memory.capacity_bytes
            bar = "#" * round(min(share, 1.5) * BAR)
            table.add_row(use, format_bytes(nbytes), f"{100 * share:.1f} %", bar)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, min_width=44)
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    return table


def job_tables(result: RunResult | ReplayResult) -> Iterator[RenderableType]:
    """Yield what happens to a job, and what it costs; nothing without one."""
    job = result.job
    if job is None:
        return
    yield Text("")
    table = _table("the job", "", "")
    span = f"{format_duration(job.wall_low80_s)} - {format_duration(job.wall_high80_s)}"
    table.add_row(f"{job.steps:,} steps; 80 % of {job.replicas} draws within", span, "")
    best = job.optimal_interval_s  # without failures there is none
    table.add_row("checkpoint every (optimum)", format_duration(job.checkpoint_interval_s),
                  f"({format_duration(best) if math.isfinite(best) else 'never'})")  # fmt: skip
    causes = ", ".join(f"{c} {n:.0f}" for c, n in job.interruptions_by_cause.items() if n)
    table.add_row("interruptions", f"{job.interruptions:.1f}", causes)
    for cause, seconds in job.lost_s.items():
        if seconds > 1e-6 * job.wall_s:
            table.add_row(f"lost to {cause}", format_duration(seconds),
                          f"{100 * seconds / job.wall_s:.2f} %")  # fmt: skip
    yield table
    yield from _money_tables(result)


def _money_tables(result: RunResult | ReplayResult) -> Iterator[RenderableType]:
    cost, energy = result.cost, result.energy
    if cost:
        yield Text("")
        table = _table(f"cost ({cost.model})", "amount", "share")
        for part, amount in cost.parts.items():
            share = format_share(amount, cost.total)
            table.add_row(part, format_money(amount, cost.currency), share)
        table.add_row("per device-hour", f"{cost.per_device_hour:.2f} {cost.currency}", "")
        yield table
    if energy:
        yield Text("")
        table = _table(f"energy (PUE {energy.pue:g})", "energy", "share")
        for part, kwh in energy.parts_kwh.items():
            table.add_row(part, format_si(kwh * 1e3, "Wh"), format_share(kwh, energy.kwh))
        table.add_row("mean power of a device", f"{energy.mean_device_w:.0f} W", "")
        yield table


def _published(result: RunResult) -> Table:
    table = _table("published beside predicted", "published", "predicted", "error", "source")
    table.columns[0].min_width = None
    for row in result.published:
        table.add_row(row.metric, _metric(row.published), _metric(row.predicted),
                      f"{100 * row.relative_error:+.1f} %", row.source)  # fmt: skip
    return table


def _metric(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _assumptions(result: RunResult) -> Iterator[RenderableType]:
    if not result.assumptions:
        return
    yield Text("assumed, because the scenario or the public record is silent:")
    for number, text in enumerate(result.assumptions[:MOST_ASSUMPTIONS], start=1):
        yield Text(f" {number:2}. {text}")
    more = len(result.assumptions) - MOST_ASSUMPTIONS
    if more > 0:
        yield Text(f"     and {more} more (--json lists all)")
