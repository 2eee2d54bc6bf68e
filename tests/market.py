"""Small build-outs for the tests: one device at one site, prices in round numbers."""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np

from ersatz.sim.purchase.buildout import MONTH_S, Answer, BuildOut, Gate, Job, Offer, Site
from ersatz.sim.purchase.programme import Floats
from ersatz.sim.purchase.purchase import Purchase
from ersatz.sim.purchase.rates import Throughput

INF = float("inf")
START = date(2025, 1, 1)


def free(offer: Offer, site: Site, day: date) -> Answer:
    """A gate that never closes."""
    return Answer("free")


def make_offer(name: str = "a", months: int = 12, **more: Any) -> Offer:
    """A node of one device for 100, there at once, that never fails and draws nothing."""
    base: dict[str, Any] = dict(
        name=name, title=name.upper(), device="", per_node=1, price=(100.0,) * months,
        network_share=0.0, rent=INF, rentable=0.0, lead_s=0.0, transit_s=0.0,
        supply=(INF,) * months, quota=INF, failure_rate=0.0, repaired=0.0, repair_s=0.0,
        repair_share=0.0, watts=0.0, porting_cost=0.0, porting_s=0.0, domestic=False,
    )  # fmt: skip
    return Offer(**{**base, **more})


def throughput(*devices: str, monthly: float = 10.0, efficiency: float = 1.0) -> Throughput:
    """A device does `monthly` tokens a month alone."""
    rates = dict.fromkeys(devices, monthly / MONTH_S)
    return Throughput(devices, rates, efficiency, dict.fromkeys(devices, 0.0), 0.8, 1.25, "plan",
                      8, 0.4, 0.95)  # fmt: skip


def make_buildout(months: int = 12, **more: Any) -> BuildOut:
    """One site, one device, one job of 1,000 tokens within a year."""
    base: dict[str, Any] = dict(
        question="What?", seed=1, currency="CNY", start=START, months=months,
        budget=(1e9,) * months, count="cash", objective="cost",
        offers=(make_offer(months=months),),
        sites=(Site("here", "china", INF, INF, 0.0, 1.0, 0.0),),
        jobs=(Job("job", 1000.0, months, (throughput("a"),)),),
        count_on_licences=False, gap=0.0, time_limit_s=60.0,
    )  # fmt: skip
    return BuildOut(**{**base, **more})


def make_plan(buildout: BuildOut, orders: Floats) -> Purchase:
    """A plan of given orders (D, S, T) whose jobs are never behind."""
    d, s, t = orders.shape
    jobs = len(buildout.jobs)
    use = np.zeros((jobs, len(buildout.groups), d, s, t))
    cash = sum(float(o.price[0]) for o in buildout.offers) * float(orders.sum())
    return Purchase(orders, np.arange(t + 1.0), np.zeros((d, s, t)), use, use, cash, cash, np.zeros(t), cash,
                    0.0, t, np.zeros(t), np.zeros((jobs, t)))  # fmt: skip


def ordered(buildout: BuildOut, **by_month: float) -> Purchase:
    """A plan with orders of the first device at the first site: m0=5 is five in the first month."""
    shape = (len(buildout.offers), len(buildout.sites), buildout.months)
    orders = np.zeros(shape)
    for month, nodes in by_month.items():
        orders[0, 0, int(month[1:])] = nodes
    return make_plan(buildout, orders)


def with_offer(buildout: BuildOut, **more: Any) -> BuildOut:
    """Change the first offer."""
    return replace(buildout, offers=(replace(buildout.offers[0], **more), *buildout.offers[1:]))


def large_buildout(seed: int = 0) -> BuildOut:
    """Twelve devices, three sites, 36 months, three mixed groups: random, the same for a seed."""
    rng, months = np.random.default_rng(seed), 36
    offers, rates = [], []
    for i in range(12):
        price = rng.uniform(0.8, 2.8) * 1e6 * (1 + 0.01 * rng.standard_normal(months).cumsum())
        offers.append(make_offer(
            f"d{i}", months, per_node=8, price=tuple(map(float, price)), repaired=0.6, repair_s=MONTH_S,
            lead_s=float(rng.uniform(1, 6)) * MONTH_S, transit_s=0.5 * MONTH_S, repair_share=0.1,
            supply=tuple(map(float, rng.integers(5, 40, months))), failure_rate=0.07 / (12 * MONTH_S),
        ))  # fmt: skip
        monthly = float(rng.uniform(0.5, 1.5)) * 1e9 * offers[-1].price[0] / 1e6
        watts = {f"d{i}": float(rng.uniform(500, 1400))}
        rates.append(replace(throughput(f"d{i}", monthly=monthly), watts=watts))
    for one, two in ((0, 1), (2, 3), (4, 5)):
        a, b = rates[one], rates[two]
        rates.append(replace(a, devices=a.devices + b.devices, efficiency=0.9, watts={**a.watts, **b.watts},
                             tokens_per_s={**a.tokens_per_s, **b.tokens_per_s}))  # fmt: skip
    places = (("x", 3e6, 0.4), ("y", 2.5e6, 0.6), ("z", 2e6, 0.7))
    sites = tuple(Site(name, "china", power, 1000, price / 3.6e6, 1.25, 0.5 / 3.6e6)
                  for name, power, price in places)  # fmt: skip
    jobs = (Job("one", 3e13, 30, tuple(rates)), Job("two", 1e13, 20, tuple(rates)))
    return make_buildout(months, offers=tuple(offers), sites=sites, jobs=jobs, budget=(1e9,) * months,
                         gap=0.01)  # fmt: skip


__all__ = ["INF", "START", "Gate", "free", "large_buildout", "make_buildout", "make_offer", "make_plan",
           "ordered",
           "throughput", "with_offer"]  # fmt: skip
