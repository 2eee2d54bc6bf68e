"""What Kueue's configuration says, and what it decides on: plain descriptions.

Amounts are whole numbers of the smallest unit that a reader chooses, so that comparisons are exact.
Field names follow Kueue's API (`kueue.x-k8s.io/v1beta2`, read at commit ff69552e79ad of 2026-08-22).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

FlavorResource = tuple[str, str]
Amounts = dict[FlavorResource, int]
Within = Literal["never", "lower", "lower-or-newer"]
Reclaim = Literal["never", "lower", "any"]
Search = Literal["stop", "next"]
Taint = tuple[str, str, str]  # key, value, effect
PODS = "pods"
LONG_AGO = float("-inf")


@dataclass(frozen=True, slots=True)
class Quota:
    """Of one flavor and resource; None is no limit."""

    nominal: int
    borrow: int | None = None
    lend: int | None = None


@dataclass(frozen=True, slots=True)
class ResourceGroup:
    """Resources that are given by one flavor together, and the flavors in order of preference."""

    resources: tuple[str, ...]
    flavors: tuple[str, ...]
    quotas: Mapping[FlavorResource, Quota]


@dataclass(frozen=True, slots=True)
class Flavor:
    """Nodes of one kind."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    tolerations: tuple[Taint, ...] = ()  # value '' tolerates any
    topology: str = ""


@dataclass(frozen=True, slots=True)
class CohortSpec:
    """An inner node of the tree of quotas."""

    name: str
    parent: str = ""
    groups: tuple[ResourceGroup, ...] = ()
    weight: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A ClusterQueue."""

    name: str
    cohort: str = ""
    strict: bool = False  # StrictFIFO; else BestEffortFIFO
    groups: tuple[ResourceGroup, ...] = ()
    weight: Fraction = Fraction(1)
    within: Within = "never"
    reclaim: Reclaim = "never"
    borrow_lower: bool = False  # borrowWithinCohort: LowerPriority
    borrow_most: int | None = None  # its maxPriorityThreshold
    when_borrow: Search = "stop"
    when_preempt: Search = "next"
    prefer_preemption: bool = False  # PreemptionOverBorrowing
    hold: bool = False
    inactive: str = ""  # why, if it is


@dataclass(frozen=True, slots=True)
class Wish:
    """What a podset asks of the topology."""

    required: str = ""
    preferred: str = ""
    unconstrained: bool = False
    slices: tuple[tuple[str, int], ...] = ()  # (level, size), the outermost first
    group: str = ""

    @property
    def implied(self) -> bool:
        """Tell whether nothing is asked: any place will do."""
        return not (self.required or self.preferred or self.unconstrained or self.slices)


@dataclass(frozen=True, slots=True)
class PodSet:
    """Like pods of a workload."""

    name: str
    count: int
    each: Mapping[str, int]  # of a pod
    least: int | None = None  # minCount
    selector: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # label -> allowed
    tolerations: tuple[Taint, ...] = ()
    wish: Wish | None = None


Domain = tuple[
    tuple[str, ...], int
]  # values of the levels (the host alone where it is a level), pods


@dataclass(frozen=True, slots=True)
class Given:
    """What a podset has been given."""

    count: int
    use: Mapping[str, tuple[str, int]]  # resource -> flavor, amount
    domains: tuple[Domain, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """A job in a queue, waiting or admitted."""

    id: str
    queue: str
    podsets: tuple[PodSet, ...]
    priority: int = 0
    created: float = LONG_AGO
    tie: tuple[int, str] = (0, "")  # among those created at the same time
    reserved_at: float = 0.0
    given: Mapping[str, Given] = field(default_factory=dict)
    evicting: bool = False
    queued_at: float | None = None  # if not since its creation: evicted before its pods were ready

    usage: Amounts = field(init=False, compare=False)  # what it holds, by flavor and resource

    def __post_init__(self) -> None:
        held: Amounts = {}
        for given in self.given.values():
            for resource, (flavor, amount) in given.use.items():
                held[flavor, resource] = held.get((flavor, resource), 0) + amount
        object.__setattr__(self, "usage", held)

    @property
    def order(self) -> tuple[object, ...]:
        """Its place in its queue: by priority, then by time."""
        since = self.created if self.queued_at is None else self.queued_at
        return (-self.priority, since, self.tie)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the manager's configuration and its feature gates say."""

    fair: tuple[str, ...] | None = None  # strategies of fair sharing; None: off
    partial: bool = True  # PartialAdmission
    by_priority: bool = True  # PrioritySortingWithinCohort
    recompute: bool = True  # RecomputeAssignmentUponPreemptionTargetsOverlap
    replace_places: bool = True  # TASRecomputeAssignmentWithinSchedulingCycle
    topology: bool = True  # TopologyAwareScheduling


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that is configured."""

    queues: tuple[QueueSpec, ...]
    cohorts: tuple[CohortSpec, ...] = ()
    flavors: Mapping[str, Flavor] = field(default_factory=dict)
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # topology -> its levels
    settings: Settings = Settings()
    unit: int = 1000  # of one pod, in amounts
