"""How fast a job runs on a device, alone or in a mix: asked from the step engine, plan by plan.

A plan is a case of a `run` scenario. One with a single pool gives the rate of its device; one with
several pools gives a group, whose efficiency is its own rate over the sum of the rates that its
devices reach alone: incompatible devices are never simply added. Failures and checkpoints enter by
Daly's closed form. Not modelled: rates at other sizes than the plan's, other shares of a mix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ersatz.device_models.catalog.power import device_power, host_power
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.job.checkpoint import (
    checkpoint_cost,
    chosen_interval,
    expected_wall,
    saved_params,
)
from ersatz.sim.job.failures import cluster_failure_rates
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.step.step import busy_share, simulate_step
from ersatz.sim.uncertainty.intervals import with_interval


@dataclass(frozen=True, slots=True)
class Throughput:
    """The rate of a job on a group of devices at the size of a plan."""

    devices: tuple[str, ...]  # offers of the group
    tokens_per_s: Mapping[str, float]  # per device of each kind when it runs alone
    efficiency: float  # of the group against the sum of its devices
    watts: Mapping[str, float]  # per device in use, its share of the host included
    low: float  # ends of the 80 % interval of the rate, as factors
    high: float
    plan: str  # the case it comes from
    plan_devices: int
    mfu: float
    goodput: float


def plan_throughputs(
    cases: Sequence[Scenario], offers: Mapping[str, str]
) -> tuple[Throughput, ...]:
    """Return the throughput of every plan whose nodes are all on offer.

    `offers` names the node of the catalogue of each offer. Raises `InfeasibleError` for a plan that
    does not fit into memory.
    """
    alone: dict[str, Throughput] = {}
    mixed: list[Throughput] = []
    for case in sorted(cases, key=lambda case: len(case.pools)):
        names = [_offer(pool, offers) for pool in case.pools]
        if any(name is None for name in names):
            continue
        group = tuple(name for name in names if name)
        if len(group) == 1 and group[0] not in alone:
            alone[group[0]] = _throughput(case, group, {})
        elif len(group) > 1 and all(name in alone for name in group):
            mixed.append(_throughput(case, group, alone))
    return (*alone.values(), *mixed)


def goodput(scenario: Scenario, step_s: float) -> float:
    """Return the share of the wall time that counts, by Daly's closed form at the plan's size."""
    job, nodes = scenario.job, sum(pool.nodes for pool in scenario.pools)
    rate = math.fsum(cluster_failure_rates(scenario.pools, job.failures).values())
    cost = checkpoint_cost(job.checkpoint, saved_params(scenario.model), nodes)
    if rate <= 0:
        return 1.0
    mtbf = 1.0 / rate
    interval = chosen_interval(job.checkpoint, cost, mtbf, step_s)
    recovery = job.detection_s + job.restart_s + cost.load_s
    return 1.0 / expected_wall(1.0, interval, cost.stop_s, recovery, mtbf)


def _offer(pool: Pool, offers: Mapping[str, str]) -> str | None:
    return next((name for name, node in offers.items() if node == pool.node.name), None)


def _throughput(
    case: Scenario, group: tuple[str, ...], alone: Mapping[str, Throughput]
) -> Throughput:
    if case.phases:
        raise InfeasibleError(f"plan {case.name} has training.phases; a purchase takes one rate of a plan, of"
                              " steps that are alike: give a plan for each phase")  # fmt: skip
    memory = plan_memory(case)
    if not memory.fits:
        raise InfeasibleError(f"plan {case.name} does not fit into memory; would fit with:"
                              f" {'; '.join(memory.advice)}")  # fmt: skip
    step = with_interval(case, simulate_step(case))
    good = goodput(case, step.duration_s)
    whole = step.tokens / step.duration_s * good
    if alone:
        rates = {name: alone[name].tokens_per_s[name] for name in group}
        apart = math.fsum(
            rates[name] * pool.devices for name, pool in zip(group, case.pools, strict=True)
        )
        watts = {name: alone[name].watts[name] for name in group}
    else:
        apart, rates = whole, {group[0]: whole / case.devices}
        watts = {group[0]: _watts(case.pools[0], busy_share(step) * good)}
    return Throughput(
        group, rates, whole / apart, watts, step.duration_s / step.high80_s,
        step.duration_s / step.low80_s, case.name, case.devices, step.mfu, good,
    )  # fmt: skip


def _watts(pool: Pool, busy: float) -> float:
    node = pool.node
    return device_power(node.device, busy) + host_power(node, busy) / node.devices
