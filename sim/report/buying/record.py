"""What `ersatz buy` found out about a build-out as records: mappings, lists, numbers and text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ersatz.sim.purchase.answer import Answered
from ersatz.sim.purchase.buildout import BuildOut
from ersatz.sim.purchase.decide import done_by
from ersatz.sim.purchase.life.chance import fan
from ersatz.sim.purchase.life.replay import Replayed
from ersatz.sim.purchase.purchase import Purchase
from ersatz.sim.purchase.reading.reading import unobserved
from ersatz.sim.report.buying.needs import needs
from ersatz.sim.report.buying.words import NOTICE, savings, spent
from ersatz.sim.report.json_out import plain

DIGITS = 4  # of the solver's bound: its tolerances are 1e-6 of rows that are scaled


def buy_record(answers: Sequence[Answered]) -> dict[str, Any]:
    """Return all cases by name; the question and the notice at the top."""
    return {"question": answers[0].inquiry.buildout.question, "notice": NOTICE,
            "cases": {a.inquiry.name: _case(a) for a in answers},
            "savings": [plain(s) for s in savings(answers)],
            "needs": [plain(n) for n in needs(answers)]}  # fmt: skip


def _case(answered: Answered) -> dict[str, Any]:
    b = answered.inquiry.buildout
    record: dict[str, Any] = {
        "feasible": answered.plan is not None, "currency": b.currency, "start": str(b.start),
        "plan": _plan(b, answered.plan), "remedies": plain(answered.remedies),
        "binding": plain(answered.shadows), "front": [_plan(b, p) for p in answered.front],
        "as_planned": _life(b, answered.quiet), "as_things_came": _life(b, answered.life),
        "planned_anew": None, "throughputs": [plain(t) for j in b.jobs for t in j.throughputs],
        "verdicts": [{**plain(v), "leaves": str(v.leaves)} for v in answered.verdicts],
        "finish_interval": {name: plain(ends) for name, ends in answered.spread.items()},
        "turns": plain(answered.turns), "in_time_by_speed": answered.in_time,
        "flips": plain(answered.flips), "tornado": plain(answered.swings), "monte_carlo": _cloud(answered),
        "assumptions": list(answered.inquiry.assumptions),
        "assumptions_unobserved": unobserved(answered.inquiry.assumptions),
    }  # fmt: skip
    if answered.renewed:
        record["planned_anew"] = {"month": answered.renewed.month, "late": answered.renewed.late,
                                  "plan": _plan(b, answered.renewed.plan),
                                  **(_life(b, answered.renewed.life) or {})}  # fmt: skip
    return record


def _plan(b: BuildOut, plan: Purchase | None) -> dict[str, Any] | None:
    if plan is None:
        return None
    orders = [{"device": b.offers[d].name, "site": b.sites[s].name, "month": int(t),
               "date": str(b.day(int(t))), "nodes": float(plan.orders[d, s, t])}
              for d, s, t in zip(*np.nonzero(plan.orders), strict=True)]  # fmt: skip
    rented = [{"device": b.offers[d].name, "site": b.sites[s].name, "month": float(plan.bounds[t]),
               "months": float(plan.bounds[t + 1] - plan.bounds[t]),
               "nodes": float(plan.rented[d, s, t])}
              for d, s, t in zip(*np.nonzero(plan.rented), strict=True)]  # fmt: skip
    return {"orders": orders, "rented": rented, "cost": plan.cost, "cash": plan.cash,
            **_proved(plan), "months": plan.months}  # fmt: skip


def _proved(plan: Purchase) -> dict[str, float | None]:
    """Return bound and gap no finer than the solver keeps them: `DIGITS` digits, on the safe side.

    The bound is rounded down and the gap is of that bound, so both stay true.
    """
    if not math.isfinite(plan.bound):
        return {"bound": None, "gap": None}  # out of time before anything was proved
    unit = 10.0 ** (math.floor(math.log10(abs(plan.bound))) - DIGITS + 1) if plan.bound else 1.0
    bound = float(f"{math.floor(plan.bound / unit) * unit:.{DIGITS}g}")
    gap = (plan.cost - bound) / abs(plan.cost) if plan.cost else 0.0
    return {"bound": bound, "gap": math.ceil(gap * 1e4 - 1e-9) / 1e4}


def _life(b: BuildOut, life: Replayed | None) -> dict[str, Any] | None:
    if life is None:
        return None
    tokens = math.fsum(job.tokens for job in b.jobs)
    names = [offer.name for offer in b.offers]

    def by_name(values: Any) -> dict[str, float]:
        return dict(zip(names, map(float, values), strict=True))

    return {
        "finish_months": plain(tuple(map(float, life.finish_months))), "total": float(life.total),
        "money": float(spent(b, life)), "per_trillion_tokens": float(spent(b, life) / tokens * 1e12),
        "cost": {part: float(amount) for part, amount in life.cost.items()}, "kwh": float(life.kwh),
        "carbon_kg": float(life.carbon_kg), "device_hours": float(life.device_hours),
        "delivered": by_name(life.delivered), "blocked": by_name(life.blocked),
        "seized": by_name(life.seized), "lost": by_name(life.lost),
        "fleet": {name: [float(v) for v in life.fleet[:, d]] for d, name in enumerate(names)},
        "tokens": [float(v) for v in life.work.sum(axis=1)],
        "log": [{**plain(line), "day": float(line.day), "nodes": float(line.nodes),
                 "date": str(b.date_at(line.day))} for line in life.log],
    }  # fmt: skip


def _cloud(answered: Answered) -> dict[str, Any] | None:
    cloud = answered.cloud
    if cloud is None:
        return None
    done = np.isfinite(cloud.finish)
    levels = ("low10", "mid50", "high90")
    devices, work = fan(cloud.fleet.sum(axis=2)), fan(cloud.work.sum(axis=2))
    finish = np.quantile(np.where(done, cloud.finish, 1e6), (0.1, 0.5, 0.9))
    return {
        "draws": answered.inquiry.draws, "finished": float(done.mean()),
        "in_time": dict(zip((job.name for job in answered.inquiry.buildout.jobs),
                            done_by(answered.inquiry.buildout, cloud), strict=True)),
        "finish_months": {k: None if v > 1e5 else float(v) for k, v in zip(levels, finish, strict=True)},
        "cost": dict(zip(levels, map(float, np.quantile(cloud.cost, (0.1, 0.5, 0.9))), strict=True)),
        "devices": {k: [float(v) for v in row] for k, row in zip(levels, devices, strict=True)},
        "tokens": {k: [float(v) for v in row] for k, row in zip(levels, work, strict=True)},
    }  # fmt: skip
