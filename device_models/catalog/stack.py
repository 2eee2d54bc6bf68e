"""Training software: what it fuses, what it overlaps, what its host thread costs.

A stack is data (`device_models/data/stacks/*.yaml`): a new framework is a new file. All values
hold for the stack on any device; nothing here belongs to one run or one model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ersatz.device_models.catalog.device import DTYPE_BYTES, Fact

RECOMPUTE_MODULES = ("core_attn", "mla_up_proj", "layernorm", "activation", "permute", "experts",
                     "mlp", "every_second_product")  # fmt: skip
WORDS = {  # what a text of a stack may say; lists for recomputation and attention
    "gradient_dtype": tuple(DTYPE_BYTES),
    "expert_dispatch_dtype": tuple(DTYPE_BYTES),
    "zero_sum": ("reduce_scatter", "all_reduce"),
    "zero2_reduce": ("micro-batch", "run", "step"),
    "zero2_gather": ("step", "micro-batch"),
    "selective_recompute": RECOMPUTE_MODULES,
    "attention_kernel": ("native", "cudnn", "flash-2", "flash-3", "flash-4", "triton"),
}
LISTS = ("selective_recompute", "attention_kernel")


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a list with commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


@dataclass(frozen=True, slots=True)
class Anchor:
    """Measured steps that a stack was moved to: on which device, and how sure its factors are."""

    base: str  # the stack that was moved
    device: str
    runs: int
    spread: float  # standard deviation of the log error of a further run, the factors apart
    covariance: tuple[tuple[float, ...], ...]  # of the logarithms of the five factors (sim.anchor)


@dataclass(frozen=True, slots=True)
class Stack:
    """One training framework at one time of its life."""

    name: str
    title: str
    elementwise_traffic: float  # bytes moved by element-wise ops / bytes of the fused minimum
    flash_attention: bool  # fused attention; otherwise the score matrix goes through memory
    portable_attention: bool  # its attention kernels are not written for the device at hand
    attention_kernel: str  # its attention kernels, by comma; the first that the device runs counts
    attention_factor: float  # speed of its attention kernels / what these reach alone
    loss_bytes_per_logit: float  # memory traffic of the loss per logit
    cast_traffic: float  # passes over activations to cast to fp8, and back
    cast_weight_traffic: float  # passes more that only weight gradients need: operands cast anew
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
    local_expert_host_s: float  # more for each expert of the rank, where the host waits for counts
    slices_expert_tokens: (
        bool  # without sequence parallelism tensor ranks share out tokens to route
    )
    step_host_s: float  # host time per step beside the ops (data, optimiser loop, logging)
    tp_overlap_chunks: float  # GEMM and tensor-parallel collective pipelined in chunks; 1 is none
    tp_overlap_backward: (
        bool  # inputs gathered beside input gradients, sums beside weight gradients
    )
    regather_inputs: bool  # sequence-parallel inputs are gathered again, not kept whole
    narrow_tensor_gather: bool  # tensor-parallel gathers travel in 8 bits where products are
    narrow_weight_gather: bool  # so do the weights of layers that data parallelism gathers
    narrow_frozen_weights: bool  # LoRA keeps the frozen weights in 8 bits where products are
    bucket_params: float  # weights that share a gradient collective, at least; 0: one per layer
    bucket_params_per_rank: float  # the same per data-parallel rank; the larger counts
    bucket_first_chunk_only: bool  # other chunks of the pipeline are one bucket each
    zero_sum: str  # gradients of ZeRO 1 and 2: scattered, or all-reduced and a part of them kept
    regather_embedding: bool  # ZeRO 3 gathers it for a backward pass that needs no weights
    zero2_reduce: str  # gradients of ZeRO 2 are reduced per micro-batch, run of a chunk's, or step
    zero2_gather: str  # weights of ZeRO 2 are gathered per step, or per micro-batch
    overlap_grad_reduce: bool  # gradients are reduced while the backward pass still runs
    overlap_param_gather: bool  # parameters are gathered while the forward pass already runs
    overlap_contention: float  # device time lost per second of communication that overlaps
    overlap_p2p: bool  # stage-to-stage messages do not hold the compute stream
    overlap_p2p_plain: bool  # not even where each stage holds one chunk
    p2p_host_sync: bool  # the host waits for messages that hold the compute stream
    scatter_messages: bool  # a message is split over the tensor group and gathered on arrival
    overlap_expert: bool  # expert all-to-all runs beside compute of another micro-batch
    unfused_activation: float  # traffic of an activation that has no fused kernel / fused minimum
    nics_used: float  # of a node by its collectives; 0 is all
    expert_permute_passes: float  # memory passes to permute, pad and unpermute routed tokens
    expert_overlap_chunks: float  # expert product and exchange pipelined in chunks; 1 is none
    expert_efficiency: float  # grouped GEMM speed / dense GEMM speed
    expert_dispatch_dtype: str  # tokens travel to the experts in this dtype
    expert_imbalance: float  # most loaded expert rank / mean
    node_limited_dispatch: bool  # a token crosses to another node once, not once per expert
    selective_recompute: str  # modules that selective recomputation repeats, by comma
    activation_memory: float  # activation bytes kept for the backward pass / fused minimum
    memory_overhead_bytes: float  # context, workspaces and what the framework keeps beside tensors
    communicator_bytes: (
        float  # buffers of the communication library, per group that a rank talks in
    )
    memory_fragmentation: (
        float  # share of what is freed before the peak that is not handed out again
    )
    loss_memory_bytes: float  # per logit, at the peak of the loss: logits, copies, gradients
    loss_parallel_bytes: float  # more per logit where the head is split over tensor ranks
    keeps_gathered_inputs: (
        bool  # sequence-parallel inputs of products stay whole until the backward pass
    )
    narrow_saved: bool  # inputs of 8-bit products are kept in 8 bits for the weight gradient
    narrow_results: bool  # what enters the activation of an MLP is kept in 8 bits, too
    gradient_copy_bytes: float  # per weight: gradients kept whole in another format beside the sum
    loss_chunks: float  # parts of a micro-batch whose logits stand one after the other; 1 is none
    gradient_buffer: bool  # gradients stand all the time, not only from the first backward pass on
    master_is_weight: bool  # ZeRO 3 shards fp32 weights alone, from which 16 bits are gathered
    update_bytes: float  # that the optimiser's step makes for a moment, per weight that it updates
    update_params: float  # weights of a rank that the optimiser's step takes at once; 0: all
    frozen_weight_bytes: float  # of a weight that LoRA does not train; 0: that of the products
    live_params: float  # gathered weights that ZeRO 3 keeps alive, at least two parts'
    optimizer_offload: float  # share of master copy and moments that the host keeps
    accumulates_apart: bool = False  # gradients join their sum in kernels of their own, not fused
    half_accumulate_bytes: float = 0.0  # as gradient_accumulate_bytes, in fp16; 0: the same
    recompute_stops_early: bool = False  # a layer is computed again up to its last kept input alone
    rank_limited_dispatch: bool = False  # in one node: to a rank once, not once per expert there
    matrix_factor: float = 1.0  # speed of its products / the device's ceiling
    collective_factor: float = 1.0  # speed of its collectives / what the network's tests reach
    pat_gather: bool = False  # its library gathers in log2 hops where a node has one member
    host_bandwidth: float = 0.0  # bytes/s each way between a device and its host, all at once
    activation_offload: float = 0.0  # share of kept activations that the host has between passes
    weights_offload: float = 0.0  # share of ZeRO 3's shards of weights that the host keeps
    updates_on_device: bool = False  # what the host keeps of the state comes back for the update
    pipeline_buffers: bool = False  # messages of all micro-batches have buffers
    keeps_results: bool = False  # its last stage keeps the logits of all, and joins them in the end
    scatters_copies: bool = (
        False  # a layer's gradients are copied into the buffer that is scattered
    )
    bucket_stands: bool = False  # the buffer of a gradient collective is there all the time
    zeroes_gradients: bool = False  # the sum of gradients is filled with zeros before a step
    gradients_follow: bool = False  # what the host updates it has the gradients of (ZeRO 2 and 3)
    graph_share: float = 0.0  # pools of captured graphs / the most activations that stand
    graph_pool_bytes: float = 0.0  # private pools of captured graphs
    expert_buffers: bool = False  # its expert exchange writes into buffers of its own (DeepEP)
    expert_buffer_bytes: float = 0.0  # of these per rank; 0: as the library sizes them
    released: str = ""  # year and month of the software, where it is of one time
    anchor: Anchor | None = field(default=None, hash=False, compare=False)
    defaults: Mapping[str, str] = field(default_factory=dict)  # for what a run leaves open
    facts: Mapping[str, Fact] = field(default_factory=dict, repr=False, hash=False, compare=False)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False, compare=False)
