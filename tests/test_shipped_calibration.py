"""The calibration that travels along: read, refitted, and held to what the pages say of it."""

import re
from pathlib import Path

import numpy as np
import pytest

from ersatz.device_models.calibration.file import find_calibration, read_calibration
from ersatz.device_models.calibration.measured import calibrated_device, calibrated_timer
from ersatz.device_models.calibration.table_timer import table_timer
from ersatz.device_models.catalog.reading import load_device
from ersatz.device_models.kernels.kernel import calibrated_time
from ersatz.sim.hil.fit import fit_calibration, summary_errors
from ersatz.sim.hil.proof.proof import predict
from ersatz.sim.hil.proof.subjects import SMALL, SMALLEST

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def shipped():  # type: ignore[no-untyped-def]
    return read_calibration(find_calibration("cpu-epyc"))


def test_its_proof_stands_in_the_page(shipped) -> None:  # type: ignore[no-untyped-def]
    proof = shipped.proof
    assert proof["models"] == len(SMALL) - SMALLEST >= 12  # the launch-bound ones came later
    assert proof["mean_error"] <= 0.12
    assert proof["worst_error"] <= 0.25
    page = (ROOT / "docs" / "calibration.md").read_text()
    said = re.search(r"mean error (\S+) %, worst (\S+) %, noise of the steps (\S+) %", page)
    assert said
    expected = [f"{100 * proof[key]:.1f}" for key in ("mean_error", "worst_error", "noise")]
    assert list(said.groups()) == expected
    assert f"+-{100 * proof['half_width']:.1f} %" in page


def test_its_held_out_kernels_are_met_by_a_fit_of_today(shipped) -> None:  # type: ignore[no-untyped-def]
    again, held = fit_calibration(shipped.origin, load_device("cpu"), shipped.points)
    errors = summary_errors(held)
    assert errors["matrix products"]["median"] <= 0.10
    assert errors["all kernels"]["median"] <= 0.15
    page = (ROOT / "docs" / "calibration.md").read_text()
    for name in ("matrix products", "all kernels"):
        assert f"{name} {100 * errors[name]['median']:.1f} %" in page
    # the fit is the one that is stored: points and costs are kept to six digits
    device = load_device("cpu")
    for point in shipped.points[::10]:
        before, after = (calibrated_timer(c)(device, point.kernel) for c in (shipped, again))
        assert before == pytest.approx(after, rel=0.01)


def test_table_and_fit_agree_within_the_interval_on_every_model_of_the_proof(shipped) -> None:  # type: ignore[no-untyped-def]
    for subject in SMALL:
        fitted = predict(subject, shipped, calibrated_timer(shipped))
        table = predict(subject, shipped, table_timer(shipped))
        assert abs(np.log(table / fitted)) <= np.log1p(shipped.step_error), subject.name


def test_the_plain_kernel_model_is_near_with_the_fitted_parameters(shipped) -> None:  # type: ignore[no-untyped-def]
    device = calibrated_device(load_device("cpu"), shipped)
    products = [p for p in shipped.points if p.kernel.kind == "matmul"]
    before = [calibrated_time(load_device("cpu"), p.kernel) / p.seconds for p in products]
    after = [calibrated_time(device, p.kernel) / p.seconds for p in products]
    assert np.median(np.abs(np.log(after))) < 0.5 * np.median(np.abs(np.log(before)))
