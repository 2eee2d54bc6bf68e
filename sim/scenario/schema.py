"""The shape of a scenario file: every key with its unit, its default and its meaning.

`ersatz.sim.scenario.file` reads files with it; `docs/scenario.md` is generated from it. A default of None
means that the key is left open: what is then assumed is said in the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ersatz.device_models.text.names import checked_name
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
Nodes = Annotated[int, Field(ge=1, le=250_000)]  # two million devices in nodes of eight
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Amount = Annotated[float, Field(ge=0, le=1e9)]
Factor = Annotated[float, Field(ge=1e-6, le=1e6)]


def _label(value: object) -> object:
    if isinstance(value, str) and not (value.strip() and value.isprintable() and len(value) <= 100):
        raise ValueError("expected 1 to 100 printable characters")
    return value


Name = Annotated[str, AfterValidator(checked_name)]
Label = Annotated[str, BeforeValidator(_label)]


RecomputeModule = Literal["core_attn", "mla_up_proj", "layernorm", "activation", "permute", "experts",
                          "mlp", "every_second_product"]  # fmt: skip


class Section(BaseModel):
    """A mapping of known keys; anything else is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PoolSection(Section):
    """Nodes of one kind."""

    name: Name = Field(description="by which stages, prices and reports call it")
    node: str = Field(description="node of the catalogue, or path of a node file")
    nodes: Nodes = Field(description="how many")
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
    nodes: Nodes | None = Field(None, description="how many")
    devices: Degree | None = Field(
        None, description="how many in all, in place of nodes: a whole number of nodes of that kind"
    )
    network: str | dict[str, Any] | None = Field(
        None,
        description="network between nodes in place of the node's: a name, a path, or its values",
    )
    pools: tuple[PoolSection, ...] = Field((), description="several kinds of node in one job")
    joint: JointSection = Field(JointSection(), description="between the pools; see below")

    @model_validator(mode="after")
    def one_way(self) -> ClusterSection:
        """Either node and nodes (or devices), or pools."""
        if bool(self.pools) == bool(self.node or self.nodes or self.devices):
            raise ValueError("expected either node and nodes, or pools")
        if self.node and self.nodes is None and self.devices is None:
            raise ValueError("nodes is missing: how many?")
        return self


class ParallelSection(Section):
    """Degrees and schedule of the layout."""

    tp: Degree = Field(1, description="tensor-parallel degree")
    pp: Degree = Field(1, description="pipeline stages")
    vp: Degree = Field(
        1,
        description="model chunks per stage; above 1 the schedule is interleaved unless it is given",
    )
    cp: Degree = Field(1, description="context-parallel degree")
    ep: Degree = Field(1, description="expert-parallel degree")
    etp: Degree = Field(1, description="tensor-parallel degree inside an expert")
    cp_comm: Literal["p2p", "a2a", "a2a+p2p", "all_gather"] | None = Field(
        None,
        description="how attention is spread over cp: a ring of keys and values, heads exchanged for"
        " tokens (Ulysses), both, or keys and values gathered",
    )
    cp_inner: Degree | None = Field(None, description="ranks of cp that exchange heads in a2a+p2p")
    expert_layout: Literal["folded", "strided"] | None = Field(
        None, description="expert groups of neighbouring ranks, or of data-parallel ones"
    )
    dp: Degree | None = Field(None, description="data-parallel degree; by default what is left")
    sequence_parallel: bool | None = Field(None, description="spread norms and residuals over tp")
    zero: Literal[0, 1, 2, 3] | None = Field(None, description="ZeRO stage; 3 is FSDP")
    shard: Count = Field(0, description="replicas that share one copy of the state; 0 is all")
    schedule: str | dict[str, tuple[tuple[tuple[str, int, int], ...], ...]] | None = Field(
        None,
        description="gpipe, 1f1b, interleaved, zb-h1, zb-v, dualpipe, dualpipev, or {orders: per stage a"
        " list of [phase, chunk, micro-batch]}",
    )
    recompute: Literal["none", "selective", "full"] | None = Field(
        None, description="activations computed again in the backward pass"
    )
    recompute_modules: tuple[RecomputeModule, ...] = Field(
        (), description="what selective recomputation repeats; by default the stack's list"
    )
    recompute_layers: Count = Field(
        0, description="of each chunk that are computed again, the first ones; 0 is all"
    )
    recompute_group: Degree = Field(
        1, description="layers between two boundaries that recompute: full keeps"
    )
    chunk_layers: tuple[Count, ...] = Field((), description="layers per chunk, in model order")
    mixed: Literal["stages", "replicas"] = Field(
        "stages", description="how several pools share the job"
    )
    stage_pools: tuple[str, ...] = Field((), description="pool of each stage")
    batch_split: Literal["speed", "equal"] = Field(
        "speed", description="how replicas on different pools share the batch"
    )


class RampSection(Section):
    """A batch that grows in equal steps until it is training.global_batch."""

    start: Degree = Field(description="sequences per step at the beginning")
    increment: Degree = Field(description="sequences by which it grows each time")
    sequences: Degree = Field(description="over which it grows, shared evenly by all sizes")


class PhaseSection(Section):
    """A part of the training; what it leaves out is as in training and parallel."""

    name: Label | None = Field(
        None, description="by which the report calls it; by default a number"
    )
    tokens: Tokens | None = Field(
        None, description="of the phase; one phase may leave it out and has what others leave"
    )
    steps: Steps | None = Field(None, description="of the phase, in place of tokens")
    share: PositiveShare | None = Field(None, description="of training.tokens, in place of tokens")
    sequence_length: Degree | None = Field(None, description="tokens per sequence")
    global_batch: Degree | None = Field(None, description="sequences per step")
    micro_batch: Degree | None = Field(None, description="sequences per micro-batch and replica")
    document_tokens: Degree | None = Field(None, description="mean length of packed documents")
    parallel: ParallelSection = Field(
        ParallelSection(), description="keys of parallel that differ",
        json_schema_extra={"as_in": "parallel"},
    )  # fmt: skip


class TrainingSection(Section):
    """What one step processes, and how long the job goes on."""

    sequence_length: Degree = Field(description="tokens per sequence")
    global_batch: Degree = Field(description="sequences per step")
    micro_batch: Degree = Field(1, description="sequences per micro-batch and replica")
    precision: Literal["bf16", "fp16", "fp8", "fp4", "fp32"] = Field(
        "bf16", description="of the matrix products"
    )
    recipe: Literal["delayed", "tensorwise", "rowwise", "blockwise", "mxfp8", "nvfp4"] | None = (
        Field(None, description="how 8 and 4 bits are scaled; by default as the stack does")
    )
    expert_imbalance: Annotated[float, Field(ge=1, le=1000)] | None = Field(
        None, description="tokens of the fullest expert rank / mean; 1 is balanced by force"
    )
    document_tokens: Degree | None = Field(
        None,
        description="mean length of the documents packed into a sequence; attention ends there",
    )
    tokens: Tokens | None = Field(None, description="of the whole job")
    steps: Steps | None = Field(None, description="of the whole job, in place of tokens")
    batch_ramp: RampSection | None = Field(
        None, description="a batch that grows at the beginning; see below"
    )
    phases: Annotated[tuple[PhaseSection, ...], Field(max_length=64)] = Field(
        (), description="parts of the training one after the other; see below"
    )


class MemorySection(Section):
    """How tensors are kept, in place of the stack's habits; time follows where bytes move."""

    master_weights: Literal["fp32", "16-bit", "none"] | None = Field(
        None,
        description="copy that the optimiser updates; 16-bit: what a 16-bit weight lacks of it;"
        " none: the weights of 16 bits themselves",
    )
    moments: Literal["fp32", "bf16", "8-bit"] | None = Field(
        None, description="of Adam, both of them"
    )
    gradients: Literal["fp32", "bf16"] | None = Field(
        None, description="as they are summed and reduced"
    )
    frozen_weights: Literal["bf16", "fp8", "4-bit"] | None = Field(
        None, description="of a LoRA model (QLoRA: 4-bit)"
    )
    loss: Literal["eager", "compiled", "fused"] | None = Field(
        None, description="14, 6 or 4 bytes per logit at its peak"
    )
    loss_chunks: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="parts of a micro-batch whose logits stand one after the other"
    )
    optimizer_offload: Share | None = Field(
        None, description="share of master copy and moments that the host keeps and updates"
    )
    optimizer_update: Literal["host", "device"] | None = Field(
        None, description="who updates what the host keeps: by default the host"
    )
    activation_offload: Share | None = Field(
        None, description="share of kept activations that the host has between their passes"
    )
    weights_offload: Share | None = Field(
        None, description="share of ZeRO 3's shards of weights that the host keeps"
    )
    host_bandwidth: Bandwidth | None = Field(
        None, description="each way between a device and its host, all at once; by default 20 GB/s"
    )
    allocator: Literal["caching", "expandable"] | None = Field(
        None, description="whether freed blocks of one kind of tensor serve the others (expandable)"
    )
    overhead: Annotated[float, _quantity("bytes"), _unit("bytes")] | None = Field(
        None, description="context, workspaces and what else no tensor holds"
    )
    graph_pool: Annotated[float, _quantity("bytes"), _unit("bytes")] | None = Field(
        None, description="private pools of captured graphs (CUDA graphs)"
    )
    communicator: Annotated[float, _quantity("bytes"), _unit("bytes")] | None = Field(
        None, description="buffers of the communication library, per group that a rank talks in"
    )
    expert_buffers: Annotated[float, _quantity("bytes"), _unit("bytes")] | None = Field(
        None, description="of an expert exchange into buffers of its own (DeepEP), per rank"
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
    left: Share = Field(0.0, description="share of its capacity (or time) that is left")


class FabricSection(Section):
    """Where the job stands in its network, how that routes, and what is wrong with it."""

    size: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0, description="nodes of the whole fabric; by default the job's"
    )
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

    fraction: Share = Field(0.0, description="share of the devices, drawn at random")
    slowdown: Fraction = Field(0.0, description="how much longer they take")
    ranks: dict[int, Fraction] = Field({}, description="named ranks and their slowdown")


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
    device_repair: Wait = Field(2 * 86400.0, description="until a failed node is back")


class CheckpointSection(Section):
    """When the job saves its state and what that costs."""

    interval: Interval | Literal["optimal"] = Field("optimal", description="between checkpoints")
    mode: Literal["synchronous", "asynchronous", "memory"] = Field(
        "synchronous", description="whole write, copy to the host, or copy to a peer's memory"
    )
    storage_bandwidth: Bandwidth = Field(100e9, description="of the storage, the whole job")
    node_bandwidth: Bandwidth | None = Field(
        None, description="between one node and the storage; by default 10 GB/s"
    )
    memory_bandwidth: Bandwidth = Field(20e9, description="per node, to host memory")
    bytes_per_param: Annotated[float, Field(ge=0.01, le=100)] = Field(
        14.0, description="saved per weight"
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
    detection: Wait = Field(300.0, description="until a failure is noticed")
    restart: Wait = Field(600.0, description="until the job runs again, without loading")
    spare_nodes: Count | dict[str, Count] | None = Field(
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
    network_share: Share = Field(0.15, description="of the server price, added")
    interest: Share = Field(0.08, description="per year")
    life: Life = Field(4 * 31_557_600.0, description="of the machines")
    machine_age: Wait = Field(
        0.0, description="since their price held; by then their value has decayed (depreciation)"
    )
    value_decay: Annotated[float, Field(ge=0, le=5)] = Field(
        0.14,
        description="orders of magnitude per year (depreciation); 0 is a straight line over the life",
    )
    opex_share: Share = Field(0.05, description="of the capital per year")
    sold_fraction: PositiveShare = Field(0.9, description="share of the machines' life in use")
    energy_price: EnergyPrice | None = Field(
        None, description="of electricity; left out when rent includes it"
    )


class EnergySection(Section):
    """Power and its emissions."""

    pue: Annotated[float, Field(ge=1, le=10)] = Field(1.3, description="meter / machines")
    carbon_intensity: Carbon = Field(0.548 / 3.6e6, description="of the electricity")
    embodied_per_device: Mass = Field(164.0, description="emissions of making one")
    device_life: Life = Field(4 * 31_557_600.0, description="over which they are spread")


class PublishedSection(Section):
    """A figure that somebody measured, to stand beside the prediction."""

    metric: str = Field(description="dotted name of a predicted value, e.g. step.duration_s")
    value: Annotated[float, Field(ge=1e-12, le=1e24)] | str = Field(
        description="a number in the metric's unit, or a text with a unit"
    )
    source: str = Field(description="where it was published")


class ScenarioFile(Section):
    """A scenario file."""

    question: str = Field(description="what the scenario answers")
    seed: Seed = Field(0, description="of all random draws")
    model: str | dict[str, Any] = Field(
        description="model of the catalogue, path of a model file or a Hugging Face config.json,"
        " or its sizes"
    )
    stack: str | None = Field(None, description="software stack, or path of a stack file")
    cluster: ClusterSection = Field(description="see below")
    training: TrainingSection = Field(description="see below")
    parallel: ParallelSection = Field(ParallelSection(), description="see below")
    memory: MemorySection = Field(MemorySection(), description="see below")
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
