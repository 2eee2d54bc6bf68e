"""Rules as data: one YAML file per rule, read, checked and ready to be asked.

A rule says who issued it, from when to when it binds, where, at which gates, by which criterion
and with which policy. Its `criterion` holds thresholds (numbers) and classes (expressions over
attributes and thresholds, in order; the first that holds decides); `policy` says what each class
means. Shipped rules are in `device_models/data/policy/rules`; a user's file adds rules or replaces
those of the same id, and overrides change single values. All faults are raised at once, with place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from device_models.units import UnitError, parse_quantity
from device_models.yamltext import Key, YamlText, read_yaml
from sim.case_file import apply_overrides
from sim.errors import InputError, Problem, did_you_mean
from sim.market.expression import Expression, ExpressionError, Kind, parse_expression
from sim.market.places import EVERYWHERE, POLICY, load_places

Policy = Literal["free", "notify", "licensed", "approval", "case_by_case", "licence", "denied",
                 "unknown"]  # fmt: skip
POLICIES: dict[str, str] = {  # from the mildest to the strictest
    "free": "no licence needed",
    "notify": "free after a notice to the authority",
    "licensed": "licences are granted to this buyer",
    "approval": "licence needed, presumed to be approved",
    "case_by_case": "licence needed, decided case by case",
    "licence": "licence needed by letter, none is being granted",
    "denied": "licence needed, presumed to be denied",
}
STRICTNESS = {name: rank for rank, name in enumerate(POLICIES)}
UNCHANGED = "unchanged"
GATES = ("export", "import", "foundry", "use", "duty", "power")
STATUSES = ("rule", "bill", "record")

# What criteria may read, with kind and meaning.
ATTRIBUTES: dict[str, tuple[Kind, str]] = {
    "TPP": ("number", "bits x dense tera-operations per second, the largest over formats"),
    "PD": ("number", "performance density: TPP per mm2 of logic dies; unknown without the area"),
    "memory_gb_s": ("number", "memory bandwidth in GB/s"),
    "io_gb_s": ("number", "all links and host bus in GB/s, both directions, without memory"),
    "stack_density": ("number", "GB/s per mm2 of a memory stack sold as such; else 0"),
    "process_nm": ("number", "process node in nm"),
    "transistors": ("number", "transistors in the package"),
    "data_centre": ("truth", "designed or marketed for data centres"),
    "sold_in_us": ("truth", "commercially available in the United States"),
    "device": ("text", "name in the catalogue"),
    "vendor": ("text", "vendor in the catalogue"),
    "designer": ("text", "country of the designer's headquarters"),
    "class_3A090": ("text", "class under the rule that defines it, whatever the date, or 'none'"),
    "destination": ("text", "where the goods go"),
    "origin": ("text", "where they are shipped from"),
    "headquarters": ("text", "country of the buyer's ultimate parent"),
    "buyer": ("text", "kind of buyer"),
    "listed": ("truth", "the buyer is on the US Entity List"),
    "owned_by_listed": ("number", "share of the buyer that listed parties own"),
    "state_funded": ("truth", "a data centre with state money"),
    "big_tech": ("truth", "ByteDance, Alibaba or Tencent"),
    "cleared_2026": ("truth", "among the buyers cleared in May 2026"),
    "research": ("truth", "a university or research institute"),
    "military": ("truth", "a military end user"),
}
KEYS = ("id", "title", "issuer", "gates", "kind", "status", "announced", "binds", "ends",
        "never_bound", "destinations", "not_destinations", "follows_headquarters", "reach",
        "relaxes", "defines", "criterion", "policy", "exceptions", "source", "confidence",
        "note")  # fmt: skip
NEEDED = ("id", "title", "issuer", "gates", "announced", "destinations", "criterion", "policy",
          "source", "confidence")  # fmt: skip
TERM_KEYS = ("is", "alternative", "doubt", "wait", "fee", "duty", "quota", "units",
             "power_discount", "note")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Term:
    """What one class of a rule means."""

    policy: str  # one of POLICIES, or "unchanged"
    alternative: str = ""  # the policy under another reading
    doubt: str = ""  # why there is another reading
    wait_days: float = 0.0  # of notice
    fee: float = 0.0  # share of the price
    duty: float = 0.0  # share of the customs value
    quota: str = ""
    units: float | None = None  # the quota of one buyer in devices
    power_discount: float = 0.0  # share of the electricity price
    note: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One dated rule; `classes` in the order in which they are tried."""

    id: str
    title: str
    issuer: str
    gates: tuple[str, ...]
    kind: str
    status: str
    announced: date
    binds: date | None  # None: does not bind (a bill)
    ends: date | None  # first day on which it no longer binds; None: open
    places: tuple[tuple[frozenset[str], date | None], ...]  # codes, and from when they belong
    not_places: frozenset[str]
    follows_headquarters: bool
    worldwide: bool  # applies to parts of any designer
    relaxes: tuple[str, ...]
    defines: str
    thresholds: Mapping[str, float] = field(hash=False)
    classes: Mapping[str, Expression] = field(hash=False)
    terms: Mapping[str, Term] = field(hash=False)
    source: str = ""
    confidence: str = ""
    exceptions: str = ""
    note: str = ""

    def in_force(self, day: date) -> bool:
        """Tell whether the rule binds on a day."""
        return (self.status == "rule" and self.binds is not None and self.binds <= day
                and (self.ends is None or day < self.ends))  # fmt: skip

    def covers(self, place: str, headquarters: str, day: date) -> bool:
        """Tell whether goods for a place, or for a buyer with its headquarters there, are covered."""
        named = {place, headquarters} if self.follows_headquarters else {place}
        within = any(
            named & codes and (start is None or start <= day) for codes, start in self.places
        )
        return within and not named & self.not_places


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules by id, the days for which they are known, and what was changed about them."""

    rules: Mapping[str, Rule]
    known_from: date
    known_until: date
    assumptions: tuple[str, ...] = ()

    def __iter__(self) -> Any:
        return iter(self.rules.values())


def load_rules(path: Path | str | None = None, overrides: Sequence[str] = ()) -> Rules:
    """Return the shipped rules, with a user's file (or folder) on top, and values overridden.

    `overrides` are texts like `rules.US-2025-04-H20.criterion.memory=4100` or
    `knowledge.until=2027-12-31`. Raises `InputError` with every fault.
    """
    texts = [_entry(text, text.data, ()) for text in _read_folder(POLICY / "rules")]
    notes: list[str] = []
    if path is not None:
        own = _user_rules(Path(path))
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
        reader = _RuleReader(entry, {p[2:] for p in changed if p[:2] == ("rules", name)})
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
    return Rules(found, days[0], days[1], tuple(notes))


@dataclass(frozen=True, slots=True)
class _Entry:
    """One rule's data and where it stands in a text."""

    text: YamlText
    data: dict[str, Any]
    prefix: Key


def _entry(text: YamlText, data: Any, prefix: Key) -> _Entry:
    if not isinstance(data, dict):
        raise InputError([text.problem(prefix, None, "expected a rule: keys and values")])
    return _Entry(text, data, prefix)


def _read_folder(folder: Path) -> list[YamlText]:
    return [read_yaml(path) for path in sorted(folder.glob("*.yaml"))]


def _user_rules(path: Path) -> list[_Entry]:
    """Read a user's file: one rule, or several under `rules`; a folder holds such files."""
    texts = _read_folder(path) if path.is_dir() else [read_yaml(path)]
    found: list[_Entry] = []
    for text in texts:
        data = text.data
        if not isinstance(data, dict) or ("rules" not in data and "id" not in data):
            expected = "expected a rule with its `id`, or several under `rules`"
            raise InputError([text.problem((), None, expected)])
        rows = data.get("rules")
        if isinstance(rows, list):
            found += [_entry(text, row, ("rules", i)) for i, row in enumerate(rows)]
        else:
            found.append(_entry(text, data, ()))
    ids = [str(entry.data.get("id")) for entry in found]
    twice = [entry for i, entry in enumerate(found) if ids[i] in ids[:i]]
    if twice:
        raise InputError([e.text.problem((*e.prefix, "id"), e.data["id"],
                                         "the id stands twice; keep one rule") for e in twice])  # fmt: skip
    return found


def _unknown_targets(changed: Iterable[Key], entries: Mapping[str, _Entry]) -> list[Problem]:
    problems = []
    for path in changed:
        name = ".".join(str(part) for part in path)
        if path[0] not in ("rules", "knowledge"):
            expected = "expected rules.ID.key=value or knowledge.until=DATE"
            problems.append(Problem("--set", 0, 0, name, "", expected))
        elif path[0] == "rules" and (len(path) < 3 or str(path[1]) not in entries):
            hint = did_you_mean(str(path[1]), entries) if len(path) > 1 else ""
            problems.append(Problem("--set", 0, 0, name, "", f"no such rule{hint}"))
    return problems


def _knowledge_day(known: Mapping[str, Any], key: str, problems: list[Problem]) -> date:
    try:
        return date.fromisoformat(str(known[key]))
    except ValueError:
        problems.append(Problem("--set", 0, 0, f"knowledge.{key}", str(known[key]),
                                "expected a day like 2025-03-24"))  # fmt: skip
        return date.min


class _RuleReader:
    """Reads one rule and notes each fault at its place."""

    def __init__(self, entry: _Entry, changed: set[Key]) -> None:
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
        raw = self.data.get(key)
        if raw is None:
            return None
        try:
            return date.fromisoformat(str(raw))
        except ValueError:
            self.blame((key,), raw, "expected a day like 2025-03-24")
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
            if code not in known:
                hint = did_you_mean(str(code), known)
                self.blame((key, i), code, f"expected a place or group{hint}")
            found.append((places.members(str(code)), date.fromisoformat(start) if start else None))
        return tuple(found)

    def _criterion(self) -> tuple[dict[str, float], dict[str, Expression]]:
        """Split the criterion into thresholds and classes, and read the expressions."""
        raw = self.data["criterion"]
        if not isinstance(raw, dict):
            self.blame(("criterion",), raw, "expected thresholds and classes by name")
            return {}, {}
        numbers = {k: float(v) for k, v in raw.items()
                   if isinstance(v, int | float) and not isinstance(v, bool)}  # fmt: skip
        kinds: dict[str, Kind] = {name: kind for name, (kind, _) in ATTRIBUTES.items()}
        for name in numbers:
            if name in ATTRIBUTES or not name.isidentifier():
                self.blame(("criterion", name), name, "a threshold needs a name of its own")
            kinds[name] = "number"
        classes: dict[str, Expression] = {}
        for name, text in raw.items():
            if name in numbers:
                continue
            try:
                classes[name] = parse_expression(str(text), kinds)
            except ExpressionError as error:
                self.blame(("criterion", name), text, f"{error} (of the expression)")
        return numbers, classes

    def _terms(self, classes: Mapping[str, Expression]) -> dict[str, Term]:
        raw = self.data["policy"]
        if not isinstance(raw, dict):
            self.blame(("policy",), raw, "expected what each class of the criterion means")
            return {}
        for name in classes:
            if name not in raw:
                self.blame(("policy",), name, f"says nothing of the class {name!r}")
        for name in raw:
            if name not in self.data["criterion"]:
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
        shares = {key: self._quantity(name, row, key, "fraction")
                  for key in ("fee", "duty", "power_discount")}  # fmt: skip
        units = row.get("units")
        return Term(
            policy=str(row.get("is")), alternative=str(row.get("alternative", "")),
            doubt=str(row.get("doubt", "")), quota=str(row.get("quota", "")),
            wait_days=self._quantity(name, row, "wait", "time") / 86400.0,
            units=float(units) if isinstance(units, int | float) else None,
            note=str(row.get("note", "")), **shares,
        )  # fmt: skip

    def _quantity(self, name: str, row: Mapping[str, Any], key: str, dimension: str) -> float:
        if key not in row:
            return 0.0
        try:
            return parse_quantity(row[key], dimension)
        except UnitError as error:
            self.blame(("policy", name, key), row[key], str(error))
            return 0.0


def _contradictions(rules: Mapping[str, Rule], entries: Mapping[str, _Entry]) -> list[Problem]:
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
