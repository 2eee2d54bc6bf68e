"""Verdicts on runs that ran out of memory."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

from ersatz.device_models.kernels.kernel import kernel_constants
from ersatz.device_models.shipped import DATA
from ersatz.sim.errors import InputError
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.report.json_out import plain, to_text
from ersatz.sim.report.measured.memory import render_memory
from ersatz.sim.report.measured.memory_page import chapter
from ersatz.sim.scenario.scenario import Parallel, Training
from ersatz.sim.validation.errors.heldout import SHIPPED
from ersatz.sim.validation.errors.memory_peaks import (
    Errors,
    Peak,
    errors_by,
    errors_of,
    kept,
    stated_peaks,
)
from ersatz.sim.validation.errors.memory_table import MemoryVerdicts, Share, judge_memory
from ersatz.sim.validation.reading.lineages import withheld_memory
from ersatz.sim.validation.reading.rows import scenario_of
from ersatz.sim.validation.reading.table import read_table
from tests.factories import make_scenario
from tests.test_validation import ROW, table

CRASHES = DATA / "measured" / "out_of_memory_h100_nanotron.csv"
HEADER = "model,n_devices,micro_batch,grad_acc,gbs_seqs,dp,pp,tp,zero\n"


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every 40th run of the sweep: enough to know the shape of each model."""
    lines = SHIPPED.read_text().splitlines()
    swept = [line for line in lines if ",nanotron v" in line and line.endswith(",GB,allocated")]
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    rows = [r for m in ("1B", "3B", "8B", "80B") for r in swept if f"-llama-{m}," in r][::40]
    path.write_text("\n".join([lines[0], *rows]) + "\n")
    return path


def test_balanced_accuracy_is_the_mean_of_both_shares() -> None:
    """3 of 4 crashes caught and 1 of 2 runs kept: (0.75 + 0.5) / 2."""
    assert Share(4, 3, 2, 1).balanced == 0.625
    assert str(Share(0, 0, 2, 1).balanced) == "nan"


def test_a_crash_beyond_all_memory_is_caught_and_a_tiny_plan_is_kept(
    tmp_path: Path, few: Path
) -> None:
    """80e9 weights of 18 bytes on one device need 1,440 GB; 1B with tp 8 needs a few."""
    path = tmp_path / "crashes.csv"
    path.write_text(HEADER + "80B,8,1,32,256,8,1,1,0\n1B,8,1,256,256,1,1,8,0\n")
    found = judge_memory(path, few).by_model
    assert (found["80B"].crashed, found["80B"].caught) == (1, 1)
    assert (found["1B"].crashed, found["1B"].caught) == (1, 0)


def test_faults_are_named_and_good_rows_still_judged(tmp_path: Path, few: Path) -> None:
    path = tmp_path / "crashes.csv"
    path.write_text(
        HEADER + "80B,8,1,32,256,8,1,1,0\n99B,8,1,32,256,8,1,1,0\n1B,8,x,32,256,8,1,0,0\n"
    )
    found = judge_memory(path, few)
    assert found.total.crashed == 1
    assert [str(p).split(" - ")[0].split("crashes.csv:")[1] for p in found.problems] == [
        "3:1: model: '99B'", "4:3: micro_batch: 'x'", "4:8: tp: '0'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "has no rows"), (HEADER, "has no rows"), ("model,tp\n1B,1\n", "pp: column is missing"),
     (HEADER + "9B,8,1,1,1,1,1,1,0\n", "no run shows the shape")],
)  # fmt: skip
def test_tables_of_which_nothing_can_be_judged(
    tmp_path: Path, few: Path, content: str, words: str
) -> None:
    path = tmp_path / "crashes.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        judge_memory(path, few)
    with pytest.raises(InputError, match="cannot be read"):
        judge_memory(tmp_path / "none.csv", few)


def test_columns_in_any_order_blank_lines_and_padding(tmp_path: Path, few: Path) -> None:
    """Faults name the cell as it stands in the file: line 5 after two blank ones, column 2."""
    path = tmp_path / "crashes.csv"
    path.write_text("zero,tp,pp,dp,gbs_seqs,grad_acc,micro_batch,n_devices,model\n\n\n"
                    "0, 1,1,8,256,32,1,8, 80B \n0,0,1,8,256,32,1,8,80B\n")  # fmt: skip
    found = judge_memory(path, few)
    assert (found.total.crashed, found.total.caught) == (1, 1)
    assert [(p.line, p.column, p.key) for p in found.problems] == [(5, 2, "tp")]


@pytest.mark.parametrize(
    ("row", "column"),
    [("80B,8,1,32,256,8,1,2,0", 2), ("80B,8,\u00b2,32,256,8,1,1,0", 3), ("80B,8,1,32,256,8,1,1,4", 9),
     ("80B,8,1,32,256,8,1,1", 0), ("80B,8,1,32,256,8,1,1,0,7", 0),
     (f"80B,8,{'9' * 5000},32,256,8,1,1,0", 3), ("80B,8,1,1000000,8000000,4,2,1,0", 5),
     ("80B,8,-1,32,256,8,1,1,0", 3)],
)  # fmt: skip
def test_a_row_that_says_no_plan_is_a_fault_not_a_catch(
    tmp_path: Path, few: Path, row: str, column: int
) -> None:
    """2 x 8 ranks are not 8 devices: to count it as caught would flatter the verdicts."""
    path = tmp_path / "crashes.csv"
    path.write_text(HEADER + "80B,8,1,32,256,8,1,1,0\n" + row + "\n", encoding="utf-8")
    found = judge_memory(path, few)
    assert found.total.crashed == 1
    assert [(p.line, p.column) for p in found.problems] == [(3, column)]


def test_as_many_stages_as_layers_cannot_run(tmp_path: Path, few: Path) -> None:
    """1B has 16 layers: 16 stages cannot be dealt out, 8 can and need little memory."""
    path = tmp_path / "crashes.csv"
    path.write_text(HEADER + "1B,16,1,256,256,1,16,1,0\n1B,8,1,256,256,1,8,1,0\n")
    assert judge_memory(path, few).total.caught == 1


@pytest.mark.parametrize(
    ("fresh", "dtype", "zero", "bytes_each"),
    [(0.0, "fp32", 0, 4.0), (2.0, "fp32", 0, 6.0), (2.0, "fp32", 1, 6.0), (0.0, "bf16", 1, 2.0),
     (2.0, "fp32", 2, 0.5)],
)  # fmt: skip
def test_fresh_gradients_stand_beside_the_sum_where_they_are_kept(
    fresh: float, dtype: str, zero: Literal[0, 1, 2], bytes_each: float
) -> None:
    """An fp32 sum of 4 bytes, 2 more beside it at the end of a backward pass, which is the peak of a
    short sequence; ZeRO 2 leaves an eighth of the sum on 8 ranks."""
    scenario = make_scenario(parallel=Parallel(dp=8, zero=zero), training=Training(100, 64, 1))
    pool = scenario.pools[0]
    stack = replace(pool.stack, fresh_gradient_bytes=fresh, gradient_dtype=dtype)
    parts = plan_memory(replace(scenario, pools=(replace(pool, stack=stack),))).parts
    found = parts["gradients"] + parts["fresh gradients"]
    assert found == pytest.approx(bytes_each * parts["weights"] / 2.0)


@pytest.mark.parametrize("counts", ["allocated", "reserved", "device"])
@pytest.mark.parametrize("unit", ["GB", "GiB"])
def test_a_stated_peak_is_compared_with_what_it_counts(counts: str, unit: str) -> None:
    """A row that states exactly what its plan says has no error; one of half as much has 1."""
    row = next(r for r in read_table(SHIPPED).runs if r.id == "hfus-0001")
    memory = plan_memory(scenario_of(row), advise=False)
    stated = {
        "allocated": memory.allocated_bytes + kernel_constants().staging_bytes,
        "reserved": memory.reserved_bytes + kernel_constants().staging_bytes,
        "device": memory.peak_bytes,
    }[counts] / {"GB": 1e9, "GiB": 2**30}[unit]
    texts = {**row.texts, "peak_memory_unit": unit, "peak_memory_counts": counts}
    for share, error in ((1.0, 0.0), (0.5, 1.0)):
        numbers = {**row.numbers, "peak_memory": share * stated}
        (found,) = stated_peaks([replace(row, texts=texts, numbers=numbers)])
        assert found.error == pytest.approx(error, abs=1e-9)
        assert (found.counts, found.source) == (counts, row.text("source"))


def test_peaks_of_unknown_unit_or_kind_are_left_out() -> None:
    row = next(r for r in read_table(SHIPPED).runs if r.id == "hfus-0001")
    for change in ({"peak_memory_unit": "MB"}, {"peak_memory_counts": "a guess"}):
        assert list(stated_peaks([replace(row, texts={**row.texts, **change})])) == []


def test_a_peak_that_is_left_out_is_told(tmp_path: Path) -> None:
    """Megabytes, and a peak of nobody knows what, were left out without a word."""
    good = {**ROW, "peak_memory": "40", "peak_memory_unit": "GiB", "peak_memory_counts": "device"}
    rows = [good, {**good, "peak_memory_unit": "MB"}, {**good, "peak_memory_counts": "a guess"}]
    told = judge_memory(None, table(tmp_path, *rows)).problems
    assert [(p.line, p.key, p.value) for p in told] == [
        (3, "peak_memory_unit", "MB"),
        (4, "peak_memory_counts", "a guess"),
    ]


def test_a_table_of_one_s_own_needs_no_crashes(tmp_path: Path) -> None:
    """Runs that ran, nanotron's too, and stated peaks; of crashes it says that there are none."""
    rows = [ROW, {**ROW, "id": "r2", "framework": "nanotron", "source": "other"}]
    rows[0] = ROW | {
        "peak_memory": "40",
        "peak_memory_unit": "GiB",
        "peak_memory_counts": "reserved",
    }
    verdicts = judge_memory(None, table(tmp_path, *rows))
    assert verdicts.by_source == {"made": (1, 1), "other": (1, 1)}
    assert (verdicts.kept_sources_equal, verdicts.caught_sources_equal) == (1.0, None)
    assert verdicts.sources_equal is verdicts.balanced_accuracy is None
    assert len(verdicts.rows) == 1
    to_text(plain(verdicts))  # no nan in it
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_memory(verdicts))
    told = console.export_text()
    assert "100.0 % of what ran kept, sources equal; no crashes were given (--crashes)" in told
    assert "crashed" not in told


def test_sources_weigh_the_same() -> None:
    """Three rows of one source 30 % off and one of another 10 % off: half of the weight is each's."""
    rows = [Peak("a", str(i), "s", "device", 1.0, 1.3, 0.3, None) for i in range(3)]
    rows.append(Peak("b", "4", "s", "device", 1.0, 0.9, -0.1, -0.2))
    found = errors_of(rows)
    assert (found.rows, found.median, found.p90) == (4, 0.1, 0.3)
    assert found.left_out_median == 0.2
    assert errors_by(rows, "source")["a"].median == 0.3


def test_a_run_is_kept_where_a_reading_of_its_blanks_fits() -> None:
    """70e9 weights on 64 devices without a word of sharding fit as ZeRO 3 only; no layout, no plan."""
    row = next(r for r in read_table(SHIPPED).runs if r.id == "mbridge-0165")
    assert kept(row) is True
    assert kept(replace(row, texts={**row.texts, "sharding": "zero1"})) is False
    blank = {k: v for k, v in row.numbers.items() if k not in ("tp", "pp", "ep")}
    assert kept(replace(row, numbers=blank)) is None


def test_the_report_names_every_model_and_source() -> None:
    share = Share(4, 3, 2, 1)
    errors = Errors(9, 0.05, 0.2, 0.01, 0.06, 0.3, 0.055, 0.25)
    verdicts = MemoryVerdicts(
        0.7, 0.65, 0.75, ("row-1",), {"a sweep": (2, 1), "another": (3, 3)}, share, 0.625,
        {"1B": share}, errors, {"a sweep": errors}, {"x": errors}, {"device": errors}, (), (),
    )  # fmt: skip
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_memory(verdicts))
    text = console.export_text()
    assert "70.0 % right, sources equal (65.0 % of what ran kept, 75.0 % of crashes caught)" in text
    assert "within 5.0 / 20 %" in text
    assert "5.5 / 25 % with a row's source left out, 6.0 / 30 % with its whole lineage" in text
    assert "vetoed although they ran: row-1" in text
    assert "1 other sources" in text
    assert [line.split()[0] for line in text.splitlines() if "75.0 %" in line][1:] == ["1B", "all"]
    assert "a sweep" in text


def test_the_chapter_says_what_falls_short_first() -> None:
    """Left-out figures stand before the seen ones, and vetoed rows are named."""
    errors = Errors(9, 0.05, 0.2, 0.01, 0.06, 0.3, 0.055, 0.25)
    share = Share(4, 3, 2, 1)
    verdicts = MemoryVerdicts(
        0.7, 0.65, 0.75, ("row-1",), {"a sweep": (2, 1)}, share, 0.625, {"1B": share}, errors,
        {"a sweep": errors}, {"x": errors}, {"device": errors}, (), (),
    )  # fmt: skip
    text = "\n".join(chapter(verdicts))
    assert text.startswith("## Memory")
    assert text.index("6.0 / 30 %") < text.index("5.0 / 20 %")
    assert "| all, sources equal | 9 | 5.0 / 20 % | +1.0 % | 5.5 / 25 % | 6.0 / 30 % |" in text
    assert "Verdicts are 70.0 % right" in text
    assert "ran: row-1." in text


@pytest.fixture(scope="module")
def memory() -> MemoryVerdicts:
    return judge_memory(CRASHES, SHIPPED)


@pytest.mark.slow
def test_verdicts_on_the_shipped_tables(memory: MemoryVerdicts) -> None:
    """96.0 % right with sources equal, one of 2,276 runs vetoed, when this was written."""
    assert (memory.total.crashed, memory.total.ran) == (1021, 981)
    assert memory.sources_equal > 0.955
    assert memory.balanced_accuracy > 0.935
    assert len(memory.vetoed) <= 1
    assert not memory.problems


@pytest.mark.slow
def test_stated_peaks_of_the_shipped_table(memory: MemoryVerdicts) -> None:
    """2.6 / 10 % with sources equal when this was written; torchtitan's all within 10 %."""
    assert memory.peaks is not None
    assert memory.peaks.median < 0.05
    assert memory.peaks.p90 < 0.15
    titan = {peak.id: peak.error for peak in memory.rows if peak.id.startswith("titan-00")}
    assert len(titan) == 20
    assert max(map(abs, titan.values())) < 0.10


@pytest.mark.slow
def test_stated_peaks_with_their_source_left_out(memory: MemoryVerdicts) -> None:
    """2.8 / 15.4 % when this was written; 5 / 15 is the aim, and nanotron's unfitted memory is above it."""
    assert memory.peaks is not None
    assert memory.peaks.source_out_median < 0.05
    assert memory.peaks.source_out_p90 < 0.15


def test_what_a_source_alone_showed_or_was_fitted_to_is_withheld() -> None:
    """torchtitan's first table alone ran the plain stack; nanotron's memory was fitted to its sweep."""
    assert withheld_memory("torchtitan benchmarks 2024-12") == {"torchtitan"}
    assert withheld_memory("HF Ultrascale Playbook nanotron sweep") == {"nanotron"}
    assert withheld_memory("MLPerf Training v5.1 logs") == frozenset()
    assert withheld_memory("nobody's") == frozenset()


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="figures to reach: software that no other lineage shows")
def test_stated_peaks_with_their_software_unknown(memory: MemoryVerdicts) -> None:
    assert memory.peaks is not None
    assert memory.peaks.left_out_median < 0.05
    assert memory.peaks.left_out_p90 < 0.15


@pytest.mark.slow
def test_every_row_of_torchtitan_within_ten_percent(memory: MemoryVerdicts) -> None:
    titan = [peak.error for peak in memory.rows if peak.stack.startswith("torchtitan")]
    assert max(map(abs, titan)) < 0.10
