"""The loop cannot be fooled: what a device is, what its clock says, what its names mean."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra [hil])")

from calibrations import ORIGIN, made_calibration  # noqa: E402
from pretended import Timeline, pretended_torch  # noqa: E402

from ersatz.device_models.calibration.measured import Point, calibrated_timer  # noqa: E402
from ersatz.device_models.catalog.reading import load_device  # noqa: E402
from ersatz.device_models.kernels.kernel import matmul, memory_kernel  # noqa: E402
from ersatz.device_models.kernels.operations import operation_of  # noqa: E402
from ersatz.sim.errors import InputError  # noqa: E402
from ersatz.sim.hil import benchmark  # noqa: E402
from ersatz.sim.hil.benchmark import refuse_impostor  # noqa: E402
from ersatz.sim.hil.device import attached as attached_module  # noqa: E402
from ersatz.sim.hil.device import filling  # noqa: E402
from ersatz.sim.hil.device.attached import Attached, attach  # noqa: E402
from ersatz.sim.hil.device.identity import Seen, recognise  # noqa: E402
from ersatz.sim.hil.device.measure import measure  # noqa: E402
from ersatz.sim.hil.device.recipes import Operands  # noqa: E402
from ersatz.sim.hil.fit import fit_calibration  # noqa: E402
from ersatz.sim.hil.proof.proof import predict, prove  # noqa: E402
from ersatz.sim.hil.proof.subjects import LARGE, Subject, some_subjects  # noqa: E402
from ersatz.sim.hil.shapes import SMALL  # noqa: E402
from ersatz.sim.hil.timers import refuse_contradiction  # noqa: E402
from ersatz.sim.workload.model import Model  # noqa: E402

GB = 2.0**30
FLUSH_S, KERNEL_S = 3e-3, 40e-6


def attach_to(monkeypatch, timeline, name="NVIDIA H200", **properties):  # type: ignore[no-untyped-def]
    fake = pretended_torch(timeline.module(name, **properties))
    monkeypatch.setattr(attached_module, "import_torch", lambda: fake)
    monkeypatch.setattr(attached_module, "time", timeline.clock())
    return attach("cuda"), fake


def test_reading_the_clock_is_no_part_of_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that takes half a microsecond to read: a kernel of two is not one of two and a half."""
    now = [0]

    def reading() -> int:
        now[0] += 500
        return now[0]

    def kernel() -> None:
        now[0] += 2000

    monkeypatch.setattr(attached_module, "time", SimpleNamespace(process_time_ns=reading))
    attached_module._clock_ns.cache_clear()
    assert attached_module._process_seconds(kernel) == pytest.approx(2e-6)
    assert attached_module._process_seconds(lambda: None) > 0
    attached_module._clock_ns.cache_clear()


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A device on which every operation takes 40 us, and emptying the cache 3 ms."""
    torch.set_num_threads(1)
    flushes: list[object] = []

    def seconds(name: str, args: tuple[object, ...]) -> float:
        return FLUSH_S if name == "add_" and args[0] is flushes[0] else KERNEL_S

    timeline = Timeline(seconds)
    attached, _ = attach_to(monkeypatch, timeline)
    flushes.append(attached.flush)
    with timeline:
        yield attached, timeline


BACK = (
    memory_kernel("activation back", 1.0, dtype="fp32", m=64, n=32, k=1),
    memory_kernel("norm back", 1.0, dtype="fp32", m=64, n=32),
    replace(memory_kernel("attention back", 1.0, dtype="fp32", m=32, n=32, k=16), kind="attention",
            backward=True, sequence=32, groups=2),
)  # fmt: skip
FORWARD = (
    matmul("up", 64, 32, 48, "fp32"), matmul("up wgrad", 64, 32, 48, "fp32"),
    memory_kernel("copy", 1.0, dtype="fp32", m=64, n=32),
    memory_kernel("residual", 1.0, dtype="fp32", m=64, n=32),
)  # fmt: skip


@pytest.mark.parametrize("kernel", [*FORWARD, *BACK], ids=operation_of)
def test_known_kernel_times_of_an_asynchronous_device_come_back(timed, kernel) -> None:  # type: ignore[no-untyped-def]
    attached, timeline = timed
    point = measure(attached, kernel, engine_s=13e-6)  # autograd's start is the host's
    marks = [i for i, (name, _) in enumerate(timeline.log) if name == "event"][-2:]
    truth = sum(seconds for _, seconds in timeline.log[marks[0] : marks[1]])
    assert truth >= KERNEL_S
    assert point.seconds == pytest.approx(truth, rel=0.02)
    assert point.warm_s == pytest.approx(truth, rel=0.02)
    assert point.host_s > 0


def test_a_call_that_waits_for_the_device_ends_and_keeps_its_host_time(timed) -> None:  # type: ignore[no-untyped-def]
    attached, _ = timed

    def waits() -> object:
        attached.synchronize()
        return torch.ones(4).sum()

    seconds, _ = attached.time_queued(waits, lambda: None)
    assert seconds >= 2 * KERNEL_S
    assert attached.queue < attached_module.LONGEST_QUEUE  # the next kernel starts afresh


def test_large_operands_are_not_drawn_number_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    plain = torch.randn

    def counted(*sizes, **more):  # type: ignore[no-untyped-def]
        made = plain(*sizes, **more)
        drawn.append(made.numel())
        return made

    monkeypatch.setattr(torch, "randn", counted)
    make = Operands(torch.device("cpu"), torch.bfloat16, torch.Generator().manual_seed(0))
    big = make.random(9000, 1000)
    assert big.shape == (9000, 1000)
    assert sum(drawn) <= 2**20
    assert float(big.float().std() * 1000**0.5) == pytest.approx(1.0, rel=0.02)
    assert not torch.equal(big[0], big[1])
    assert big.flatten()[filling.BLOCK] == big.flatten()[0]


def test_the_larger_of_the_drivers_and_the_catalogues_cache_is_emptied(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    timeline = Timeline(lambda name, args: 1e-6)
    fake = pretended_torch(
        timeline.module("AMD Instinct MI300X", L2_cache_size=4 * 2**20), hip="6.4", cuda=None
    )
    monkeypatch.setattr(attached_module, "import_torch", lambda: fake)
    assert attach("rocm").catalog_name == "mi300x"
    assert 4 * fake.sizes[-1] >= 4 * load_device("mi300x").cache_bytes > 4 * 4 * 2**20


# Who bounds a step

HOST_S = 10e-6


def run_of(monkeypatch, kernel_s: float):  # type: ignore[no-untyped-def]
    """Return the calibration and the proof of a small model where each kernel takes `kernel_s`."""
    flushes: list[object] = []

    def seconds(name: str, args: tuple[object, ...]) -> float:
        return FLUSH_S if name == "add_" and flushes and args[0] is flushes[0] else kernel_s

    timeline = Timeline(seconds, HOST_S)
    attached, _ = attach_to(monkeypatch, timeline)
    flushes.append(attached.flush)
    sizes = replace(SMALL, hidden=(64, 128), tokens=(32, 64), sequence=(16, 32), vocab=(256, 512))
    monkeypatch.setattr(benchmark, "ranges_of", lambda backend: sizes)
    monkeypatch.setattr(benchmark, "FEWEST_ROUNDS", 8)  # every operation is fitted
    with timeline:
        journal = benchmark.run_benchmark(attached, ["fp32"], 1e-4)
        origin = benchmark.origin_of(attached, journal)
        calibration, _ = fit_calibration(origin, load_device("h200"), journal.points)
        assert not journal.missing
        (judged,) = prove(attached, calibration, 0.0, [judged_subject()])
    return calibration, judged


def test_a_step_that_launches_bound_is_predicted_by_the_hosts_time(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    # the host needs 10 us an operation, the device 2 us: the device waits
    calibration, judged = run_of(monkeypatch, 2e-6)
    assert calibration.launches["residual"] == pytest.approx(HOST_S)  # one operation of PyTorch
    assert calibration.launches["rope back"] > 4 * HOST_S  # a chain of them
    assert judged.measured_s > 50 * HOST_S
    assert judged.error == pytest.approx(0.0, abs=0.25)
    silent = replace(
        calibration, launches={}, parameters={**calibration.parameters, "kernel_launch_s": 0.0}
    )
    assert predict(judged_subject(), silent, calibrated_timer(silent)) < 0.5 * judged.measured_s


def test_a_step_that_the_device_bounds_is_predicted_by_its_kernels(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    _, judged = run_of(monkeypatch, 200e-6)
    # 175 operations in its kernels; the step has 18 more (a last norm's gradient, the loss read)
    assert judged.error == pytest.approx(0.0, abs=0.12)


def judged_subject() -> Subject:
    return Subject(Model("tiny", 2, 64, 4, 2, 16, 128, 256), 1, 32, "fp32")


def test_the_small_models_are_in_every_short_proof_on_accelerators() -> None:
    for count in (3, 6, 10):
        chosen = some_subjects("cuda", count)
        assert len(chosen) == count
        assert chosen[:2] == LARGE[:2]
        assert (count == 3) or chosen[-1] == LARGE[-1]
    assert all(s.model.params() < 1e8 for s in LARGE[:2])
    assert some_subjects("cuda", 99) == LARGE


# Who it is


@pytest.mark.parametrize(("hardware", "memory", "units", "expected"), [
    ("NVIDIA A100-SXM4-40GB", 39.4, 108, "a100-40"), ("NVIDIA A100-SXM4-80GB", 79.1, 108, "a100-80"),
    ("NVIDIA H100 80GB HBM3", 79.1, 132, "h100"), ("NVIDIA H20", 95.1, 78, "h20"),
    ("NVIDIA A100 80GB PCIe", 79.1, 108, "a100-pcie-80"), ("NVIDIA GH200 480GB", 95.0, 132, "gh200"),
    ("AMD Instinct MI350X", 287.0, 256, "mi350x"), ("NVIDIA GB200", 184.0, 148, "gb200"),
    ("NVIDIA H200", 139.8, 132, "h200"),
    ("AMD Instinct MI250X", 63.9, 110, "mi250x-gcd"), ("AMD Instinct MI300X", 191.9, 304, "mi300x"),
    ("PPU-ZW810E", 95.5, 72, "ppu-810e"), ("Ascend910B3", 61.3, 20, "ascend-910b3"),
    ("Ascend910_9392", 61.3, 24, "ascend-910c-die"), ("Ascend910B4-1", 61.3, 20, "ascend-910b4-1"),
])  # fmt: skip
def test_whole_words_memory_and_units_tell_a_device(hardware, memory, units, expected) -> None:  # type: ignore[no-untyped-def]
    backend = "npu" if "Ascend" in hardware else "rocm" if "AMD" in hardware else "cuda"
    assert recognise(Seen(backend, hardware, memory * GB, units)) == (expected, "")


@pytest.mark.parametrize(("backend", "hardware", "memory", "units", "why"), [
    ("cuda", "NVIDIA GH200 144G HBM3e", 139.0, 132, "no device of the catalogue"),
    ("cuda", "NVIDIA GH200 480GB", 139.0, 132, "driver tells 149 GB of memory"),
    ("cuda", "NVIDIA H100 PCIe", 79.1, 114, "no device of the catalogue"),
    ("cuda", "NVIDIA H100 NVL", 93.1, 132, "no device of the catalogue"),
    ("cuda", "NVIDIA A100-PCIE-40GB", 39.4, 108, "driver tells 42.3 GB of memory"),
    ("cuda", "NVIDIA RTX A1000", 7.6, 18, "no device of the catalogue"),
    ("cuda", "NVIDIA H200 NVL", 139.8, 132, "no device of the catalogue"),
    ("rocm", "AMD Instinct MI300A", 127.0, 228, "no device of the catalogue"),
    ("cuda", "NVIDIA H800", 39.0, 60, "driver tells 41.9 GB of memory.*60 compute units"),
    ("npu", "Ascend910B", 61.3, 24, "may be ascend-910b1, ascend-910b2, ascend-910b2c"),
])  # fmt: skip
def test_devices_that_the_catalogue_has_not_are_not_mistaken(
    backend, hardware, memory, units, why
) -> None:  # type: ignore[no-untyped-def]
    import re

    name, said = recognise(Seen(backend, hardware, memory * GB, units))
    assert name == ""
    assert re.search(why, said)


def test_a_cpu_is_no_h800_unless_it_is_told_to_pretend() -> None:
    with pytest.raises(InputError, match=r"is not h800: the vendor is nvidia.*--pretend"):
        attach("cpu", catalog_name="h800")
    assert "vendor is nvidia" in attach("cpu", catalog_name="h800", pretend=True).pretended
    assert attach("cpu").pretended == ""


@pytest.mark.parametrize(
    ("name", "why"),
    [("h100", "of memory"), ("mi300x", "vendor is amd"), ("h20", "calls it 'NVIDIA H200'")],
)
def test_what_as_says_is_checked_against_the_driver(monkeypatch, name, why) -> None:  # type: ignore[no-untyped-def]
    timeline = Timeline(lambda n, args: 1e-6)
    fake = pretended_torch(
        timeline.module("NVIDIA H200", total_memory=139.8 * GB, multi_processor_count=132)
    )
    monkeypatch.setattr(attached_module, "import_torch", lambda: fake)
    with pytest.raises(InputError, match=why):
        attach("cuda", catalog_name=name)
    assert attach("cuda", catalog_name=name, pretend=True).catalog_name == name
    assert attach("cuda", catalog_name="h200").pretended == ""


@pytest.mark.parametrize(("share", "refused"), [(0.001, True), (0.6, False), (3.0, True)])
def test_a_product_rate_far_from_the_peak_is_an_error(share: float, refused: bool) -> None:
    device, kernel = load_device("h800"), matmul("up", 4096, 4096, 4096, "bf16")
    point = Point(kernel, kernel.flop / (share * device.matrix_peak["bf16"]), 1.0, 0.0, 7)
    attached = Attached("cuda", None, SimpleNamespace(), "h800", "NVIDIA H800", "", "")
    calibration = made_calibration(
        origin=replace(ORIGIN, device="h800", backend="cuda"), points=(point,)
    )
    for check in (lambda: refuse_impostor(attached, device, [point]),
                  lambda: refuse_contradiction(calibration, device)):  # fmt: skip
        if refused:
            with pytest.raises(InputError, match="of the peak"):
                check()
        else:
            check()
    attached.pretended = "meant"
    refuse_impostor(attached, device, [point])


def test_a_calibration_of_another_vendors_hardware_is_no_answer(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from ersatz.device_models.calibration.file import read_calibration, write_calibration
    from ersatz.sim.cli.output import captured

    path = tmp_path / "c.yaml"
    impostor = made_calibration(origin=replace(ORIGIN, device="h800"))
    write_calibration(impostor, path)
    with pytest.raises(InputError, match="was measured on Round hardware, which is not h800"):
        captured(["run", "deepseek-v3-h800", "--calibration", str(path)])
    meant = replace(impostor, origin=replace(impostor.origin, pretended="it is a CPU"))
    write_calibration(meant, path)
    assert read_calibration(path).origin.pretended == "it is a CPU"
    said = captured(["run", "deepseek-v3-h800", "--calibration", str(path)])
    assert "REHEARSAL" in said
