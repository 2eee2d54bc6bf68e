"""Peak memory of a plan and the verdict on its fullest rank."""

from __future__ import annotations

from ersatz.sim.plan.memory.advice import advice
from ersatz.sim.plan.memory.peaks import stage_peaks
from ersatz.sim.plan.memory.verdict import judge
from ersatz.sim.records import MemoryResult
from ersatz.sim.scenario.scenario import Scenario


def plan_memory(scenario: Scenario, *, advise: bool = True) -> MemoryResult:
    """Return the peak of each stage and the verdict on the fullest rank.

    Raises `LayoutError` where layers or micro-batches do not suit the schedule.
    """
    peaks = list(stage_peaks(scenario))
    worst = min(peaks, key=lambda peak: peak.spare)
    capacity = worst.pool.node.device.memory_bytes
    verdict, probability = judge(worst.total, capacity)
    fits = worst.spare >= 0
    return MemoryResult(
        peak_bytes=worst.total,
        capacity_bytes=capacity,
        fits=fits,
        verdict=verdict,
        fit_probability=probability,
        allocated_bytes=worst.allocated,
        reserved_bytes=worst.reserved,
        stage=worst.stage,
        moment=worst.moment,
        parts=worst.parts,
        by_stage=tuple(peak.total for peak in peaks),
        advice=() if verdict == "fits" or not advise else tuple(advice(scenario)),
    )
