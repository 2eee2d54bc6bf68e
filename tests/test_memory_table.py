"""Verdicts on runs that ran out of memory."""

from pathlib import Path

import pytest

from sim.errors import InputError
from sim.validation.heldout import SHIPPED
from sim.validation.memory_table import Share, judge_memory
from sim.validation.parameters import DATA

CRASHES = DATA / "measured" / "out_of_memory_h100_nanotron.csv"
HEADER = "model,n_devices,micro_batch,grad_acc,gbs_seqs,dp,pp,tp,zero\n"


def test_balanced_accuracy_is_the_mean_of_both_shares() -> None:
    """3 of 4 crashes caught and 1 of 2 runs kept: (0.75 + 0.5) / 2."""
    assert Share(4, 3, 2, 1).balanced == 0.625
    assert str(Share(0, 0, 2, 1).balanced) == "nan"


def test_a_crash_beyond_all_memory_is_caught_and_a_tiny_plan_is_kept(tmp_path: Path) -> None:
    """80e9 weights of 18 bytes on one device need 1,440 GB; 1B with tp 8 needs a few."""
    path = tmp_path / "crashes.csv"
    path.write_text(HEADER + "80B,8,1,32,256,8,1,1,0\n1B,8,1,256,256,1,1,8,0\n")
    found = judge_memory(path, SHIPPED).by_model
    assert (found["80B"].crashed, found["80B"].caught) == (1, 1)
    assert (found["1B"].crashed, found["1B"].caught) == (1, 0)


def test_faults_are_named_and_good_rows_still_judged(tmp_path: Path) -> None:
    path = tmp_path / "crashes.csv"
    path.write_text(
        HEADER + "80B,8,1,32,256,8,1,1,0\n99B,8,1,32,256,8,1,1,0\n1B,8,x,32,256,8,1,0,0\n"
    )
    found = judge_memory(path, SHIPPED)
    assert found.total.crashed == 1
    assert [str(p).split(" - ")[0].split("crashes.csv:")[1] for p in found.problems] == [
        "3:1: model: '99B'", "4:3: micro_batch: 'x'", "4:8: tp: '0'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "has no rows"), (HEADER, "has no rows"), ("model,tp\n1B,1\n", "pp: column is missing"),
     (HEADER + "9B,8,1,1,1,1,1,1,0\n", "no run shows the shape")],
)  # fmt: skip
def test_tables_of_which_nothing_can_be_judged(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "crashes.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        judge_memory(path, SHIPPED)
    with pytest.raises(InputError, match="cannot be read"):
        judge_memory(tmp_path / "none.csv", SHIPPED)


@pytest.mark.slow
def test_verdicts_on_the_shipped_tables() -> None:
    """docs/validation.md gives the figures: 94 % and 7.4 %."""
    found = judge_memory(CRASHES, SHIPPED)
    assert (found.total.crashed, found.total.ran) == (1021, 981)
    assert found.balanced_accuracy > 0.93
    assert found.peak_median < 0.08
