"""Electricity of a job at the meter, and its emissions.

Devices and hosts draw by how busy they are, switches and optics all the time, cooling adds what the
PUE says; spare nodes idle. Emissions are those of the electricity plus the job's share of making the
devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ersatz.device_models.catalog.power import device_power, host_power
from ersatz.device_models.networks.facts import network_power
from ersatz.sim.records import EnergyResult, JobResult
from ersatz.sim.scenario.scenario import Pool, Scenario

JOULE_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class PoolPower:
    """Mean power of one pool in W before cooling; its spare nodes are counted."""

    devices: float
    hosts: float
    network: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.devices + self.hosts + self.network


def pool_power(pool: Pool, spares: int, active: float, *, alone: bool = False) -> PoolPower:
    """Return the power of a pool that is busy for a share `active` of the time, with its spares.

    A node that is `alone` needs no network between nodes.
    """
    node = pool.node
    return PoolPower(
        device_power(node.device, active) * pool.devices
        + device_power(node.device, 0.0) * node.devices * spares,
        host_power(node, active) * pool.nodes + host_power(node, 0.0) * spares,
        network_power(node, pool.nodes + spares) if node.nics and not alone else 0.0,
    )


def job_energy(scenario: Scenario, job: JobResult, busy: float) -> EnergyResult:
    """Return the energy of a job whose devices are busy for a share `busy` of a step."""
    active = busy * job.goodput  # idle while the job recovers, waits or saves
    alone = sum(pool.nodes for pool in scenario.pools) + sum(scenario.spares) == 1
    pools = [
        pool_power(pool, spares, active, alone=alone)
        for pool, spares in zip(scenario.pools, scenario.spares, strict=True)
    ]
    devices, hosts = math.fsum(p.devices for p in pools), math.fsum(p.hosts for p in pools)
    network = math.fsum(p.network for p in pools)
    machines = devices + hosts + network
    cooling = machines * (scenario.energy.pue - 1.0)
    shares = {"devices": devices, "hosts": hosts, "network": network, "cooling": cooling}
    parts = {name: watts * job.wall_s / JOULE_PER_KWH for name, watts in shares.items()}
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
        pools_kwh={p.name: power.total * scenario.energy.pue * job.wall_s / JOULE_PER_KWH
                   for p, power in zip(scenario.pools, pools, strict=True)},
    )  # fmt: skip
