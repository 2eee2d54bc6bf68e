"""Today's device beside the calibration's: sentinels, a soak, and exactly the kernels of one step."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra [hil])")

from calibrations import made_calibration  # noqa: E402
from factories import make_device  # noqa: E402

from ersatz.device_models.calibration.measured import (  # noqa: E402
    calibrated_timer,
    kernel_key,
    read_calibration,
    write_calibration,
)
from ersatz.device_models.calibration.table_timer import table_timer  # noqa: E402
from ersatz.device_models.catalog.reading import load_device  # noqa: E402
from ersatz.device_models.kernels.kernel import matmul, memory_kernel  # noqa: E402
from ersatz.sim.cli.output import captured  # noqa: E402
from ersatz.sim.errors import InputError  # noqa: E402
from ersatz.sim.hil.device.attached import attach  # noqa: E402
from ersatz.sim.hil.device.soak import npu_readings, run_soak  # noqa: E402
from ersatz.sim.hil.ownops import calibrate_own, own_step  # noqa: E402
from ersatz.sim.hil.proof.proof import prove  # noqa: E402
from ersatz.sim.hil.proof.subjects import LARGE, Subject  # noqa: E402
from ersatz.sim.hil.sentinels import chosen_points, pace_of, watch_of, watched_pace  # noqa: E402
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
    yield attach("cpu")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def nano(tmp_path_factory):  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("own") / "nano.yaml"
    path.write_text(NANO)
    return path


@pytest.fixture(scope="module")
def own(cpu, nano):  # type: ignore[no-untyped-def]
    step = own_step(load_cases(nano)[0], "cpu")
    return step, calibrate_own(cpu, load_device("cpu"), step)


def slowed(calibration, compute: float, others: float):  # type: ignore[no-untyped-def]
    """What would have been measured on a day on which the machine was faster by these factors."""
    points = tuple(
        replace(p, seconds=p.seconds / (compute if p.kernel.kind != "memory" else others))
        for p in calibration.points
    )
    return replace(calibration, points=points)


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


def test_sentinels_bring_a_calibration_of_a_faster_day_to_today(cpu, own) -> None:  # type: ignore[no-untyped-def]
    # the same device, but the points say that it once was 1.5 and 1.25 times faster
    _, calibration = own
    base = watched_pace(cpu, calibration).ratios
    pace = watched_pace(cpu, slowed(calibration, 1.5, 1.25))
    assert pace.ratios["compute"] / base["compute"] == pytest.approx(1.5, rel=0.12)
    assert pace.ratios["others"] / base["others"] == pytest.approx(1.25, rel=0.12)
    assert "are applied" in pace.summary()


def test_a_bias_of_one_sign_in_the_proof_is_taken_out(cpu, own) -> None:  # type: ignore[no-untyped-def]
    step, calibration = own
    stale = slowed(calibration, 1.5, 1.5)
    (judged,) = prove(cpu, stale, 0.0, [step.subject()])
    raw = judged.unpaced_s / judged.measured_s - 1
    assert raw < -0.2
    assert abs(judged.error) < abs(raw) / 2
    assert judged.pace.ratios["compute"] == pytest.approx(1.5, rel=0.2)


def test_few_sentinels_change_nothing() -> None:
    pace = pace_of({"compute": [(math.log(2.0), 1.0)] * 2, "others": [(math.log(1.1), 1.0)] * 5})
    assert pace.ratios == {"compute": 1.0, "others": pytest.approx(1.1)}


def test_sentinels_are_of_every_operation(own) -> None:  # type: ignore[no-untyped-def]
    from ersatz.device_models.kernels.operations import operation_of

    _, calibration = own
    chosen = chosen_points(calibration.points)
    operations = {operation_of(p.kernel) for p in calibration.points}
    assert {operation_of(p.kernel) for p in chosen} == operations
    assert len(chosen) <= 2 * len(operations)


def test_a_table_run_beside_the_device_applies_its_sentinels(
    own, nano: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    _, calibration = own
    write_calibration(slowed(calibration, 2.0, 2.0), tmp_path / "fast-day.yaml")
    arguments = ["run", str(nano), "--timer", "table", "--calibration",
                 str(tmp_path / "fast-day.yaml"), "--json", "-"]  # fmt: skip
    alone, beside = (json.loads(captured([*arguments, *a])) for a in ([], ["--attach", "cpu"]))
    ratio = beside["step"]["duration_s"] / alone["step"]["duration_s"]
    assert ratio == pytest.approx(2.0, rel=0.3)
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


def test_the_proof_on_accelerators_holds_launch_bound_models() -> None:
    small = [s for s in LARGE if s.model.params() < 1e8]
    assert len(small) >= 2


# The command


def test_the_command_times_own_ops_and_proves_on_them(nano: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.yaml"
    text = captured(["calibrate", "--device", "cpu", "--trace", str(nano), "--prove", "--minutes",
                     "0.05", "--out", str(out), "--json", str(tmp_path / "o.json")])  # fmt: skip
    assert "Proof: 1 models trained" in text
    assert "Sentinels:" in text
    (model,) = json.loads((tmp_path / "o.json").read_text())["models"]
    assert model["kernels"] == model["known_kernels"]
    assert abs(model["error"]) < 0.5  # the machine may be busy
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
