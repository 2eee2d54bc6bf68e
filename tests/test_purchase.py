"""The purchase programme: against brute force, under relaxation, and cases worked out by hand."""

import itertools
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market import make_buildout, make_offer, throughput

from ersatz.sim.law.rules import load_rules
from ersatz.sim.purchase import diagnose as diagnosing
from ersatz.sim.purchase.buildout import Job, Site, purchase_problem
from ersatz.sim.purchase.diagnose import diagnose, families, shadows
from ersatz.sim.purchase.gate import rule_gate
from ersatz.sim.purchase.programme import Cap, Held, PurchaseProblem, build_programme
from ersatz.sim.purchase.purchase import cheapest, done_by, fastest, front, hurried, is_feasible

INF = np.inf


def works_of(usable_from: Any, survival: Any, sites: int = 1) -> Any:
    """Node-months (D, S, T, P) of orders that work from a whole month on, with wear by age."""
    d, t = survival.shape
    works = np.zeros((d, sites, t, t))
    for i, o, m in itertools.product(range(d), range(t), range(t)):
        age = m - usable_from[i, o]
        works[i, :, o, m] = survival[i, age] if age >= 0 else 0.0
    return works


def problem(
    devices: int = 1, sites: int = 1, months: int = 4, jobs: int = 1, **more: Any
) -> PurchaseProblem:
    """A problem without limits: a node costs 100, does 10 of work a month, and lasts."""
    d, s, t, j = devices, sites, months, jobs
    usable = more.pop("usable_from", np.tile(np.arange(t), (d, 1)))
    survival = more.pop("survival", np.ones((d, t)))
    groups = more.pop("groups", tuple((i,) for i in range(d)))
    base: dict[str, Any] = dict(
        devices=tuple("abcdef"[:d]), sites=tuple("xyz"[:s]), jobs=tuple("uvw"[:j]), groups=groups,
        price=np.full((d, s, t), 100.0), allowed=np.ones((d, s, t), bool),
        bounds=np.arange(t + 1.0), works=works_of(usable, survival, s), lot=np.ones(d), loss=np.zeros(d),
        supply=np.full((d, t), INF), quota=np.full(d, INF), rent=np.zeros((d, s, t)),
        rentable=np.zeros((d, s, t)), running=np.zeros((d, s, t)), power_w=np.ones((d, s)),
        site_power_w=np.full((s, t), INF), space=np.full((s, t), INF), budget=np.full(t, INF),
        rate=np.full((j, d), 10.0), efficiency=np.ones((j, len(groups))),
        ready=np.zeros((j, d)), work=np.full(j, 40.0), deadline=np.full(j, float(t)),
        fixed=np.zeros(d), left=np.zeros((d, t)),
    )  # fmt: skip
    return PurchaseProblem(**{**base, **more})


def test_one_node_that_works_four_months_is_enough() -> None:
    # 40 of work at 10 a month: one node from the first month, 100; by month 2 two nodes, 200
    plan = cheapest(problem())
    assert plan is not None
    assert (plan.cost, plan.orders[0, 0, 0], plan.months) == (100.0, 1.0, 4)
    assert cheapest(done_by(problem(), 2)).cost == 200.0  # type: ignore[union-attr]


def test_lead_time_shortens_what_a_node_can_do() -> None:
    # usable two months after the order: two months of work each, so two nodes
    plan = cheapest(problem(usable_from=np.arange(4)[None] + 2))
    assert plan is not None
    assert plan.orders.sum() == 2


def test_a_lead_time_beyond_the_horizon_delivers_nothing() -> None:
    assert cheapest(problem(usable_from=np.arange(4)[None] + 4)) is None


def test_devices_that_make_no_plan_together_are_not_added_up() -> None:
    # a month, 20 of work, one node of each in supply at 10 a month: only as a group, which at an
    # efficiency of 0.9 does 18
    short = problem(2, months=1, work=np.array([20.0]), supply=np.ones((2, 1)))
    assert cheapest(short) is None
    both = replace(short, groups=((0,), (1,), (0, 1)), efficiency=np.array([[1.0, 1.0, 0.9]]))
    assert cheapest(both) is None
    plan = cheapest(replace(both, work=np.array([18.0])))
    assert plan is not None
    assert plan.orders.sum() == 2
    assert plan.use[0, 2].sum() == pytest.approx(2.0)


def test_a_job_does_not_stretch_over_two_sites() -> None:
    two = problem(1, 2, months=1, space=np.ones((2, 1)), work=np.array([20.0]))
    assert cheapest(two) is None
    assert cheapest(replace(two, space=np.full((2, 1), 2.0))) is not None


def test_two_jobs_share_the_machines() -> None:
    # 40 each in four months: 80 of work, two nodes
    plan = cheapest(problem(jobs=2))
    assert plan is not None
    assert plan.orders.sum() == 2


def test_renting_beats_buying_for_a_short_job() -> None:
    # ten of work: one node-month for 30 against a node for 100
    offer = problem(work=np.array([10.0]), rent=np.full((1, 1, 4), 30.0),
                    rentable=np.full((1, 1, 4), 5.0))  # fmt: skip
    plan = cheapest(offer)
    assert plan is not None
    assert plan.cost == pytest.approx(30.0)
    worth = replace(
        offer, left=np.full((1, 4), 0.8)
    )  # a node keeps 80 at the end: 20 is less than 30
    assert cheapest(worth).cost == pytest.approx(20.0)  # type: ignore[union-attr]


def test_what_is_rented_is_used_as_early_as_possible() -> None:
    # 20 of work on one rented node: two months for 60, whenever; the earliest end is month two
    offer = problem(work=np.array([20.0]), rent=np.full((1, 1, 4), 30.0), rentable=np.ones((1, 1, 4)),
                    allowed=np.zeros((1, 1, 4), bool))  # fmt: skip
    plan = cheapest(offer)
    assert plan is not None
    early = hurried(offer, plan)
    assert (early.cost, early.months) == (pytest.approx(60.0), 2)


def test_a_plan_made_anew_keeps_its_past() -> None:
    # two nodes were ordered in month 0 and no more may come: 40 by month 2 as before; had only one
    # come, month 4
    dear = problem(price=np.full((1, 1, 4), 100.0), supply=np.array([[9.0, 0.0, 0.0, 0.0]]))
    past = cheapest(done_by(dear, 2))
    assert past is not None
    both = fastest(dear, held=Held(1, past.orders, past.use))
    one = fastest(dear, held=Held(1, past.orders / 2, past.use))
    assert both is not None
    assert one is not None
    assert (both.months, one.months) == (2, 4)


def test_porting_is_paid_once() -> None:
    # b is half the price, but its software costs 60: two nodes of a (200) against 160; one: 100 < 110
    two = problem(2, price=np.array([100.0, 50.0])[:, None, None] * np.ones((2, 1, 4)),
                  fixed=np.array([0.0, 60.0]), deadline=np.array([2]))  # fmt: skip
    assert cheapest(two).cost == pytest.approx(160.0)  # type: ignore[union-attr]
    assert cheapest(replace(two, deadline=np.array([4]))).cost == pytest.approx(100.0)  # type: ignore[union-attr]


def test_a_cap_that_a_law_counts_over_devices_is_one_sum() -> None:
    # 80 of work in four months: two nodes. a costs 100 and counts 2, b costs 150 and counts 1; of 3 in
    # all two of a are too much, and one of each (250) is the cheapest; of 2 only b is left (300)
    two = problem(2, price=np.array([100.0, 150.0])[:, None, None] * np.ones((2, 1, 4)),
                  work=np.array([80.0]), groups=((0,), (1,), (0, 1)))  # fmt: skip
    weight = np.array([2.0, 1.0])[:, None, None] * np.ones((2, 1, 4))
    costs = {
        most: cheapest(replace(two, caps=(Cap("R", weight, most),))) for most in (4.0, 3.0, 2.0)
    }
    assert [plan and round(plan.cost, 6) for plan in costs.values()] == [200.0, 250.0, 300.0]
    short = replace(two, caps=(Cap("R", weight, 1.0),))  # one node of b: half the work
    assert cheapest(short) is None
    remedy = diagnose(short)[0]
    assert (remedy.constraint, remedy.increase) == ("quota R", pytest.approx(1.0))


def test_the_licences_of_a_party_are_counted_over_all_that_it_buys() -> None:
    # G42: as much compute as 35,000 GB300 of TPP 60,000, of whatever devices, at all of its sites
    offers = tuple(make_offer(n, device=n, per_node=8, price=(p,) * 12)
                   for n, p in (("gb300", 4.0), ("h200", 1.0)))  # fmt: skip
    site = Site("uae", "AE", INF, INF, 0.0, 1.0, 0.0)
    jobs = (Job("job", 1.0, 12, (throughput("gb300"), throughput("h200"))),)
    of_g42 = make_buildout(offers=offers, sites=(site,), start=date(2026, 1, 1), jobs=jobs)
    gate = rule_gate(load_rules(), "G42", "AE")
    (cap,) = purchase_problem(of_g42, gate).caps
    assert (cap.name, cap.most) == ("US-2025-11-19-GULF", 35_000 * 60_000)
    assert cap.weight[0, 0, 0] == 8 * 60_000
    assert cap.weight[1, 0, 0] == pytest.approx(8 * 15_831, rel=1e-4)
    # any other company has no such licence, and no sum is counted
    assert purchase_problem(of_g42, rule_gate(load_rules(), "company", "AE")).caps == ()


def test_wear_is_bought_in_advance() -> None:
    # a node does 10, 5, 2.5, 1.25 = 18.75 in four months: three nodes for 40
    plan = cheapest(problem(survival=0.5 ** np.arange(4)[None]))
    assert plan is not None
    assert plan.orders.sum() == 3


def test_the_fastest_plan_and_the_front() -> None:
    # at most two nodes a month: 20 + 40 >= 40 in the second month; then 3, 2 and 1 node suffice
    limited = problem(supply=np.full((1, 4), 2.0))
    plan = fastest(limited)
    assert plan is not None
    assert (plan.months, plan.cost) == (2, 200.0)
    assert [(p.months, p.cost) for p in front(limited)] == [(2, 200.0), (4, 100.0)]
    assert fastest(replace(limited, work=np.array([1e6]))) is None
    assert front(replace(limited, work=np.array([1e6]))) == ()


def brute_force(p: PurchaseProblem, most: int) -> float:
    """Cheapest of all orders x groups per month; the use is filled cheapest work first."""
    d, _, t = p.price.shape
    best = INF
    for flat in itertools.product(range(most + 1), repeat=d * t):
        orders = np.array(flat, float).reshape(d, t)
        if (orders > p.supply).any() or (orders.sum(1) > p.quota).any():
            continue
        if (orders[~p.allowed[:, 0]] > 0).any():
            continue
        paid = (orders * p.price[:, 0]).sum()
        if paid >= best or paid > p.budget[-1]:
            continue
        alive = np.array([[sum(orders[i, o] * p.works[i, 0, o, m] for o in range(t))
                           for m in range(t)] for i in range(d)])  # fmt: skip
        for groups in itertools.product(range(len(p.groups)), repeat=t):
            best = min(best, paid + _fill(p, alive, groups, p.budget[-1] - paid))
    return best


def _fill(p: PurchaseProblem, alive: Any, groups: tuple[int, ...], budget: float) -> float:
    """Least running cost of the work on given groups, machines filled by cost per work and watt."""
    pieces = []
    for m, g in enumerate(groups):
        if m >= p.deadline[0]:
            continue
        watts = p.site_power_w[0, m]
        # one kind of power per node in these cases: the cheapest work first is exact
        members = sorted(p.groups[g], key=lambda i: p.running[i, 0, m] / p.rate[0, i])
        for i in members:
            nodes = min(alive[i, m], watts)
            watts -= nodes
            speed = p.rate[0, i] * p.efficiency[0, g]
            pieces.append((p.running[i, 0, m] / speed, nodes * speed))
    need, cost = p.work[0], 0.0
    for unit, amount in sorted(pieces):
        take = min(amount, need)
        need, cost = need - take, cost + take * unit
    return cost if need <= 1e-9 and cost <= budget + 1e-9 else INF


def random_problem(seed: int) -> PurchaseProblem:
    rng = np.random.default_rng(seed)
    months = 2
    return problem(
        2, months=months, groups=((0,), (1,), (0, 1)),
        price=rng.integers(50, 150, (2, 1, months)).astype(float),
        allowed=rng.random((2, 1, months)) < 0.85,
        usable_from=np.arange(months)[None] + rng.integers(0, 2, (2, 1)),
        supply=rng.integers(1, 4, (2, months)).astype(float),
        quota=rng.integers(2, 6, 2).astype(float),
        survival=0.9 ** np.arange(months)[None] * np.ones((2, 1)),
        running=rng.integers(1, 20, (2, 1, 1)) * np.ones((2, 1, months)),
        efficiency=np.array([[1.0, 1.0, rng.uniform(0.6, 1.0)]]),
        rate=np.full((1, 2), 10.0), work=np.array([rng.integers(10, 50)], float),
        budget=np.full(months, rng.integers(300, 700), float),
        site_power_w=np.full((1, months), rng.integers(2, 6), float),
    )  # fmt: skip


@pytest.mark.parametrize("block", range(5))
def test_the_optimum_equals_brute_force(block: int) -> None:
    # 50 instances: 2 devices x 2 months of at most 3 nodes, every choice of orders and groups
    feasible = 0
    for seed in range(10 * block, 10 * block + 10):
        instance = random_problem(seed)
        plan, expected = cheapest(instance, gap=0.0), brute_force(instance, 3)
        if plan is None:
            assert expected == INF
            continue
        feasible += 1
        assert plan.cost == pytest.approx(expected, rel=1e-6), seed
    assert feasible >= 2


LIMITS = ("supply", "quota", "budget", "site_power_w")


@given(st.integers(0, 10_000), st.sampled_from([*LIMITS, "allowed", "deadline", "usable_from"]),
       st.floats(1.0, 2.0))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_relaxing_a_limit_never_worsens_the_plan(seed: int, limit: str, factor: float) -> None:
    tight = random_problem(seed)
    tight = done_by(tight, 1) if limit == "deadline" else tight
    if limit in LIMITS:
        loose = replace(tight, **{limit: getattr(tight, limit) * factor})
    elif limit == "allowed":
        loose = replace(tight, allowed=np.ones_like(tight.allowed))
    elif limit == "deadline":
        loose = replace(tight, deadline=tight.deadline + 1)
    else:
        # without wear: a node that comes earlier has also worn more by a given month
        late = 1 - (tight.works[:, 0, 0, 0] > 0)
        tight = replace(tight, works=works_of(np.arange(2) + late[:, None], np.ones((2, 2))))
        loose = replace(tight, works=works_of(np.tile(np.arange(2), (2, 1)), np.ones((2, 2))))
    before, after = cheapest(tight, gap=0.0), cheapest(loose, gap=0.0)
    if before is not None:
        assert after is not None
        assert after.cost <= before.cost + 1e-6


def test_what_stops_a_plan_is_named_with_the_least_change() -> None:
    # 40 by month 2 needs two nodes: 200. A budget of 150 is a third short; a month later, one and a
    # half ... two nodes still, but four months need one
    short = problem(budget=np.full(4, 150.0), deadline=np.array([2]))
    found = {r.constraint: r for r in diagnose(short)}
    assert found["budget"].increase == pytest.approx(1 / 3, rel=1e-3)
    assert found["work"].increase == pytest.approx(0.5, rel=1e-3)  # one node does 20 of 40
    assert "2 months later" in found["deadline"].text
    assert "lead time" not in found
    assert families(short) == ("budget",)


def test_a_rule_that_stops_a_plan_is_named() -> None:
    forbidden = problem(allowed=np.zeros((1, 1, 4), bool))
    found = [r.text for r in diagnose(forbidden, {"a": "a allowed (US-1)"})]
    assert "rules: a allowed (US-1)" in found
    assert is_feasible(problem())


def test_the_relaxation_that_is_found_suffices_and_less_does_not() -> None:
    # three families short at once is not mended by one; with power short alone it is
    short = problem(site_power_w=np.full((1, 4), 0.5))
    [power] = [r for r in diagnose(short) if r.constraint == "power x"]
    assert power.increase == pytest.approx(1.0, rel=1e-3)  # one node draws 1 W of 0.5 W
    grown = replace(short, site_power_w=short.site_power_w * (1 + power.increase + 1e-6))
    assert is_feasible(grown)
    assert not is_feasible(replace(short, site_power_w=short.site_power_w * 1.9))


def test_shadows_name_what_binds() -> None:
    # deadline 2: two nodes; a month more needs 1.33 (divisible): saves 66.7; the budget is idle
    tight = problem(budget=np.full(4, 1e4), deadline=np.array([2]))
    plan = cheapest(tight)
    assert plan is not None
    [deadline] = shadows(tight, plan)
    assert deadline.constraint == "deadline"
    assert deadline.saving == pytest.approx(200 - 400 / 3)


@pytest.mark.parametrize("seed", range(8))
def test_limits_that_are_not_reached_would_save_nothing_and_are_not_asked(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every limit asked by brute force: what a tenth more saves is what is told, and of the rest nothing."""
    rng = np.random.default_rng(seed)
    there = problem(
        4, groups=((0, 1, 2, 3),), work=np.full(1, 400.0), budget=np.full(4, 1e5),
        price=rng.uniform(50, 200, (4, 1, 1)) * np.ones((4, 1, 4)),
        supply=rng.integers(1, 6, (4, 4)).astype(float), quota=rng.integers(2, 30, 4).astype(float),
    )  # fmt: skip
    plan = cheapest(there)
    if plan is None:
        pytest.skip("no plan")
    asked: list[str] = []
    wider = diagnosing._wider_cost
    monkeypatch.setattr(
        diagnosing, "_wider_cost", lambda p, family: (asked.append(family), wider(p, family))[1]
    )
    told = {shadow.constraint: shadow.saving for shadow in shadows(there, plan)}
    base = diagnosing.divisible_cost(there)
    for family in families(there):
        saved = base - wider(build_programme(there, tight=False), family)
        assert told.get(family, 0.0) == pytest.approx(max(saved, 0.0), abs=1e-4)
    assert len(asked) < len(families(there))
