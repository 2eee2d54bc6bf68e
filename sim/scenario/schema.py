"""The shape of a scenario file: every key with its unit, its default and its meaning.

`ersatz.sim.scenario.file` reads files with it; `docs/scenario.md` is generated from it. A default of None
means that the key is left open: what is then assumed is said in the output.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ersatz.sim.scenario.sections.job import CostSection, EnergySection, JobSection
from ersatz.sim.scenario.sections.layout import ParallelSection, PhaseSection, RampSection
from ersatz.sim.scenario.sections.machines import ClusterSection, FabricSection
from ersatz.sim.scenario.sections.quantities import (
    Bandwidth,
    Bytes,
    Degree,
    Fraction,
    Section,
    Seed,
    Share,
    Steps,
    Tokens,
)


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
    overhead: Bytes | None = Field(
        None, description="context, workspaces and what else no tensor holds"
    )
    results: Literal["kept", "dropped"] | None = Field(
        None,
        description="logits that a pipeline's last stage keeps to the end of a step, and joins",
    )
    graph_pool: Bytes | None = Field(
        None, description="private pools of captured graphs (CUDA graphs)"
    )
    communicator: Bytes | None = Field(
        None, description="buffers of the communication library, per group that a rank talks in"
    )
    expert_buffers: Bytes | None = Field(
        None, description="of an expert exchange into buffers of its own (DeepEP), per rank"
    )


class StragglersSection(Section):
    """Devices slower than the rest."""

    fraction: Share = Field(0.0, description="share of the devices, drawn at random")
    slowdown: Fraction = Field(0.0, description="how much longer they take")
    ranks: dict[int, Fraction] = Field({}, description="named ranks and their slowdown")


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
