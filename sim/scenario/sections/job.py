"""How a whole job is run, what interrupts it, and what it costs in money, energy and carbon."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ersatz.sim.scenario.defaults import default_of
from ersatz.sim.scenario.sections.machines import FaultSection
from ersatz.sim.scenario.sections.quantities import (
    Bandwidth,
    Carbon,
    EnergyPrice,
    FailureRate,
    Interval,
    Label,
    Life,
    Mass,
    Money,
    MoneyRate,
    Pause,
    PositiveShare,
    Section,
    Share,
    Spares,
    Wait,
)


class FailuresSection(Section):
    """How often components fail; rates come from the catalogue unless given."""

    scale: Annotated[float, Field(ge=0, le=1e6)] = Field(1.0, description="factor on every rate")
    device_rate: FailureRate | None = Field(None, description="per device")
    node_rate: FailureRate | None = Field(None, description="per node: host, cards, cables")
    switch_rate: FailureRate | None = Field(
        None, description="of all switches and links together; by default within the nodes' rate"
    )
    software_rate: FailureRate | None = Field(
        None, description="of the whole job; by default 2.6 %/year for each device"
    )
    law: Literal["exponential", "weibull"] = Field("exponential", description="of times to failure")
    shape: Annotated[float, Field(ge=0.1, le=100)] = Field(1.0, description="of the Weibull law")
    device_repair: Wait = Field(
        default_of("device_repair"), description="until a failed node is back"
    )


class CheckpointSection(Section):
    """When the job saves its state and what that costs."""

    interval: Interval | Literal["optimal"] = Field("optimal", description="between checkpoints")
    mode: Literal["synchronous", "asynchronous", "memory"] = Field(
        "synchronous", description="whole write, copy to the host, or copy to a peer's memory"
    )
    storage_bandwidth: Bandwidth = Field(
        default_of("storage_bandwidth"), description="of the storage, the whole job"
    )
    node_bandwidth: Bandwidth | None = Field(
        None, description="between one node and the storage; by default 10 GB/s"
    )
    memory_bandwidth: Bandwidth = Field(
        default_of("memory_bandwidth"), description="per node, to host memory"
    )
    bytes_per_param: Annotated[float, Field(ge=0.01, le=100)] = Field(
        default_of("bytes_per_param"), description="saved per weight"
    )


class PauseSection(Section):
    """A regular stop of the job."""

    every: Pause = Field(0.0, description="time between stops; 0 is never")
    duration: Wait = Field(0.0, description="length of one")


class ConditionSection(Section):
    """Something in the network that is now and then broken or busy, and mends by itself."""

    name: Label = Field(description="by which the report calls it")
    rate: FailureRate = Field(description="how often it begins, in the whole job")
    duration: Wait = Field(description="until it is over")
    faults: tuple[FaultSection, ...] = Field((), description="as in fabric.faults")
    background: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the links above the leaves that other jobs use meanwhile"
    )


class JobSection(Section):
    """How the whole job is run and what interrupts it."""

    failures: FailuresSection = Field(FailuresSection(), description="see below")
    checkpoint: CheckpointSection = Field(CheckpointSection(), description="see below")
    detection: Wait = Field(default_of("detection"), description="until a failure is noticed")
    restart: Wait = Field(
        default_of("restart"), description="until the job runs again, without loading"
    )
    spare_nodes: Spares | dict[str, Spares] | None = Field(
        None,
        description="nodes kept ready, or so many by pool; by default 2 %, at least 2, at most 1 for 8",
    )
    on_loss: Literal["wait", "shrink"] = Field("wait", description="when no spare is left")
    evaluation: PauseSection = Field(PauseSection(), description="regular evaluation")
    maintenance: PauseSection = Field(PauseSection(), description="regular maintenance")
    conditions: tuple[ConditionSection, ...] = Field(
        (), description="of the network; the job slows down, or stops until they are over"
    )
    replicas: Annotated[int, Field(ge=1, le=100_000)] = Field(64, description="independent draws")


class CostSection(Section):
    """How money is counted. Prices hold for every pool, or are given by pool name."""

    model: Literal["rent", "annuity", "depreciation"] = Field("rent", description="cost model")
    currency: Literal["CNY", "USD", "EUR"] = Field("CNY", description="of all amounts")
    rent: MoneyRate | dict[str, MoneyRate] | None = Field(
        None, description="per device; by default the newest of the catalogue"
    )
    server_price: Money | dict[str, Money] | None = Field(
        None, description="per node; by default the newest of the catalogue"
    )
    price_low: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="factor by which the price may be lower (80 %); by default 1 for a given price",
    )
    price_high: Annotated[float, Field(ge=1, le=100)] | None = Field(
        None,
        description="factor by which it may be higher; by default 1 for a given price",
    )
    network_share: Share = Field(
        default_of("network_share"), description="of the server price, added"
    )
    interest: Share = Field(default_of("interest"), description="per year")
    life: Life = Field(default_of("life"), description="of the machines")
    machine_age: Wait = Field(
        0.0, description="since their price held; by then their value has decayed (depreciation)"
    )
    value_decay: Annotated[float, Field(ge=0, le=5)] = Field(
        default_of("value_decay"),
        description="orders of magnitude per year (depreciation); 0 is a straight line over the life",
    )
    opex_share: Share = Field(default_of("opex_share"), description="of the capital per year")
    sold_fraction: PositiveShare = Field(
        default_of("sold_fraction"), description="share of the machines' life in use"
    )
    energy_price: EnergyPrice | None = Field(
        None, description="of electricity; left out when rent includes it"
    )


class EnergySection(Section):
    """Power and its emissions."""

    pue: Annotated[float, Field(ge=1, le=10)] = Field(
        default_of("pue"), description="meter / machines"
    )
    carbon_intensity: Carbon = Field(
        default_of("carbon_intensity"), description="of the electricity"
    )
    embodied_per_device: Mass = Field(
        default_of("embodied_per_device"), description="emissions of making one"
    )
    device_life: Life = Field(default_of("device_life"), description="over which they are spread")
