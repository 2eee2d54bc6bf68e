"""Steps of very many micro-batches: some are followed one by one, the rest goes on at their pace.

A pipeline's times are sums and maxima of fixed ones, so that after a while each further micro-batch of a
replica adds the same. Where ranks differ every micro-batch is walked through, which for tens of thousands
takes minutes; what the last of `MOST` add is then added for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ersatz.sim.plan.layout import turn_of
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.stragglers import named_stragglers

MOST = 1024  # micro-batches of a replica that are followed
LAST = 256  # of these, whose pace the others keep


@dataclass(frozen=True, slots=True)
class Longer:
    """Two steps that are followed, and how many of the differences between them lie beyond the first."""

    steps: tuple[Scenario, Scenario]
    reach: float
    followed: int  # micro-batches of a replica in the first of the two
    count: int  # ... and in the whole step

    def beyond(self, values: Sequence[float]) -> float:
        """Return a value of the whole step from those of the two."""
        first, second = values
        return first + self.reach * (first - second)


def longer_step(scenario: Scenario) -> Longer | None:
    """Return how a step is followed in part, or None where each micro-batch is."""
    parallel, training = scenario.parallel, scenario.training
    alike = not scenario.stragglers.ranks and not (scenario.fabric and scenario.fabric.contention)
    count = training.global_batch // (training.micro_batch * parallel.dp)
    apart_pools = parallel.pools or (len(scenario.pools) > 1 and parallel.mixed == "replicas")
    if alike or count <= MOST or apart_pools:
        return None
    unit = max(turn_of(parallel, 1) // parallel.dp, 1)  # what a schedule takes at once
    first = count - -(-(count - MOST) // unit) * unit
    apart = -(-LAST // unit) * unit
    if first <= apart:
        return None

    def of(few: int) -> Scenario:
        batch = few * training.micro_batch * parallel.dp
        return replace(scenario, training=replace(training, global_batch=batch))

    return Longer((of(first), of(first - apart)), (count - first) / apart, first, count)


def longer_remark(scenario: Scenario) -> tuple[str, ...]:
    """Say what was not followed."""
    found = longer_step(named_stragglers(scenario))
    if found is None:
        return ()
    return (f"stragglers and shared links: {found.followed:,} of {found.count:,} micro-batches of a"
            " replica are followed one by one; each further one adds what the last of these do",)  # fmt: skip
