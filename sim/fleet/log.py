"""The one event log behind all doors: flat records with fixed columns, in the order of events.

Every door writes it, the validator judges it, the metrics are computed from it.

| event | job | devices | node | value | detail |
|---|---|---|---|---|---|
| submit | id | | | | the job itself (in files, as JSON) |
| ready | id | | | | its last dependency has finished |
| start | id | taken | | rate: work seconds per second | |
| rate | id | | | new rate | why |
| finish | id | freed | | work done, all of it | |
| fail | id | freed | the lost one | work kept | cause; the job waits again |
| preempt | id | freed | | work kept | mode, and the job that it makes way for |
| resize | id | freed | | work kept | a start on other devices follows at once |
| timeout | id | freed | | work done | ended at its limit; final |
| abandon | id | | | work kept | failed too often; final |
| reject | id | | | | reason; final |
| notice | id | | | when it will be preempted | the job that it makes way for |
| reserve | id | reserved, or none | | promised start | |
| down, up | | | which | | cause |
| drain, undrain | | | which | | cause; it takes no new jobs |
| slow | | | which | factor on rates, 1: as new | cause |
| end | | | | how: 0 all jobs are over, 1 time is up, 2 broken off, 3 nothing is started | why |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ersatz.sim.fleet.cluster import Cluster, Placement
from ersatz.sim.fleet.workload.jobs import Job

EVENTS = ("submit", "ready", "start", "rate", "finish", "fail", "preempt", "resize", "timeout",
          "abandon", "reject", "notice", "reserve", "down", "up", "drain", "undrain", "slow",
          "end")  # fmt: skip
RELEASES = frozenset({"finish", "fail", "preempt", "resize", "timeout"})  # give devices back
FINAL = frozenset({"finish", "timeout", "abandon", "reject"})  # after which a job is over
DONE, TIME_UP, BROKEN_OFF, STARVED = range(4)  # values of `end`
COLUMNS = ("time_s", "event", "job", "devices", "node", "value", "detail")


class Record(NamedTuple):
    """One event; see the table above for what its columns mean."""

    time_s: float
    event: str
    job: str = ""
    placement: Placement = ()
    node: int = -1
    value: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Quota:
    """What a tenant may hold. Between its share and its limit it borrows what others leave."""

    share: int  # devices guaranteed to it
    limit: int  # devices that it never exceeds


@dataclass(frozen=True, slots=True)
class Rules:
    """What the fleet demands of any scheduler."""

    quotas: Mapping[str, Quota] = field(default_factory=dict)  # by tenant; missing: no limit
    grace_s: float = 0.0  # from the notice of a preemption to its execution
    max_failures: int = 0  # after which a job is abandoned; 0: never
    enforce_walltime: bool = True  # end attempts at their limit
    slack_s: float = 0.0  # how exactly times are kept; real schedulers need some seconds


@dataclass(frozen=True, slots=True)
class Claims:
    """What a scheduler promises of itself; the validator holds it to that."""

    backfill: str = ""  # 'easy': the head's reservation is kept; 'conservative': everyone's
    preempts: str = "never"  # 'lower': jobs of lower priority than the one it makes way for; 'any'
    work_conserving: bool = False  # no idle devices beside a waiting job that fits them
    max_wait_s: float = 0.0  # no job waits longer for its first start; 0: nothing promised
    reclaim_s: float = 0.0  # borrowed devices are back so soon after their owner asks; 0: ditto
    own_rules: str = ""  # a configuration beyond the fleet's rules that a built-in one carries out


@dataclass(slots=True)
class Log:
    """A run as it went: the fleet, its rules, the scheduler's claims, and all records."""

    cluster: Cluster
    rules: Rules = field(default_factory=Rules)
    claims: Claims = field(default_factory=Claims)
    about: dict[str, str] = field(default_factory=dict)  # policy, seed, workload, door, ...
    jobs: dict[str, Job] = field(default_factory=dict)  # those submitted so far
    records: list[Record] = field(default_factory=list)

    @property
    def end_s(self) -> float:
        """Time of the last record."""
        return self.records[-1].time_s if self.records else 0.0
