"""Rules: known verdicts of the public record, gates, what-ifs, changes over time, and bad input."""

import csv
from pathlib import Path

import pytest

from sim.market.rules import judge, load_rules

KNOWN = Path(__file__).with_name("known_verdicts.csv")
RULES = load_rules()
DAYS = ("2022-10-21", "2023-11-17", "2025-04-15", "2026-01-15")
# words of the table -> policy of the export gate
WORDS = {"DENY": "denied", "NAC": "notify", "FREE": "free", "LICENCE-LETTER": "licence",
         "CASE-BY-CASE": "case_by_case"}  # fmt: skip


def known_verdicts() -> list[dict[str, str]]:
    return list(csv.DictReader(KNOWN.read_text("utf-8").splitlines()))


@pytest.mark.parametrize("row", known_verdicts(), ids=lambda row: row["device"])
def test_every_known_verdict_is_reproduced(row: dict[str, str]) -> None:
    for day in DAYS:
        want = row[f"china_{day}"]
        verdict = judge(RULES, row["device"], day, "China", changes=False)
        export = verdict.gates["export"]
        if want == "n/a":  # did not exist yet
            continue
        if want == "PRC-made":  # no question of export
            assert (export.policy, export.rules) == ("free", ())
        elif want == "CASE-BY-CASE?":  # never sold in the US: the two readings differ
            assert "case_by_case" in (export.policy, export.alternative)
            assert "never sold in the US" in export.doubts[0]
        else:
            assert export.policy == WORDS[want]
