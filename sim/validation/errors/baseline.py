"""The spreadsheet that people use: 6 N D FLOPs at the median utilisation of the device and dtype.

The utilisation is learnt on the rows outside the group that is predicted, as in every honest
comparison here; a device and dtype without other rows takes the vendor's, then that of all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from statistics import median

from ersatz.device_models.kernels.kernel import sixteen_bit_peak
from ersatz.sim.scenario.scenario import Scenario

Key = Callable[[Scenario], Hashable]
LEVELS: tuple[Key, ...] = (
    lambda s: (s.pools[0].node.device.name, s.training.precision),
    lambda s: (s.pools[0].node.device.vendor, s.training.precision),
    lambda s: s.pools[0].node.device.vendor,
    lambda s: "all",
)


def utilisation(scenario: Scenario, step_s: float) -> float:
    """Return 6 N D over the devices' 16-bit peak in the time of a step."""
    training, model = scenario.training, scenario.model
    tokens = training.global_batch * training.sequence_length
    peak = sixteen_bit_peak(scenario.pools[0].node.device) * scenario.devices
    return 6.0 * model.params(active=True) * tokens / (peak * step_s)


def spreadsheet_errors(
    scenarios: Sequence[Scenario], measured_s: Sequence[float], groups: Sequence[Hashable]
) -> list[float]:
    """Return predicted / measured - 1 of every run, its group left out; nan if nothing is left."""
    used = [utilisation(s, t) for s, t in zip(scenarios, measured_s, strict=True)]
    known: list[dict[Hashable, list[int]]] = []
    for level in LEVELS:
        places: dict[Hashable, list[int]] = defaultdict(list)
        for place, scenario in enumerate(scenarios):
            places[level(scenario)].append(place)
        known.append(places)
    usual: dict[Hashable, float] = {}
    errors = []
    for place, scenario in enumerate(scenarios):
        value = float("nan")
        for number, level in enumerate(LEVELS):
            key = number, level(scenario), groups[place]
            if key not in usual:
                others = [used[i] for i in known[number][key[1]] if groups[i] != groups[place]]
                usual[key] = median(others) if others else float("nan")
            value = usual[key]
            if value == value:
                break
        errors.append(used[place] / value - 1.0)
    return errors
