"""What a scheduler is told and what it may decide: the in-process door.

A scheduler is any object with the three methods of `Scheduler`; no base class is needed. It is called
after all events of an instant, in the order finish, fail, repair, submit, timer. `on_event` may
return decisions or yield them: each is carried out before the next is asked for, and the view then
shows its effect. Nothing in the view may be changed. What a real scheduler could not know (true run
times, future events) is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ersatz.sim.fleet.cluster import Cluster, Placement
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.log import Claims, Record, Rules
from ersatz.sim.fleet.workload.jobs import Job


class SchedulerFault(Exception):
    """Raised by a scheduler's door: why it cannot go on, as a clause after the scheduler's name."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start a waiting job on devices: its gang, whole."""

    job: str
    placement: Placement


@dataclass(frozen=True, slots=True)
class Preempt:
    """End a running job after the rules' grace; it waits again, from its checkpoint."""

    job: str
    mode: Literal["checkpoint", "kill"] = "checkpoint"  # all its work is saved, or only the latest
    for_job: str = ""  # checkpoint counts; and the job that it makes way for


@dataclass(frozen=True, slots=True)
class Resize:
    """Let a running job go on, on other devices or another number of them, from a checkpoint.

    It is an interruption like any other: under rules with a time of grace it has notice first, and
    if the devices are not free when that is over it waits again, as if preempted.
    """

    job: str
    placement: Placement


@dataclass(frozen=True, slots=True)
class Reserve:
    """Promise a waiting job its start; the promise is logged and judged."""

    job: str
    at_s: float
    placement: Placement = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse a waiting job for good."""

    job: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Call the scheduler at a time, whether anything happens or not."""

    time_s: float


@dataclass(frozen=True, slots=True)
class Drain:
    """Let a node take no new jobs, or (`undo`) take them again where it was the scheduler's drain."""

    node: int
    undo: bool = False


Decision = Start | Preempt | Resize | Reserve | Reject | WakeAt | Drain


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come, at this moment."""

    kept_s: float = 0.0  # work that is safe
    attempts: int = 0
    failures: int = 0
    served_s: float = 0.0  # device-seconds of attempts that have ended
    waits_since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A job that holds devices, as it stands; another takes its place when its rate changes."""

    job: Job
    placement: Placement
    devices: int
    start_s: float
    rate: float  # work seconds per second
    limit_s: float  # when it is ended at the latest, on the clock; infinite: never
    number: int  # 1 for the first attempt
    since_s: float = 0.0  # from when `rate` counts
    done_s: float = 0.0  # work done by `since_s`
    notice_s: float = 0.0  # when a preemption is due; 0: none
    nominal: float = 1.0  # rate without slow nodes
    first_rate: float = 1.0  # rate at its start, by which its limit is measured

    def work_at(self, now: float) -> float:
        """Return the work done at a time."""
        return self.done_s + max(now - self.since_s, 0.0) * self.rate


class View(Protocol):
    """The fleet as a scheduler sees it, always of this moment."""

    @property
    def now(self) -> float:
        """Seconds since the start."""

    @property
    def cluster(self) -> Cluster:
        """All nodes."""

    @property
    def rules(self) -> Rules:
        """What the fleet demands."""

    @property
    def free(self) -> Free:
        """Free devices, with their indexes."""

    @property
    def waiting(self) -> Mapping[str, Job]:
        """Jobs that may be started, by id, in the order in which they came (back)."""

    @property
    def arrived(self) -> Sequence[Job]:
        """Jobs that began to wait since the last call: new, or back after an interruption."""

    @property
    def running(self) -> Mapping[str, Attempt]:
        """Attempts that hold devices, by job id, in the order of their start."""

    @property
    def progress(self) -> Mapping[str, Progress]:
        """How far each job that was submitted and is not over has come."""

    @property
    def used(self) -> Mapping[str, int]:
        """Devices that each tenant holds."""

    @property
    def records(self) -> Sequence[Record]:
        """All that has happened so far, as in the log."""

    def speed(self, job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
        """Return the rate of a job on healthy devices of a type, spread over so many nodes and leaves."""

    def rate(self, job: Job, placement: Placement) -> float:
        """Return at which rate a placement would do a job's work now; 0: it cannot."""

    def rate_on(self, job: Job, kind: str, devices: int = 0) -> float:
        """Return the rate on so many devices (0: its gang) of a type, as close together as can be."""

    def served_s(self, job: str) -> float:
        """Return the device-seconds that a job has had."""


class Scheduler(Protocol):
    """The scheduler under test."""

    name: str
    claims: Claims

    def on_start(self, view: View) -> None:
        """Look at the fleet before the first event; `claims` hold from here on."""

    def on_event(
        self, now: float, events: Sequence[Record], view: View
    ) -> Iterable[Decision] | None:
        """Decide after the events of an instant; a time that was asked for has no record."""

    def on_end(self, view: View) -> None:
        """Let go of everything; called however the run ends."""


def crash_text(error: BaseException) -> str:
    """Say what broke and where: the innermost line of the traceback."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_name}, line {trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {error}{place}"
