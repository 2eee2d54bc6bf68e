"""Paced mode: one rank's kernels really run, in order, and its measured times pace the simulation.

The step is walked by the SimPy engine (L4). Where the representative rank starts a kernel, the
kernel runs on the attached device, with the cache as the kernels before have left it, and the
simulated clock moves on by what it took; all other ranks and all collectives are modelled. A device
that throttles or stumbles in mid-step delays everybody who waits for that rank.

Not real: weights of one layer are those of every layer of the same shape, so a cache may still hold
them; messages between ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ersatz.device_models.calibration.measured import OWN_STACK, holds_for
from ersatz.device_models.kernels.kernel import Kernel, Timer
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.hil.device.attached import Attached
from ersatz.sim.hil.device.measure import Unmeasurable, engine_start, prepare_trial
from ersatz.sim.hil.device.recipes import Trial
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.build import build_program
from ersatz.sim.step.oracle import OracleStep, Rank
from ersatz.sim.step.program import Program, Work, ticks
from ersatz.sim.step.vector import alike

MOST_EVENTS = 2_000_000  # rank-kernels that SimPy walks in about ten seconds


@dataclass(frozen=True, slots=True)
class Beat:
    """One kernel that really ran, when the simulated clock said so."""

    at_s: float  # simulated start
    kernel: Kernel
    measured_s: float
    modelled_s: float


@dataclass(slots=True, eq=False)
class PacedStep(OracleStep):
    """A step whose representative rank runs for real; `beats` is what it did."""

    run_kernel: Callable[[Kernel], float | None] = lambda kernel: None  # None: it is modelled
    representative: Rank = (0, 0, 0, 0, 0)
    beats: list[Beat] = field(default_factory=list)

    def seconds_of(self, rank: Rank, work: Work, factor: float) -> float:
        """Run the kernel if it is the representative's, else ask the model."""
        modelled = OracleStep.seconds_of(self, rank, work, factor)
        if rank != self.representative or work.kernel is None:
            return modelled
        measured = self.run_kernel(work.kernel)
        if measured is None:
            return modelled
        self.beats.append(Beat(float(self.env.now), work.kernel, measured, modelled))
        return ticks(measured)


@dataclass(slots=True)
class Bench:
    """Kernels prepared on the attached device, each with operands of its own."""

    attached: Attached
    stack: str = OWN_STACK
    trials: dict[Kernel, Trial | None] = field(default_factory=dict)
    engine_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.engine_s = engine_start(self.attached)

    def __call__(self, kernel: Kernel) -> float | None:
        """Run a kernel once; returns its seconds, or None where device or stack has another one."""
        if kernel not in self.trials:
            self.trials[kernel] = self._prepare(kernel)
        trial = self.trials[kernel]
        if trial is None:
            return None
        seconds = self.attached.time_queued(trial.run, _as_it_is)[0]
        hosted = trial.backward and not self.attached.asynchronous
        return max(seconds - (self.engine_s if hosted else 0.0), 0.1 * seconds)

    def _prepare(self, kernel: Kernel) -> Trial | None:
        """Prepare and warm up, so that no first use is paid in the step."""
        if not holds_for(kernel, self.stack):
            return None
        try:
            trial = prepare_trial(self.attached, kernel)
            for _ in range(2):
                trial.run()
            return trial
        except (Unmeasurable, RuntimeError, MemoryError):
            return None


def _as_it_is() -> None:
    """Leave the cache as the kernels before have left it."""


@dataclass(frozen=True, slots=True)
class Paced:
    """What a paced step found."""

    duration_s: float
    modelled_s: float  # the same step with the representative modelled, too
    kernels: int  # run for real
    drift: float  # mean measured / modelled of the second half over that of the first


def paced_step(
    scenario: Scenario, timer: Timer, run_kernel: Callable[[Kernel], float | None]
) -> Paced:
    """Simulate one step with a representative rank that runs for real.

    Raises `InfeasibleError` when the step has more kernels than SimPy walks in reasonable time.
    """
    program, _ = build_program(scenario, timer)
    _check_size(program)
    modelled = OracleStep(program, alike(program)).run()
    step = PacedStep(program, alike(program), run_kernel=run_kernel)
    duration = step.run()
    return Paced(duration, modelled, len(step.beats), _drift(step.beats))


def _check_size(program: Program) -> None:
    per_stage = program.ranks // program.stages
    kernels = sum(
        len(op.work)
        for visit in program.schedule.walk
        for op in program.blocks[visit.stage, visit.block].ops
    )
    if kernels * per_stage > MOST_EVENTS:
        raise InfeasibleError(
            f"a paced step walks every kernel of every rank, here {kernels * per_stage:,}: more than"
            f" {MOST_EVENTS:,}; pace a smaller layout (fewer replicas behave the same), or use --timer live"
        )


def _drift(beats: Sequence[Beat]) -> float:
    """Tell whether the device became slower: measured over modelled, late over early."""
    half = len(beats) // 2
    if not half:
        return 1.0

    def pace(part: Sequence[Beat]) -> float:
        return sum(b.measured_s for b in part) / max(sum(b.modelled_s for b in part), 1e-12)

    return pace(beats[half:]) / pace(beats[:half])
