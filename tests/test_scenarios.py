"""Every shipped scenario is a test: its stored report must come out again, byte for byte."""

import re
from pathlib import Path

import pytest

from ersatz.sim.cli.generated import (
    pages,
    scenario_drawings,
    scenario_files,
    scenario_output,
)
from ersatz.sim.cli.pages.gallery import picture_file, picture_name, quoted_answer
from ersatz.sim.run import run_case
from ersatz.sim.scenario.file import load_cases

ROOT = Path(__file__).resolve().parents[1]
SCENARIOS = scenario_files()
AGAIN = "differs; if that is meant: python -m ersatz.sim.cli.generated, and read the difference"


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.heavy] * (path.stem == "oversubscribed-tree"))
     for path in SCENARIOS],
    ids=lambda path: path.stem,
)  # fmt: skip
def test_stored_output(path: Path) -> None:
    report, picture = scenario_output(path)
    assert report == path.with_suffix(".out").read_text(), f"{path.stem} {AGAIN}"
    stored = picture_file(path, ROOT)
    assert picture == (stored.read_text() if stored.exists() else ""), f"{path.stem} {AGAIN}"


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


@pytest.mark.parametrize(("name", "text"), pages().items(), ids=pages())
def test_generated_pages(name: str, text: str) -> None:
    assert (ROOT / "docs" / name).read_text() == text, AGAIN


def test_the_gallery_shows_every_scenario() -> None:
    page = pages()["gallery.md"]
    assert re.findall(r"^### (.+)$", page, re.M) == sorted(
        (p.stem for p in SCENARIOS), key=re.findall(r"^### (.+)$", page, re.M).index
    )
    shown = {path.name for path in (ROOT / "docs/gallery").iterdir()}
    assert shown == {f"{p.stem}.svg" for p in SCENARIOS if picture_name(p)}


def test_an_answer_is_quoted_from_where_it_stands() -> None:
    """A sentence is taken whole; of a long table the rows of time and money under its header."""
    assert quoted_answer("Why?\nBecause.\n\nmore\n") == ["Because."]
    rows = ["cluster 8", "step 1 s", "  80 % interval 1 s", "MFU", "memory", "goodput", "cost 2"]
    table = ["            a    b", *rows]
    picked = ["            a    b", "step 1 s", "  80 % interval 1 s", "cost 2"]
    assert quoted_answer("\n".join(["Why?", "", *table, "", "rest"])) == picked
    assert quoted_answer("\n".join(["Why?", "", *rows, "", "rest"])) == picked[1:]


@pytest.mark.parametrize("page", ["scenario.md", "purchase-file.md", "model-file.md"])
def test_keys_are_explained_in_words_that_people_use(page: str) -> None:
    kinds = re.findall(r"^\| `\w+` \| (.*?) \|", pages()[page], re.M)
    assert len(kinds) > 25
    for kind in kinds:
        words = set(re.findall(r"[A-Za-z]+", re.sub(r"`[^`]*`", "", kind)))
        assert not words & {"float", "int", "str", "bool", "tuple", "dict", "Literal", "None"}, kind


def result(name: str, case: int = 0):  # type: ignore[no-untyped-def]
    return run_case(load_cases(ROOT / "scenarios" / f"{name}.yaml")[case])


def test_deepseek_v3_step_within_15_percent() -> None:
    assert result("deepseek-v3-h800").step.duration_s == pytest.approx(19.926, rel=0.15)


def test_llama3_405b_goodput_and_wall_time() -> None:
    job = result("llama3-405b-h100").job
    assert job.goodput > 0.90
    assert job.wall_s == pytest.approx(54 * 86400, rel=0.10)


def test_a_device_without_a_measured_run_has_a_wider_interval_and_the_report_says_why() -> None:
    """The reasons stand in the text, before the assumptions that a long list leaves out."""
    widths = [
        step.high80_s / step.duration_s
        for step in (result("ling-lite-ppu").step, result("ling-plus-substitution").step)
    ]
    assert widths[0] > widths[1] + 0.05
    report = " ".join((ROOT / "scenarios/ling-lite-ppu.out").read_text().split())
    assert "no cluster is like another" in report
    assert "no measured training run of T-Head Zhenwu 810E PPU was published" in report
    assert f"step +-{100 * (widths[0] - 1):.0f} %" in report


def test_both_sides_of_the_substitution_are_predicted_within_their_intervals() -> None:
    for case, published in ((0, 6.35e6), (1, 5.08e6)):
        found = result("ling-plus-substitution", case)
        cost, step = found.cost.per_trillion_tokens, found.step
        assert (
            cost * step.low80_s / step.duration_s
            < published
            < cost * step.high80_s / step.duration_s
        )
