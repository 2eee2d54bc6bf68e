"""Today's device beside the calibration's: sentinels, a soak, and exactly the kernels of one step."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra [hil])")

from calibrations import made_calibration  # noqa: E402
from factories import make_device  # noqa: E402
from pretended import HostClock  # noqa: E402

from ersatz.device_models.calibration.file import read_calibration, write_calibration  # noqa: E402
from ersatz.device_models.calibration.measured import calibrated_timer, kernel_key  # noqa: E402
from ersatz.device_models.calibration.table_timer import table_timer  # noqa: E402
from ersatz.device_models.catalog.reading import load_device  # noqa: E402
from ersatz.device_models.kernels.kernel import matmul, memory_kernel  # noqa: E402
from ersatz.device_models.kernels.operations import operation_of  # noqa: E402
from ersatz.sim.cli.output import captured  # noqa: E402
from ersatz.sim.errors import InputError  # noqa: E402
from ersatz.sim.hil import benchmark  # noqa: E402
from ersatz.sim.hil.benchmark import origin_of, run_benchmark  # noqa: E402
from ersatz.sim.hil.device import attached as attached_module  # noqa: E402
from ersatz.sim.hil.device.attached import attach  # noqa: E402
from ersatz.sim.hil.device.soak import npu_readings, run_soak  # noqa: E402
from ersatz.sim.hil.fit import fit_calibration  # noqa: E402
from ersatz.sim.hil.ownops import calibrate_own, own_step  # noqa: E402
from ersatz.sim.hil.proof.proof import prove  # noqa: E402
from ersatz.sim.hil.proof.subjects import Subject  # noqa: E402
from ersatz.sim.hil.sentinels import (  # noqa: E402
    chosen_points,
    pace_of,
    time_then,
    watch_of,
    watched_pace,
)
from ersatz.sim.hil.shapes import SMALL  # noqa: E402
from ersatz.sim.hil.timers import choose  # noqa: E402
from ersatz.sim.scenario.file import load_cases  # noqa: E402
from ersatz.sim.workload.model import Model  # noqa: E402

NANO = """
question: How long does a step of a small GPT take?
model: {name: nano, layers: 2, hidden: 256, heads: 4, kv_heads: 4, head_dim: 64, ffn_hidden: 1024,
  vocab: 2048, gated: false}
cluster: {node: cpu-1, nodes: 1}
stack: torch-eager
training: {sequence_length: 64, global_batch: 2, micro_batch: 2, precision: fp32}
"""


@pytest.fixture(scope="module")
def cpu():  # type: ignore[no-untyped-def]
    threads = torch.get_num_threads()
    attached = attach("cpu")
    attached.flush = torch.zeros(1024)  # on this clock nothing depends on a cache
    yield attached
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clock():  # type: ignore[no-untyped-def]
    """All of this module runs on a host whose time is its work: no test needs a quiet machine."""
    with pytest.MonkeyPatch.context() as patch, HostClock() as made:
        patch.setattr(attached_module, "time", made.module())
        yield made


@pytest.fixture(autouse=True)
def as_it_was(clock):  # type: ignore[no-untyped-def]
    yield
    clock.slowness.update(compute=1.0, others=1.0)


@pytest.fixture(scope="module")
def nano(tmp_path_factory):  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("own") / "nano.yaml"
    path.write_text(NANO)
    return path


@pytest.fixture(scope="module")
def own(cpu, nano, clock):  # type: ignore[no-untyped-def]
    step = own_step(load_cases(nano)[0], "cpu")
    return step, calibrate_own(cpu, load_device("cpu"), step)


def test_exactly_the_distinct_kernels_of_the_step_are_timed(own) -> None:  # type: ignore[no-untyped-def]
    step, calibration = own
    keys = [kernel_key(p.kernel) for p in calibration.points]
    assert sorted(keys) == sorted({kernel_key(k) for k in step.kernels})
    assert 20 <= len(keys) <= 250
    assert not calibration.missing
    assert calibration.origin.scope == f"{len(keys)} kernels of nano"


def test_own_kernels_are_looked_up_and_not_fitted(own, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, calibration = own
    write_calibration(calibration, tmp_path / "own.yaml")
    again = read_calibration(tmp_path / "own.yaml")
    device = load_device("cpu")
    for make in (calibrated_timer, table_timer):
        timer = make(again)
        for point in again.points:
            assert timer(device, point.kernel) == point.seconds


def test_a_step_of_other_devices_is_refused(nano: Path) -> None:
    with pytest.raises(InputError, match="runs on cpu; attached is h800"):
        own_step(load_cases(nano)[0], "h800")


def test_sentinels_bring_a_calibration_to_a_slower_day(cpu, own, clock) -> None:  # type: ignore[no-untyped-def]
    _, calibration = own
    same = watched_pace(cpu, calibration)
    assert same.ratios == {"compute": 1.0, "others": 1.0}
    assert "neither is applied" in same.summary()
    clock.slowness.update(compute=1.5, others=1.25)
    pace = watched_pace(cpu, calibration)
    assert pace.ratios["compute"] == pytest.approx(1.5, rel=0.01)
    assert pace.ratios["others"] == pytest.approx(1.25, rel=0.01)
    assert "both are applied" in pace.summary()


def test_own_ops_predict_their_step(cpu, own) -> None:  # type: ignore[no-untyped-def]
    step, calibration = own
    (judged,) = prove(cpu, calibration, 0.0, [step.subject()])
    assert abs(judged.error) < 0.05
    assert judged.known_kernels == judged.kernels


def test_a_bias_of_one_sign_in_the_proof_is_taken_out(cpu, own, clock) -> None:  # type: ignore[no-untyped-def]
    # a calibration of a quick morning, a proof on a slow evening
    step, calibration = own
    (before,) = prove(cpu, calibration, 0.0, [step.subject()])
    clock.slowness.update(compute=1.5, others=1.5)
    (judged,) = prove(cpu, calibration, 0.0, [step.subject()])
    assert (1 + before.error) / (1 + judged.unpaced_s / judged.measured_s - 1) == pytest.approx(1.5)
    assert judged.error == pytest.approx(before.error, abs=0.01)


@pytest.fixture(scope="module")
def drawn(cpu, clock):  # type: ignore[no-untyped-def]
    """A calibration of drawn kernels, as `ersatz calibrate` takes it."""
    small = replace(SMALL, hidden=(64, 192), tokens=(32, 128), sequence=(16, 64), vocab=(256, 512))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "ranges_of", lambda backend: small)
        journal = run_benchmark(cpu, ["fp32"], 0.05)
    made, _ = fit_calibration(origin_of(cpu, journal), load_device("cpu"), journal.points)
    return replace(made, sentinels=journal.sentinels())


def test_sentinels_run_beside_the_calibration_too(cpu, drawn, clock, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    keys = {kernel_key(p.kernel) for p in drawn.points}
    assert set(drawn.sentinels) <= keys
    assert len({k.rsplit(" fp32", 1)[0] for k in drawn.sentinels}) > 20  # operations
    write_calibration(drawn, tmp_path / "c.yaml")
    again = read_calibration(tmp_path / "c.yaml")
    assert again.sentinels == pytest.approx(drawn.sentinels, rel=1e-5)
    clock.slowness.update(compute=1.2, others=0.9)
    watch = watch_of(cpu, again)
    assert {s.key for s in watch.sentinels} == set(drawn.sentinels)
    # two times of one procedure: however the laws were fitted, the ratio is that of the days
    pace = watched_pace(cpu, again)
    assert pace.found["compute"] == pytest.approx(1.2, rel=0.01)
    assert pace.found["others"] == pytest.approx(0.9, rel=0.01)


def test_a_calibration_without_sentinels_is_held_against_its_fits(cpu, drawn) -> None:  # type: ignore[no-untyped-def]
    old = replace(drawn, sentinels={})
    point = next(p for p in old.points if (operation_of(p.kernel), "fp32") in old.fits)
    fit = old.fits[operation_of(point.kernel), "fp32"]
    assert time_then(old, point) == pytest.approx(fit.seconds(point.kernel, old.machine))
    assert watched_pace(cpu, old).sentinels > 20


def test_quiet_moments_are_no_reason_to_be_a_sentinel() -> None:
    points = made_calibration().points
    calm = [replace(p, spread=0.0 if i % 3 else 1.0) for i, p in enumerate(points)]
    assert [p.kernel for p in chosen_points(calm)] == [p.kernel for p in chosen_points(points)]


def test_sentinels_leave_the_memory_to_the_models() -> None:
    big = [replace(p, kernel=replace(p.kernel, m=1e6, k=1e6)) for p in made_calibration().points]
    assert all(p.kernel.kind != "matmul" for p in chosen_points(big))


def test_a_ratio_within_its_error_changes_nothing() -> None:
    # five sentinels at +1 % that scatter by 5 %: the median's error is 1.86 x 5 % / sqrt(5) = 4 %
    values = [(math.log(x), 1.0) for x in (0.93, 0.96, 1.01, 1.06, 1.10)]
    pace = pace_of({"compute": values})
    assert pace.found["compute"] == pytest.approx(1.01)
    assert pace.ratios["compute"] == 1.0


def test_few_sentinels_change_nothing() -> None:
    pace = pace_of({"compute": [(math.log(2.0), 1.0)] * 2, "others": [(math.log(1.1), 1.0)] * 5})
    assert pace.ratios == {"compute": 1.0, "others": pytest.approx(1.1)}
    assert "others is applied" in pace.summary()


def test_sentinels_are_of_every_operation(own) -> None:  # type: ignore[no-untyped-def]
    _, calibration = own
    chosen = chosen_points(calibration.points)
    operations = {operation_of(p.kernel) for p in calibration.points}
    assert {operation_of(p.kernel) for p in chosen} == operations
    assert len(chosen) <= 2 * len(operations)


def test_a_table_run_beside_the_device_applies_its_sentinels(
    own, nano: Path, tmp_path: Path, clock
) -> None:  # type: ignore[no-untyped-def]
    _, calibration = own
    write_calibration(calibration, tmp_path / "fast-day.yaml")
    arguments = ["run", str(nano), "--timer", "table", "--calibration",
                 str(tmp_path / "fast-day.yaml"), "--json", "-"]  # fmt: skip
    clock.slowness.update(compute=2.0, others=2.0)
    alone, beside = (json.loads(captured([*arguments, *a])) for a in ([], ["--attach", "cpu"]))
    ratio = beside["step"]["duration_s"] / alone["step"]["duration_s"]
    assert ratio == pytest.approx(2.0, rel=0.02)
    assert any("sentinel kernels took" in line for line in beside["sources"])


def test_sentinels_on_another_machine_are_refused(tmp_path: Path) -> None:
    write_calibration(made_calibration(), tmp_path / "c.yaml")
    with pytest.raises(InputError, match="sentinels say nothing here"):
        choose("table", str(tmp_path / "c.yaml"), ["cpu"])


# Burst and sustained


class Throttling:
    """A device that slows to 70 % after 30 batches."""

    backend, asynchronous = "cpu", False
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls = 0

    def tensor_dtype(self, name: str) -> object:
        return torch.float32

    def time_once(self, run: object) -> tuple[float, float]:
        self.calls += 1
        return (0.05 if self.calls <= 30 else 0.05 / 0.7), 0.0


def test_a_soak_tells_the_sustained_share() -> None:
    readings = iter([{"clock_mhz": 1980.0}, {"clock_mhz": 1400.0}])
    device = Throttling()
    soak = run_soak(device, "fp32", 0.0, lambda: next(readings))  # type: ignore[arg-type]
    assert soak.ratio == 1.0  # too short to throttle
    device = Throttling()
    readings = iter([{"clock_mhz": 1980.0}, {"clock_mhz": 1400.0}])
    soak = run_soak(device, "fp32", 0.05, lambda: next(readings))  # type: ignore[arg-type]
    assert device.calls > 60
    assert soak.ratio == pytest.approx(0.7)
    assert soak.figures()["clock_mhz_first"] == 1980.0
    assert soak.figures()["clock_mhz_last"] == 1400.0


def test_the_sustained_share_slows_products_and_nothing_else(tmp_path: Path) -> None:
    plain = made_calibration()
    soaked = replace(plain, soak={"sustained": 0.8, "seconds": 20.0})
    write_calibration(soaked, tmp_path / "c.yaml")
    again = read_calibration(tmp_path / "c.yaml")
    assert dict(again.soak) == dict(soaked.soak)
    device = make_device()
    product = matmul("up", 100, 200, 300, "fp32", output_bytes=4.0)
    move = memory_kernel("copy", 8e4, dtype="fp32", m=100, n=100)
    for make in (calibrated_timer, table_timer):
        assert make(again)(device, product) == pytest.approx(
            make(plain)(device, product) / 0.8, rel=1e-4
        )
        assert make(again)(device, move) == pytest.approx(make(plain)(device, move), rel=1e-4)


def test_a_share_that_cannot_be_is_refused(tmp_path: Path) -> None:
    write_calibration(replace(made_calibration(), soak={"sustained": 1.7}), tmp_path / "c.yaml")
    with pytest.raises(InputError, match="share above 0 and at most 1"):
        read_calibration(tmp_path / "c.yaml")


def test_npu_smi_is_read() -> None:
    text = (
        "NPU ID : 0\nAicore Freq(MHZ)   : 1800\nTemperature(C) : 44\nPower Dissipation(W) : 92.7\n"
    )
    found = npu_readings(text)
    assert found == {"clock_mhz": 1800.0, "temperature_c": 44.0, "power_w": 92.7}
    assert npu_readings("no such device") == {}


# The command


def test_the_command_times_own_ops_and_proves_on_them(nano: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.yaml"
    text = captured(["calibrate", "--device", "cpu", "--trace", str(nano), "--prove", "--minutes",
                     "0.05", "--out", str(out), "--json", str(tmp_path / "o.json")])  # fmt: skip
    assert "Proof: 1 models trained" in text
    assert "Sentinels:" in text
    (model,) = json.loads((tmp_path / "o.json").read_text())["models"]
    assert model["kernels"] == model["known_kernels"]
    assert abs(model["error"]) < 0.05
    calibration = read_calibration(out)
    assert calibration.origin.scope
    watch = watch_of(attach("cpu"), calibration)
    assert watch.sentinels


def test_a_subject_of_a_layout_on_many_devices_is_none(nano: Path) -> None:
    case = load_cases(nano)[0]
    step = own_step(case, "cpu")
    assert step.subject() == Subject(case.model, 2, 64, "fp32")
    assert isinstance(case.model, Model)
    wide = replace(step, scenario=replace(case, parallel=replace(case.parallel, dp=2)))
    assert wide.subject() is None
