"""Descriptions with round numbers for tests; each maker takes changes by keyword."""

from __future__ import annotations

from typing import Any

from ersatz.device_models.catalog.device import Device, Node, ScaleOut, ScaleUp
from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario, Training
from ersatz.sim.workload.model import Model


def make_device(**changes: Any) -> Device:
    """100 TFLOP/s bf16, 1 TB/s, 100 GB, nothing lost, 100 W idle and 500 W at most."""
    values: dict[str, Any] = dict(
        name="round", title="Round device", vendor="test", architecture="round",
        released="2024-01-01", trains=True, why_not="",
        matrix_peak={"bf16": 100e12, "fp8": 200e12}, vector_peak={"fp32": 10e12},
        matrix_ceiling={"bf16": 1.0, "fp8": 1.0}, attention_forward=1.0, attention_backward=1.0,
        attention_portable=1.0, memory_bytes=100e9, memory_bandwidth=1e12, memory_efficiency=1.0,
        cache_bytes=50e6, matrix_tile=(100, 100, 10), compute_units=100, clock_hz=1e9,
        kernel_launch_s=0.0, power_idle_w=100.0, power_max_w=500.0, die_area_m2=800e-6,
        io_bandwidth=500e9, failure_rate=0.0,
    )  # fmt: skip
    return Device(**(values | changes))


def make_scale_up(**changes: Any) -> ScaleUp:
    """A switch that joins 8 devices, 10 links of 10 GB/s each, nothing lost, no latency."""
    values: dict[str, Any] = dict(
        name="switch", title="Switch", kind="switched", domain=8, links=10, link_bandwidth=10e9,
        efficiency=1.0, in_switch=0.0, all_to_all=1.0, latency_s=0.0,
    )  # fmt: skip
    return ScaleUp(**(values | changes))


def make_scale_out(**changes: Any) -> ScaleOut:
    """A non-blocking network with cards of 10 GB/s, nothing lost, no latency."""
    values: dict[str, Any] = dict(
        name="network", title="Network", kind="rail", tiers=2, nic_bandwidth=10e9, efficiency=1.0,
        all_to_all=1.0, latency_s=0.0, oversubscription=1.0,
    )  # fmt: skip
    return ScaleOut(**(values | changes))


def make_node(**changes: Any) -> Node:
    """Eight round devices with a card each; the host draws 1 kW and never fails."""
    values: dict[str, Any] = dict(
        name="round-8", title="Round node", device=make_device(), devices=8,
        scale_up=make_scale_up(), scale_out=make_scale_out(), nics=8, host_power_w=1000.0,
        failure_rate=0.0,
    )  # fmt: skip
    return Node(**(values | changes))


def make_stack(**changes: Any) -> Stack:
    """Software that fuses all, overlaps all for free and costs the host nothing."""
    values: dict[str, Any] = dict(
        name="round", title="Round stack", elementwise_traffic=1.0, flash_attention=True,
        portable_attention=False, attention_kernel="native", attention_factor=1.0, loss_bytes_per_logit=10.0,
        cast_traffic=1.0, cast_weight_traffic=0.0, weight_cast_bytes=0.0, narrow_matrix_factor=1.0,
        expert_overlap_chunks=1.0,
        optimizer_bytes_per_param=30.0, optimizer_state_bytes=12.0,
        gradient_dtype="fp32", gradient_accumulate_bytes=8.0, fresh_gradient_bytes=0.0,
        launch_s=0.0,
        collective_launch_s=0.0, moe_host_sync=False, expert_host_s=0.0, step_host_s=0.0,
        tp_overlap_chunks=1, tp_overlap_backward=False,
        regather_inputs=True, narrow_tensor_gather=True, narrow_weight_gather=False,
        narrow_frozen_weights=False, bucket_params=0.0, bucket_params_per_rank=0.0,
        bucket_first_chunk_only=False, zero_sum="reduce_scatter", zero2_reduce="micro-batch",
        zero2_gather="step", regather_embedding=True,
        overlap_p2p_plain=True, p2p_host_sync=False, scatter_messages=False,
        local_expert_host_s=0.0, slices_expert_tokens=True,
        overlap_grad_reduce=True, overlap_param_gather=True,
        overlap_contention=0.0, overlap_p2p=True, overlap_expert=False,
        expert_permute_passes=2.0, expert_efficiency=1.0, expert_dispatch_dtype="bf16",
        expert_imbalance=1.0, node_limited_dispatch=False, selective_recompute="core_attn, activation",
        activation_memory=1.0, memory_overhead_bytes=0.0, memory_fragmentation=0.0,
        communicator_bytes=0.0, loss_memory_bytes=8.0, loss_chunks=1.0, gradient_buffer=True,
        master_is_weight=False, update_bytes=0.0, update_params=0.0, frozen_weight_bytes=0.0, live_params=0.0,
        optimizer_offload=0.0, loss_parallel_bytes=0.0,
        narrow_saved=True, narrow_results=False, keeps_gathered_inputs=False,
        gradient_copy_bytes=0.0,
            optimizer_bandwidth=0.0, unfused_activation=1.0, nics_used=0.0,
    )  # fmt: skip
    return Stack(**(values | changes))


def make_model(**changes: Any) -> Model:
    """Eight layers of hidden 1000 with ten heads of 100: about a tenth of a billion weights."""
    values: dict[str, Any] = dict(
        name="round", layers=8, hidden=1000, heads=10, kv_heads=10, head_dim=100, ffn_hidden=4000,
        vocab=10000,
    )  # fmt: skip
    return Model(**(values | changes))


def make_scenario(**changes: Any) -> Scenario:
    """One node, data parallel over eight devices, eight micro-batches of one sequence of 1000."""
    values: dict[str, Any] = dict(
        name="round", question="?", seed=0, model=make_model(),
        pools=(Pool("", make_node(), 1, make_stack()),),
        training=Training(sequence_length=1000, global_batch=64, micro_batch=1),
        parallel=Parallel(dp=8),
    )  # fmt: skip
    return Scenario(**(values | changes))
