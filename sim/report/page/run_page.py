"""A training job, or several side by side, as sections of a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from ersatz.device_models.text.units import (
    format_bytes,
    format_duration,
    format_money,
    format_share,
    format_si,
)
from ersatz.sim.report.page.law import law_day, law_facts, law_picture
from ersatz.sim.report.page.markup import (
    Fact,
    bars,
    card,
    cards,
    folded,
    paragraph,
    picture,
    section,
    sentences,
    stacked,
    table,
)
from ersatz.sim.report.page.material import Material, Record
from ersatz.sim.report.pictures.charts import point_chart
from ersatz.sim.report.pictures.frame import frame_of

MEMORY = {"fits": "good", "tight": "doubtful", "does not fit": "bad"}
MOST_CARDS = 12
MOST_STAGES = 64


def first(m: Material) -> str:
    """Return the answer of each case: time, money, date, law and memory, each with its interval."""
    boxes = [card(name if len(m.cases) > 1 else "", facts(m, case))
             for name, case in list(m.cases.items())[:MOST_CARDS]]  # fmt: skip
    more = len(m.cases) - len(boxes)
    note = paragraph(f"and {more} more cases, see the table below", "soft") if more > 0 else ""
    return cards(boxes) + note + _differences(m.record.get("differences", ()))


def facts(m: Material, case: Record) -> list[Fact]:
    """Return the lines of one case."""
    step, job, cost, memory = case["step"], case["job"], case["cost"], case["memory"]
    chance = case.get("chance") or {}
    found = [Fact(
        "step", format_duration(step["duration_s"]),
        f"80 %: {_range(step['low80_s'], step['high80_s'])}; MFU {100 * step['mfu']:.1f} %;"
        f" {step['tokens_per_s_per_device']:,.0f} tokens/s per device",
    )]  # fmt: skip
    if job:
        low, high = (
            chance.get("wall_low80_s", job["wall_low80_s"]),
            chance.get("wall_high80_s", job["wall_high80_s"]),
        )
        found.append(Fact("whole job", format_duration(job["wall_s"]),
                          f"80 %: {_range(low, high)}; goodput {100 * job['goodput']:.1f} %,"
                          f" {job['interruptions']:.1f} interruptions"))  # fmt: skip
        found.append(_done_by(m, job["wall_s"], low, high))
    if cost:
        found.append(_money(cost, chance))
    if why := _width(case, chance):
        found.append(Fact("made wide by", *why))
    found.append(_memory(memory))
    return [*found, *law_facts(_devices(case), m.day, m.place)]


def _range(low: float, high: float) -> str:
    return f"{format_duration(low)} – {format_duration(high)}"


def _done_by(m: Material, wall: float, low: float, high: float) -> Fact:
    """Say when the job would be done if it began on the day that the law was asked about."""
    start = law_day(m.day)

    def after(seconds: float) -> str:
        try:
            return str(
                (datetime.combine(start, datetime.min.time()) + timedelta(seconds=seconds)).date()
            )
        except OverflowError:
            return "after the year 9999"

    return Fact(
        "done by", after(wall), f"if it starts on {start}; 80 %: {after(low)} – {after(high)}"
    )


def _money(cost: Record, chance: Record) -> Fact:
    currency = str(cost["currency"])
    per = format_money(cost["per_trillion_tokens"], currency)
    ends = [chance.get("cost_low80"), chance.get("cost_high80")]
    span = " – ".join(format_money(end, currency) for end in ends if end is not None)
    return Fact("money", format_money(cost["total"], currency),
                f"{per} per 1e12 tokens{f'; 80 %: {span}' if span else ''}")  # fmt: skip


def _width(case: Record, chance: Record) -> tuple[str, str] | None:
    causes = {k: v for k, v in (chance.get("causes") or {}).items() if v >= 0.005}
    why = next((text for text in case["assumptions"][:2] if text.startswith("step +-")), "")
    told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in causes.items())
    return (told or why, why if told else "") if told or why else None


def _memory(memory: Record) -> Fact:
    held = f"{format_bytes(memory['peak_bytes'])} of {format_bytes(memory['capacity_bytes'])}"
    return Fact("memory", f"{memory['verdict']}: {held}",
                f"{100 * memory['fit_probability']:.0f} % likely to fit; peak at {memory['moment']}",
                MEMORY.get(memory["verdict"], "doubtful"))  # fmt: skip


def _devices(case: Record) -> list[str]:
    return [str(pool["device"]) for pool in (case.get("setting") or {}).get("pools", ())]


def _differences(rows: Iterable[Record]) -> str:
    shown = [(d["name"], f"{100 * d['saving']:.0f} %",
              f"{100 * d['saving_low80']:.0f} to {100 * d['saving_high80']:.0f} %",
              f"{100 * d['p_cheaper']:.0f} %", f"{100 * d['p_saves_fifth']:.0f} %", d["against"]) for d in rows]  # fmt: skip
    head = ("case", "saves per token", "80 % interval", "P(cheaper)", "P(saves 20 %)", "against")
    return table(head, shown, right=range(1, 5)) if shown else ""


def sections(m: Material) -> Iterator[str]:
    """Yield the sections below the first screen."""
    if len(m.cases) > 2:
        yield section("The cases: time and memory", _scatter(m), name="cases")
    for name, case in m.cases.items():
        several = len(m.cases) > 1
        yield from case_sections(m, name, case, f"{name}: " if several else "")
    devices = [device for case in m.cases.values() for device in _devices(case)]
    yield section("Law over time", picture(drawn) if (drawn := law_picture(devices, m.day, m.place)) else "",
                  name="law")  # fmt: skip


def _scatter(m: Material) -> str:
    points = {name: (case["step"]["duration_s"], case["memory"]["peak_bytes"] / 2**30)
              for name, case in m.cases.items()}  # fmt: skip
    frame = frame_of("Time of a step and memory of the fullest rank", "seconds of a step", "GiB",
                     [list(points.values())])  # fmt: skip
    return picture(point_chart(frame, points))


def case_sections(m: Material, name: str, case: Record, title: str) -> Iterator[str]:
    """Yield the sections of one case, each under a title that begins with `title`."""
    yield section(f"{title}What is simulated", _setting(case.get("setting") or {}))
    yield section(f"{title}Where the time goes", _time(case["step"]), name=f"time-{name}")
    timeline = m.picture(f"timeline-{name}.svg")
    yield section(f"{title}The stages over a step", picture(timeline) if timeline else "")
    memory = m.picture(f"memory-{name}.svg")
    yield section(
        f"{title}Memory", _memory_parts(case["memory"]), picture(memory) if memory else ""
    )
    if case["job"]:
        yield section(f"{title}The job", _job(case["job"]))
    if case["cost"]:
        yield section(f"{title}Money", _cost(case["cost"], case.get("chance") or {}))
    if case["energy"]:
        yield section(f"{title}Energy", _energy(case["energy"]))
    yield section(f"{title}Published beside predicted", _published(case["published"]))
    yield section(f"{title}Assumed", paragraph("where the scenario or the public record is silent", "soft"),
                  sentences(case["assumptions"])) if case["assumptions"] else ""  # fmt: skip
    yield section(
        f"{title}Sources", folded(f"{len(case['sources'])} sources", sentences(case["sources"]))
    )


def _setting(setting: Record) -> str:
    rows = [(name, text) for name, text in setting.items() if isinstance(text, str)]
    rows += [(f"pool {p['name']}".strip(), f"{p['devices']:,} x {p['device']} ({p['node']}); {p['stack']}")
             for p in setting.get("pools", ())]  # fmt: skip
    return table(("", ""), rows) if rows else ""


def _time(step: Record) -> str:
    total = step["duration_s"]
    order = [kind for kind, seconds in step["breakdown"].items() if seconds > 0]
    stages = [(f"stage {i}", parts) for i, parts in enumerate(step["by_stage"])]
    mean = bars((kind, seconds, f"{format_duration(seconds)}  {format_share(seconds, total)}")
                for kind, seconds in step["breakdown"].items())  # fmt: skip
    if len(stages) < 2:
        return mean
    cut = (
        paragraph(f"the first {MOST_STAGES} of {len(stages)} stages", "soft")
        if len(stages) > MOST_STAGES
        else ""
    )
    note = paragraph("Choose a kind to see its seconds in every stage.", "soft")
    each = stacked(stages[:MOST_STAGES], order, "s")
    return f"<h4>mean over the stages</h4>{mean}<h4>each stage</h4>{note}{each}{cut}"


def _memory_parts(memory: Record) -> str:
    parts = sorted(memory["parts"].items(), key=lambda item: -item[1])
    capacity = memory["capacity_bytes"]
    shown = bars(((use, size, f"{format_bytes(size)}  {format_share(size, capacity)}") for use, size in parts),
                 capacity)  # fmt: skip
    note = paragraph(
        f"Fullest rank, stage {memory['stage']}; a whole bar is {format_bytes(capacity)}.", "soft"
    )
    helps = (
        paragraph("Would fit for sure with any of:") + sentences(memory["advice"])
        if memory["advice"]
        else ""
    )
    stages = memory["by_stage"]
    each = bars(
        (f"stage {i}", size, format_bytes(size)) for i, size in enumerate(stages[:MOST_STAGES])
    )
    return note + shown + helps + (folded("peak of each stage", each) if len(stages) > 1 else "")


def _job(job: Record) -> str:
    lost = bars((f"lost to {cause}", s, f"{format_duration(s)}  {format_share(s, job['wall_s'])}")
                for cause, s in job["lost_s"].items())  # fmt: skip
    stops = ", ".join(f"{cause} {n:.1f}" for cause, n in job["interruptions_by_cause"].items() if n)
    rows = [("steps", f"{job['steps']:,}"), ("device-hours", f"{job['device_hours']:,.0f}"),
            ("checkpoint every (optimum)", f"{_span(job['checkpoint_interval_s'])}"
             f" ({_span(job['optimal_interval_s'])})"),
            ("interruptions", f"{job['interruptions']:.1f}{f': {stops}' if stops else ''}"),
            ("mean time between them", _span(job["mtbf_s"])),
            (f"80 % of {job['replicas']} draws within", _range(job["wall_low80_s"], job["wall_high80_s"]))]  # fmt: skip
    return table(("", ""), rows) + lost


def _span(seconds: float | None) -> str:
    """Write a duration; a record has none of what does not come."""
    return format_duration(seconds) if seconds else "never"


def _cost(cost: Record, chance: Record) -> str:
    currency = str(cost["currency"])
    parts = bars((part, amount, f"{format_money(amount, currency)}  {format_share(amount, cost['total'])}")
                 for part, amount in cost["parts"].items())  # fmt: skip
    causes: Mapping[str, float] = chance.get("causes") or {}
    wide = bars((name, share, f"+{100 * share:.1f} %") for name, share in causes.items())
    why = (
        "<h4>what each cause alone would add to the cost at its 90th percentile</h4>" + wide
        if causes
        else ""
    )
    line = f"{cost['model']}; {cost['per_device_hour']:.2f} {currency} per device-hour"
    return paragraph(line) + parts + why


def _energy(energy: Record) -> str:
    parts: Mapping[str, float] = energy["parts_kwh"]
    line = (f"{format_si(energy['kwh'] * 1e3, 'Wh')} at the meter, {energy['carbon_kg'] / 1e3:,.0f} t CO2; PUE"
            f" {energy['pue']:g}, {energy['mean_device_w']:.0f} W per device on average")  # fmt: skip
    return paragraph(line) + bars(
        (part, kwh, f"{format_si(kwh * 1e3, 'Wh')}  {format_share(kwh, energy['kwh'])}")
        for part, kwh in parts.items()
    )


def _published(rows: Sequence[Record]) -> str:
    shown = [(r["metric"], f"{r['published']:,.4g}", f"{r['predicted']:,.4g}",
              f"{100 * r['relative_error']:+.1f} %", r["source"]) for r in rows]  # fmt: skip
    return (
        table(("", "published", "predicted", "error", "source"), shown, right=(1, 2, 3))
        if shown
        else ""
    )
