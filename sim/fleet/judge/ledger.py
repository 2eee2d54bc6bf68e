"""Who holds what, replayed from an event log alone: the ground on which a log is judged.

The ledger knows nothing of the fleet's run: it books what the records say and notes the first
record that cannot be true or breaks a rule. Faults carry the number of the property in
`ersatz.sim.fleet.judge.validate.PROPERTIES`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ersatz.sim.fleet.cluster import Placement, size_of, slots
from ersatz.sim.fleet.fits import broken_wish, never_fits
from ersatz.sim.fleet.judge.waiting import Waiting
from ersatz.sim.fleet.log import FINAL as CLOSED
from ersatz.sim.fleet.log import Log, Record
from ersatz.sim.fleet.workload.jobs import Job

ROUNDING = 1e-6  # relative, of sums of times


@dataclass(slots=True)
class Held:
    """An attempt in progress."""

    job: Job
    placement: Placement
    devices: int
    start_s: float
    before_s: float  # work that was safe at its start
    since_s: float  # from when work counts at `rate`
    done_s: float
    rate: float
    first_rate: float  # at its start, by which its limit is measured
    notice_s: float = -1.0

    def work_at(self, now: float) -> float:
        """Return the work done at a time."""
        return self.done_s + max(now - self.since_s, 0.0) * self.rate


class Ledger:
    """The state of fleet and jobs as the records tell it."""

    def __init__(self, log: Log, fault: Callable[[int, str], None]) -> None:
        self.log, self.fault = log, fault
        nodes = log.cluster.nodes
        self.full = [(1 << n.devices) - 1 for n in nodes]
        self.busy = [0] * len(nodes)
        self.shares: dict[tuple[int, int], int] = {}  # (node, device) -> thousandths in use
        self.cpu = [n.cpu_milli for n in nodes]
        self.memory = [n.memory_mib for n in nodes]
        self.down: set[int] = set()
        self.drained: dict[int, str] = {}  # node -> by whom
        self.moving: dict[str, int] = {}  # jobs whose start elsewhere is due, devices before
        self.status: dict[str, str] = {}  # job -> waiting, held, running, or its final state
        self.order: dict[str, int] = {}  # job -> how many were known before it
        self.waiting = Waiting(log.jobs)
        self.running: dict[str, Held] = {}
        self.on_node: dict[int, set[str]] = {}
        self.kept: dict[str, float] = {}
        self.attempts: Counter[str] = Counter()
        self.used: Counter[str] = Counter()
        self.struck: dict[str, int] = {}  # jobs that must end in this instant, and the lost node
        self.now = 0.0
        self.book: dict[str, Callable[[Record], None]] = {
            "submit": self.submit, "ready": self.ready, "start": self.start, "rate": self.change_rate,
            "finish": self.finish, "fail": self.fail, "preempt": self.preempt, "resize": self.resize,
            "timeout": self.timeout, "abandon": self.close, "reject": self.reject,
            "notice": self.notice, "down": self.lose, "up": self.restore, "drain": self.drain,
            "undrain": self.undrain,
        }  # fmt: skip

    def near(self, a: float, b: float) -> bool:
        """Tell whether two times are the same but for rounding and the slack of the rules."""
        return a == b or abs(a - b) <= ROUNDING * max(1.0, abs(a), abs(b)) + self.log.rules.slack_s

    def _become(self, name: str, state: str) -> None:
        before = self.status.get(name)
        if before is None:
            self.order[name] = len(self.order)
        elif before == "waiting":
            self.waiting.discard(name, self.order[name])
        self.status[name] = state
        if state == "waiting":
            self.waiting.add(name, self.order[name])

    # -- jobs come and go ------------------------------------------------------------------------

    def submit(self, r: Record) -> None:
        """A job appears, once, and not before its time."""
        job = self.log.jobs.get(r.job)
        if job is None or r.job in self.status:
            return self.fault(3, "submitted twice" if job else "submitted without a description")
        if not self.near(r.time_s, job.submit_s) and r.time_s < job.submit_s:
            self.fault(4, f"submitted before its time, {job.submit_s:g} s")
        waits = job.after and any(self.status.get(name) != "finish" for name in job.after)
        self._become(r.job, "held" if waits else "waiting")

    def ready(self, r: Record) -> None:
        """All dependencies of a job have finished."""
        job = self.log.jobs.get(r.job)
        if job and any(self.status.get(name) != "finish" for name in job.after):
            self.fault(4, "declared ready before its dependencies have finished")
        self._become(r.job, "waiting")

    def start(self, r: Record) -> None:
        """A waiting job gets its gang, whole, on devices that are free."""
        status = self.status.get(r.job)
        if status != "waiting":
            if status in (None, "held"):
                return self.fault(4, "started before it was submitted" if status is None else
                                  "started before its dependencies have finished")  # fmt: skip
            return self.fault(3, "started while it was running" if status == "running"
                              else f"started after its end ({status})")  # fmt: skip
        job = self.log.jobs[r.job]
        devices = size_of(r.placement)
        self._take(r, job)
        if not job.least <= devices <= job.most:
            self.fault(2, f"was given {devices} devices, its gang takes {job.least}"
                          + (f" to {job.most}" if job.most > job.least else ""))  # fmt: skip
        if (job.types or len(r.placement) > 1) and (
            why := broken_wish(self.log.cluster, job, r.placement)
        ):
            self.fault(5, why)
        if self.moving.pop(r.job, 0) == devices and self.log.claims.preempts == "never":
            self.fault(9, "moved by a scheduler that says it never interrupts")
        self.used[job.tenant] += devices
        quota = self.log.rules.quotas.get(job.tenant)
        if quota and self.used[job.tenant] > quota.limit:
            self.fault(
                6, f"tenant {job.tenant} holds {self.used[job.tenant]}, its limit is {quota.limit}"
            )
        kept = self.kept.get(r.job, 0.0)
        pause = job.restart_s if self.attempts[r.job] else 0.0
        self.attempts[r.job] += 1
        self._become(r.job, "running")
        self.running[r.job] = Held(job, r.placement, devices, r.time_s, kept, r.time_s + pause, kept,
                                   r.value, r.value)  # fmt: skip

    def _take(self, r: Record, job: Job) -> None:
        """Book the devices of a start, and check that nobody else holds them."""
        for node, mask in r.placement:
            name = self.log.cluster.nodes[node].name
            if node in self.down or node in self.drained:
                self.fault(
                    10, f"started on {name}, which is {'down' if node in self.down else 'drained'}"
                )
            if mask & ~self.full[node]:
                self.fault(1, f"{name} has no such devices")
            if job.milli < 1000:
                self._share(node, mask, job.milli)
            elif clash := self.busy[node] & mask:
                self.fault(1, f"device {next(slots(clash))} of {name} is held by"
                              f" {', '.join(self._holders(node, clash)) or 'nobody known'}")  # fmt: skip
            self.busy[node] |= mask
            self.cpu[node] -= job.cpu_milli
            self.memory[node] -= job.memory_mib
            if self.cpu[node] < 0 or self.memory[node] < 0:
                self.fault(1, f"{name} lacks {'processors' if self.cpu[node] < 0 else 'memory'}")
            self.on_node.setdefault(node, set()).add(r.job)

    def _share(self, node: int, mask: int, milli: int) -> None:
        """Book shares of devices: together they make one device at most."""
        for slot in slots(mask):
            whole = self.busy[node] >> slot & 1 and (node, slot) not in self.shares
            now = self.shares.get((node, slot), 0) + milli
            self.shares[(node, slot)] = now
            if now > 1000 or whole:
                name = self.log.cluster.nodes[node].name
                self.fault(1, f"device {slot} of {name} is shared out beyond 1000/1000")

    def _holders(self, node: int, mask: int) -> list[str]:
        return sorted(f"job {name}" for name in self.on_node.get(node, ()) if name in self.running
                      and dict(self.running[name].placement).get(node, 0) & mask)  # fmt: skip

    def release(self, r: Record, final: str) -> Held | None:
        """An attempt ends and gives back exactly what it held."""
        held = self.running.pop(r.job, None)
        if held is None:
            self.fault(3, f"ended ({r.event}) without running")
            return None
        if r.placement != held.placement:
            self.fault(2, "gave back other devices than it held: a gang comes and goes whole")
        for node, mask in held.placement:
            if held.job.milli < 1000:
                mask = self._unshare(node, mask, held.job.milli)
            self.busy[node] &= ~mask
            self.cpu[node] += held.job.cpu_milli
            self.memory[node] += held.job.memory_mib
            self.on_node[node].discard(r.job)
        self.used[held.job.tenant] -= held.devices
        self.struck.pop(r.job, None)
        self._become(r.job, final)
        self.kept[r.job] = r.value
        work = held.work_at(r.time_s)
        if r.value > work and not self.near(r.value, work):
            self.fault(3, f"claims {r.value:g} s of work, {work:g} s were done")
        return held

    def _unshare(self, node: int, mask: int, milli: int) -> int:
        """Return the devices that are whole again after shares came back."""
        whole = 0
        for slot in slots(mask):
            self.shares[(node, slot)] -= milli
            if not self.shares[(node, slot)]:
                del self.shares[(node, slot)]
                whole |= 1 << slot
        return whole

    def finish(self, r: Record) -> None:
        """All work is done, no less."""
        held = self.release(r, "finish")
        if held and not self.near(r.value, held.job.duration_s):
            self.fault(3, f"finished with {r.value:g} s of work, it has {held.job.duration_s:g} s")
        elif held and not self.near(held.work_at(r.time_s), r.value):
            self.fault(3, f"finished after {held.work_at(r.time_s):g} s of work, not {r.value:g} s")

    def timeout(self, r: Record) -> None:
        """An attempt reaches its limit, not earlier."""
        held = self.release(r, "timeout")
        if held and held.first_rate > 0:
            limit = held.start_s + held.job.walltime_s / held.first_rate
            if r.time_s < limit and not self.near(r.time_s, limit):
                self.fault(3, f"ended at its limit before that, {limit:g} s")

    def fail(self, r: Record) -> None:
        """An attempt is lost: it falls back to its last checkpoint, not further."""
        held = self.release(r, "waiting")
        if held:
            self._check_kept(r, held)

    def preempt(self, r: Record) -> None:
        """An attempt makes way: after its grace, with its work as its mode says."""
        held = self.release(r, "waiting")
        if held is None:
            return
        self._check_notice(r, held, "preempted")
        if r.detail.startswith("kill"):
            self._check_kept(r, held)
        elif not self.near(
            r.value, saved := max(held.work_at(r.time_s - held.job.save_s), held.before_s)
        ):
            self.fault(9, f"kept {r.value:g} s of {saved:g} s saved for the preemption")
        self._check_right(r, held)

    def _check_notice(self, r: Record, held: Held, what: str) -> None:
        grace = self.log.rules.grace_s
        if grace and (held.notice_s < 0 or r.time_s < held.notice_s - self.log.rules.slack_s):
            self.fault(9, f"{what} without {grace:g} s of notice")

    def _check_right(self, r: Record, held: Held) -> None:
        """Preemption is claimed, and by whom it may come."""
        rule = self.log.claims.preempts
        other = self.log.jobs.get(r.detail.partition(" for ")[2])
        if rule == "never":
            self.fault(9, "preempted by a scheduler that says it never does")
        elif rule == "lower" and other is None:
            self.fault(9, "preempted for no job")
        elif rule == "lower" and other and held.job.priority >= other.priority:
            self.fault(9, f"of priority {held.job.priority} makes way for job {other.id} of priority"
                          f" {other.priority}")  # fmt: skip

    def _check_kept(self, r: Record, held: Held) -> None:
        """What is kept after a loss is the last checkpoint: no earlier one, and no more."""
        job, work = held.job, held.work_at(r.time_s)
        expected = max(held.before_s, job.kept(work))
        near_next = job.checkpoint_s and self.near(r.value, job.kept(work * (1 + ROUNDING)))
        if not self.near(r.value, expected) and not near_next:
            self.fault(
                9, f"kept {r.value:g} s of {work:g} s, its last checkpoint is at {expected:g} s"
            )

    def resize(self, r: Record) -> None:
        """An attempt is about to go on elsewhere."""
        held = self.release(r, "waiting")
        if held is None:
            return
        self.moving[r.job] = held.devices
        self._check_notice(r, held, "moved")
        saved = held.work_at(r.time_s - held.job.save_s)
        if not self.near(r.value, saved):
            self.fault(3, f"kept {r.value:g} s of {saved:g} s in a resize")

    def close(self, r: Record) -> None:
        """A job that does not run is given up."""
        if self.status.get(r.job) not in ("waiting", "held"):
            self.fault(3, f"{r.event} of a job that is {self.status.get(r.job, 'unknown')}")
        self._become(r.job, r.event)

    def reject(self, r: Record) -> None:
        """A job is turned away: only one that can never run, or not in time."""
        job = self.log.jobs.get(r.job)
        fallen = job and any(self.status.get(n) in CLOSED - {"finish"} for n in job.after)
        if job and not (fallen or r.time_s > job.deadline_s) and not never_fits(
                self.log.cluster, self.log.rules, job):  # fmt: skip
            self.fault(14, f"job {r.job} is rejected ({r.detail or 'without a word'}), although the"
                           f" fleet can run it")  # fmt: skip
        self.close(r)

    def change_rate(self, r: Record) -> None:
        """A running job becomes slower or faster."""
        held = self.running.get(r.job)
        if held is None:
            return self.fault(3, "changes its rate without running")
        held.done_s = held.work_at(r.time_s)
        held.since_s = max(held.since_s, r.time_s)
        held.rate = r.value

    def notice(self, r: Record) -> None:
        """A running job learns that it will be preempted."""
        held = self.running.get(r.job)
        if held is None:
            return self.fault(9, "gets notice without running")
        if r.value - r.time_s < self.log.rules.grace_s and not self.near(
                r.value - r.time_s, self.log.rules.grace_s):  # fmt: skip
            self.fault(9, f"gets {r.value - r.time_s:g} s of notice, the rules demand"
                          f" {self.log.rules.grace_s:g}")  # fmt: skip
        held.notice_s = r.value

    # -- nodes -----------------------------------------------------------------------------------

    def lose(self, r: Record) -> None:
        """A node goes down: every gang with a device on it must end in this instant."""
        if r.node in self.down:
            self.fault(10, "goes down twice")
        self.down.add(r.node)
        for name in self.on_node.get(r.node, ()):
            self.struck[name] = r.node

    def restore(self, r: Record) -> None:
        """A node comes back."""
        if r.node not in self.down:
            self.fault(10, "comes up without having been down")
        self.down.discard(r.node)

    def drain(self, r: Record) -> None:
        """A node takes no new jobs."""
        self.drained.setdefault(r.node, r.detail)

    def undrain(self, r: Record) -> None:
        """A node takes jobs again, because whoever drained it says so."""
        by = self.drained.pop(r.node, None)
        if r.detail.startswith("scheduler ") and by != r.detail:
            name = self.log.cluster.nodes[r.node].name
            self.fault(
                18, f"{name} is undrained by {r.detail}, but was drained by {by or 'nobody'}"
            )
