"""The jobs of a fleet file: of a trace or drawn, with what an interruption costs each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ersatz.device_models.text.files import is_there
from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.fits import never_fits
from ersatz.sim.fleet.log import Rules
from ersatz.sim.fleet.reading.given import Given
from ersatz.sim.fleet.schema import DrawnSection
from ersatz.sim.fleet.workload.interruption import interruption
from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.synthetic import at_load
from ersatz.sim.fleet.workload.traces import read_trace

T = TypeVar("T")


@dataclass(slots=True)
class Jobs:
    """Jobs of a file on nodes of at most `per_node` devices; `params` are weights of known classes."""

    given: Given
    per_node: int
    params: Mapping[str, float]

    def trace(self, text: str) -> tuple[Job, ...]:
        """Return the jobs of a trace (KIND:PATH or PATH, looked for beside the file first); '' has none."""
        if not text:
            return ()
        kind, _, path = text.rpartition(":")
        found = self.given.folder / path
        workload = read_trace(found if is_there(found) else Path(path), kind)
        if ";" in workload.source:  # something was left out, or read in its own way
            self.given.assumptions.append(f"jobs of the trace: {workload.source}")
        jobs = workload.jobs
        jobs = tuple(
            self._with_costs(j, None) for j in jobs[: self.given.spec.jobs.first or len(jobs)]
        )
        if self.given.spec.jobs.trace_limit:
            low, high = self.given.spec.jobs.trace_limit
            rng = np.random.default_rng(
                np.random.SeedSequence(self.given.spec.seed, spawn_key=(7,))
            )
            factors = rng.uniform(low, high, len(jobs))
            jobs = tuple(
                replace(j, walltime_s=max(j.duration_s, 1.0) * float(f)) if j.walltime_s == math.inf else j
                for j, f in zip(jobs, factors, strict=True))  # fmt: skip
            self.given.assumptions.append(
                f"limits of the trace's jobs are {low:g} to {high:g} times their runs"
            )
        return jobs

    def workload(
        self, cluster: Cluster, rules: Rules, given: tuple[Job, ...], draw: int, *, alone: bool
    ) -> Workload:
        """Return the jobs of one draw: those `given` and, unless they are `alone`, drawn ones."""
        jobs = list(given)
        seeds = np.random.SeedSequence((self.given.spec.seed, draw), spawn_key=(8,))
        drawn = () if alone else self.given.spec.jobs.drawn
        for section, seed in zip(drawn, seeds.spawn(len(drawn)), strict=True):
            jobs += [self._with_costs(job, section) for job in _draw_jobs(section, seed)]
        try:
            workload = Workload(tuple(jobs), self.given.case.name)
        except ValueError as error:
            self.given.case.blame(("jobs",), None, str(error))
            return Workload(())
        if self.given.spec.jobs.load:
            try:
                workload = at_load(workload, cluster.devices, self.given.spec.jobs.load)
            except ValueError as error:
                self.given.case.blame(
                    ("jobs", "load"), self.given.spec.jobs.load, f"cannot be had: {error}"
                )
        if self.given.spec.on_impossible == "drop":
            kept = tuple(j for j in workload.jobs if not never_fits(cluster, rules, j))
            if len(kept) < len(workload.jobs):
                self.given.assumptions.append(
                    f"{len(workload.jobs) - len(kept)} jobs that can never run are left out"
                )
            workload = replace(workload, jobs=kept)
        return workload

    def _with_costs(self, job: Job, section: DrawnSection | None) -> Job:
        """Return a job with what an interruption costs: as stated, or its state over the storage."""
        given = self.given.spec.jobs
        restart, save = ((section.restart, section.save) if section else
                         (job.restart_s or given.trace_restart, job.save_s or given.trace_save))  # fmt: skip
        if restart is None or save is None:
            params = self.params.get(job.model)
            found = interruption(job.devices, self.per_node, params)
            who = f"jobs of {section.name}" if section else "jobs of the trace"
            for value, words in ((restart, found.restart_words), (save, found.save_words)):
                if value is None:
                    self.given.assumptions.append(f"{who}: {words}")
            restart = found.restart_s if restart is None else restart
            save = found.save_s if save is None else save
        return replace(job, restart_s=restart, save_s=save)


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
