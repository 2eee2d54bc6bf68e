"""How far off the step of an emulated script may be: what is uncertain of any predicted step.

The parts are those of `ersatz.sim.uncertainty`, fitted to published runs that were described, not
emulated; that a script's own kernels narrow it is likely and not yet shown, so nothing is taken off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ersatz.device_models.catalog.device import Node
from ersatz.sim.uncertainty.intervals import BINS, causes, components, published_runs


@dataclass(frozen=True, slots=True)
class Width:
    """Half width of an 80 % interval, and the words for it."""

    half: float
    words: str


def width_of(node: Node, dtype: str, *, experts: bool, proved: float | None = None) -> Width:
    """Return how wide the interval of a step is on a device, in a number format.

    `proved` is the half width of kernel times that were measured on the device itself.
    """
    if proved is not None:
        return Width(proved, f"+-{100 * proved:.0f} %: kernels were timed on the attached device")
    known, names = components(), {"cluster": "no cluster is like another"}
    device = node.device
    family = next((f for f in BINS if device.name.startswith(f)), device.name)
    runs = published_runs()
    kind = f"{family}/{dtype}/{'experts' if experts else 'dense'}"
    if not runs.get(kind):
        names["device"] = (
            f"{kind.split('/')[2]} models in {dtype} on {device.title} never published"
        )
    elif runs[kind] <= causes()["few_runs"]:
        names["few"] = f"such models on {device.title} published {runs[kind]} times"
    if not any(k.split("/")[0] == family for k in runs):
        names["unmeasured"] = f"no measured training run of {device.title} was published"
    if experts:
        names["experts"] = "mixtures of experts"
    half = math.expm1(math.hypot(*(known[name] for name in names)))
    return Width(half, f"+-{100 * half:.0f} %: {'; '.join(names.values())}")
