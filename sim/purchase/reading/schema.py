"""The shape of a file that `ersatz buy` reads: every key with its unit, its default and its meaning.

A file asks one kind of question, by the section that it holds: `purchase` plans and replays a
build-out, `compare` sets offers side by side, `stockpile` weighs a purchase against a cut-off, `ramp`
follows domestic production.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ersatz.sim.purchase.reading.options_schema import CompareSection
from ersatz.sim.scenario.sections.quantities import (
    Amount,
    Carbon,
    Count,
    Degree,
    EnergyPrice,
    Factor,
    FailureRate,
    FlopPerToken,
    FlopRate,
    Fraction,
    Interval,
    Money,
    MoneyRate,
    Name,
    PositiveShare,
    Power,
    Section,
    Seed,
    Share,
    Tokens,
    Wait,
)

Signed = Annotated[str | float, Field(description="a share with a sign, like '-50 %'")]
Positive = Annotated[float, Field(ge=1e-6, le=1e9)]


class BuyerSection(Section):
    """Who buys."""

    kind: str = Field("company", description="kind of buyer that the rules know")
    country: str = Field(
        "China", description="headquarters, and destination where a site says nothing else"
    )


class RulesSection(Section):
    """Which rules hold, and how far the planner sees."""

    file: str | None = Field(None, description="rules of your own, beside this file")
    set: tuple[str, ...] = Field((), description="changes, e.g. rules.ID.binds=2025-04-23")
    foresight: bool = Field(False, description="the planner knows rules not yet announced")
    ignore: bool = Field(False, description="no rules at all: everything is free")


class PurchaseSection(Section):
    """What is planned, and within which budget."""

    months: Annotated[int, Field(ge=1, le=120)] = Field(description="of the plan")
    objective: Literal["cost", "time", "pareto"] = Field("cost", description="what is least")
    budget: Money | None = Field(None, description="all money together")
    monthly: Money | None = Field(None, description="money that comes free each month")
    count: Literal["cash", "use"] = Field(
        "cash", description="cost is all cash, or cash less what the machines are worth at the end"
    )
    count_on_licences: bool | None = Field(
        None, description="plan as if licences came: by default those presumed to be approved"
    )
    family_cost: Money | None = Field(
        None, description="of each family of devices that is used, once: contracts, spares, people"
    )
    replan: bool = Field(False, description="also plan anew once events have happened")
    gap: Share = Field(0.01, description="by which a plan may miss the optimum")
    time_limit: Interval = Field(60.0, description="of one solution")


class PortingSection(Section):
    """Making the software run on a device."""

    cost: Money | None = Field(None, description="once")
    person_months: Annotated[float, Field(ge=0, le=1e6)] = Field(
        0.0, description="of engineers, paid once at the region's wages, beside the cost"
    )
    delay: Wait = Field(0.0, description="from the start, before any job can run on it")


class DeviceSection(Section):
    """A node on offer."""

    node: str | None = Field(None, description="node of the catalogue")
    device: str | None = Field(None, description="device of the catalogue, for the rules")
    per_node: Degree | None = Field(None, description="devices of a node, without a catalogue node")
    title: str | None = Field(None, description="in reports")
    price: Money | dict[str, Money] | None = Field(
        None, description="of a node, or by month from which it holds; by default the catalogue's"
    )
    network_share: Share | None = Field(None, description="of the price, added")
    rent: MoneyRate | None = Field(None, description="of a device; without it none is for rent")
    rentable: Count = Field(0, description="nodes for rent")
    lot: Degree = Field(1, description="nodes that are ordered together, at least and in steps")
    rent_with_power: bool = Field(True, description="the rent includes electricity")
    standing: bool = Field(
        False, description="those for rent stand there already: no export, only its use is judged"
    )
    for_sale: bool = Field(True, description="can be bought")
    sold_from: str | None = Field(None, description="first day of sale")
    sold_until: str | None = Field(None, description="last day of sale")
    lead_time: Wait | None = Field(None, description="from the order to the export")
    transit: Wait | None = Field(None, description="from the export to the first step")
    supply: Amount | None = Field(None, description="nodes that can be ordered in a month")
    quota: Amount | None = Field(
        None, description="nodes in all; the rules are asked for as many devices"
    )
    failure_rate: FailureRate | None = Field(
        None, description="of a device; by default the catalogue's"
    )
    repaired: Share | None = Field(None, description="share of failed devices")
    repair_time: Wait | None = Field(None, description="until a repaired device is back")
    repair_share: Fraction | None = Field(None, description="of a device's price, per repair")
    power: Power | None = Field(None, description="of a device in use with its share of the host")
    porting: PortingSection = Field(PortingSection(), description="see below")
    sites: tuple[str, ...] = Field((), description="where it can be had; by default everywhere")
    domestic: bool | None = Field(
        None, description="made where it is used; by default the vendor's"
    )


class SiteSection(Section):
    """Where machines may stand."""

    country: str | None = Field(None, description="by default the buyer's")
    power: Power | None = Field(None, description="at the meter; by default without limit")
    nodes: Amount | None = Field(None, description="room; by default without limit")
    energy_price: EnergyPrice | None = Field(None, description="of electricity")
    colocation: MoneyRate | None = Field(
        None, description="of a kilowatt of machines, electricity included: instead of energy_price"
    )
    pue: Annotated[float, Field(ge=1, le=10)] | None = Field(None, description="meter / machines")
    carbon_intensity: Carbon | None = Field(None, description="of the electricity")


class StatedRate(Section):
    """A rate that is stated, not simulated."""

    peak: FlopRate = Field(description="of a device")
    mfu: PositiveShare = Field(description="that a job reaches")
    goodput: PositiveShare = Field(1.0, description="share of the wall time that counts")


class StatedMix(Section):
    """Devices that train together, with what they reach of the sum of their rates."""

    devices: Annotated[tuple[str, ...], Field(min_length=2)] = Field(
        description="with stated rates"
    )
    efficiency: PositiveShare = Field(description="of the group against the sum of its devices")


class MarketJobSection(Section):
    """What the machines are for."""

    tokens: Tokens = Field(description="of the whole job")
    deadline: Interval | None = Field(
        None, description="from the start; by default the plan's months"
    )
    plans: str | None = Field(
        None, description="run scenario whose cases are plans for the devices"
    )
    use: tuple[str, ...] = Field((), description="cases of it; by default all that fit")
    flop_per_token: FlopPerToken | None = Field(
        None, description="for stated rates: 6 x active weights"
    )
    rates: dict[str, StatedRate] = Field({}, description="stated rates by device")
    mixes: tuple[StatedMix, ...] = Field((), description="stated groups of them")


class EventSection(Section):
    """Something that happens during the build-out."""

    kind: Literal["embargo", "licence", "import", "price", "repair", "stockpile", "smuggling",
                  "supply", "power", "porting"] = Field(description="what")  # fmt: skip
    date: str | None = Field(None, description="day; by default the start")
    devices: tuple[str, ...] = Field((), description="by default all")
    sites: tuple[str, ...] = Field((), description="by default all")
    known: bool = Field(False, description="the planner knows")
    label: str = Field("", description="in reports")
    grace: Wait | None = Field(None, description="embargo: until it is in force")
    months: Positive | None = Field(None, description="embargo: how long; stockpile: how far ahead")
    approval: Share | None = Field(None, description="licence, import: probability")
    delay: Wait | None = Field(None, description="licence, import, smuggling, porting: time lost")
    change: Signed | None = Field(
        None, description="price, supply, power: share by which it changes"
    )
    repaired: Share | None = Field(None, description="repair: share of failed devices from then on")
    failures: Factor | None = Field(None, description="repair: factor on failures from then on")
    premium: Fraction | None = Field(None, description="smuggling: on the price")
    seizure: Share | None = Field(None, description="smuggling: share that is seized")
    cost: Money | None = Field(None, description="porting: paid at once")


class MonteCarloSection(Section):
    """Many lives of the plan over uncertain inputs."""

    draws: Annotated[int, Field(ge=1, le=100_000)] = Field(200, description="independent lives")
    saving: Share = Field(0.2, description="asked of each case against the first: how likely is it")
    outcome: Literal["finish", "cost", "delivered"] = Field("finish", description="of the tornado")
    inputs: dict[str, Any] = Field(
        {}, description="[low, middle, high], {choice: [...]}, or `interval` for the throughput"
    )


class StockpileSection(Section):
    """A need that could be bought ahead of a cut-off."""

    need: Positive = Field(description="nodes a month")
    months: Annotated[int, Field(ge=1, le=240)] = Field(description="for which they are needed")
    price: Money = Field(description="of a node")
    shortage: Money = Field(
        description="of a node that cannot be had: what a substitute costs more"
    )
    interest: Share | None = Field(None, description="per year; by default 8 %")
    value_loss: Share | None = Field(
        None, description="per year, of machines that wait; by default 27.6 %"
    )
    storage: Share | None = Field(None, description="per year, of the price; by default 2 %")
    hazard: FailureRate = Field(description="of the cut-off")


class RampSection(Section):
    """Domestic production."""

    production: str = Field(description="of the catalogue, such as ascend-910c")
    until: str = Field(description="last month, like 2026-12")
    level: Literal["low", "mid", "high"] = Field("mid", description="of every input")
    set: tuple[str, ...] = Field((), description="changes, e.g. ascend-910c.memory_stock.mid=5e6")


class BuyFile(Section):
    """A file of `ersatz buy`."""

    question: str = Field(description="what the scenario answers")
    seed: Seed = Field(0, description="of all random draws")
    currency: Literal[
        "CNY", "USD", "EUR", "GBP", "JPY", "INR", "MYR", "SGD", "KRW", "TWD", "AED", "SAR"
    ] = Field("CNY", description="of all results")
    start: str | None = Field(None, description="day of the plan, like 2025-03-24")
    buyer: BuyerSection = Field(BuyerSection(), description="see below")
    rules: RulesSection = Field(RulesSection(), description="see below")
    purchase: PurchaseSection | None = Field(None, description="see below")
    devices: dict[Name, DeviceSection] = Field({}, description="what is on offer")
    sites: dict[Name, SiteSection] = Field({}, description="where it may stand")
    jobs: dict[Name, MarketJobSection] = Field({}, description="what it is for")
    events: tuple[EventSection, ...] = Field((), description="what happens")
    monte_carlo: MonteCarloSection | None = Field(None, description="see below")
    compare: CompareSection | None = Field(None, description="see below")
    stockpile: StockpileSection | None = Field(None, description="see below")
    ramp: RampSection | None = Field(None, description="see below")
    cases: dict[str, dict[str, Any]] = Field({}, description="variants; the first is the baseline")
