"""Turn a measured row into a scenario: device, stack, model and layout, blanks filled and stated.

Blanks are filled from the stack's defaults and from the row's other cells, each filling with a
sentence. A row is refused only for a stated reason (`Refused`): its device is not modelled, or its
shape or layout cannot be known.
"""

from __future__ import annotations

from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.validation.reading.layouts import layout_of
from ersatz.sim.validation.reading.machines import (
    node_of,
    precision_of,
    stack_of,
    trimmed,
    with_network,
)
from ersatz.sim.validation.reading.rules import Filling
from ersatz.sim.validation.reading.shapes import model_of
from ersatz.sim.validation.reading.table import Run


def scenario_of(run: Run, *, oddities: bool = False) -> Scenario:
    """Return the scenario that a row describes; raises `Refused` with the reason when it cannot.

    With `oddities`, known faults of single clusters are modelled, too.
    """
    fill = Filling(run)
    node = node_of(run.text("device"))
    precision = precision_of(run, node)
    stack = stack_of(run)
    model = model_of(fill)
    parallel, training = layout_of(fill, model, stack, precision)
    devices = run.count("n_devices")
    node = trimmed(with_network(node, run, oddities=oddities), devices)
    nodes = devices // node.devices
    return Scenario(
        name=run.id, question="", seed=0, model=model,
        pools=(Pool("", node, nodes, stack),), training=training, parallel=parallel,
        assumptions=tuple(fill.assumptions),
    )  # fmt: skip
