"""What each layer of knowledge adds: the data sheet, the device's calibration, the software stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.kernels.kernel import calibrated_time, roofline_time
from ersatz.sim.processes import side_by_side
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import step_seconds

NO_COST = ("launch_s", "collective_launch_s", "expert_host_s", "step_host_s", "overlap_contention")
ONE_PASS = ("elementwise_traffic", "cast_traffic", "attention_factor", "expert_efficiency",
            "expert_permute_passes", "expert_imbalance", "unfused_activation")  # fmt: skip


def ideal_stack(stack: Stack) -> Stack:
    """Return a stack that costs nothing: no host time, everything fused, no contention."""
    free = dict.fromkeys(NO_COST, 0.0) | dict.fromkeys(ONE_PASS, 1.0)
    return replace(stack, moe_host_sync=False, portable_attention=False, **free)  # type: ignore[arg-type]


def ideal(scenario: Scenario) -> Scenario:
    """Return the scenario on ideal stacks."""
    pools = tuple(replace(pool, stack=ideal_stack(pool.stack)) for pool in scenario.pools)
    return replace(scenario, pools=pools)


def layer_seconds(scenario: Scenario) -> tuple[float, float]:
    """Return step times from the data sheet alone, and with the device's calibration."""
    bare = ideal(scenario)
    return step_seconds(bare, roofline_time), step_seconds(bare, calibrated_time)


def layers_of(scenarios: Sequence[Scenario]) -> list[tuple[float, float]]:
    """Return `layer_seconds` of many scenarios."""
    return list(side_by_side(layer_seconds, scenarios, 8))
