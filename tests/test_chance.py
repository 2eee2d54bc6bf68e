"""Intervals of a job's end and cost, and of what one case saves against another."""

import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.job.chance import cost_draws, difference, differences
from ersatz.sim.run import run_case
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.uncertainty.draws import END, factors, standard, step_factors

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"
LING = SCENARIOS / "ling-plus-substitution.yaml"


def ling(*overrides: str) -> list[Scenario]:
    return list(load_cases(LING, list(overrides)))


def told(scenario: Scenario) -> Any:
    result = run_case(scenario)
    assert result.chance is not None
    assert result.job is not None
    assert result.cost is not None
    return result


def test_draws_belong_to_their_cause_alone() -> None:
    """The same name and seed give the same draws; another name others, without a link."""
    assert np.array_equal(standard("price", 1), standard("price", 1))
    assert abs(float(np.corrcoef(standard("price", 1), standard("power", 1))[0, 1])) < 0.05
    assert abs(float(np.corrcoef(standard("price", 1), standard("price", 2))[0, 1])) < 0.05


def test_eighty_percent_of_a_factor_lie_between_its_ends() -> None:
    """Half below one: a factor of 0.75 to 1.5 has a tenth below 0.75 and a tenth above 1.5."""
    drawn = factors("price", 3, 0.75, 1.5)
    assert np.percentile(drawn, [10, 50, 90]) == pytest.approx([0.75, 1.0, 1.5], rel=0.03)


def test_with_fixed_prices_and_no_stops_the_cost_is_as_uncertain_as_the_step() -> None:
    case = ling("job.failures.scale=0")[0]
    result = told(case)
    ends = [
        result.step.low80_s / result.step.duration_s,
        result.step.high80_s / result.step.duration_s,
    ]
    cost = result.cost.per_trillion_tokens
    found = [result.chance.cost_low80 / cost, result.chance.cost_high80 / cost]
    assert found == pytest.approx(ends, rel=0.03)
    assert [result.chance.wall_low80_s / result.job.wall_s,
            result.chance.wall_high80_s / result.job.wall_s] == pytest.approx(ends, rel=0.03)  # fmt: skip
    assert set(result.chance.causes) == {"step"}


def test_a_price_that_may_be_higher_widens_the_cost_but_not_the_date() -> None:
    """Independent causes: logarithmic half widths add as squares."""
    case = ling("job.failures.scale=0", "cost.price_low=0.8", "cost.price_high=1.25")[0]
    plain = told(ling("job.failures.scale=0")[0])
    result = told(case)
    step = math.log(plain.chance.cost_high80 / plain.cost.per_trillion_tokens)
    both = math.log(result.chance.cost_high80 / result.cost.per_trillion_tokens)
    assert both == pytest.approx(math.hypot(step, math.log(1.25)), rel=0.05)
    assert result.chance.wall_high80_s == plain.chance.wall_high80_s
    assert result.chance.causes["price"] == pytest.approx(0.25, abs=0.01)


def test_what_cases_have_in_common_cancels() -> None:
    """A case against itself saves nothing, for certain; at half the price it saves half, for certain."""
    case = ling()[0]
    draws = cost_draws(case, *(lambda r: (r.step, r.job, r.cost))(told(case)))
    same = difference("a", draws, "b", draws)
    assert (same.saving, same.saving_low80, same.saving_high80, same.p_cheaper) == (0, 0, 0, 0)
    half = difference("a", draws / 2, "b", draws)
    assert (half.saving_low80, half.saving_high80, half.p_saves_fifth) == (0.5, 0.5, 1.0)


def test_two_clusters_with_nothing_in_common_differ_by_both_errors() -> None:
    """P(cheaper) of two independent log-normals: Phi(ln ratio / the root of the sum of squares)."""
    cases = ling("job.failures.scale=0")
    results = [told(case) for case in cases]
    (found,) = differences(cases, results)
    spread = [math.log(r.step.high80_s / r.step.duration_s) / END for r in results]
    ratio = results[0].cost.per_trillion_tokens / results[1].cost.per_trillion_tokens
    expected = NormalDist().cdf(math.log(ratio) / math.hypot(*spread))
    assert found.p_cheaper == pytest.approx(expected, abs=0.03)
    assert found.saving_low80 < found.saving < found.saving_high80


def test_the_same_cluster_twice_differs_by_less_than_two_strangers() -> None:
    """Software and device are common: only what a run has for itself is left."""
    case = ling()[0]
    other = replace(case, name="again")
    width = run_case(case).step.high80_s / run_case(case).step.duration_s - 1
    ratio = step_factors(other, width) / step_factors(case, width)
    stranger = replace(other, seed=case.seed + 1)
    apart = step_factors(stranger, width) / step_factors(case, width)
    assert 0 < np.std(np.log(ratio)) < 0.85 * np.std(np.log(apart))


def test_a_price_that_was_looked_up_is_uncertain_and_one_that_is_given_is_not(
    tmp_path: Path,
) -> None:
    given = ling()[0].cost
    assert given is not None
    assert (given.price_low, given.price_high) == (1.0, 1.0)
    text = LING.read_text().replace("currency: CNY, rent: 27.5 CNY/h", "currency: CNY")
    path = tmp_path / "looked-up.yaml"
    path.write_text(text.split("cases:")[0].replace("h800-8", "ascend-910b3-8"))
    (case,) = load_cases(path, ["stack=ling-ascend", "parallel={tp: 4, pp: 8, ep: 8, dp: 32}"])
    assert case.cost is not None
    assert case.cost.price_low < 1 < case.cost.price_high
    with pytest.raises(InputError, match="price_high"):
        load_cases(LING, ["cost.price_high=0.5"])
