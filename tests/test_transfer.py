"""From a measured device to a relative: scaling by hand, measured devices left out, strangers refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from calibrations import copy, made_calibration, product, round_device
from test_cli import ersatz

from ersatz.device_models.calibration.file import write_calibration
from ersatz.device_models.calibration.measured import calibrated_timer
from ersatz.device_models.calibration.table_timer import table_timer
from ersatz.device_models.calibration.transfer import (
    family,
    relation,
    transfer_calibration,
    transfer_widths,
)
from ersatz.device_models.catalog.reading import load_device
from ersatz.device_models.text.problems import InputError
from ersatz.sim.cli.output import captured
from ersatz.sim.hil.proof.transfer_check import check_transfers, worst_by_relation


def test_families_are_architectures_without_cuts() -> None:
    names = {
        "h800": "Hopper GH100",
        "h20": "Hopper GH100",
        "h200": "Hopper GH100",
        "mi308x": "CDNA3",
    }
    assert {name: family(load_device(name)) for name in names} == names


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        ("h200", "h800", "same chip"),
        ("h200", "h20", "same architecture"),
        ("mi300x", "mi308x", "same architecture"),
        ("ascend-910b3", "ascend-910c", "same architecture"),
        ("a100-80", "h100", "same vendor"),
    ],
)
def test_relations(source: str, target: str, kind: str) -> None:
    assert relation(load_device(source), load_device(target)) == kind


def test_strangers_are_refused() -> None:
    with pytest.raises(InputError, match="is no relative"):
        relation(load_device("h200"), load_device("mi300x"))


def faster(**changes: object):  # type: ignore[no-untyped-def]
    """A relative of the round device with twice the fp32 peak and four times the bandwidth."""
    device = round_device()
    values = dict(
        name="relative",
        matrix_peak={"fp32": 100e12},
        memory_bandwidth=4e12,
    )
    return replace(device, **(values | changes))


def test_times_are_scaled_part_by_part() -> None:
    # the law of tests/calibrations.py: 5 us a call stay, 0.1 ns an element become a quarter
    carried = transfer_calibration(made_calibration(), round_device(), faster())
    timer, kernel = calibrated_timer(carried), copy(3000, 2000)
    assert timer(faster(), kernel) == pytest.approx(5e-6 + 6e6 * 1e-10 / 4, rel=0.02)
    # 20 us a call, 10 TFLOP/s become 20 and 1 ns per element of the result 0.25
    kernel = product(2000, 2000, 2000)
    expected = 20e-6 + kernel.flop / 20e12 + 4e6 * 1e-9 / 4
    assert timer(faster(), kernel) == pytest.approx(expected, rel=0.05)
    assert table_timer(carried)(faster(), kernel) == pytest.approx(expected, rel=0.1)


def test_the_interval_widens_by_the_relation() -> None:
    calibration = made_calibration(proof={"half_width": 0.05})
    for kind, changes in {
        "same chip": {"matrix_peak": {"fp32": 50e12}},
        "same architecture": {},
        "same vendor": {"architecture": "another"},
    }.items():
        carried = transfer_calibration(calibration, round_device(), faster(**changes))
        assert carried.step_error == pytest.approx(1.05 * (1 + transfer_widths()[kind]) - 1)


def test_what_the_target_cannot_multiply_is_left_out_and_said() -> None:
    target = faster(matrix_peak={"bf16": 100e12})
    carried = transfer_calibration(made_calibration(), round_device(), target)
    assert not carried.fits
    assert any("does not multiply it" in line for line in carried.missing)


def test_widths_cover_every_measured_device_that_is_left_out() -> None:
    pairs = list(check_transfers())
    assert len(pairs) >= 40
    assert {(c.source, c.target) for c in pairs} >= {("h200", "h100"), ("mi300x", "mi325x")}
    widths = transfer_widths()
    for kind, (worst, count) in worst_by_relation().items():
        assert count >= 4
        assert worst <= widths[kind]
    assert widths["same chip"] <= widths["same architecture"] <= widths["same vendor"]


def test_the_command_transfers(tmp_path: Path) -> None:
    source, out = tmp_path / "h200.yaml", tmp_path / "h20.yaml"
    origin = replace(made_calibration().origin, device="h200", backend="cuda")
    write_calibration(made_calibration(origin=origin), source)
    text = captured(["calibrate", "--from", str(source), "--as", "h20", "--out", str(out)])
    assert "same architecture" in text.splitlines()[0]
    assert out.exists()
    again = ersatz("calibrate", "--from", str(source), "--as", "h20", "--out", str(out))
    assert again.returncode == 0, again.stderr  # its own head was once taken for what --from reads
    assert (
        ersatz("calibrate", "--from", str(out), "--as", "h800", "--out", str(out)).returncode == 2
    )
    assert "name the device" in captured(["calibrate", "--from", str(source)])
    with pytest.raises(InputError, match="no relative"):
        captured(["calibrate", "--from", str(source), "--as", "mi300x", "--out", str(out)])
