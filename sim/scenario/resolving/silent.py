"""What a scenario does not say of a job, its money and its energy, and what that is then taken as.

The values are those of `jobs.yaml`. Only what counts is told: a rent knows no interest, a step no job.
"""

from __future__ import annotations

from collections.abc import Iterator

from ersatz.sim.scenario.defaults import left_silent
from ersatz.sim.scenario.sections.job import CostSection, EnergySection, JobSection


def silent_lines(
    job: JobSection, cost: CostSection | None, energy: EnergySection, matters: bool
) -> Iterator[str]:
    """Yield a line for each section that leaves something to the defaults, where there is a job."""
    if not matters:
        return
    yield from _of_job(job)
    if cost is not None:
        yield from _of_cost(cost)
    keys = ("pue", "carbon_intensity", "embodied_per_device", "device_life")
    yield from left_silent("energy", energy.model_fields_set, keys)


def _of_job(section: JobSection) -> Iterator[str]:
    checkpoint, failures = section.checkpoint, section.failures
    if failures.scale:
        yield from left_silent("job", section.model_fields_set, ("detection", "restart"))
        yield from left_silent("job.failures", failures.model_fields_set, ("device_repair",))
    moved = () if checkpoint.mode == "synchronous" else ("memory_bandwidth",)
    keys = ("storage_bandwidth", *moved, "bytes_per_param")
    yield from left_silent("job.checkpoint", checkpoint.model_fields_set, keys)


def _of_cost(section: CostSection) -> Iterator[str]:
    keys = {
        "rent": (), "annuity": ("network_share", "interest", "life", "opex_share", "sold_fraction"),
        "depreciation": ("network_share", "value_decay" if section.value_decay else "life"),
    }[section.model]  # fmt: skip
    yield from left_silent("cost", section.model_fields_set, keys)
    if section.energy_price is None:
        whose = "rent is taken to hold it" if section.model == "rent" else "none of it is counted"
        yield f"cost.energy_price is not given: of electricity {whose}"
