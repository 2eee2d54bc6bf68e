"""The rules as a build-out meets them: one answer per device, site and day, asked once per segment.

Between two days on which some rule begins or ends nothing changes, so each segment is judged once.
Days after the rules' knowledge are answered as the last known day. A planner may be limited to what
was announced by the day of planning. A machine for rent only is its owner's, a company of the place.
A rule against the use of a part binds outside the country of its designer. Not modelled: rumours,
ends of rules before they are announced.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from datetime import date

from ersatz.device_models.catalog.export import load_part
from ersatz.sim.law.rules import Rules, Verdict, judge
from ersatz.sim.purchase.buildout import Answer, Gate, Offer, Site

OWNER = "company"  # of machines that are only rented
# what a policy of the rules means for an order: it leaves, after a notice, by a decision, or not
MEANING = {"free": "free", "licensed": "free", "notify": "notify", "approval": "case",
           "case_by_case": "case", "licence": "denied", "denied": "denied", "unknown": "denied"}  # fmt: skip


def open_gate(offer: Offer, site: Site, day: date) -> Answer:
    """Answer as if there were no rules."""
    return Answer("free")


def known_rules(rules: Rules, day: date) -> Rules:
    """Return the rules that had been announced by a day."""
    return replace(rules, rules={n: r for n, r in rules.rules.items() if r.announced <= day})


def rule_gate(rules: Rules, buyer: str) -> Gate:
    """Return the gate that asks the rules for a kind of buyer."""
    turns = turning_days(rules)
    seen: dict[tuple[str, str, str, int], Answer] = {}

    def answer(offer: Offer, site: Site, day: date) -> Answer:
        if not offer.device:
            return Answer("free", (), "not a device of the catalogue: the rules were not asked")
        segment = bisect_right(turns, day) - 1
        kind = buyer if offer.for_sale else OWNER
        key = (offer.device, site.country, kind, segment)
        if key not in seen:
            day = turns[max(segment, 0)]
            verdict = judge(rules, offer.device, day, site.country, kind, changes=False)
            seen[key] = _answer(verdict, load_part(offer.device).designer)
        return seen[key]

    return answer


def turning_days(rules: Rules) -> list[date]:
    """Return the days within knowledge on which some rule begins or ends, in order."""
    days = {rules.known_from}
    for rule in rules:
        days |= {
            d for d in (rule.binds, rule.ends) if d and rules.known_from < d <= rules.known_until
        }
        days |= {start for _, start in rule.places if start and rules.known_from < start}
    return sorted(d for d in days if d <= rules.known_until)


def _answer(verdict: Verdict, designer: str) -> Answer:
    words = verdict.arithmetic[0] if verdict.arithmetic else verdict.meaning
    use = verdict.gates["use"]
    if MEANING[use.policy] == "denied" and verdict.destination != designer:
        return Answer("denied", use.rules, "its use is held to be a breach outside its own country")
    policy = MEANING[verdict.policy]
    notice = verdict.wait_days if policy == "notify" else 0.0
    return Answer(policy, verdict.rule_ids, words, verdict.fee + verdict.duty, notice)
