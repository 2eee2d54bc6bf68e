"""The shape of a `compare` section: options, the work, and what is asked of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ersatz.sim.scenario.sections.quantities import FlopPerToken, Money, Name, Section, Tokens

Value = str | float
MOST_ASKED = 200  # each is a table and a picture


class WorkSection(Section):
    """What is to be computed."""

    tokens: Tokens = Field(description="of the work")
    flop_per_token: FlopPerToken = Field(description="6 x active weights")


class AskSection(Section):
    """One question to the options."""

    kind: Literal["cost", "sweep", "break_even", "tornado", "map", "mixed", "fan", "legal"] = Field(
        description="what is asked"
    )
    input: str | None = Field(None, description="option.field, *.field or work.tokens")
    values: tuple[Value, ...] = Field((), description="sweep: of the input; map: of the columns")
    targets: dict[str, Money] = Field({}, description="sweep: cost per 1e12 tokens by option")
    option: str | None = Field(None, description="break_even, tornado, fan: the one in question")
    against: str | None = Field(None, description="the one it is compared with")
    low: Value | None = Field(None, description="break_even: least value tried")
    high: Value | None = Field(None, description="break_even: largest value tried")
    inputs: dict[str, tuple[Value, Value, Value]] = Field(
        {}, description="tornado, fan: low, middle and high of each"
    )
    rows: str | None = Field(None, description="map: input of the rows")
    row_values: tuple[Value, ...] = Field((), description="map: its values")
    fleet: dict[str, Annotated[float, Field(ge=1e-6, le=1e9)]] = Field(
        {}, description="mixed: devices by option"
    )
    jitter: Value = Field(0.0, description="mixed: scatter of a device's step time")
    every: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1, description="mixed: steps between synchronisations"
    )
    draws: Annotated[int, Field(ge=1, le=100_000)] = Field(1000, description="fan: draws")
    date: str | None = Field(None, description="legal: day of the purchase")


class CompareSection(Section):
    """Options side by side."""

    work: WorkSection = Field(description="see below")
    options: dict[Name, dict[str, Any]] = Field(description="by name: fields of an option")
    ask: tuple[AskSection, ...] = Field(
        min_length=1, max_length=MOST_ASKED, description="questions, in order"
    )
