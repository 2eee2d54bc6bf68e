"""The shape of a file of `ersatz schedule`: every key with its unit, its default and its meaning."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ersatz.sim.scenario.defaults import default_of
from ersatz.sim.scenario.schema import TrainingSection
from ersatz.sim.scenario.sections.layout import ParallelSection
from ersatz.sim.scenario.sections.quantities import (
    Count,
    Degree,
    Fraction,
    Name,
    Rate,
    Section,
    Stem,
    Time,
)

Weight = Annotated[float, Field(ge=0, le=1e9)]
Factor = Annotated[float, Field(gt=0, le=1e6)]
YEAR_S = 365.25 * 86400.0


def _within(low: float, high: float, words: str) -> AfterValidator:
    """Accept values between two bounds; `words` name these to people."""

    def check(value: float) -> float:
        if not low <= value <= high:
            raise ValueError(f"expected {words}")
        return value

    return AfterValidator(check)


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("expected two factors, the lower one first")
    return pair


def _some(values: Any) -> Any:
    if not values:
        raise ValueError("expected at least one")
    return values


def _weighing(weights: dict[Any, float]) -> dict[Any, float]:
    if weights and not math.fsum(weights.values()) > 0:
        raise ValueError("expected a weight above 0")
    return weights


Span = Annotated[Time, _within(0.0, 100 * YEAR_S, "at most 100 years")]
Work = Annotated[Time, _within(1e-3, 100 * YEAR_S, "from 1 ms to 100 years")]
Repair = Annotated[Time, _within(1.0, 100 * YEAR_S, "from 1 s to 100 years")]
Often = Annotated[Rate, _within(0.0, 1 / 60, "at most one failure a minute")]
Slowness = Annotated[Fraction, _within(0.001, 1.0, "a share from 0.1 % to 100 %")]
Nodes = Annotated[int, Field(ge=1, le=100_000)]
Slots = Annotated[int, Field(ge=1, le=1024)]
Jobs = Annotated[int, Field(ge=1, le=1_000_000)]
Draws = Annotated[int, Field(ge=1, le=1000)]
Urgency = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
Sigma = Annotated[float, Field(ge=0, le=10)]
Factors = Annotated[tuple[Factor, Factor], AfterValidator(_rising)]
Sizes = Annotated[dict[Degree, Weight], AfterValidator(_some), AfterValidator(_weighing)]
Policies = Annotated[tuple[str, ...], AfterValidator(_some)]
Shares = Annotated[dict[Name, Weight], AfterValidator(_weighing)]


class FleetPoolSection(Section):
    """Alike nodes, under leaves of their own."""

    name: Stem = Field(description="accelerator type by which jobs and reports call it")
    nodes: Nodes = Field(description="how many")
    node: str | None = Field(
        None, description="node of the catalogue: its devices, failures, speed"
    )
    devices: Slots | None = Field(None, description="per node; by default the catalogue node's")
    nodes_per_leaf: Nodes = Field(32, description="nodes under one leaf switch")
    stack: str | None = Field(None, description="software stack, for the step engine")

    @model_validator(mode="after")
    def known(self) -> FleetPoolSection:
        """A node of the catalogue, or a number of devices."""
        if self.node is None and self.devices is None:
            raise ValueError("expected a node of the catalogue, or devices per node")
        return self


class MaintenanceSection(Section):
    """A planned outage."""

    start: Span = Field(description="after the beginning")
    duration: Span = Field(description="how long the nodes are down")
    nodes: tuple[Name, ...] = Field(description="names of nodes, like h800-0; or a pool's name")
    drain: Span = Field(0.0, description="how long before they take no new jobs")


class FleetFailuresSection(Section):
    """How often components fail; rates come from the catalogue unless given."""

    scale: Annotated[float, Field(ge=0, le=1e6)] = Field(1.0, description="factor on every rate")
    device_rate: Often | None = Field(None, description="per device")
    node_rate: Often | None = Field(None, description="per node: host, cards, cables")
    leaf_rate: Often = Field(0.0, description="per leaf switch; takes its nodes down")
    slow_rate: Often = Field(0.0, description="per node: it becomes slow")
    slow_factor: Slowness = Field(
        default_of("slow_factor"), description="of its speed while it is slow"
    )
    repair: Repair = Field(default_of("repair"), description="mean time until a node is back")
    leaf_repair: Repair = Field(
        default_of("leaf_repair"), description="mean time until a leaf is back"
    )
    slow_repair: Repair = Field(
        default_of("slow_repair"), description="mean time until it is as fast as before"
    )


class QuotaSection(Section):
    """What a tenant may hold."""

    share: Count = Field(description="devices guaranteed to it")
    limit: Count | None = Field(None, description="devices that it never exceeds; by default all")


class StepSection(Section):
    """A training job for the step engine, whose speed on each pool follows from it."""

    model: str = Field(description="model of the catalogue, or path of a model file")
    training: TrainingSection = Field(description="as in a training scenario")
    parallel: ParallelSection = Field(ParallelSection(), description="as in a training scenario")


class DrawnSection(Section):
    """A class of jobs whose times are drawn."""

    name: Stem = Field(description="of the class; jobs are called NAME-0, NAME-1, ...")
    count: Jobs = Field(description="how many")
    devices: Degree | Sizes = Field(description="gang size, or sizes with weights")
    every: Span = Field(description="mean time between submissions (exponential)")
    median: Work = Field(description="of the work, at rate 1 (log-normal)")
    sigma: Sigma = Field(1.0, description="of the logarithm of the work; 0: all alike")
    start: Span = Field(0.0, description="of the submissions")
    tenants: Shares = Field({}, description="with weights")
    priority: Urgency = Field(0, description="higher is more urgent")
    types: tuple[Name, ...] = Field((), description="pools that it may use; none: all")
    limit: Factors | None = Field(
        None, description="run-time limit / work, drawn evenly between two factors"
    )
    checkpoint: Span = Field(0.0, description="work between checkpoints; 0: none")
    restart: Span | None = Field(
        None, description="without progress, at each start but the first; by default from its state"
    )
    save: Span | None = Field(
        None, description="without progress, before a preemption; by default from its state"
    )
    min_devices: Count = Field(0, description="elastic: the fewest devices; 0: not elastic")
    max_devices: Count = Field(0, description="elastic: the most devices; 0: not elastic")
    max_nodes: Count = Field(0, description="nodes that it may span; 0: any")
    max_leaves: Count = Field(0, description="leaves that it may span; 0: any")
    deadline: Factor | None = Field(None, description="due after this many times its work")
    step: StepSection | None = Field(None, description="speed from the step engine; see below")
    rates: dict[Name, Weight] = Field({}, description="or rate by pool; missing: 1")


class JobsSection(Section):
    """What is to be run: a trace, classes of drawn jobs, or both."""

    trace: str | None = Field(None, description="path, or KIND:PATH, of a trace")
    first: Count = Field(0, description="only so many jobs of the trace; 0: all")
    trace_limit: Factors | None = Field(
        None,
        description="limits for jobs of the trace that have none, as factors of their run time",
    )
    trace_restart: Span | None = Field(
        None, description="of jobs of the trace that state none; by default from their devices"
    )
    trace_save: Span | None = Field(
        None, description="before a preemption, likewise; by default from their devices"
    )
    drawn: tuple[DrawnSection, ...] = Field((), description="classes of drawn jobs")
    load: Factor | None = Field(
        None, description="stretch submissions to offer this load to all devices"
    )

    @model_validator(mode="after")
    def something(self) -> JobsSection:
        """There must be jobs."""
        if not self.trace and not self.drawn:
            raise ValueError("expected a trace or drawn jobs")
        return self


class RulesSection(Section):
    """What the fleet demands of any scheduler."""

    grace: Span = Field(0.0, description="from the notice of a preemption to its execution")
    max_failures: Count = Field(0, description="after which a job is given up; 0: never")
    enforce_limits: bool = Field(True, description="end attempts at their limit")


class FleetFile(Section):
    """A question about schedulers."""

    question: str = Field(description="what the scenario answers, in one sentence")
    seed: Count = Field(0, description="of all random draws")
    pools: tuple[FleetPoolSection, ...] = Field((), description="the machines; or `nodes`")
    nodes: str | None = Field(
        None, description="path, or KIND:PATH, of a list of nodes in place of pools: openb, spot, sinfo,"
        " scontrol, kubernetes")  # fmt: skip
    tenants: dict[Name, QuotaSection] = Field(
        {}, description="quotas; missing tenants have no limit"
    )
    jobs: JobsSection = Field(description="see below")
    failures: FleetFailuresSection | None = Field(None, description="see below; missing: none")
    maintenance: tuple[MaintenanceSection, ...] = Field((), description="planned outages")
    rules: RulesSection = Field(RulesSection(), description="see below")
    policies: Policies = Field(("fifo",), description="schedulers: name[:placement[:types]]")
    until: Span | None = Field(
        None, description="end of the run; by default when all jobs are over"
    )
    draws: Draws = Field(1, description="of jobs and failures, the same for every policy")
    cross_leaf: Factor = Field(1.0, description="times less network for jobs that span leaves")
    oracle: bool = Field(False, description="schedulers see true run times")
    on_impossible: Literal["stop", "drop"] = Field(
        "stop", description="with jobs that can never run"
    )

    @model_validator(mode="after")
    def somewhere(self) -> FleetFile:
        """There are pools, or a list of nodes."""
        if bool(self.pools) == bool(self.nodes):
            raise ValueError("expected either pools or a list of nodes")
        return self
