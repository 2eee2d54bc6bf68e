"""The questions of `ersatz legal`: which devices may be bought, on which days, under which rules.

A question comes from the command line or from a file with cases (as it is, and what if). Its answer
is a table of verdicts, device by day, with how each device's verdict runs over time, what cases
change, and where the public record says otherwise.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from ersatz.device_models.catalog.export import Part, list_parts, load_part
from ersatz.device_models.catalog.reading import list_devices, load_device
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.law.course import Turn, turns
from ersatz.sim.law.places import POLICY, find_buyer, find_date, find_place
from ersatz.sim.law.rules import (
    Change,
    Rules,
    Verdict,
    check_day,
    judge,
    load_rules,
    timeline,
)
from ersatz.sim.scenario.case_file import Case, read_cases, validated
from ersatz.sim.scenario.sections.quantities import Section, Seed

EVERY = "all"
MOST_UNITS = 1e9  # devices of one question
OF_RULES = ("rules.", "knowledge.")
OF_FILE = ("rules.set", "rules.file")


class RulesSection(Section):
    """Which rules hold."""

    file: str | None = Field(None, description="rules of your own, beside this file")
    set: tuple[str, ...] = Field((), description="changes, e.g. rules.ID.criterion.memory=4100")


class LegalFile(Section):
    """A file that `ersatz legal` reads."""

    question: str = Field("", description="what the file asks, in one sentence")
    devices: tuple[str, ...] = Field((EVERY,), description="names of the catalogue, or all")
    dates: tuple[str, ...] = Field(min_length=1, description="days like 2025-03-24")
    to: str = Field("China", description="destination")
    buyer: str = Field("company", description="kind of buyer, or the name of a party")
    origin: str | None = Field(None, description="where it is shipped from")
    units: float | None = Field(
        None, gt=0, le=MOST_UNITS, description="how many devices are asked for"
    )
    rules: RulesSection = Field(default_factory=RulesSection, description="which rules hold")
    seed: Seed = Field(0, description="nothing here is random")


@dataclass(frozen=True, slots=True)
class LegalQuestion:
    """What is asked."""

    name: str
    question: str
    parts: Mapping[str, Part]  # the devices by name
    days: tuple[date, ...]
    destination: str
    buyer: str
    origin: str | None
    rules: Rules
    units: float | None = None  # devices that are asked for


@dataclass(frozen=True, slots=True)
class PublicRecord:
    """What was publicly reported of a device at a gate, beside what the rules say."""

    device: str
    day: date
    gate: str
    reported: str
    tpp: float | None
    source: str
    note: str


@dataclass(frozen=True, slots=True)
class LegalAnswer:
    """The verdicts of one question by device and day, and their course over time."""

    question: LegalQuestion
    verdicts: Mapping[str, tuple[Verdict, ...]]
    courses: Mapping[str, tuple[Change, ...]]
    disagreements: tuple[tuple[PublicRecord, str], ...]  # with what the rules say

    def on_sale(self, i: int) -> list[Verdict]:
        """Return the verdicts of the i-th day on devices that had been released by then."""
        column = [row[i] for row in self.verdicts.values()]
        return [
            verdict
            for verdict in column
            if self.question.parts[verdict.device].on_sale(verdict.day)
        ]

    def best(self, i: int) -> Verdict | None:
        """Return the verdict of the largest TPP that may be bought on the i-th day.

        Only devices that train count, as far as ersatz can simulate them.
        """
        trains = {name for name in list_devices() if load_device(name).trains}
        free = [
            verdict for verdict in self.on_sale(i) if verdict.may_buy and verdict.device in trains
        ]
        return max(free, key=lambda v: (self.question.parts[v.device].tpp, v.device), default=None)


def ask(
    devices: Sequence[str], days: Sequence[str], destination: str = "China",
    buyer: str = "company", origin: str | None = None, rules: Rules | None = None, question: str = "",
    name: str = "legal", units: float | None = None,
) -> LegalQuestion:  # fmt: skip
    """Return a checked question; raises `InputError` with every unknown name and day at once."""
    problems: list[Problem] = []
    if units is not None and not (0 < units <= MOST_UNITS and units == int(units)):
        words = f"expected a number of devices, whole and at most {MOST_UNITS:g}"
        problems.append(Problem("units", 0, 0, "", f"{units:g}", words))
    parts: dict[str, Part] = {}
    every = [name for name in list_parts() if load_part(name).vendor != "generic"]
    for device in every if EVERY in devices else devices:
        try:
            part = load_part(device)
            parts[part.name] = part
        except InputError as error:
            problems += error.problems
    known = rules or load_rules()
    found: list[date] = []
    for day in days:
        try:
            found.append(find_date(day))
            check_day(known, found[-1])
        except InputError as error:
            problems += error.problems
    for check, value in (
        (find_place, destination),
        (find_buyer, buyer),
        (find_place, origin or "US"),
    ):
        try:
            check(value)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return LegalQuestion(name, question, parts, tuple(sorted(set(found))),
                         destination, buyer, origin, known, units)  # fmt: skip


def load_questions(path: Path | str, overrides: Sequence[str] = ()) -> tuple[LegalQuestion, ...]:
    """Return the cases of a file; `rules.ID....=` among the overrides change rules in every case.

    Raises `InputError` with every fault of every case.
    """
    of_rules = [text for text in overrides
                if text.startswith(OF_RULES) and not text.startswith(OF_FILE)]  # fmt: skip
    others = [text for text in overrides if text not in of_rules]
    questions: list[LegalQuestion] = []
    problems: list[Problem] = []
    for case in read_cases(path, others):
        spec = validated(case, LegalFile)
        if spec:
            _resolve(case, spec, Path(path), of_rules, questions)
        problems += [problem for problem in case.problems if problem not in problems]
    if problems:
        raise InputError(problems)
    return tuple(questions)


def _resolve(
    case: Case, spec: LegalFile, path: Path, of_rules: Sequence[str], found: list[LegalQuestion]
) -> None:
    """Resolve one case; its faults are blamed in the file."""
    own = path.parent / spec.rules.file if spec.rules.file else None
    try:
        rules = load_rules(own, (*spec.rules.set, *of_rules))
        found.append(ask(spec.devices, spec.dates, spec.to, spec.buyer, spec.origin, rules,
                         spec.question, case.name, spec.units))  # fmt: skip
    except InputError as error:
        keys = {"device": "devices", "date": "dates", "destination": "to", "buyer": "buyer",
                "units": "units"}  # fmt: skip
        for problem in error.problems:
            if problem.file in keys:
                case.blame((keys[problem.file],), problem.value, problem.expected)
            else:
                case.problems.append(problem)


def answer(question: LegalQuestion) -> LegalAnswer:
    """Judge every device on every day."""
    q = question
    verdicts = {
        name: tuple(
            judge(q.rules, part, day, q.destination, q.buyer, q.origin, units=q.units)
            for day in q.days
        )
        for name, part in q.parts.items()
    }
    courses = {
        name: timeline(q.rules, part, q.destination, q.buyer, q.origin, units=q.units)
        for name, part in q.parts.items()
    }
    return LegalAnswer(q, verdicts, courses, tuple(disagreements(q)))


def watch(answer: LegalAnswer, months: int = 12) -> list[tuple[str, Change]]:
    """Return what is scheduled to change for each device within months after the last day asked."""
    start = answer.question.days[-1]
    end = start + timedelta(days=round(months * 365.25 / 12))
    found = [(name, change) for name, course in answer.courses.items() for change in course
             if start < change.day <= end]  # fmt: skip
    return sorted(found, key=lambda pair: (pair[1].day, pair[0]))


def scheduled(answer: LegalAnswer, months: int = 12) -> list[tuple[Turn, tuple[str, ...]]]:
    """Return the rules that begin or end at any gate within months, and the devices they hold for."""
    q, start = answer.question, answer.question.days[-1]
    end = start + timedelta(days=round(months * 365.25 / 12))
    found: dict[Turn, list[str]] = {}
    for name, part in q.parts.items():
        for turn in turns(q.rules, part, q.destination, q.buyer, q.origin, units=q.units):
            if start < turn.day <= end:
                found.setdefault(turn, []).append(name)
    return [(turn, tuple(found[turn])) for turn in sorted(found, key=lambda t: (t.day, t.rule))]


@dataclass(frozen=True, slots=True)
class Together:
    """What is asked of several devices that a rule counts in one sum."""

    day: date
    rule: str
    counted: str  # devices, or TPP
    asked: float
    most: float
    devices: tuple[str, ...]

    @property
    def over(self) -> bool:
        """Tell whether more is asked for than the sum leaves."""
        return self.asked > self.most


def together(answer: LegalAnswer) -> list[Together]:
    """Return the sums in which rules count several of the devices that are asked for, by day and rule.

    Each device is asked for as often as the question says; without a number nothing is counted.
    """
    units = answer.question.units
    found: dict[tuple[date, str, str, float], dict[str, float]] = {}
    for verdict in (v for row in answer.verdicts.values() for v in row if units):
        for quota in verdict.quotas:
            key = (verdict.day, quota.rule, quota.counted, quota.most)
            found.setdefault(key, {})[verdict.device] = quota.weight
    return [Together(day, rule, counted, math.fsum(devices.values()) * (units or 0.0), most, tuple(devices))
            for (day, rule, counted, most), devices in sorted(found.items()) if len(devices) > 1]  # fmt: skip


def disagreements(question: LegalQuestion) -> list[tuple[PublicRecord, str]]:
    """Return where the public record of the asked devices says otherwise than the rules.

    The record is about a company in China, so only questions about China are compared.
    """
    if find_place(question.destination) != "CN":
        return []
    found = []
    for record in load_public_record():
        known = question.rules.known_from <= record.day <= question.rules.known_until
        if record.device in question.parts and known:
            verdict = judge(question.rules, record.device, record.day, "CN", changes=False)
            policy = verdict.gates[record.gate].policy
            if policy != record.reported:
                found.append((record, policy))
    return found


@lru_cache(maxsize=1)
def load_public_record() -> tuple[PublicRecord, ...]:
    """Return what was publicly reported: `device_models/data/policy/public_record.csv`."""
    text = (POLICY / "public_record.csv").read_text("utf-8")
    return tuple(
        PublicRecord(row["device"], date.fromisoformat(row["day"]), row["gate"], row["policy"],
                     float(row["tpp"]) if row["tpp"] else None, row["source"], row["note"])
        for row in csv.DictReader(text.splitlines())
    )  # fmt: skip


def flips(base: LegalAnswer, other: LegalAnswer) -> list[tuple[str, date, str, str]]:
    """Return (device, day, policy as it is, policy in the other case) where they differ."""
    return [
        (name, one.day, one.policy, two.policy)
        for name, row in base.verdicts.items()
        for one, two in zip(row, other.verdicts.get(name, ()), strict=False)
        if one.policy != two.policy
    ]
