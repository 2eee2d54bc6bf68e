"""Situations of Kueue with known answers: our own, worked out by hand, and those of `--kueue-cases PATH`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kueue_situations import ASKS, differs, read_cases

OWN = Path(__file__).parent / "data" / "kueue_cases.jsonl"


def test_it_comes_out_as_stated(kueue_case: dict[str, Any]) -> None:
    assert not differs(kueue_case)


def test_a_wrong_answer_is_noticed() -> None:
    case = read_cases(OWN)[2]
    case["expected"]["admitted"] = {}
    assert differs(case).startswith(f"{case['id']}: admitted is ")


def test_our_own_cover_every_kind() -> None:
    cases = read_cases(OWN)
    assert {c["kind"] for c in cases} == {"admission", "preemption", "fair", "hierarchy", "tas"}
    assert {c["ask"] for c in cases} <= set(ASKS)
    assert all(c["why"] for c in cases)
