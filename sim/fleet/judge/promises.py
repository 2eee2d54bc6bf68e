"""What a scheduler claims of itself, held against the log: promised starts, waits, loans, idleness.

Only claims that are made are checked, and every promise of a start. Each check is careful: it calls
something broken only where no reading of the rules excuses it (a promise lapses when nodes change under
it, or when a job is allowed to run beyond its limit).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ersatz.sim.fleet.judge.ledger import Ledger
from ersatz.sim.fleet.log import Log, Quota, Record
from ersatz.sim.fleet.workload.jobs import Job

VOIDS = ("down", "up", "drain", "undrain", "slow")  # events after which promises are made anew


class Promises:
    """Watches the records, before the ledger books them."""

    def __init__(self, log: Log, ledger: Ledger, fault: Callable[[int, str], None]) -> None:
        self.log, self.ledger, self.fault = log, ledger, fault
        self.claims = log.claims
        self.promised: dict[str, float] = {}
        self.waits_since: dict[str, float] = {}  # jobs that have never run
        self.owed: dict[str, float] = {}  # an owner's job -> since when it could have been served
        self.watch: dict[str, Callable[[Record], None]] = {}
        self.made = 0  # promises, whether or not a kind of backfilling is claimed
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
        self.made += 1
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

    def _check_idle(self) -> None:
        for job in self.ledger.waiting.firsts():
            if job.milli < 1000 or job.max_nodes > 1 or job.max_pods or job.mixed:
                continue
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
        """An owner waits although what is free and on loan would serve it."""
        owed = {}
        for job in self._firsts():
            if job.max_nodes or job.max_leaves or job.max_pods or job.cpu_milli:
                continue
            share = self.log.rules.quotas.get(job.tenant, Quota(0, 0)).share
            if self.ledger.used[job.tenant] + job.devices <= share and (
                debtors := self._debtors(job)
            ):
                owed[job.id] = self.owed.get(job.id, self.ledger.now)
                late = until - owed[job.id] - self.log.rules.slack_s
                if late > self.claims.reclaim_s * (1 + 1e-9):
                    self.fault(6, f"job {job.id} of {job.tenant} waits within its share since"
                                  f" {owed[job.id]:g} s while {debtors} borrows")  # fmt: skip
                    owed[job.id] = until
        self.owed = owed

    def _firsts(self) -> list[Job]:
        """Return each tenant's earliest waiting job: the order within a tenant is its own."""
        firsts: dict[str, Job] = {}
        for job in self.ledger.waiting.firsts():
            best = firsts.get(job.tenant)
            if best is None or job.submit_s < best.submit_s:
                firsts[job.tenant] = job
        return list(firsts.values())

    def _debtors(self, job: Job) -> str:
        """Return the tenants whose loans, with what is free, hold what a job needs on one type.

        A loan is a job without which its tenant still holds its share; the latest is given back first.
        """
        loans: dict[str, int] = self._free_of(job)
        used, who = Counter(self.ledger.used), dict[str, None]()
        for held in sorted(self.ledger.running.values(), key=lambda h: -h.job.submit_s):
            tenant, kind = held.job.tenant, self.log.cluster.nodes[held.placement[0][0]].type
            share = self.log.rules.quotas.get(tenant, Quota(1, 0)).share
            if tenant != job.tenant and used[tenant] - held.devices >= share:
                used[tenant] -= held.devices
                if kind in loans:
                    loans[kind] += held.devices
                    who[tenant] = None
        enough = max(loans.values(), default=0) >= job.devices
        return " and ".join(sorted(who)) if enough else ""

    def _free_of(self, job: Job) -> dict[str, int]:
        """Return the free devices of each type that a job may use."""
        ledger, nodes = self.ledger, self.log.cluster.nodes
        free = dict.fromkeys(job.types or self.log.cluster.types, 0)
        for i, node in enumerate(nodes):
            if node.type in free and i not in ledger.down and i not in ledger.drained:
                free[node.type] += (ledger.full[i] & ~ledger.busy[i]).bit_count()
        return free

    # -- at the end ------------------------------------------------------------------------------------

    def finish(self, end_s: float) -> None:
        """Promises whose time has passed without a start are broken, too."""
        for name, at in self.promised.items():
            if end_s > at and not self.ledger.near(end_s, at) and (
                    self.ledger.status.get(name) == "waiting"):  # fmt: skip
                self.fault(
                    7, f"job {name} was promised a start at {at:g} s and has none at {end_s:g} s"
                )
