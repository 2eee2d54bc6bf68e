"""Kernel times worked out by hand on a device with round numbers."""

from dataclasses import replace

import pytest
from factories import make_device
from hypothesis import given
from hypothesis import strategies as st

from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import (
    calibrated_time,
    kernel_constants,
    matmul,
    memory_kernel,
    quantisation,
    roofline_time,
)


@pytest.fixture
def device() -> Device:
    """100 TFLOP/s, 1 TB/s, tiles of 100 x 100 on 100 units, nothing lost."""
    return make_device(
        matrix_peak={"bf16": 100e12, "fp8": 200e12}, matrix_ceiling={"bf16": 1.0, "fp8": 1.0},
        memory_bandwidth=1e12, memory_efficiency=1.0, matrix_tile=(100, 100, 10),
        compute_units=100, attention_forward=0.5, attention_backward=0.25,
    )  # fmt: skip


def test_roofline_is_the_larger_of_compute_and_memory(device: Device) -> None:
    # 2 x 1000^3 = 2 GFLOP at 100 TFLOP/s: 20 us; 3 x 2 MB at 1 TB/s: 6 us
    assert roofline_time(device, matmul("x", 1000, 1000, 1000, "bf16")) == pytest.approx(20e-6)
    # with k = 10: 0.2 us of compute, 2 MB + 40 kB of traffic: 2.04 us
    assert roofline_time(device, matmul("x", 1000, 1000, 10, "bf16")) == pytest.approx(2.04e-6)
    assert roofline_time(device, memory_kernel("x", 1e9)) == pytest.approx(1e-3)


def test_full_tiles_and_waves_lose_nothing(device: Device) -> None:
    # 10 x 10 tiles of 100 x 100 on 100 units: one full wave
    assert quantisation(device, matmul("x", 1000, 1000, 1000, "bf16")) == 1.0


def test_partial_tiles_and_waves_cost_their_share(device: Device) -> None:
    weight = kernel_constants().wave_weight
    # 1100 rows: 110 tiles, two waves for 1.1 of work
    expected = 1 + weight * (2 / 1.1 - 1)
    assert quantisation(device, matmul("x", 1100, 1000, 64, "bf16")) == pytest.approx(expected)
    # 950 rows: still 10 rows of tiles, padded by 1000/950
    expected = 1 + weight * (1000 / 950 - 1)
    assert quantisation(device, matmul("x", 950, 1000, 64, "bf16")) == pytest.approx(expected)


def test_the_result_is_written_after_the_product(device: Device) -> None:
    # 20 us of compute, then g passes over 2 MB of output at 1 TB/s
    seconds = calibrated_time(device, matmul("x", 1000, 1000, 1000, "bf16"))
    assert seconds == pytest.approx(20e-6 + kernel_constants().output_write * 2e-6)


def test_efficiency_rises_with_the_inner_dimension_as_k_over_k_plus_k0(device: Device) -> None:
    # k0 = g x peak x 2 bytes / (2 x bandwidth) = 1.48 x 100 = 148
    k0 = kernel_constants().output_write * 100e12 / 1e12
    for k in (500, 1000, 4000):
        kernel = matmul("x", 1000, 1000, k, "bf16")
        efficiency = kernel.flop / 100e12 / calibrated_time(device, kernel)
        assert efficiency == pytest.approx(k / (k + k0))


def test_attention_runs_at_its_own_rate(device: Device) -> None:
    ramp = kernel_constants().attention_ramp_tokens
    kernel = replace(
        matmul("x", 1, 1, 1, "bf16"), kind="attention", flop=1e12, nbytes=0.0, sequence=4096
    )
    assert calibrated_time(device, kernel) == pytest.approx(1e12 / 50e12 * (1 + ramp / 4096))
    back = replace(kernel, backward=True)
    assert calibrated_time(device, back) == pytest.approx(1e12 / 25e12 * (1 + ramp / 4096))
    # rows that fill no multiple of 16 bytes: the vector units' 10 TFLOP/s, no ramp
    assert calibrated_time(device, replace(kernel, aligned=False)) == pytest.approx(1e12 / 10e12)


sizes = st.integers(16, 20000)


@given(sizes, sizes, sizes)
def test_no_kernel_beats_the_data_sheet(m: int, n: int, k: int) -> None:
    device = make_device()
    kernel = matmul("x", m, n, k, "bf16")
    assert calibrated_time(device, kernel) >= roofline_time(device, kernel) * (1 - 1e-12)


@given(sizes, sizes, sizes)
def test_groups_are_never_faster_than_one_product_of_all_rows(m: int, n: int, k: int) -> None:
    device = make_device()
    grouped = matmul("x", m, n, k, "bf16", groups=4)
    assert grouped.flop == matmul("x", 4 * m, n, k, "bf16").flop
    assert roofline_time(device, grouped) >= roofline_time(device, matmul("x", 4 * m, n, k, "bf16"))
