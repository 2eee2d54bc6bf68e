"""From a published figure to the step time that it means, and back.

Throughput follows from the batch; TFLOPS and MFU by the definition that the row states: with the
causal half or the full square of attention, with recomputation counted or not.
"""

from __future__ import annotations

import re

from ersatz.device_models.kernels.kernel import sixteen_bit_peak
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.validation.reading.rules import Filling, rules

HARDWARE_WORDS = ("incl. recompute", "includes activation recompute", "with recompute",
                  "hardware flops")  # fmt: skip


def measured_step_seconds(fill: Filling, scenario: Scenario) -> float | None:
    """Return the step time in seconds that a row's metric means, or None for an unknown metric."""
    run = fill.run
    value = run.number("metric_value")
    if not value:
        return None
    batch = scenario.training.global_batch
    tokens = batch * scenario.training.sequence_length
    name, unit, devices = run.text("metric_name"), run.text("metric_unit"), scenario.devices
    if name == "step_time_s":
        return value / 1000 if unit.startswith("ms") else value
    if name == "tokens_per_s_per_device":
        return tokens / (value * devices)
    if name == "tokens_per_s":
        return tokens / value
    if name in ("samples_per_s", "finetune_throughput"):
        return batch / (value * devices if unit.endswith("/p") else value)
    if "tflops" in name:
        return metric_flop(fill, scenario) / (value * 1e12 * devices)
    if name in ("mfu_percent", "percent_of_peak"):
        peak = sixteen_bit_peak(scenario.pools[0].node.device)
        return metric_flop(fill, scenario) / (value / 100 * peak * devices)
    return None


def metric_flop(fill: Filling, scenario: Scenario) -> float:
    """Return the FLOPs of a step by the row's own definition.

    Where it does not say how it counts attention, the full square is taken, as most publications do;
    the causal half is left open.
    """
    run = fill.run
    note = (run.text("mfu_definition_note") + " " + run.text("metric_name")).lower()
    training, model = scenario.training, scenario.model
    counted = next((rule["attention"] for rule in rules("attention_counted")
                    if re.search(rule["pattern"], note)), "unstated")  # fmt: skip
    if counted == "unstated":
        words = "how the metric counts attention is not stated: the {} is taken"
        counted = fill.note("attention_counted", "full square", words, ["causal half"])
    causal = counted in ("causal", "causal half")
    per_token = model.flop_per_token(training.sequence_length, causal=causal)
    framework = run.text("framework")
    hardware = "_hw" in note or any(word in note for word in HARDWARE_WORDS)
    hardware |= any(re.search(r["pattern"], framework, re.I) for r in rules("counts_recompute"))
    if hardware and scenario.parallel.recompute == "full":
        per_token *= 4 / 3
    return per_token * training.global_batch * training.sequence_length
