"""The rules as a build-out meets them: one answer per device, site and day, asked once per segment.

Between two days on which some rule begins or ends nothing changes, so each segment is judged once.
Days after the rules' knowledge are answered by what was known or scheduled. A planner may be limited to what
was announced by the day of planning. A machine for rent only is its owner's, a company of the place.
The verdict is that of `ersatz legal` (`law.rules.judge`), put in the plan's terms; where an offer has a
quota, the rules are asked for as many devices. Not modelled: rumours, ends of rules before they are
announced.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import replace
from datetime import date

from ersatz.sim.law.places import Buyer, find_buyer
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


def rule_gate(rules: Rules, buyer: str, home: str = "") -> Gate:
    """Return the gate that asks the rules for a kind of buyer, or a party by its name.

    `home` is the code of the country where the buyer sits, wherever its machines stand; without it
    that of each site.
    """
    turns = turning_days(rules)
    owner, buying = find_buyer(OWNER), _at_home(find_buyer(buyer), home)
    seen: dict[tuple[str, str, bool, float, int, bool], Answer] = {}

    def answer(offer: Offer, site: Site, day: date) -> Answer:
        if not offer.device:
            return Answer("free", (), "not a device of the catalogue: the rules were not asked")
        segment = bisect_right(turns, day) - 1
        stands = offer.standing and not offer.for_sale
        asked = offer.quota * offer.per_node
        key = (offer.device, site.country, offer.for_sale, asked, segment, stands)
        if key not in seen:
            day = turns[max(segment, 0)]
            units = asked if offer.for_sale and 0 < asked < math.inf else None
            verdict = judge(rules, offer.device, day, site.country, buying if offer.for_sale else owner,
                            changes=False, units=units)  # fmt: skip
            seen[key] = _in_use(verdict) if stands else _answer(verdict)
        return seen[key]

    return answer


def _at_home(buyer: Buyer, home: str) -> Buyer:
    sits = buyer.headquarters == "destination" and home
    return replace(buyer, headquarters=home) if sits else buyer


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
                  verdict.policy == "approval",
                  min((q.most // q.weight for q in verdict.quotas if q.per == "buyer" and not q.yearly),
                      default=math.inf), verdict.quotas)  # fmt: skip
