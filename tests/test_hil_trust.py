"""What a step rests on, and the interval that follows."""

from dataclasses import replace
from pathlib import Path

import pytest
from calibrations import ORIGIN, made_calibration

from ersatz.device_models.calibration.file import find_calibration, read_calibration
from ersatz.device_models.calibration.measured import calibrated_timer
from ersatz.device_models.catalog.device import Fact
from ersatz.sim.hil.timers import Chosen
from ersatz.sim.hil.trust import blended_width, calibration_state, link_state, shares_of
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.scenario import Pool, Scenario

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def shipped():  # type: ignore[no-untyped-def]
    return read_calibration(find_calibration("cpu-epyc"))


def small() -> Scenario:
    return load_cases(ROOT / "scenarios" / "hil" / "small-llama-cpu.yaml")[0]


def test_states_of_a_calibration(shipped) -> None:  # type: ignore[no-untyped-def]
    own = made_calibration()
    assert calibration_state(shipped) == "measured elsewhere"
    assert calibration_state(own) == "measured here"
    assert calibration_state(replace(own, origin=replace(ORIGIN, source="h200"))) == "transferred"
    assert calibration_state(replace(own, origin=replace(ORIGIN, pretended="x"))) == "modelled"


def test_a_step_of_one_measured_device_rests_on_its_kernels(shipped) -> None:  # type: ignore[no-untyped-def]
    shares = shares_of(small(), calibrated_timer(shipped), shipped)
    assert shares == {"kernels, measured elsewhere": pytest.approx(1.0)}
    assert Chosen("calibrated", shipped).width(small(), shares) == pytest.approx(shipped.step_error)


def test_what_the_software_fuses_is_modelled_and_widens_the_interval(shipped) -> None:  # type: ignore[no-untyped-def]
    case = small()
    pool = case.pools[0]
    other = replace(case, pools=(replace(pool, stack=replace(pool.stack, name="fused")),))
    shares = shares_of(other, calibrated_timer(shipped, "fused"), shipped)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert 0 < shares["kernels, modelled"] < 1
    assert blended_width(shares, 0.1, 0.5) == pytest.approx(0.1 + 0.4 * shares["kernels, modelled"])


def test_an_operation_that_was_not_measured_is_modelled(shipped) -> None:  # type: ignore[no-untyped-def]
    fits = {k: f for k, f in shipped.fits.items() if not k[0].startswith("attention")}
    points = tuple(p for p in shipped.points if p.kernel.kind != "attention")
    less = replace(shipped, fits=fits, points=points)
    shares = shares_of(small(), calibrated_timer(less), less)
    assert 0 < shares["kernels, modelled"] < 0.5


def test_links_are_known_by_their_source() -> None:
    pool = small().pools[0]
    out = pool.node.scale_out

    def known(source: str, confidence: str) -> str:
        fact = Fact("efficiency", 0.9, "0.9", source, "2026-11", confidence)  # type: ignore[arg-type]
        node = replace(pool.node, scale_out=replace(out, facts={"efficiency": fact}))
        return link_state(Pool("", node, 2, pool.stack))

    assert known("MEASURED", "medium") == "measured here"
    assert known("S1", "medium") == "measured elsewhere"
    assert known("ASSUMED", "assumed") == "modelled"
