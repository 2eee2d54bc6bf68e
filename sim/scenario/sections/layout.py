"""How a job is laid out over its devices, and the phases in which that and the batch change."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ersatz.sim.scenario.sections.quantities import (
    Count,
    Degree,
    Label,
    PositiveShare,
    Section,
    Steps,
    Tokens,
)

RecomputeModule = Literal["core_attn", "mla_up_proj", "layernorm", "activation", "permute", "experts",
                          "mlp", "every_second_product"]  # fmt: skip


class PoolLayoutSection(Section):
    """What of a layout is a pool's own; the rest is as `parallel` says.

    Where pools hold stages, micro_batch x dp must be the same in all of them. Where they hold replicas,
    stages, chunks and schedule may differ, too, and dp follows from the devices.
    """

    tp: Degree | None = Field(None, description="tensor-parallel degree")
    pp: Degree | None = Field(None, description="stages, where pools hold replicas")
    vp: Degree | None = Field(None, description="chunks per stage, where pools hold replicas")
    cp: Degree | None = Field(None, description="context-parallel degree")
    ep: Degree | None = Field(None, description="expert-parallel degree")
    etp: Degree | None = Field(None, description="tensor-parallel degree inside an expert")
    sequence_parallel: bool | None = Field(None, description="spread norms and residuals over tp")
    zero: Literal[0, 1, 2] | None = Field(None, description="ZeRO stage")
    schedule: str | None = Field(None, description="where pools hold replicas")
    recompute: Literal["none", "selective", "full"] | None = Field(
        None, description="activations computed again in the backward pass"
    )
    chunk_layers: tuple[Count, ...] | None = Field(
        None, description="layers per chunk, where pools hold replicas"
    )
    micro_batch: Degree | None = Field(None, description="sequences per micro-batch and replica")


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
    pools: dict[str, PoolLayoutSection] = Field(
        {}, description="what each pool has of its own, by its name; see below"
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
