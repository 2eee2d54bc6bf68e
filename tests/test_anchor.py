"""A stack moved to where measured steps are: what is found again, what is refused, what it is worth."""

import csv
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ersatz.device_models.catalog.reading import load_stack
from ersatz.sim.anchor.factors import (
    NAMES,
    moved,
    slopes,
    spreads,
    usual_spread,
    with_factors,
)
from ersatz.sim.anchor.posterior import Posterior, learned_spread, posterior, still_open
from ersatz.sim.anchor.width import anchored_half, anchored_width
from ersatz.sim.answers.anchor import anchor
from ersatz.sim.errors import InputError
from ersatz.sim.run import run_case
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.step.step import step_seconds
from ersatz.sim.uncertainty.draws import step_factors
from ersatz.sim.uncertainty.intervals import features, half_width

SCENARIO = """
question: What does a small cluster say of a large one?
model: llama3-8b
stack: torchtitan
cluster: {node: h100-8, nodes: %d}
training: {sequence_length: %d, global_batch: %d, micro_batch: %d, precision: bf16}
parallel: {tp: %d, zero: 3, recompute: %s}
published: [{metric: step.duration_s, value: %s, source: own}]
"""
TRUE = [0.4, 0.3, 0.2, -0.15, -0.08]  # logarithms: more traffic and host, slower links and products
SHAPES = ((1, 4096, 64, 1, 1, "none"), (2, 4096, 128, 2, 2, "none"), (1, 8192, 32, 1, 1, "full"))


def written(
    folder: Path, factors: list[float], wrong: dict[int, float] | None = None
) -> list[Path]:
    """Scenario files whose published step is that of a stack with `factors`."""
    paths = []
    for i, shape in enumerate(SHAPES):
        path = folder / f"run-{i}.yaml"
        path.write_text(SCENARIO % (*shape, "1 s"))
        (case,) = load_cases(path)
        seconds = step_seconds(with_factors(case, factors)) * (wrong or {}).get(i, 1.0)
        path.write_text(SCENARIO % (*shape, f"{seconds} s"))
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def anchored_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The stack file that three runs of the true stack give."""
    paths = written(tmp_path_factory.mktemp("anchored"), TRUE)
    return next(iter(anchor(paths).values())).text


def test_a_stack_without_factors_is_itself() -> None:
    stack = load_stack("torchtitan")
    assert moved(stack, [0.0] * len(NAMES)) == stack
    slower = moved(stack, [math.log(2), 0, 0, 0, math.log(0.5)])
    assert slower.elementwise_traffic == pytest.approx(2 * stack.elementwise_traffic)
    assert slower.matrix_factor == pytest.approx(0.5 * stack.matrix_factor)


def test_products_at_half_speed_take_twice_as_long(tmp_path: Path) -> None:
    """A fifth number by hand: the slope to `products` is minus the share of the matrix products."""
    (path, *_) = written(tmp_path, [0.0] * len(NAMES))
    (case,) = load_cases(path)
    step = run_case(case).step
    _, slope = slopes(case, [0.0] * len(NAMES))
    share = step.breakdown["matrix"] / step.duration_s
    assert -slope[NAMES.index("products")] == pytest.approx(share, rel=0.1)


def test_one_row_moves_the_factors_as_bayes_says() -> None:
    """One row, one factor that matters: prior 0.5, slope 1, spread 0.1; error -0.3 -> 0.3 x 0.25 / 0.26."""
    slope = np.array([[1.0, 0, 0, 0, 0]])
    found = posterior(lambda logs: (np.array([-0.03]) + slope @ logs, slope), 0.1)
    expected = 0.03 * 0.25 / (0.25 + 0.01)
    assert found.logs[0] == pytest.approx(expected, rel=0.05)
    assert found.covariance[0][0] == pytest.approx(1 / (1 / 0.25 + 1 / 0.01), rel=0.05)
    assert still_open(slope[0], found.covariance) < still_open(slope[0], np.diag(spreads() ** 2))


def test_steps_of_a_moved_stack_are_found_again(tmp_path: Path) -> None:
    """Three steps of a made-up cluster: errors shrink by more than half, on the rows and beyond.

    Not to nothing: a run has a spread of its own, so that three of them do not outweigh the prior.
    """
    answer = anchor(written(tmp_path, TRUE))
    (record,) = answer.values()
    assert min(abs(run.before) for run in record.runs) > 0.05
    assert all(abs(run.after) < 0.5 * abs(run.before) for run in record.runs)
    assert record.width_after < record.width_before
    (tmp_path / "mine.yaml").write_text(record.text)
    other = tmp_path / "other.yaml"
    other.write_text(SCENARIO % (4, 4096, 512, 2, 1, "none", "1 s"))
    (before,), (after,) = load_cases(other), load_cases(other, [f"stack={tmp_path}/mine.yaml"])
    truth = step_seconds(with_factors(before, TRUE))
    assert abs(step_seconds(after) / truth - 1) < 0.5 * abs(step_seconds(before) / truth - 1)


def test_exact_rows_are_met_exactly(tmp_path: Path) -> None:
    """With runs that hardly differ among each other the prior no longer holds the factors back."""
    cases = [load_cases(path)[0] for path in written(tmp_path, TRUE)]
    steps = [case.published[0].value for case in cases]

    def ask(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
        asked = [slopes(case, list(logs)) for case in cases]
        errors = [math.log(a[0] / t) for a, t in zip(asked, steps, strict=True)]
        return np.array(errors), np.array([a[1] for a in asked])

    assert np.abs(posterior(ask, 0.002).errors).max() < 0.005


def test_one_bad_row_does_not_decide(tmp_path: Path) -> None:
    paths = written(tmp_path, TRUE, {1: 3.0})
    (record,) = anchor(paths).values()
    assert record.runs[1].weight < 0.25
    assert all(abs(record.runs[i].after) < abs(record.runs[i].before) for i in (0, 2))


def test_an_anchored_stack_narrows_the_interval_and_another_device_widens_it(
    tmp_path: Path, anchored_text: str
) -> None:
    paths = written(tmp_path, [0.0] * len(NAMES))
    (tmp_path / "mine.yaml").write_text(anchored_text)
    stack = f"stack={tmp_path}/mine.yaml"

    def told(*overrides: str) -> tuple[float, str]:
        (case,) = load_cases(paths[0], overrides)
        result = run_case(case)
        return result.step.high80_s / result.step.duration_s - 1, result.assumptions[0]

    (plain, _), (mine, why), (far, other) = told(), told(stack), told(stack, "cluster.node=h800-8")
    assert mine < plain
    assert "anchored on 3 measured runs" in why
    assert mine < far
    assert "of h100, not of" in other


def test_what_no_device_can_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"would need \d+ % of the devices' peak"):
        anchor(written(tmp_path, TRUE, {0: 0.2}))


def test_runs_of_several_stacks_or_devices_are_refused(tmp_path: Path) -> None:
    paths = written(tmp_path, TRUE)
    paths[1].write_text(paths[1].read_text().replace("h100-8", "h200-8"))
    paths[2].write_text(paths[2].read_text().replace("torchtitan", "fsdp"))
    with pytest.raises(InputError) as told:
        anchor(paths)
    words = "\n".join(map(str, told.value.problems))
    assert "several stacks (fsdp, torchtitan)" in words
    assert "several devices (h100, h200)" in words
    with pytest.raises(InputError, match="several devices"):
        anchor(paths, stack="generic")


def test_an_anchor_on_an_unknown_stack_keeps_what_is_unknown_of_it(tmp_path: Path) -> None:
    """What is anchored is known as well as its own rows tell, whatever its base is called.

    Left-out lineages are covered alike beside two anchors, recognised or not; without the anchor the
    unknown stack is the wider one, and the file says so still.

    By hand: the usual spread, 0.15, weighs as six rows, so three that agree leave sqrt(6 / 9) of it, and
    the log width shrinks in that proportion, whatever the base. These rows are of a third stack, whose
    small errors the five factors leave in part: a percent of it.
    """
    paths = written(tmp_path, [0.0] * len(NAMES))
    widths, plain = {}, {}
    for base in ("generic", "fsdp"):
        (tmp_path / f"{base}-mine.yaml").write_text(
            next(iter(anchor(paths, stack=base).values())).text
        )
        (case,) = load_cases(paths[0], [f"stack={tmp_path}/{base}-mine.yaml"])
        told = anchored_width(case)
        assert told is not None
        widths[base], plain[base] = told[0], half_width(case)
        assert ("stack" in set(features(case, case.pools[0]))) == (base == "generic")
    assert plain["generic"] > 1.2 * plain["fsdp"] > widths["fsdp"]
    for base, width in widths.items():
        shrunk = math.log1p(width) / math.log1p(plain[base])
        assert shrunk == pytest.approx(math.sqrt(6 / 9), rel=0.01)


def test_a_row_s_error_without_its_own_pull_is_that_of_the_others_anchor() -> None:
    """Three rows of one factor, errors of hardly a spread: each predicted from the other two."""
    slope = np.array([[1.0, 0, 0, 0, 0]] * 3)
    errors = np.array([0.004, -0.002, 0.003])

    def found(rows: list[int]) -> Posterior:
        return posterior(lambda logs: (errors[rows] + slope[rows] @ logs, slope[rows]), 0.1)

    apart = [errors[i] + found([k for k in range(3) if k != i]).logs[0] for i in range(3)]
    assert found([0, 1, 2]).spread == pytest.approx(learned_spread(np.array(apart)), rel=1e-3)


def test_the_spread_of_an_anchor_is_the_usual_one_until_its_rows_tell_otherwise() -> None:
    """Usual 0.15, which weighs as six rows: six rows of 0.05 make the root of (0.0225 + 0.0025) / 2."""
    usual, belief = usual_spread()
    assert (usual, belief) == (0.15, 6.0)
    assert learned_spread(np.array([])) == pytest.approx(usual)
    assert learned_spread(np.full(6, 0.05)) == pytest.approx(math.sqrt(0.0125))
    assert learned_spread(np.array([0.4, -0.4])) > usual


def test_rows_that_agree_never_widen_an_interval_and_rows_that_contradict_do() -> None:
    """By hand, nothing open of the factors: 1.2816 spreads, at most the width before x spread / 0.15."""
    nothing, open_none = np.zeros(len(NAMES)), np.zeros((len(NAMES), len(NAMES)))
    width = partial(anchored_half, slope=nothing, covariance=open_none)
    assert width({"cluster": 0.3}, spread=0.1) == pytest.approx(0.12816, rel=1e-4)
    assert width({"cluster": 0.1}, spread=0.1) == pytest.approx(0.1 * 0.1 / 0.15)
    assert width({"cluster": 0.1}, spread=0.2) == pytest.approx(0.25631, rel=1e-4)
    kinds = width({"cluster": 0.3, "experts": 0.1}, spread=0.1)
    assert kinds == pytest.approx(math.hypot(0.12816, 0.1), rel=1e-4)
    far = width({"cluster": 0.3, "unmeasured": 0.4}, spread=0.1, elsewhere=True)
    assert far > 0.4 > width({"cluster": 0.3, "unmeasured": 0.4}, spread=0.1)


def test_two_anchored_cases_on_one_device_are_not_certain_of_their_difference(
    tmp_path: Path, anchored_text: str
) -> None:
    paths = written(tmp_path, [0.0] * len(NAMES))
    (tmp_path / "mine.yaml").write_text(anchored_text)
    (case,) = load_cases(paths[0], [f"stack={tmp_path}/mine.yaml"])
    told = anchored_width(case)
    assert told is not None
    ratio = step_factors(replace(case, name="other"), told[0]) / step_factors(case, told[0])
    assert np.std(np.log(ratio)) > 0.02


def test_rows_that_an_anchor_leaves_out_are_said(tmp_path: Path) -> None:
    shipped = Path(__file__).resolve().parents[1] / "device_models/data/measured/training_runs.csv"
    with shipped.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if "torchtitan" in row["framework"].lower()
                and row["device"].startswith("H100") and row["precision"] == "bf16"][:2]  # fmt: skip
    rows.append(rows[0] | {"device": "a device of nowhere"})
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    answer = anchor(path, stack="torchtitan")
    (record,) = answer.values()
    assert len(record.runs) == 2
    assert "nowhere" in " ".join(record.left_out)
    assert "not used:" in str(answer)


def test_of_very_many_steps_the_first_are_used_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ersatz.sim.answers.anchor.MOST", MOST := 4)
    (path,) = written(tmp_path, TRUE)[:1]
    head, row = path.read_text().rstrip("]\n").rsplit("[", 1)
    path.write_text(f"{head}[{', '.join([row] * (MOST + 5))}]\n")
    (record,) = anchor(path).values()
    assert len(record.runs) == MOST
    assert f"steps after the first {MOST}" in " ".join(record.left_out)


def ask(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ersatz", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.heavy
def test_the_command_writes_a_stack_that_run_takes(tmp_path: Path) -> None:
    paths = [p.name for p in written(tmp_path, TRUE)]
    done = ask(tmp_path, "anchor", *paths, "--out", "mine.yaml")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()
    assert "torchtitan moved to 3 measured runs on h100" in first[0]
    assert "+-" in first[1]
    assert (
        "anchored on 3 measured runs"
        in ask(tmp_path, "run", paths[0], "--stack", "mine.yaml").stdout
    )
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text("my: notes\n")
    refused = ask(tmp_path, "anchor", *paths, "--out", "foreign.yaml")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert foreign.read_text() == "my: notes\n"


def test_a_table_is_read_as_validate_reads_it(tmp_path: Path) -> None:
    """The same columns; a row that cannot be read is named where none can."""
    shipped = Path(__file__).resolve().parents[1] / "device_models/data/measured/training_runs.csv"
    with shipped.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if "torchtitan" in row["framework"].lower()
                and row["device"].startswith("H100") and row["precision"] == "bf16"][:2]  # fmt: skip
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (record,) = anchor(path, stack="torchtitan").values()
    assert len(record.runs) == 2
    path.write_text(",".join(rows[0]) + "\n")
    with pytest.raises(InputError, match="has no rows"):
        anchor(path)


@pytest.mark.parametrize("change", [
    {"covariance": [[1.0]]}, {"runs": 0}, {"runs": "many"}, {"surplus": 1}, {"device": None},
    {"spread": 0}, {"spread": "wide"},
])  # fmt: skip
def test_a_faulty_anchor_of_a_stack_file_is_named(
    tmp_path: Path, change: dict[str, Any], anchored_text: str
) -> None:
    import yaml

    data = yaml.safe_load(anchored_text)
    data["anchor"] |= change
    if change == {"device": None}:
        del data["anchor"]["device"]
    path = tmp_path / "faulty.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match="anchor"):
        load_stack(str(path))


def test_a_shipped_stack_has_no_anchor() -> None:
    assert load_stack("fsdp").anchor is None
