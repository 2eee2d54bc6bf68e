"""Hand a workload to a real Slurm at the times of its submissions, and bring its schedule back."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.doors.slurm.accounts import Accounts, accounts_of_fleet
from ersatz.sim.fleet.doors.slurm.carried import Rates, refuse_what_slurm_cannot
from ersatz.sim.fleet.doors.slurm.daemons import Running, SlurmError, running
from ersatz.sim.fleet.doors.slurm.given import Given
from ersatz.sim.fleet.doors.slurm.records import (
    ENDS,
    SLACK_S,
    WAITS_AGAIN,
    Completion,
    Submission,
    make_log,
    read_completions,
)
from ersatz.sim.fleet.doors.slurm.strikes import Strike, Struck, strikes
from ersatz.sim.fleet.doors.slurm.submit import sbatch_arguments, seconds_file, seconds_text
from ersatz.sim.fleet.engine.fleet import RunEndedError
from ersatz.sim.fleet.engine.outages import Outage
from ersatz.sim.fleet.log import Log, Rules
from ersatz.sim.fleet.workload.jobs import Workload

LOOK_S = 10.0  # real seconds without an end of a job, after which to look whether any runs
CLOCK_S = 0.05  # real seconds by which two readings of the fast clock may differ
STALL_S = 60.0  # real seconds in which no job ends although none runs
Advance = Callable[[str], None]


@dataclass(slots=True)
class Replay:
    """A replay under way."""

    slurm: Running
    cluster: Cluster
    workload: Workload
    advance: Advance
    rules: Rules = field(default_factory=Rules)
    rates: Mapping[str, Rates] = field(default_factory=dict)  # of jobs whose rate is not 1
    strikes: Iterator[Strike] = field(default_factory=lambda: iter(()))
    struck: list[Struck] = field(default_factory=list)
    next_strike: Strike | None = None
    away: set[int] = field(default_factory=set)  # nodes that take no jobs
    submissions: list[Submission] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)  # job -> Slurm's id

    def submit_all(self) -> None:
        """Submit every job when its time has come on the fast clock."""
        for job in self.workload.jobs:
            while (wait := job.submit_s - self.slurm.now()) > 0:
                self.strike_what_is_due()
                self.slurm.check()
                time.sleep(min(wait / self.slurm.site.speed, 0.1))
            rates = self.rates.get(job.id, {})
            words = sbatch_arguments(self.slurm.site, self.cluster, job, rates)
            seconds_file(self.slurm.site, job).write_text(seconds_text(job, rates))
            if job.after:
                names = ":".join(str(self.ids.get(name, 0)) for name in job.after)
                words = [f"--dependency=afterok:{names}", "--kill-on-invalid-dep=yes", *words]
            at = self.slurm.now()
            try:
                self.ids[job.id] = int(self.slurm.call("sbatch", *words))
                self.submissions.append(Submission(job, at, self.ids[job.id]))
            except SlurmError as error:
                self.slurm.check()
                self.submissions.append(Submission(job, at, refused=str(error)))
                self.advance(job.id)

    def strike_what_is_due(self) -> None:
        """Take nodes down and bring them back when their time has come."""
        if self.next_strike is None:
            self.next_strike = next(self.strikes, None)
        while self.next_strike and self.next_strike.at_s <= self.slurm.now():
            begin = float(math.floor(self.slurm.now()))
            if orders := self.next_strike.orders():
                self.slurm.call("scontrol", *orders)
            else:
                begin = self.struck[-1].from_s
            end = float(math.ceil(self.slurm.now()))
            self.struck.append(Struck(self.next_strike, begin, end))
            gone = self.next_strike.action in ("down", "drain")
            (self.away.add if gone else self.away.discard)(self.next_strike.node)
            self.next_strike = next(self.strikes, None)

    def wait_for_all(self) -> None:
        """Wait until every job that Slurm took is over; raises `SlurmError` when nothing moves."""
        over: set[int] = set()
        accepted = set(self.ids.values())
        moved = time.monotonic()
        while over < accepted:
            ended = {c.slurm_id for c in self.completions() if ENDS.get(c.state) not in WAITS_AGAIN}
            for slurm_id in sorted(ended - over):
                self.advance(str(slurm_id))
            idle_s = time.monotonic() - moved
            if ended > over or (idle_s > LOOK_S and self._may_go_on()):
                moved = time.monotonic()
            elif idle_s > STALL_S:
                raise SlurmError(f"slurm starts none of its {len(accepted - ended)} jobs any more:"
                                 f" {self._reasons()}")  # fmt: skip
            over = ended
            self.strike_what_is_due()
            self.slurm.check()
            time.sleep(0.1)

    def _may_go_on(self) -> bool:
        """Tell whether a job runs, or a node is away on which one may run later."""
        return bool(self.away) or bool(
            self.slurm.call("squeue", "--noheader", "--states=R,CG", "--format=%i").strip()
        )

    def _reasons(self) -> str:
        """Return why jobs wait, in Slurm's words, the commonest reason first."""
        words = self.slurm.call("squeue", "--noheader", "--states=PD", "--format=%r").splitlines()
        return ", ".join(f"{n} x {word}" for word, n in Counter(words).most_common(3))

    def completions(self) -> list[Completion]:
        """Return the attempts that have ended so far."""
        return read_completions(self.slurm.site.folder / "jobcomp.txt", self.slurm.origin)

    def log(self, about: dict[str, str], broken: str = "") -> Log:
        """Return what has happened so far."""
        site = self.slurm.site
        preempts = site.preempt or site.given is not None
        log = make_log(self.cluster, self.submissions, self.completions(), site.folder / "taken",
                       about, struck=self.struck, broken=broken, preempts=preempts,
                       quotas=self.rules.quotas, clock_s=max(SLACK_S, CLOCK_S * site.speed))  # fmt: skip
        if site.given:  # what its partitions and limits demand is not in the log
            log.claims = replace(log.claims, own_rules="slurm.conf")
        return log


def replay_on_slurm(
    cluster: Cluster, workload: Workload, *, speed: float = 200.0, rules: Rules | None = None,
    preempt: bool = False, outages: Sequence[Outage] = (), seed: int = 0,
    advance: Advance = lambda _: None, about: dict[str, str] | None = None,
    given: Given | None = None, accounts: Accounts | None = None,
    rates: Mapping[str, Rates] | None = None,
) -> Log:  # fmt: skip
    """Run a workload on real Slurm with emulated nodes and return its event log.

    Where the rules hold quotas or `given` needs them, and no `accounts` are given, each tenant has one.
    `rates` are those of jobs that do not run at rate 1 everywhere (`carried`). `speed` is virtual seconds
    in a real one. Raises `SlurmError` where Slurm is missing, `InputError` for what this door cannot
    carry, and `RunEndedError` with the log so far when Slurm gives up.
    """
    rules = rules or Rules()
    refuse_what_slurm_cannot(cluster, workload, rules)
    if accounts is None and (rules.quotas or (given and given.needs_base)):
        accounts = accounts_of_fleet(workload, rules.quotas)
    with running(cluster, workload, speed=speed, preempt=preempt, given=given,
                 accounts=accounts) as slurm:  # fmt: skip
        version = slurm.call("scontrol", "--version").strip()
        head = {"policy": f"{version}, sched/backfill", "workload": workload.name, "door": "slurm",
                "speed": f"{speed:g}", **(about or {})}  # fmt: skip
        slurm.begin()
        replay = Replay(slurm, cluster, workload, advance, rules, rates or {},
                        strikes(cluster, outages, seed))  # fmt: skip
        try:
            replay.submit_all()
            replay.wait_for_all()
        except SlurmError as error:
            raise RunEndedError(str(error), replay.log(head, str(error))) from error
        return replay.log(head)
