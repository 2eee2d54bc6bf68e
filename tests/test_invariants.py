"""An answer that cannot be true is a fault of ersatz, with its own status, and is not shown."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ersatz.device_models.shipped import SCENARIOS
from ersatz.sim.cli.output import explain
from ersatz.sim.errors import BrokenAnswerError
from ersatz.sim.fleet.judge.holds import check_figures
from ersatz.sim.invariants import check_run
from ersatz.sim.options.holds import check_costs
from ersatz.sim.options.option import Costing
from ersatz.sim.records import RunResult
from ersatz.sim.run import _limits, run_case
from ersatz.sim.scenario.file import load_cases

CASE = load_cases(SCENARIOS / "ling-plus-substitution.yaml")[0]
SOUND = run_case(CASE)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("step", {"mfu": 2.5}, "step.mfu is 2.5; expected 0 to"),
        ("step", {"duration_s": -1.0}, "step.duration_s is -1"),
        ("step", {"duration_s": float("inf")}, "step.duration_s is inf"),
        ("step", {"duration_s": float("nan")}, "step.duration_s is nan"),
        ("step", {"low80_s": 1e9}, "expected them in rising order"),
        ("step", {"bubble_fraction": 1.5}, "step.bubble_fraction is 1.5"),
        ("step", {"breakdown": {"matrix": 1.0}}, "the parts of step.breakdown make 1"),
        (
            "memory",
            {"peak_bytes": 1.0, "parts": {"weights": 1.0}, "by_stage": ()},
            "of all devices",
        ),
        ("memory", {"fits": False}, "memory.fits does not agree"),
        ("job", {"goodput": 1.01}, "job.goodput is 1.01"),
        ("job", {"wall_s": -5.0}, "job.wall_s is -5"),
        ("energy", {"pue": 0.5}, "energy.pue is 0.5"),
        ("cost", {"total": -3.0, "parts": {"rent": -3.0}}, "cost.total: rent is -3"),
        ("cost", {"parts": {"rent": 1.0}}, "the parts of cost.total make 1"),
    ],
)
def test_what_cannot_be_true_is_named(part: str, change: dict[str, Any], words: str) -> None:
    assert check_run(SOUND, *_limits(CASE)) is SOUND
    broken: RunResult = replace(SOUND, **{part: replace(getattr(SOUND, part), **change)})
    with pytest.raises(BrokenAnswerError) as caught:
        check_run(broken, *_limits(CASE))
    assert any(words in line for line in caught.value.broken)
    assert all(line.startswith(f"{SOUND.name}: ") for line in caught.value.broken)
    lines, status = explain(caught.value)
    assert status == 70
    assert "cannot be true" in lines[0]


def test_a_fleet_cannot_hold_more_than_there_is() -> None:
    sound = {"jobs": 2.0, "finished": 1.0, "allocated": 0.5, "goodput": 1.0, "wait_s": float("nan")}
    check_figures("fifo", sound)
    for wrong in ({"allocated": 1.2}, {"wait_s": -1.0}, {"finished": 3.0}, {"slowdown": 0.5}):
        with pytest.raises(BrokenAnswerError, match="fifo: "):
            check_figures("fifo", sound | wrong)


def test_money_of_offers_is_never_negative_and_adds_up() -> None:
    sound = Costing(10.0, 1.0, {"rent": 4.0, "power": 1.0}, 5.0, 1.0, 0.5, 3.0, 1.0)
    check_costs("case", {"a": sound}, {"a": np.array([1.0, 2.0])})
    for wrong in ({"total": 6.0}, {"per_hour": -1.0}, {"days": float("inf")}):
        with pytest.raises(BrokenAnswerError, match=r"^case: .*a: "):
            check_costs("case", {"a": replace(sound, **wrong)}, {})
    with pytest.raises(BrokenAnswerError, match=r"cost\[1\] is nan"):
        check_costs("case", {}, {"a": np.array([1.0, np.nan])})


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_nobody_is_faster_than_the_peak_that_utilisation_divides_by(precision: str) -> None:
    """On the CPU fp32 is faster than 16 bits: MFU by the 16-bit peak was 117 % at the roofline."""
    from ersatz.device_models.kernels.kernel import roofline_time

    changed = [f"training.precision={precision}"]
    [case] = load_cases(SCENARIOS / "hil" / "small-llama-cpu.yaml", changed)
    step = run_case(case, roofline_time).step
    assert 0.5 < step.hfu <= 1.0
    assert step.mfu <= step.hfu


def test_a_rent_of_nothing_is_answered() -> None:
    from ersatz.sim.cli.process.terminal import plain_text
    from ersatz.sim.report.run import render_run

    cases = load_cases(SCENARIOS / "ling-plus-substitution.yaml", ["cost.rent=0 CNY/h"])
    report = plain_text(render_run(cases, [run_case(case) for case in cases]))
    assert "0.0 %" in report


# -- answers that could not be: each was given once ----------------------------------------------------

EXPERTS = """question: x
model: {name: m, layers: 48, hidden: 2048, heads: 16, vocab: 32000,
  experts: {routed: 64, top_k: 4, hidden: 2048}}
cluster: {node: NODE, nodes: 2}
training: {sequence_length: 1024, global_batch: 16}
parallel: PARALLEL
"""


def answered(folder: Path, node: str, parallel: str, *overrides: str) -> RunResult:
    path = folder / "x.yaml"
    path.write_text(EXPERTS.replace("NODE", node).replace("PARALLEL", parallel), "utf-8")
    return run_case(load_cases(path, ["model.layers=8", *overrides])[0])


@pytest.mark.parametrize("node", ["h20-8", "h800-8", "ascend-910b2-8", "mi300x-8"])
@pytest.mark.parametrize(
    "parallel", ["{tp: 8, ep: 4, dp: 2, recompute: full}", "{tp: 2, ep: 8, dp: 8}"]
)
def test_more_rows_take_more_time(node: str, parallel: str, tmp_path: Path) -> None:
    """Below one tile rows were padded and charged for the padding once more: half the rows took longer."""
    seconds = [answered(tmp_path, node, parallel, f"training.sequence_length={rows}").step
               for rows in (256, 512, 1024, 2048, 4096)]  # fmt: skip
    for less, more in pairwise(seconds):
        assert more.duration_s > less.duration_s
        assert more.breakdown["experts"] >= less.breakdown["experts"] * (1 - 1e-9)


@pytest.mark.parametrize("stack", ["megatron-core", "fsdp", "mindspeed", "deepseek"])
def test_selective_recomputation_keeps_no_more_and_is_no_slower_than_full(
    stack: str, tmp_path: Path
) -> None:
    found = [answered(tmp_path, "h800-8", f"{{tp: 2, ep: 8, dp: 8, recompute: {kind}}}", f"stack={stack}")
             for kind in ("none", "selective", "full")]  # fmt: skip
    peaks = [result.memory.peak_bytes for result in found]
    seconds = [result.step.duration_s for result in found]
    assert peaks == sorted(peaks, reverse=True)
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("model", ["experts", "dense"])
def test_a_single_replica_shards_and_gathers_nothing(model: str, tmp_path: Path) -> None:
    """ZeRO 3 was charged buffers for what it gathers from nobody; expert ranks lie in the tensor ranks."""
    own = ["model={layers: 8, hidden: 2048, heads: 16, vocab: 32000}"] if model == "dense" else []
    ep = 1 if own else 8
    peaks = [answered(tmp_path, "h800-8", f"{{tp: 8, ep: {ep}, pp: 2, dp: 1, zero: {zero}}}", *own).memory
             for zero in (0, 1, 2, 3)]  # fmt: skip
    assert len({result.peak_bytes for result in peaks}) == 1


@pytest.mark.parametrize(("node", "links"), [("h800-8", 1.0), ("mi300x-8", 7 / 3)])
def test_two_replicas_are_as_fast_as_they_have_links(
    node: str, links: float, tmp_path: Path
) -> None:
    """The experts' group grows from four to eight devices of a node: half of the micro-batches each.

    On a mesh eight devices reach each other by seven links, four by three; a gathering moves 7/8 in
    place of 3/4 of the weights. What hides behind the gathering comes to light where that is faster.
    """
    seconds = [answered(tmp_path, node, f"{{tp: 4, pp: 2, ep: 1, dp: {dp}, zero: 3}}",
                        f"cluster.nodes={dp}").step.duration_s for dp in (1, 2)]  # fmt: skip
    assert seconds[0] <= 2 * max(links * (3 / 4) / (7 / 8), 1.0) * seconds[1]
