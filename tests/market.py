"""Small build-outs for the tests: one device at one site, prices in round numbers."""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np

from sim.market.buildout import MONTH_S, Answer, BuildOut, Gate, Job, Offer, Site
from sim.market.programme import Floats
from sim.market.purchase import Purchase
from sim.market.rates import Throughput

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
    return Purchase(orders, np.zeros((d, s, t)), use, cash, cash, cash, cash, 0.0, t, np.zeros(t),
                    np.zeros((jobs, t)))  # fmt: skip


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


__all__ = ["INF", "START", "Gate", "free", "make_buildout", "make_offer", "make_plan", "ordered",
           "throughput", "with_offer"]  # fmt: skip
