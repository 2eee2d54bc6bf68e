"""The formats that a scenario can be written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.sim.exporting.configs import to_automodel, to_deepspeed, to_primus, to_torchtitan
from ersatz.sim.exporting.record import Exported
from ersatz.sim.exporting.scripts import to_megatron, to_mindspeed, to_slurm
from ersatz.sim.scenario.scenario import Scenario

WRITERS: Mapping[str, Callable[[Scenario], Exported]] = {
    "megatron": to_megatron, "mindspeed": to_mindspeed, "primus": to_primus,
    "torchtitan": to_torchtitan, "automodel": to_automodel, "deepspeed": to_deepspeed,
    "slurm": to_slurm,
}  # fmt: skip


def export_scenario(scenario: Scenario, to: str) -> Exported:
    """Return a scenario as a trainer takes it; raises `InputError` for a format that is not known."""
    if to not in WRITERS:
        words = f"expected one of {', '.join(WRITERS)}{did_you_mean(to, WRITERS)}"
        raise InputError([Problem("--as", 0, 0, "", to[:40], words)])
    return WRITERS[to](scenario)
