"""DeepSeek-V3's published step, part by part (arXiv 2505.09343, table 4).

The parts are those of DualPipe's slots: forwards alone, backwards alone (whole or for the input),
weight gradients alone, overlapped pairs, waiting, and what follows the last gradient. Which rank they
are of is not said. Ranks in the middle of the pipeline run 17 forwards and 8 weight gradients alone,
those at its ends 23 and 15, of chunks with fewer experts to wait for: only there weight gradients can
take 0.42 of the forwards, as the table has it.
"""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from ersatz.sim.scenario.file import load_cases
from ersatz.sim.step.build import build_program
from ersatz.sim.step.folded import folded_body, folded_step
from ersatz.sim.step.program import COMPUTE
from ersatz.sim.step.step import step_seconds
from ersatz.sim.step.vector import VectorStep, alike

SCENARIO = Path(__file__).resolve().parents[1] / "scenarios" / "deepseek-v3-h800.yaml"
PART = {"F": "forward", "B": "backward", "I": "backward", "W": "weights", "FB": "pairs"}
STEP = 19.926
PUBLISHED = {
    "forward": 1.13, "backward": 1.99, "weights": 0.48, "pairs": 13.95, "bubble": 2.06, "end": 0.29
}  # fmt: skip


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, float]]:
    """Seconds of a rank of each stage by kind of slot; with 'end' they add up to the step."""
    program, _ = build_program(load_cases(SCENARIO)[0])
    seconds: list[dict[str, float]] = [defaultdict(float) for _ in range(program.stages)]

    def account(number: int, variant: object, free: float, arrived: float, end: float) -> None:
        late = min(max(arrived - free, 0.0), end - free)
        kind = PART["".join(phase for phase, _, _ in variant)]  # type: ignore[attr-defined]
        seconds[number]["bubble"] += late
        seconds[number][kind] += end - free - late

    state = folded_body(VectorStep(program, alike(program), folds_ranks=True), account)
    barrier = max(float(times.max()) for times in state)
    step = folded_step(program)
    for mine, times in zip(seconds, state, strict=True):
        mine["bubble"] += barrier - float(times[COMPUTE])
        mine["end"] = step - barrier
        assert sum(mine.values()) == pytest.approx(step)
    return seconds


def test_the_published_parts_add_up_to_the_published_step() -> None:
    assert sum(PUBLISHED.values()) == pytest.approx(STEP, rel=0.002)


def test_only_ranks_at_the_ends_have_the_published_shares(ranks: list[dict[str, float]]) -> None:
    """Of no other rank are weight gradients within 15 % of the published ones, nor in the mean."""
    share = PUBLISHED["weights"] / PUBLISHED["forward"]
    shares = [rank["weights"] / rank["forward"] for rank in ranks]
    near = [stage for stage, one in enumerate(shares) if abs(one / share - 1) < 0.15]
    assert near == [0, len(ranks) - 1]
    mean = sum(rank["weights"] for rank in ranks) / len(ranks)
    assert mean < 0.75 * PUBLISHED["weights"]


@pytest.mark.parametrize("part", PUBLISHED)
def test_parts_of_the_first_rank_are_within_15_percent(
    ranks: list[dict[str, float]], part: str
) -> None:
    assert ranks[0][part] == pytest.approx(PUBLISHED[part], rel=0.15)


@pytest.mark.xfail(
    strict=True, reason="5.4 % too short: nothing of the run but its layout is known"
)
def test_the_step_is_within_5_percent(ranks: list[dict[str, float]]) -> None:
    assert sum(ranks[0].values()) == pytest.approx(STEP, rel=0.05)


def test_the_step_is_not_far_off(ranks: list[dict[str, float]]) -> None:
    """What falls short, bounded: 0.94 of the published seconds at least."""
    assert 0.94 * STEP < sum(ranks[0].values()) < STEP


@pytest.mark.parametrize(("fullest", "error"), [(1.0, -0.102), (1.15, -0.029), (1.2, -0.005)])
def test_how_even_routing_is_decides_about_more_than_5_percent(
    fullest: float, error: float
) -> None:
    """Nothing published says it of this training; what is assumed elsewhere, 1.0 to 1.2, is worth 10 %.

    It does not explain the rest: with 1.2 the step is right and its bubble 39 % too long.
    """
    case = load_cases(SCENARIO)[0]
    stack = replace(case.pools[0].stack, expert_imbalance=fullest)
    uneven = replace(case, pools=(replace(case.pools[0], stack=stack),))
    assert step_seconds(uneven) / STEP - 1 == pytest.approx(error, abs=0.003)
