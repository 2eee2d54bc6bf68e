"""What an emulation gives: one step of a script on a virtual cluster, in flat records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ersatz.sim.records import CostResult, EnergyResult, JobResult, column


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Collectives of one kind and group in a step of one rank."""

    rank: int = column("rank that was emulated")
    kind: str = column("all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, send")
    size: int = column("members of the group")
    stride: int = column("distance of neighbouring members in ranks; 0 where uneven")
    count: int = column("how many in a step")
    nbytes: float = column("bytes of one, as its kind counts them, on average", "B")
    seconds: float = column("time of all of them, alone", "s")


@dataclass(frozen=True, slots=True)
class RankRow:
    """One rank that ran as a process."""

    rank: int = column("rank")
    step_s: float = column("its last whole step by the step engine", "s")
    live_s: float = column("the same by the clock that the script read", "s")
    peak_allocated: float = column("most memory that tensors held", "B")
    peak_reserved: float = column("most memory that the allocator reserved", "B")
    kernels: int = column("kernels of the step")
    flop: float = column("FLOPs of its products and attention", "FLOP")
    steps: int = column("optimizer steps that the script made")
    cpu_s: float = column("real CPU time of the process", "s")
    rss_bytes: float = column("real memory of the process", "B")


@dataclass(frozen=True, slots=True)
class EmulateResult:
    """One step of a script on devices that are not there."""

    script: str = column("what was run")
    device: str = column("device of the catalogue")
    shown_as: str = column("what the script sees")
    world: int = column("ranks of the virtual world")
    nodes: int = column("nodes of the virtual cluster")
    step_s: float = column("time of a step", "s")
    low80_s: float = column("lower end of its 80 % interval", "s")
    high80_s: float = column("upper end of its 80 % interval", "s")
    hfu: float = column("executed FLOPs / (time x dense matrix peak of the format used most)")
    memory_bytes: float = column("most memory reserved on any rank", "B")
    capacity_bytes: float = column("memory that PyTorch may reserve", "B")
    breakdown: Mapping[str, float] = column("seconds of the step by cause, mean of the ranks", "s")
    ranks: tuple[RankRow, ...] = column("ranks that ran as processes")
    collectives: tuple[GroupRow, ...] = column("collectives of a step")
    operators: tuple[tuple[str, int, float], ...] = column("operator, count, seconds: the longest")
    policies: Mapping[str, int] = column(
        "values that nobody knows, by place: how often a policy answered"
    )
    reads: Mapping[str, int] = column("where the host waited for a value, over the whole script")
    assumptions: tuple[str, ...] = column("what was assumed, in words with what it is worth")


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """A recorded step on other devices, and the job that is made of such steps."""

    name: str = column("case")
    step: EmulateResult = column("the step there")
    job: JobResult | None = column("the job; none without tokens")
    energy: EnergyResult | None = column("its energy")
    cost: CostResult | None = column("its cost; none without a section")
