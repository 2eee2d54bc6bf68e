"""Steps that stay in the cache: launch-bound training on a host.

A step whose weights, state and activations fit the last cache finds there what the step before has
left, operands and code. Its kernels take a few microseconds of work and several of calling; after
other work, as a calibration of drawn kernels finds them, they take three times as long. So on a host a
calibration has a small part: kernels of a few drawn steps of that kind, run in the order of a step,
round after round, and what they take together in whole steps, which is less
(`ersatz.sim.hil.together`). Which part holds is decided by what the step keeps in memory: the small one
up to half the cache, the other from the whole cache on, both by their share between.

On an accelerator such steps are bound by the host that issues them (`launches` of a calibration).
"""

from __future__ import annotations

from collections.abc import Callable

from ersatz.device_models.calibration.measured import OWN_STACK, Calibration
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Kernel, Timer
from ersatz.device_models.kernels.operations import operation_of, part_of_step
from ersatz.sim.hil.sentinels import Pace
from ersatz.sim.plan.memory.peaks import stage_peaks
from ersatz.sim.scenario.scenario import Scenario

MakeTimer = Callable[[Calibration, str], Timer]


def cached_share(scenario: Scenario, calibration: Calibration) -> float:
    """Return how far a step stays in the cache: 1 up to half of it, 0 from the whole on."""
    if calibration.small is None:
        return 0.0
    held = max(peak.allocated for peak in stage_peaks(scenario))
    cache = calibration.machine.cache_bytes
    return min(max(2.0 * (1.0 - held / cache), 0.0), 1.0) if cache else 0.0


def step_timer(
    make: MakeTimer, calibration: Calibration, scenario: Scenario, stack: str = OWN_STACK,
    pace: Pace | None = None, small_pace: Pace | None = None,
) -> Timer:  # fmt: skip
    """Return the timer of a step: what was measured where the cache is as in this step.

    `make` makes a timer of a calibration and a stack. Paces are those of either part's sentinels.
    Operations that the small part lacks (routed experts) are taken from the other.
    """
    name, share = calibration.origin.device, cached_share(scenario, calibration)
    plain = _paced(make(calibration, stack), pace, name)
    if calibration.small is None or not share:
        return plain
    small, known = _paced(make(calibration.small, stack), small_pace, name), calibration.small.fits
    together = calibration.small.together

    def timer(device: Device, kernel: Kernel) -> float:
        if device.name != name or (operation_of(kernel), kernel.dtype) not in known:
            return plain(device, kernel)
        called = small(device, kernel) * together.get(part_of_step(kernel), 1.0)
        return share * called + (1.0 - share) * plain(device, kernel)

    return timer


def _paced(timer: Timer, pace: Pace | None, device_name: str) -> Timer:
    return pace.timer(timer, device_name) if pace else timer
