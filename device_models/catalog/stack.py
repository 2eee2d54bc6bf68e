"""Training software: what it fuses, what it overlaps, what its host thread costs.

A stack is data (`device_models/data/stacks/*.yaml`): a new framework is a new file. All values
hold for the stack on any device; nothing here belongs to one run or one model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ersatz.device_models.catalog.device import Fact


@dataclass(frozen=True, slots=True)
class Stack:
    """One training framework at one time of its life."""

    name: str
    title: str
    elementwise_traffic: float  # bytes moved by element-wise ops / bytes of the fused minimum
    flash_attention: bool  # fused attention; otherwise the score matrix goes through memory
    portable_attention: bool  # its attention kernels are not written for the device at hand
    attention_factor: float  # speed of its attention kernels / the device's best of that kind
    loss_bytes_per_logit: float  # memory traffic of the loss per logit
    cast_traffic: float  # passes over activations to cast to fp8, and back
    weight_cast_bytes: float  # traffic per weight and step to cast it to fp8
    narrow_matrix_factor: float  # speed of its products in 8 bits / the device's best
    optimizer_bytes_per_param: float  # traffic on the sharded state per parameter and step
    optimizer_bandwidth: (
        float  # bytes/s per device where the host updates the weights; 0: the device does
    )
    optimizer_state_bytes: float  # master copy and moments kept per parameter
    gradient_dtype: str  # of accumulation and reduction
    gradient_accumulate_bytes: float  # traffic per weight and micro-batch to accumulate
    fresh_gradient_bytes: float  # per weight: a backward pass's own gradients, kept beside the sum
    launch_s: float  # host time per op of the model, framework included
    collective_launch_s: float  # host time to issue one collective
    moe_host_sync: bool  # dropless routing: the host waits for token counts in every layer
    expert_host_s: float  # host time of routing in a layer of experts, each direction
    step_host_s: float  # host time per step beside the ops (data, optimiser loop, logging)
    tp_overlap_chunks: float  # GEMM and tensor-parallel collective pipelined in chunks; 1 is none
    overlap_grad_reduce: bool  # gradients are reduced while the backward pass still runs
    overlap_param_gather: bool  # parameters are gathered while the forward pass already runs
    overlap_contention: float  # device time lost per second of communication that overlaps
    overlap_p2p: bool  # stage-to-stage messages do not hold the compute stream
    overlap_expert: bool  # expert all-to-all runs beside compute of another micro-batch
    unfused_activation: float  # traffic of an activation that has no fused kernel / fused minimum
    nics_used: float  # of a node by its collectives; 0 is all
    expert_permute_passes: float  # memory passes to permute, pad and unpermute routed tokens
    expert_overlap_chunks: float  # expert product and exchange pipelined in chunks; 1 is none
    expert_efficiency: float  # grouped GEMM speed / dense GEMM speed
    expert_dispatch_dtype: str  # tokens travel to the experts in this dtype
    expert_imbalance: float  # most loaded expert rank / mean
    node_limited_dispatch: bool  # a token crosses to another node once, not once per expert
    selective_recompute_fraction: float  # of a forward pass that selective recomputation repeats
    activation_memory: float  # activation bytes kept for the backward pass / fused minimum
    memory_overhead_bytes: float  # framework, context and communication buffers
    memory_fragmentation: float  # allocator overhead as a share of the dynamic memory
    pat_gather: bool = False  # its library gathers in log2 hops where a node has one member
    defaults: Mapping[str, str] = field(default_factory=dict)  # for what a run leaves open
    facts: Mapping[str, Fact] = field(default_factory=dict, repr=False, hash=False, compare=False)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False, compare=False)
