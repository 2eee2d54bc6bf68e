"""Electricity of a job at the meter, and its emissions.

Devices draw by how busy they are, hosts draw a constant, cooling adds what the PUE says. Emissions
are those of the electricity plus the job's share of making the devices.
"""

from __future__ import annotations

import math

from ersatz.device_models.catalog.power import device_power
from ersatz.sim.records import EnergyResult, JobResult
from ersatz.sim.scenario.scenario import Scenario

JOULE_PER_KWH = 3.6e6


def job_energy(scenario: Scenario, job: JobResult, busy: float) -> EnergyResult:
    """Return the energy of a job whose devices are busy for a share `busy` of a step."""
    active = busy * job.goodput  # idle while the job recovers, waits or saves
    devices = math.fsum(device_power(p.node.device, active) * p.devices for p in scenario.pools)
    spare = scenario.pools[0].node
    devices += spare.device.power_idle_w * spare.devices * scenario.job.spare_nodes
    hosts = math.fsum(p.node.host_power_w * p.nodes for p in scenario.pools)
    hosts += spare.host_power_w * scenario.job.spare_nodes
    machines = devices + hosts
    cooling = machines * (scenario.energy.pue - 1.0)
    parts = {name: watts * job.wall_s / JOULE_PER_KWH
             for name, watts in (("devices", devices), ("hosts", hosts), ("cooling", cooling))}  # fmt: skip
    kwh = math.fsum(parts.values())
    carbon = kwh * JOULE_PER_KWH * scenario.energy.carbon_intensity
    made = scenario.energy.embodied_kg_per_device * job.device_hours * 3600.0
    return EnergyResult(
        kwh=kwh,
        carbon_kg=carbon + made / scenario.energy.device_life_s,
        mean_device_w=math.fsum(
            device_power(p.node.device, active) * p.devices for p in scenario.pools
        )
        / scenario.devices,
        mean_power_w=machines * scenario.energy.pue,
        pue=scenario.energy.pue,
        parts_kwh=parts,
    )
