"""What `ersatz buy` says of a build-out in words: the plan, what came of it, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ersatz.device_models.text.units import format_money
from ersatz.sim.purchase.answer import Answered
from ersatz.sim.purchase.buildout import DAY_S, MONTH_DAYS, BuildOut
from ersatz.sim.purchase.decide import Saving, saving
from ersatz.sim.purchase.events import Event
from ersatz.sim.purchase.life.replay import Replayed
from ersatz.sim.purchase.periods import Floats
from ersatz.sim.purchase.purchase import Purchase

DECISIONS = {"licence": ("licensed", "approval"), "import": ("let in", "import_approval")}
NOTICE = ("A model of purchases and published rules: no measurement, no forecast and no legal advice;"
          " docs/models/purchase.md.")  # fmt: skip


def sentences(answered: Answered) -> tuple[str, str]:
    """Say what to buy, and what comes of it; the second is empty where nothing unplanned comes."""
    b = answered.inquiry.buildout
    if answered.plan is None or answered.quiet is None or answered.life is None:
        least = answered.remedies[0].text if answered.remedies else "none of the limits alone"
        return f"no plan. Least change that helps: {least}.", ""
    words = []
    worn = any(event.kind == "repair" for event in answered.inquiry.events)
    if answered.flips:
        names = [f.device for f in answered.flips]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        words.append(f"{len(names)} devices flip: {', '.join(names[:2])}{more}")
    if disturbed(answered):
        # asked of rules or repair, the answer is what is lost: the money is left to the table
        brief = worn or bool(answered.flips)
        came = ", ".join([_end(b, answered.life), *_lost(b, answered.life)])
        words.append(came if brief else f"as things came {_outcome(b, answered.life)}")
        words += [_left(answered.life)] if worn else []
    if answered.renewed:
        after = bought(b, answered.renewed.plan, answered.renewed.month)
        words.append(f"anew from {b.day(answered.renewed.month):%Y-%m}: {after}:"
                     f" {_outcome(b, answered.renewed.life)}")  # fmt: skip
    if answered.cloud is not None and not worn:
        words.append(_arrival(answered) if _decisions(answered) else band(answered))
    plan = f"{bought(b, answered.plan)}: {_done(b, answered.quiet)}{_if_granted(answered)}."
    if len(answered.front) > 1:
        plan = f"fastest {_point(b, answered.front[0])}; cheapest {_point(b, answered.front[-1])}."
    return plan + _unproved(b, answered.plan), f"{'; '.join(words)}." if words else ""


def _unproved(b: BuildOut, plan: Purchase) -> str:
    """Say that the solver's clock ended before the asked gap was reached."""
    if plan.gap <= b.gap * 1.001 + 1e-9:
        return ""
    within = (
        f"within {100 * plan.gap:.1f} % of the cheapest" if math.isfinite(plan.gap) else "unproved"
    )
    return f" The solver's time ran out: {within}, {100 * b.gap:.1f} % was asked."


def _if_granted(answered: Answered) -> str:
    """Say which decisions the plan counts on, and how likely they all are."""
    found = _decisions(answered)
    if not found:
        return ""
    return f", if {' and '.join(found)} ({100 * math.prod(found.values()):.0f} %)"


def _decisions(answered: Answered) -> dict[str, float]:
    """Return the decisions that some order of the plan waits for, with their probability."""
    plan = answered.plan
    found: dict[str, float] = {}
    assert plan is not None
    drawn = {u.name: (u.low + u.mid + u.high) / 3 for u in answered.inquiry.inputs}
    for event in answered.inquiry.events:
        if event.kind in DECISIONS and any(
            _waits(answered, event, *at) for at in np.argwhere(plan.orders)
        ):
            word, name = DECISIONS[event.kind]
            chance = drawn.get(name, event.values["approval"])
            if chance < 1:
                found[word] = found.get(word, 1.0) * chance
    return found


def _waits(answered: Answered, event: Event, d: int, s: int, t: int) -> bool:
    """Tell whether an order waits for a decision, by the rules as the planner knew them."""
    b = answered.inquiry.buildout
    offer, site = b.offers[d], b.sites[s]
    leaves = b.date_at(t * MONTH_DAYS + offer.lead_s / DAY_S)
    return event.hits(offer.name, site.name) and event.asked_of(
        answered.inquiry.foreseen(offer, site, leaves))  # fmt: skip


def _arrival(answered: Answered) -> str:
    """Say in how many lives machines come, and by when half and nine tenths of those are there."""
    cloud, b = answered.cloud, answered.inquiry.buildout
    assert cloud is not None
    there = cloud.fleet.sum(axis=2) > 0
    came = there.any(axis=1)
    if not came.any():
        return "delivered in none of the lives"
    first = np.sort(np.argmax(there[came], axis=1))
    half, most = (b.day(int(first[int(q * (len(first) - 1))])) for q in (0.5, 0.9))
    return (f"delivered in {100 * came.mean():.0f} % of {len(came)} lives, half of these by {half:%Y-%m},"
            f" nine tenths by {most:%Y-%m}")  # fmt: skip


def _point(b: BuildOut, plan: Purchase) -> str:
    return f"{plan.months} months, {money(b, plan.cost)}: {bought(b, plan)}"


def _left(life: Replayed) -> str:
    """Say how much of the fleet works after one, two and three years."""
    years = [y for y in (1, 2, 3) if 12 * y < len(life.fleet)]
    shares = [f"{100 * life.fleet[12 * y].sum() / life.delivered.sum():.1f}" for y in years]
    return f"left after {', '.join(map(str, years))} years {', '.join(shares)} %"


def disturbed(answered: Answered) -> bool:
    """Tell whether anything came that the plan did not know."""
    quiet, life = answered.quiet, answered.life
    if quiet is None or life is None:
        return False
    same = math.isclose(quiet.finish, life.finish, rel_tol=1e-9) or quiet.finish == life.finish
    return not (same and math.isclose(quiet.total, life.total, rel_tol=1e-9))


def bought(b: BuildOut, plan: Purchase, since: int = 0) -> str:
    """Say what is ordered and rented from a month on."""
    orders, rents = [], []
    for d, offer in enumerate(b.offers):
        for s, site in enumerate(b.sites):
            at = f" at {site.name}" if len(b.sites) > 1 else ""
            placed, (nodes, months) = plan.orders[d, s, since:], plan.hired(d, s, since)
            if placed.any():
                first = b.day(since + int(np.argmax(placed > 0)))
                orders.append(f"{placed.sum():,.0f} {offer.name} nodes{at} ({first:%Y-%m})")
            if nodes:
                many = (
                    f"{nodes:,.0f} {offer.name} nodes"
                    if nodes >= 1
                    else f"a part of 1 {offer.name} node"
                )
                rents.append(f"{many}{at} ({months:.3g} months)")
    words = [f"buy {', '.join(orders)}"] if orders else []
    words += [f"rent {', '.join(rents)}"] if rents else []
    return "; ".join(words) or "buy nothing"


def spent(b: BuildOut, life: Replayed) -> float:
    """Return the money of a life, less what is left of the machines where that counts."""
    return life.total - (life.left if b.count == "use" else 0.0)


def money(b: BuildOut, amount: float) -> str:
    """Write an amount in the build-out's currency."""
    return format_money(amount, b.currency)


def _end(b: BuildOut, life: Replayed) -> str:
    end = f"not done in {len(life.fleet) - 1} months"
    if math.isfinite(life.finish):
        late = max(f - job.deadline for f, job in zip(life.finish_months, b.jobs, strict=True))
        end = f"done in {life.finish:.1f} months{f' ({late:.1f} late)' if late > 0.05 else ''}"
    return end


def _done(b: BuildOut, life: Replayed) -> str:
    return f"{_end(b, life)} for {money(b, spent(b, life))}"


def _outcome(b: BuildOut, life: Replayed) -> str:
    return ", ".join([_done(b, life), *_lost(b, life)])


def _lost(b: BuildOut, life: Replayed) -> list[str]:
    """Say which devices were stopped, and which seized."""
    words = []
    for label, devices in (("stopped", life.blocked), ("seized", life.seized)):
        lost = [f"{n:,.0f} {o.name}" for n, o in zip(devices, b.offers, strict=True) if n]
        if lost:
            words.append(f"{', '.join(lost)} {label}")
    return words


def band(answered: Answered) -> str:
    """Write the 80 % interval of the time to train over the lives, and how many ever are."""
    assert answered.cloud is not None
    done = answered.cloud.finish
    ends = np.quantile(np.where(np.isinf(done), 1e6, done), (0.1, 0.9))
    low, high = ("never" if end > 1e5 else f"{end:.1f} months" for end in ends)
    ever = "" if np.isfinite(done).all() else f"; {100 * np.isfinite(done).mean():.0f} % ever"
    return f"{low} to {high} in 80 % of {len(done)} lives{ever}"


def months_text(value: float) -> str:
    """Write a time to train."""
    return "not done" if math.isinf(value) else f"{value:.1f} months"


def savings(answered: Sequence[Answered]) -> list[Saving]:
    """Return what each case with lives saves per token against the first."""
    first = answered[0]
    if first.cloud is None:
        return []
    base = _per_token(first)
    return [saving(a.inquiry.name, first.inquiry.name, _per_token(a), base, a.inquiry.saving)
            for a in answered[1:] if a.cloud is not None]  # fmt: skip


def _per_token(answered: Answered) -> Floats:
    """Return the money per token of each life (draws,); infinite where the work is never done."""
    b, cloud = answered.inquiry.buildout, answered.cloud
    assert cloud is not None
    spent = cloud.cost - (cloud.left if b.count == "use" else 0.0)
    each = spent / math.fsum(job.tokens for job in b.jobs)
    return np.asarray(np.where(np.isfinite(cloud.finish), each, np.inf))
