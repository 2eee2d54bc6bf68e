"""Every shipped scenario is a test: its stored report must come out again, byte for byte."""

from pathlib import Path

import pytest

from ersatz.sim.cli.generated import (
    outputs_markdown,
    purchase_markdown,
    scenario_drawings,
    scenario_files,
    scenario_markdown,
    scenario_output,
)
from ersatz.sim.run import run_case
from ersatz.sim.scenario.file import load_cases

ROOT = Path(__file__).resolve().parents[1]
SCENARIOS = scenario_files()
AGAIN = "differs; if that is meant: python -m ersatz.sim.cli.generated, and read the difference"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_stored_output(path: Path) -> None:
    assert scenario_output(path) == path.with_suffix(".out").read_text(), f"{path.stem} {AGAIN}"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_stored_drawings(path: Path) -> None:
    stored = {file: file.read_text() for file in path.parent.glob(f"{path.stem}-*.svg")}
    assert scenario_drawings(path) == stored, f"{path.stem} {AGAIN}"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_opens_with_its_question_and_fits(path: Path) -> None:
    text = path.read_text()
    comment = text.split("question:")[0]
    assert comment.startswith("# ")
    assert "?" in comment
    assert "DOES NOT FIT" not in path.with_suffix(".out").read_text()
    assert all(len(line) <= 100 for line in path.with_suffix(".out").read_text().splitlines())


def test_the_eight_are_there() -> None:
    assert len(SCENARIOS) >= 8


def test_generated_pages() -> None:
    assert (ROOT / "docs/scenario.md").read_text() == scenario_markdown(), AGAIN
    assert (ROOT / "docs/outputs.md").read_text() == outputs_markdown(), AGAIN
    assert (ROOT / "docs/purchase-file.md").read_text() == purchase_markdown(), AGAIN


def result(name: str, case: int = 0):  # type: ignore[no-untyped-def]
    return run_case(load_cases(ROOT / "scenarios" / f"{name}.yaml")[case])


def test_deepseek_v3_step_within_15_percent() -> None:
    assert result("deepseek-v3-h800").step.duration_s == pytest.approx(19.926, rel=0.15)


def test_llama3_405b_goodput_and_wall_time() -> None:
    job = result("llama3-405b-h100").job
    assert job.goodput > 0.90
    assert job.wall_s == pytest.approx(54 * 86400, rel=0.10)


def test_a_device_without_a_measured_run_has_a_wider_interval_and_the_report_says_why() -> None:
    """The reason stands in the text, before the assumptions that a long list leaves out."""
    widths = [
        step.high80_s / step.duration_s
        for step in (result("ling-lite-ppu").step, result("ling-plus-substitution").step)
    ]
    assert widths[0] > widths[1] + 0.05
    report = " ".join((ROOT / "scenarios/ling-lite-ppu.out").read_text().split())
    assert "no measured training run of T-Head Zhenwu 810E PPU was published" in report
    assert f"a factor of {widths[0]:.2f} either way" in report


def test_both_sides_of_the_substitution_are_predicted_within_their_intervals() -> None:
    for case, published in ((0, 6.35e6), (1, 5.08e6)):
        found = result("ling-plus-substitution", case)
        cost, step = found.cost.per_trillion_tokens, found.step
        assert (
            cost * step.low80_s / step.duration_s
            < published
            < cost * step.high80_s / step.duration_s
        )
