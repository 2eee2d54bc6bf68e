"""Many jobs on one fleet, under SimPy and a scheduler.

Events of one instant come in the order finish, fail, repair, submit, timer; then the scheduler is
asked once. A job advances in closed form between events. An impossible decision is logged as it was
taken and ends the run; whether the possible ones were right is judged afterwards, on the log.
Not modelled: traffic of one job beside another's, and the time that decisions take.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import simpy

from ersatz.sim.errors import InfeasibleError
from ersatz.sim.fleet.cluster import Cluster, Placement, size_of
from ersatz.sim.fleet.engine.decisions import carry_out
from ersatz.sim.fleet.engine.happening import DECIDE, FINISH, SUBMIT, TIMER, Happening
from ersatz.sim.fleet.engine.nodes import Nodes
from ersatz.sim.fleet.engine.outages import Outage, begin_outages
from ersatz.sim.fleet.engine.patience import MOST_DECISIONS, MOVES, Patience, why_waiting
from ersatz.sim.fleet.engine.view import FleetView, rate_of, slowness_of
from ersatz.sim.fleet.engine.watchdog import HangError, Watchdog
from ersatz.sim.fleet.fits import never_fits
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.log import BROKEN_OFF, FINAL, STARVED, Log, Record, Rules
from ersatz.sim.fleet.protocol import Attempt, Progress, Scheduler, SchedulerFault, crash_text
from ersatz.sim.fleet.workload.jobs import Job, Speed, Workload, trace_speed

MOVES_OR_ENDS = FINAL | MOVES
T = TypeVar("T")


class RunEndedError(InfeasibleError):
    """A run that could not go on: the message says why, `log` holds what happened so far."""

    def __init__(self, reason: str, log: Log) -> None:
        self.log = log
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """Everything that a run needs but the scheduler."""

    cluster: Cluster
    workload: Workload
    rules: Rules = field(default_factory=Rules)
    speed: Speed = trace_speed
    outages: tuple[Outage, ...] = ()
    seed: int = 0
    until_s: float = math.inf  # the run ends here, or when all jobs are over
    oracle: bool = False  # schedulers see true durations
    decision_limit_s: float = 60.0  # of real time; a scheduler that takes twice as long hangs
    first_wakeup: bool = True  # call the scheduler at time 0 even without events
    about: tuple[tuple[str, str], ...] = ()  # more for the log's head


def run_fleet(spec: FleetSpec, scheduler: Scheduler) -> Log:
    """Run a workload under a scheduler and return the event log.

    Raises `RunEndedError`, with the log so far, when a job can never run, when the scheduler
    crashes, hangs or decides what cannot be done, and when waiting jobs are never started.
    """
    return Fleet(spec, scheduler).run()


class Fleet:
    """The state of a run."""

    def __init__(self, spec: FleetSpec, scheduler: Scheduler) -> None:
        self.spec, self.scheduler = spec, scheduler
        self.cluster, self.rules = spec.cluster, spec.rules
        self.env = simpy.Environment()
        self.free = Free(spec.cluster)
        self.waiting: OrderedDict[str, Job] = OrderedDict()
        self.running: dict[str, Attempt] = {}
        self.progress: dict[str, Progress] = {}
        self.used: Counter[str] = Counter()
        self.arrived: list[Job] = []  # since the last call, as the scheduler sees them
        self._arriving: list[Job] = []  # since this one
        self.nodes = Nodes(self)
        self.slowed = self.nodes.slowed
        about = {"policy": scheduler.name, "workload": spec.workload.name, "seed": str(spec.seed)}
        self.log = Log(spec.cluster, spec.rules, scheduler.claims, about | dict(spec.about))
        self.held: dict[str, set[str]] = {}  # job -> those that it still has to wait for
        self.finished: set[str] = set()
        self.to_come = len(spec.workload.jobs)  # jobs not yet submitted
        self.left = self.to_come  # jobs not yet over
        self.timers: set[float] = set()  # when the scheduler wants to be asked
        self._on_node: dict[int, dict[str, None]] = {}
        self._ending: dict[str, simpy.Event] = {}
        self._unseen: list[Record] = []
        self.asked = False  # the scheduler will be, at the end of this instant
        self.patience = Patience(self)
        self.watchdog = Watchdog(spec.decision_limit_s)
        self.view = FleetView(self)

    # -- the run ---------------------------------------------------------------------------------

    def run(self) -> Log:
        """Let time pass until all jobs are over, or the run's time is up."""
        env, until = self.env, self.spec.until_s
        with self.watchdog:
            try:
                self._ask(partial(self.scheduler.on_start, self.view))
                self.log.claims = self.scheduler.claims
                for job in self.spec.workload.jobs:
                    Happening(env, SUBMIT, job.submit_s, partial(self._submit, job))
                begin_outages(self.nodes, self.spec.outages, self.spec.seed)
                if self.spec.first_wakeup:
                    self.ask_soon()
                while (self.left or self.asked or until < math.inf) and env.peek() < until:
                    env.step()
                    if until == math.inf:
                        self.patience.struck()
                if self.left and until == math.inf:
                    raise self.ended(f"nothing more happens, but {why_waiting(self)}", STARVED)
            except BaseException:
                # it hears the end as ever; what it breaks on then is not why the run ended
                with suppress(Exception, HangError, SystemExit):
                    self._watched(partial(self.scheduler.on_end, self.view))
                raise
            self._ask(partial(self.scheduler.on_end, self.view))
        self.write("end", value=float(self.left > 0), at=until if until < math.inf else None,
                   detail="time is up" if self.left else "all jobs are over")  # fmt: skip
        return self.log

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self.env.now

    @property
    def records(self) -> list[Record]:
        """All that has happened so far."""
        return self.log.records

    @property
    def jobs(self) -> Mapping[str, Job]:
        """All jobs, with their true run times."""
        return self.spec.workload.by_id

    def ended(self, reason: str, how: int = BROKEN_OFF) -> RunEndedError:
        """Return the error that ends the run, noted in the log."""
        self.write("end", value=how, detail=reason)
        return RunEndedError(reason, self.log)

    def write(
        self, event: str, job: str = "", placement: Placement = (), node: int = -1,
        value: float = 0.0, detail: str = "", *, at: float | None = None,
    ) -> None:  # fmt: skip
        """Add a record to the log."""
        time_s = self.env.now if at is None else at
        self.log.records.append(Record(time_s, event, job, placement, node, value, detail))
        if event in MOVES_OR_ENDS:
            self.patience.moved(event)

    def tell(self) -> None:
        """Let the scheduler know of the latest record."""
        self._unseen.append(self.log.records[-1])
        self.ask_soon()

    # -- the scheduler ---------------------------------------------------------------------------

    def ask_soon(self) -> None:
        """Ask the scheduler at the end of this instant."""
        if not self.asked:
            self.asked = True
            Happening(self.env, DECIDE, 0.0, self._decide)

    def wake_at(self, time_s: float) -> None:
        """Ask the scheduler at a time."""
        if time_s in self.timers:
            return
        self.timers.add(time_s)
        self.patience.timed()

        def wake(_: simpy.Event) -> None:
            self.timers.discard(time_s)
            self.ask_soon()

        Happening(self.env, TIMER, max(time_s - self.env.now, 0.0), wake)

    def _decide(self, _: simpy.Event) -> None:
        """Ask the scheduler, and carry out its decisions one by one."""
        self.asked = False
        events, self._unseen = self._unseen, []
        self.patience.called(len(events))
        self.arrived[:], self._arriving = self._arriving, []
        on_event = self.scheduler.on_event
        decisions = self._ask(lambda: iter(on_event(self.env.now, events, self.view) or ()))
        for _number in range(MOST_DECISIONS):
            decision = self._ask(lambda: next(decisions, None))
            if decision is None:
                break
            carry_out(self, decision)
        else:
            raise self.patience.decided_too_often()
        self.patience.answered()

    def _ask(self, question: Callable[[], T]) -> T:
        """Let the scheduler work, watched; its exceptions end the run."""
        try:
            return self._watched(question)
        except HangError:
            limit = self.spec.decision_limit_s
            raise self.ended(f"{self.scheduler.name} hangs: no answer in {limit:g} s") from None
        except SchedulerFault as fault:
            raise self.ended(f"{self.scheduler.name} {fault}") from fault
        except (Exception, SystemExit) as error:
            raise self.ended(f"{self.scheduler.name} crashed: {crash_text(error)}") from error

    def _watched(self, question: Callable[[], T]) -> T:
        watch = self.watchdog
        watch.number += 1
        watch.inside = True
        try:
            return question()
        finally:
            watch.inside = False

    # -- jobs ------------------------------------------------------------------------------------

    def _submit(self, job: Job, _: simpy.Event) -> None:
        """Let a job enter the fleet; it waits at once unless other jobs must finish before."""
        self.to_come -= 1
        self.log.jobs[job.id] = job
        self.write("submit", job.id)
        self.tell()
        self.progress[job.id] = Progress(waits_since_s=self.env.now)
        if why := never_fits(self.cluster, self.rules, job):
            raise self.ended(f"job {job.id} can never run: it {why}")
        missing = set(job.after) - self.finished
        if missing:
            self.held[job.id] = missing
        else:
            self._wait(job.id)

    def _wait(self, name: str) -> None:
        """Let a job wait for devices, for the first time or again."""
        job = self.jobs[name]
        seen = job if self.spec.oracle else self.spec.workload.seen(name)
        self.waiting[name] = seen
        self._arriving.append(seen)

    def begin(self, job: Job, placement: Placement) -> None:
        """Start an attempt on devices that are free."""
        now, progress = self.env.now, self.progress[job.id]
        del self.waiting[job.id]
        nominal = self.rate(job, placement)
        rate = nominal * slowness_of(self, placement) if self.slowed else nominal
        number = progress.attempts + 1
        self.progress[job.id] = Progress(
            progress.kept_s, number, progress.failures, progress.served_s, progress.waits_since_s
        )
        attempt = Attempt(
            job, placement, size_of(placement), now, rate, now + job.walltime_s / rate, number,
            now + (job.restart_s if number > 1 else 0.0), progress.kept_s, 0.0, nominal, rate,
        )  # fmt: skip
        self.write("start", job.id, placement, value=rate)
        self.free.take(job, placement)
        self.running[job.id] = attempt
        self.used[job.tenant] += attempt.devices
        for node, _ in placement:
            self._on_node.setdefault(node, {})[job.id] = None
        self._plan_end(attempt)

    def _plan_end(self, attempt: Attempt) -> None:
        """Note when an attempt will end by itself."""
        name = attempt.job.id
        left = self.jobs[name].duration_s - attempt.done_s
        finish = max(attempt.since_s - self.env.now, 0.0) + left / attempt.rate
        limit = attempt.job.walltime_s / attempt.first_rate - (self.env.now - attempt.start_s)
        late = self.rules.enforce_walltime and limit < finish
        act = partial(self._end_itself, name, "timeout" if late else "finish")
        self._ending[name] = Happening(
            self.env, FINISH, min(limit, finish) if late else finish, act
        )

    def _end_itself(self, name: str, event: str, happening: simpy.Event) -> None:
        if self._ending.get(name) is not happening:
            return  # it was interrupted, or its rate has changed since
        attempt = self.running[name]
        done = attempt.work_at(self.env.now) if event == "timeout" else (
            self.jobs[name].duration_s)  # fmt: skip
        self.stop(attempt, event, done)
        self.tell()
        self._over(name, event)

    def stop(
        self, attempt: Attempt, event: str, kept: float, node: int = -1, detail: str = ""
    ) -> None:
        """End an attempt and free its devices; `kept` is the work that is not lost."""
        job = attempt.job
        self.write(event, job.id, attempt.placement, node, kept, detail)
        del self.running[job.id], self._ending[job.id]
        self.free.give(job, attempt.placement)
        self.used[job.tenant] -= attempt.devices
        for place, _ in attempt.placement:
            del self._on_node[place][job.id]
        progress = self.progress[job.id]
        self.progress[job.id] = Progress(
            kept, progress.attempts, progress.failures,
            progress.served_s + attempt.devices * (self.env.now - attempt.start_s), self.env.now,
        )  # fmt: skip

    def requeue(self, name: str) -> None:
        """Let a job wait again after an interruption."""
        self._wait(name)
        self.ask_soon()

    def interrupt(self, attempt: Attempt, node: int, cause: str) -> None:
        """Let an attempt fail: the gang ends whole and falls back to its last checkpoint."""
        job = self.jobs[attempt.job.id]
        saved = self.progress[job.id].kept_s
        kept = max(saved, job.kept(attempt.work_at(self.env.now)))
        self.stop(attempt, "fail", kept, node, cause)
        self.tell()
        progress = self.progress[job.id]
        progress = self.progress[job.id] = replace(progress, failures=progress.failures + 1)
        if self.rules.max_failures and progress.failures > self.rules.max_failures:
            self.write("abandon", job.id, value=kept, detail=f"failed {progress.failures} times")
            self.tell()
            self._over(job.id, "abandon")
        else:
            self.requeue(job.id)

    def reject(self, name: str, reason: str) -> None:
        """Refuse a waiting job."""
        del self.waiting[name]
        self.write("reject", name, detail=reason)
        self._over(name, "reject")

    def _over(self, name: str, event: str) -> None:
        """Close the books on a job, and let those go that waited for it."""
        del self.progress[name]
        self.left -= 1
        if event == "finish":
            self.finished.add(name)
        for other, missing in list(self.held.items()):
            if name not in missing or other not in self.held:  # fallen with one before it
                continue
            if event != "finish":
                del self.held[other]
                self.write(
                    "reject", other, detail=f"job {name}, on which it depends, did not finish"
                )
                self.tell()
                self._over(other, "reject")
            elif missing := missing - {name}:
                self.held[other] = missing
            else:
                del self.held[other]
                self.write("ready", other)
                self.tell()
                self._wait(other)

    # -- speed -----------------------------------------------------------------------------------

    def speed(self, job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
        """Return the rate of a job on healthy devices of one type."""
        return self.spec.speed(job, kind, devices, nodes, leaves)

    def rate(self, job: Job, placement: Placement) -> float:
        """Return the rate of a job on healthy nodes."""
        return rate_of(self, job, placement)

    # -- nodes -----------------------------------------------------------------------------------

    def leave(self, node: int, cause: str) -> None:
        """Let all that runs on a node fail."""
        for name in list(self._on_node.get(node, ())):
            self.interrupt(self.running[name], node, cause)

    def keep_pace(self, node: int, cause: str) -> None:
        """Let what runs on a node go on at the speed that the node has now."""
        for name in list(self._on_node.get(node, ())):
            attempt = self.running[name]
            rate = attempt.nominal * slowness_of(self, attempt.placement)
            if rate != attempt.rate:
                attempt = self.running[name] = replace(
                    attempt, done_s=attempt.work_at(self.env.now), rate=rate,
                    since_s=max(attempt.since_s, self.env.now),
                )  # fmt: skip
                self.write("rate", name, node=node, value=rate, detail=cause)
                self._plan_end(attempt)
