"""Read a file of `ersatz schedule`: fleet, jobs, outages and rules, or all problems at once.

Work of drawn jobs counts at the speed of the first pool that its class may use and fits on. What the
file leaves open comes from the catalogue, or is listed as an assumption.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ersatz.device_models.text.files import is_there
from ersatz.device_models.text.problems import InputError
from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.engine.fleet import FleetSpec
from ersatz.sim.fleet.log import Quota, Rules
from ersatz.sim.fleet.policies.registry import unknown_policy
from ersatz.sim.fleet.reading.given import Given
from ersatz.sim.fleet.reading.jobs import Jobs
from ersatz.sim.fleet.reading.machines import Machines
from ersatz.sim.fleet.reading.speeds import Speeds
from ersatz.sim.fleet.schema import DrawnSection, FleetFile
from ersatz.sim.scenario.case_file import read_cases, validated


@dataclass(frozen=True, slots=True)
class Contest:
    """A question about schedulers, resolved: one spec per draw, the same for every policy."""

    name: str
    question: str
    policies: tuple[str, ...]
    specs: tuple[FleetSpec, ...]
    assumptions: tuple[str, ...]


def load_contest(
    path: Path | str, overrides: Sequence[str] = (), seed: int | None = None, trace: str = ""
) -> Contest:
    """Return the contest of a file; raises `InputError` with every fault.

    `trace` replaces the file's jobs by those of a trace (PATH or KIND:PATH).
    """
    case = read_cases(path, overrides, seed)[0]
    spec = validated(case, FleetFile)
    if spec is None:
        raise InputError(case.problems)
    reading = _Reading(Given(case, spec, Path(path).parent))
    contest = reading.contest(trace)
    if case.problems or contest is None:
        raise InputError(case.problems)
    return contest


class _Reading:
    """One file being resolved."""

    def __init__(self, given: Given) -> None:
        self.given, case, spec = given, given.case, given.spec
        self.machines = Machines(given)
        self.policies = tuple(self._policy(name) for name in spec.policies)
        for i, name in enumerate(self.policies):
            if name in self.policies[:i]:
                case.blame(
                    ("policies", i), name, "stands twice; a scheduler is compared with others"
                )
            for expected in unknown_policy(name):
                case.blame(("policies", i), name, expected)
        for i, drawn in enumerate(spec.jobs.drawn):
            self._check_sizes(i, drawn)
        self._check_own()

    def contest(self, trace: str) -> Contest | None:
        """Return everything resolved, or None where a fault was found."""
        if self.given.case.problems:
            return None
        spec = self.given.spec
        cluster = self.machines.cluster()
        for i, drawn in enumerate(spec.jobs.drawn):
            self._check_names(i, drawn, cluster)
        self._check_quotas(cluster)
        rules = Rules(
            {name: Quota(q.share, cluster.devices if q.limit is None else q.limit)
             for name, q in spec.tenants.items()},
            spec.rules.grace, spec.rules.max_failures, spec.rules.enforce_limits)  # fmt: skip
        outages = self.machines.outages(cluster)
        self.machines.check_pace(cluster, outages)
        speeds = Speeds(self.given, self.machines)
        speed = speeds.speed()
        most = max((n.devices for n in cluster.nodes), default=1) or 1
        jobs = Jobs(self.given, most, speeds.params)
        of_trace = jobs.trace(trace or spec.jobs.trace or "")
        specs = []
        for draw in range(spec.draws):
            workload = jobs.workload(cluster, rules, of_trace, draw, alone=bool(trace))
            if self.given.case.problems:
                return None
            specs.append(FleetSpec(
                cluster, workload, rules, speed, outages, spec.seed + draw,
                math.inf if spec.until is None else spec.until, spec.oracle))  # fmt: skip
        return Contest(self.given.case.name, spec.question, self.policies, tuple(specs),
                       tuple(dict.fromkeys(self.given.assumptions)))  # fmt: skip

    def _check_own(self) -> None:
        """Keys that contradict each other, or leave nothing to run."""
        for i, drawn in enumerate(self.given.spec.jobs.drawn):
            if drawn.rates and not any(rate > 0 for rate in drawn.rates.values()):
                words = "expected a rate above 0 on some pool: the jobs can run nowhere"
                self.given.case.blame(("jobs", "drawn", i, "rates"), str(dict(drawn.rates)), words)
        if self.given.spec.until is not None and self.given.spec.until <= 0:
            self.given.case.blame(("until",), str(self.given.spec.until), "expected a time above 0")
        for name, quota in self.given.spec.tenants.items():
            if quota.limit is not None and quota.limit < quota.share:
                self.given.case.blame(("tenants", name, "limit"), str(quota.limit),
                                f"expected at least its share, {quota.share}")  # fmt: skip

    def _check_quotas(self, cluster: Cluster) -> None:
        """Shares that the fleet cannot guarantee together, and tenants without any."""
        quotas = self.given.spec.tenants
        total = sum(quota.share for quota in quotas.values())
        if quotas and total > cluster.devices:
            words = (
                f"expected shares that are at most the fleet's {cluster.devices} devices together"
            )
            self.given.case.blame(("tenants",), str(total), words)
        asked = {name for drawn in self.given.spec.jobs.drawn for name in drawn.tenants}
        if quotas and (others := sorted(asked - set(quotas))):
            who = f"tenants {', '.join(others)} of the jobs stand not under `tenants`"
            self.given.assumptions.append(f"{who}: they have no share and no limit")

    def _policy(self, name: str) -> str:
        """Return a policy with its configuration looked for beside this file."""
        kind, _, path = name.partition(":")
        beside = self.given.folder / path
        return f"kueue:{beside}" if kind == "kueue" and path and is_there(beside) else name

    def _check_names(self, i: int, drawn: DrawnSection, cluster: Cluster) -> None:
        for key, names in (("types", drawn.types), ("rates", tuple(drawn.rates))):
            for name in names:
                if name not in cluster.types:
                    self.given.case.blame(("jobs", "drawn", i, key), name,
                                    f"is no pool; expected one of {', '.join(cluster.types)}")  # fmt: skip

    def _check_sizes(self, i: int, drawn: DrawnSection) -> None:
        """An elastic gang lies between its bounds."""
        for size in drawn.devices if isinstance(drawn.devices, dict) else (drawn.devices,):
            low, high = drawn.min_devices or size, drawn.max_devices or size
            if not low <= size <= high:
                self.given.case.blame(("jobs", "drawn", i, "devices"), size,
                                f"expected from {low} (min_devices) to {high} (max_devices)")  # fmt: skip
