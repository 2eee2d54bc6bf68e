"""How long one kernel takes on one device.

Matrix product of (m, k) by (k, n), in `groups` independent copies:

    t = max( flop / (peak x ceiling) x Q , bytes / (bandwidth x memory efficiency) ) + g x output / bandwidth
    Q = 1 + w (q - 1),   q = padded tile work of the fullest wave / useful work

The output term is what makes the rate rise with the inner dimension k: efficiency = k / (k + k0)
with k0 = g x peak x ceiling x bytes / (2 bandwidth). Attention runs at its own share of the bf16
peak with a ramp in the sequence length; where it is not fused and a head fills no multiple of 16
bytes, on the vector units (BLOOM candidates took 30 % longer with heads of 108 than of 144). All
other kernels move bytes. The `roofline` timer is the same model with every factor at one. Launch
cost is the host's and is not part of these times.

Not modelled: cache reuse between kernels, clock changes within a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ersatz.device_models.catalog.device import DTYPE_BYTES, Device, sixteen_bit
from ersatz.device_models.kernels.attention import attention_kernel
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import parse_yaml


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a device's work: what it computes and moves.

    `flop` counts a multiply-add as two. `nbytes` is the traffic with device memory. For a matrix
    product m, n, k are the sizes of one group and `flop` and `nbytes` are totals. Other kernels
    carry their sizes for whoever runs or measures them: m rows (tokens), n columns, and in k and
    `groups` what `ersatz.device_models.kernels.operations` says of each operation.
    """

    name: str
    category: str
    kind: Literal["matmul", "attention", "memory"]
    dtype: str
    flop: float
    nbytes: float
    m: float = 0.0
    n: float = 0.0
    k: float = 0.0
    groups: int = 1
    backward: bool = False
    sequence: int = 0
    slowdown: float = 1.0  # of the software's kernel against the device's best
    portable: bool = False  # attention by a kernel that is not written for the device
    versions: tuple[str, ...] = ()  # attention kernels of the software, the preferred first
    aligned: bool = True  # its rows begin at multiples of 16 bytes, as matrix units want them
    repeated: float = 0.0  # of `flop`: computed before and not kept (scores, in a backward pass)
    padding: float = 0.0  # of `flop`: what the model does not ask for


def matmul(
    name: str, m: float, n: float, k: float, dtype: str, *, groups: int = 1,
    category: str = "matrix", slowdown: float = 1.0, output_bytes: float = 2.0,
    extra_bytes: float = 0.0, padding: float = 0.0,
) -> Kernel:  # fmt: skip
    """Return the kernel of `groups` products (m, k) x (k, n), operands in `dtype`.

    `extra_bytes` are moved beside operands and result; `padding` is a share of the products.
    """
    size = DTYPE_BYTES[dtype]
    nbytes = groups * (size * (m * k + k * n) + output_bytes * m * n) + extra_bytes
    flop = 2.0 * groups * m * n * k
    return Kernel(name, category, "matmul", dtype, flop, nbytes, m, n, k, groups, slowdown=slowdown,
                  padding=padding * flop)  # fmt: skip


def memory_kernel(
    name: str, nbytes: float, category: str = "elementwise", *, dtype: str = "bf16",
    m: float = 0.0, n: float = 0.0, k: float = 0.0, groups: int = 1,
) -> Kernel:  # fmt: skip
    """Return a kernel that only moves `nbytes`."""
    return Kernel(name, category, "memory", dtype, 0.0, nbytes, m, n, k, groups)


@dataclass(frozen=True, slots=True)
class KernelConstants:
    """What the kernel model assumes of every device (data/kernel_model.yaml)."""

    wave_weight: float
    output_write: float
    kernel_start_s: float
    overlap_norm: float
    row_tile_share: float
    attention_ramp_tokens: float
    score_passes_forward: float  # over the score matrix, where attention is not fused
    score_passes_backward: float
    ring_merge_bytes_forward: float  # per value and step of ring attention
    ring_merge_bytes_backward: float  # per key or value and step
    logit_memory_bytes: float  # held per logit
    loss_forward_share: float  # of the loss's traffic
    small_cache: float  # the last cache / a core's own
    shared_cache: float  # the last cache / what of it one kernel's operands may hold
    staging_bytes: float  # tables, loss and staging tensors that frameworks count as allocated


@lru_cache(maxsize=1)
def kernel_constants() -> KernelConstants:
    """Read the constants once."""
    source = DATA / "kernel_model.yaml"
    text = parse_yaml(source.read_text(), "kernel_model.yaml")
    return KernelConstants(
        **{key: float(leaf["value"]) for key, leaf in text.data.items() if key != "sources"}
    )


Timer = Callable[[Device, Kernel], float]


def roofline_time(device: Device, kernel: Kernel) -> float:
    """Seconds from the data sheet alone: max of compute and memory time (Williams et al. 2009)."""
    moved = kernel.nbytes / device.memory_bandwidth
    if kernel.kind == "memory":
        return moved
    peak = attention_peak(device, kernel) if kernel.kind == "attention" else None
    return max(kernel.flop / (peak or device.matrix_peak[kernel.dtype]), moved)


def sixteen_bit_peak(device: Device) -> float:
    """Dense matrix peak in FLOP/s of the device's 16-bit format."""
    return sixteen_bit(device.matrix_peak)


def utilisation_peak(device: Device, dtype: str) -> float:
    """Dense matrix peak in FLOP/s by which work in a format is measured: of fp32 for fp32, else 16-bit.

    MFU and attention divide by the same one, so that fp32 on a device that is slower in 16 bits is
    not above it; FP8 by the 16-bit peak, as published figures do.
    """
    return device.matrix_peak.get("fp32" if dtype == "fp32" else "") or sixteen_bit_peak(device)


def attention_peak(device: Device, kernel: Kernel) -> float:
    """Dense matrix peak in FLOP/s by which attention is measured."""
    return utilisation_peak(device, kernel.dtype)


def quantisation(device: Device, kernel: Kernel) -> float:
    """Work of full tiles and full waves over useful work, weighted; 1 is no loss.

    Libraries have tiles of fewer rows for products of few rows.
    """
    constants = kernel_constants()
    tile_m, tile_n, _ = device.matrix_tile
    rows, cols = kernel.m / (tile_m * constants.row_tile_share), kernel.n / tile_n
    tiles = math.ceil(rows) * math.ceil(cols)
    padding = tiles / (rows * cols)
    waves = tiles * kernel.groups / device.compute_units
    tail = math.ceil(waves) / waves
    return 1.0 + constants.wave_weight * (padding * tail - 1.0)


def calibrated_time(device: Device, kernel: Kernel) -> float:
    """Seconds with the device's sustained rates and the shape of the kernel."""
    moved = kernel.nbytes / (device.memory_bandwidth * device.memory_efficiency)
    if kernel.kind == "memory":
        return moved
    if kernel.kind == "attention":
        return max(kernel.flop / _attention_rate(device, kernel) * kernel.slowdown, moved)
    return _product_time(device, kernel, moved)


def _product_time(device: Device, kernel: Kernel, moved: float) -> float:
    """A start, then compute with the writing of the result, which traffic only partly hides behind."""
    constants = kernel_constants()
    rate = device.matrix_peak[kernel.dtype] * device.matrix_ceiling[kernel.dtype]
    if not kernel.aligned:  # sums are kept in fp32, so the vector units do not pack
        rate = min(rate, device.vector_peak.get("fp32", rate))
    rate *= device.sustained_clock
    compute = kernel.flop / rate * quantisation(device, kernel) * kernel.slowdown
    written = constants.output_write * 2.0 * kernel.groups * kernel.m * kernel.n
    busy = compute + written / device.memory_bandwidth
    longer, shorter = max(busy, moved), min(busy, moved)
    norm = constants.overlap_norm
    return constants.kernel_start_s + longer * math.pow(
        1.0 + math.pow(shorter / longer, norm), 1.0 / norm
    )


def _attention_rate(device: Device, kernel: Kernel) -> float:
    """FLOP/s of an attention kernel: of its version where it is known on the device."""
    version = attention_kernel(device, kernel.versions)
    if version:
        peak = attention_peak(device, kernel)
        share = version.share(kernel.sequence, kernel.k, peak, backward=kernel.backward)
    else:
        share = device.attention_backward if kernel.backward else device.attention_forward
        share *= device.attention_portable if kernel.portable else 1.0
        share /= 1.0 + kernel_constants().attention_ramp_tokens / max(kernel.sequence, 1)
    rate = attention_peak(device, kernel) * share
    if not kernel.aligned:  # sums are kept in fp32, so the vector units do not pack
        rate = min(rate, device.vector_peak.get("fp32", rate))
    return rate * device.sustained_clock


TIMERS: dict[str, Timer] = {"roofline": roofline_time, "calibrated": calibrated_time}
