"""Read a file of `ersatz schedule`: fleet, jobs, outages and rules, or all problems at once.

Work of drawn jobs counts at the speed of the first pool that its class may use and fits on. What the
file leaves open comes from the catalogue, or is listed as an assumption.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import load_node
from ersatz.device_models.text.files import is_there
from ersatz.device_models.text.problems import InputError
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.fleet.cluster import Cluster, make_cluster, make_pool
from ersatz.sim.fleet.engine.fleet import FleetSpec
from ersatz.sim.fleet.engine.outages import Failures, Maintenance, Outage, components
from ersatz.sim.fleet.engine.speeds import StepSpeed, Training, table_speed
from ersatz.sim.fleet.fits import never_fits
from ersatz.sim.fleet.foreign import parted, read_fleet
from ersatz.sim.fleet.log import Quota, Rules
from ersatz.sim.fleet.policies.registry import unknown_policy
from ersatz.sim.fleet.schema import (
    DrawnSection,
    FleetFailuresSection,
    FleetFile,
    FleetPoolSection,
    StepSection,
)
from ersatz.sim.fleet.workload.interruption import interruption
from ersatz.sim.fleet.workload.jobs import Job, Speed, Workload
from ersatz.sim.fleet.workload.synthetic import at_load
from ersatz.sim.fleet.workload.traces import read_trace
from ersatz.sim.job.checkpoint import saved_params
from ersatz.sim.scenario.case_file import Case, read_cases, validated
from ersatz.sim.scenario.defaults import left_silent
from ersatz.sim.scenario.resolve import resolve
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.scenario.schema import ScenarioFile
from ersatz.sim.scenario.sections.machines import ClusterSection
from ersatz.sim.scenario.sections.quantities import MOST_NODES
from ersatz.sim.search.planned import planned

MOST_FAILURES = 1.0  # per second, in the whole fleet
MOST_STRIKES = 100_000  # in a run: five years of 100,000 devices of which a fifth fails each year
T = TypeVar("T")


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
    reading = _Reading(case, spec, Path(path).parent)
    contest = reading.contest(trace)
    if case.problems or contest is None:
        raise InputError(case.problems)
    return contest


class _Reading:
    """One file being resolved; faults go to its case."""

    def __init__(self, case: Case, spec: FleetFile, folder: Path) -> None:
        self.case, self.spec, self.folder = case, spec, folder
        self.assumptions: list[str] = []
        self.reasons: list[str] = []  # why training jobs cannot run somewhere
        self._params: dict[str, float] = {}  # of classes whose model is known
        self.nodes = [self._node(i, pool) for i, pool in enumerate(spec.pools)]
        self._per_node = 1  # most devices of a node
        names = [pool.name for pool in spec.pools]
        for i, name in enumerate(names):
            if name in names[:i]:
                case.blame(("pools", i, "name"), name, "stands twice; each pool has its own name")
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
        if self.case.problems:
            return None
        spec = self.spec
        cluster = self._cluster()
        for i, drawn in enumerate(spec.jobs.drawn):
            self._check_names(i, drawn, cluster)
        self._check_quotas(cluster)
        rules = Rules(
            {name: Quota(q.share, cluster.devices if q.limit is None else q.limit)
             for name, q in spec.tenants.items()},
            spec.rules.grace, spec.rules.max_failures, spec.rules.enforce_limits)  # fmt: skip
        outages = self._outages(cluster)
        self._check_pace(cluster, outages)
        speed = self._speed()
        self._per_node = max((n.devices for n in cluster.nodes), default=1) or 1
        given = self._trace(trace or spec.jobs.trace or "")
        specs = []
        for draw in range(spec.draws):
            jobs = self._workload(cluster, rules, given, draw, alone=bool(trace))
            if self.case.problems:
                return None
            specs.append(FleetSpec(
                cluster, jobs, rules, speed, outages, spec.seed + draw,
                math.inf if spec.until is None else spec.until, spec.oracle))  # fmt: skip
        return Contest(self.case.name, spec.question, self.policies, tuple(specs),
                       tuple(dict.fromkeys(self.assumptions)))  # fmt: skip

    def _check_own(self) -> None:
        """Keys that contradict each other, or leave nothing to run."""
        for i, drawn in enumerate(self.spec.jobs.drawn):
            if drawn.rates and not any(rate > 0 for rate in drawn.rates.values()):
                words = "expected a rate above 0 on some pool: the jobs can run nowhere"
                self.case.blame(("jobs", "drawn", i, "rates"), str(dict(drawn.rates)), words)
        if self.spec.until is not None and self.spec.until <= 0:
            self.case.blame(("until",), str(self.spec.until), "expected a time above 0")
        for i, (pool, node) in enumerate(zip(self.spec.pools, self.nodes, strict=True)):
            if node and pool.devices and pool.devices != node.devices:
                words = f"expected the {node.devices} of {pool.node}, or no node of the catalogue"
                self.case.blame(("pools", i, "devices"), str(pool.devices), words)
        for name, quota in self.spec.tenants.items():
            if quota.limit is not None and quota.limit < quota.share:
                self.case.blame(("tenants", name, "limit"), str(quota.limit),
                                f"expected at least its share, {quota.share}")  # fmt: skip

    def _check_quotas(self, cluster: Cluster) -> None:
        """Shares that the fleet cannot guarantee together, and tenants without any."""
        quotas = self.spec.tenants
        total = sum(quota.share for quota in quotas.values())
        if quotas and total > cluster.devices:
            words = (
                f"expected shares that are at most the fleet's {cluster.devices} devices together"
            )
            self.case.blame(("tenants",), str(total), words)
        asked = {name for drawn in self.spec.jobs.drawn for name in drawn.tenants}
        if quotas and (others := sorted(asked - set(quotas))):
            self.assumptions.append(f"tenants {', '.join(others)} of the jobs stand not under `tenants`: they"
                                    " have no share and no limit")  # fmt: skip

    def _cluster(self) -> Cluster:
        """Return the nodes of the pools, or of a list."""
        if self.spec.nodes:
            kind, path = parted(self.spec.nodes)
            beside = self.folder / path
            self.assumptions.append("nodes of a list stand under one leaf unless it says otherwise, and"
                                    " do not fail unless rates are given")  # fmt: skip
            return read_fleet(beside if is_there(beside) else path, kind)
        pools = [
            make_pool(p.name, p.nodes, p.devices or (n.devices if n else 0),
                      nodes_per_leaf=p.nodes_per_leaf)
            for p, n in zip(self.spec.pools, self.nodes, strict=True)
        ]  # fmt: skip
        return make_cluster(*pools, name=self.case.name)

    def _policy(self, name: str) -> str:
        """Return a policy with its configuration looked for beside this file."""
        kind, _, path = name.partition(":")
        beside = self.folder / path
        return f"kueue:{beside}" if kind == "kueue" and path and is_there(beside) else name

    # -- machines ----------------------------------------------------------------------------------

    def _node(self, i: int, pool: FleetPoolSection) -> Node | None:
        if pool.node is None:
            return None
        try:
            return load_node(pool.node)
        except InputError as error:
            self.case.blame(("pools", i, "node"), pool.node, error.problems[0].expected)
            return None

    def _outages(self, cluster: Cluster) -> tuple[Outage, ...]:
        outages: list[Outage] = []
        for i, plan in enumerate(self.spec.maintenance):
            nodes = [n for n, node in enumerate(cluster.nodes) if node.name in plan.nodes
                     or node.type in plan.nodes]  # fmt: skip
            if not nodes:
                self.case.blame(("maintenance", i, "nodes"), ", ".join(plan.nodes), "names no node")
            outages.append(Maintenance(plan.start, plan.duration, tuple(nodes), plan.drain))
        failures = self.spec.failures
        if failures is None:
            return tuple(outages)
        types = [p.name for p in self.spec.pools] or list(cluster.types)
        for pool, node in zip(types, self.nodes or [None] * len(types), strict=True):
            for what, given, own in (
                ("device", failures.device_rate, node.device.failure_rate if node else None),
                ("node", failures.node_rate, node.failure_rate if node else None),
            ):
                rate = given if given is not None else own
                if rate is None:
                    self.assumptions.append(f"{what}s of {pool} do not fail: no rate is given")
                elif rate:
                    outages.append(Failures(
                        what, rate * failures.scale, failures.repair, pool))  # type: ignore[arg-type]  # fmt: skip
        if failures.leaf_rate:
            outages.append(
                Failures("leaf", failures.leaf_rate * failures.scale, failures.leaf_repair)
            )
        if failures.slow_rate:
            outages.append(Failures("node", failures.slow_rate * failures.scale, failures.slow_repair,
                                    slowdown=failures.slow_factor, cause="slow"))  # fmt: skip
        self._say_failures(failures)
        return tuple(outages)

    def _say_failures(self, failures: FleetFailuresSection) -> None:
        """List what the file does not say of failures, of what happens at all."""
        keys: tuple[str, ...] = ("repair",)
        keys += ("leaf_repair",) if failures.leaf_rate else ()
        keys += ("slow_repair", "slow_factor") if failures.slow_rate else ()
        self.assumptions += left_silent("failures", failures.model_fields_set, keys)
        silent = {"leaf_rate": "leaf switches do not fail", "slow_rate": "no node becomes slow"}
        self.assumptions += [
            f"{words}: failures.{key} is not given"
            for key, words in silent.items()
            if key not in failures.model_fields_set
        ]

    def _check_pace(self, cluster: Cluster, outages: tuple[Outage, ...]) -> None:
        """Refuse failures so frequent that simulated time hardly passes."""
        rate = math.fsum(f.rate * components(cluster, f)[0] for f in outages
                         if isinstance(f, Failures))  # fmt: skip
        if rate > MOST_FAILURES:
            self.case.blame(("failures",), None, f"the fleet fails {rate:.3g} times a second;"
                            f" expected at most {MOST_FAILURES:g}")  # fmt: skip
        elif rate * (self.spec.until or 0.0) > MOST_STRIKES:
            self.case.blame(("until",), None, f"the fleet fails {rate * (self.spec.until or 0):,.0f} times"
                            f" until then; expected at most {MOST_STRIKES:,}")  # fmt: skip

    # -- jobs --------------------------------------------------------------------------------------

    def _check_names(self, i: int, drawn: DrawnSection, cluster: Cluster) -> None:
        for key, names in (("types", drawn.types), ("rates", tuple(drawn.rates))):
            for name in names:
                if name not in cluster.types:
                    self.case.blame(("jobs", "drawn", i, key), name,
                                    f"is no pool; expected one of {', '.join(cluster.types)}")  # fmt: skip

    def _check_sizes(self, i: int, drawn: DrawnSection) -> None:
        """An elastic gang lies between its bounds."""
        for size in drawn.devices if isinstance(drawn.devices, dict) else (drawn.devices,):
            low, high = drawn.min_devices or size, drawn.max_devices or size
            if not low <= size <= high:
                self.case.blame(("jobs", "drawn", i, "devices"), size,
                                f"expected from {low} (min_devices) to {high} (max_devices)")  # fmt: skip

    def _trace(self, text: str) -> tuple[Job, ...]:
        if not text:
            return ()
        kind, _, path = text.rpartition(":")
        found = self.folder / path
        workload = read_trace(found if is_there(found) else Path(path), kind)
        if ";" in workload.source:  # something was left out, or read in its own way
            self.assumptions.append(f"jobs of the trace: {workload.source}")
        jobs = workload.jobs
        jobs = tuple(self._with_costs(j, None) for j in jobs[: self.spec.jobs.first or len(jobs)])
        if self.spec.jobs.trace_limit:
            low, high = self.spec.jobs.trace_limit
            rng = np.random.default_rng(np.random.SeedSequence(self.spec.seed, spawn_key=(7,)))
            factors = rng.uniform(low, high, len(jobs))
            jobs = tuple(
                replace(j, walltime_s=max(j.duration_s, 1.0) * float(f)) if j.walltime_s == math.inf else j
                for j, f in zip(jobs, factors, strict=True))  # fmt: skip
            self.assumptions.append(
                f"limits of the trace's jobs are {low:g} to {high:g} times their runs"
            )
        return jobs

    def _workload(
        self, cluster: Cluster, rules: Rules, given: tuple[Job, ...], draw: int, *, alone: bool
    ) -> Workload:
        jobs = list(given)
        seeds = np.random.SeedSequence((self.spec.seed, draw), spawn_key=(8,))
        drawn = () if alone else self.spec.jobs.drawn
        for section, seed in zip(drawn, seeds.spawn(len(drawn)), strict=True):
            jobs += [self._with_costs(job, section) for job in _draw_jobs(section, seed)]
        try:
            workload = Workload(tuple(jobs), self.case.name)
        except ValueError as error:
            self.case.blame(("jobs",), None, str(error))
            return Workload(())
        if self.spec.jobs.load:
            try:
                workload = at_load(workload, cluster.devices, self.spec.jobs.load)
            except ValueError as error:
                self.case.blame(("jobs", "load"), self.spec.jobs.load, f"cannot be had: {error}")
        if self.spec.on_impossible == "drop":
            kept = tuple(j for j in workload.jobs if not never_fits(cluster, rules, j))
            if len(kept) < len(workload.jobs):
                self.assumptions.append(
                    f"{len(workload.jobs) - len(kept)} jobs that can never run are left out"
                )
            workload = replace(workload, jobs=kept)
        return workload

    def _with_costs(self, job: Job, section: DrawnSection | None) -> Job:
        """Return a job with what an interruption costs: as stated, or its state over the storage."""
        given = self.spec.jobs
        restart, save = ((section.restart, section.save) if section else
                         (job.restart_s or given.trace_restart, job.save_s or given.trace_save))  # fmt: skip
        if restart is None or save is None:
            params = self._params.get(job.model)
            found = interruption(job.devices, self._per_node, params)
            who = f"jobs of {section.name}" if section else "jobs of the trace"
            for value, words in ((restart, found.restart_words), (save, found.save_words)):
                if value is None:
                    self.assumptions.append(f"{who}: {words}")
            restart = found.restart_s if restart is None else restart
            save = found.save_s if save is None else save
        return replace(job, restart_s=restart, save_s=save)

    # -- speed -------------------------------------------------------------------------------------

    def _speed(self) -> Speed:
        table = {d.name: d.rates for d in self.spec.jobs.drawn if d.rates}
        trainings: dict[str, Training] = {}
        reference: dict[str, str] = {}
        speed = StepSpeed(trainings, reference, self.spec.cross_leaf, table_speed(table), {})
        for i, drawn in enumerate(self.spec.jobs.drawn):
            if drawn.step is None:
                continue
            trainings[drawn.name] = self._training(i, drawn.step)
            self._note_params(i, drawn, trainings[drawn.name])
            size = drawn.devices if isinstance(drawn.devices, int) else min(drawn.devices)
            kinds = drawn.types or tuple(p.name for p in self.spec.pools)
            fitting = [] if self.case.problems else [
                k for k in kinds if speed.seconds(drawn.name, k, size, False)]  # fmt: skip
            if not fitting and not self.case.problems:
                why = self.reasons[-1] if self.reasons else "it does not fit into memory"
                self.case.blame(("jobs", "drawn", i, "step"), drawn.name,
                                f"{size} devices of no pool can train this: {why}")  # fmt: skip
            reference[drawn.name] = fitting[0] if fitting else kinds[0]
            self.assumptions.append(
                f"work of {drawn.name} counts at the speed of {reference[drawn.name]}"
            )
        return speed if trainings else table_speed(table)

    def _note_params(self, i: int, drawn: DrawnSection, training: Training) -> None:
        """Note the weights that a class saves."""
        size = drawn.devices if isinstance(drawn.devices, int) else min(drawn.devices)
        for pool in self.spec.pools:
            if scenario := training(pool.name, size):
                self._params[drawn.name] = saved_params(scenario.model)
                return

    def _training(self, i: int, step: StepSection) -> Training:
        """Return how a class trains on a pool; a first look notes the faults of its sections."""
        case, folder = self.case, self.folder
        pools = {p.name: p for p in self.spec.pools}

        def training(kind: str, devices: int) -> Scenario | None:
            pool = pools[kind]
            node = self.nodes[self.spec.pools.index(pool)]
            if node is None:
                return None
            nodes = -(-devices // node.devices)
            if nodes > MOST_NODES:
                self.reasons.append(f"{nodes:,} nodes: expected at most {MOST_NODES:,}")
                return None
            given = {"parallel": step.parallel} if "parallel" in step.model_fields_set else {}
            file = ScenarioFile(
                question="how fast?", model=step.model, training=step.training, stack=pool.stack,
                cluster=ClusterSection(node=str(pool.node), nodes=nodes), **given,
            )  # fmt: skip
            own = Case(case.name, case.text, case.data, case.overridden)
            scenario = resolve(
                file, kind, folder, own.blame, lambda: bool(own.problems), plans=True
            )
            self.reasons += [f"{problem.key}: {problem.expected}" for problem in own.problems]
            if scenario and scenario.phases:
                self.reasons.append(
                    "training.phases: a class of jobs has one rate, steps that are alike"
                )
                return None
            if own.problems or scenario is None:
                return None
            try:
                return planned(scenario)
            except InfeasibleError as error:
                self.reasons.append(f"parallel is not given: {error}")
                return None

        return training


def _draw_jobs(section: DrawnSection, seed: np.random.SeedSequence) -> list[Job]:
    """Return the jobs of a class; each cause has a stream of random numbers of its own."""
    arrivals, sizes, works, tenants, limits = (np.random.default_rng(s) for s in seed.spawn(5))
    count = section.count
    times = section.start + np.cumsum(arrivals.exponential(section.every, count))
    work = section.median * np.exp(works.normal(0.0, section.sigma, count))
    devices = _picks(section.devices if isinstance(section.devices, dict) else {section.devices: 1.0},
                     sizes, count)  # fmt: skip
    names = _picks(section.tenants or {"": 1.0}, tenants, count)
    low, high = section.limit or (math.inf, math.inf)
    factors = limits.uniform(low, high, count) if section.limit else np.full(count, math.inf)
    return [
        Job(
            f"{section.name}-{i}", float(times[i]), devices[i], float(work[i]), names[i],
            section.priority, section.types, float(work[i] * factors[i]),
            section.min_devices, section.max_devices, section.checkpoint, section.restart or 0.0,
            float(times[i] + section.deadline * work[i]) if section.deadline else math.inf,
            max_nodes=section.max_nodes, max_leaves=section.max_leaves,
            model=section.name if section.step or section.rates else "",
        )
        for i in range(count)
    ]  # fmt: skip


def _picks(weights: Mapping[T, float], rng: np.random.Generator, count: int) -> list[T]:
    """Draw from what has weights."""
    values = list(weights)
    shares = np.array([weights[v] for v in values], dtype=float)
    chosen = rng.choice(len(values), count, p=shares / shares.sum())
    return [values[i] for i in chosen]
