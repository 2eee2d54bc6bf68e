"""Files of `ersatz buy`: faults are named with their place, defaults and rules resolved as said."""

import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market import INF, START, make_offer

from ersatz.sim.errors import InputError
from ersatz.sim.law.rule import ORDER
from ersatz.sim.law.rules import judge, load_rules
from ersatz.sim.market.economics import load_defaults
from ersatz.sim.market.prices import load_prices
from ersatz.sim.options.answer import answer_comparison
from ersatz.sim.options.file import load_comparisons
from ersatz.sim.options.other_files import load_ramps, load_stockpiles
from ersatz.sim.purchase.answer import answer
from ersatz.sim.purchase.buildout import Site
from ersatz.sim.purchase.gate import known_rules, rule_gate, turning_days
from ersatz.sim.purchase.rates import plan_throughputs
from ersatz.sim.purchase.reading.file import load_inquiries, section_of
from ersatz.sim.report.buying.record import buy_record
from ersatz.sim.report.json_out import to_text
from ersatz.sim.report.pictures.buy_pictures import (
    buy_pictures,
    comparison_pictures,
    ramp_pictures,
    stockpile_pictures,
)
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.step.step import simulate_step

ROOT = Path(__file__).resolve().parents[1]
STATED = "flop_per_token: 1.728e11, rates: {h20: {peak: 148 TFLOP/s, mfu: 35 %}}"
GOOD = f"""question: What?
start: 2025-03-24
purchase: {{months: 12, budget: 100 M CNY}}
devices: {{h20: {{node: h20-8}}}}
jobs: {{j: {{tokens: 1 T tokens, {STATED}}}}}
"""
COMPARE = """question: q?
compare:
  work: {tokens: 1 T tokens, flop_per_token: 1e11}
  options: {a: {peak: 1 TFLOP/s, mfu: 10 %, rent: 1 CNY/h}, b: {peak: 2 TFLOP/s, mfu: 10 %, rent: 1 CNY/h}}
  ask: [{kind: break_even, input: a.rent, option: a, against: b}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.yaml"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("2025-03-24", "2018-01-01", "the rules are known from 2019-05-16 to 2026-06-30"),
        ("2025-03-24", "soon", "x.yaml:2:8: start: 'soon' - expected a day"),
        ("h20-8", "h2O-8", "did you mean 'h20-8'"),
        ("h20-8", "cpu-1", "'price' - key is missing"),
        ("100 M CNY", "100 M CHF", "purchase.budget: '100 M CHF' - unknown unit 'M CHF'"),
        ("100 M CNY", "100", "has no unit; expected a money"),
        ("tokens: 1 T", "deadline: 3 years, tokens: 1 T", "expected at most the plan's 12 months"),
        (STATED, "plans: nowhere", "nowhere: cannot be read"),
        (STATED, "plans: ling-plus-plans, use: [h21]", "expected h800, h20"),
        (STATED, "plans: ling-plus-plans, use: [h800]", "no device on offer has a plan"),
        ("rates: {h20", "rates: {h21", "jobs.j.rates.h21"),
        ("flop_per_token: 1.728e11, ", "", "'flop_per_token' - key is missing"),
        ("jobs:", "buyer: {kind: wizard}\njobs:", "buyer.kind: 'wizard' - no such kind"),
        ("jobs:", "buyer: {country: Atlantis}\njobs:", "buyer.country: 'Atlantis' - no such place"),
        ("jobs:", "sites: {x: {country: Atlantis}}\njobs:", "sites.x.country: 'Atlantis'"),
        ("jobs:", "site: {}\njobs:", "site: unknown key, did you mean 'sites'"),
        ("jobs:", "rules: {set: ['rules.US-9.binds=2025-01-01']}\njobs:", "no such rule"),
        ("jobs:", "rules: {set: ['rules.US-2025-04-H20.criterion.letter=TPP >> 3']}\njobs:", "at character"),
        ("jobs:", "rules: {set: ['rules.US-2025-04-H20.ends=2025-01-01']}\njobs:", "ends before it binds"),
        ("jobs:", "rules: {file: mine.yaml}\njobs:", "mine.yaml: cannot be read"),
        ("jobs:", "events: [{kind: embargo, devices: [h21]}]\njobs:", "events[0].devices: 'h21'"),
        ("jobs:", "events: [{kind: embargo, date: tomorrow}]\njobs:", "events[0].date: 'tomorrow'"),
        ("jobs:", "events: [{kind: licence}]\njobs:", "licence needs it"),
        ("jobs:", "monte_carlo: {inputs: {lead_tim: [1, 2, 3]}}\njobs:", "expected one of lead_time"),
        ("jobs:", "monte_carlo: {inputs: {price: [3, 2, 1]}}\njobs:", "in this order"),
    ],
)  # fmt: skip
def test_bad_input_is_named(file: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_inquiries(file)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a.rent", "a.rnt", "expected option.field"),
        ("against: b", "against: c", "expected one of a, b"),
        ("mfu: 10 %, rent: 1 CNY/h}}", "mfu: 10 %, rent: 1 USD/h}}", "expected the currency"),
        ("mfu: 10 %, rent: 1 CNY/h}}", "mfu: 0 %}}", "a share above 0 and at most 100 %"),
        ("mfu: 10 %, rent: 1 CNY/h}}", "mfu: 10 %, seizure: 100 %}}", "a share from 0 to 99 %"),
        ("mfu: 10 %, rent: 1 CNY/h}}", "mfu: 10 %, colour: 3}}", "unknown key, did you mean 'colo'"),
        ("peak: 2 TFLOP/s, ", "", "'peak' - key is missing"),
        (", against: b", "", "break_even needs it"),
    ],
)  # fmt: skip
def test_bad_comparisons_are_named(file: Path, old: str, new: str, words: str) -> None:
    assert old in COMPARE
    file.write_text(COMPARE.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_comparisons(file)
    assert words in str(caught.value)


def test_every_fault_is_told_at_once(file: Path) -> None:
    file.write_text(
        GOOD.replace("jobs:", "events: [{kind: licence, devices: [x], date: y}]\njobs:")
    )
    with pytest.raises(InputError) as caught:
        load_inquiries(file)
    assert len(caught.value.problems) == 3


def test_other_sections_name_their_faults(file: Path) -> None:
    file.write_text("question: q?\nramp: {production: ascend-920, until: 2027-12}\n")
    with pytest.raises(InputError, match=r"expected one of ascend-910c"):
        load_ramps(file, (), None)
    file.write_text("question: q?\nramp: {production: ascend-910c, until: 2047-12}\n")
    with pytest.raises(InputError, match=r"is known from 2024-10 to 2028-12"):
        load_ramps(file, (), None)
    file.write_text(
        "question: q?\nstockpile: {need: 1, months: 2, price: 1 USD, shortage: 1 CNY, hazard: 1 %/year}\n"
    )
    with pytest.raises(InputError, match="expected the currency"):
        load_stockpiles(file, (), None)
    file.write_text("question: q?\n")
    with pytest.raises(InputError, match="purchase, compare, stockpile or ramp"):
        section_of(file)


def test_an_impossible_budget_has_remedies(file: Path) -> None:
    # 1 M CNY buys no node of 1.1 M
    file.write_text(GOOD.replace("100 M", "1 M"))
    [inquiry] = load_inquiries(file)
    found = answer(inquiry)
    assert found.plan is None
    assert found.remedies[0].constraint == "budget"
    assert found.remedies[0].increase is not None
    assert found.remedies[0].increase > 1


def test_money_in_dollars_is_changed_at_the_rate_of_the_day(file: Path) -> None:
    file.write_text(GOOD.replace("100 M CNY", "10 M USD"))
    [inquiry] = load_inquiries(file)
    rate = load_prices().rate("USD", "CNY", "2025-03-24")
    assert inquiry.buildout.budget[-1] == pytest.approx(10e6 * rate)
    assert any("USD are taken as" in note for note in inquiry.assumptions)


def test_what_is_silent_is_a_listed_default(file: Path) -> None:
    file.write_text(GOOD)
    [inquiry] = load_inquiries(file)
    [offer], defaults = inquiry.buildout.offers, load_defaults()
    assert offer.lead_s == 70 * 86_400  # as was seen in April 2024
    assert offer.network_share == defaults["network_share"].value
    assert offer.failure_rate * 31_557_600 == pytest.approx(  # a year's, where the prices hold it
        load_prices().at("annual_failure", "h20", "global", "2025-01-15")
    )
    day = date(2025, 3, 24)
    quote = load_prices().quote("purchase", "h20", "CN", day, "CNY", seen=day)
    assert offer.price[0] == pytest.approx(quote.mid * 8 * (1 + offer.network_share))
    notes = " ".join(inquiry.assumptions)
    for key in ("lead time", "network share", "repaired", "transit", "price"):
        assert f"{key} is not given" in notes
    file.write_text(GOOD.replace("node: h20-8", "node: ascend-910b2-8").replace("h20", "910b"))
    [inquiry] = load_inquiries(file)
    [offer] = inquiry.buildout.offers
    assert offer.domestic
    assert offer.lead_s == 180 * 86_400
    file.write_text(GOOD.replace("h20-8", "h100-8").replace("h20", "h100").replace("jobs:",
                    "buyer: {country: Brazil}\nsites: {x: {energy_price: 1 CNY/kWh}}\njobs:", 1)
                    .replace("node: h100-8", "node: h100-8, price: 2 M CNY"))  # fmt: skip
    [inquiry] = load_inquiries(file)
    assert inquiry.buildout.offers[0].lead_s == 70 * 86_400  # the world's is the US'


def test_dated_prices_hold_from_their_month(file: Path) -> None:
    text = "node: h20-8, network_share: 0 %, price: {2025-03: 1 M CNY, 2025-07: 2 M CNY}"
    file.write_text(GOOD.replace("node: h20-8", text))
    [inquiry] = load_inquiries(file)
    # month 4 begins on 2025-07-23, month 3 on 2025-06-23
    assert inquiry.buildout.offers[0].price[2:6] == (1e6, 1e6, 2e6, 2e6)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("price: {2025-07: 1 M CNY}", "h20: no price is given before 2025-07-01"),
        ("rent: 9 CNY/h", "rent is given, rentable is not: none can be rented"),
        ("sold_until: 2025-01-01", "not for sale on any month's first day within the plan"),
        ("sold_from: 2025-04-10", "of its sale not before 2025-04-23"),
        ("sold_until: 2025-06-30", "of its sale last on 2025-06-23"),
    ],
)
def test_what_a_key_leaves_open_is_said(file: Path, keys: str, words: str) -> None:
    """A price that begins later, a rent of nothing, days of sale between two days of order."""
    file.write_text(GOOD.replace("node: h20-8", f"node: h20-8, {keys}"))
    [inquiry] = load_inquiries(file)
    told = " | ".join(inquiry.assumptions)
    assert words in told


@given(
    st.integers(0, 2600), st.sampled_from(["h20", "h800", "h200", "mi300x", "l20", "ascend-910b2"])
)
@settings(max_examples=60, deadline=None)
def test_the_gate_says_what_the_rules_say_on_any_day(days: int, device: str) -> None:
    rules = load_rules()
    day = min(rules.known_from + timedelta(days=days), rules.known_until)
    said = rule_gate(rules, "company")(make_offer(device=device), SITE, day)
    verdict = judge(rules, device, day, "China", changes=False)
    assert said.policy == ORDER[verdict.policy]
    assert said.rules == verdict.rule_ids
    assert said.surcharge == verdict.fee + verdict.duty


SITE = Site("here", "China", INF, INF, 0.0, 1.0, 0.0)


def test_a_planner_knows_what_was_announced() -> None:
    rules = known_rules(load_rules(), date(2025, 3, 24))
    gate = rule_gate(rules, "company")
    assert gate(make_offer(device="h20"), SITE, date(2025, 4, 14)).policy == "free"
    assert (
        rule_gate(load_rules(), "company")(make_offer(device="h20"), SITE, date(2025, 4, 14)).policy
        == "denied"
    )
    assert date(2025, 4, 9) in turning_days(load_rules())
    assert gate(make_offer(), SITE, START).policy == "free"  # not of the catalogue: not asked


def test_a_rented_machine_is_its_owners_and_ascend_stays_at_home() -> None:
    gate, day = rule_gate(load_rules(), "chinese-subsidiary"), date(2025, 12, 1)
    abroad = Site("johor", "Malaysia", INF, INF, 0.0, 1.0, 0.0)
    own = make_offer(device="h100")
    rented = make_offer(device="h100", price=(INF,) * 12)
    ascend = make_offer(device="ascend-910b2")
    assert gate(own, abroad, day).policy == "denied"
    assert gate(rented, abroad, day).policy == "free"
    assert gate(ascend, abroad, day).rules == ("US-2025-05-13-GP10",)
    assert gate(ascend, SITE, day).policy == "free"


def test_a_mix_is_measured_against_its_parts() -> None:
    cases = load_cases(ROOT / "scenarios/market/ling-plus-plans.yaml")
    offers = {"h20": "h20-8", "910b": "ascend-910b2-8"}
    found = {t.devices: t for t in plan_throughputs(cases, offers)}
    assert set(found) == {("h20",), ("910b",), ("h20", "910b")}  # H800 and others are not on offer
    by_name = {case.name: case for case in cases}
    speed = {
        n: simulate_step(by_name[n]).tokens_per_s_per_device
        for n in ("h20", "ascend-910b", "h20-and-910b")
    }
    mix = found["h20", "910b"]
    # 512 of each: what the mix does with its goodput over half of each plan with its own
    whole = speed["h20-and-910b"] * 1024 * mix.goodput
    apart = 512 * (
        speed["h20"] * found["h20",].goodput + speed["ascend-910b"] * found["910b",].goodput
    )
    assert mix.efficiency == pytest.approx(whole / apart)
    assert 0.9 < found["h20",].goodput < 1


def test_pictures_are_well_formed_and_the_record_is_plain(file: Path) -> None:
    file.write_text(
        GOOD.replace("jobs:", "monte_carlo: {draws: 3, inputs: {price: [0.9, 1, 1.2]}}\njobs:")
    )
    answers = [answer(i) for i in load_inquiries(file, ["rules.ignore=true"])]
    pictures = buy_pictures(answers)
    file.write_text(
        COMPARE.replace("ask: [", "ask: [{kind: sweep, input: '*.mfu', values: [10 %, 20 %]}, ")
    )
    pictures |= comparison_pictures([(c, answer_comparison(c)) for c in load_comparisons(file)])
    pictures |= ramp_pictures(load_ramps(ROOT / "scenarios/market/domestic-ramp.yaml", (), None))
    pictures |= stockpile_pictures(
        load_stockpiles(ROOT / "scenarios/market/stockpile.yaml", (), None)
    )
    assert {"x-fan.svg", "x-tornado.svg", "x-legal.svg", "x-fleet-came.svg", "mid-ramp.svg"} <= set(
        pictures
    )
    for text in pictures.values():
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert "nan" not in text
    record = buy_record(answers)
    assert "legal advice" in record["notice"]
    case = record["cases"]["x"]
    assert case["as_planned"]["per_trillion_tokens"] == pytest.approx(case["as_planned"]["money"])
    assert sum(case["as_planned"]["cost"].values()) == pytest.approx(case["as_planned"]["total"])
    assert to_text(record)


@pytest.mark.slow
def test_the_same_bytes_whatever_the_hash_seed() -> None:
    texts = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-m", "ersatz", "buy", "two-gates", "--json", "-"], env=env,
                              capture_output=True, text=True, check=True, cwd=ROOT)  # fmt: skip
        texts.append(done.stdout)
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("date", "month"), [("2024-01-01", 0), ("2025-03-24", 1), ("2025-05-24", 3)]
)
def test_a_plan_is_made_anew_from_the_month_after_a_shock_or_from_its_start(
    file: Path, date: str, month: int
) -> None:
    event = f"rules: {{ignore: true}}\nevents: [{{kind: price, date: {date}, change: 10 %}}]\njobs:"
    file.write_text(
        GOOD.replace("months: 12,", "months: 12, replan: true,").replace("jobs:", event)
    )
    renewed = answer(load_inquiries(file)[0]).renewed
    assert renewed is not None
    assert renewed.month == month
