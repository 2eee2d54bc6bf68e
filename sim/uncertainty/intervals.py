"""The 80 % interval of a predicted step time, from the errors made on what is like it.

Half widths are 80 % quantiles of |log error| of held-out predictions (data/intervals.yaml, written by
`python -m ersatz.sim.validation.errors.widths`), one for each class of alike runs, the first that is known:

    the stack on a device that it was measured on, mixtures of experts apart   (model left out)
    the vendor, mixtures of experts apart; the vendor                          (source left out)
    a device without any published run                                         (see the file)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import parse_yaml
from ersatz.sim.records import StepResult
from ersatz.sim.scenario.scenario import Pool, Scenario

UNMEASURED = "unmeasured"


@lru_cache(maxsize=1)
def widths() -> dict[str, float]:
    """Read the half widths once: factors minus one, by class."""
    text = parse_yaml((DATA / "intervals.yaml").read_text(), "intervals")
    return {key: float(leaf["value"]) for key, leaf in text.data["widths"].items()}


@lru_cache(maxsize=1)
def measured_on() -> dict[str, frozenset[str]]:
    """Read the stacks whose training runs were published, by device or family of bins."""
    text = parse_yaml((DATA / "intervals.yaml").read_text(), "intervals")
    return {device: frozenset(stacks) for device, stacks in text.data["measured"].items()}


def classes(scenario: Scenario, pool: Pool) -> Iterator[str]:
    """Name the classes that a pool's prediction belongs to, the closest first."""
    kind = "moe" if scenario.model.experts else "dense"
    device, vendor = pool.node.device.name, pool.node.device.vendor.lower()
    if is_measured(pool):
        if any(pool.stack.name in measured_on()[bin_] for bin_ in _bins(device)):
            yield f"{pool.stack.name}/{kind}"
        yield f"{vendor}/{kind}"
        yield vendor
    yield UNMEASURED


def half_width(scenario: Scenario) -> float:
    """Return the relative half width for the least known pool of a scenario."""
    return max(_pool_width(scenario, pool)[1] for pool in scenario.pools)


def interval_class(scenario: Scenario) -> str:
    """Return the class of the least known pool: what the interval comes from."""
    return max((_pool_width(scenario, pool) for pool in scenario.pools), key=lambda x: x[1])[0]


def is_measured(pool: Pool) -> bool:
    """Tell whether training runs on the pool's device were published."""
    return bool(_bins(pool.node.device.name))


def _bins(device: str) -> list[str]:
    """Return the measured devices, or families of bins, that a device's name begins with."""
    return [name for name in measured_on() if device.startswith(name)]


def with_interval(scenario: Scenario, step: StepResult, width: float | None = None) -> StepResult:
    """Return a step with its 80 % interval: of relative half width `width` if given, else as known."""
    if width is None:
        low, high = interval80(scenario, step.duration_s)
    else:
        low, high = step.duration_s / (1.0 + width), step.duration_s * (1.0 + width)
    return replace(step, low80_s=low, high80_s=high)


def interval80(scenario: Scenario, seconds: float) -> tuple[float, float]:
    """Return the (low, high) ends of the 80 % interval of a step time."""
    factor = 1.0 + half_width(scenario)
    return seconds / factor, seconds * factor


def _pool_width(scenario: Scenario, pool: Pool) -> tuple[str, float]:
    known = widths()
    return next((name, known[name]) for name in classes(scenario, pool) if name in known)
