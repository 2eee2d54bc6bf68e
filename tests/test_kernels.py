"""Kernel times worked out by hand on a device with round numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_device
from hypothesis import given
from hypothesis import strategies as st

from ersatz.device_models.catalog.device import Device
from ersatz.device_models.catalog.power import limited_clock
from ersatz.device_models.catalog.reading import load_device
from ersatz.device_models.kernels.attention import attention_kernel
from ersatz.device_models.kernels.kernel import (
    Kernel,
    calibrated_time,
    kernel_constants,
    matmul,
    memory_kernel,
    quantisation,
    roofline_time,
)
from ersatz.device_models.kernels.terms import TERMS, Machine
from ersatz.sim.validation.errors.microbenchmarks import benchmark_rows


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
    # tiles may be half as high: 1100 rows are 22 x 10 tiles of 50 rows, three waves for 2.2 of work
    expected = 1 + weight * (3 / 2.2 - 1)
    assert quantisation(device, matmul("x", 1100, 1000, 64, "bf16")) == pytest.approx(expected)
    # 960 rows: 20 rows of tiles, padded by 1000/960
    expected = 1 + weight * (1000 / 960 - 1)
    assert quantisation(device, matmul("x", 960, 1000, 64, "bf16")) == pytest.approx(expected)


def product_seconds(busy: float, moved: float) -> float:
    """A start, and compute and traffic in the norm in which they overlap."""
    constants = kernel_constants()
    norm = constants.overlap_norm
    return constants.kernel_start_s + float((busy**norm + moved**norm) ** (1 / norm))


def test_the_result_is_written_after_the_product(device: Device) -> None:
    # 20 us of compute, then g passes over 2 MB of output at 1 TB/s; 6 MB of traffic beside both
    seconds = calibrated_time(device, matmul("x", 1000, 1000, 1000, "bf16"))
    busy = 20e-6 + kernel_constants().output_write * 2e-6
    assert seconds == pytest.approx(product_seconds(busy, 6e-6))


def test_efficiency_rises_with_the_inner_dimension(device: Device) -> None:
    # 2e6 k FLOP, g passes over 2 MB of output, and 4000 k + 2e6 bytes of traffic
    for k in (500, 1000, 4000):
        kernel = matmul("x", 1000, 1000, k, "bf16")
        busy = 2e6 * k / 100e12 + kernel_constants().output_write * 2e-6
        moved = (2.0 * 2 * 1000 * k + 2e6) / 1e12
        assert calibrated_time(device, kernel) == pytest.approx(product_seconds(busy, moved))


def test_groups_fill_waves_together(device: Device) -> None:
    # ten products of 50 x 1000: ten tiles each, one wave of a hundred together, nothing padded
    assert quantisation(device, matmul("x", 50, 1000, 1000, "bf16", groups=10)) == 1.0
    whole = calibrated_time(device, matmul("x", 500, 1000, 1000, "bf16"))
    grouped = calibrated_time(device, matmul("x", 50, 1000, 1000, "bf16", groups=10))
    assert grouped > whole  # ten weight matrices are read in place of one


@given(st.integers(1, 3000), st.integers(1, 16), st.sampled_from([512, 1536, 7168]))
def test_more_rows_of_a_grouped_product_never_take_less_time(m: int, groups: int, n: int) -> None:
    one, more = (
        calibrated_time(make_device(), matmul("x", rows, n, 2048, "bf16", groups=groups))
        for rows in (m, m + 1)
    )
    assert more >= one * (1 - 1e-12)


def test_a_known_attention_kernel_runs_at_its_own_rate_by_length_and_head() -> None:
    """FlashAttention-3 on H100: 0.662 of 989.4 TFLOP/s, half of it at 603 tokens."""
    device = load_device("h100")
    kernel = Kernel("a", "attention", "attention", "bf16", 1e12, 0.0, k=128.0, sequence=4096,
                    versions=("flash-4", "flash-3", "flash-2"))  # fmt: skip
    rate = 0.662 * 989.4e12 / (1 + 603 / 4096)
    assert calibrated_time(device, kernel) == pytest.approx(1e12 / rate)
    # heads of 64 reach 0.74 of it; a kernel that no table knows there is the device's own
    assert calibrated_time(device, replace(kernel, k=64.0)) == pytest.approx(1e12 / rate / 0.74)
    own = (
        device.attention_forward * 989.4e12 / (1 + kernel_constants().attention_ramp_tokens / 4096)
    )
    assert calibrated_time(device, replace(kernel, versions=("native",))) == pytest.approx(
        1e12 / own
    )


@pytest.mark.parametrize(("kernel", "direction", "head"), [
    ("flash-2", "forward", 128), ("cudnn", "forward", 128), ("flash-3", "forward", 128),
])  # fmt: skip
def test_attention_rates_are_those_of_the_measured_kernels(
    kernel: str, direction: str, head: int
) -> None:
    """Causal attention of 1,024 tokens and more on H100 within 5 % of what was measured."""
    device = load_device("h100")
    version = attention_kernel(device, [kernel])
    assert version is not None
    for row in benchmark_rows("attention.csv"):
        wanted = ("h100", kernel, direction, "1", str(head))
        if tuple(row[k] for k in ("device", "kernel", "direction", "causal", "head")) != wanted:
            continue
        if float(row["length"]) >= 1024:
            share = version.share(float(row["length"]), head, 989.4e12, backward=False)
            assert share * 989.4 == pytest.approx(float(row["tflops"]), rel=0.05)


def test_the_clock_of_a_bin_follows_its_power() -> None:
    """MI325X has 1,000 W for the peak of MI300X's 750 W: (4/3)^(1/2.2) of its clock."""
    assert load_device("mi325x").sustained_clock == pytest.approx((1000 / 750) ** (1 / 2.2))
    assert load_device("h20").sustained_clock == 1.25  # 400 W for 148 TFLOP/s never throttle
    assert load_device("mi300x").sustained_clock == 1.0
    half = limited_clock(350.0, 989.4e12, load_device("h100"))
    assert half == pytest.approx(0.5 ** (1 / 2.2))


def test_a_users_bin_with_less_power_is_slower(tmp_path: Path) -> None:
    path = tmp_path / "cool.yaml"
    path.write_text(
        "name: cool\nbased_on: h100\nsources: {OWN: own}\n"
        "power_max_w: {value: 350 W, source: OWN, date: 2026-11, confidence: high}\n"
    )
    device = load_device(str(path))
    assert device.sustained_clock == pytest.approx(0.5 ** (1 / 2.2))
    assert device.facts["sustained_clock"].confidence == "assumed"


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


def test_what_a_kernel_finds_of_a_cache_is_data() -> None:
    """A copy of 3 MiB of rows on a cache of 32 MiB: 2 MiB are beyond 1 MiB, none beyond a half."""
    machine = Machine(32 * 2.0**20, (128, 128), 8, {})
    copy = Kernel("copy", "elementwise", "memory", "fp32", 0.0, 0.0, m=768.0, n=1024.0)
    assert (kernel_constants().small_cache, kernel_constants().shared_cache) == (32.0, 2.0)
    assert TERMS["missed"](copy, machine) == 2 * 2.0**20
    assert TERMS["spilled"](copy, machine) == 0.0
    assert TERMS["spilled"](replace(copy, m=8 * 768.0), machine) == (24 - 16) * 2.0**20
