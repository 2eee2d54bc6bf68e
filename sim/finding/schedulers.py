"""Schedulers: policies, placements and the orders in which types of accelerators are tried."""

from __future__ import annotations

from dataclasses import fields

from ersatz.sim.finding.entry import Entry, Shelf, stated
from ersatz.sim.fleet.policies.registry import WORDS, make_scheduler


def _line(name: str) -> str:
    part, words = WORDS[name][:2]
    return f"{part}: {words}"


def _entry(name: str) -> Entry:
    part, words, source = WORDS[name]
    facts = [stated("part", part, "registry"), stated("what it does", words, "registry")]
    if part == "policy":
        claims = make_scheduler(name).claims
        claimed = {f.name: getattr(claims, f.name) for f in fields(claims)}
        facts += [stated(f"claims.{k}", v, "code") for k, v in claimed.items() if v]
    notes = (f"ersatz schedule SCENARIO --policy {_example(name, part)}",
             "a scheduler of your own: docs/schedulers.md")  # fmt: skip
    return Entry("schedulers", name, f"{name}: {words}", tuple(facts), "", notes,
                 {"source": source} if source else {})  # fmt: skip


def _example(name: str, part: str) -> str:
    return {"policy": name, "placement": f"easy:{name}"}.get(part, f"easy:best-fit:{name}")


SCHEDULERS = (Shelf("schedulers", "policies, placements and orders of types", lambda: list(WORDS),
                    _line, _entry),)  # fmt: skip
