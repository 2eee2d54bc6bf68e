"""Read Kueue's configuration as `kubectl get -o yaml` or a repository holds it, with every fault.

ClusterQueue, Cohort, ResourceFlavor, Topology, WorkloadPriorityClass, LocalQueue and the manager's
Configuration (v1beta1 and v1beta2), in one file of several documents or a List. What is read and has no part
in a simulation is told as an assumption; what is not known is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.device_models.text.yamltext import Key, YamlText, parse_yaml
from ersatz.sim.fleet.kueue.cycle import Config, Settings
from ersatz.sim.fleet.kueue.fields import (
    FIELDS,
    IGNORED_KINDS,
    SEARCH,
    STRATEGIES,
    WITHIN,
    WORDS,
    quantity,
)
from ersatz.sim.fleet.kueue.objects import (
    CohortSpec,
    Flavor,
    FlavorResource,
    QueueSpec,
    Quota,
    ResourceGroup,
    Taint,
)

UNIT = 1000  # quantities are kept in thousandths
_DOCUMENT = re.compile(r"^---(?:[ \t].*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KueueConfig:
    """What a file says."""

    config: Config
    local: Mapping[str, str]  # LocalQueue, 'name' and 'namespace/name' -> ClusterQueue
    priorities: Mapping[str, int]  # WorkloadPriorityClass
    assumptions: tuple[str, ...]


def read_kueue(path: Path | str) -> KueueConfig:
    """Return the configuration of a file; raises `InputError` naming file, line, object and field."""
    return parse_kueue(read_text_file(path, "YAML"), str(path))


def parse_kueue(text: str, file: str = "kueue.yaml") -> KueueConfig:
    """Return the configuration of a text; raises `InputError` with every fault."""
    reading = _Reading(file)
    for document in _documents(text, file):
        reading.take(document)
    return reading.result()


def _documents(text: str, file: str) -> Iterator[YamlText]:
    """Yield the documents of a file, their lines counted from its beginning."""
    at = 0
    for mark in [*_DOCUMENT.finditer(text), None]:
        body = text[at : mark.start() if mark else len(text)]
        if any(line.strip() and not line.lstrip().startswith("#") for line in body.splitlines()):
            yield parse_yaml("\n" * text.count("\n", 0, at) + body, file)
        at = mark.end() if mark else at


@dataclass(slots=True)
class _Object:
    """One object of a file."""

    text: YamlText
    path: Key
    data: dict[str, Any]
    kind: str
    name: str


@dataclass(slots=True)
class _Reading:
    """A file being read."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    queues: dict[str, tuple[QueueSpec, _Object]] = field(default_factory=dict)
    cohorts: dict[str, tuple[CohortSpec, _Object]] = field(default_factory=dict)
    flavors: dict[str, Flavor] = field(default_factory=dict)
    levels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    local: dict[str, tuple[str, _Object]] = field(default_factory=dict)
    priorities: dict[str, int] = field(default_factory=dict)
    settings: Settings = Settings()
    assumptions: list[str] = field(default_factory=list)

    def blame(
        self, of: _Object, path: Key, value: object, expected: str, *, at_key: bool = False
    ) -> None:
        """Note a fault of an object's field."""
        found = of.text.problem((*of.path, *path), value, expected, at_key=at_key)
        named = f"{of.kind} {of.name}: " if of.name else f"{of.kind}: "
        self.problems.append(replace(found, expected=f"{named}{expected}"))

    # -- objects -----------------------------------------------------------------------------------------

    def take(self, text: YamlText, path: Key = ()) -> None:
        """Read a document, or the items of a List."""
        data: Any = text.data
        for part in path:
            data = data[part]
        if not isinstance(data, dict):
            self.problems.append(
                text.problem(path, None, "expected an object with kind and metadata")
            )
            return
        kind = str(data.get("kind", ""))
        meta = data.get("metadata")
        name = str(meta.get("name", "")) if isinstance(meta, dict) else ""
        of = _Object(text, path, data, kind, name)
        if kind == "List":
            items = data.get("items")
            for i in range(len(items) if isinstance(items, list) else 0):
                self.take(text, (*path, "items", i))
            return
        reader: dict[str, Callable[[_Object], None]] = {
            "ClusterQueue": self._queue, "Cohort": self._cohort, "ResourceFlavor": self._flavor,
            "Topology": self._topology, "LocalQueue": self._local, "Configuration": self._configuration,
            "WorkloadPriorityClass": self._priority,
        }  # fmt: skip
        if kind in IGNORED_KINDS:
            self.assumptions.append(
                f"{kind} {name or '(unnamed)'} is read over: {IGNORED_KINDS[kind]}"
            )
        elif kind not in reader:
            self.blame(of, ("kind",), kind or None, f"is no kind that is read{did_you_mean(kind, reader)};"
                       f" expected {', '.join(reader)}")  # fmt: skip
        elif not name and kind != "Configuration":
            self.blame(of, ("metadata", "name"), None, "expected a name")
        else:
            self._check_fields(of, (), data, FIELDS[kind])
            reader[kind](of)

    def _check_fields(self, of: _Object, path: Key, data: object, known: Any) -> None:
        """Name every field that there is not, down to the leaves that are known."""
        if isinstance(known, list) and isinstance(data, list):
            for i, item in enumerate(data):
                self._check_fields(of, (*path, i), item, known[0])
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
                    self._check_fields(of, (*path, key), value, known[key])

    def _spec(self, of: _Object) -> dict[str, Any]:
        spec = of.data.get("spec")
        return spec if isinstance(spec, dict) else {}

    def _new(self, of: _Object, known: Mapping[str, Any], name: str = "") -> bool:
        if (name or of.name) in known:
            self.blame(of, ("metadata", "name"), name or of.name, "stands twice")
            return False
        return True

    # -- values ------------------------------------------------------------------------------------------

    def _word(self, of: _Object, path: Key, words: Mapping[str, str], default: str) -> str:
        value: Any = of.data
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            return default
        if str(value) not in words:
            self.blame(of, path, value, f"expected one of {', '.join(words)}")
            return default
        return words[str(value)]

    def _amount(self, of: _Object, path: Key, value: object) -> int:
        found = quantity(value)
        if found is None:
            self.blame(of, path, value, "expected a quantity from 0 on, like 8, 500m, 96Ti")
            return 0
        return int(found * UNIT)

    def _weight(self, of: _Object, path: Key) -> Fraction:
        value: Any = of.data
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        found = Fraction(1) if value is None else quantity(value)
        if found is None:
            self.blame(of, path, value, "expected a weight from 0 on")
        return Fraction(1) if found is None else found

    def _groups(self, of: _Object, cohort: bool) -> tuple[ResourceGroup, ...]:
        given = self._spec(of).get("resourceGroups")
        found = []
        seen: set[str] = set()
        for i, group in enumerate(given if isinstance(given, list) else []):
            if not isinstance(group, dict):
                continue
            path: Key = ("spec", "resourceGroups", i)
            covered = [str(r) for r in _items(group.get("coveredResources"))]
            if not covered:
                self.blame(of, (*path, "coveredResources"), None, "expected at least one resource")
            for resource in covered:
                if resource in seen:
                    self.blame(of, (*path, "coveredResources"), resource, "stands in two groups")
                seen.add(resource)
            quotas: dict[FlavorResource, Quota] = {}
            names = []
            for k, flavor in enumerate(_items(group.get("flavors"))):
                if isinstance(flavor, dict):
                    names.append(str(flavor.get("name", "")))
                    quotas |= self._flavor_quotas(
                        of, (*path, "flavors", k), flavor, covered, cohort
                    )
            found.append(ResourceGroup(tuple(covered), tuple(names), quotas))
        return tuple(found)

    def _flavor_quotas(
        self, of: _Object, path: Key, flavor: dict[str, Any], covered: list[str], cohort: bool
    ) -> dict[FlavorResource, Quota]:
        resources = [r for r in _items(flavor.get("resources")) if isinstance(r, dict)]
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
                limits[key] = None if value is None else self._amount(of, (*place, key), value)
                if value is not None and not cohort:
                    self.blame(of, (*place, key), value, "needs a cohort; the queue has none")
            if "nominalQuota" not in resource:
                self.blame(of, (*place, "nominalQuota"), None, "is missing; expected a quantity")
            nominal = self._amount(of, (*place, "nominalQuota"), resource.get("nominalQuota", 0))
            quotas[str(flavor.get("name", "")), str(resource.get("name", ""))] = Quota(
                nominal, limits["borrowingLimit"], limits["lendingLimit"])  # fmt: skip
        return quotas

    # -- kinds -------------------------------------------------------------------------------------------

    def _queue(self, of: _Object) -> None:
        if not self._new(of, self.queues):
            return
        spec = self._spec(of)
        cohort = str(spec.get("cohortName") or spec.get("cohort") or "")
        fungible, preempt = ("spec", "flavorFungibility"), ("spec", "preemption")
        borrow = self._word(
            of, (*preempt, "borrowWithinCohort", "policy"), WORDS["borrow"], "never"
        )
        within = preempt_of(spec).get("borrowWithinCohort")
        most: Any = within.get("maxPriorityThreshold") if isinstance(within, dict) else None
        if most is not None and not isinstance(most, int):
            self.blame(of, (*preempt, "borrowWithinCohort", "maxPriorityThreshold"), most,
                       "expected a whole number")  # fmt: skip
            most = None
        queue = QueueSpec(
            of.name, cohort, self._word(of, ("spec", "queueingStrategy"), WORDS["order"], "") == "strict",
            self._groups(of, bool(cohort)), self._weight(of, ("spec", "fairSharing", "weight")),
            self._word(of, (*preempt, "withinClusterQueue"), WITHIN, "never"),  # type: ignore[arg-type]
            self._word(of, (*preempt, "reclaimWithinCohort"), WORDS["reclaim"], "never"),  # type: ignore[arg-type]
            borrow == "lower", most,
            self._word(of, (*fungible, "whenCanBorrow"), SEARCH, "stop"),  # type: ignore[arg-type]
            self._word(of, (*fungible, "whenCanPreempt"), SEARCH, "next"),  # type: ignore[arg-type]
            self._word(of, (*fungible, "preference"), WORDS["prefer"], "") == "preemption",
            self._word(of, ("spec", "stopPolicy"), WORDS["stop"], "") != "",
        )  # fmt: skip
        self._check_queue(of, spec, queue, borrow)
        self.queues[of.name] = queue, of

    def _check_queue(
        self, of: _Object, spec: dict[str, Any], queue: QueueSpec, borrow: str
    ) -> None:
        given = spec.get("flavorFungibility") or {}
        if isinstance(given, dict) and "preference" in given and not (
                queue.when_borrow == queue.when_preempt == "next"):  # fmt: skip
            self.blame(of, ("spec", "flavorFungibility", "preference"), given["preference"],
                       "needs whenCanBorrow and whenCanPreempt to be TryNextFlavor")  # fmt: skip
        if borrow != "never" and queue.reclaim == "never":
            self.blame(of, ("spec", "preemption", "borrowWithinCohort"), None,
                       "needs reclaimWithinCohort other than Never")  # fmt: skip
        if "namespaceSelector" not in spec:
            self.assumptions.append(f"queue {of.name} has no namespaceSelector, so that in Kueue no namespace"
                                    " may enter; here all jobs may")  # fmt: skip
        elif spec["namespaceSelector"]:
            self.assumptions.append(
                f"queue {of.name}: jobs here have no namespaces; all pass its selector"
            )
        for key in ("admissionChecks", "admissionChecksStrategy"):
            if spec.get(key):
                self.assumptions.append(f"queue {of.name}: its admission checks count as passed")
        if queue.hold:
            self.assumptions.append(f"queue {of.name} is on hold: it admits nothing")

    def _cohort(self, of: _Object) -> None:
        if self._new(of, self.cohorts):
            spec = self._spec(of)
            parent = str(spec.get("parentName") or spec.get("parent") or "")
            weight = self._weight(of, ("spec", "fairSharing", "weight"))
            self.cohorts[of.name] = CohortSpec(of.name, parent, self._groups(of, True), weight), of

    def _flavor(self, of: _Object) -> None:
        if self._new(of, self.flavors):
            spec = self._spec(of)
            labels = spec.get("nodeLabels")
            self.flavors[of.name] = Flavor(
                of.name, {k: str(v) for k, v in labels.items()} if isinstance(labels, dict) else {},
                _taints(spec.get("nodeTaints")), _taints(spec.get("tolerations")),
                str(spec.get("topologyName") or ""))  # fmt: skip

    def _topology(self, of: _Object) -> None:
        levels = self._spec(of).get("levels")
        found = [
            str(level.get("nodeLabel", "")) for level in _items(levels) if isinstance(level, dict)
        ]
        if not found or not all(found) or len(found) > 16 or len(set(found)) < len(found):
            self.blame(of, ("spec", "levels"), ", ".join(found) or None,
                       "expected 1 to 16 different levels with a nodeLabel")  # fmt: skip
        elif self._new(of, self.levels):
            self.levels[of.name] = tuple(found)

    def _local(self, of: _Object) -> None:
        space = str(of.data["metadata"].get("namespace") or "default")
        spec = self._spec(of)
        stop = self._word(of, ("spec", "stopPolicy"), WORDS["stop"], "")
        if stop:
            self.assumptions.append(f"local queue {space}/{of.name} is on hold, which is not heeded:"
                                    " jobs enter by it all the same")  # fmt: skip
        if self._new(of, self.local, f"{space}/{of.name}"):
            self.local[f"{space}/{of.name}"] = str(spec.get("clusterQueue") or ""), of

    def _priority(self, of: _Object) -> None:
        value = of.data.get("value")
        if not isinstance(value, int):
            self.blame(of, ("value",), value, "expected a whole number")
        elif self._new(of, self.priorities):
            self.priorities[of.name] = value

    def _configuration(self, of: _Object) -> None:
        fair = of.data.get("fairSharing")
        old = str(of.data.get("apiVersion", "")).endswith("v1beta1")
        on = isinstance(fair, dict) and (not old or bool(fair.get("enable")))
        strategies: list[str] = []
        given = fair.get("preemptionStrategies") if on and isinstance(fair, dict) else None
        for i, word in enumerate(map(str, _items(given))):
            if word not in STRATEGIES:
                self.blame(of, ("fairSharing", "preemptionStrategies", i), word,
                           f"expected one of {', '.join(STRATEGIES)}")  # fmt: skip
            else:
                strategies.append(STRATEGIES[word])
        if on:
            self.settings = replace(self.settings, fair=tuple(strategies) or ("final", "initial"))
        if of.data.get("waitForPodsReady"):
            self.assumptions.append(
                "waitForPodsReady: pods are ready as soon as their devices are free"
            )

    # -- the whole ---------------------------------------------------------------------------------------

    def result(self) -> KueueConfig:
        """Check how the objects refer to each other, and return them; raises `InputError`."""
        for queue, of in self.queues.values():
            for group in queue.groups:
                for name in group.flavors:
                    self._check_flavor(of, name)
        self._check_rings()
        for name, (target, of) in self.local.items():
            if target not in self.queues:
                hint = did_you_mean(target, self.queues)
                self.blame(of, ("spec", "clusterQueue"), target or None,
                           f"there is no such ClusterQueue{hint} for {name}")  # fmt: skip
        if not self.queues and not self.problems:
            self.problems.append(
                Problem(self.file, 0, 0, "", "", "holds no ClusterQueue; expected one")
            )
        if self.problems:
            raise InputError(self.problems)
        local: dict[str, str] = {}
        for name, (target, _) in self.local.items():
            local |= {name: target, name.partition("/")[2]: target}
        config = Config(tuple(q for q, _ in self.queues.values()), tuple(c for c, _ in self.cohorts.values()),
                        self.flavors, self.levels, self.settings, UNIT)  # fmt: skip
        return KueueConfig(config, local, self.priorities, tuple(dict.fromkeys(self.assumptions)))

    def _check_flavor(self, of: _Object, name: str) -> None:
        flavor = self.flavors.get(name)
        if flavor is None:
            self.blame(of, ("spec", "resourceGroups"), name, "there is no such ResourceFlavor"
                       f"{did_you_mean(name, self.flavors)}; the queue would be inactive")  # fmt: skip
        elif flavor.topology and flavor.topology not in self.levels:
            self.blame(of, ("spec", "resourceGroups"), name, f"its topology {flavor.topology!r} is missing;"
                       " the queue would be inactive")  # fmt: skip

    def _check_rings(self) -> None:
        for name, (_, of) in self.cohorts.items():
            seen = [name]
            while (at := self.cohorts.get(seen[-1])) and at[0].parent:
                if at[0].parent in seen:
                    ring = " -> ".join([*seen, at[0].parent])
                    self.blame(of, ("spec", "parentName"), at[0].parent,
                               f"is part of a ring of cohorts: {ring}; all inactive")  # fmt: skip
                    break
                seen.append(at[0].parent)


def preempt_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a queue's section on preemption."""
    found = spec.get("preemption")
    return found if isinstance(found, dict) else {}


def _items(found: object) -> list[Any]:
    """Return the items of a list; none of what is no list, which is blamed as a field."""
    return found if isinstance(found, list) else []


def _taints(found: object) -> tuple[Taint, ...]:
    effects = {"NoSchedule": "no-schedule", "NoExecute": "no-execute", "": ""}
    return tuple(
        (str(t.get("key") or ""), "" if t.get("operator") == "Exists" else str(t.get("value") or ""),
         effects.get(str(t.get("effect") or ""), "other"))
        for t in (found if isinstance(found, list) else ()) if isinstance(t, dict)
    )  # fmt: skip
