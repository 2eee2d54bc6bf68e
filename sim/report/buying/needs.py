"""What each case of `ersatz buy` would need to save the asked share against the first, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from ersatz.device_models.text.units import format_money
from ersatz.sim.purchase.answer import Answered
from ersatz.sim.purchase.needs import Need, Spent, needed
from ersatz.sim.purchase.purchase import Purchase


def needs(answers: Sequence[Answered]) -> list[Need]:
    """Return the needs of every case that is done as things came, where the first is done, too."""
    known = [(answered, _spent(answered)) for answered in answers]
    base = known[0][1]
    if base is None:
        return []
    return [needed(base, spent, answered.inquiry.saving) for answered, spent in known[1:] if spent]


def need_lines(answers: Sequence[Answered]) -> Iterator[str]:
    """Yield a heading, and a sentence per case: what it saves, and what would make it the asked share."""
    found, by_name = needs(answers), {a.inquiry.name: a for a in answers}
    if not found:
        return
    yield (f"for exactly {100 * found[0].share:.0f} % less per token than {found[0].against}, each alone"
           " and by the plans:")  # fmt: skip
    for need in found:
        ways = " or ".join(_ways(need, by_name[need.case]))
        now = (
            f"saves {100 * need.saves:.0f} %"
            if need.saves >= 0
            else f"{-100 * need.saves:.0f} % dearer"
        )
        yield f"- {need.case} ({now}): {ways}"


def _ways(need: Need, answered: Answered) -> Iterator[str]:
    if need.price is not None:
        prices = " and ".join(
            f"{name} at {_price(answered, name, value)}" for name, value in need.prices.items()
        )
        yield f"{prices} ({need.price:.2f} of the price)"
    if need.speed is not None:
        way = "faster" if need.speed >= 1 else "slower"
        yield f"its devices {100 * abs(need.speed - 1):.0f} % {way}"
    way = "dearer" if need.dearer >= 1 else "cheaper"
    yield f"{need.against} {100 * abs(need.dearer - 1):.0f} % {way}"


def _price(answered: Answered, name: str, value: float) -> str:
    currency, plan = answered.inquiry.buildout.currency, answered.plan
    hourly = plan is not None and not _ordered(answered, plan, name)
    return f"{value:.2f} {currency}/h" if hourly else f"{format_money(value, currency)} a node"


def _spent(answered: Answered) -> Spent | None:
    """Return what a case costs per token as things came; None where its work is never done."""
    b, life, plan = answered.inquiry.buildout, answered.final, answered.plan
    if life is None or plan is None or not math.isfinite(life.finish):
        return None
    tokens = math.fsum(job.tokens for job in b.jobs)
    left = life.left if b.count == "use" else 0.0
    return Spent(answered.inquiry.name, {cause: each / tokens for cause, each in life.cost.items()},
                 left / tokens, _prices(answered, plan))  # fmt: skip


def _prices(answered: Answered, plan: Purchase) -> Mapping[str, float]:
    """Return the mean price of a node, or the rent of a device, for all that a plan has."""
    prices = {}
    for d, offer in enumerate(answered.inquiry.buildout.offers):
        ordered = {t: float(n) for t, n in enumerate(plan.orders[d].sum(axis=0)) if n > 0}
        if ordered:
            paid = math.fsum(n * offer.price[t] for t, n in ordered.items())
            prices[offer.name] = paid / math.fsum(ordered.values())
        elif plan.rented[d].any():
            prices[offer.name] = offer.rent
    return prices


def _ordered(answered: Answered, plan: Purchase, name: str) -> bool:
    names = [offer.name for offer in answered.inquiry.buildout.offers]
    return bool(plan.orders[names.index(name)].any())
