"""Whether interruptions serve a purpose: a preemption makes room, a move gains something.

A preemption for a job is in vain when that job does not start soon afterwards; one for nobody, when
nobody else starts there. A move is in vain when it leads to where the job was, or to the same size
elsewhere, no faster and for nobody's sake. Single ones happen to honest schedulers (a node fails, another
job ends in between); conviction needs several, and more in vain than not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from ersatz.device_models.text.units import format_duration
from ersatz.sim.fleet.cluster import Cluster, Placement, size_of
from ersatz.sim.fleet.fits import spans
from ersatz.sim.fleet.judge.conduct import Conduct
from ersatz.sim.fleet.judge.properties import Fault
from ersatz.sim.fleet.log import FINAL, RELEASES, Log, Record

SOON_S = 900.0  # beyond the time of grace; Gavel's rounds last 360 s
SEVERAL = 3  # interruptions in vain
HALF = 0.5
HECTIC = 50  # interruptions of one job by the scheduler ...
HECTIC_S = 300.0  # ... after no longer than this, in the median
WITHHELD_S = 3600.0  # that a sound node is kept drained while jobs wait
CAUSES = frozenset({"down", "slow", "fail"})
Told = tuple[int, Fault]


@dataclass(slots=True)
class Open:
    """An interruption whose purpose has not shown yet."""

    at: int
    time_s: float
    job: str
    for_job: str
    taken: dict[int, int]  # node -> devices
    kind: str  # accelerator type
    since_s: float  # of the notice


@dataclass(slots=True)
class Tally:
    """Interruptions of one sort."""

    good: int = 0
    vain: int = 0
    at: int = -1  # the first in vain
    why: str = ""

    def note(self, at: int, why: str) -> None:
        """One more in vain."""
        self.vain += 1
        if self.at < 0:
            self.at, self.why = at, why

    @property
    def convicts(self) -> bool:
        """Tell whether they are no accident."""
        return self.vain >= SEVERAL and self.vain > HALF * (self.vain + self.good)


class Interruptions:
    """Watches a log that is sound so far."""

    def __init__(self, log: Log, conduct: Conduct) -> None:
        self.log, self.conduct = log, conduct
        self.open: list[Open] = []
        self.preempted, self.moved = Tally(), Tally()
        self.lasted: dict[str, list[float]] = defaultdict(list)  # attempts that were interrupted
        self._started: dict[str, tuple[float, float]] = {}  # since when, at which rate
        self._begun_at: dict[str, float] = {}  # latest start of each job
        self._notice: dict[str, float] = {}
        self._from: tuple[int, Record, float] | None = None  # a move whose start is due
        self._last_moved: dict[str, int] = {}
        self._drained: dict[int, tuple[int, float, str]] = {}
        self._unsound: set[int] = set()
        self._withheld: list[Fault] = []
        self._gone: set[str] = set()

    def see(self, at: int, r: Record) -> None:
        """Take note of a record."""
        if self.open and r.time_s > self.open[0].time_s:
            self._expire(r.time_s)
        event = r.event
        if event == "start":
            self._start(at, r)
        elif event in RELEASES:
            self._release(at, r)
        elif event == "notice":
            self._notice[r.job] = r.time_s
        if event in FINAL:
            self._gone.add(r.job)
        if r.node >= 0:
            self._see_node(at, r)

    # -- preemptions -------------------------------------------------------------------------------

    def _start(self, at: int, r: Record) -> None:
        kind = _kind(self.log.cluster, r.placement)
        self._started[r.job] = r.time_s, r.value
        self._begun_at[r.job] = r.time_s
        if self._from and self._from[1].job == r.job:
            self._judge_move(r)
        if self.open:
            self.open = [one for one in self.open if not self._serves(one, r, kind)]

    def _serves(self, one: Open, r: Record, kind: str) -> bool:
        """Tell whether a start is what an interruption was for."""
        overlaps = any(mask & one.taken.get(node, 0) for node, mask in r.placement)
        if one.for_job:
            served = r.job == one.for_job or (
                overlaps and r.job != one.job and self._stands_in(one, r)
            )
        elif r.job == one.job:
            served = kind != one.kind  # it goes on elsewhere, as it was meant to
            if not served and overlaps:
                self.preempted.note(one.at, "it starts again where it was, and nobody between")
                return True
        else:
            served = overlaps
        self.preempted.good += served
        return served

    def _stands_in(self, one: Open, r: Record) -> bool:
        """Tell whether another job may take what was taken for one: by what the scheduler claims."""
        jobs, meant = self.log.jobs, self.log.jobs.get(one.for_job)
        return self.log.claims.preempts == "any" or (
            meant is not None and jobs[r.job].priority >= meant.priority
        )

    def _release(self, at: int, r: Record) -> None:
        since, rate = self._started.pop(r.job, (r.time_s, 1.0))
        if r.event == "resize":
            self.lasted[r.job].append(r.time_s - since)
            self._from = at, r, rate
        elif r.event == "preempt":
            self.lasted[r.job].append(r.time_s - since)
            notice = self._notice.pop(r.job, r.time_s)
            self._open(at, r, r.detail.partition(" for ")[2], notice)

    def _open(self, at: int, r: Record, for_job: str, notice_s: float) -> None:
        if for_job and (for_job in self._gone or self._begun_at.get(for_job, -1.0) >= notice_s):
            self.preempted.good += for_job not in self._gone  # it had room sooner than expected
            return
        kind = _kind(self.log.cluster, r.placement)
        self.open.append(Open(at, r.time_s, r.job, for_job, dict(r.placement), kind, notice_s))

    def _expire(self, now: float) -> None:
        """Settle what has not shown its purpose in time."""
        patience = self.log.rules.grace_s + SOON_S + self.log.rules.slack_s
        kept = []
        for one in self.open:
            if one.for_job in self._gone:
                continue
            if now <= one.time_s + patience:
                kept.append(one)
                continue
            for_whom = f"job {one.for_job}, which does not start" if one.for_job else (
                "nobody: no other job starts there")  # fmt: skip
            self.preempted.note(one.at, f"it makes way for {for_whom} within {patience:g} s")
        self.open = kept

    # -- moves -------------------------------------------------------------------------------------

    def _judge_move(self, r: Record) -> None:
        """Compare where a job went with where it was."""
        assert self._from is not None
        at, before, rate = self._from
        self._from = None
        if before.placement == r.placement:
            return self.moved.note(at, "it is moved to where it was")
        cluster = self.log.cluster
        same = size_of(before.placement) == size_of(r.placement)
        closer = spans(cluster, r.placement) < spans(cluster, before.placement)
        leaves = any(node in self._drained for node, _ in before.placement)
        if not same or closer or leaves or r.value > rate:
            self.moved.good += 1
            return
        left = {n: m & ~dict(r.placement).get(n, 0) for n, m in before.placement}
        kind = _kind(cluster, before.placement)
        self.open.append(Open(at, r.time_s, r.job, "", left, kind, r.time_s))

    # -- nodes -------------------------------------------------------------------------------------

    def _see_node(self, at: int, r: Record) -> None:
        if r.event in CAUSES:
            self._unsound.add(r.node)
            self.open = [one for one in self.open if r.event != "down"]  # all plans are off
        elif r.event == "drain" and r.node not in self._drained:
            self._drained[r.node] = at, self.conduct.waited_s, r.detail
        elif r.event == "undrain":
            self._end_drain(r.node)

    def _end_drain(self, node: int) -> None:
        at, before, cause = self._drained.pop(node, (0, 0.0, ""))
        withheld = self.conduct.waited_s - before
        if cause.startswith("scheduler ") and node not in self._unsound and withheld > WITHHELD_S:
            name = self.log.cluster.nodes[node].name
            why = (f"{name} is kept from work for {format_duration(withheld)} while jobs wait, although"
                   " it had not failed or been slow")  # fmt: skip
            self._withheld.append(Fault(at, why, "conduct"))

    # -- what there is to say ----------------------------------------------------------------------

    def faults(self) -> Iterator[Told]:
        """Yield faults and remarks, each with the number of its property."""
        self._expire(float("inf") if self._ended_by_itself() else self.log.end_s)
        for tally, what in ((self.preempted, "preemptions"), (self.moved, "moves")):
            if tally.vain:
                severity = "conduct" if tally.convicts else "remark"
                why = (f"{tally.vain} of {tally.vain + tally.good} {what} are in vain. First: job"
                       f" {self.log.records[tally.at].job}: {tally.why}")  # fmt: skip
                yield 17, Fault(tally.at, why, severity, tally.vain)  # type: ignore[arg-type]
        for node in list(self._drained):
            self._end_drain(node)
        yield from ((18, fault) for fault in self._withheld)
        yield from self._hectic()

    def _ended_by_itself(self) -> bool:
        last = self.log.records[-1] if self.log.records else None
        return bool(last and last.event == "end" and last.value == 0)

    def _hectic(self) -> Iterator[Told]:
        """Yield the job that is interrupted most, if that is more than it can bear."""
        name = max(self.lasted, key=lambda n: len(self.lasted[n]), default="")
        times = self.lasted.get(name, [])
        if len(times) >= HECTIC and median(times) < HECTIC_S:
            at = next(i for i, r in enumerate(self.log.records)
                      if r.job == name and r.event in ("preempt", "resize"))  # fmt: skip
            why = (f"job {name} is interrupted {len(times):,} times by the scheduler, in the median after"
                   f" {format_duration(median(times))}")  # fmt: skip
            yield 19, Fault(at, why, "conduct", len(times))


def _kind(cluster: Cluster, placement: Placement) -> str:
    return cluster.nodes[placement[0][0]].type if placement else ""
