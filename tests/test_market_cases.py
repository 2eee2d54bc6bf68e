"""Cases of rules, purchases and prices that were once wrong, each as its kind; days on which rules turn."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from market import INF, free, make_buildout, make_offer, ordered, throughput, with_offer

from ersatz.device_models.catalog.export import load_part
from ersatz.sim.errors import InputError
from ersatz.sim.law.rules import judge, load_rules
from ersatz.sim.market.items import price_region
from ersatz.sim.market.prices import load_prices
from ersatz.sim.purchase.buildout import (
    MONTH_DAYS,
    MONTH_S,
    Answer,
    Job,
    Offer,
    Site,
    purchase_problem,
)
from ersatz.sim.purchase.decide import in_time_by_speed, saving, turns
from ersatz.sim.purchase.diagnose import diagnose
from ersatz.sim.purchase.events import Event
from ersatz.sim.purchase.life.chance import Uncertain, swings
from ersatz.sim.purchase.life.replay import replay
from ersatz.sim.purchase.programme import build_programme
from ersatz.sim.purchase.purchase import cheapest
from ersatz.sim.purchase.reading.file import load_inquiries
from ersatz.sim.report.buying.words import _unproved
from ersatz.sim.scenario.resolving.job import default_spares

RULES, PRICES = load_rules(), load_prices()

EDGES = [  # device, day, destination, buyer, origin, policy: the last day before and the first after
    # the letters of August 2022, and the rule that took their place on 2022-10-21
    ("a100-80", "2022-08-25", "CN", "company", None, "free"),
    ("a100-80", "2022-08-26", "CN", "company", None, "denied"),
    ("mi250x", "2022-08-26", "CN", "company", None, "denied"),
    ("h100", "2022-10-07", "CN", "company", None, "denied"),
    ("a100-80", "2022-10-20", "CN", "company", None, "denied"),
    ("a100-80", "2022-10-21", "CN", "company", None, "denied"),
    ("a800", "2022-11-10", "CN", "company", None, "free"),  # 400 GB/s of links: below 600
    ("h100", "2022-12-01", "HK", "company", None, "denied"),
    ("h100", "2023-01-17", "MO", "company", None, "free"),
    ("h100", "2023-01-18", "MO", "company", None, "denied"),
    # October 2023: announced on 17, for NVIDIA's five at once on 23, for all on 17 November
    ("h800", "2023-10-17", "CN", "company", None, "free"),
    ("h800", "2023-10-23", "CN", "company", None, "denied"),
    ("rtx-4090", "2023-11-16", "CN", "company", None, "free"),
    ("rtx-4090", "2023-11-17", "CN", "company", None, "notify"),
    ("l40s", "2023-11-17", "CN", "company", None, "denied"),
    ("l20", "2024-05-01", "CN", "company", None, "free"),
    # whoever has its headquarters in China is judged as China, wherever the goods go
    ("h100", "2024-05-01", "MY", "company", None, "free"),
    ("h100", "2024-05-01", "MY", "chinese-subsidiary", None, "denied"),
    ("h100", "2024-05-01", "CN", "company", "TW", "denied"),  # and a re-export is an export
    # memory: in force on 2 December 2024, to be kept from 31 December
    ("hbm3", "2024-12-15", "CN", "company", None, "free"),
    ("hbm3", "2024-12-31", "CN", "company", None, "denied"),
    # the rule on diffusion never bound
    ("h100", "2025-05-13", "Portugal", "company", None, "free"),
    ("h100", "2025-05-15", "Portugal", "company", None, "free"),
    # the letters of April 2025, and licences from August
    ("h20", "2025-04-08", "CN", "company", None, "free"),
    ("h20", "2025-04-09", "CN", "company", None, "licence"),
    ("mi308x", "2025-04-09", "CN", "company", None, "licence"),
    ("rtx-5090d", "2025-04-09", "CN", "company", None, "licence"),
    ("rtx-5090d-v2", "2025-08-01", "CN", "company", None, "free"),
    ("h20", "2025-07-20", "CN", "company", None, "licence"),
    ("h20", "2025-08-08", "CN", "company", None, "case_by_case"),
    # China's own: big firms are told not to buy from 2025-09-17 on
    ("rtx-pro-6000d", "2025-09-20", "CN", "big-tech", None, "denied"),
    ("rtx-pro-6000d", "2025-09-20", "CN", "company", None, "free"),
    # H200: announced in December 2025, a rule in January 2026, China's block until February
    ("h200", "2025-12-20", "CN", "company", None, "denied"),
    ("h200", "2026-01-20", "CN", "company", None, "denied"),
    ("h200", "2026-02-15", "CN", "company", None, "case_by_case"),
    ("b200", "2026-02-15", "CN", "company", None, "denied"),
    ("mi355x", "2026-02-15", "CN", "company", None, "denied"),
    ("mi325x", "2026-02-15", "CN", "company", None, "case_by_case"),
    ("b30a", "2026-02-15", "CN", "company", None, "denied"),
    # and others
    ("h100", "2024-06-01", "VN", "company", None, "approval"),
    ("t4", "2024-06-01", "CN", "listed", None, "denied"),
    ("ascend-910b2", "2025-03-24", "CN", "company", None, "free"),
]


@pytest.mark.parametrize(("device", "day", "place", "buyer", "origin", "policy"), EDGES)
def test_rules_turn_on_their_days(
    device: str, day: str, place: str, buyer: str, origin: str | None, policy: str
) -> None:
    assert judge(RULES, device, day, place, buyer, origin, changes=False).policy == policy


def test_a_duty_is_due_inside_the_windows_only() -> None:
    # 25 % on H200 and MI325X; H100's memory is below the window
    duties = {d: judge(RULES, d, "2026-02-15", "CN", changes=False).duty
              for d in ("h200", "mi325x", "h100")}  # fmt: skip
    assert duties == {"h200": 0.25, "mi325x": 0.25, "h100": 0.0}


def test_the_board_of_eight_b300_is_not_the_rack_of_72() -> None:
    # 108 PFLOP/s of dense FP4 over eight: 13.5 x 4 bits = 54,000; the rack's device has 15.0: 60,000
    assert load_part("b300").tpp == 54_000
    assert load_part("gb300").tpp == 60_000
    assert load_part("b300").peaks["bf16"] == 2_250e12  # 36 PFLOP/s with sparsity over 16


# -- prices -------------------------------------------------------------------------------------------


def test_a_price_that_is_trusted_beats_one_that_is_nearer() -> None:
    # of the 910B: a server by hearsay (low), a card by Reuters (high): 120,000 with a server's share
    quote = PRICES.quote("purchase", "ascend-910b2", "CN", "2025-03-24", "CNY")
    assert quote.confidence == "high"
    assert quote.basis == "card"
    assert quote.mid == pytest.approx(120_000 * 1.15)


def test_a_contract_is_not_left_for_what_is_posted_since() -> None:
    # one-year rents to 2026-03, posted ones to 2026-05: the kind stays
    before, after = (
        PRICES.quote("rent", "h100", "global", day) for day in ("2026-03-15", "2026-06-10")
    )
    assert before.kind == after.kind == "market"
    assert after.mid == before.mid == 2.35


def test_a_planner_sees_no_price_of_the_future() -> None:
    # H20 on 2025-03-24: 1.2 M of July 2024 is known, 1.05 M of July 2025 is not
    seen = PRICES.quote("purchase", "h20", "CN", "2025-03-24", "CNY", seen=_day("2025-03-24"))
    assert 8 * seen.mid == pytest.approx(1.2e6)
    assert (f"{seen.observed}", seen.late) == ("2024-07-15", False)
    # a PPU had no price on that day: what came later is said to be so
    late = PRICES.quote("purchase", "ppu-810e", "CN", "2025-03-01", "CNY", seen=_day("2025-03-01"))
    assert late.late


def test_every_price_has_a_range() -> None:
    for series in PRICES.series:
        head = series[0]
        if head.item in ("purchase", "rent") and "*" not in head.device:
            quote = PRICES.quote(head.item, head.device, head.region, head.day)
            assert quote.low < quote.mid < quote.high, head


def test_devices_of_the_day_have_prices_where_they_are_bought() -> None:
    for device in (
        "ppu-810e",
        "m890",
        "ascend-910b2",
        "ascend-910c",
        "ascend-950dt",
        "ascend-950pr",
        "mi308x",
    ):
        assert PRICES.quote("purchase", device, "CN", "2026-11-01", "CNY").mid > 0
    for device in ("h100", "h200", "b200", "b300", "gb200", "gb300", "mi325x", "mi355x"):
        for region in ("EU-DE", "Gulf-AE", "MY", "IN", "JP", "US"):
            assert PRICES.quote("purchase", device, region, "2026-08-01", "EUR").mid > 0
            assert PRICES.quote("rent", device, region, "2026-08-01", "EUR").mid > 0


@pytest.mark.parametrize(("country", "region"), [
    ("DE", "EU-DE"), ("RO", "EU"), ("AE", "Gulf-AE"), ("QA", "Gulf"), ("MY", "MY"), ("BR", "global"),
    ("CN", "CN"), ("US", "US")])  # fmt: skip
def test_regions_have_their_own_electricity(country: str, region: str) -> None:
    assert price_region(country) == region
    assert PRICES.quote("carbon", "*", region, "2026-06-01").mid > 0
    if region == "global":  # nobody's electricity is taken for another's
        with pytest.raises(InputError, match="no such price"):
            PRICES.quote("power", "*", region, "2026-06-01")
    else:
        assert PRICES.quote("power", "*", region, "2026-06-01").region in (
            region,
            region.split("-")[0],
        )


def test_exchange_rates_go_through_the_dollar() -> None:
    day = "2025-07-01"
    eur, cny = PRICES.rate("USD", "EUR", day), PRICES.rate("USD", "CNY", day)
    assert PRICES.rate("EUR", "CNY", day) == pytest.approx(cny / eur)
    assert PRICES.rate("CNY", "EUR", day) * PRICES.rate("EUR", "CNY", day) == pytest.approx(1)
    assert PRICES.rate("USD", "AED", "2026-11-01") == 3.6725
    with pytest.raises(InputError, match="no exchange rate; known: USD, AED"):
        PRICES.rate("USD", "CHF", day)


def _day(text: str):  # type: ignore[no-untyped-def]
    from datetime import date

    return date.fromisoformat(text)


FILE = """question: What?
currency: {currency}
start: 2026-03-01
buyer: {{kind: {kind}, country: {country}}}
purchase: {{months: 12, budget: 100 M {currency}}}
devices: {{h200: {{node: h200-8}}}}
jobs:
  j: {{tokens: 1 T tokens, flop_per_token: 1.728e11, rates: {{h200: {{peak: 989 TFLOP/s, mfu: 35 %}}}}}}
"""


def test_a_file_from_elsewhere_needs_no_price_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(FILE.format(currency="EUR", kind="university", country="Germany"))
    [inquiry] = load_inquiries(path)
    site = inquiry.buildout.sites[0]
    assert 3.6e6 * site.energy_price == pytest.approx(0.233)  # Eurostat, late 2024
    assert 3.6e6 * site.carbon == pytest.approx(0.381)  # Germany's, not China's 0.548
    said = " ".join(inquiry.assumptions)
    assert "EU-DE" in said
    assert "low" in said
    path.write_text(FILE.format(currency="USD", kind="company", country="Nigeria"))
    with pytest.raises(InputError, match=r"energy_price.*the prices know none in global"):
        load_inquiries(path)


# -- money ----------------------------------------------------------------------------------------------


def test_duty_is_due_on_machines_and_not_on_the_network() -> None:
    # a node of 100 and 20 of network, 25 % of duty: 145, not 150
    def dutiable(offer: Offer, site: Site, day: object) -> Answer:
        return Answer("free", surcharge=0.25)

    b = with_offer(make_buildout(), price=(120.0,) * 12, network_share=0.2)
    assert purchase_problem(b, dutiable).price[0, 0, 0] == pytest.approx(145)
    life = replay(b, ordered(b, m0=10), dutiable)
    assert life.cost["fees and duty"] == pytest.approx(250)
    assert life.cost["network"] == pytest.approx(200)


def test_a_rent_holds_its_electricity() -> None:
    # 3 a node and hour with 1 kW at 1 a kWh: 3 in all, or 4 where the rent is without
    watts = replace(throughput("a"), watts={"a": 1000.0})
    base = make_buildout(jobs=(Job("job", 100.0, 12.0, (watts,)),),
                         sites=(Site("here", "china", INF, INF, 1 / 3.6e6, 1.0, 0.0),))  # fmt: skip
    costs = []
    for powered in (True, False):
        b = with_offer(
            base, price=(INF,) * 12, rent=3.0, rentable=5.0, powered_rent=powered, watts=1000.0
        )
        plan = cheapest(purchase_problem(b, free), 0.0)
        assert plan is not None
        life = replay(b, plan, free)
        hours = 10 * MONTH_S / 3600  # 100 tokens at 10 a month
        costs.append(life.total / hours)
        assert life.total == pytest.approx(plan.cash, rel=1e-6)
        assert life.kwh == pytest.approx(hours)
    assert costs == pytest.approx([3.0, 4.0], rel=1e-6)


def test_a_buyer_of_one_box_pays_for_one_box() -> None:
    # two spares for one node made it three; one in eight from eight on, two from sixteen, 2 % from 101
    assert [default_spares(n) for n in (1, 2, 7, 8, 15, 16, 100, 101)] == [0, 0, 0, 1, 1, 2, 2, 3]


def test_lots_and_families() -> None:
    # 100 of work needs one node for ten months; in lots of four it is four
    b = with_offer(make_buildout(jobs=(Job("job", 100.0, 12.0, (throughput("a"),)),)), lot=4)
    plan = cheapest(purchase_problem(b, free), 0.0)
    assert plan is not None
    assert plan.orders.sum() == 4
    # a second device saves 15, its family costs 20: it stays away; at 10 it comes
    for family, kinds in ((20.0, 1), (10.0, 2)):
        offers = (make_offer("a", porting_cost=family, supply=(1.0,) * 12),
                  make_offer("b", price=(85.0,) * 12, porting_cost=family, supply=(1.0,) * 12))  # fmt: skip
        both = (Job("one", 110.0, 12.0, (throughput("a"), throughput("b"))),
                Job("two", 110.0, 12.0, (throughput("a"), throughput("b", monthly=0.01))))  # fmt: skip
        plan = cheapest(purchase_problem(make_buildout(offers=offers, jobs=both), free), 0.0)
        assert plan is not None
        bought = int(plan.orders.any(axis=(1, 2)).sum())
        assert bought == kinds or (kinds == 1 and plan.cost <= 2 * 100 + family + 1e-6)


# -- licences -----------------------------------------------------------------------------------------------


def presumed(offer: Offer, site: Site, day: object) -> Answer:
    return Answer("case", ("D14",), presumed=True)


def decided(offer: Offer, site: Site, day: object) -> Answer:
    return Answer("case", ("D14",))


def test_a_licence_presumed_to_be_approved_is_planned_with_and_its_wait_too() -> None:
    # 1,000 tokens in 12 months at 10 a month; two months of waiting: ten nodes, not nine
    b = with_offer(make_buildout(count_on_licences=None), licence_s=(2 * MONTH_S, 5 * MONTH_S))
    plan = cheapest(purchase_problem(b, presumed), 0.0)
    assert plan is not None
    assert plan.orders.sum() == 10
    wait = Event(
        "licence", 0.0, {"approval": 0.9, "delay_days": 2 * MONTH_DAYS}, called_by="presumed"
    )
    assert replay(b, plan, presumed, [wait]).finish == pytest.approx(12.0)
    # one that is decided case by case only where the file says so
    assert cheapest(purchase_problem(b, decided)) is None
    counted = cheapest(purchase_problem(replace(b, count_on_licences=True), decided), 0.0)
    assert counted is not None
    assert counted.orders.sum() == math.ceil(100 / 7)
    assert cheapest(purchase_problem(replace(b, count_on_licences=False), presumed)) is None


def test_no_plan_for_want_of_a_licence_names_the_key(tmp_path: Path) -> None:
    from ersatz.sim.purchase.answer import answer

    path = tmp_path / "x.yaml"
    text = FILE.format(currency="USD", kind="company", country="UAE")
    path.write_text(text)
    assert answer(load_inquiries(path)[0]).plan is not None
    path.write_text(text.replace("months: 12,", "months: 12, count_on_licences: false,"))
    told = answer(load_inquiries(path)[0])
    assert told.plan is None
    assert any("purchase.count_on_licences: true" in remedy.text for remedy in told.remedies)
    assert not any("100.0 % fewer" in remedy.text for remedy in told.remedies)


# -- what is said ------------------------------------------------------------------------------------------


def test_two_limits_that_bind_are_named_together() -> None:
    # nine nodes of 100 with 1 W each are needed: 800 of money and 8 W of power, neither alone suffices
    watts = replace(throughput("a"), watts={"a": 1.0})
    b = make_buildout(jobs=(Job("job", 1000.0, 12.0, (watts,)),), budget=(800.0,) * 12,
                      sites=(Site("here", "china", 8.0, INF, 0.0, 1.0, 0.0),))  # fmt: skip
    found = diagnose(purchase_problem(b, free))
    [pair] = [r for r in found if " and " in r.constraint]
    assert pair.constraint == "power here and budget"
    assert pair.text.startswith("together: power here 4.2 % and budget 12.5 %")  # 8.33 of 8; 9 of 8


def test_a_gap_that_was_not_reached_is_in_the_first_line() -> None:
    b = make_buildout(gap=0.01)
    plan = ordered(b, m0=10)
    assert _unproved(b, replace(plan, gap=0.031)) == (
        " The solver's time ran out: within 3.1 % of the cheapest, 1.0 % was asked.")  # fmt: skip
    assert _unproved(b, replace(plan, gap=0.01)) == ""


def test_a_probability_is_no_bar_between_two_probabilities() -> None:
    # approval of 0.2 to 0.8 would move nothing or everything by rounding; a refusal and a grant do
    b = make_buildout()
    gate = [Event("licence", 0, {"approval": 0.5, "delay_days": 0.0})]
    [bar] = swings(b, ordered(b, m0=10), free, gate, [Uncertain("approval", 0.2, 0.5, 0.8)],
                   lambda life: life.finish)  # fmt: skip
    assert (bar.low, bar.high) == (0.0, 1.0)
    assert (bar.at_low, bar.at_high) == (INF, pytest.approx(10.0))


def test_what_turns_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    # a does 10 for 100, b 8 for 100: b is bought below 80, a no more above 125; twelve months for
    # 1,000 tokens need 8.33 nodes; a month later 9.09: 75.8 dearer; speed has 8.33/9 to lose
    def closing(offer: Offer, site: Site, day: object) -> Answer:
        return Answer("denied" if str(day) >= "2025-06-01" else "free", ("R",))

    offers = (make_offer("a"), make_offer("b"))
    jobs = (Job("job", 1000.0, 12.0, (throughput("a"), throughput("b", monthly=8.0))),)
    b = make_buildout(offers=offers, jobs=jobs)
    problem = purchase_problem(b, closing)
    plan = cheapest(problem, 0.0)
    assert plan is not None
    found = {(t.kind, t.name): t for t in turns(b, problem, plan, closing, ())}
    assert found["price", "b"].value == pytest.approx(80, rel=0.02)
    assert found["price", "a"].value == pytest.approx(125, rel=0.02)
    assert found["wait", ""].value == pytest.approx(1000 / 11 * 10 - 1000 / 12 * 10, rel=1e-3)
    assert found["speed", ""].value == pytest.approx(1000 / 12 / 90, abs=0.005)
    assert "2025-06-01" in found["day", "a"].text
    # of a programme so large that one price can be asked, that of what is bought is
    columns = 10 * build_programme(problem).width
    monkeypatch.setattr("ersatz.sim.purchase.decide.MOST_SOLVED", columns)
    fewer = turns(b, problem, plan, closing, ())
    assert [t.name for t in fewer if t.kind == "price"] == ["a"]
    assert any("prices of 1 of 2 devices: not asked" in t.text for t in fewer)
    # and what a licence for a device that is shut out is worth: half the price for the same speed
    cheap = make_buildout(offers=(make_offer("a"), make_offer("b", price=(40.0,) * 12)), jobs=jobs)
    shut = purchase_problem(cheap, lambda o, s, d: Answer("denied" if o.name == "b" else "free"))
    plan = cheapest(shut, 0.0)
    assert plan is not None
    worth = next(t for t in turns(cheap, shut, plan, free, ()) if t.kind == "licence")
    assert worth.value == pytest.approx(1000 / 12 * 10 - 1000 / 12 / 8 * 40, rel=1e-3)


def test_chances_follow_from_their_laws() -> None:
    # an 80 % interval of 0.8 to 1.25: at least 0.8 with 90 %
    assert in_time_by_speed(0.8, 0.8, 1.25) == pytest.approx(0.9)
    rng = np.random.default_rng(1)
    costs, others = 80.0 * np.exp(0.1 * rng.standard_normal(4000)), np.full(4000, 100.0)
    found = saving("x", "y", costs, others, 0.2)
    assert found.enough == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))  # as 80 is the median
    assert found.any == pytest.approx(0.987, abs=0.01)  # ln(1 / 0.8) / 0.1 = 2.23 sigma
    same = saving("x", "y", 0.9 * others, others, 0.2)  # what both share cancels
    assert (same.low, same.high, same.enough) == (pytest.approx(0.1), pytest.approx(0.1), 0.0)
    never = saving("x", "y", np.where(rng.random(4000) < 0.3, np.inf, 50.0), others, 0.2)
    assert never.low == -INF  # three lives in ten are never done
    assert never.enough == pytest.approx(0.7, abs=0.03)


def test_what_the_prices_know_is_read_or_said(tmp_path: Path) -> None:
    # wear by the maker (AMD 7 %, NVIDIA 5 %), worth by `depreciation`, a smuggler of the dearest device,
    # space as it is paid: 150 USD a kW and month at a PUE of 1.25 are 0.164 USD a kWh at the meter
    path = tmp_path / "x.yaml"
    path.write_text("""question: what is read of the prices
currency: USD
start: 2026-07-01
buyer: {country: China}
rules: {ignore: true}
purchase: {months: 12, objective: cost, count: use}
devices:
  h200: {node: h200-8, price: 300 k USD}
  mi300x: {node: mi300x-8, price: 200 k USD}
  b300: {node: b300-8, price: 500 k USD}
sites: {here: {colocation: 150 USD/month, pue: 1.25}}
events: [{kind: smuggling, devices: [h200, b300]}]
jobs:
  j:
    tokens: 1 T tokens
    flop_per_token: 1e11
    rates: {h200: {peak: 989 TFLOP/s, mfu: 40 %}, mi300x: {peak: 1300 TFLOP/s, mfu: 30 %}}
""")
    [inquiry] = load_inquiries(path)
    b = inquiry.buildout
    year = 365.25 * 86400.0
    assert [o.failure_rate * year for o in b.offers] == pytest.approx([0.05, 0.07, 0.05])
    assert b.value_decay == pytest.approx(0.14, abs=1e-4)
    assert 3.6e6 * b.sites[0].energy_price == pytest.approx(150 / (8766 / 12) / 1.25)
    [event] = inquiry.events
    assert (event.values["premium"], event.values["seizure"]) == pytest.approx((1.0, 0.05))
    words = " ".join(inquiry.assumptions)
    assert "smuggling: premium is not given: 100 %, that of b300" in words
    assert "space is paid" in words
    path.write_text(path.read_text().replace("pue: 1.25", "energy_price: 0.1 USD/kWh"))
    with pytest.raises(InputError, match="give it or energy_price, not both"):
        load_inquiries(path)


def test_nothing_is_sold_before_its_release(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("""question: early
currency: USD
start: 2025-03-01
buyer: {country: US}
purchase: {months: 12}
devices: {gb300: {node: gb300-nvl72, price: 3.5 M USD}}
jobs: {j: {tokens: 1 T tokens, flop_per_token: 1e11, rates: {gb300: {peak: 2500 TFLOP/s, mfu: 40 %}}}}
""")
    [inquiry] = load_inquiries(path)
    sold = [price < math.inf for price in inquiry.buildout.offers[0].price]
    assert (
        sold == [False] * 7 + [True] * 5
    )  # it is known as of 2025-09, the seventh month ends there
    assert any("not sold before it is released (2025-09)" in a for a in inquiry.assumptions)


def test_a_quota_of_a_licence_binds_and_is_said(tmp_path: Path) -> None:
    # G42 may have 35,000 GB300: 486 racks of 72; asked for more, the licence is presumed and not granted
    path = tmp_path / "x.yaml"
    path.write_text("""question: quota
currency: USD
start: 2026-03-01
buyer: {kind: G42, country: UAE}
purchase: {months: 12}
devices: {gb300: {node: gb300-nvl72, price: 3.5 M USD}}
jobs: {j: {tokens: 1 T tokens, flop_per_token: 1e11, rates: {gb300: {peak: 2500 TFLOP/s, mfu: 40 %}}}}
cases: {held: {}, asked: {devices: {gb300: {quota: 600}}}}
""")
    held, asked = load_inquiries(path)
    day = held.buildout.start
    answers = [i.gate(i.buildout.offers[0], i.buildout.sites[0], day) for i in (held, asked)]
    assert held.buildout.offers[0].quota == 35_000 // 72
    assert any(
        "at most 35,000 devices, the quota of US-2025-11-19-GULF" in a for a in held.assumptions
    )
    assert [(a.policy, a.presumed) for a in answers] == [("free", False), ("case", True)]
