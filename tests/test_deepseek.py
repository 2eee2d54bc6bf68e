"""DeepSeek-V3's published step, part by part (arXiv 2505.09343, table 4: means of a rank).

The parts are those of DualPipe's slots: forwards alone, backwards alone (whole or for the input),
weight gradients alone, overlapped pairs, waiting, and what follows the last gradient.
"""

from collections import defaultdict
from pathlib import Path

import pytest

from ersatz.sim.scenario.file import load_cases
from ersatz.sim.step.build import build_program
from ersatz.sim.step.folded import folded_body, folded_step
from ersatz.sim.step.program import COMPUTE
from ersatz.sim.step.vector import VectorStep, alike

SCENARIO = Path(__file__).resolve().parents[1] / "scenarios" / "deepseek-v3-h800.yaml"
PART = {"F": "forward", "B": "backward", "I": "backward", "W": "weights", "FB": "pairs"}
STEP, WEIGHTS = 19.926, 0.48
PUBLISHED = {"forward": 1.13, "backward": 1.99, "pairs": 13.95, "bubble": 2.06, "optimizer": 0.29}


@pytest.fixture(scope="module")
def parts() -> dict[str, float]:
    """Seconds of the mean rank by kind of slot; with 'optimizer' they add up to the step."""
    program, _ = build_program(load_cases(SCENARIO)[0])
    seconds: dict[str, float] = defaultdict(float)

    def account(number: int, variant: object, free: float, arrived: float, end: float) -> None:
        late = min(max(arrived - free, 0.0), end - free)
        kind = PART["".join(phase for phase, _, _ in variant)]  # type: ignore[attr-defined]
        seconds["bubble"] += late
        seconds[kind] += end - free - late

    state = folded_body(VectorStep(program, alike(program), folds_ranks=True), account)
    barrier = max(float(times.max()) for times in state)
    seconds["bubble"] += sum(barrier - float(times[COMPUTE]) for times in state)
    mean = {kind: total / program.stages for kind, total in seconds.items()}
    return mean | {"optimizer": folded_step(program) - barrier}


def test_the_step_is_within_5_percent_and_its_parts_add_up(parts: dict[str, float]) -> None:
    assert sum(parts.values()) == pytest.approx(STEP, rel=0.05)


NOT_YET = pytest.mark.xfail(
    strict=True,
    reason="20 % too long: with the split that comes nearer, the first chunk would not fit",
)
PARTS = [pytest.param(p, marks=NOT_YET if p == "bubble" else ()) for p in PUBLISHED]


@pytest.mark.parametrize("part", PARTS)
def test_parts_are_within_15_percent(parts: dict[str, float], part: str) -> None:
    """The bubble is no prediction: the split of the layers was inferred from it."""
    assert parts[part] == pytest.approx(PUBLISHED[part], rel=0.15)


def test_weight_gradients_alone_are_too_fast(parts: dict[str, float]) -> None:
    """Known to fall short by some 40 %: their casts are charged to the other phases."""
    assert 0.5 * WEIGHTS < parts["weights"] < WEIGHTS
