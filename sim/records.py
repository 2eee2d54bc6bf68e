"""Every result that ersatz hands out: flat, frozen, with the meaning and unit of each column.

The clocks hand these up: a step gives a `StepResult` and a `MemoryResult`, a job gives a
`JobResult`, money and energy give a `CostResult` and an `EnergyResult`. `docs/outputs.md` is
generated from the column texts here. Nothing is computed in this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from ersatz.device_models.text.problems import did_you_mean

# What the mappings of a result may hold; what is not there is zero.
PARTS = {
    "step.breakdown": ("attention", "bubble", "cast", "contention", "context parallel",
                       "data parallel", "elementwise", "expert parallel", "experts", "host copy",
                       "launch", "link sharing", "matrix", "optimizer", "permute", "pipeline", "recompute",
                       "straggler", "tensor parallel", "vocabulary"),
    "memory.parts": ("weights", "gradients", "optimizer", "messages", "activations", "loss",
                     "working set",
                     "fresh gradients", "whole gradients", "gathered weights", "joined results", "update",
                     "overhead",
                     "communication", "graphs", "fragmentation"),
    "job.lost_s": ("rework", "detection", "restart", "checkpoint", "degraded", "evaluation",
                   "maintenance", "waiting"),
    "job.interruptions_by_cause": ("device", "node", "switch", "software"),
    "cost.parts": ("rent", "capital", "running", "electricity", "servers", "network"),
    "energy.parts_kwh": ("devices", "hosts", "network", "cooling"),
}  # fmt: skip


def column(meaning: str, unit: str = "") -> Any:
    """Declare a record's field with its meaning and unit, for the documentation."""
    return field(metadata={"meaning": meaning, "unit": unit})


def columns(record: type) -> list[tuple[str, str, str]]:
    """Return (name, unit, meaning) of each field of a record type."""
    described: tuple[Field[Any], ...] = fields(record)
    return [(f.name, f.metadata.get("unit", ""), f.metadata.get("meaning", "")) for f in described]


@dataclass(frozen=True, slots=True)
class StepResult:
    """One training step in steady state."""

    duration_s: float = column("time from the start of one step to the start of the next", "s")
    tokens: float = column("tokens of one step (global batch x sequence length)", "tokens")
    devices: int = column("devices that take part")
    tokens_per_s_per_device: float = column("tokens per second and device", "tokens/s")
    model_flop: float = column("FLOPs of one step without recomputation, causal attention", "FLOP")
    mfu: float = column("model FLOPs (causal attention) / (time x peak_flop_per_s)")
    mfu_noncausal: float = column("the same with the full square of attention counted")
    mfu_6n: float = column("the same with 6 FLOPs per active weight and no attention")
    hfu: float = column("executed FLOPs, recomputation included (causal) / (time x peak)")
    peak_flop_per_s: float = column(
        "dense matrix peak of all devices by which MFU and HFU divide: of fp32 under fp32, else of"
        " 16 bits, also under FP8",
        "FLOP/s",
    )
    bubble_fraction: float = column("share of the step that the mean stage waits in the pipeline")
    breakdown: Mapping[str, float] = column("seconds of the step by cause, mean over stages", "s")
    by_stage: tuple[Mapping[str, float], ...] = column("the breakdown of each stage", "s")
    low80_s: float = column("lower end of the 80 % interval of duration_s", "s")
    high80_s: float = column("upper end of the 80 % interval of duration_s", "s")


@dataclass(frozen=True, slots=True)
class MemoryResult:
    """Peak memory of the fullest rank and the verdict on it."""

    peak_bytes: float = column("what the device must hold at the peak of the fullest rank", "B")
    capacity_bytes: float = column("memory of one device", "B")
    fits: bool = column("peak_bytes does not exceed capacity_bytes")
    verdict: str = column("fits, tight (within the error of the model) or does not fit")
    fit_probability: float = column("how probable it is that the plan fits")
    allocated_bytes: float = column("tensors alone at that peak", "B")
    reserved_bytes: float = column("tensors, and what the allocator holds and cannot hand out", "B")
    stage: int = column("pipeline stage of the fullest rank, from 0")
    moment: str = column("when in the step the peak is")
    parts: Mapping[str, float] = column("bytes of the fullest rank by use", "B")
    by_stage: tuple[float, ...] = column("peak of each stage", "B")
    advice: tuple[str, ...] = column("what would make it fit, when that is not sure")


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """One phase of a job whose steps are not all alike; none where they are."""

    name: str = column("the phase's name")
    ramp: bool = column("it is a size of a growing batch")
    tokens: float = column("of the phase", "tokens")
    steps: int = column("steps to be done")
    global_batch: int = column("sequences per step")
    sequence_length: int = column("tokens per sequence")
    layout: str = column("its layout in words")
    step_s: float = column("duration of a step", "s")
    tokens_per_s_per_device: float = column("tokens per second and device", "tokens/s")
    mfu: float = column("as step.mfu")
    productive_s: float = column("time of the steps that count", "s")
    peak_bytes: float = column("what the device must hold at the peak of the fullest rank", "B")
    verdict: str = column("as memory.verdict")
    anew: bool = column("the job saves and is started again before it")


@dataclass(frozen=True, slots=True)
class JobResult:
    """A whole training job; times and counts are means over the simulated replicas."""

    steps: int = column("steps to be done")
    wall_s: float = column("time from start to end", "s")
    wall_low80_s: float = column("10th percentile of wall_s over the replicas", "s")
    wall_high80_s: float = column("90th percentile of wall_s over the replicas", "s")
    productive_s: float = column("time of the steps that count", "s")
    device_hours: float = column("devices (spares included) x wall time", "device-hours")
    goodput: float = column("productive_s / wall_s (effective training time ratio)")
    interruptions: float = column("unplanned stops of the job")
    interruptions_by_cause: Mapping[str, float] = column("unplanned stops by component")
    lost_s: Mapping[str, float] = column(
        "time lost by cause: rework, detection, restart, checkpoint, degraded, evaluation,"
        " maintenance, waiting",
        "s",
    )
    checkpoint_interval_s: float = column("time between checkpoints", "s")
    optimal_interval_s: float = column("Young/Daly's interval for this job", "s")
    mtbf_s: float = column("mean time between interruptions of the job", "s")
    replicas: int = column("independent draws of the job")


@dataclass(frozen=True, slots=True)
class EnergyResult:
    """Electricity of the whole job at the meter."""

    kwh: float = column("electricity with cooling (PUE)", "kWh")
    carbon_kg: float = column("emissions of that electricity and the hardware's share", "kg")
    mean_device_w: float = column("mean power of one device", "W")
    mean_power_w: float = column("mean power of the whole cluster at the meter", "W")
    pue: float = column("power at the meter / power of the machines")
    parts_kwh: Mapping[str, float] = column(
        "electricity by use: devices, hosts, network, cooling", "kWh"
    )
    pools_kwh: Mapping[str, float] = column(
        "electricity by pool, its spares and cooling in it", "kWh"
    )


@dataclass(frozen=True, slots=True)
class CostResult:
    """Money for the whole job."""

    total: float = column("all parts together", "currency")
    currency: str = column("ISO code of the currency")
    per_trillion_tokens: float = column("total / tokens x 1e12", "currency")
    per_device_hour: float = column("total / device-hours", "currency/h")
    parts: Mapping[str, float] = column("money by part", "currency")
    model: str = column("cost model: rent, annuity, depreciation")


@dataclass(frozen=True, slots=True)
class Chance:
    """How early or late, cheap or dear a job may be: step, stops, prices and power drawn together."""

    wall_low80_s: float = column("10th percentile of the time from start to end", "s")
    wall_high80_s: float = column("90th percentile of the time from start to end", "s")
    cost_low80: float | None = column(
        "10th percentile of the cost of 1e12 tokens, when the scenario has prices", "currency"
    )
    cost_high80: float | None = column(
        "90th percentile of the cost of 1e12 tokens, when the scenario has prices", "currency"
    )
    causes: Mapping[str, float] = column(
        "by how much each cause alone would raise the cost at its 90th percentile"
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """What one case saves against another; what they have in common does not count."""

    name: str = column("the case")
    against: str = column("what it is compared with")
    saving: float = column("median share of the other's cost that it saves; below 0 it costs more")
    saving_low80: float = column("10th percentile of the saving")
    saving_high80: float = column("90th percentile of the saving")
    p_cheaper: float = column("probability that it costs less")
    p_saves_fifth: float = column("probability that it saves 20 % or more")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published figure beside the prediction."""

    metric: str = column("dotted name of the predicted value")
    published: float = column("the published value, in the unit of the metric")
    predicted: float = column("the predicted value")
    relative_error: float = column("predicted / published - 1")
    source: str = column("where it was published")


@dataclass(frozen=True, slots=True)
class CollectiveRow:
    """One kind of collective that each rank of some stages issues in a step."""

    pool: str = column("pool of the stages; empty where there is one")
    stages: tuple[int, ...] = column("pipeline stages whose ranks issue it, from 0")
    ranks: int = column("ranks of these stages")
    phase: str = column("forward, recompute, backward, pipeline or optimizer")
    name: str = column("what it does")
    kind: str = column(
        "all_gather, reduce_scatter, all_reduce, all_to_all, ring_shift, send and their like"
    )
    group: str = column(
        "tp, cp, ulysses (heads for tokens inside cp), ep, etp (slices of an expert), dp and edp"
        " (shards of dense weights, of experts), rep and erep (replicas of these shards), pp"
        " (neighbouring stages), ends (first and last stage), world"
    )
    size: int = column("members of the group")
    inside: int = column("of them inside one scale-up domain (node or supernode)")
    stream: str = column("compute where it holds the compute stream up, else its own stream")
    count: int = column("how often a rank issues it in a step")
    nbytes: float = column(
        "bytes of each: of the gathered result (all_gather), the input (reduce_scatter,"
        " all_reduce), the send buffer with the rank's own part (all_to_all), the message (send, ring_shift)",
        "B",
    )
    seconds: float = column("of each alone, without stalls and what other traffic adds", "s")
    inside_bytes: float = column("that the mean member sends over scale-up links, each time", "B")
    network_bytes: float = column("that the mean member sends over the network, each time", "B")


@dataclass(frozen=True, slots=True)
class FlopRow:
    """FLOPs of one kind that each rank of some stages executes in a step."""

    pool: str = column("pool of the stages; empty where there is one")
    stages: tuple[int, ...] = column("pipeline stages, from 0")
    ranks: int = column("ranks of these stages")
    phase: str = column("forward, recompute or backward")
    kind: str = column("products, attention, grouped products (of experts), head")
    flop: float = column("executed: the three below together", "FLOP")
    model_flop: float = column("that the model asks for, causal attention", "FLOP")
    recomputed_flop: float = column("computed before: recomputation, scores in attention", "FLOP")
    padding_flop: float = column(
        "for nothing: the masked half of unfused attention, copies on other ranks, uneven experts",
        "FLOP",
    )


@dataclass(frozen=True, slots=True)
class OperationsResult:
    """What the ranks of a job send and compute in one step; FLOPs at the top are of all ranks."""

    name: str = column("the case's name")
    collectives: tuple[CollectiveRow, ...] = column("of each rank")
    flops: tuple[FlopRow, ...] = column("of each rank")
    executed_flop: float = column("the three below together", "FLOP")
    model_flop: float = column("that the model asks for, causal attention, prediction too", "FLOP")
    recomputed_flop: float = column("computed a second time", "FLOP")
    padding_flop: float = column("for nothing", "FLOP")


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything that `ersatz run` finds out about one case."""

    name: str = column("the case's name")
    step: StepResult = column("the step")
    memory: MemoryResult = column("the memory")
    job: JobResult | None = column("the job, when the scenario has a token budget")
    cost: CostResult | None = column("the money, when the scenario has prices")
    energy: EnergyResult | None = column("the energy of the job")
    published: tuple[Comparison, ...] = column("published figures beside the predictions")
    assumptions: tuple[str, ...] = column("what was assumed where the scenario is silent")
    sources: tuple[str, ...] = column("sources of the numbers used")
    chance: Chance | None = field(
        default=None, metadata={"meaning": "80 % intervals of the job's end and cost"}
    )
    operations: OperationsResult | None = field(
        default=None, metadata={"meaning": "what ranks send and compute, where it was asked for"}
    )
    phases: tuple[PhaseResult, ...] = field(
        default=(), metadata={"meaning": "the phases of a job that has several, in order"}
    )


def metric_names() -> list[str]:
    """Return the dotted names of all numbers of a result, such as 'step.breakdown.bubble'."""
    records = {"step": StepResult, "memory": MemoryResult, "job": JobResult, "cost": CostResult,
               "energy": EnergyResult}  # fmt: skip
    plain = [f"{part}.{f.name}" for part, record in records.items() for f in fields(record)
             if str(f.type) in ("float", "int")]  # fmt: skip
    return [*plain, *(f"{mapping}.{key}" for mapping, keys in PARTS.items() for key in keys)]


def wrong_metric(name: str) -> str:
    """Say what is wrong with the dotted name of a number of a result; empty when nothing is.

    A part of the cost may name its pool: 'cost.parts.rent (h800)'.
    """
    known = metric_names()
    bare = name.partition(" (")[0] if name.startswith("cost.parts.") else name
    if bare in known:
        return ""
    hint = did_you_mean(name, known) or "; expected one such as step.duration_s (docs/outputs.md)"
    return f"no such metric{hint}"
