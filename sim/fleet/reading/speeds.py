"""How fast the classes of a fleet file's jobs run on its pools: by a step, or by stated rates."""

from __future__ import annotations

from dataclasses import dataclass, field

from ersatz.sim.errors import InfeasibleError
from ersatz.sim.fleet.engine.speeds import StepSpeed, Training, table_speed
from ersatz.sim.fleet.reading.given import Given
from ersatz.sim.fleet.reading.machines import Machines
from ersatz.sim.fleet.schema import DrawnSection, StepSection
from ersatz.sim.fleet.workload.jobs import Speed
from ersatz.sim.job.checkpoint import saved_params
from ersatz.sim.scenario.case_file import Case
from ersatz.sim.scenario.resolve import resolve
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.scenario.schema import ScenarioFile
from ersatz.sim.scenario.sections.machines import ClusterSection
from ersatz.sim.scenario.sections.quantities import MOST_NODES
from ersatz.sim.search.planned import planned


@dataclass(slots=True)
class Speeds:
    """Speeds of a file's classes of jobs."""

    given: Given
    machines: Machines
    params: dict[str, float] = field(default_factory=dict)  # of classes whose model is known

    def speed(self) -> Speed:
        """Return how fast each class runs where; notes the weights of those that train a known model."""
        table = {d.name: d.rates for d in self.given.spec.jobs.drawn if d.rates}
        trainings: dict[str, Training] = {}
        reference: dict[str, str] = {}
        speed = StepSpeed(trainings, reference, self.given.spec.cross_leaf, table_speed(table), {})
        for i, drawn in enumerate(self.given.spec.jobs.drawn):
            if drawn.step is None:
                continue
            trainings[drawn.name] = self._training(i, drawn.step)
            self._note_params(i, drawn, trainings[drawn.name])
            size = drawn.devices if isinstance(drawn.devices, int) else min(drawn.devices)
            kinds = drawn.types or tuple(p.name for p in self.given.spec.pools)
            fitting = [] if self.given.case.problems else [
                k for k in kinds if speed.seconds(drawn.name, k, size, False)]  # fmt: skip
            if not fitting and not self.given.case.problems:
                why = (
                    self.given.reasons[-1] if self.given.reasons else "it does not fit into memory"
                )
                self.given.case.blame(("jobs", "drawn", i, "step"), drawn.name,
                                f"{size} devices of no pool can train this: {why}")  # fmt: skip
            reference[drawn.name] = fitting[0] if fitting else kinds[0]
            self.given.assumptions.append(
                f"work of {drawn.name} counts at the speed of {reference[drawn.name]}"
            )
        return speed if trainings else table_speed(table)

    def _note_params(self, i: int, drawn: DrawnSection, training: Training) -> None:
        """Note the weights that a class saves."""
        size = drawn.devices if isinstance(drawn.devices, int) else min(drawn.devices)
        for pool in self.given.spec.pools:
            if scenario := training(pool.name, size):
                self.params[drawn.name] = saved_params(scenario.model)
                return

    def _training(self, i: int, step: StepSection) -> Training:
        """Return how a class trains on a pool; a first look notes the faults of its sections."""
        case, folder = self.given.case, self.given.folder
        pools = {p.name: p for p in self.given.spec.pools}

        def training(kind: str, devices: int) -> Scenario | None:
            pool = pools[kind]
            node = self.machines.nodes[self.given.spec.pools.index(pool)]
            if node is None:
                return None
            nodes = -(-devices // node.devices)
            if nodes > MOST_NODES:
                self.given.reasons.append(f"{nodes:,} nodes: expected at most {MOST_NODES:,}")
                return None
            given = {"parallel": step.parallel} if "parallel" in step.model_fields_set else {}
            file = ScenarioFile(
                question="how fast?", model=step.model, training=step.training, stack=pool.stack,
                cluster=ClusterSection(node=str(pool.node), nodes=nodes), **given,
            )  # fmt: skip
            own = Case(case.name, case.text, case.data, case.overridden)
            scenario = resolve(
                file, kind, folder, own.blame, lambda: bool(own.problems), plans=True
            )
            self.given.reasons.extend(
                [f"{problem.key}: {problem.expected}" for problem in own.problems]
            )
            if scenario and scenario.phases:
                self.given.reasons.append(
                    "training.phases: a class of jobs has one rate, steps that are alike"
                )
                return None
            if own.problems or scenario is None:
                return None
            try:
                return planned(scenario)
            except InfeasibleError as error:
                self.given.reasons.append(f"parallel is not given: {error}")
                return None

        return training
