"""How fast a job runs where: from a table of rates, or from the step engine.

A speed is a function as `sim.fleet.workload.jobs.Speed` says. Rates are relative: 1 is the speed for
which the job's work was given (a trace's own, or the first pool on which the training job fits).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ersatz.sim.errors import InfeasibleError
from ersatz.sim.fleet.workload.jobs import Job, Speed, trace_speed
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.step.step import step_seconds

Training = Callable[[str, int], Scenario | None]
"""(pool, devices) -> the training job on so many devices of it; None: it has no layout there"""


def table_speed(rates: Mapping[str, Mapping[str, float]]) -> Speed:
    """Return the speed of a table: model -> accelerator type -> rate; what is missing has rate 1."""

    def speed(job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
        rate = rates.get(job.model, {}).get(kind, 1.0)
        return rate * trace_speed(job, kind, devices, nodes, leaves)

    return speed


@dataclass(slots=True)
class StepSpeed:
    """Asks the step engine once per model, type, number of devices, and leaves one or many.

    A job that spans leaves gets `cross_leaf` times less of the network; a layout that does not fit
    into memory has rate 0 there. Between sizes of an elastic job the global batch stays.
    """

    trainings: Mapping[str, Training]
    reference: Mapping[str, str]  # model -> pool at whose speed its work is counted
    cross_leaf: float
    otherwise: Speed
    known: dict[tuple[str, str, int, bool], float]

    def __call__(self, job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
        """Return the rate of a job."""
        if job.model not in self.trainings:
            return self.otherwise(job, kind, devices, nodes, leaves)
        own = self.seconds(job.model, kind, devices, leaves > 1)
        usual = self.seconds(job.model, self.reference[job.model], job.devices, False)
        return usual / own if own else 0.0

    def seconds(self, model: str, kind: str, devices: int, spread: bool) -> float:
        """Return the seconds of a step; 0 where it cannot run."""
        key = model, kind, devices, spread and self.cross_leaf != 1.0
        if key not in self.known:
            self.known[key] = self._step(model, kind, devices, key[3])
        return self.known[key]

    def _step(self, model: str, kind: str, devices: int, spread: bool) -> float:
        scenario = self.trainings[model](kind, devices)
        if scenario is None or not plan_memory(scenario, advise=False).fits:
            return 0.0
        if spread:
            scenario = replace(scenario, pools=tuple(self._slower(p) for p in scenario.pools))
        try:
            return step_seconds(scenario)
        except InfeasibleError:
            return 0.0

    def _slower(self, pool: Pool) -> Pool:
        """Return the pool with `cross_leaf` times less of the network, whatever its topology."""
        out = pool.node.scale_out
        out = replace(
            out, efficiency=out.efficiency / self.cross_leaf,
            all_to_all=out.all_to_all / self.cross_leaf,
        )  # fmt: skip
        return replace(pool, node=replace(pool.node, scale_out=out))
