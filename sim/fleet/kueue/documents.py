"""The objects of a file for Kueue, and their fields as values: each fault is noted with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from ersatz.device_models.text.problems import Problem, did_you_mean
from ersatz.device_models.text.yamltext import Key, YamlText, parse_yaml
from ersatz.sim.fleet.kueue.fields import quantity
from ersatz.sim.fleet.kueue.objects import FlavorResource, Quota, ResourceGroup

UNIT = 1000  # quantities are kept in thousandths
_DOCUMENT = re.compile(r"^---(?:[ \t].*)?$", re.MULTILINE)


@dataclass(slots=True)
class KueueObject:
    """One object of a file."""

    text: YamlText
    path: Key
    data: dict[str, Any]
    kind: str
    name: str


def documents(text: str, file: str) -> Iterator[YamlText]:
    """Yield the documents of a file, their lines counted from its beginning."""
    at = 0
    for mark in [*_DOCUMENT.finditer(text), None]:
        body = text[at : mark.start() if mark else len(text)]
        if any(line.strip() and not line.lstrip().startswith("#") for line in body.splitlines()):
            yield parse_yaml("\n" * text.count("\n", 0, at) + body, file)
        at = mark.end() if mark else at


def spec_of(of: KueueObject) -> dict[str, Any]:
    """Return the section `spec` of an object; empty without one."""
    spec = of.data.get("spec")
    return spec if isinstance(spec, dict) else {}


def items_of(found: object) -> list[Any]:
    """Return the items of a list; none of what is no list, which is blamed as a field."""
    return found if isinstance(found, list) else []


@dataclass(slots=True)
class Fields:
    """Fields of a file's objects as values; what is wrong with them is noted."""

    file: str
    problems: list[Problem] = field(default_factory=list)

    def blame(
        self, of: KueueObject, path: Key, value: object, expected: str, *, at_key: bool = False
    ) -> None:
        """Note a fault of an object's field."""
        found = of.text.problem((*of.path, *path), value, expected, at_key=at_key)
        named = f"{of.kind} {of.name}: " if of.name else f"{of.kind}: "
        self.problems.append(replace(found, expected=f"{named}{expected}"))

    def check_fields(self, of: KueueObject, path: Key, data: object, known: Any) -> None:
        """Name every field that there is not, down to the leaves that are known."""
        if isinstance(known, list) and isinstance(data, list):
            for i, item in enumerate(data):
                self.check_fields(of, (*path, i), item, known[0])
        elif isinstance(known, list) or isinstance(data, list):
            if isinstance(known, list) and data is not None:
                self.blame(of, path, None, "expected a list")
        elif isinstance(known, dict) and known:
            if not isinstance(data, dict):
                if data is not None:
                    self.blame(of, path, data, "expected fields")
                return
            for key, value in data.items():
                if key not in known:
                    self.blame(of, (*path, key), None, f"unknown field{did_you_mean(key, known)}",
                               at_key=True)  # fmt: skip
                else:
                    self.check_fields(of, (*path, key), value, known[key])

    def word(self, of: KueueObject, path: Key, words: Mapping[str, str], default: str) -> str:
        """Return what the word at a path stands for, or the default."""
        value: Any = of.data
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            return default
        if str(value) not in words:
            self.blame(of, path, value, f"expected one of {', '.join(words)}")
            return default
        return words[str(value)]

    def amount(self, of: KueueObject, path: Key, value: object) -> int:
        """Return a quantity in thousandths."""
        found = quantity(value)
        if found is None:
            self.blame(of, path, value, "expected a quantity from 0 on, like 8, 500m, 96Ti")
            return 0
        return int(found * UNIT)

    def weight(self, of: KueueObject, path: Key) -> Fraction:
        """Return the weight at a path; 1 where none is given."""
        value: Any = of.data
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        found = Fraction(1) if value is None else quantity(value)
        if found is None:
            self.blame(of, path, value, "expected a weight from 0 on")
        return Fraction(1) if found is None else found

    def groups(self, of: KueueObject, cohort: bool) -> tuple[ResourceGroup, ...]:
        """Return the resources with their quotas; limits on loans need a cohort."""
        given = spec_of(of).get("resourceGroups")
        found = []
        seen: set[str] = set()
        for i, group in enumerate(given if isinstance(given, list) else []):
            if not isinstance(group, dict):
                continue
            path: Key = ("spec", "resourceGroups", i)
            covered = [str(r) for r in items_of(group.get("coveredResources"))]
            if not covered:
                self.blame(of, (*path, "coveredResources"), None, "expected at least one resource")
            for resource in covered:
                if resource in seen:
                    self.blame(of, (*path, "coveredResources"), resource, "stands in two groups")
                seen.add(resource)
            quotas: dict[FlavorResource, Quota] = {}
            names = []
            for k, flavor in enumerate(items_of(group.get("flavors"))):
                if isinstance(flavor, dict):
                    names.append(str(flavor.get("name", "")))
                    quotas |= self._flavor_quotas(
                        of, (*path, "flavors", k), flavor, covered, cohort
                    )
            found.append(ResourceGroup(tuple(covered), tuple(names), quotas))
        return tuple(found)

    def _flavor_quotas(
        self, of: KueueObject, path: Key, flavor: dict[str, Any], covered: list[str], cohort: bool
    ) -> dict[FlavorResource, Quota]:
        resources = [r for r in items_of(flavor.get("resources")) if isinstance(r, dict)]
        listed = [str(r.get("name", "")) for r in resources]
        if listed != covered:
            self.blame(of, (*path, "resources"), ", ".join(listed) or None,
                       f"expected all covered resources in their order: {', '.join(covered)}")  # fmt: skip
        quotas = {}
        for i, resource in enumerate(resources):
            place = (*path, "resources", i)
            limits: dict[str, int | None] = {}
            for key in ("borrowingLimit", "lendingLimit"):
                value = resource.get(key)
                limits[key] = None if value is None else self.amount(of, (*place, key), value)
                if value is not None and not cohort:
                    self.blame(of, (*place, key), value, "needs a cohort; the queue has none")
            if "nominalQuota" not in resource:
                self.blame(of, (*place, "nominalQuota"), None, "is missing; expected a quantity")
            nominal = self.amount(of, (*place, "nominalQuota"), resource.get("nominalQuota", 0))
            quotas[str(flavor.get("name", "")), str(resource.get("name", ""))] = Quota(
                nominal, limits["borrowingLimit"], limits["lendingLimit"])  # fmt: skip
        return quotas
