"""The rules as a build-out meets them: one answer per device, site and day, asked once per segment.

Between two days on which some rule begins or ends nothing changes, so each segment is judged once.
Days after the rules' knowledge are answered by what was known or scheduled. A planner may be limited to what
was announced by the day of planning. A machine for rent only is its owner's, a company of the place.
The verdict is that of `ersatz legal` (`law.rules.judge`), put in the plan's terms. Not modelled:
rumours, ends of rules before they are announced.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from datetime import date

from ersatz.sim.law.rule import ORDER
from ersatz.sim.law.rules import Rules, Verdict, judge
from ersatz.sim.purchase.buildout import Answer, Gate, Offer, Site

OWNER = "company"  # of machines that are only rented


def open_gate(offer: Offer, site: Site, day: date) -> Answer:
    """Answer as if there were no rules."""
    return Answer("free")


def known_rules(rules: Rules, day: date) -> Rules:
    """Return the rules that had been announced by a day."""
    return replace(rules, rules={n: r for n, r in rules.rules.items() if r.announced <= day})


def rule_gate(rules: Rules, buyer: str) -> Gate:
    """Return the gate that asks the rules for a kind of buyer."""
    turns = turning_days(rules)
    seen: dict[tuple[str, str, str, int, bool], Answer] = {}

    def answer(offer: Offer, site: Site, day: date) -> Answer:
        if not offer.device:
            return Answer("free", (), "not a device of the catalogue: the rules were not asked")
        segment = bisect_right(turns, day) - 1
        kind = buyer if offer.for_sale else OWNER
        stands = offer.standing and not offer.for_sale
        key = (offer.device, site.country, kind, segment, stands)
        if key not in seen:
            day = turns[max(segment, 0)]
            verdict = judge(rules, offer.device, day, site.country, kind, changes=False)
            seen[key] = _in_use(verdict) if stands else _answer(verdict)
        return seen[key]

    return answer


def _in_use(verdict: Verdict) -> Answer:
    """Put what a verdict says of machines that stand already: only rules on their use are left."""
    use = verdict.gates["use"]
    if "use" not in verdict.buying or ORDER[use.policy] == "free":
        return Answer("free", (), "for rent where it stands: no export")
    return Answer(
        ORDER[use.policy], use.rules, "its use is held to be a breach outside its own country"
    )


def turning_days(rules: Rules) -> list[date]:
    """Return the days on which some rule begins or ends, in order, with those scheduled."""
    days = {rules.known_from}
    for rule in rules:
        days |= {d for d in (rule.binds, rule.ends, *(start for _, start in rule.places)) if d}
    return sorted(d for d in days if d >= rules.known_from)


def _answer(verdict: Verdict) -> Answer:
    """Put a verdict as an order meets it: the verdict of `ersatz legal`, in the plan's terms."""
    words = verdict.arithmetic[0] if verdict.arithmetic else verdict.meaning
    if verdict.policy == "unknown":
        words = f"unknown: {verdict.meaning}"
    elif "use" in verdict.buying and verdict.gates["use"].policy == verdict.policy == "denied":
        words = "its use is held to be a breach outside its own country"
    notice = verdict.wait_days if verdict.order == "notify" else 0.0
    return Answer(verdict.order, verdict.rule_ids, words, verdict.fee + verdict.duty, notice,
                  presumed=verdict.policy == "approval")  # fmt: skip
