"""The words in which every file speaks: quantities with their unit and what they may hold, names, counts.

A text with a unit comes in, a number in base units goes on; each keeps its dimension for the tables of keys
in the documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ersatz.device_models.text.names import checked_name, checked_stem
from ersatz.device_models.text.units import UnitError, parse_money, parse_quantity

Holds = Callable[[float], bool]
DAY_S, YEAR_S = 86400.0, 31_557_600.0


def _quantity(
    dimension: str, holds: Holds = lambda value: value >= 0,
    expected: str = "a value that is not negative",
) -> BeforeValidator:  # fmt: skip
    """Read a text with a unit as a number in base units for which `holds`."""

    def read(value: object) -> float:
        try:
            number = parse_quantity(value, dimension)
        except UnitError as error:
            raise ValueError(str(error)) from error
        if not holds(number):
            raise ValueError(f"expected {expected}")
        return number

    return BeforeValidator(read)


def _tokens() -> BeforeValidator:
    """Read a number of tokens; a bare number can be nothing else."""
    read = _quantity("tokens", lambda v: v >= 1, "at least 1 tokens").func

    def bare(value: object) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(read(f"{value} tokens" if number else value))  # type: ignore[call-arg]

    return BeforeValidator(bare)


def _positive(dimension: str) -> BeforeValidator:
    return _quantity(dimension, lambda value: value > 0, "a value above 0")


def _time(least: float, most: float, expected: str) -> BeforeValidator:
    return _quantity("time", lambda value: least <= value <= most, expected)


def _money(dimension: str) -> BeforeValidator:
    """Read an amount with its currency: (number in base units, currency)."""

    def read(value: object) -> tuple[float, str]:
        try:
            amount, currency = parse_money(value, dimension)
        except UnitError as error:
            raise ValueError(str(error)) from error
        if not currency or amount < 0:
            raise ValueError("expected an amount that is not negative, with its currency")
        return amount, currency

    return BeforeValidator(read)


def _unit(dimension: str) -> Any:
    return Field(json_schema_extra={"unit": dimension})


# The words in which every file speaks. What they hold lies within `units.BOUNDS`; beyond that each
# says itself what it means: a share ends at 100 %, a divisor is above 0.
Time = Annotated[float, _quantity("time"), _unit("time")]
Wait = Annotated[float, _time(0, 100 * YEAR_S, "at most 100 years"), _unit("time")]
Life = Annotated[float, _time(DAY_S, 100 * YEAR_S, "1 day to 100 years"), _unit("time")]
Pause = Annotated[
    float, _quantity("time", lambda t: t == 0 or t >= 60, "0 for never, or at least 1 min"),
    _unit("time"),
]  # fmt: skip
Interval = Annotated[float, _time(1, 100 * YEAR_S, "1 s to 100 years"), _unit("time")]
Share = Annotated[
    float, _quantity("fraction", lambda v: 0 <= v <= 1, "a share from 0 to 100 %"),
    _unit("share"),
]  # fmt: skip
PositiveShare = Annotated[
    float, _quantity("fraction", lambda v: 1e-6 <= v <= 1, "a share above 0 and at most 100 %"),
    _unit("share"),
]  # fmt: skip
Fraction = Annotated[float, _quantity("fraction"), _unit("fraction")]
Rate = Annotated[float, _quantity("rate"), _unit("rate")]
FailureRate = Annotated[
    float, _quantity("rate", lambda v: 0 <= v <= 1 / 60, "0 to 1 per minute"), _unit("rate")
]
Bandwidth = Annotated[
    float, _quantity("bandwidth", lambda v: v >= 1e3, "at least 1 kB/s"), _unit("bandwidth")
]
Tokens = Annotated[float, _tokens(), _unit("tokens")]
Bytes = Annotated[float, _quantity("bytes"), _unit("bytes")]
Mass = Annotated[float, _quantity("mass"), _unit("mass")]
Carbon = Annotated[float, _quantity("carbon_intensity"), _unit("carbon_intensity")]
Money = Annotated[tuple[float, str], _money("money"), _unit("money")]
MoneyRate = Annotated[tuple[float, str], _money("money_rate"), _unit("money_rate")]
EnergyPrice = Annotated[tuple[float, str], _money("energy_price"), _unit("energy_price")]
Power = Annotated[float, _quantity("power"), _unit("power")]
FlopRate = Annotated[float, _positive("flop_rate"), _unit("flop_rate")]
FlopPerToken = Annotated[float, Field(ge=1, le=1e18)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Degree = Annotated[int, Field(ge=1, le=10_000_000)]
Steps = Annotated[int, Field(ge=1, le=1_000_000_000_000)]
MOST_NODES = 250_000  # of a job: two million devices in nodes of eight
Nodes = Annotated[int, Field(ge=1, le=MOST_NODES)]
Spares = Annotated[int, Field(ge=0, le=MOST_NODES)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Amount = Annotated[float, Field(ge=0, le=1e9)]
Factor = Annotated[float, Field(ge=1e-6, le=1e6)]


def _label(value: object) -> object:
    if isinstance(value, str) and not (value.strip() and value.isprintable() and len(value) <= 100):
        raise ValueError("expected 1 to 100 printable characters")
    return value


Name = Annotated[str, AfterValidator(checked_name)]
Stem = Annotated[str, AfterValidator(checked_stem)]  # of numbered names
Label = Annotated[str, BeforeValidator(_label)]


class Section(BaseModel):
    """A mapping of known keys; anything else is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
