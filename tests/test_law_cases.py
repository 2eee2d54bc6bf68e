"""Verdicts worked out by hand from the texts of the rules: destinations, parties, edges, coverage.

Each row: device, day, destination, buyer, the verdict, and the rule that decides ("" for none).
"""

import csv
import math
import random
import re
from datetime import date, timedelta
from io import StringIO

import pytest
from market import make_offer
from test_cli import ersatz

from ersatz.device_models.catalog.export import list_parts
from ersatz.device_models.shipped import DATA
from ersatz.sim.cli.output import captured
from ersatz.sim.errors import InputError
from ersatz.sim.law.legal import answer, ask, scheduled, together, watch
from ersatz.sim.law.places import find_buyer, find_place, load_parties, load_places
from ersatz.sim.law.rules import judge, load_rules, strictest, timeline
from ersatz.sim.purchase.buildout import Site
from ersatz.sim.purchase.gate import rule_gate
from ersatz.sim.report.legal_sheet import legal_csv, watch_csv

RULES = load_rules()
EMBARGO, RUSSIA = "US-EMBARGO", "US-2022-02-24-RUSSIA"
EMBARGOED = [("KP", EMBARGO), ("IR", EMBARGO), ("CU", EMBARGO), ("SY", EMBARGO),
             ("RU", RUSSIA), ("BY", RUSSIA)]  # fmt: skip
CASES = [
    *((device, "2024-06-01", place, "company", "denied", rule)
      for device in ("h20", "t4", "rtx-4090d") for place, rule in EMBARGOED),
    *((device, day, place, "company", "denied", rule)
      for device, day in (("h100", "2022-12-01"), ("a100-80", "2023-06-01"))
      for place, rule in EMBARGOED),
    # Korean memory: the rule on Russia reaches foreign products by its text, the older embargoes as
    # written here only what is designed in or shipped from the US, and Korea's own are not in the data
    *(("hbm3", "2024-06-01", place, "company", "denied", RUSSIA) for place in ("RU", "BY")),
    *(("hbm3", "2024-06-01", place, "company", "unknown", "") for place in ("KP", "IR", "CU", "SY")),
    # Belarus follows Russia by a week: 2022-03-02
    ("t4", "2022-02-24", "RU", "company", "denied", RUSSIA),
    ("t4", "2022-03-01", "BY", "company", "unknown", ""),
    ("t4", "2022-03-02", "BY", "company", "denied", RUSSIA),
    # military end users: 2020-06-29
    ("h20", "2024-06-01", "CN", "military", "denied", "US-2020-06-29-MEU"),
    ("t4", "2020-06-28", "CN", "military", "free", ""),
    ("t4", "2020-06-29", "CN", "military", "denied", "US-2020-06-29-MEU"),
    # Israel is in D:4 and in A:6, so that the rule of 2023 leaves it out; the Gulf is not in A:6
    ("h100", "2024-06-01", "Israel", "company", "free", ""),
    ("h100", "2024-06-01", "UAE", "company", "approval", "US-2023-10-17-D14"),
    # GP10: not only a mark, the purchase itself
    ("ascend-910c", "2025-06-01", "Malaysia", "company", "denied", "US-2025-05-13-GP10"),
    ("ascend-910c", "2025-06-01", "Saudi Arabia", "company", "denied", "US-2025-05-13-GP10"),
    ("ascend-910c", "2025-06-01", "China", "company", "free", ""),
    ("ascend-910c", "2024-06-01", "Malaysia", "company", "unknown", ""),
    # the affiliates rule, its suspension and its return by its own text
    ("h20", "2025-09-28", "Singapore", "affiliate", "free", ""),
    ("h20", "2025-09-29", "Singapore", "affiliate", "denied", "US-2025-09-29-AFFILIATES"),
    ("h20", "2025-11-10", "Singapore", "affiliate", "free", ""),
    ("h20", "2026-11-09", "Singapore", "affiliate", "free", ""),
    ("h20", "2026-11-10", "Singapore", "affiliate", "denied", "US-2026-11-10-AFFILIATES"),
    ("h20", "2026-11-15", "China", "affiliate", "denied", "US-2026-11-10-AFFILIATES"),
    # parties by name and day
    ("h20", "2023-03-01", "China", "Inspur", "free", ""),
    ("h20", "2025-04-01", "China", "Inspur", "denied", "US-EL-INSPUR"),
    ("h20", "2025-03-24", "China", "Inspur Taiwan", "free", ""),
    ("h20", "2025-03-25", "China", "inspur taiwan", "denied", "US-EL-INSPUR-UNITS"),
    ("a100-80", "2019-05-16", "Germany", "Huawei", "denied", "US-EL-HUAWEI"),
    ("h20", "2024-06-01", "China", "Alibaba", "free", ""),
    ("gb300", "2025-11-18", "AE", "G42", "approval", "US-2023-10-17-D14"),
    ("gb300", "2025-11-19", "AE", "G42", "licensed", "US-2025-11-19-GULF"),
    ("gb300", "2025-12-01", "SA", "Humain", "licensed", "US-2025-11-19-GULF"),
    ("gb300", "2025-12-01", "AE", "company", "approval", "US-2023-10-17-D14"),
    # regions with an embargo of their own: Crimea since 2015, Donetsk and Luhansk since 2022-02-24
    ("t4", "2021-06-01", "Crimea", "company", "denied", "US-2015-01-29-REGIONS"),
    ("t4", "2022-02-23", "Donetsk", "company", "unknown", ""),
    ("t4", "2022-02-24", "LNR", "company", "denied", "US-2015-01-29-REGIONS"),
    ("t4", "2024-06-01", "Ukraine", "company", "free", ""),
    # what stays at home is no export: neither in the US nor of Chinese parts in China
    ("h100", "2025-09-01", "US", "chinese-subsidiary", "free", ""),
    ("h100", "2025-09-01", "US", "listed", "free", ""),
    ("ascend-910b2", "2024-06-01", "China", "Huawei", "free", ""),
    ("ascend-910b2", "2025-06-01", "China", "listed", "free", ""),
    # but abroad, by whatever way, it is one; and guidance on use holds in the US too
    ("h100", "2024-06-01", "Germany", "Huawei", "denied", "US-EL-HUAWEI"),
    ("ascend-910b2", "2024-06-01", "Singapore", "Huawei", "denied", "US-EL-HUAWEI"),
    ("ascend-910c", "2025-09-01", "US", "company", "denied", "US-2025-05-13-GP10"),
    # more parties by name and day
    ("h20", "2024-06-01", "China", "SenseTime", "denied", "US-EL-SENSETIME"),
    ("h20", "2022-12-15", "China", "YMTC", "free", ""),
    ("h20", "2022-12-16", "China", "YMTC", "denied", "US-EL-YMTC"),
    ("h20", "2025-03-24", "China", "BAAI", "free", ""),
    ("h20", "2025-03-25", "China", "BAAI", "denied", "US-EL-BAAI"),
    ("h20", "2021-04-08", "China", "Phytium", "denied", "US-EL-PHYTIUM"),
    # SMIC: denial is presumed only of what makes chips of 10 nm or less, all else goes case by case
    ("t4", "2020-12-17", "China", "SMIC", "free", ""),
    ("t4", "2020-12-18", "China", "SMIC", "case_by_case", "US-EL-SMIC"),
    ("h100", "2024-06-01", "China", "SMIC", "denied", "US-2023-10-17"),
    # the letters of 2023 name neither customers nor countries: not free for that
    ("h100", "2023-09-15", "Saudi Arabia", "company", "unknown", "US-2023-08-MIDDLE-EAST"),
    ("h100", "2023-09-15", "Israel", "company", "free", ""),
    # military end users, each country from its own notice on
    ("t4", "2021-03-08", "Myanmar", "military", "denied", "US-2020-06-29-MEU"),
    ("t4", "2021-12-08", "Cambodia", "military", "unknown", ""),
    ("t4", "2021-12-09", "Cambodia", "military", "denied", "US-2020-06-29-MEU"),
    ("t4", "2024-03-15", "Nicaragua", "military", "denied", "US-2020-06-29-MEU"),
    ("h100", "2024-06-01", "India", "military", "notify", "IN-2023-11-01-IMS"),
    # D:1 and D:4 without A:5 and A:6, and a part that is caught by its density
    ("h100", "2024-06-01", "Kazakhstan", "company", "approval", "US-2023-10-17-D14"),
    ("h100", "2024-06-01", "Mexico", "company", "free", ""),
    ("l4", "2024-06-01", "Saudi Arabia", "company", "approval", "US-2023-10-17-D14"),
    ("h200", "2025-06-01", "Switzerland", "chinese-subsidiary", "denied", "US-2023-10-17"),
    ("h100", "2024-06-01", "Ethiopia", "company", "unknown", ""),
    # cleared by the US in May 2026, and yet not among those that China lets in
    ("h200", "2026-06-15", "China", "JD", "case_by_case", "US-2026-05-H200-LIST"),
    ("b200", "2026-06-15", "China", "JD", "denied", "US-2023-10-17"),
    ("gb300", "2025-11-19", "SA", "G42", "licensed", "US-2025-11-19-GULF"),
    # bins of one device on both sides of what is assumed of them
    ("ascend-910b4", "2025-06-01", "Malaysia", "company", "denied", "US-2025-05-13-GP10"),
    ("ppu-810e-197", "2025-06-01", "Singapore", "company", "unknown", ""),
    ("siyuan-690", "2025-06-01", "UAE", "company", "unknown", ""),
    ("mi308x", "2024-06-01", "China", "company", "free", ""),
    # what the data do not cover
    ("h100", "2024-06-01", "Nigeria", "company", "unknown", ""),
    ("cpu", "2024-06-01", "Germany", "company", "unknown", ""),
    ("hbm3", "2024-06-01", "Germany", "company", "unknown", ""),  # Korea's rules for Germany
    ("ppu-810e", "2025-06-01", "Malaysia", "company", "unknown", "US-2025-05-13-GP10"),
    ("h20", "2024-06-01", "Nicaragua", "company", "unknown", ""),
    ("h100", "2024-03-15", "Nicaragua", "company", "denied", "US-2023-10-17"),
    # new members of the European Union, and others that had no name
    *(("h100", "2024-06-01", place, "company", "free", "") for place in
      ("Hungary", "Romania", "Greece", "Bulgaria", "Estonia", "Latvia", "Lithuania", "Slovakia",
       "Slovenia", "Croatia", "Cyprus", "Malta", "Argentina")),
    ("h100", "2024-06-01", "India", "company", "notify", "IN-2023-11-01-IMS"),
    # parts that were missing
    ("gaudi-3", "2025-06-01", "China", "company", "denied", "US-2023-10-17"),
    ("h20-141", "2025-04-09", "China", "company", "licence", "US-2025-04-H20"),
    ("rubin", "2026-06-01", "China", "company", "denied", "US-2023-10-17"),
    ("rtx-pro-6000", "2025-06-01", "China", "company", "denied", "US-2023-10-17"),
    ("mi309", "2024-06-01", "China", "company", "unknown", "US-2023-10-17"),
    ("siyuan-590", "2025-06-01", "Malaysia", "company", "unknown", ""),
    ("p800", "2025-06-01", "China", "company", "free", ""),
    ("l40", "2023-11-17", "China", "company", "notify", "US-2023-10-17"),
]  # fmt: skip


@pytest.mark.parametrize(("device", "day", "place", "buyer", "policy", "rule"), CASES)
def test_verdicts_worked_out_by_hand(
    device: str, day: str, place: str, buyer: str, policy: str, rule: str
) -> None:
    verdict = judge(RULES, device, day, place, buyer, changes=False)
    assert verdict.policy == policy
    if policy == "unknown":
        assert verdict.doubts  # says what is missing
        assert not verdict.may_buy
    if rule:
        assert rule in verdict.rule_ids


def test_every_rule_says_where_it_is_written() -> None:
    # the Federal Register's or a court's page, a section, a filing or an address; recall is no source
    place = re.compile(r"\d+ FR \d+|\d+ CFR (part )?\d+|\d+ U\.S\.C\.|accession [\d-]{18,}|https?://\S+/\S|"
                       r"Congressional Record, House, \d{4}-|Notification \d+/\d{4}")  # fmt: skip
    for rule in RULES:
        assert "recall" not in f"{rule.source} {rule.note} {rule.exceptions}", rule.id
        assert place.search(rule.source) or "assumption" in rule.source, rule.id
    for line in csv.reader((DATA / "policy" / "public_record.csv").open()):
        assert "recall" not in " ".join(line), line


def test_no_place_of_the_world_is_free_without_coverage() -> None:
    # the kind: where neither the seller's nor the buyer's rules are in the data, nothing is free
    places = load_places()
    for place in places.names:
        for device in ("t4", "ascend-910c", "cpu", "hbm3"):
            verdict = judge(RULES, device, "2024-06-01", place, changes=False)
            covered = place == verdict.origin or (
                places.import_coverage(place) is not None
                and {"t4": True, "ascend-910c": False, "cpu": False, "hbm3": place == "CN"}[device]
            )
            assert covered or verdict.policy in ("unknown", "denied")


def test_the_union_is_whole() -> None:
    assert len(load_places().groups["EU"]) == 27
    assert find_place("Romania") == "RO"
    assert find_place("sudan") == "SD"


def test_quantities_decide() -> None:
    # 35,000 devices for G42, not 35,001; 75,000 H200 per cleared buyer
    def policy(device: str, day: str, place: str, buyer: str, units: float) -> str:
        return judge(RULES, device, day, place, buyer, units=units, changes=False).policy

    assert policy("gb300", "2025-12-01", "AE", "G42", 35_000) == "licensed"
    assert policy("gb300", "2025-12-01", "AE", "G42", 35_001) == "approval"
    # as much compute: 35,000 x 60,000 TPP are 52,500 GB200 of 40,000
    assert policy("gb200", "2025-12-01", "SA", "Humain", 52_500) == "licensed"
    assert policy("gb200", "2025-12-01", "SA", "Humain", 52_501) == "approval"
    assert policy("h200", "2026-05-20", "CN", "big-tech", 75_000) == "licensed"
    assert policy("h200", "2026-05-20", "CN", "big-tech", 75_001) == "case_by_case"
    # the Diffusion rule as if it had bound: 26.9 M TPP are 1,699 H100, 790 M are 49,901
    rule = "rules.US-2025-01-DIFFUSION"
    bound = load_rules(overrides=(f"{rule}.ends=~", f"{rule}.never_bound=false"))
    asked = {n: judge(bound, "h100", "2025-06-01", "PT", units=n, changes=False).policy
             for n in (1_699, 1_700, 49_901, 49_902)}  # fmt: skip
    assert list(asked.values()) == ["notify", "approval", "approval", "denied"]
    unsaid = judge(bound, "h100", "2025-06-01", "PT", changes=False)
    assert unsaid.policy == "unknown"
    assert any("units" in d or "order_tpp unknown" in d for d in unsaid.doubts)


def test_what_is_scheduled_is_shown() -> None:
    verdict = judge(RULES, "h20", "2026-06-01", "Singapore", "affiliate")
    assert verdict.next_change
    assert (verdict.next_change.day.isoformat(), verdict.next_change.after) == (
        "2026-11-10", "denied")  # fmt: skip
    found = watch(answer(ask(["h20"], ["2026-06-01"], "Singapore", "affiliate", rules=RULES)))
    assert [(name, change.day.isoformat()) for name, change in found] == [("h20", "2026-11-10")]
    text = captured(["legal", "h20", "--to", "Singapore", "--buyer", "affiliate",
                     "--date", "2026-06-01", "--watch"])  # fmt: skip
    assert "2026-11-10 h20: free -> DENIED (US-2026-11-10-AFFILIATES)" in text
    later = [c.day.year for c in timeline(RULES, "h20", "SG", "affiliate")]
    assert later[-1] == 2026


@pytest.mark.parametrize("units", [0.0, -5.0, float("nan"), float("inf")])
def test_no_number_of_devices_is_refused(units: float) -> None:
    with pytest.raises(InputError, match="expected a number of devices"):
        ask(["h200"], ["2026-06-01"], units=units, rules=RULES)


def test_what_begins_or_ends_is_watched_at_every_gate() -> None:
    # on 2027-01-01 the transistor limit at the foundry rises: no verdict on a purchase changes
    asked = answer(ask(["h20", "ascend-910c"], ["2026-11-29"], rules=RULES))
    assert watch(asked) == []
    found = [(t.day.isoformat(), t.rule, t.begins, t.gates, d) for t, d in scheduled(asked)]
    assert found == [
        ("2027-01-01", "US-2025-01-FOUNDRY", False, ("foundry",), ("ascend-910c",)),
        ("2027-01-01", "US-2027-01-FOUNDRY", True, ("foundry",), ("ascend-910c",)),
    ]
    rows = list(csv.DictReader(StringIO(watch_csv(asked))))
    assert [(r["day"], r["begins_or_ends"]) for r in rows] == [
        ("2027-01-01", "ends"), ("2027-01-01", "begins")]  # fmt: skip
    assert all("90 FR 5298" in r["citation"] for r in rows)


def test_a_device_that_is_not_yet_there_says_so() -> None:
    assert "; not yet on sale\n" in captured(["legal", "gb300", "--date", "2020-01-01"])
    assert "not yet on sale" not in captured(["legal", "h20", "--date", "2024-06-01"])


def test_an_announcement_stands_beside_what_binds() -> None:
    pending = judge(RULES, "h200", "2025-12-20", "CN").pending
    assert any("US-2025-12-08-H200-ANNOUNCED" in line for line in pending)
    assert not any("H200-ANNOUNCED" in x for x in judge(RULES, "h200", "2026-01-20", "CN").pending)


def test_the_age_of_the_rules_stands_first() -> None:
    done = ersatz("legal", "h20")
    first = done.stdout.splitlines()[0]
    assert first.startswith("Rules are known to 2026-06-30, ")
    within = captured(["legal", "h20", "--date", "2026-06-30"])
    assert within.startswith("h20 on 2026-06-30")
    beyond = judge(RULES, "h20", "2026-07-01", "CN", changes=False)
    assert beyond.assumptions[0].startswith("rules are known to 2026-06-30, 1 days before")


def test_a_party_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match="no party that the data know"):
        find_buyer("Acme Compute")
    for party in load_parties().values():
        assert all(find_buyer(name).party == party.name for name in party.names)
        if party.listed:
            day = party.listed[0]
            eve = judge(RULES, "t4", max(day - timedelta(1), RULES.known_from), "CN", party.name)
            assert judge(RULES, "t4", day, "CN", party.name).policy == party.review
            assert eve.policy != party.review or day == RULES.known_from


def test_the_sheet_names_rules_and_citations() -> None:
    sheet = legal_csv(answer(ask(["h20", "h100"], ["2025-04-15"], rules=RULES)))
    rows = {row["device"]: row for row in csv.DictReader(StringIO(sheet))}
    assert rows["h20"]["rules"] == "US-2025-04-H20"
    assert "8-K" in rows["h20"]["citations"]
    assert (rows["h100"]["policy"], rows["h100"]["binding_since"]) == ("denied", "2023-11-17")
    assert rows["h20"]["rules_known_until"] == "2026-06-30"


def test_what_a_rule_counts_in_one_sum_is_summed_over_devices() -> None:
    # 20,000 GB300 are 57 % of the licence of G42, 20,000 H100 15 %; with as many MI355X 58 % more
    two = ask(["gb300", "h100"], ["2026-03-01"], "AE", "G42", units=20_000)
    (found,) = together(answer(two))
    share = 20_000 * (60_000 + 15_831.2) / (35_000 * 60_000)
    assert (found.rule, found.over) == ("US-2025-11-19-GULF", False)
    assert found.asked / found.most == pytest.approx(share)
    three = answer(ask(["gb300", "h100", "mi355x"], ["2026-03-01"], "AE", "G42", units=20_000))
    assert together(three)[0].over
    assert all(v.may_buy for row in three.verdicts.values() for v in row)  # each alone
    assert not together(answer(ask(["gb300", "h100"], ["2026-03-01"], "AE", "G42")))
    # low processing: 26.9 M TPP a year and buyer, 1,699 H100 or any mix of as much
    dropped = load_rules(
        None, ("rules.US-2025-01-DIFFUSION.ends=", "rules.US-2025-01-DIFFUSION.never_bound=false")
    )
    quotas = {d: judge(dropped, d, "2025-06-01", "PL", units=1000).quotas for d in ("h100", "h200")}
    assert {(q.most, q.per, q.yearly) for found in quotas.values() for q in found} == {
        (26.9e6, "buyer", True)
    }
    large = judge(dropped, "h100", "2025-06-01", "PL", units=2000).quotas
    assert {(q.most, q.per, q.yearly) for q in large} == {(790e6, "country", False)}


def test_legal_and_buy_never_contradict_each_other() -> None:
    # 500 random cases: an order leaves exactly where the purchase is allowed
    draw = random.Random(20)
    parts, places = sorted(list_parts()), sorted(load_places().names)
    buyers = ["company", "university", "listed", "affiliate", "chinese-subsidiary", "military",
              "state", "big-tech", "Inspur", "G42", "Huawei", "BAAI"]  # fmt: skip
    near = ["CN", "AE", "SA", "MY", "SG", "IL", "IR", "RU", "US", "DE"]
    gates = {buyer: rule_gate(RULES, buyer) for buyer in buyers}
    for _ in range(500):
        device, buyer = draw.choice(parts), draw.choice(buyers)
        place = draw.choice(near if draw.random() < 0.8 else places)
        day = RULES.known_from + timedelta(days=draw.randrange(2900))
        units = draw.choice([None, 100, 35_001, 75_001])
        said = judge(RULES, device, day, place, buyer, changes=False, units=units)
        site = Site("x", place, 1e6, 1e3, 0.0, 1.2, 0.0)
        got = gates[buyer](make_offer(device=device, quota=units or math.inf), site, day)
        assert got.quota == (math.inf if said.quota_units is None else said.quota_units)
        assert got.sums == said.quotas
        assert (got.policy in ("free", "notify")) == said.may_buy, (device, day, place, buyer)
        assert (got.policy == "case") == said.may_apply
        assert got.rules == said.rule_ids
        if said.policy == "unknown":
            assert got.words.startswith("unknown")


def test_machines_elsewhere_are_still_those_of_a_chinese_buyer() -> None:
    # H100 in Malaysia in 2024: free for a company of the place, denied for one that sits in China
    site, day = Site("kl", "MY", 1e6, 1e3, 0.0, 1.2, 0.0), date(2024, 6, 1)
    there, from_china = rule_gate(RULES, "company", "MY"), rule_gate(RULES, "company", "CN")
    assert there(make_offer(device="h100"), site, day).policy == "free"
    got = from_china(make_offer(device="h100"), site, day)
    said = judge(RULES, "h100", day, "MY", "chinese-subsidiary", changes=False)
    assert (got.policy, got.rules) == ("denied", said.rule_ids)


def test_strictest_keeps_denied_over_unknown() -> None:
    assert strictest(["free", "unknown", "denied"]) == "denied"
    assert strictest(["approval", "unknown", "free"]) == "unknown"
    assert strictest(["free", "notify"]) == "notify"
