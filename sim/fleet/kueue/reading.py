"""Read Kueue's configuration as `kubectl get -o yaml` or a repository holds it, with every fault.

ClusterQueue, Cohort, ResourceFlavor, Topology, WorkloadPriorityClass, LocalQueue and the manager's
Configuration (v1beta1 and v1beta2), in one file of several documents or a List. What is read and has no part
in a simulation is told as an assumption; what is not known is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.device_models.text.yamltext import Key, YamlText
from ersatz.sim.fleet.kueue.documents import UNIT, Fields, KueueObject, documents, items_of, spec_of
from ersatz.sim.fleet.kueue.fields import (
    FIELDS,
    IGNORED_KINDS,
    SEARCH,
    STRATEGIES,
    WITHIN,
    WORDS,
)
from ersatz.sim.fleet.kueue.objects import (
    CohortSpec,
    Config,
    Flavor,
    QueueSpec,
    Settings,
    Taint,
)


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
    for document in documents(text, file):
        reading.take(document)
    return reading.result()


@dataclass(slots=True)
class _Reading(Fields):
    """A file being read."""

    queues: dict[str, tuple[QueueSpec, KueueObject]] = field(default_factory=dict)
    cohorts: dict[str, tuple[CohortSpec, KueueObject]] = field(default_factory=dict)
    flavors: dict[str, Flavor] = field(default_factory=dict)
    levels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    local: dict[str, tuple[str, KueueObject]] = field(default_factory=dict)
    priorities: dict[str, int] = field(default_factory=dict)
    settings: Settings = Settings()
    assumptions: list[str] = field(default_factory=list)

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
        of = KueueObject(text, path, data, kind, name)
        if kind == "List":
            items = data.get("items")
            for i in range(len(items) if isinstance(items, list) else 0):
                self.take(text, (*path, "items", i))
            return
        reader: dict[str, Callable[[KueueObject], None]] = {
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
            self.check_fields(of, (), data, FIELDS[kind])
            reader[kind](of)

    def _new(self, of: KueueObject, known: Mapping[str, Any], name: str = "") -> bool:
        if (name or of.name) in known:
            self.blame(of, ("metadata", "name"), name or of.name, "stands twice")
            return False
        return True

    # -- kinds -------------------------------------------------------------------------------------------

    def _queue(self, of: KueueObject) -> None:
        if not self._new(of, self.queues):
            return
        spec = spec_of(of)
        cohort = str(spec.get("cohortName") or spec.get("cohort") or "")
        fungible, preempt = ("spec", "flavorFungibility"), ("spec", "preemption")
        borrow = self.word(of, (*preempt, "borrowWithinCohort", "policy"), WORDS["borrow"], "never")
        within = preempt_of(spec).get("borrowWithinCohort")
        most: Any = within.get("maxPriorityThreshold") if isinstance(within, dict) else None
        if most is not None and not isinstance(most, int):
            self.blame(of, (*preempt, "borrowWithinCohort", "maxPriorityThreshold"), most,
                       "expected a whole number")  # fmt: skip
            most = None
        queue = QueueSpec(
            of.name, cohort, self.word(of, ("spec", "queueingStrategy"), WORDS["order"], "") == "strict",
            self.groups(of, bool(cohort)), self.weight(of, ("spec", "fairSharing", "weight")),
            self.word(of, (*preempt, "withinClusterQueue"), WITHIN, "never"),  # type: ignore[arg-type]
            self.word(of, (*preempt, "reclaimWithinCohort"), WORDS["reclaim"], "never"),  # type: ignore[arg-type]
            borrow == "lower", most,
            self.word(of, (*fungible, "whenCanBorrow"), SEARCH, "stop"),  # type: ignore[arg-type]
            self.word(of, (*fungible, "whenCanPreempt"), SEARCH, "next"),  # type: ignore[arg-type]
            self.word(of, (*fungible, "preference"), WORDS["prefer"], "") == "preemption",
            self.word(of, ("spec", "stopPolicy"), WORDS["stop"], "") != "",
        )  # fmt: skip
        self._check_queue(of, spec, queue, borrow)
        self.queues[of.name] = queue, of

    def _check_queue(
        self, of: KueueObject, spec: dict[str, Any], queue: QueueSpec, borrow: str
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

    def _cohort(self, of: KueueObject) -> None:
        if self._new(of, self.cohorts):
            spec = spec_of(of)
            parent = str(spec.get("parentName") or spec.get("parent") or "")
            weight = self.weight(of, ("spec", "fairSharing", "weight"))
            self.cohorts[of.name] = CohortSpec(of.name, parent, self.groups(of, True), weight), of

    def _flavor(self, of: KueueObject) -> None:
        if self._new(of, self.flavors):
            spec = spec_of(of)
            labels = spec.get("nodeLabels")
            self.flavors[of.name] = Flavor(
                of.name, {k: str(v) for k, v in labels.items()} if isinstance(labels, dict) else {},
                _taints(spec.get("nodeTaints")), _taints(spec.get("tolerations")),
                str(spec.get("topologyName") or ""))  # fmt: skip

    def _topology(self, of: KueueObject) -> None:
        levels = spec_of(of).get("levels")
        found = [
            str(level.get("nodeLabel", "")) for level in items_of(levels) if isinstance(level, dict)
        ]
        if not found or not all(found) or len(found) > 16 or len(set(found)) < len(found):
            self.blame(of, ("spec", "levels"), ", ".join(found) or None,
                       "expected 1 to 16 different levels with a nodeLabel")  # fmt: skip
        elif self._new(of, self.levels):
            self.levels[of.name] = tuple(found)

    def _local(self, of: KueueObject) -> None:
        space = str(of.data["metadata"].get("namespace") or "default")
        spec = spec_of(of)
        stop = self.word(of, ("spec", "stopPolicy"), WORDS["stop"], "")
        if stop:
            self.assumptions.append(f"local queue {space}/{of.name} is on hold, which is not heeded:"
                                    " jobs enter by it all the same")  # fmt: skip
        if self._new(of, self.local, f"{space}/{of.name}"):
            self.local[f"{space}/{of.name}"] = str(spec.get("clusterQueue") or ""), of

    def _priority(self, of: KueueObject) -> None:
        value = of.data.get("value")
        if not isinstance(value, int):
            self.blame(of, ("value",), value, "expected a whole number")
        elif self._new(of, self.priorities):
            self.priorities[of.name] = value

    def _configuration(self, of: KueueObject) -> None:
        fair = of.data.get("fairSharing")
        old = str(of.data.get("apiVersion", "")).endswith("v1beta1")
        on = isinstance(fair, dict) and (not old or bool(fair.get("enable")))
        strategies: list[str] = []
        given = fair.get("preemptionStrategies") if on and isinstance(fair, dict) else None
        for i, word in enumerate(map(str, items_of(given))):
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

    def _check_flavor(self, of: KueueObject, name: str) -> None:
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


def _taints(found: object) -> tuple[Taint, ...]:
    effects = {"NoSchedule": "no-schedule", "NoExecute": "no-execute", "": ""}
    return tuple(
        (str(t.get("key") or ""), "" if t.get("operator") == "Exists" else str(t.get("value") or ""),
         effects.get(str(t.get("effect") or ""), "other"))
        for t in (found if isinstance(found, list) else ()) if isinstance(t, dict)
    )  # fmt: skip
