"""Timelines and traces: they hold what the engines ran, to the last piece, and add up to the breakdown."""

import gzip
import json
import shutil
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import ersatz
from ersatz.sim.cli.output import captured
from ersatz.sim.scenario.scenario import Scenario, Stragglers
from ersatz.sim.step.operations import step_operations
from ersatz.sim.step.program import COMPUTE, HOST
from ersatz.sim.step.ranks.timeline import (
    MOST_RANKS,
    count_pieces,
    first_ranks,
    stage_stretches,
    step_timeline,
)
from ersatz.sim.step.step import simulate_step

SMALL = ("llama3-70b-mi300x", {"training.global_batch": 256})


pytestmark = pytest.mark.xdist_group("timeline")  # its trace is made once


@pytest.fixture(scope="module")
def deepseek() -> Scenario:
    """DeepSeek-V3 on 2,048 H800 with a quarter of its micro-batches."""
    return ersatz.load("deepseek-v3-h800", {"training.global_batch": 4096})[0]


@pytest.fixture(scope="module")
def trace(deepseek: Scenario) -> dict[str, Any]:
    """Two ranks of every stage as Perfetto would read them."""
    ranks = first_ranks(deepseek, per_stage=2)
    assert len(ranks) == 32
    return dict(json.loads(gzip.decompress(ersatz.trace(deepseek, ranks))))


def spans(trace: dict[str, Any], stream: str) -> dict[int, list[dict[str, Any]]]:
    """The events of a track by process, in order of time."""
    events = trace["traceEvents"]
    named = {(e["pid"], e["tid"]) for e in events
             if e["ph"] == "M" and e["name"] == "thread_name" and e["args"]["name"] == stream}  # fmt: skip
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for e in events:
        if e["ph"] == "X" and (e["pid"], e["tid"]) in named:
            found[e["pid"]].append(e)
    return {pid: sorted(row, key=lambda e: e["ts"]) for pid, row in found.items()}


def test_a_trace_adds_up_to_the_breakdown_to_the_microsecond(
    deepseek: Scenario, trace: dict[str, Any]
) -> None:
    step = simulate_step(deepseek)
    rows = spans(trace, "compute")
    assert len(rows) == 32
    for number, row in enumerate(rows.values()):
        causes = step.by_stage[number // 2]  # two ranks per stage, in order
        sums: dict[str, float] = defaultdict(float)
        for event in row:
            sums[event["args"]["category"]] += event["dur"]
        for cause, seconds in causes.items():
            assert sums.pop(cause, 0.0) == pytest.approx(1e6 * seconds, abs=1.0), cause
        assert sum(sums.values()) < 1.0
        assert row[0]["ts"] == 0
        assert row[-1]["ts"] + row[-1]["dur"] == pytest.approx(1e6 * step.duration_s, abs=0.01)
        gaps = [b["ts"] - a["ts"] - a["dur"] for a, b in pairwise(row)]
        assert max(map(abs, gaps)) < 0.002  # without a gap and without an overlap


def test_collectives_carry_the_bytes_that_operations_count(
    deepseek: Scenario, trace: dict[str, Any]
) -> None:
    first = [e for e in trace["traceEvents"] if e["pid"] == 1 and "collective" in e.get("args", {})]
    sent: dict[tuple[str, str, int], float] = defaultdict(float)
    for e in first:
        args = e["args"]
        sent[args["group"], args["collective"], args["size"]] += args["bytes"] * args.get(
            "messages", 1
        )
    counted: dict[tuple[str, str, int], float] = defaultdict(float)
    for row in step_operations(deepseek).collectives:
        if 0 in row.stages:
            counted[row.group, row.kind, row.size] += row.nbytes * row.count
    assert sent == pytest.approx({key: nbytes for key, nbytes in counted.items() if nbytes})
    assert {"ep", "pp"} <= {group for group, _, _ in sent}


def test_kernels_carry_shapes_and_the_flop_that_operations_count(
    deepseek: Scenario, trace: dict[str, Any]
) -> None:
    flop = sum(e["args"].get("flop", 0.0) for e in spans(trace, "compute")[1])
    rows = [row for row in step_operations(deepseek).flops if 0 in row.stages]
    assert flop == pytest.approx(sum(row.flop for row in rows), rel=1e-9)
    product = next(e for e in spans(trace, "compute")[1] if e["args"].get("kernel") == "matmul")
    assert {"m", "n", "k", "dtype", "bytes"} <= set(product["args"])


def test_memory_is_counted_and_its_peak_is_the_verdicts(
    deepseek: Scenario, trace: dict[str, Any]
) -> None:
    peaks: dict[int, float] = defaultdict(float)
    for e in trace["traceEvents"]:
        if e["ph"] == "C":
            peaks[e["pid"]] = max(peaks[e["pid"]], e["args"]["held"])
    memory = ersatz.run(deepseek)[deepseek.name].memory
    held = memory.peak_bytes - memory.parts["fragmentation"]  # what no tensor and no library holds
    assert max(peaks.values()) * 2**30 == pytest.approx(held, rel=1e-4)
    assert len(peaks) == 32
    end = 1e6 * simulate_step(deepseek).duration_s + 1
    assert all(0 <= e["ts"] <= end for e in trace["traceEvents"] if e["ph"] == "C")


def test_no_kernel_starts_before_its_launch() -> None:
    case = ersatz.load(*SMALL)[0]
    [line] = step_timeline(case, [0]).lines
    launches = iter(sorted((p for p in line.pieces if p.stream == HOST), key=lambda p: p.start_s))
    end = 0.0
    for piece in launches:
        assert piece.start_s >= end - 1e-12  # one host thread
        end = piece.start_s + piece.seconds
    by_work: dict[int, list[float]] = defaultdict(list)
    for p in line.pieces:
        if p.stream == HOST:
            by_work[id(p.work)].append(p.start_s + p.seconds)
    for p in line.pieces:
        if p.stream == COMPUTE and p.work and by_work.get(id(p.work)):
            assert p.start_s >= by_work[id(p.work)].pop(0) - 1e-9


@pytest.mark.parametrize("name", ["mixed-h800-910b", "qwen2.5-72b-16x80"])
def test_every_stage_of_every_case_adds_up(name: str) -> None:
    for case in ersatz.load(name)[:1]:
        step, timeline = simulate_step(case), step_timeline(case)
        assert timeline.duration_s == step.duration_s
        for line in timeline.lines:
            assert line.sums() == pytest.approx(dict(step.by_stage[line.stage]), abs=1e-9)
            assert count_pieces(case, [line.rank]) >= 0.5 * len(line.pieces)


def test_a_slow_rank_is_slow_and_the_others_wait_for_it() -> None:
    case = ersatz.load(*SMALL)[0]
    slow = replace(case, stragglers=Stragglers(ranks={1: 0.5}))
    timeline = step_timeline(slow, [0, 1])
    for line in timeline.lines:
        assert sum(line.sums().values()) == pytest.approx(timeline.duration_s, rel=1e-9)
    usual, late = (line.sums() for line in timeline.lines)
    # half as much time again for every kernel of rank 1; rank 0 waits in its collectives instead
    assert late["matrix"] == pytest.approx(1.5 * usual["matrix"])
    assert usual["data parallel"] > late["data parallel"] > 0


def test_slots_of_the_picture_are_those_of_the_trace(deepseek: Scenario) -> None:
    [line] = step_timeline(deepseek, [0]).lines
    _, drawn = stage_stretches(deepseek)[0]
    assert [s.parts for s in drawn] == [s.parts for s in line.stretches]
    for a, b in zip(drawn, line.stretches, strict=True):
        assert a.end_s == pytest.approx(b.end_s, abs=1e-9)
        assert b.start_s <= a.start_s + 1e-9  # the picture's begin where their message is there


def test_ranks_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ersatz.InputError, match="rank 2048: expected 0 to 2047"):
        ersatz.trace("deepseek-v3-h800", [2048])
    with pytest.raises(ersatz.InputError, match=f"expected at most {MOST_RANKS}"):
        ersatz.trace("deepseek-v3-h800", range(100))
    with pytest.raises(ersatz.InputError, match="name fewer ranks"):
        ersatz.trace("deepseek-v3-h800", range(60), overrides={"training.global_batch": 61440})
    assert "expected with --trace" in captured(["run", "qwen2.5-72b-16x80", "--ranks", "0"])
    told = captured(
        ["run", "qwen2.5-72b-16x80", "--trace", str(tmp_path / "t.gz"), "--ranks", "0,x"]
    )
    assert "--ranks: 'x' - expected numbers" in told


def test_the_file_is_what_its_name_says_and_the_same_again(tmp_path: Path) -> None:
    plain, packed = tmp_path / "t.json", tmp_path / "t.json.gz"
    for file in (plain, packed, tmp_path / "u.json.gz"):
        captured(
            ["run", "llama3-70b-mi300x", "--set", "training.global_batch=256", "--trace", str(file)]
        )
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert packed.read_bytes() == (tmp_path / "u.json.gz").read_bytes()
    about = json.loads(plain.read_text())["otherData"]
    assert about["cases"]["llama3-70b-mi300x"]["setting"]["pools"][0]["device"] == "mi300x"


def test_a_fleet_holds_every_attempt_and_no_two_on_one_track(tmp_path: Path) -> None:
    captured(
        [
            "schedule",
            "four-pools",
            "--policy",
            "las",
            "--set",
            "draws=1",
            "--timeline",
            str(tmp_path / "f.gz"),
        ]
    )
    trace = json.loads(gzip.decompress((tmp_path / "f.gz").read_bytes()))
    answer = ersatz.schedule("four-pools", ["las"], {"draws": 1})
    log = answer["las"][0].log
    jobs = [e for e in trace["traceEvents"] if e.get("cat") == "job"]
    assert len(jobs) == sum(len(r.placement) for r in log.records if r.event == "start")
    ends: dict[tuple[int, int], float] = {}
    for e in sorted(jobs, key=lambda e: e["ts"]):
        track = e["pid"], e["tid"]
        assert e["ts"] >= ends.get(track, 0.0) - 0.01
        ends[track] = e["ts"] + e["dur"]
    preempted = sum(e["args"]["end"] == "preempted" for e in jobs)
    assert preempted == sum(len(r.placement) for r in log.records if r.event == "preempt") > 0
    with pytest.raises(TypeError, match="expected an answer of schedule"):
        ersatz.trace(ersatz.legal("h20", dates="2025-03-24"))


def test_perfettos_own_trace_processor_reads_it(trace: dict[str, Any], tmp_path: Path) -> None:
    api = pytest.importorskip(
        "perfetto.trace_processor", reason="the package perfetto is not installed"
    )
    shell = shutil.which("trace_processor_shell") or shutil.which("trace_processor")
    if not shell:
        pytest.skip(
            "Perfetto's package fetches its trace processor from the Internet; none is installed"
        )
    file = tmp_path / "t.json"
    file.write_text(json.dumps(trace))
    with api.TraceProcessor(
        trace=str(file), config=api.TraceProcessorConfig(bin_path=shell)
    ) as found:
        rows = found.query("select category as c, sum(dur) as d from slice join thread_track on"
                           " slice.track_id = thread_track.id join thread using (utid) where thread.name ="
                           " 'compute' group by category")  # fmt: skip
        sums = {row.c: row.d / 1e3 for row in rows}
    expected: dict[str, float] = defaultdict(float)
    for row in spans(trace, "compute").values():
        for e in row:
            expected[e["cat"]] += e["dur"]
    assert sums == pytest.approx(dict(expected), abs=32.0)  # a microsecond per rank
