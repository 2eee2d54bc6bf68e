"""Quantities cross the border once, and wrong ones say what was expected."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ersatz.device_models.text.digits import DECIMAL, is_whole, whole
from ersatz.device_models.text.units import (
    BOUNDS,
    UNITS,
    UnitError,
    format_bytes,
    format_count,
    format_duration,
    format_money,
    format_si,
    parse_money,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("400 Gbit/s", "bandwidth", 50e9),  # 8 bits a byte
        ("50 GB/s", "bandwidth", 50e9),
        ("80 GiB", "bytes", 80 * 2**30),
        ("80 GB", "bytes", 80e9),
        ("989.4 TFLOP/s", "flop_rate", 989.4e12),
        ("54 days", "time", 54 * 86400.0),
        ("30min", "time", 1800.0),
        ("9 T tokens", "tokens", 9e12),
        ("21 %", "fraction", 0.21),
        (0.21, "fraction", 0.21),
        ("3600 CNY/h", "money_rate", 1.0),
        ("2.8 M CNY", "money", 2.8e6),
        ("0.36 CNY/kWh", "energy_price", 1e-7),
        ("814 mm2", "area", 814e-6),
        ("1e3 GB/s", "bandwidth", 1e12),
        ("15T", "tokens", 15e12),
        ("800 B", "tokens", 800e9),
        ("2 trillion tokens", "tokens", 2e12),
        ("300 billion", "tokens", 300e9),
    ],
)
def test_parsing(text: object, dimension: str, value: float) -> None:
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "dimension", "words"),
    [
        ("400", "bandwidth", "has no unit"),
        (400, "bandwidth", "has no unit"),
        ("400 Gbits", "bandwidth", "unknown unit 'Gbits'"),
        ("80 GB/s", "bytes", "unknown unit 'GB/s'"),
        ("fast", "bandwidth", "expected a bandwidth"),
        (None, "time", "expected a time"),
        (True, "fraction", "expected a fraction"),
        ([], "time", "expected a time"),
        ("1e999 s", "time", "not finite"),
        (float("nan"), "fraction", "not finite"),
        (10**400, "fraction", "is too large"),
        ("1e9 days", "time", "is too large: expected at most 3.156e\\+10 s"),
        ("1e-300 B/s", "bandwidth", "is too small: expected at least 0.001 B/s, or 0"),
        ("٣ days", "time", "expected a time"),
        ("1" * 100_000 + " s", "time", "expected a time"),
    ],
)
def test_wrong_quantities(text: object, dimension: str, words: str) -> None:
    with pytest.raises(UnitError, match=words):
        parse_quantity(text, dimension)


@given(st.sampled_from(sorted(UNITS)), st.data(), st.floats(1e-6, 1e6))
def test_every_unit_scales_linearly(dimension: str, data: st.DataObject, number: float) -> None:
    unit, scale = data.draw(st.sampled_from(sorted(UNITS[dimension].items())))
    least, most = BOUNDS[dimension]
    assume(least <= number * scale <= most)
    assert parse_quantity(f"{number!r} {unit}", dimension) == pytest.approx(number * scale)


def test_money_names_its_currency() -> None:
    assert parse_money("27.5 CNY/h", "money_rate") == (pytest.approx(27.5 / 3600), "CNY")


def test_formats_people_read() -> None:
    assert [format_count(n) for n in (671.04e9, 12.4e6, 960, 14.8e12)] == [
        "671.0 B", "12.4 M", "960", "14.8 T"]  # fmt: skip
    assert format_bytes(61.34 * 2**30) == "61.3 GiB"
    assert format_duration(54.2 * 86400) == "54.2 days"
    assert format_duration(19.926) == "19.93 s"
    assert format_duration(0.0032) == "3.20 ms"
    assert format_si(9.894e14, "FLOP/s") == "989 TFLOP/s"
    assert format_money(6.35e6, "CNY") == "6.35 M CNY"


@pytest.mark.parametrize(
    ("text", "caught"),
    [("4.31s", "4.31"), ("4.31, 5", "4.31"), ("7 s", "7"), ("5.", "5"), ("1..2", None), ("1.2.3", None),
     (".", None), ("9" * 16, None), ("\u00b2", None)],
)  # fmt: skip
def test_a_decimal_is_what_float_takes(text: str, caught: str | None) -> None:
    found = re.match(DECIMAL, text)
    assert (found and found[0]) == caught


@pytest.mark.parametrize("text", ["", "\u00b2", "-1", "1.0", "9" * 5000, "1_000"])
def test_words_that_are_no_whole_numbers(text: str) -> None:
    assert whole(text) is None
    assert not is_whole(text)
    assert whole("0017") == 17
