"""What decides: at which price, day, speed or licence another plan would be right, and how likely it is.

Prices, waiting and licences are judged on the programme with everything divisible, as limits are
(`ersatz.sim.purchase.diagnose`); the speed is judged by living through the plan. Not modelled: two
causes that turn at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ersatz.sim.errors import InfeasibleError
from ersatz.sim.purchase.buildout import BuildOut, Gate, Offer
from ersatz.sim.purchase.diagnose import divisible_cost
from ersatz.sim.purchase.events import Draw, Event
from ersatz.sim.purchase.life.chance import Z90, Cloud
from ersatz.sim.purchase.life.replay import replay
from ersatz.sim.purchase.periods import Floats
from ersatz.sim.purchase.programme import PurchaseProblem, build_programme
from ersatz.sim.purchase.purchase import Purchase, solve

MOST_COLUMNS = 40_000  # of a programme that is solved some dozens of times more
MOST_SOLVED = 500_000  # columns of all programmes that the prices of devices are asked of
FACTORS = (0.2, 5.0)  # of prices that are tried
STEPS = 8  # of a halving: 1 % of these


@dataclass(frozen=True, slots=True)
class Turn:
    """Something that turns the answer: where it stands and where it would have to stand."""

    kind: str  # price, day, wait, licence, speed, or unknown where it was not found
    name: str  # of the device, where there is one
    value: float  # where the answer turns; money, days, or a factor
    text: str


def turns(
    buildout: BuildOut, problem: PurchaseProblem, plan: Purchase, gate: Gate, events: Sequence[Event]
) -> tuple[Turn, ...]:  # fmt: skip
    """Return what would turn a plan: days that close, prices, waiting, licences, the speed."""
    found = [*_days(buildout, plan, gate), *_speed(buildout, plan, gate, events)]
    width = build_programme(problem).width
    if width > MOST_COLUMNS:
        return (
            *found,
            Turn("unknown", "", 0.0, "prices and licences: not asked of so large a programme"),
        )
    most = MOST_SOLVED // (width * (STEPS + 2))
    for asked in (_prices(buildout, problem, plan, most), _waiting(problem), _licences(problem)):
        try:
            found += asked
        except InfeasibleError:  # the solver's time ran out: the plan itself is not lost for that
            words = "what else would turn it was not found within the solver's time"
            found.append(Turn("unknown", "", 0.0, words))
    return tuple(found)


def _days(b: BuildOut, plan: Purchase, gate: Gate) -> Iterator[Turn]:
    """The first day on which an order of the plan would not leave any more."""
    for d, s in zip(*np.nonzero(plan.orders.any(axis=2)), strict=True):
        offer, site = b.offers[d], b.sites[s]
        last = round(b.day(b.months).toordinal() - b.start.toordinal())
        closed = (day for day in range(last + 1)
                  if gate(offer, site, b.date_at(day)).policy == "denied")  # fmt: skip
        day = next(closed, None)
        if day is not None:
            words = (
                f"{offer.name}: what leaves for {site.name} on or after {b.date_at(day)} is stopped"
            )
            yield Turn("day", offer.name, float(day), words)


def _speed(
    b: BuildOut, plan: Purchase, gate: Gate, events: Sequence[Event]
) -> Iterator[Turn]:  # fmt: skip
    """The least factor on the predicted speed with which the plan still keeps its deadlines."""

    def in_time(factor: float) -> bool:
        return keeps(b, replay(b, plan, gate, events, Draw({"throughput": factor})).finish_months)

    if not in_time(1.0):
        return
    low, high = 0.3, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if in_time(middle) else (middle, high)
    yield Turn("speed", "", high, f"speed: below {high:.2f} of the prediction a deadline is missed")


def keeps(b: BuildOut, ends: Sequence[float]) -> bool:
    """Tell whether all jobs end by their deadlines, to a tenth of a day."""
    return all(end <= job.deadline + 0.003 for end, job in zip(ends, b.jobs, strict=True))


def _prices(b: BuildOut, problem: PurchaseProblem, plan: Purchase, most: int) -> Iterator[Turn]:
    """Per device the factor on its price at which it comes into the plan, or goes out of it.

    Of at most `most` devices, those of the plan first.
    """
    sold = [d for d, offer in enumerate(b.offers) if offer.for_sale and problem.allowed[d].any()]
    sold.sort(key=lambda d: not plan.orders[d].any())
    if len(sold) > most:
        words = f"prices of {len(sold) - most} of {len(sold)} devices: not asked of so large a programme"
        yield Turn("unknown", "", 0.0, words)
    for d in sorted(sold[:most]):
        offer, bought = b.offers[d], bool(plan.orders[d].any())
        factor = _turning(problem, d, bought)
        if factor is None:
            continue
        at = factor * _bare_price(offer)
        verb = "is bought no more above" if bought else "would be bought below"
        words = (
            f"{offer.name} {verb} {at / 1e6:.3g} M {b.currency} a node ({factor:.2f} of its price)"
        )
        yield Turn("price", offer.name, at, words)


def _bare_price(offer: Offer) -> float:
    known = [p for p in offer.price if math.isfinite(p)]
    return known[0] / (1.0 + offer.network_share)


def _turning(problem: PurchaseProblem, d: int, bought: bool) -> float | None:
    """Halve for the factor on a device's price at which its orders begin or end."""
    inside, outside = (1.0, FACTORS[1]) if bought else (FACTORS[0], 1.0)

    def orders(factor: float) -> bool:
        price = problem.price.copy()
        price[d] *= factor
        return _ordered(replace(problem, price=price), d)

    if orders(outside if bought else inside) == bought:
        return None  # whatever its price
    if bought and not orders(1.0):
        return None  # only because nodes are whole
    low, high = inside, outside
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if orders(middle) else (low, middle)
    return math.sqrt(low * high)


def _ordered(problem: PurchaseProblem, d: int) -> bool:
    """Tell whether the divisible plan orders a device."""
    programme = build_programme(problem, tight=False)
    solved = solve(programme, programme.cost, whole=False)
    return solved is not None and bool(solved[0][programme.order[d]].sum() > 1e-3)


def _waiting(problem: PurchaseProblem) -> Iterator[Turn]:
    """What it costs to order nothing in the first month."""
    allowed = problem.allowed.copy()
    allowed[:, :, 0] = False
    rentable = problem.rentable.copy()
    rentable[:, :, 0] = 0.0
    more = divisible_cost(replace(problem, allowed=allowed, rentable=rentable)) - divisible_cost(
        problem
    )
    millions = round(more / 1e6, 2) + 0.0  # no minus before a zero
    words = (f"waiting a month costs {millions:,.2f} M" if math.isfinite(more)
             else "waiting a month leaves no plan")  # fmt: skip
    yield Turn("wait", "", more, words)


def _licences(problem: PurchaseProblem) -> Iterator[Turn]:
    """What leave to buy a device that may not be bought would save."""
    base = divisible_cost(problem)
    for d, name in enumerate(problem.devices):
        if problem.allowed[d].any() or not (problem.price[d] > 0).any():
            continue
        allowed = problem.allowed.copy()
        allowed[d] = problem.price[d] > 0
        saved = base - divisible_cost(replace(problem, allowed=allowed))
        if saved > 1e-6 * base:
            yield Turn(
                "licence", name, saved, f"a licence for {name} is worth {saved / 1e6:,.2f} M"
            )


def in_time_by_speed(factor: float, low: float, high: float) -> float:
    """Return how likely the speed is at least `factor` of the prediction, lognormal between its ends.

    >>> round(in_time_by_speed(0.8, 0.8, 1.25), 2), in_time_by_speed(1.0, 0.8, 1.25)
    (0.9, 0.5)
    """
    sigma = math.log(high / low) / (2 * Z90)
    if sigma <= 0:
        return float(factor <= 1.0)
    return 0.5 * math.erfc(math.log(factor) / sigma / math.sqrt(2.0))


def done_by(b: BuildOut, cloud: Cloud) -> tuple[float, ...]:
    """Return, per job, the share of the lives in which it is done by its deadline."""
    deadlines = np.array([job.deadline for job in b.jobs])
    return tuple(map(float, (cloud.ends <= deadlines + 0.003).mean(axis=0)))


@dataclass(frozen=True, slots=True)
class Saving:
    """What a plan costs per token against another, over the lives of both."""

    case: str
    against: str
    low: float  # 80 % interval of the share that is saved
    mid: float
    high: float
    any: float  # how often it costs less at all
    enough: float  # how often at least the share asked for


def saving(
    case: str, against: str, costs: Floats, others: Floats, asked: float
) -> Saving:  # fmt: skip
    """Return what one case saves against another, life by life: costs (draws,) of the same work.

    What both share (a price, a rent, the speed of a device) is drawn alike in both, so that it cancels.
    A life that is never done costs infinitely much; where the other is not done either it is left out.
    """
    count = min(len(costs), len(others))
    done = np.isfinite(others[:count])
    saved = 1.0 - costs[:count][done] / others[:count][done]
    if not len(saved):
        return Saving(case, against, 0.0, 0.0, 0.0, 0.0, 0.0)
    low, mid, high = map(float, np.quantile(saved, (0.1, 0.5, 0.9), method="inverted_cdf"))
    return Saving(case, against, low, mid, high, float((saved > 0).mean()),
                  float((saved >= asked).mean()))  # fmt: skip
