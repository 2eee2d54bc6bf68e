"""The replay: deliveries, gates and shocks worked out by hand; survival against the exponential."""

import math
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market import INF, free, make_buildout, make_offer, ordered, throughput, with_offer

from ersatz.sim.purchase.buildout import (
    DAY_S,
    MONTH_DAYS,
    MONTH_S,
    Answer,
    Job,
    Offer,
    Site,
    purchase_problem,
)
from ersatz.sim.purchase.events import Draw, Event, foreseen, with_embargoes
from ersatz.sim.purchase.life.chance import Uncertain, fan, live_often, swings
from ersatz.sim.purchase.life.replay import replay
from ersatz.sim.purchase.purchase import cheapest

YEAR_S = 12 * MONTH_S


def embargo(day: float, grace: float = 0.0, **more: object) -> Event:
    return Event("embargo", day, {"grace_days": grace, "months": INF}, **more)  # type: ignore[arg-type]


def test_ten_nodes_do_a_thousand_tokens_in_ten_months() -> None:
    life = replay(make_buildout(), ordered(make_buildout(), m0=10), free)
    assert life.finish == pytest.approx(10.0)
    assert life.total == pytest.approx(1000.0)
    assert life.device_hours == pytest.approx(10 * 10 * MONTH_S / 3600)
    assert life.delivered.tolist() == [10]


def test_lead_time_and_transit_are_waited_for() -> None:
    # a month to the border and half a month on the way: done 1.5 months later
    late = with_offer(make_buildout(), lead_s=MONTH_S, transit_s=0.5 * MONTH_S)
    assert replay(late, ordered(late, m0=10), free).finish == pytest.approx(11.5)
    slow = replay(late, ordered(late, m0=10), free, draw=Draw({"lead_time": 2.0}))
    assert slow.finish == pytest.approx(12.5)


def test_an_embargo_takes_what_has_not_left() -> None:
    # orders of five in months 0, 1, 2 with two months to the border; embargo at month 3.5 with no
    # grace: exports at months 2 and 3 leave, the one at 4 does not; what travels arrives
    b = with_offer(make_buildout(), lead_s=2 * MONTH_S, transit_s=MONTH_S)
    plan = ordered(b, m0=5, m1=5, m2=5)
    life = replay(b, plan, free, [embargo(3.5 * MONTH_DAYS)])
    assert (life.delivered[0], life.blocked[0]) == (10, 5)
    assert sorted(line.outcome for line in life.log) == ["delivered", "delivered", "stopped"]
    assert life.cost["machines"] == pytest.approx(1000.0)  # what never left is not paid
    graced = replay(b, plan, free, [embargo(3.5 * MONTH_DAYS, grace=30)])
    assert graced.delivered[0] == 15


# In quarters of days: a calendar's clock rounds to microseconds, and 1.9999999999999 days are two.
@given(*(st.integers(0, 4 * days).map(lambda n: n / 4) for days in (400, 400, 120)))
@settings(max_examples=60, deadline=None)
def test_delivered_are_the_orders_placed_before_embargo_plus_grace_less_lead(
    day: float, lead: float, grace: float
) -> None:
    b = with_offer(make_buildout(), lead_s=lead * DAY_S)
    months = [0, 1, 2, 5, 8, 11]
    life = replay(b, ordered(b, **{f"m{m}": 3 for m in months}), free, [embargo(day, grace)],
                  horizon=40)  # fmt: skip
    # gates judge by the calendar day, counted from the first day of the build-out
    in_time = [m for m in months if math.floor(m * MONTH_DAYS + lead) < math.floor(day + grace)]
    assert life.delivered[0] + life.blocked[0] == 18
    assert life.delivered[0] == 3 * len(in_time)


def test_an_embargo_with_a_lead_time_beyond_the_horizon_delivers_nothing() -> None:
    b = with_offer(make_buildout(), lead_s=24 * MONTH_S)
    life = replay(b, ordered(b, m0=9, m5=9), free, [embargo(12 * MONTH_DAYS)], horizon=36)
    assert life.delivered[0] == 0
    assert life.finish == INF
    assert life.total == 0


def test_survivors_follow_the_exponential() -> None:
    # 9 % a year: 91.4, 83.5 and 76.3 % after one, two and three years; with 60 % repaired 96.5, 93.1
    # and 89.8 %
    for repaired, expected in ((0.0, (0.914, 0.835, 0.763)), (0.6, (0.965, 0.931, 0.898))):
        b = with_offer(make_buildout(36, jobs=(Job("j", 1e9, 36, (throughput("a"),)),)),
                       failure_rate=0.09 / YEAR_S, repaired=repaired)  # fmt: skip
        life = replay(b, ordered(b, m0=1000), free, horizon=36)
        assert life.fleet[[12, 24, 36], 0] / 1000 == pytest.approx(expected, abs=5e-4)
        problem = purchase_problem(b, free)  # the plan expects the same, on the mean of each month
        loss = 0.09 * (1 - repaired) / 12
        mean = (np.exp(-loss * np.arange(36)) - np.exp(-loss * np.arange(1, 37))) / loss
        assert problem.works[0, 0, 0] == pytest.approx(mean)


def test_drawn_survivors_follow_the_exponential_within_their_error() -> None:
    # 40 lives of 500 devices at 20 % a year, nothing repaired: e^-0.6 = 0.549 after three years;
    # the error of the mean share is sqrt(0.549 x 0.451 / 20,000) = 0.0035
    b = with_offer(make_buildout(36, jobs=(Job("j", 1e9, 36, (throughput("a"),)),)),
                   failure_rate=0.2 / YEAR_S)  # fmt: skip
    cloud = live_often(b, ordered(b, m0=500), free, [], [], 40, seed=3, horizon=36)
    assert abs(cloud.fleet[:, 36, 0].mean() / 500 - math.exp(-0.6)) < 4 * 0.0035
    assert cloud.fleet[:, 36, 0].std() > 0


def test_repaired_devices_come_back() -> None:
    # everything is repaired within a month: on average less than a month's failures are away
    b = with_offer(make_buildout(jobs=(Job("j", 1e9, 12, (throughput("a"),)),)),
                   failure_rate=1.2 / YEAR_S, repaired=1.0, repair_s=MONTH_S, repair_share=0.1)  # fmt: skip
    life = replay(b, ordered(b, m0=1000), free, draw=Draw(seed=1), horizon=12)
    away = 1000 - life.fleet[12, 0]
    assert 0 < away < 2 * 1000 * 1.2 / 12 * 1.3
    assert life.lost[0] == 0
    # about 1,200 failures of the year, a tenth of 100 each
    assert life.cost["repair"] == pytest.approx(1000 * 1.2 * 0.9 * 10, rel=0.15)


def test_a_gate_asks_at_the_day_of_export_and_a_notice_takes_25_days() -> None:
    def notify(offer: Offer, site: Site, day: date) -> Answer:
        return Answer("notify", ("R1",), "TPP 2,400", notice_days=25)

    life = replay(make_buildout(), ordered(make_buildout(), m0=10), notify)
    assert life.finish == pytest.approx(10 + 25 / MONTH_DAYS)
    assert life.log[0].rules == ("R1",)


def test_licence_and_import_delays_add_up_and_refusals_stop() -> None:
    b = make_buildout()
    plan = ordered(b, m0=10)
    gates = [Event("licence", 0, {"approval": 0.8, "delay_days": MONTH_DAYS}),
             Event("import", 0, {"approval": 0.9, "delay_days": 2 * MONTH_DAYS})]  # fmt: skip
    assert replay(b, plan, free, gates).finish == pytest.approx(13.0)
    refused = [Event("import", 0, {"approval": 0.2, "delay_days": 0.0})]
    life = replay(b, plan, free, refused)
    assert (life.delivered[0], life.blocked[0], life.total) == (0, 10, 0)
    # a licence holds for all shipments of a life: all or nothing, in half of the lives
    half = [Event("licence", 0, {"approval": 0.5, "delay_days": 0.0})]
    two = ordered(b, m0=5, m1=5)
    cloud = live_often(b, two, free, half, [], 200, seed=1)
    assert set(cloud.delivered[:, 0]) == {0.0, 10.0}
    assert abs((cloud.delivered[:, 0] > 0).mean() - 0.5) < 4 * 0.5 / math.sqrt(200)


def test_smugglers_take_a_premium_and_customs_a_share() -> None:
    # ten nodes at 100 with 50 % on top, a fifth seized
    b = make_buildout()
    ways = [embargo(0), Event("smuggling", 0, {"premium": 0.5, "seizure": 0.2, "delay_days": 0.0})]
    life = replay(b, ordered(b, m0=10), free, ways)
    assert life.total == pytest.approx(1500)
    assert (life.delivered[0], life.seized[0]) == (8, 2)
    assert life.finish == pytest.approx(12.5)


def test_a_price_shock_buys_less_of_a_spent_budget() -> None:
    # 1,000 to spend and 25 % more to pay: eight nodes instead of ten
    b = make_buildout(budget=(1000.0,) * 12)
    life = replay(b, ordered(b, m0=10), free, [Event("price", 0, {"change": 0.25})])
    assert life.delivered[0] == 8
    assert life.total == pytest.approx(1000)


def test_a_stockpile_is_bought_before_the_embargo() -> None:
    b = with_offer(make_buildout(), lead_s=DAY_S)
    plan = ordered(b, m0=2, m3=2, m6=2, m9=2)
    stop = embargo(2 * MONTH_DAYS)
    assert replay(b, plan, free, [stop]).delivered[0] == 2
    early = [Event("stockpile", MONTH_DAYS, {"months": 6}), stop]
    assert replay(b, plan, free, early).delivered[0] == 6  # months 1 to 6 at once; 9 is stopped
    again = [early[0], Event("stockpile", 1.5 * MONTH_DAYS, {"months": 4}), stop]
    assert replay(b, plan, free, again).delivered[0] == 6  # nothing is ordered twice


@pytest.mark.parametrize("ahead", [3, 5, 14])
def test_a_stockpile_before_the_plan_begins_is_laid_in_at_its_start(ahead: int) -> None:
    """Laid in `ahead` months early for nine more than these: months 0 to 8, where nothing is stopped."""
    b = with_offer(make_buildout(), lead_s=DAY_S)
    plan = ordered(b, m0=2, m3=2, m6=2, m9=2)
    early = Event("stockpile", -ahead * MONTH_DAYS, {"months": ahead + 9})
    assert replay(b, plan, free, [early, embargo(2 * MONTH_DAYS)]).delivered[0] == 6
    past = Event("stockpile", -ahead * MONTH_DAYS, {"months": ahead})
    assert replay(b, plan, free, [past]).delivered[0] == 8


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("price", {"change": 0.25}),
        ("repair", {"repaired": 0.5, "failures": 1.0}),
        ("power", {"change": 0.25}),
        ("porting", {"delay_days": 3.0, "cost": 7.0}),
    ],
)
def test_what_happened_before_the_plan_holds_from_its_start(
    kind: str, values: dict[str, float]
) -> None:
    b = make_buildout()
    lives = [replay(b, ordered(b, m0=10), free, [Event(kind, day, values)]) for day in (-400.0, 0)]
    assert lives[0].total == lives[1].total
    assert lives[0].finish == lives[1].finish


def test_repair_ends_and_porting_delays() -> None:
    b = with_offer(make_buildout(), failure_rate=0.5 / YEAR_S, repaired=1.0)
    plan = ordered(b, m0=10)
    assert replay(b, plan, free).finish == pytest.approx(10.0)
    lost = replay(b, plan, free, [Event("repair", 0, {"repaired": 0.0, "failures": 1.0})])
    # 100 months of work from ten devices that vanish at 50 % a year: 240 (1 - e^(-t/24)) = 100
    assert lost.finish == pytest.approx(-24 * math.log(1 - 100 / 240), rel=2e-3)
    ported = [Event("porting", 0, {"delay_days": 2 * MONTH_DAYS, "cost": 77.0})]
    life = replay(make_buildout(), ordered(make_buildout(), m0=10), free, ported)
    assert life.finish == pytest.approx(12.0)
    assert life.cost["porting"] == 77


def test_electricity_and_its_subsidy() -> None:
    # ten devices of 1 kW at PUE 1.5 for ten months at 1 CNY/kWh, half price from month 5
    b = replace(with_offer(make_buildout(), watts=1000.0),
                jobs=(Job("job", 1000.0, 12, (replace(throughput("a"), watts={"a": 1000.0}),)),),
                sites=(Site("here", "china", INF, INF, 1 / 3.6e6, 1.5, 0.5 / 3.6e6),))  # fmt: skip
    kwh = 10 * 1.5 * 10 * MONTH_S / 3600
    life = replay(b, ordered(b, m0=10), free)
    assert life.kwh == pytest.approx(kwh)
    assert life.cost["electricity"] == pytest.approx(kwh)
    half = replay(b, ordered(b, m0=10), free, [Event("power", 5 * MONTH_DAYS, {"change": -0.5})])
    assert half.cost["electricity"] == pytest.approx(0.75 * kwh)
    made = 164.0 * 10 * 10 * MONTH_S / b.device_life_s
    assert life.carbon_kg == pytest.approx(0.5 * kwh + made)


def test_a_site_feeds_no_more_than_its_power() -> None:
    watts = replace(throughput("a"), watts={"a": 1000.0})
    b = make_buildout(jobs=(Job("job", 1000.0, 12, (watts,)),),
                      sites=(Site("here", "china", 5000.0, INF, 0.0, 1.0, 0.0),))  # fmt: skip
    life = replay(b, ordered(b, m0=10), free, horizon=24)
    assert life.finish == pytest.approx(20.0)  # five of ten devices' worth
    assert life.kwh == pytest.approx(5 * 20 * MONTH_S / 3600)


def test_the_replay_of_a_quiet_plan_keeps_its_promise() -> None:
    offers = (make_offer("a", lead_s=MONTH_S, failure_rate=0.1 / YEAR_S),
              make_offer("b", price=(60.0,) * 12, supply=(2.0,) * 12))  # fmt: skip
    both = replace(throughput("a", "b", efficiency=0.9),
                   tokens_per_s={"a": 10 / MONTH_S, "b": 7 / MONTH_S})  # fmt: skip
    jobs = (Job("job", 700.0, 10, (throughput("a"), throughput("b", monthly=7.0), both)),)
    b = make_buildout(offers=offers, jobs=jobs)
    plan = cheapest(purchase_problem(b, free), 0.0)
    assert plan is not None
    life = replay(b, plan, free)
    assert life.finish <= plan.months + 1e-6
    assert life.total == pytest.approx(plan.cash)


def test_known_events_enter_the_plan() -> None:
    b = with_offer(make_buildout(), watts=1000.0)
    events = [Event("power", 0, {"change": -0.5}, known=True),
              Event("price", 6 * MONTH_DAYS, {"change": 1.0}, known=True),
              Event("supply", 0, {"change": -0.9})]  # fmt: skip
    seen = foreseen(replace(b, sites=(replace(b.sites[0], energy_price=2.0),)), events)
    assert seen.sites[0].energy_price == 1.0
    assert seen.offers[0].price[5:7] == (100.0, 200.0)
    assert seen.offers[0].supply == b.offers[0].supply  # not known


def test_draws_of_an_input_do_not_depend_on_the_others() -> None:
    b = with_offer(make_buildout(), failure_rate=0.3 / YEAR_S)
    plan = ordered(b, m0=12)
    price = Uncertain("price", 0.9, 1.0, 1.3)
    one = live_often(b, plan, free, [], [price], 5, seed=9)
    two = live_often(b, plan, free, [], [Uncertain("lead_time", 1, 1, 2), price], 5, seed=9)
    assert one.inputs["price"].tolist() == two.inputs["price"].tolist()
    assert one.finish.tolist() == two.finish.tolist()  # nothing to lead, the same failures
    assert one.finish.tolist() != live_often(b, plan, free, [], [price], 5, seed=8).finish.tolist()


def test_laws_of_the_inputs() -> None:
    triangle = Uncertain("price", 1.0, 1.5, 3.0).sample(1, 4000)
    assert triangle.mean() == pytest.approx((1 + 1.5 + 3) / 3, rel=0.02)
    assert set(Uncertain("grace", 0, 30, 120, "choice", (0, 30, 120)).sample(1, 200)) == {
        0,
        30,
        120,
    }
    interval = Uncertain("throughput", 0.8, 1.0, 1.25, "interval").sample(1, 4000)
    assert np.quantile(interval, [0.1, 0.9]) == pytest.approx([0.8, 1.25], rel=0.03)
    assert Uncertain("price", 2, 2, 2).sample(1, 3).tolist() == [2, 2, 2]


def test_fan_and_tornado() -> None:
    b = make_buildout()
    plan = ordered(b, m0=10)
    inputs = [Uncertain("lead_time", 1.0, 1.0, 2.0), Uncertain("throughput", 0.5, 1.0, 2.0)]
    widest, other = swings(b, plan, free, [], inputs, lambda life: life.finish, horizon=40)
    # without a lead time nothing to stretch; half the speed takes 20 months, twice 5
    assert (widest.name, widest.at_low, widest.at_high) == (
        "throughput",
        pytest.approx(20),
        pytest.approx(5),
    )
    assert other.width == 0
    assert fan(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), (0.5,)).tolist() == [[3.0, 4.0]]


def test_embargoes_hit_their_devices_and_end() -> None:
    gate = with_embargoes(free, [Event("embargo", 10, {"grace_days": 0, "months": 1}, ("a",))],
                          date(2025, 1, 1))  # fmt: skip
    site = Site("here", "china", INF, INF, 0, 1, 0)
    a, b = make_offer("a"), make_offer("b")
    assert gate(a, site, date(2025, 1, 10)).policy == "free"
    assert gate(a, site, date(2025, 1, 11)).policy == "denied"
    assert gate(b, site, date(2025, 1, 11)).policy == "free"
    assert gate(a, site, date(2025, 2, 11)).policy == "free"
