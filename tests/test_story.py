"""The worked story says what ersatz says: every figure of its text is computed here again."""

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from ersatz.sim.purchase.answer import Answered, answer
from ersatz.sim.purchase.reading.file import load_inquiries
from ersatz.sim.report.buying.words import spent

ROOT = Path(__file__).resolve().parents[1]
STORY = " ".join((ROOT / "docs/story-embargo.md").read_text().split())
FILE = ROOT / "scenarios/market/embargo-story.yaml"


@lru_cache(maxsize=4)
def told(*overrides: str) -> dict[str, Answered]:
    return {i.name: answer(i) for i in load_inquiries(FILE, overrides)}


def says(text: str) -> None:
    assert text in STORY, f"the story does not say {text!r}"


def money(amount: float) -> str:
    return f"{amount / 1e6:.2f} M"


def test_the_sample_is_the_stored_output() -> None:
    sample = re.search(r"<!-- sample: embargo-story -->\n```text\n(.*?)```",
                       (ROOT / "docs/story-embargo.md").read_text(), re.S)  # fmt: skip
    assert sample
    assert sample[1] in FILE.with_suffix(".out").read_text()


def test_the_plan_of_24_march() -> None:
    case = told()["as-it-was"]
    b, plan, quiet = case.inquiry.buildout, case.plan, case.quiet
    assert plan is not None
    assert quiet is not None
    assert (str(b.start), b.budget[-1], b.jobs[0].deadline) == ("2025-03-24", 250e6, 17)
    says("250 M CNY, 6 MW in Inner Mongolia, and 17 months")
    nodes = plan.orders.sum()
    says(f"{nodes:.0f} nodes of H20, at once: {quiet.delivered.sum():.0f} devices")
    says(f"for {money(spent(b, quiet))} CNY with")
    h20 = next(o for o in b.offers if o.name == "h20")
    works = b.date_at(h20.delay_s / 86400)
    says(f"work from {works.day} {works:%B %Y}")
    assert case.shadows[0].constraint == "deadline"
    says(f"{money(case.shadows[0].saving)} CNY. How fast")
    low, high = case.spread["as planned"]  # of this plan, not of the one made anew
    says(f"between {low:.1f} and {high:.1f} months")
    low, high = case.spread["planned anew"]  # nor the other way round
    says(f"by less: between {low:.1f} and {high:.1f} months")
    turn = next(t for t in case.turns if (t.kind, t.name) == ("price", "910b"))
    says(f"with a 910B below {turn.value / 1e6:.2f} M CNY a node, a fifth less")


def test_the_verdicts() -> None:
    case = told()["as-it-was"]
    verdicts = {v.offer: v for v in case.verdicts}
    assert (verdicts["h800"].policy, verdicts["h800"].rules) == ("denied", ("US-2023-10-17",))
    assert (verdicts["h20"].policy, verdicts["h20"].rules) == ("denied", ("US-2025-04-H20",))
    assert verdicts["910b"].policy == "free"
    says(f"on {verdicts['h20'].leaves.day} April")
    assert "15,831" in verdicts["h800"].words
    assert "2,368" in verdicts["h20"].words


def test_what_came_and_the_new_plan() -> None:
    case = told()["as-it-was"]
    b, life, new = case.inquiry.buildout, case.life, case.renewed
    assert life is not None
    assert new is not None
    says(f"All {life.blocked.sum():.0f} devices are stopped")
    anew = b.day(new.month)
    says(f"made anew from {anew.day} {anew:%B}")
    says(f"{new.plan.orders.sum():.0f} nodes of Ascend 910B")
    says(f"again done after {new.life.finish:.1f} months, for {money(spent(b, new.life))} CNY")
    known = told("rules.foresight=true")["as-it-was"]
    assert known.plan is not None
    assert known.quiet is not None
    says(
        f"ordered {known.plan.orders.sum():.0f} of them a month earlier, for {money(known.quiet.total)} CNY"
    )
    assert case.quiet is not None
    more = new.life.total - case.quiet.total
    says(f"{money(more)} CNY, {100 * more / case.quiet.total:.0f} % more")
    says(f"is {money(new.life.total - known.quiet.total)} of that")


def test_two_weeks_later_the_plan_holds() -> None:
    case, late = told()["as-it-was"], told()["two-weeks-later"]
    assert late.renewed is None
    assert late.life is not None
    assert late.quiet is not None
    assert late.life.blocked.sum() == 0
    assert late.life.total == pytest.approx(late.quiet.total)
    says(f"the plan holds: {late.life.finish:.1f} months, {money(late.life.total)} CNY")
    assert case.renewed is not None
    says(f"14 days: {money(case.renewed.life.total - late.life.total)} CNY")
    new = case.renewed.life
    says(f"{late.life.delivered.sum():.0f} H20 use {late.life.kwh / 1e6:.2f} GWh,"
         f" {new.delivered.sum():.0f} Ascend 910B {new.kwh / 1e6:.2f} GWh")  # fmt: skip


@pytest.mark.slow
def test_short_of_money() -> None:
    new = told("purchase.budget=140 M CNY")["as-it-was"].renewed
    assert new is not None
    assert new.late
    says(f"{new.plan.orders.sum():.0f} nodes of 910B are what the money buys, done after"
         f" {new.life.finish:.1f} months")  # fmt: skip
    none = told("purchase.budget=80 M CNY")["as-it-was"]
    assert none.plan is None
    found = {r.constraint: r for r in none.remedies}
    assert found["budget"].increase is not None
    says(f"{100 * found['budget'].increase:.1f} % more money")
    assert "5 months later" in found["deadline"].text
    assert found["work"].increase == pytest.approx(0.21, abs=0.02)  # a fifth fewer tokens


def test_a_910b_trains_about_as_fast_as_an_h20_and_draws_less() -> None:
    only = told()["as-it-was"]
    rates = {t.devices: t for t in only.inquiry.buildout.jobs[0].throughputs}
    chinese, cut = rates["910b",], rates["h20",]
    assert chinese.tokens_per_s["910b"] == pytest.approx(cut.tokens_per_s["h20"], rel=0.05)
    assert chinese.watts["910b"] < cut.watts["h20"]
    assert np.isfinite(only.final.finish)  # type: ignore[union-attr]
