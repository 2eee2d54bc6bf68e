"""What must hold in every file of the catalogue, whatever the values: the tables are tested too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ersatz.device_models.catalog.device import Device, ScaleUp
from ersatz.device_models.catalog.stack import LISTS, WORDS, words_of
from ersatz.device_models.text.problems import did_you_mean

Blame = Callable[[tuple[str | int, ...], object, str], None]
BITS = {"fp64": 64, "fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp6": 6,
        "fp4": 4}  # fmt: skip
TOLERANCE = 0.01
# Values of a stack by which times are divided, shares, and parts of which one is the least.
STACK_FACTORS = ("attention_factor", "matrix_factor", "collective_factor", "narrow_matrix_factor",
                 "expert_efficiency", "elementwise_traffic", "activation_memory")  # fmt: skip
STACK_SHARES = ("overlap_contention", "memory_fragmentation", "optimizer_offload",
                "activation_offload", "weights_offload")  # fmt: skip
STACK_COUNTS = ("tp_overlap_chunks", "expert_overlap_chunks", "expert_imbalance", "loss_chunks")
STACK_DEFAULTS = {
    "zero": ("0", "1", "2", "3"), "sequence_parallel": ("true", "false"),
    "recompute": ("none", "selective", "full"), "vp": ("layers",), "split": ("cost",),
    "pipeline_zero": ("2",), "pipeline_batches": ("stages",),
    "cp_comm": ("p2p", "a2a", "a2a+p2p", "all_gather"), "expert_layout": ("folded", "strided"),
    "schedule": ("gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe", "dualpipev"),
}  # fmt: skip


def total_processing_performance(peaks: Mapping[str, float]) -> float:
    """Return TPP: the largest over formats of bit length x dense tera-operations per second."""
    return max(
        (BITS[dtype] * peak / 1e12 for dtype, peak in peaks.items() if dtype != "tf32"), default=0.0
    )


def device_tpp(device: Device) -> float:
    """Return TPP as export rules count it: from the data sheet's peaks.

    They differ from the matrix peaks where a data sheet adds the vector units (Huawei's 950).
    """
    key = "datasheet_peak."
    stated = {name.removeprefix(key): float(fact.value)
              for name, fact in device.facts.items() if name.startswith(key)}  # fmt: skip
    return total_processing_performance(stated or device.matrix_peak)


def check_device(values: Mapping[str, Any], blame: Blame) -> None:
    """Efficiencies are shares, ceilings have peaks, the published TPP follows from the peaks."""
    for key in (
        "memory_efficiency",
        "attention_forward",
        "attention_backward",
        "attention_portable",
    ):
        _share(values, key, blame)
    for key in ("memory_bytes", "memory_bandwidth", "cache_bytes", "clock_hz", "power_max_w",
                "io_bandwidth", "sustained_clock"):  # fmt: skip
        _positive(values, key, blame)
    for key in ("matrix_peak", "vector_peak", "datasheet_peak"):
        _check_peaks(values, key, blame)
    _check_ceilings(values, blame)
    idle, most = values.get("power_idle_w"), values.get("power_max_w")
    if idle is not None and most is not None and idle >= most:
        blame(("power_idle_w",), idle, f"expected less than power_max_w ({most} W)")
    _check_tpp(values, blame)


def _check_peaks(values: Mapping[str, Any], key: str, blame: Blame) -> None:
    for dtype, peak in (values.get(key) or {}).items():
        if dtype not in BITS:
            blame((key, dtype), dtype, f"expected one of {', '.join(BITS)}")
        elif peak is not None and peak <= 0:
            blame((key, dtype), peak, "expected a peak above 0")


def _check_ceilings(values: Mapping[str, Any], blame: Blame) -> None:
    """Every matrix peak has its sustained share, and nothing else has one."""
    peaks, ceilings = values.get("matrix_peak") or {}, values.get("matrix_ceiling") or {}
    for dtype, share in ceilings.items():
        path = ("matrix_ceiling", dtype)
        if dtype not in peaks:
            blame(path, dtype, "has no matrix_peak of this dtype")
        if share is not None and not 0 < share <= 1:
            blame(path, share, "expected a share above 0 and at most 1 (achieved at most peak)")
    for dtype in peaks:
        if dtype not in ceilings:
            blame(("matrix_peak", dtype), dtype, "has no matrix_ceiling of this dtype")


def _check_tpp(values: Mapping[str, Any], blame: Blame) -> None:
    stated = values.get("tpp")
    peaks = {k: v for k, v in (values.get("datasheet_peak") or values.get("matrix_peak") or {}).items()
             if v and k in BITS}  # fmt: skip
    if not stated or not peaks:
        return
    computed = total_processing_performance(peaks)
    if abs(computed / stated - 1) > TOLERANCE:
        blame(("tpp",), stated, f"the peaks give {computed:.0f} (bits x dense TFLOP/s)")


def check_scale_up(values: Mapping[str, Any], kind: str, blame: Blame) -> None:
    """Shares are shares, links add up to the published total, a mesh reaches everybody."""
    for key in ("efficiency", "all_to_all", "quick_share"):
        _share(values, key, blame)
    _positive(values, "link_bandwidth", blame)
    in_switch = values.get("in_switch")
    if in_switch is not None and in_switch > 1:
        blame(("in_switch",), in_switch, "expected a share of at most 1, 0 for none")
    links, rate, total = (values.get(k) for k in ("links", "link_bandwidth", "total_bandwidth"))
    if links and rate and total and abs(links * rate / total - 1) > TOLERANCE:
        blame(("total_bandwidth",), total, f"links x link_bandwidth is {links * rate:.4g} bytes/s")
    domain = values.get("domain")
    dims = values.get("dims") or (1, 1, 1)
    if kind == "torus" and domain and math.prod(dims) != domain:
        blame(("dims",), list(dims), f"expected sizes that multiply to the domain, {domain}")
    ways = 2 * sum(size > 1 for size in dims)
    if kind == "torus" and links and ways and links % ways:
        blame(("links",), links, f"expected as many to each neighbour: a multiple of {ways}")
    if kind == "ring" and links and links % 2:
        blame(
            ("links",),
            links,
            "a ring has as many links to either neighbour: expected an even number",
        )
    if kind == "mesh" and links and domain and links < domain - 1:
        blame(("links",), links, f"a mesh of {domain} needs {domain - 1} links per device")


def check_scale_out(values: Mapping[str, Any], blame: Blame) -> None:
    """Shares are shares; oversubscription starts at one."""
    for key in ("efficiency", "all_to_all", "quick_share", "beyond_knee"):
        _share(values, key, blame)
    _positive(values, "nic_bandwidth", blame)
    factor = values.get("oversubscription")
    if factor is not None and factor < 1:
        blame(("oversubscription",), factor, "expected 1 (non-blocking) or more")
    for key in ("ports", "planes", "uplinks"):
        if values.get(key) is not None and values[key] < 1:
            blame((key,), values[key], "expected 1 or more")
    core = values.get("core_oversubscription")
    if core is not None and core < 1:
        blame(("core_oversubscription",), core, "expected 1 (non-blocking) or more")
    if values.get("pod_nodes") and values["pod_nodes"] % (values.get("leaf_nodes") or 1):
        blame(("pod_nodes",), values["pod_nodes"], "expected whole leaves of `leaf_nodes`")
    crowding = values.get("crowding")
    if crowding is not None and not 0 <= crowding <= 1:
        blame(("crowding",), crowding, "expected an exponent from 0 (none) to 1")


def check_node(values: Mapping[str, Any], scale_up: ScaleUp, blame: Blame) -> None:
    """A node holds whole groups of its links, or is a part of a supernode."""
    devices, domain = values.get("devices"), scale_up.domain
    if not devices:
        return
    if scale_up.kind == "supernode":
        if devices > domain:
            blame(("devices",), devices, f"{scale_up.name} joins only {domain} devices")
    elif devices % domain:
        blame(("devices",), devices, f"{scale_up.name} joins {domain} devices: no whole groups")


def check_stack(values: Mapping[str, Any], defaults: Mapping[str, Any], blame: Blame) -> None:
    """Factors divide, shares are shares, dtypes have a size, defaults are words of a scenario."""
    for key in STACK_FACTORS:
        _within(values, key, 1e-3, 1e3, blame)
    for key in STACK_SHARES:
        _within(values, key, 0, 1, blame)
    for key in STACK_COUNTS:
        _within(values, key, 1, 1e3, blame)
    for key, words in WORDS.items():
        said = words_of(str(values[key])) if values.get(key) is not None else ()
        if any(word not in words for word in said) or (len(said) != 1 and key not in LISTS):
            blame((key,), values.get(key), f"expected one of {', '.join(words)}")
    away, rate = values.get("optimizer_offload"), values.get("optimizer_bandwidth")
    if away is not None and rate is not None and bool(away) != bool(rate):
        blame(("optimizer_offload",), away, "expected a share above 0 with an optimizer_bandwidth, and 0"
              " without: the host updates what it keeps")  # fmt: skip
    for key, value in defaults.items():
        known = STACK_DEFAULTS.get(key)
        if known is None:
            blame(("defaults", key), None, f"unknown key{did_you_mean(key, STACK_DEFAULTS)}")
        elif str(value).lower() not in known:
            blame(("defaults", key), value, f"expected one of {', '.join(known)}")


def _within(values: Mapping[str, Any], key: str, least: float, most: float, blame: Blame) -> None:
    value = values.get(key)
    if value is not None and not least <= value <= most:
        blame((key,), value, f"expected a number from {least:g} to {most:g}")


def _share(values: Mapping[str, Any], key: str, blame: Blame) -> None:
    value = values.get(key)
    if value is not None and not 0 < value <= 1:
        blame((key,), value, "expected a share above 0 and at most 1")


def _positive(values: Mapping[str, Any], key: str, blame: Blame) -> None:
    value = values.get(key)
    if value is not None and value <= 0:
        blame((key,), value, "expected a value above 0")
