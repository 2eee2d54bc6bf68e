"""Offers side by side: the published Ling figures, closed forms, and roots that must hold."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ersatz.sim.errors import InfeasibleError
from ersatz.sim.options.option import FIELDS, Option, Work, costing, levelised_rent
from ersatz.sim.options.questions import (
    Setting,
    break_even,
    drawn_differences,
    expected_maximum,
    input_dimension,
    reaching,
    splits,
    sweep,
    swings_of,
    winners,
)
from ersatz.sim.purchase.life.chance import Uncertain

HOUR, YEAR_S = 3600.0, 31_557_600.0
WORK = Work(1e12, 6 * 28.8e9)


def option(name: str, **values: float) -> Option:
    base = {key: default or 0.0 for key, (_, default, _) in FIELDS.items()}
    return Option(name, name, {**base, **values})


def ling(name: str, tflops: float, mfu: float, rent: float) -> Option:
    return option(name, peak=tflops * 1e12, mfu=mfu, rent=rent / HOUR)


D = ling("d", 989, 1.728e23 / (989e12 * HOUR) * 27.5 / 6.35e6, 27.5)
A = ling("a", 370, 1.728e23 / (370e12 * HOUR) * 7.0 / 5.08e6, 7.0)
BOTH = Setting(WORK, {"d": D, "a": A})


def test_the_ling_figures() -> None:
    # 6 x 28.8e9 x 1e12 = 1.728e23 FLOP; 6.35 M CNY at 27.5 a hour are 230,909 hours
    assert costing(D, WORK).device_hours == pytest.approx(230_909, abs=1)
    assert costing(A, WORK).device_hours == pytest.approx(725_714, abs=1)
    assert (D["mfu"], A["mfu"]) == (
        pytest.approx(0.2102, abs=5e-5),
        pytest.approx(0.1788, abs=5e-5),
    )
    assert costing(D, WORK).per_trillion == pytest.approx(6.35e6)
    saving = 1 - costing(A, WORK).total / costing(D, WORK).total
    assert saving == pytest.approx(0.2)


def test_break_even_price_of_a_is_8_75() -> None:
    # 27.5 x (370 x 17.88 %) / (989 x 21.02 %) = 8.75 CNY/h
    assert break_even(BOTH, "a.rent", "a", "d") * HOUR == pytest.approx(8.75, abs=1e-6)


def test_the_utilisation_that_reaches_a_cost() -> None:
    assert reaching(BOTH, "d", "d.mfu", 5.08e6) == pytest.approx(0.2627, abs=5e-5)
    assert reaching(BOTH, "a", "a.mfu", 6.35e6) == pytest.approx(0.1430, abs=5e-5)


def test_equal_split_costs_43_percent_more() -> None:
    # 1,000 D and 4,000 A by speed: 101.6 h; at the pace of A each: 145.1 h
    by_speed, equal, loose = splits(BOTH, {"d": 1000, "a": 4000})
    assert by_speed.hours == pytest.approx(101.6, abs=0.05)
    assert equal.hours == pytest.approx(145.1, abs=0.05)
    assert equal.cost / by_speed.cost == pytest.approx(1.43, abs=0.005)
    assert (by_speed.cost / 1e6, equal.cost / 1e6) == (
        pytest.approx(5.64, abs=0.005), pytest.approx(8.05, abs=0.006))  # fmt: skip
    assert equal.utilisation["d"] == pytest.approx(1 / 3.14, abs=0.001)
    assert loose.hours == by_speed.hours  # nothing scatters


def test_scatter_makes_synchronous_steps_wait() -> None:
    # the largest of 1,000 normals is expected at 3.24 (tables: 3.2414)
    assert expected_maximum(1000) == pytest.approx(3.2414, abs=0.005)
    by_speed, _, loose = splits(BOTH, {"d": 500, "a": 500}, jitter=0.02, every=100)
    calm = splits(BOTH, {"d": 500, "a": 500})[0]
    assert by_speed.hours / calm.hours == pytest.approx(1 + 0.02 * 3.2414, abs=2e-4)
    assert loose.hours / calm.hours == pytest.approx(1 + 0.002 * 3.2414, abs=2e-5)


def test_porting_pays_back_after_15_7_trillion_tokens() -> None:
    # a saving of 1.27 M CNY per 1e12 tokens: 20 M CNY are back after 15.7e12
    ported = Setting(WORK, {"d": D, "a": A.with_value("porting", 20e6)})
    assert break_even(ported, "work.tokens", "a", "d") / 1e12 == pytest.approx(20 / 1.27)


def test_an_owned_h100_costs_1_953_an_hour() -> None:
    # 43 k$ at 10 % over five years, 1.3 kW at 150 $/kW-month, 2 % to run, 85 % sold
    own = option("h100", peak=1e15, mfu=0.4, server=8 * 43_000, interest=0.10, life=5 * YEAR_S,
                 watts=1300, colo=150 / (YEAR_S / 12), opex_share=0.02, sold=0.85)  # fmt: skip
    assert costing(own, WORK).per_hour == pytest.approx(1.953, abs=0.001)
    assert costing(own.with_value("life", 4 * YEAR_S), WORK).per_hour == pytest.approx(
        2.252, abs=0.001
    )


def test_an_owned_h800_and_910b() -> None:
    h800 = option("h800", peak=1e15, mfu=0.4, server=2.8e6, network_share=0.15, life=3 * YEAR_S,
                  opex_share=0.05, watts=1400, energy_price=0.6 / 3.6e6, sold=0.9)  # fmt: skip
    assert costing(h800, WORK).per_hour == pytest.approx(23.58, abs=0.01)
    ascend = {**h800.values, "server": 1.5e6, "watts": 750.0}
    assert costing(option("a", **ascend), WORK).per_hour == pytest.approx(12.63, abs=0.01)


def test_smuggled_machines_cost_premium_and_what_is_seized() -> None:
    # 100 at 50 % premium, a fifth seized: 187.5
    plain = option("x", peak=1e15, mfu=0.4, server=800.0, interest=0.0, life=YEAR_S)
    gray = plain.with_value("premium", 0.5).with_value("seizure", 0.2)
    assert costing(gray, WORK).total / costing(plain, WORK).total == pytest.approx(1.875)


def test_rents_that_fall_are_levelised() -> None:
    # without interest the mean of a rent that falls by 10 % a year over two years:
    # (0.9^2 - 1) / ln 0.9 / 2 = 0.9017
    falling = option("r", rent=1 / HOUR, rent_drift=-0.1, interest=0.0, life=2 * YEAR_S)
    assert levelised_rent(falling) == pytest.approx((0.81 - 1) / math.log(0.9) / 2)
    assert levelised_rent(falling.with_value("rent_drift", 0.0)) == pytest.approx(1.0)


def test_sweep_winners_and_swings() -> None:
    table = sweep(BOTH, "*.mfu", [0.1, 0.2])
    assert table["d"][0] == pytest.approx(2 * table["d"][1])
    grid = winners(BOTH, ("a.rent", [7 / HOUR, 9 / HOUR]), ("d.rent", [27.5 / HOUR, 20 / HOUR]))
    assert grid == [["a", "d"], ["d", "d"]]  # 8.75 between 7 and 9; at 20 the border is 6.36
    mfu = Uncertain("a.mfu", 0.15, A["mfu"], 0.21)
    energy = Uncertain("a.energy_price", 0.0, 0.0, 0.6 / 3.6e6)
    wide, none = swings_of(BOTH, [energy, mfu], "a.rent", "a", "d")
    assert (wide.name, none.width) == ("a.mfu", 0.0)  # without watts no power
    assert wide.at_high * HOUR == pytest.approx(8.75 * 0.21 / A["mfu"], abs=1e-3)


def test_drawn_differences_follow_the_inputs() -> None:
    same = Setting(WORK, {"d": D, "e": D})
    dearer = drawn_differences(same, [Uncertain("e.rent", 28 / HOUR, 30 / HOUR, 32 / HOUR)],
                               "e", "d", 50, 1)  # fmt: skip
    assert (dearer > 0.5 - 1e-9).all()
    assert (dearer < 4.5 + 1e-9).all()
    assert np.unique(dearer).size > 10


def test_no_root_is_said() -> None:
    with pytest.raises(InfeasibleError, match="cost as much as d"):
        break_even(BOTH, "a.rent", "a", "d", (9 / HOUR, 10 / HOUR))


@given(st.floats(0.05, 0.6), st.floats(0.05, 0.6), st.floats(1, 100))
@settings(max_examples=40, deadline=None)
def test_at_the_break_even_both_cost_the_same(first: float, second: float, rent: float) -> None:
    setting = Setting(WORK, {"x": ling("x", 300, first, 1.0), "y": ling("y", 500, second, rent)})
    found = break_even(setting, "x.rent", "x", "y", (1e-9, 1.0))
    changed = setting.with_input("x.rent", found)
    assert changed.cost("x") == pytest.approx(changed.cost("y"), rel=1e-9)


def test_inputs_are_known_by_name() -> None:
    assert input_dimension("a.rent") == "money_rate"
    assert input_dimension("work.tokens") == "tokens"
    assert input_dimension("a.colour") is None
    value: Any = BOTH.value("*.peak")
    assert value == 989e12
