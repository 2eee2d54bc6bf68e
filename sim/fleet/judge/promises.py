"""What a scheduler claims of itself, held against the log: promised starts, waits, loans, idleness.

Only claims that are made are checked. Each check is careful: it calls something broken only where
no reading of the rules excuses it (a promise lapses when nodes change under it, or when a job is
allowed to run beyond its limit).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ersatz.sim.fleet.judge.ledger import Held, Ledger
from ersatz.sim.fleet.log import Log, Quota, Record
from ersatz.sim.fleet.workload.jobs import Job

VOIDS = ("down", "up", "drain", "undrain", "slow")  # events after which promises are made anew
Shape = tuple[int, tuple[str, ...], int, int, str]


class Promises:
    """Watches the records, before the ledger books them."""

    def __init__(self, log: Log, ledger: Ledger, fault: Callable[[int, str], None]) -> None:
        self.log, self.ledger, self.fault = log, ledger, fault
        self.claims = log.claims
        self.promised: dict[str, float] = {}
        self.waits_since: dict[str, float] = {}  # jobs that have never run
        self.owed: dict[str, float] = {}  # owner -> since when it could have been served
        self.watch: dict[str, Callable[[Record], None]] = {}
        if self.claims.backfill:
            self.watch |= {"reserve": self._reserve, "start": self._keep, "finish": self._overrun}
            self.watch |= dict.fromkeys(VOIDS, self._void)
        if self.claims.max_wait_s:
            self._also("submit", self._wait)
            self._also("start", self._end_wait)

    def _also(self, event: str, act: Callable[[Record], None]) -> None:
        first = self.watch.get(event)

        def both(r: Record) -> None:
            if first:
                first(r)
            act(r)

        self.watch[event] = both

    # -- 7: promised starts ------------------------------------------------------------------------

    def _reserve(self, r: Record) -> None:
        before = self.promised.get(r.job)
        if r.value < r.time_s and not self.ledger.near(r.value, r.time_s):
            self.fault(4, f"was promised a start at {r.value:g} s, in the past")
        if before is not None and r.value > before and not self.ledger.near(r.value, before):
            self.fault(7, f"was promised a start at {before:g} s, now at {r.value:g} s")
        self.promised[r.job] = min(r.value, before if before is not None else r.value)

    def _keep(self, r: Record) -> None:
        at = self.promised.pop(r.job, None)
        if at is not None and r.time_s > at and not self.ledger.near(r.time_s, at):
            self.fault(7, f"was promised a start at {at:g} s and started at {r.time_s:g} s")

    def _void(self, r: Record) -> None:
        self.promised.clear()

    def _overrun(self, r: Record) -> None:
        """A job that outlives its limit excuses those who counted on it."""
        held = self.ledger.running.get(r.job)
        if held is None or self.log.rules.enforce_walltime or held.first_rate <= 0:
            return
        limit = held.start_s + held.job.walltime_s / held.first_rate
        if r.time_s > limit and not self.ledger.near(r.time_s, limit):
            self.promised.clear()

    # -- 8: waits ----------------------------------------------------------------------------------

    def _wait(self, r: Record) -> None:
        self.waits_since.setdefault(r.job, r.time_s)

    def _end_wait(self, r: Record) -> None:
        since = self.waits_since.pop(r.job, r.time_s)
        most = self.claims.max_wait_s + self.log.rules.slack_s
        if r.time_s - since > most:
            self.fault(
                8, f"waited {r.time_s - since:g} s for its first start, {most:g} s are claimed"
            )

    # -- 6 and 12: what should have happened by the end of an instant ----------------------------------

    def settle(self, until: float) -> None:
        """Look at the state that lasts from the ledger's now to `until`."""
        if self.claims.work_conserving and until - self.ledger.now > self.log.rules.slack_s:
            self._check_idle()
        if self.claims.reclaim_s and self.log.rules.quotas:
            self._check_loans(until)

    def _waiting(self) -> list[Job]:
        """Return the jobs that wait, in the order in which they were submitted."""
        names = sorted(self.ledger.waiting, key=self.ledger.order.__getitem__)
        return [self.log.jobs[name] for name in names]

    def _check_idle(self) -> None:
        seen: set[Shape] = set()
        for job in self._waiting():
            shape = (job.least, job.types, job.max_nodes, job.max_leaves, job.tenant)
            if shape in seen or job.milli < 1000 or job.max_nodes > 1 or job.max_pods or job.mixed:
                continue
            seen.add(shape)
            quota = self.log.rules.quotas.get(job.tenant)
            if quota and self.ledger.used[job.tenant] + job.devices > quota.limit:
                continue
            if self._fits(job):
                self.fault(12, f"job {job.id} waits for {job.least} devices that stand idle"
                               f" after {self.ledger.now:g} s")  # fmt: skip
                return

    def _fits(self, job: Job) -> bool:
        """Tell whether idle devices of one type, node or leaf suffice for a job."""
        ledger = self.ledger
        room: Counter[tuple[str, int]] = Counter()
        for i, node in enumerate(self.log.cluster.nodes):
            if (
                i in ledger.down
                or i in ledger.drained
                or (job.types and node.type not in job.types)
            ):
                continue
            if ledger.cpu[i] < job.cpu_milli or ledger.memory[i] < job.memory_mib:
                continue
            part = i if job.max_nodes == 1 else node.leaf if job.max_leaves == 1 else 0
            room[(node.type, part)] += (ledger.full[i] & ~ledger.busy[i]).bit_count()
        return any(devices >= max(job.least, 1) for devices in room.values()) and job.max_leaves < 2

    def _check_loans(self, until: float) -> None:
        """An owner waits although one borrower's devices alone would serve it."""
        owed = {}
        for job in self._firsts():
            if job.max_nodes or job.max_leaves or job.max_pods or job.cpu_milli:
                continue
            share = self.log.rules.quotas.get(job.tenant, Quota(0, 0)).share
            if self.ledger.used[job.tenant] + job.devices <= share and (
                debtor := self._debtor(job)
            ):
                owed[job.tenant] = self.owed.get(job.tenant, self.ledger.now)
                late = until - owed[job.tenant] - self.log.rules.slack_s
                if late > self.claims.reclaim_s * (1 + 1e-9):
                    self.fault(6, f"job {job.id} of {job.tenant} waits within its share since"
                                  f" {owed[job.tenant]:g} s while {debtor.job.tenant} borrows")  # fmt: skip
                    owed[job.tenant] = until
        self.owed = owed

    def _firsts(self) -> list[Job]:
        """Return each tenant's earliest waiting job: the order within a tenant is its own."""
        firsts: dict[str, Job] = {}
        for job in self._waiting():
            best = firsts.get(job.tenant)
            if best is None or job.submit_s < best.submit_s:
                firsts[job.tenant] = job
        return list(firsts.values())

    def _debtor(self, job: Job) -> Held | None:
        """Return an attempt that lives on loan alone and holds what a job needs."""
        for held in self.ledger.running.values():
            share = self.log.rules.quotas.get(held.job.tenant, Quota(1, 0)).share
            kind = self.log.cluster.nodes[held.placement[0][0]].type
            if held.job.tenant != job.tenant and held.devices >= job.devices and (
                    not job.types or kind in job.types) and (
                    self.ledger.used[held.job.tenant] - held.devices >= share):  # fmt: skip
                return held
        return None
