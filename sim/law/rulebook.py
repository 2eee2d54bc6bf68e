"""Rules as data: one YAML file per rule, read, checked and ready to be asked.

A rule says who issued it, from when to when it binds, where, at which gates, by which criterion
and with which policy. Its `criterion` holds thresholds (numbers) and classes (expressions over
attributes and thresholds, in order; the first that holds decides); `policy` says what each class
means. Shipped rules are in `device_models/data/policy/rules`; a user's file adds rules or replaces
those of the same id, and overrides change single values. All faults are raised at once, with place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from ersatz.device_models.text.files import remembered
from ersatz.device_models.text.units import UnitError, parse_day
from ersatz.device_models.text.yamltext import Key, YamlText, read_yaml
from ersatz.sim.errors import InputError, Problem, did_you_mean
from ersatz.sim.law.places import POLICY, load_parties, load_places
from ersatz.sim.law.rule import ATTRIBUTES, Rule, Rules
from ersatz.sim.law.rule_reader import Entry, RuleReader
from ersatz.sim.scenario.case_file import apply_overrides


def load_rules(path: Path | str | None = None, overrides: Sequence[str] = ()) -> Rules:
    """Return the shipped rules, with a user's file (or folder) on top, and values overridden.

    `overrides` are texts like `rules.US-2025-04-H20.criterion.memory=4100` or
    `knowledge.until=2027-12-31`. Raises `InputError` with every fault. The same question is answered
    from memory until the file changes; a folder is read each time, since files may come into it.
    """
    own = None if path is None else Path(path)
    folder = own is not None and os.path.isdir(own)  # False of a name that no file can have, too
    read = _read_rules if folder else _remembered_rules
    return read(own, tuple(overrides))


def _read_rules(path: Path | None, overrides: tuple[str, ...]) -> Rules:
    texts = [
        _entry(text, deepcopy(text.data), ()) for text in _shipped()
    ]  # overrides write into it
    texts += _listings()
    notes: list[str] = []
    if path is not None:
        own = _user_rules(path)
        notes.append(f"rules of {path} are used: {', '.join(str(e.data.get('id')) for e in own)}")
        texts += own
    entries = {str(entry.data.get("id")): entry for entry in texts}
    places = load_places()
    known = {"from": places.known_from.isoformat(), "until": places.known_until.isoformat()}
    data = {"rules": {name: entry.data for name, entry in entries.items()}, "knowledge": known}
    changed = apply_overrides(data, overrides)
    notes += [f"changed by hand: {text}" for text in overrides]
    problems = _unknown_targets(changed, entries)
    found: dict[str, Rule] = {}
    for name, entry in entries.items():
        reader = RuleReader(entry, {p[2:] for p in changed if p[:2] == ("rules", name)})
        rule = reader.read()
        problems += reader.problems
        if rule:
            found[name] = rule
    problems += _contradictions(found, entries)
    days = [_knowledge_day(known, key, problems) for key in ("from", "until")]
    if problems:
        raise InputError(problems)
    if days[1] > places.known_until:
        notes.append(f"rules after {places.known_until} are unknown and taken as unchanged")
    return Rules(found, days[0], days[1], tuple(notes), places.known_until)


_remembered_rules = remembered(_read_rules)


def _entry(text: YamlText, data: Any, prefix: Key) -> Entry:
    if not isinstance(data, dict):
        raise InputError([text.problem(prefix, None, "expected a rule: keys and values")])
    return Entry(text, data, prefix)


@lru_cache(maxsize=1)
def _shipped() -> tuple[YamlText, ...]:
    return tuple(_read_folder(POLICY / "rules"))


REVIEWS = {"denied": "presumption of denial", "case_by_case": "reviewed case by case"}


def _listings() -> list[Entry]:
    """Return one rule for each party that the US Entity List names."""
    text = read_yaml(POLICY / "parties.yaml")
    found = []
    for party in load_parties().values():
        if party.listed:
            start, end = party.listed
            data: dict[str, Any] = {
                "id": f"US-EL-{party.name.upper()}", "issuer": "US", "gates": ["export"],
                "title": f"{party.names[1]} on the Entity List", "kind": "entity list",
                "reach": "worldwide", "announced": start, "binds": start, "ends": end,
                "destinations": ["all"], "criterion": {"named": f"party == '{party.name}'"},
                "policy": {"named": {"is": party.review, "note": REVIEWS[party.review]}},
                "source": party.source, "confidence": "high", "note": party.note,
            }  # fmt: skip
            found.append(Entry(text, data, ("parties", party.name)))
    return found


def _read_folder(folder: Path) -> list[YamlText]:
    return [read_yaml(path) for path in sorted(folder.glob("*.yaml"))]


def _user_rules(path: Path) -> list[Entry]:
    """Read a user's file: one rule, or several under `rules`; a folder holds such files."""
    texts = _read_folder(path) if os.path.isdir(path) else [read_yaml(path)]
    if not texts:
        raise InputError([Problem(str(path), 0, 0, "", "", "holds no YAML files with rules")])
    found: list[Entry] = []
    for text in texts:
        data = text.data
        if not isinstance(data, dict) or ("rules" not in data and "id" not in data):
            expected = "expected a rule with its `id`, or several under `rules`"
            raise InputError([text.problem((), None, expected)])
        rows = data.get("rules")
        if isinstance(rows, list):
            found += [_entry(text, row, ("rules", i)) for i, row in enumerate(rows)]
        elif "rules" in data:
            raise InputError([text.problem(("rules",), rows, "expected a list of rules")])
        else:
            found.append(_entry(text, data, ()))
    named = [
        entry for entry in found if "id" in entry.data
    ]  # the others are refused as they are read
    ids = [str(entry.data["id"]) for entry in named]
    seen: set[str] = set()
    twice = [e for e, name in zip(named, ids, strict=True) if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if twice:
        raise InputError([e.text.problem((*e.prefix, "id"), e.data["id"],
                                         "the id stands twice; keep one rule") for e in twice])  # fmt: skip
    return found


def _unknown_targets(changed: Iterable[Key], entries: Mapping[str, Entry]) -> list[Problem]:
    problems = []
    for path in changed:
        name = ".".join(str(part) for part in path)
        of_knowledge = path[0] == "knowledge" and path[1:] in (("from",), ("until",))
        if not of_knowledge and (path[0] != "rules" or len(path) < 3):
            expected = "expected rules.ID.key=value or knowledge.until=DATE"
            problems.append(Problem("--set", 0, 0, name, "", expected))
        elif path[2:] == ("id",):
            problems.append(Problem("--set", 0, 0, name, "", "a rule keeps its id"))
        elif path[0] == "rules" and str(path[1]) not in entries:
            hint = did_you_mean(str(path[1]), entries)
            problems.append(Problem("--set", 0, 0, name, "", f"no such rule{hint}"))
    return problems


def _knowledge_day(known: Mapping[str, Any], key: str, problems: list[Problem]) -> date:
    try:
        return parse_day(known[key])
    except UnitError as error:
        shown = str(known[key])[:60]
        problems.append(Problem("--set", 0, 0, f"knowledge.{key}", shown, str(error)))
        return date.min


def _contradictions(rules: Mapping[str, Rule], entries: Mapping[str, Entry]) -> list[Problem]:
    """Find rules that cannot stand together: relaxing nothing, one another, or defining twice."""
    problems: list[Problem] = []

    def blame(rule: Rule, key: str, value: object, expected: str) -> None:
        entry = entries[rule.id]
        problems.append(entry.text.problem((*entry.prefix, key), value, expected))

    defined: dict[str, str] = {}
    for rule in rules.values():
        for target in rule.relaxes:
            if target not in entries:
                blame(rule, "relaxes", target, f"no such rule{did_you_mean(target, entries)}")
            elif target in rules and rule.id in rules[target].relaxes:
                blame(rule, "relaxes", target, "contradictory: the two rules relax one another")
        if rule.defines:
            if rule.defines in defined:
                blame(
                    rule,
                    "defines",
                    rule.defines,
                    f"contradictory: {defined[rule.defines]} defines it",
                )
            if rule.defines not in ATTRIBUTES:
                blame(rule, "defines", rule.defines, "expected class_3A090")
            defined[rule.defines] = rule.id
    return problems
