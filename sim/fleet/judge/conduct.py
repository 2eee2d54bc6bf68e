"""How a scheduler treats what waits: idleness beside work, and who is passed over for whom.

Neither breaks a rule of a fleet, and much of it is how honest policies work: first come first served
lets devices idle behind its head, filling lets large gangs wait. So what is measured is a remark, and
bad conduct is only what no reason explains: idleness while *every* waiting job fits, and a priority,
tenant or class that is put behind another one again and again although it fits, came first, asks for
less time, has had less, and is owed more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ersatz.device_models.text.units import format_duration
from ersatz.sim.fleet.judge.properties import Fault, Severity
from ersatz.sim.fleet.judge.room import Room, Shape, shape_of
from ersatz.sim.fleet.log import RELEASES, Log, Record
from ersatz.sim.fleet.workload.jobs import Job

PATIENCE_S = 3600.0  # of idleness while every waiting job fits; some schedulers work in rounds
SEEN = 20_000  # instants at most at which the order of starts is looked at
CHOICES = 10  # between two groups, from which on a preference is called one
AGAINST = 0.05  # share of choices the other way up to which it is called systematic
MOSTLY, MANY, HALF = (
    0.2,
    40,
    0.5,
)  # ... or this share of so many, if no reason explains half of them
EXPLAINED = 0.9  # share of choices that one reason must explain
ORDERLY = 0.02  # share of starts out of order up to which a tenant's jobs go in theirs
PART = "class and tenant"
MOST_SHAPES = 64  # looked at in one instant
LONG_WAIT_S, OVERTAKEN, MOST_GROUPS = 3600.0, 10, 8  # for a remark
Told = tuple[int, Fault]


@dataclass(slots=True)
class Spell:
    """Idleness: the present spell, the longest, and all together."""

    since_s: float = -1.0
    at: int = -1  # record after which it began
    longest_s: float = 0.0
    longest_at: int = -1
    total_s: float = 0.0
    device_s: float = 0.0
    too_long: int = 0

    def last(self, at: int, now: float, until: float, devices: int) -> float:
        """Let it last until a time; returns how long it has lasted."""
        if self.since_s < 0:
            self.since_s, self.at = now, at
        self.total_s += until - now
        self.device_s += devices * (until - now)
        lasted = until - self.since_s
        if lasted > self.longest_s:
            self.longest_s, self.longest_at = lasted, self.at
        return lasted

    def end(self) -> None:
        """Devices and jobs have come together, or there is nothing to bring together."""
        self.since_s = -1.0


@dataclass(slots=True)
class Choices:
    """Starts of one group while a job of another waited that fits as well."""

    count: int = 0
    at: int = -1  # record of the first that no reason explains
    pair: tuple[str, str] = ("", "")
    reasons: Counter[str] = field(default_factory=Counter)


class Conduct:
    """Watches a log that is sound so far; `faults` tells at its end what there is to say."""

    def __init__(self, log: Log, promised: Mapping[str, float]) -> None:
        self.log, self.promised = log, promised
        self.room = Room(log)
        self.idle, self.all_fit = Spell(), Spell()
        self.choices: dict[tuple[str, str, str], Choices] = {}
        self.served: Counter[str] = Counter()
        self.waits: dict[str, tuple[float, int]] = {}  # job -> its wait, record of its first start
        self._begun: dict[str, tuple[float, int]] = {}  # running: since when, on how many devices
        self._fitting: list[tuple[str, str, Job]] | None = (
            None  # before the first start of an instant
        )
        self._started: tuple[int, Job, dict[str, int]] | None = None  # the first of an instant
        self.preferred: Counter[tuple[str, str]] = Counter()  # kind, group: starts before others
        self._classes = _classes(log)
        several = [len({j.tenant for j in log.jobs.values()}), len(set(self._classes.values())),
                   len({j.priority for j in log.jobs.values()})]  # fmt: skip
        starts = sum(r.event == "start" for r in log.records) if max(several) > 1 else 0
        self._stride = max(-(-starts // SEEN), 1)
        self._look = max(several) > 1
        self._instants = 0
        self._first_of: dict[str, str] = {}  # tenant -> its first waiting job, likewise
        self.seen = self.out_of_order = (
            0  # first starts looked at, and those not of a tenant's first
        )
        self.waited_s = 0.0  # in which anything waited
        self._last: tuple[Shape | None, Shape | None] = (None, None)  # that fitted, that did not

    def see(self, at: int, r: Record) -> None:
        """Take note of a record."""
        if r.event == "start":
            self._see_start(at, r)
        elif r.event in RELEASES and r.job in self._begun:
            since, devices = self._begun.pop(r.job)
            self.served[r.job] += int(devices * (r.time_s - since))
        self.room.book(r)

    def _see_start(self, at: int, r: Record) -> None:
        job = self.log.jobs[r.job]
        if r.job not in self.waits:
            self.waits[r.job] = r.time_s - job.submit_s, at
        self._begun[r.job] = r.time_s, job.devices
        if not self._look:
            return
        if self._fitting is None:
            self._instants += 1
            sampled = self._instants % self._stride == 0 and not (
                self.log.claims.backfill and self.promised
            )
            self._fitting = list(self._that_fit()) if sampled else []
            self.seen += sampled
            self.out_of_order += sampled and self._first_of.get(job.tenant, job.id) != job.id
            self._started = at, job, dict(self.room.used)

    def _that_fit(self) -> Iterator[tuple[str, str, Job]]:
        """Yield of each priority and class the first job that fits, and each tenant's first if it fits.

        Within a tenant the order is its own: behind its first job none is passed over.
        """
        heads: dict[str, tuple[float, Job, Shape]] = {}
        found: dict[tuple[str, str], Job] = {}
        kinds = ("priority", "class", PART)
        for shape, jobs in list(self.room.waiting.items())[:MOST_SHAPES]:
            job = next(iter(jobs.values()))
            if job.tenant not in heads or job.submit_s < heads[job.tenant][0]:
                heads[job.tenant] = job.submit_s, job, shape
            if self.room.fits(shape):
                for key in ((kind, self._group(kind, job)) for kind in kinds):
                    if key not in found or job.submit_s < found[key].submit_s:
                        found[key] = job
        for tenant, (_, job, shape) in heads.items():
            if self.room.fits(shape):
                found["tenant", tenant] = job
        self._first_of = {tenant: job.id for tenant, (_, job, _) in heads.items()}
        yield from ((kind, group, job) for (kind, group), job in found.items())

    # -- what lasts from now to the next instant ---------------------------------------------------

    def settle(self, at: int, now: float, until: float) -> None:
        """Look at the state that lasts from `now` to `until`, after record `at`."""
        if self._fitting:
            self._compare()
        self._fitting = self._started = None
        if until > now:
            self.waited_s += (until - now) * bool(self.room.waiting)
            self._look_for_idleness(at, now, until)

    def _look_for_idleness(self, at: int, now: float, until: float) -> None:
        fits = self._find(True) if self.room.waiting else None
        if fits is None:
            self.idle.end()
            return self.all_fit.end()
        devices = min(self.room.free.free, self.room.example[fits].devices)
        self.idle.last(at, now, until, devices)
        if self._find(False) is not None:
            return self.all_fit.end()
        patience = PATIENCE_S + self.log.rules.slack_s
        before = max(now - self.all_fit.since_s, 0.0) if self.all_fit.since_s >= 0 else 0.0
        if before <= patience < self.all_fit.last(at, now, until, devices):
            self.all_fit.too_long += 1

    def _find(self, fitting: bool) -> Shape | None:
        """Return a waiting shape that fits, or one that does not; the one found last is asked first."""
        room, known = self.room, self._last[not fitting]
        if known in room.waiting and room.fits(known) == fitting:
            return known
        found = next((s for s in room.waiting if room.fits(s) == fitting), None)
        self._last = (found, self._last[1]) if fitting else (self._last[0], found)
        return found

    # -- who was started, and who could have been --------------------------------------------------

    def _compare(self) -> None:
        for kind, theirs, passed in self._fitting or ():
            if passed.id not in self.room.waiting.get(shape_of(passed), ()):
                continue
            assert self._started is not None
            at, taken, used = self._started
            if kind == PART and self._classes.get(taken.id) != self._classes.get(passed.id):
                continue  # of one class, by whose job it is
            if (mine := self._group(kind, taken)) != theirs:
                reasons = self._reasons(taken, passed, used)
                self.preferred[kind, mine] += 1
                self._note(
                    kind,
                    mine if kind == "priority" else "",
                    theirs,
                    at,
                    (taken.id, passed.id),
                    reasons,
                )

    def _group(self, kind: str, job: Job) -> str:
        """Return a job's priority, tenant or class, or a tenant's part of its class."""
        if kind == PART:
            name = self._classes.get(job.id, "")
            return f"{name} of {job.tenant}" if name and job.tenant else ""
        if kind == "class":
            return self._classes.get(job.id, "")
        return str(job.priority) if kind == "priority" else job.tenant

    def _note(
        self, kind: str, mine: str, theirs: str, at: int, pair: tuple[str, str], reasons: set[str]
    ) -> None:
        choices = self.choices.setdefault((kind, mine, theirs), Choices())
        choices.count += 1
        choices.reasons.update(reasons)
        if choices.at < 0 and "came first" not in reasons:
            choices.at, choices.pair = at, pair

    def _reasons(self, taken: Job, passed: Job, used: Mapping[str, int]) -> set[str]:
        """Return what may have put one job before another; ties go to who came first."""
        first = taken.submit_s < passed.submit_s
        share = {t: self._part(t, used.get(t, 0)) for t in (taken.tenant, passed.tenant)}
        found = {
            "came first": first,
            "asks for less time": taken.walltime_s < passed.walltime_s
            or (first and taken.walltime_s == passed.walltime_s),
            "is due earlier": taken.deadline_s < passed.deadline_s
            or (first and taken.deadline_s == passed.deadline_s),
            "has had less": first or self.served[taken.id] < self.served[passed.id],
            "its tenant is owed more": first or share[taken.tenant] < share[passed.tenant]
            or (self._owns(taken, used) and not self._owns(passed, used)),
            "is more urgent": taken.priority > passed.priority
            or (first and taken.priority == passed.priority),
            "is smaller": taken.devices < passed.devices
            or (first and taken.devices == passed.devices),
            "its tenant has another one first": self._first_of.get(passed.tenant) != passed.id,
            "is larger": taken.devices > passed.devices
            or (first and taken.devices == passed.devices),
        }  # fmt: skip
        return {reason for reason, true in found.items() if true}

    def _owns(self, job: Job, used: Mapping[str, int]) -> bool:
        """Tell whether a job stays within its tenant's share, without borrowing."""
        quota = self.log.rules.quotas.get(job.tenant)
        return quota is not None and used.get(job.tenant, 0) + job.devices <= quota.share

    def _part(self, tenant: str, used: int) -> float:
        quota = self.log.rules.quotas.get(tenant)
        return used / max(quota.share if quota else 1, 1)

    # -- what there is to say ----------------------------------------------------------------------

    def faults(self) -> Iterator[Told]:
        """Yield faults and remarks, each with the number of its property."""
        yield from self._idleness()
        yield from self._preferences()
        yield from self._long_waits()

    @property
    def _grave(self) -> Severity:
        """What a configuration demands that the log does not hold is no bad conduct."""
        return "remark" if self.log.claims.own_rules else "conduct"

    def _idleness(self) -> Iterator[Told]:
        if (spell := self.all_fit).too_long:
            why = (f"every waiting job fits the idle devices for {format_duration(spell.longest_s)}"
                   f" and none is started; {format_duration(spell.total_s)} so in all")  # fmt: skip
            yield 15, Fault(spell.longest_at, why, self._grave, spell.too_long)
        elif (idle := self.idle).total_s:
            span = self.log.end_s - self.log.records[0].time_s
            why = (f"some job fits and waits {idle.total_s / max(span, 1e-9):.1%} of the time,"
                   f" {idle.device_s / 3600:,.0f} device-hours; the longest spell lasts"
                   f" {format_duration(idle.longest_s)}")  # fmt: skip
            if idle.longest_s > PATIENCE_S:
                yield 15, Fault(idle.longest_at, why, "remark")

    def _preferences(self) -> Iterator[Told]:
        """Yield groups that are passed over without any reason that holds throughout."""
        for (kind, mine, theirs), choices in sorted(self.choices.items()):
            back = (self.choices.get((kind, theirs, mine), Choices()).count if kind == "priority"
                    else self.preferred[kind, theirs])  # fmt: skip
            if choices.count < CHOICES or back > MOSTLY * choices.count:
                continue
            if kind == "priority" and int(mine) > int(theirs):
                continue
            no_reason = {"is smaller", "is larger"} if kind == "priority" else set[str]()
            if self.out_of_order > ORDERLY * self.seen:  # it does not go by that
                no_reason.add("its tenant has another one first")
            best = max(
                (n for reason, n in choices.reasons.items() if reason not in no_reason), default=0
            )
            always = back <= AGAINST * choices.count and best < EXPLAINED * choices.count
            mostly = kind != "priority" and choices.count >= MANY and best < HALF * choices.count
            if always or mostly:
                why = (f"{kind} {theirs or 'none'} is passed over {choices.count} times"
                       f"{f' for priority {mine}' if mine else ''} and preferred {back} times where both"
                       f" fit; not for coming first, time asked or had, quota or size. First: job"
                       f" {choices.pair[0]} before job {choices.pair[1]}")  # fmt: skip
                yield 16, Fault(choices.at, why, self._grave, choices.count)

    def _long_waits(self) -> Iterator[Told]:
        """Remark on the longest wait of a priority or a tenant that many later jobs overtook."""
        priorities = {job.priority for job in self.log.jobs.values()}
        worst: dict[tuple[str, object], tuple[float, str]] = {}
        for name, job in self.log.jobs.items():
            wait = self.waits.get(name, (self.log.end_s - job.submit_s, -1))[0]
            for group in (("priority", job.priority), ("tenant", job.tenant)):
                worst[group] = max(worst.get(group, (0.0, "")), (wait, name))
        lowest = min(priorities, default=0)
        longest = sorted(((wait, name, group) for group, (wait, name) in worst.items()
                          if wait > LONG_WAIT_S and group != ("priority", lowest)),
                         key=lambda one: (-one[0], one[1]))[:MOST_GROUPS]  # fmt: skip
        found = [(n, wait, name, group) for wait, name, group in longest
                 if (n := self._overtakers(name, group[0])) >= OVERTAKEN]  # fmt: skip
        if found:
            count, wait, name, (kind, value) = max(found, key=lambda f: f[:2])
            what = "of lower priority" if kind == "priority" else "of other tenants"
            why = (f"job {name} of {kind} {value or 'none'} waits {format_duration(wait)}, the longest"
                   f" of it, while {count} jobs {what} that came later start")  # fmt: skip
            yield 16, Fault(self._record_of(name), why, "remark", len(found))

    def _overtakers(self, name: str, kind: str) -> int:
        """Count the jobs that came later than one, started earlier, and had no better claim."""
        job, jobs = self.log.jobs[name], self.log.jobs
        start_s = job.submit_s + self.waits.get(name, (self.log.end_s - job.submit_s, -1))[0]
        return sum(
            job.submit_s < jobs[n].submit_s and jobs[n].submit_s + wait < start_s
            and (jobs[n].priority < job.priority if kind == "priority" else
                 jobs[n].tenant != job.tenant and jobs[n].priority <= job.priority)
            for n, (wait, _) in self.waits.items()
        )  # fmt: skip

    def _record_of(self, name: str) -> int:
        at = self.waits.get(name, (0.0, -1))[1]
        return at if at >= 0 else len(self.log.records) - 1


def _classes(log: Log) -> dict[str, str]:
    """Return the class of each job: what stands before its number; empty where there are too many."""
    found = {name: name.rpartition("-")[0] if name.rpartition("-")[2].isdigit() else ""
             for name in log.jobs}  # fmt: skip
    return found if len(set(found.values())) <= 20 else {}
