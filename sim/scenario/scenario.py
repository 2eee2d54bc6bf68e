"""What is to be simulated: the resolved scenario, in base units, frozen.

`ersatz.sim.scenario.file` reads these from YAML; a program may build them directly. They know no time and
hold no results. `Parallel` degrees follow Megatron's order of ranks: tp fastest, then cp, then dp
(with ep inside), then pp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ersatz.device_models.catalog.device import DTYPE_BYTES, Node
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.networks.fabric import Fault
from ersatz.sim.scenario.formats import recipes
from ersatz.sim.workload.model import Model

Precision = Literal["bf16", "fp16", "fp8", "fp4", "fp32"]
Recompute = Literal["none", "selective", "full"]
ContextExchange = Literal["p2p", "a2a", "a2a+p2p", "all_gather"]


@dataclass(frozen=True, slots=True)
class Pool:
    """Nodes of one kind with the software that runs on them."""

    name: str
    node: Node
    nodes: int
    stack: Stack

    @property
    def devices(self) -> int:
        """Devices of the pool."""
        return self.nodes * self.node.devices


@dataclass(frozen=True, slots=True)
class Joint:
    """What ties pools of several kinds together; bandwidths in bytes/s per direction."""

    path: Literal["direct", "host"] = "direct"  # from card to card, or copied through the hosts
    node_bandwidth: float = math.inf  # of one node into it
    bandwidth: float = math.inf  # of all of it
    latency_s: float = 0.0  # beside that of the slower end's network
    copy_bandwidth: float = math.inf  # between a device and its host (path: host)
    assumed: bool = False  # the path is not given


@dataclass(frozen=True, slots=True)
class Training:
    """What one step processes, and how long the job goes on."""

    sequence_length: int  # tokens
    global_batch: int  # sequences per step
    micro_batch: int  # sequences per micro-batch and replica
    precision: Precision = "bf16"
    tokens: float = 0.0  # of the whole job; 0: a step study only
    document_tokens: float = 0.0  # mean length of documents packed into a sequence; 0: one fills it
    recipe: str = (
        ""  # how 8 and 4 bits are scaled (`sim.scenario.formats`); none: as the stack does
    )

    @property
    def operand_bytes(self) -> float:
        """Bytes of an operand of the matrix products, its share of the scales included."""
        scales = recipes()[self.recipe].scale_bytes if self.recipe else 0.0
        return DTYPE_BYTES[self.precision] + scales


@dataclass(frozen=True, slots=True)
class Parallel:
    """Degrees and schedule of the layout."""

    tp: int = 1
    pp: int = 1
    vp: int = 1  # model chunks per stage
    cp: int = 1
    ep: int = 1
    etp: int = 1  # tensor-parallel degree inside an expert
    dp: int = 1
    sequence_parallel: bool = True
    zero: Literal[0, 1, 2, 3] = 1
    shard: int = 0  # ranks that share one copy of the sharded state; 0: all of dp
    schedule: str = "1f1b"
    custom_schedule: tuple[
        tuple[tuple[str, int, int], ...], ...
    ] = ()  # per stage: phase, chunk, mb
    recompute: Recompute = "none"
    chunk_layers: tuple[int, ...] = ()  # layers of each chunk in model order; empty: even split
    mixed: Literal["stages", "replicas"] = "stages"  # how several pools share one job
    stage_pools: tuple[str, ...] = ()  # pool of each stage when `mixed` is stages
    batch_split: Literal["speed", "equal"] = "speed"  # how `replicas` share the batch
    cp_comm: ContextExchange = "p2p"  # how attention is spread over cp
    cp_inner: int = 1  # ranks of cp that exchange heads, where it is a2a+p2p
    expert_layout: Literal["folded", "strided"] = "folded"  # ep of neighbouring ranks, or of dp
    recompute_modules: tuple[str, ...] = ()  # what `selective` repeats; empty: the stack's list
    recompute_layers: int = 0  # of each chunk that are computed again, the first ones; 0: all
    recompute_group: int = 1  # layers between two boundaries that `full` keeps
    pools: tuple[PoolLayout, ...] = ()  # of pools that have a layout of their own; empty: all alike
    own: bool = False  # this is the layout of one pool among several

    @property
    def world(self) -> int:
        """Ranks of the layout."""
        return self.tp * self.pp * self.cp * self.dp


@dataclass(frozen=True, slots=True)
class PoolLayout:
    """The layout of one pool of a job: its own degrees, within what all pools share.

    Where pools hold stages, `pp`, schedule and split are the job's, and micro-batch x dp is the same in
    all: each stage sees the same sequences. Where they hold replicas, all but the model is their own.
    """

    pool: str
    parallel: Parallel
    micro_batch: int


@dataclass(frozen=True, slots=True)
class Ramp:
    """How a batch grows: its sizes follow as phases."""

    start: int  # sequences per step
    increment: int
    sequences: int  # over which it grows


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a job with a length, a batch or a layout of its own; `training.tokens` are its own."""

    name: str
    training: Training
    parallel: Parallel
    open: tuple[str, ...] = ()  # what is left to a search, as in a scenario
    ramp: bool = False  # a size of a growing batch


@dataclass(frozen=True, slots=True)
class FabricSpec:
    """Where the job stands in its network, how that routes, and what is wrong with it."""

    size: int = 0  # nodes of the fabric; 0: the job's
    placement: str = "packed"  # a name of `ersatz.sim.plan.placement.PLACEMENTS`
    positions: tuple[int, ...] = ()  # of each node, in place of `placement`
    rank_order: Literal["packed", "dealt"] = "packed"
    routing: Literal["spread", "hashed"] = "spread"
    connections: int = 1  # of each pair, that hashing spreads
    background: float = 0.0  # share of the links above the leaves that other jobs use
    contention: bool = False  # collectives of the job slow each other down (L3)
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Stragglers:
    """Devices slower than the rest: a share drawn at random, or named ranks."""

    fraction: float = 0.0
    slowdown: float = 0.0  # 0.2: 20 % more time per op
    ranks: Mapping[int, float] = field(default_factory=dict)  # rank -> slowdown


@dataclass(frozen=True, slots=True)
class FailureSpec:
    """How often components fail and how; rates come from the catalogue unless given."""

    scale: float = 1.0  # factor on every rate
    device_rate: float | None = None  # per second and device; None: the catalogue's
    node_rate: float | None = None  # per second and node (host, NIC)
    switch_rate: float = 0.0  # per second, all switches and links of the cluster
    software_rate: float = 0.0  # per second, the whole job
    law: Literal["exponential", "weibull"] = "exponential"
    shape: float = 1.0  # of the Weibull law
    device_repair_s: float = 2 * 86400.0


@dataclass(frozen=True, slots=True)
class CheckpointSpec:
    """When the job saves its state and what that costs."""

    interval_s: float = 0.0  # 0: Young/Daly's optimum
    mode: Literal["synchronous", "asynchronous", "memory"] = "synchronous"
    storage_bandwidth: float = 100e9  # bytes/s, the whole job writing or reading
    node_bandwidth: float = math.inf  # bytes/s per node into the storage
    memory_bandwidth: float = 20e9  # bytes/s per node, to host memory (asynchronous, memory)
    bytes_per_param: float = 14.0  # weights bf16, master copy and two moments fp32


@dataclass(frozen=True, slots=True)
class PauseSpec:
    """A regular stop of the job (evaluation, maintenance); `every_s` 0 is never."""

    every_s: float = 0.0
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Condition:
    """Something in the network that is now and then broken or busy, and mends by itself."""

    name: str
    rate: float  # per second, in the whole job
    duration_s: float
    faults: tuple[Fault, ...] = ()
    background: float = 0.0  # share of the links above the leaves that other jobs use


@dataclass(frozen=True, slots=True)
class JobSpec:
    """How the whole job is run and what interrupts it."""

    failures: FailureSpec = field(default_factory=FailureSpec)
    checkpoint: CheckpointSpec = field(default_factory=CheckpointSpec)
    detection_s: float = 300.0
    restart_s: float = 600.0
    spare_nodes: int = 0
    pool_spares: Mapping[str, int] = field(default_factory=dict)  # by pool, in place of the number
    on_loss: Literal["wait", "shrink"] = "wait"  # when no spare is left
    evaluation: PauseSpec = field(default_factory=PauseSpec)
    maintenance: PauseSpec = field(default_factory=PauseSpec)
    conditions: tuple[Condition, ...] = ()
    replicas: int = 64


@dataclass(frozen=True, slots=True)
class CostSpec:
    """How money is counted; prices per pool name, or one price under the key ''."""

    model: Literal["rent", "annuity", "depreciation"] = "rent"
    currency: str = "CNY"
    rent: Mapping[str, float] = field(default_factory=dict)  # currency/s per device
    server_price: Mapping[str, float] = field(default_factory=dict)  # currency per node
    network_share: float = 0.15  # of the server price, added
    interest: float = 0.08  # per year
    life_s: float = 4 * 31_557_600.0
    value_decay: float = 0.14  # orders of magnitude per year (depreciation by value)
    opex_share: float = 0.05  # of the capital per year
    sold_fraction: float = 0.9  # share of the machines' life that is used
    energy_price: float = 0.0  # currency/J; 0 when rent includes power
    age_s: float = 0.0  # of the machines at the start, when value decays
    price_low: float = 1.0  # factors by which the price may be lower or higher (80 %)
    price_high: float = 1.0


@dataclass(frozen=True, slots=True)
class EnergySpec:
    """Power and its emissions."""

    pue: float = 1.3
    carbon_intensity: float = 0.548 / 3.6e6  # kg/J; China's data centres in 2024
    embodied_kg_per_device: float = 164.0
    device_life_s: float = 4 * 31_557_600.0


@dataclass(frozen=True, slots=True)
class Published:
    """A figure that somebody measured, in the base unit of the metric that it belongs to."""

    metric: str  # dotted name in the result, e.g. step.duration_s
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """One case, ready to be simulated.

    Of a job in several phases `training` and `parallel` are those of the phase with the most tokens;
    `training.tokens` are those of the whole job.
    """

    name: str
    question: str
    seed: int
    model: Model
    pools: tuple[Pool, ...]
    training: Training
    parallel: Parallel
    fabric: FabricSpec | None = None
    joint: Joint | None = None  # between pools; None: from card to card without a limit of its own
    stragglers: Stragglers = field(default_factory=Stragglers)
    job: JobSpec = field(default_factory=JobSpec)
    cost: CostSpec | None = None
    energy: EnergySpec = field(default_factory=EnergySpec)
    published: tuple[Published, ...] = ()
    assumptions: tuple[str, ...] = ()
    open: tuple[str, ...] = ()  # what is left to a search: parallel, micro_batch, offload
    phases: tuple[Phase, ...] = ()  # in order; none: the whole job is alike
    ramp: Ramp | None = None  # how the first of them came about

    @property
    def parts(self) -> tuple[Scenario, ...]:
        """The job phase by phase, each a scenario of its own tokens; itself where it has none."""
        return tuple(
            replace(self, training=p.training, parallel=p.parallel, open=p.open, phases=())
            for p in self.phases
        ) or (self,)

    @property
    def main_phase(self) -> int:
        """The place of the phase with the most tokens, the last of several."""
        tokens = [part.training.tokens for part in self.parts]
        return max(range(len(tokens)), key=lambda i: (tokens[i], i))

    @property
    def devices(self) -> int:
        """Devices of all pools."""
        return sum(pool.devices for pool in self.pools)

    @property
    def spares(self) -> tuple[int, ...]:
        """Spare nodes of each pool: as given, or in proportion to its nodes."""
        own = self.job.pool_spares
        if own:
            return tuple(own.get(pool.name, 0) for pool in self.pools)
        return shared_out(self.job.spare_nodes, [pool.nodes for pool in self.pools])

    @property
    def spare_devices(self) -> int:
        """Devices of all spare nodes."""
        return sum(n * p.node.devices for n, p in zip(self.spares, self.pools, strict=True))


def shared_out(total: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Divide a number in proportion to weights: whole parts first, then the largest remainders."""
    whole = [total * weight // sum(weights) for weight in weights]
    rest = [total * weight % sum(weights) for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-rest[i], i))
    for index in order[: total - sum(whole)]:
        whole[index] += 1
    return tuple(whole)


def layout_words(scenario: Scenario | Phase) -> str:
    """Write a layout in short, as keys of a scenario.

    What is 1 or none is left out.
    """
    p, t = scenario.parallel, scenario.training
    words = [f"{name} {value}" for name, value in (("tp", p.tp), ("cp", p.cp), ("pp", p.pp))
             if value > 1]  # fmt: skip
    if p.pp > 1:
        words.append(p.schedule if p.vp == 1 else f"{p.schedule} x {p.vp}")
    words += [f"ep {p.ep}"] if p.ep > 1 else []
    words += [f"etp {p.etp}"] if p.etp > 1 else []
    words += [f"dp {p.dp}"] if p.dp > 1 else []
    words += [f"zero {p.zero}"] if p.dp > 1 or p.zero else []
    words += [f"shard {p.shard}"] if p.shard else []
    words += [f"recompute {p.recompute}"] if p.recompute != "none" else []
    words += ["without sequence parallelism"] if p.tp > 1 and not p.sequence_parallel else []
    return ", ".join([*words, f"micro_batch {t.micro_batch}"])
