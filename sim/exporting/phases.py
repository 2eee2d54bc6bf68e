"""What an export says of a job in phases: a growing batch where flags say it, else the main phase."""

from __future__ import annotations

from collections.abc import Iterator

from ersatz.sim.scenario.scenario import Ramp, Scenario


def grows(scenario: Scenario) -> Ramp | None:
    """Return the growth of the batch, where the job has no other phases than its sizes and what follows."""
    alone = all(phase.ramp for phase in scenario.phases[:-1])
    return scenario.ramp if alone else None


def tokens_said(scenario: Scenario, *, ramp: bool = False) -> float:
    """Return the tokens of the export: of the job, or of the one phase that it says."""
    if not scenario.phases or (ramp and grows(scenario)):
        return scenario.training.tokens
    return scenario.parts[scenario.main_phase].training.tokens


def phases_unsaid(scenario: Scenario, *, ramp: bool = False) -> Iterator[str]:
    """Yield which phases an export leaves out; `ramp`: its flags say how a batch grows."""
    if not scenario.phases or (ramp and grows(scenario)):
        return
    main = scenario.phases[scenario.main_phase].name
    others = [phase.name for phase in scenario.phases if phase.name != main and not phase.ramp]
    sizes = sum(phase.ramp for phase in scenario.phases)
    left = [*others[:3], *([f"{len(others) - 3} more"] if len(others) > 3 else []),
            *([f"{sizes} sizes of a growing batch"] if sizes else [])]  # fmt: skip
    yield f"training.phases: this is {main} alone; left out, each a launch of its own: {', '.join(left)}"
