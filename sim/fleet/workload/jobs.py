"""What is to be run: jobs, their gangs, wishes and limits, and workloads of them.

A job is work in seconds at rate 1 (`duration_s`, e.g. its run time in a trace); a `Speed` says at
which rate a placement does it. A scheduler sees every field but the duration.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ersatz.device_models.text.names import EXPECTED, is_name

UNKNOWN = math.nan  # duration of a job as a scheduler sees it


@dataclass(frozen=True, slots=True)
class Job:
    """One job. All times in seconds; raises `ValueError` for impossible values.

    All devices of a job are given and taken together. Of `types` any one is allowed, and a gang
    keeps to one type unless `mixed`. Limits on nodes, leaves and pods count those that it spans;
    0 is no limit.
    """

    id: str
    submit_s: float
    devices: int  # gang size; 0: processors only
    duration_s: float  # work: run time at rate 1
    tenant: str = ""
    priority: int = 0  # higher is more urgent
    types: tuple[str, ...] = ()  # allowed accelerator types; empty: all
    walltime_s: float = (
        math.inf
    )  # at rate 1, of one attempt, ended after walltime_s / rate at start
    min_devices: int = 0  # elastic: it runs on min..max devices; 0: `devices`
    max_devices: int = 0
    checkpoint_s: float = 0.0  # work between checkpoints; 0: it starts over after a failure
    restart_s: float = 0.0  # at the start of each attempt but the first, without progress
    deadline_s: float = math.inf  # by when it should be done
    after: tuple[str, ...] = ()  # jobs that must have finished before
    max_nodes: int = 0
    max_leaves: int = 0
    max_pods: int = 0
    mixed: bool = False  # the gang may hold several types
    milli: int = 1000  # share of each device, in thousandths; below 1000 it may share
    cpu_milli: int = 0  # on each node that it uses
    memory_mib: int = 0
    model: str = ""  # what it trains, a key of speed tables
    name: str = ""  # as its trace calls it
    save_s: float = 0.0  # without progress, before it is preempted or moved with all its work

    def __post_init__(self) -> None:
        for what, names in (("", (self.id,)), ("tenant ", (self.tenant,) if self.tenant else ()),
                            ("type ", self.types), ("after ", self.after)):  # fmt: skip
            for name in names:
                if not is_name(name):
                    raise ValueError(f"job {what}{str(name)[:60]!r}: {EXPECTED}")
        if not (self.submit_s >= 0 and math.isfinite(self.submit_s)):
            raise ValueError(f"job {self.id}: submitted at {self.submit_s} s; expected 0 or later")
        if self.duration_s < 0 or math.isinf(self.duration_s):
            raise ValueError(f"job {self.id}: lasts {self.duration_s} s; expected 0 or more")
        if not (0 <= self.least <= self.devices <= self.most):
            raise ValueError(f"job {self.id}: expected 0 <= min <= devices <= max, found"
                             f" {self.least}, {self.devices}, {self.most}")  # fmt: skip
        if not 0 < self.milli <= 1000 or (self.milli < 1000 and self.devices > 1):
            raise ValueError(f"job {self.id}: {self.milli}/1000 of {self.devices} devices; expected"
                             " 1..1000, and whole devices in gangs")  # fmt: skip
        if not self.walltime_s > 0 or min(self.restart_s, self.checkpoint_s, self.save_s) < 0:
            raise ValueError(f"job {self.id}: expected a limit above 0 and other times not below")

    @property
    def least(self) -> int:
        """The fewest devices on which it runs."""
        return self.min_devices or self.devices

    @property
    def most(self) -> int:
        """The most devices on which it runs."""
        return self.max_devices or self.devices

    def seen(self) -> Job:
        """Return the job as a scheduler without an oracle sees it."""
        return replace(self, duration_s=UNKNOWN)

    def kept(self, work_s: float) -> float:
        """Return the work that survives a failure when `work_s` is done."""
        if not self.checkpoint_s:
            return 0.0
        return math.floor(work_s / self.checkpoint_s) * self.checkpoint_s


Speed = Callable[[Job, str, int, int, int], float]
"""(job, accelerator type, devices, nodes, leaves) -> work seconds per second; 0: it cannot run."""


def trace_speed(job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
    """Return the speed of a trace's own durations: rate 1, in proportion to devices if elastic."""
    return devices / job.devices if job.devices else 1.0


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs in the order of their submission. Raises `ValueError` for an id that stands twice."""

    jobs: tuple[Job, ...]
    name: str = "workload"
    source: str = ""
    by_id: dict[str, Job] = field(init=False, compare=False, repr=False)
    _seen: dict[str, Job] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.jobs, key=lambda job: job.submit_s))  # ties: as given
        by_id = {job.id: job for job in ordered}
        if len(by_id) < len(ordered):
            counts = Counter(job.id for job in ordered)
            twice = next(name for name in by_id if counts[name] > 1)
            raise ValueError(f"job id {twice!r} stands twice in {self.name}")
        object.__setattr__(self, "jobs", ordered)
        object.__setattr__(self, "by_id", by_id)
        object.__setattr__(self, "_seen", {})

    def seen(self, name: str) -> Job:
        """Return a job as schedulers without an oracle see it, the same each time."""
        found = self._seen.get(name)
        if found is None:
            found = self._seen[name] = self.by_id[name].seen()
        return found

    @property
    def device_s(self) -> float:
        """Device-seconds of all jobs at rate 1."""
        return math.fsum(job.duration_s * job.devices for job in self.jobs)
