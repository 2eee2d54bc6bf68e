"""Read one rule from its YAML data, with every fault at its place in the file or the override."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from ersatz.device_models.catalog.export import knows_part, list_parts
from ersatz.device_models.text.units import UnitError, parse_day, parse_quantity
from ersatz.device_models.text.yamltext import Key, YamlText
from ersatz.sim.errors import Problem, did_you_mean
from ersatz.sim.law.expression import (
    Expression,
    ExpressionError,
    Kind,
    compared_texts,
    parse_expression,
)
from ersatz.sim.law.places import EVERYWHERE, load_places
from ersatz.sim.law.rule import ATTRIBUTES, GATES, POLICIES, STATUSES, UNCHANGED, Rule, Term

KEYS = ("id", "title", "issuer", "gates", "kind", "status", "announced", "binds", "ends",
        "never_bound", "destinations", "not_destinations", "follows_headquarters", "reach",
        "relaxes", "defines", "criterion", "policy", "exceptions", "source", "confidence",
        "note")  # fmt: skip
MOST = 1e30  # of a threshold
NEEDED = ("id", "title", "issuer", "gates", "announced", "destinations", "criterion", "policy",
          "source", "confidence")  # fmt: skip
TERM_KEYS = ("is", "alternative", "doubt", "wait", "fee", "duty", "quota", "units", "tpp", "per",
             "every", "power_discount", "note")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule's data and where it stands in a text."""

    text: YamlText
    data: dict[str, Any]
    prefix: Key


class RuleReader:
    """Reads one rule and notes each fault at its place."""

    def __init__(self, entry: Entry, changed: set[Key]) -> None:
        self.entry, self.data, self.changed = entry, entry.data, changed
        self.problems: list[Problem] = []

    def blame(self, path: Key, value: object, expected: str) -> None:
        own = any(path[: len(c)] == c for c in self.changed)
        if own:
            name = ".".join(str(part) for part in ("rules", self.data.get("id"), *path))
            self.problems.append(Problem("--set", 0, 0, name, str(value or "")[:60], expected))
        else:
            key = (*self.entry.prefix, *path)
            self.problems.append(self.entry.text.problem(key, value, expected))

    def read(self) -> Rule | None:
        data = self.data
        for key in data:
            if key not in KEYS:
                self.blame((key,), None, f"unknown key of a rule{did_you_mean(key, KEYS)}")
        for key in NEEDED:
            if data.get(key) in (None, "", [], {}):
                self.blame((), key, f"a rule needs `{key}`")
        if self.problems:
            return None
        announced, binds, ends = (self._day(key) for key in ("announced", "binds", "ends"))
        status = self._choice("status", STATUSES, "rule")
        self._order(binds, ends, status)
        gates = tuple(str(gate) for gate in self._list("gates"))
        for gate in gates:
            if gate not in GATES:
                self.blame(("gates",), gate, f"expected some of {', '.join(GATES)}")
        thresholds, classes = self._criterion()
        rule = Rule(
            id=str(data["id"]), title=str(data["title"]), issuer=str(data["issuer"]), gates=gates,
            kind=str(data.get("kind", "rule")), status=status, announced=announced or date.min,
            binds=binds, ends=ends, places=self._places("destinations"),
            not_places=frozenset().union(*(codes for codes, _ in self._places("not_destinations"))),
            follows_headquarters=bool(data.get("follows_headquarters", False)),
            worldwide=data.get("reach") == "worldwide",
            relaxes=tuple(str(name) for name in self._list("relaxes")),
            defines=str(data.get("defines") or ""), thresholds=thresholds, classes=classes,
            terms=self._terms(classes), source=str(data["source"]),
            confidence=self._choice("confidence", ("high", "medium", "low"), "low"),
            exceptions=str(data.get("exceptions") or ""), note=str(data.get("note") or ""),
        )  # fmt: skip
        return None if self.problems else rule

    def _order(self, binds: date | None, ends: date | None, status: str) -> None:
        if status != "bill" and binds is None:
            self.blame((), "binds", "a rule needs `binds`; a bill says status: bill")
        never = self.data.get("never_bound") is True
        if binds and ends and ends <= binds and not never:
            self.blame(("ends",), ends, f"ends before it binds ({binds}); was it never_bound?")

    def _list(self, key: str) -> list[Any]:
        value = self.data.get(key) or []
        if not isinstance(value, list):
            self.blame((key,), value, "expected a list")
            return []
        return value

    def _day(self, key: str) -> date | None:
        return self._as_day((key,), self.data.get(key))

    def _as_day(self, path: Key, raw: Any) -> date | None:
        if raw is None:
            return None
        try:
            return parse_day(raw)
        except UnitError as error:
            self.blame(path, raw, str(error))
            return None

    def _choice(self, key: str, known: tuple[str, ...], silent: str) -> str:
        value = self.data.get(key, silent)
        if value not in known:
            self.blame((key,), value, f"expected one of {', '.join(known)}")
            return silent
        return str(value)

    def _places(self, key: str) -> tuple[tuple[frozenset[str], date | None], ...]:
        places = load_places()
        known = {*places.names, *places.groups, EVERYWHERE}
        found: list[tuple[frozenset[str], date | None]] = []
        for i, row in enumerate(self._list(key)):
            code, start = (
                (row.get("place"), row.get("from")) if isinstance(row, dict) else (row, None)
            )
            if not isinstance(code, str) or code not in known:
                hint = did_you_mean(str(code), known)
                self.blame((key, i), code, f"expected a place or group{hint}")
            found.append((places.members(str(code)), self._as_day((key, i, "from"), start)))
        return tuple(found)

    def _criterion(self) -> tuple[dict[str, float], dict[str, Expression]]:
        """Split the criterion into thresholds and classes, and read the expressions."""
        raw = self.data["criterion"]
        if not isinstance(raw, dict):
            self.blame(("criterion",), raw, "expected thresholds and classes by name")
            return {}, {}
        numbers = {k: float(v) for k, v in raw.items()
                   if isinstance(v, int | float) and not isinstance(v, bool)}  # fmt: skip
        for name, value in numbers.items():
            if not 0 <= value <= MOST:
                words = f"expected a number from 0 to {MOST:g}"
                self.blame(("criterion", name), value, words)
        kinds: dict[str, Kind] = {name: kind for name, (kind, _) in ATTRIBUTES.items()}
        for name in numbers:
            if name in ATTRIBUTES or not name.isidentifier():
                self.blame(("criterion", name), name, "a threshold needs a name of its own")
            kinds[name] = "number"
        policies = self.data["policy"] if isinstance(self.data["policy"], dict) else {}
        classes: dict[str, Expression] = {}
        for name, text in raw.items():
            if name in numbers:
                continue
            if name not in policies:
                expected = "expected a number (a threshold), or a class that `policy` explains"
                self.blame(("criterion", name), text, expected)
                continue
            try:
                classes[name] = parse_expression(str(text), kinds)
                for device in compared_texts(classes[name], "device"):
                    if not knows_part(device):
                        hint = did_you_mean(device, list_parts())
                        self.blame(
                            ("criterion", name), device, f"is no device of the catalogue{hint}"
                        )
            except ExpressionError as error:
                self.blame(("criterion", name), text, f"{error} (of the expression)")
        return numbers, classes

    def _terms(self, classes: Mapping[str, Expression]) -> dict[str, Term]:
        raw = self.data["policy"]
        if not isinstance(raw, dict):
            self.blame(("policy",), raw, "expected what each class of the criterion means")
            return {}
        criterion = self.data["criterion"]
        for name in raw:
            if not isinstance(criterion, dict) or name not in criterion:
                self.blame(("policy", name), name, "is no class of the criterion")
        return {name: self._term(name, node) for name, node in raw.items()}

    def _term(self, name: str, node: Any) -> Term:
        row = node if isinstance(node, dict) else {"is": node}
        for key in row:
            if key not in TERM_KEYS:
                self.blame(
                    ("policy", name, key), None, f"unknown key{did_you_mean(key, TERM_KEYS)}"
                )
        known = (*POLICIES, UNCHANGED)
        for key in ("is", "alternative"):
            if (key == "is" or key in row) and row.get(key) not in known:
                self.blame(
                    ("policy", name, key), row.get(key), f"expected one of {', '.join(known)}"
                )
        for key, choices in (("per", ("buyer", "country")), ("every", ("year",))):
            if key in row and row[key] not in choices:
                self.blame(("policy", name, key), row[key], f"expected {' or '.join(choices)}")
        shares = {key: self._quantity(name, row, key, "fraction")
                  for key in ("fee", "duty", "power_discount")}  # fmt: skip
        return Term(
            policy=str(row.get("is")), alternative=str(row.get("alternative", "")),
            doubt=str(row.get("doubt", "")), quota=str(row.get("quota", "")),
            wait_days=self._quantity(name, row, "wait", "time") / 86400.0,
            units=self._count(name, row, "units", "a number of devices"),
            total_tpp=self._count(name, row, "tpp", "a sum of TPP"),
            per=str(row.get("per", "buyer")), yearly="every" in row,
            note=str(row.get("note", "")), **shares,
        )  # fmt: skip

    def _count(self, name: str, row: Mapping[str, Any], key: str, what: str) -> float | None:
        value = row.get(key)
        counts = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (counts and 0 <= value <= MOST):
            self.blame(("policy", name, key), value, f"expected {what}")
        return float(value) if isinstance(value, int | float) else None

    def _quantity(self, name: str, row: Mapping[str, Any], key: str, dimension: str) -> float:
        if key not in row:
            return 0.0
        try:
            value = parse_quantity(row[key], dimension)
        except UnitError as error:
            self.blame(("policy", name, key), row[key], str(error))
            return 0.0
        if value < 0 or (dimension == "fraction" and value > 1):
            self.blame(("policy", name, key), row[key], "expected a share from 0 to 1, like 15 %")
        return value
