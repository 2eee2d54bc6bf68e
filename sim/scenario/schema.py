"""The shape of a scenario file: every key with its unit, its default and its meaning.

`ersatz.sim.scenario.file` reads files with it; `docs/scenario.md` is generated from it. A default of None
means that the key is left open: what is then assumed is said in the output.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ersatz.device_models.text.units import UnitError, parse_money, parse_quantity


def _quantity(dimension: str) -> BeforeValidator:
    """Read a text with a unit as a number in base units."""

    def read(value: object) -> float:
        try:
            number = parse_quantity(value, dimension)
        except UnitError as error:
            raise ValueError(str(error)) from error
        if number < 0:
            raise ValueError("expected a value that is not negative")
        return number

    return BeforeValidator(read)


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


Time = Annotated[float, _quantity("time"), _unit("time")]
Fraction = Annotated[float, _quantity("fraction"), _unit("fraction")]
Rate = Annotated[float, _quantity("rate"), _unit("rate")]
Bandwidth = Annotated[float, _quantity("bandwidth"), _unit("bandwidth")]
Tokens = Annotated[float, _quantity("tokens"), _unit("tokens")]
Mass = Annotated[float, _quantity("mass"), _unit("mass")]
Carbon = Annotated[float, _quantity("carbon_intensity"), _unit("carbon_intensity")]
Money = Annotated[tuple[float, str], _money("money"), _unit("money")]
MoneyRate = Annotated[tuple[float, str], _money("money_rate"), _unit("money_rate")]
EnergyPrice = Annotated[tuple[float, str], _money("energy_price"), _unit("energy_price")]
Power = Annotated[float, _quantity("power"), _unit("power")]
FlopRate = Annotated[float, _quantity("flop_rate"), _unit("flop_rate")]
Degree = Annotated[int, Field(ge=1, le=10_000_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]


class Section(BaseModel):
    """A mapping of known keys; anything else is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PoolSection(Section):
    """Nodes of one kind."""

    name: str = Field(description="by which stages, prices and reports call it")
    node: str = Field(description="node of the catalogue, or path of a node file")
    nodes: Degree = Field(description="how many")
    network: str | dict[str, Any] | None = Field(
        None,
        description="network between nodes in place of the node's: a name, a path, or its values",
    )
    stack: str | None = Field(None, description="software stack of this pool, or path of a file")


class JointSection(Section):
    """What ties pools of several kinds together. What is left out is said as an assumption."""

    path: Literal["direct", "host"] | None = Field(
        None,
        description="from card to card, or copied through the hosts; by default through the hosts"
        " between two vendors, else direct",
    )
    node_bandwidth: Bandwidth | None = Field(
        None, description="of one node into it; by default its cards, through hosts 100 Gbit/s"
    )
    bandwidth: Bandwidth | None = Field(None, description="of all of it; by default no limit")
    latency: Time | None = Field(
        None, description="beside the network's; by default none, through hosts 100 us"
    )
    copy_bandwidth: Bandwidth | None = Field(
        None, description="between a device and its host; by default 20 GB/s"
    )


class ClusterSection(Section):
    """The machines: one kind of node, or several pools."""

    node: str | None = Field(None, description="node of the catalogue, or path of a node file")
    nodes: Degree | None = Field(None, description="how many")
    network: str | dict[str, Any] | None = Field(
        None,
        description="network between nodes in place of the node's: a name, a path, or its values",
    )
    pools: tuple[PoolSection, ...] = Field((), description="several kinds of node in one job")
    joint: JointSection = Field(JointSection(), description="between the pools; see below")

    @model_validator(mode="after")
    def one_way(self) -> ClusterSection:
        """Either node and nodes, or pools."""
        if bool(self.pools) == bool(self.node or self.nodes):
            raise ValueError("expected either node and nodes, or pools")
        if self.node and self.nodes is None:
            raise ValueError("nodes is missing: how many?")
        return self


class TrainingSection(Section):
    """What one step processes, and how long the job goes on."""

    sequence_length: Degree = Field(description="tokens per sequence")
    global_batch: Degree = Field(description="sequences per step")
    micro_batch: Degree = Field(1, description="sequences per micro-batch and replica")
    precision: Literal["bf16", "fp16", "fp8", "fp32"] = Field(
        "bf16", description="of the matrix products"
    )
    document_tokens: Degree | None = Field(
        None,
        description="mean length of the documents packed into a sequence; attention ends there",
    )
    tokens: Tokens | None = Field(None, description="of the whole job")
    steps: Degree | None = Field(None, description="of the whole job, in place of tokens")


class ParallelSection(Section):
    """Degrees and schedule of the layout."""

    tp: Degree = Field(1, description="tensor-parallel degree")
    pp: Degree = Field(1, description="pipeline stages")
    vp: Degree = Field(1, description="model chunks per stage (interleaved schedule)")
    cp: Degree = Field(1, description="context-parallel degree")
    ep: Degree = Field(1, description="expert-parallel degree")
    etp: Degree = Field(1, description="tensor-parallel degree inside an expert")
    dp: Degree | None = Field(None, description="data-parallel degree; by default what is left")
    sequence_parallel: bool | None = Field(None, description="spread norms and residuals over tp")
    zero: Literal[0, 1, 2, 3] | None = Field(None, description="ZeRO stage; 3 is FSDP")
    shard: Count = Field(0, description="replicas that share one copy of the state; 0 is all")
    schedule: str | dict[str, tuple[tuple[tuple[str, int, int], ...], ...]] | None = Field(
        None,
        description="gpipe, 1f1b, interleaved, zb-h1, zb-v, dualpipe, or {orders: per stage a list"
        " of [phase, chunk, micro-batch]}",
    )
    recompute: Literal["none", "selective", "full"] | None = Field(
        None, description="activations computed again in the backward pass"
    )
    chunk_layers: tuple[Count, ...] = Field((), description="layers per chunk, in model order")
    mixed: Literal["stages", "replicas"] = Field(
        "stages", description="how several pools share the job"
    )
    stage_pools: tuple[str, ...] = Field((), description="pool of each stage")
    batch_split: Literal["speed", "equal"] = Field(
        "speed", description="how replicas on different pools share the batch"
    )


class FaultSection(Section):
    """A part of the network that is broken or slow."""

    part: Literal["card", "port", "leaf", "uplink", "spine", "plane", "core"] = Field(
        description="kind of part"
    )
    at: tuple[Count, ...] = Field(
        description="which, counted from 0: card [node, card], port [node, card, port], leaf [leaf],"
        " uplink [leaf, uplink], spine [spine], plane [plane], core [pod]"
    )
    left: Fraction = Field(0.0, description="share of its capacity (or time) that is left")


class FabricSection(Section):
    """Where the job stands in its network, how that routes, and what is wrong with it."""

    size: Count = Field(0, description="nodes of the whole fabric; by default the job's")
    placement: str | tuple[Count, ...] = Field(
        "packed", description="packed, striped (over the leaves), scattered, or a list of positions"
    )
    rank_order: Literal["packed", "dealt"] = Field(
        "packed", description="neighbouring ranks on one node, or dealt over all nodes"
    )
    routing: Literal["spread", "hashed"] = Field(
        "spread", description="over all uplinks evenly, or by a hash per connection (ECMP)"
    )
    connections: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="connections of each pair that a hash spreads"
    )
    background: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the links above the leaves that other jobs use"
    )
    contention: bool = Field(
        False, description="collectives that run at the same time share links (engine L3)"
    )
    faults: tuple[FaultSection, ...] = Field((), description="what is broken; see below")


class StragglersSection(Section):
    """Devices slower than the rest."""

    fraction: Fraction = Field(0.0, description="share of the devices, drawn at random")
    slowdown: Fraction = Field(0.0, description="how much longer they take")
    ranks: dict[int, Fraction] = Field({}, description="named ranks and their slowdown")


class FailuresSection(Section):
    """How often components fail; rates come from the catalogue unless given."""

    scale: Annotated[float, Field(ge=0, le=1e6)] = Field(1.0, description="factor on every rate")
    device_rate: Rate | None = Field(None, description="per device")
    node_rate: Rate | None = Field(None, description="per node: host, cards, cables")
    switch_rate: Rate | None = Field(
        None, description="of all switches and links together; by default within the nodes' rate"
    )
    software_rate: Rate | None = Field(
        None, description="of the whole job; by default 2.6 %/year for each device"
    )
    law: Literal["exponential", "weibull"] = Field("exponential", description="of times to failure")
    shape: Annotated[float, Field(gt=0, le=100)] = Field(1.0, description="of the Weibull law")
    device_repair: Time = Field(2 * 86400.0, description="until a failed node is back")


class CheckpointSection(Section):
    """When the job saves its state and what that costs."""

    interval: Time | Literal["optimal"] = Field("optimal", description="between checkpoints")
    mode: Literal["synchronous", "asynchronous", "memory"] = Field(
        "synchronous", description="whole write, copy to the host, or copy to a peer's memory"
    )
    storage_bandwidth: Bandwidth = Field(100e9, description="of the storage, the whole job")
    node_bandwidth: Bandwidth | None = Field(
        None, description="between one node and the storage; by default 10 GB/s"
    )
    memory_bandwidth: Bandwidth = Field(20e9, description="per node, to host memory")
    bytes_per_param: Annotated[float, Field(gt=0, le=100)] = Field(
        14.0, description="saved per weight"
    )


class PauseSection(Section):
    """A regular stop of the job."""

    every: Time = Field(0.0, description="time between stops; 0 is never")
    duration: Time = Field(0.0, description="length of one")


class ConditionSection(Section):
    """Something in the network that is now and then broken or busy, and mends by itself."""

    name: str = Field(description="by which the report calls it")
    rate: Rate = Field(description="how often it begins, in the whole job")
    duration: Time = Field(description="until it is over")
    faults: tuple[FaultSection, ...] = Field((), description="as in fabric.faults")
    background: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the links above the leaves that other jobs use meanwhile"
    )


class JobSection(Section):
    """How the whole job is run and what interrupts it."""

    failures: FailuresSection = Field(FailuresSection(), description="see below")
    checkpoint: CheckpointSection = Field(CheckpointSection(), description="see below")
    detection: Time = Field(300.0, description="until a failure is noticed")
    restart: Time = Field(600.0, description="until the job runs again, without loading")
    spare_nodes: Count | dict[str, Count] | None = Field(
        None,
        description="nodes kept ready, by pool where there are several; by default 2 %, at least 2",
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
    network_share: Fraction = Field(0.15, description="of the server price, added")
    interest: Fraction = Field(0.08, description="per year")
    life: Time = Field(4 * 31_557_600.0, description="of the machines")
    machine_age: Time = Field(
        0.0, description="since their price held; by then their value has decayed (depreciation)"
    )
    value_decay: Annotated[float, Field(ge=0, le=5)] = Field(
        0.14,
        description="orders of magnitude per year (depreciation); 0 is a straight line over the life",
    )
    opex_share: Fraction = Field(0.05, description="of the capital per year")
    sold_fraction: Fraction = Field(0.9, description="share of the machines' life in use")
    energy_price: EnergyPrice | None = Field(
        None, description="of electricity; left out when rent includes it"
    )


class EnergySection(Section):
    """Power and its emissions."""

    pue: Annotated[float, Field(ge=1, le=10)] = Field(1.3, description="meter / machines")
    carbon_intensity: Carbon = Field(0.548 / 3.6e6, description="of the electricity")
    embodied_per_device: Mass = Field(164.0, description="emissions of making one")
    device_life: Time = Field(4 * 31_557_600.0, description="over which they are spread")


class PublishedSection(Section):
    """A figure that somebody measured, to stand beside the prediction."""

    metric: str = Field(description="dotted name of a predicted value, e.g. step.duration_s")
    value: float | str = Field(description="a number in the metric's unit, or a text with a unit")
    source: str = Field(description="where it was published")


class ScenarioFile(Section):
    """A scenario file."""

    question: str = Field(description="what the scenario answers")
    seed: Annotated[int, Field(ge=0, le=2**63)] = Field(0, description="of all random draws")
    model: str | dict[str, Any] = Field(
        description="model of the catalogue, path of a model file or a Hugging Face config.json,"
        " or its sizes"
    )
    stack: str | None = Field(None, description="software stack, or path of a stack file")
    cluster: ClusterSection = Field(description="see below")
    training: TrainingSection = Field(description="see below")
    parallel: ParallelSection = Field(ParallelSection(), description="see below")
    fabric: FabricSection | None = Field(
        None, description="see below; by default nodes side by side in a healthy network"
    )
    stragglers: StragglersSection = Field(StragglersSection(), description="see below")
    job: JobSection = Field(JobSection(), description="see below")
    cost: CostSection | None = Field(None, description="see below; without it no money is counted")
    energy: EnergySection = Field(EnergySection(), description="see below")
    published: tuple[PublishedSection, ...] = Field((), description="see below")
    cases: dict[str, dict[str, Any]] = Field(
        {}, description="variants: each name holds the keys that differ; the first is the baseline"
    )
