"""Heterogeneity-aware scheduling as in Gavel (OSDI 2020): shares of time per job and type.

An allocation gives each job a share of time on each accelerator type; rounds turn shares into
placements: the pairs of job and type that are furthest behind their share run in the next round.
Shares are computed anew when jobs come or go. Not modelled: several jobs on one device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ersatz.sim.fleet.log import Claims, Record
from ersatz.sim.fleet.policies.placement import Placer
from ersatz.sim.fleet.policies.queue import Admit, within_limits
from ersatz.sim.fleet.protocol import Attempt, Decision, Preempt, Start, View, WakeAt
from ersatz.sim.fleet.workload.jobs import Job

Matrix = NDArray[np.float64]
LEAST_SHARE = 1e-6  # below it a share is the solver's rounding
DIGITS = 9  # of how far behind a job is: who came first decides between equals, not rounding
BONUS = 0.05  # weight of the mean speed beside the worst-off job's: what is left over is used well
Allocate = Callable[[Matrix, Matrix, Matrix], Matrix]
"""(rate of each job on each type, devices of each job, devices of each type) -> shares of time"""


def max_min(rates: Matrix, gangs: Matrix, capacity: Matrix) -> Matrix:
    """Return the shares under which the worst-off job is best off.

    A job's measure is its rate over all types, times its gang, against what an equal share of
    every type would give it: Gavel's least-attained-service objective, which knows of types. Then
    what is left goes where jobs run fast. Solved as a linear programme.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csc_array

    jobs, kinds = rates.shape
    equal = rates @ (capacity / capacity.sum())
    normal = rates * (gangs / np.where(equal > 0, equal, 1.0))[:, None]
    pairs = jobs * kinds
    job_of, kind_of = np.arange(pairs) // kinds, np.arange(pairs) % kinds
    # a column for each share: in its job's time, in its type's room, in its job's measure; last, the floor
    of_shares = np.stack([job_of, jobs + kind_of, jobs + kinds + job_of], axis=1).ravel()
    rows = np.concatenate([of_shares, jobs + kinds + np.arange(jobs)])
    worth = np.stack([np.ones(pairs), gangs[job_of], -normal.ravel()], axis=1).ravel()
    begins = np.concatenate([3 * np.arange(pairs + 1), [3 * pairs + jobs]])
    held = csc_array(
        (np.concatenate([worth, np.ones(jobs)]), rows, begins), shape=(2 * jobs + kinds, pairs + 1)
    )
    scale = float(normal.max()) or 1.0
    best = np.where(rates.max(axis=1) > 0, rates.max(axis=1), 1.0)
    goal = np.concatenate([-BONUS / jobs * (rates / best[:, None]).ravel(), [-1.0 / scale]])
    most = np.concatenate([np.ones(jobs), capacity, np.zeros(jobs)])
    # a linear programme; `linprog` spends as long on its own checks as on solving it
    found = milp(
        goal, constraints=LinearConstraint(held, -np.inf, most),
        bounds=Bounds(0.0, np.concatenate([(rates > 0).astype(float).ravel(), [np.inf]])),
    )  # fmt: skip
    if found.x is None:
        raise ArithmeticError(f"no shares found: {found.message}")
    return np.asarray(found.x[:-1]).reshape(jobs, kinds)


def blind(rates: Matrix, gangs: Matrix, capacity: Matrix) -> Matrix:
    """Return max-min shares of time that do not know how fast a job is on which type."""
    return max_min((rates > 0).astype(float), gangs, capacity)


def _type_of(view: View, attempt: Attempt) -> str:
    return view.cluster.nodes[attempt.placement[0][0]].type


class ShareScheduler:
    """Turns shares into placements, round after round."""

    def __init__(
        self, name: str = "gavel", allocate: Allocate = max_min, placer: Placer | None = None,
        admit: Admit = within_limits, round_s: float = 360.0,
    ) -> None:  # fmt: skip
        self.name, self.allocate, self.round_s, self.admit = name, allocate, round_s, admit
        self.placer = placer or Placer()
        self.claims = Claims(preempts="any")
        self.shares: dict[tuple[str, str], float] = {}
        self.had: dict[tuple[str, str], float] = {}  # device time that a job has had on a type
        self.since: dict[str, float] = {}  # when a job was first seen
        self.begun, self.round_at = 0.0, 0.0  # the last round, and the next
        self.settled: set[tuple[str, str]] = set()  # who runs where, until something happens
        self._jobs: frozenset[str] = frozenset()
        self._rates: dict[str, list[float]] = {}  # of each job on each type

    def on_start(self, view: View) -> None:
        """Nothing to prepare."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """At the beginning of a round give devices to those who are furthest behind."""
        if self.settled:
            self._pass_over(now)
            if now < self.round_at:
                yield WakeAt(self.round_at)
        if not (view.waiting or view.running) or now < self.round_at:
            return
        self._account(view, now)
        jobs = {**{n: a.job for n, a in view.running.items()}, **view.waiting}
        if frozenset(jobs) != self._jobs:
            self._renew(view, list(jobs.values()))
        for job in jobs.values():
            self.since.setdefault(job.id, now)
        chosen = self._choose(view, now, jobs)
        self.settled = self._settles(view, chosen)
        for name, attempt in list(view.running.items()):
            if chosen.get(name) != _type_of(view, attempt):
                yield Preempt(name, for_job="")
        for name, kind in chosen.items():
            if name in view.waiting and self.admit(view, view.waiting[name], 0):
                placement = self.placer.fill(view.free, view.waiting[name], kind)
                if placement and view.rate(view.waiting[name], placement) > 0:
                    yield Start(name, placement)
        self.begun, self.round_at = now, now + self.round_s
        if not self.settled:
            yield WakeAt(self.round_at)

    def _settles(self, view: View, chosen: dict[str, str]) -> set[tuple[str, str]]:
        """Return who runs where, if no round changes it until something happens; else nothing.

        So it is where nobody waits and all run where all their share is.
        """
        here = {name: _type_of(view, attempt) for name, attempt in view.running.items()}
        mine = {pair for pair, share in self.shares.items() if share > LEAST_SHARE}
        return mine if not view.waiting and here == chosen and mine == set(here.items()) else set()

    def _pass_over(self, now: float) -> None:
        """Catch up with the rounds since all settled: each only counted time."""
        passed = max(math.ceil((now - self.begun) / self.round_s) - 1, 0)
        for pair in self.settled:
            self.had[pair] = self.had.get(pair, 0.0) + passed * self.round_s
        self.begun += passed * self.round_s
        self.round_at, self.settled = self.begun + self.round_s, set()

    def _account(self, view: View, now: float) -> None:
        """Count the time that running jobs have had on their type in the round that ends."""
        for name, attempt in view.running.items():
            pair = name, _type_of(view, attempt)
            self.had[pair] = self.had.get(pair, 0.0) + now - max(attempt.start_s, self.begun)

    def _renew(self, view: View, jobs: list[Job]) -> None:
        """Compute shares for the jobs that are there."""
        kinds = view.cluster.types
        self._rates = {j.id: self._rates.get(j.id) or self._rates_of(view, j) for j in jobs}
        rates = np.array([self._rates[j.id] for j in jobs])
        gangs = np.array([float(j.devices) for j in jobs])
        capacity = np.array([float(view.cluster.devices_of(k)) for k in kinds])
        shares = self.allocate(rates, gangs, capacity)
        self.shares = {(j.id, k): float(shares[a, b])
                       for a, j in enumerate(jobs) for b, k in enumerate(kinds)}  # fmt: skip
        self._jobs = frozenset(j.id for j in jobs)
        self.had = {pair: t for pair, t in self.had.items() if pair in self.shares}

    def _rates_of(self, view: View, job: Job) -> list[float]:
        """Return the rate of a job on each type; 0 where it may not run."""
        may = set(job.types or view.cluster.types)
        return [view.rate_on(job, k) if k in may else 0.0 for k in view.cluster.types]

    def _choose(self, view: View, now: float, jobs: dict[str, Job]) -> dict[str, str]:
        """Return the type on which each job runs in the next round, if any."""
        room = dict.fromkeys(view.cluster.types, 0)
        for i, node in enumerate(view.cluster.nodes):
            if i not in view.free.closed:
                room[node.type] += node.devices
        order = []
        for (name, kind), share in self.shares.items():
            if share > LEAST_SHARE and name in jobs:
                had = self.had.get((name, kind), 0.0) / max(now - self.since[name], self.round_s)
                behind = round(share / had, DIGITS) if had else share * 1e9
                order.append((-behind, self.since[name], name, kind))
        chosen: dict[str, str] = {}
        for _, _, name, kind in sorted(order):
            if name not in chosen and room[kind] >= jobs[name].devices:
                chosen[name] = kind
                room[kind] -= jobs[name].devices
        left = max(room.values(), default=0)
        small = [name for name, job in jobs.items() if job.devices <= left and name not in chosen]
        for name in sorted(small, key=lambda n: (self.since[n], n)):
            if jobs[name].devices > max(room.values()):
                continue
            for kind in self.placer.kinds(view, jobs[name]):  # nothing idles beside a waiting job
                if room[kind] >= jobs[name].devices:
                    chosen[name] = kind
                    room[kind] -= jobs[name].devices
                    break
        return chosen

    def on_end(self, view: View) -> None:
        """Nothing to let go."""
