"""Chakra execution traces: a simulated step as one file for each rank, and back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import ersatz
from ersatz.sim.answers.emulate import replay
from ersatz.sim.answers.exporting import export_step
from ersatz.sim.cli.output import captured
from ersatz.sim.emulate.foreign.chakra import read_chakra
from ersatz.sim.emulate.foreign.simulated import members_of, simulated_traces
from ersatz.sim.emulate.replaying.chakra import chakra_files
from ersatz.sim.emulate.replaying.together import together
from ersatz.sim.scenario.scenario import Parallel, Scenario
from ersatz.sim.step.operations import step_operations
from ersatz.sim.step.ranks.timeline import first_ranks
from ersatz.sim.step.step import simulate_step

SMALL = "qwen2.5-72b-16x80"


@pytest.fixture(scope="module")
def case() -> Scenario:
    return ersatz.load(SMALL)[0]


def test_a_rank_alone_takes_what_the_step_takes(case: Scenario) -> None:
    """Without a pipeline nobody is waited for: the clock of an emulation gives the engine's step."""
    (trace,) = simulated_traces(case, [3])
    assert trace.step_s[-1] == pytest.approx(simulate_step(case).duration_s, rel=1e-9)


@pytest.mark.parametrize("contention", [0.0, 0.18])
def test_ranks_of_a_pipeline_find_each_other(contention: float) -> None:
    """16 stages of DualPipe: alone none waits for a message; together they take the step's time.

    To the last digit where nothing stands beside collectives. What does is charged by the engine for
    all that a pair hides, here by the kernels that really ran then: no more, and not much less.
    """
    loaded = ersatz.load("deepseek-v3-h800", {"training.global_batch": 4096})[0]
    plain, case = (_contending(loaded, each) for each in (0.0, contention))
    traces = simulated_traces(case, first_ranks(case))
    step, least = simulate_step(case).duration_s, simulate_step(plain).duration_s
    assert max(t.step_s[-1] for t in traces) < 0.9 * step
    walked = max(t.step_s[-1] for t in together(traces, contention))
    assert least * (1 - 1e-9) <= walked <= step * (1 + 1e-9)
    assert walked >= least + 0.3 * (step - least) - 1e-9


def _contending(case: Scenario, contention: float) -> Scenario:
    pools = [
        replace(pool, stack=replace(pool.stack, overlap_contention=contention))
        for pool in case.pools
    ]
    return replace(case, pools=tuple(pools))


def test_every_collective_is_there_with_its_bytes(case: Scenario) -> None:
    (trace,) = simulated_traces(case, [0])
    bytes_of: dict[str, float] = {}
    for entry in trace.entries:
        task = trace.table[entry.work] if entry.work >= 0 else None
        if task and task.ranks and task.peer < 0:
            bytes_of[task.collective] = bytes_of.get(task.collective, 0.0) + task.nbytes
    counted: dict[str, float] = {}
    for row in step_operations(case).collectives:
        counted[row.kind] = counted.get(row.kind, 0.0) + row.count * row.nbytes
    assert bytes_of == pytest.approx(counted)


def test_members_of_groups_in_words() -> None:
    """4 stages of 8 ranks, tp 2: rank 5 of stage 1 is number 13, 12 beside it, replicas 2 apart."""
    parallel = Parallel(tp=2, pp=4, dp=4, zero=1)
    assert members_of(parallel, "tp", 1, 5, 8) == (12, 1, 2, ())
    assert members_of(parallel, "dp", 1, 5, 8) == (9, 2, 4, ())
    assert members_of(parallel, "world", 1, 5, 8) == (0, 1, 32, ())
    assert members_of(parallel, "ends", 0, 5, 8) == (5, 24, 2, ())


@pytest.mark.parametrize(
    ("name", "changes", "ranks"),
    [
        (SMALL, {}, [0, 9]),
        ("deepseek-v3-h800", {"training.global_batch": 4096}, [129]),
    ],
)
def test_a_trace_comes_back_as_it_was(name: str, changes: dict[str, int], ranks: list[int]) -> None:
    """All but parts of a nanosecond and of a byte: kernels, groups, messages, what waits for what."""
    traces = simulated_traces(ersatz.load(name, changes)[0], ranks)
    for trace, (rank, data) in zip(traces, chakra_files(traces).items(), strict=True):
        back = read_chakra(data, f"x.{rank}.et")
        assert (back.format, back.trace.rank, back.said) == ("Chakra", rank, ())
        assert back.world == ersatz.load(name, changes)[0].devices
        ends = len(back.trace.entries)
        assert all(e.work < 0 for e in trace.entries[ends:])  # the host's last wait
        for ours, theirs in zip(trace.entries[:ends], back.trace.entries, strict=True):
            assert (ours.stream, ours.waits) == (theirs.stream, theirs.waits)
            if ours.work < 0:
                continue
            one, other = trace.table[ours.work], back.trace.table[theirs.work]
            assert (one.kernel, one.collective, one.ranks, one.peer, one.tag, one.category) == (
                other.kernel, other.collective, other.ranks, other.peer, other.tag, other.category
            )  # fmt: skip
            assert other.seconds == pytest.approx(one.seconds, abs=1e-9)
            assert theirs.host_s == pytest.approx(ours.host_s, abs=1e-9)
            assert other.nbytes == pytest.approx(one.nbytes, abs=one.ranks.size if one.ranks else 1)
        assert back.measured_s == pytest.approx(trace.step_s[-1], rel=1e-6)


def test_mlcommons_schema_reads_every_node(case: Scenario) -> None:
    """As the package of MLCommons has it; a file by our own writer must be one of theirs."""
    schema = pytest.importorskip(
        "chakra.schema.protobuf.et_def_pb2", reason="mlc-chakra is not installed"
    )
    from google.protobuf import unknown_fields
    from google.protobuf.internal.decoder import _DecodeVarint32

    traces = simulated_traces(case, [0])
    data, at, nodes = chakra_files(traces)[0], 0, []
    while at < len(data):
        size, at = _DecodeVarint32(data, at)
        message = schema.Node() if nodes else schema.GlobalMetadata()
        assert message.ParseFromString(data[at : at + size]) == size
        assert len(unknown_fields.UnknownFieldSet(message)) == 0
        nodes.append(message)
        at += size
    assert nodes[0].version == "0.0.4"
    step = nodes[1:]
    assert len(step) == len([e for e in traces[0].entries if e.work >= 0])
    seen: set[int] = set()
    for node in step:
        assert set(node.data_deps) <= seen  # only what comes before is waited for
        seen.add(node.id)
    flop = sum(a.int64_val for n in step for a in n.attr if a.name == "num_ops")
    entries = [e for e in traces[0].entries if e.work >= 0]
    kernels = [traces[0].table[e.work].kernel for e in entries]
    assert flop == pytest.approx(sum(k.flop for k in kernels if k), rel=1e-9)
    kinds = {schema.NodeType.Name(n.type) for n in step}
    assert kinds == {"COMP_NODE", "COMM_COLL_NODE"}  # ASTRA-sim takes no nodes of the host


def test_a_simulated_step_is_exported_and_run_on_other_devices(tmp_path: Path) -> None:
    out = tmp_path / "step"
    told = captured(["export", SMALL, "--as", "chakra", "--ranks", "0,8", "--out", str(out)])
    assert "2 ranks of 16" in told.splitlines()[0]
    ours = ("export.json", "manifest.json", "report.txt")
    assert [p.name for p in sorted(out.iterdir()) if p.name not in ours] == [
        "chakra.0.et", "chakra.8.et", "groups.json", "ranks.json", "replay.yaml",
    ]  # fmt: skip
    again = captured(["run", str(out / "replay.yaml"), "--json", "-"])
    here = next(iter(json.loads(again)["cases"].values()))["step"]
    step = simulate_step(ersatz.load(SMALL)[0]).duration_s
    assert here["step_s"] == pytest.approx(step, rel=0.05)
    there = replay(out / "replay.yaml", {"cluster.node": "h20-8"})
    assert next(iter(there.values())).step.step_s > 1.5 * step  # 148 TFLOP/s, not 312
    # and by way of Chakra alone
    files = [str(out / f"chakra.{r}.et") for r in (0, 8)]
    told = captured(["import", *files, "--against", SMALL, "--out", str(tmp_path / "mine.yaml")])
    assert "Chakra" in told.splitlines()[0]
    mine = next(iter(replay(tmp_path / "mine.yaml").values()))
    assert mine.step.step_s == pytest.approx(here["step_s"], rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--as", "chakra"], "--out: expected a folder"),
        (["--as", "megatron", "--ranks", "0"], "--ranks: expected with --as chakra"),
        (["--as", "chakar", "--out", "x"], "--out: expected with --as chakra"),
    ],
)
def test_what_cannot_be_exported_is_said(arguments: list[str], words: str) -> None:
    assert words in captured(["export", SMALL, *arguments])
    with pytest.raises(ersatz.InputError, match="rank 99: expected 0 to 15"):
        export_step(SMALL, [99])
    with pytest.raises(ersatz.InputError, match=r"nodes: expected at most 1,000,000"):
        export_step("deepseek-v3-h800")
    with pytest.raises(ersatz.InputError, match="several kinds of device"):
        export_step("mixed-h800-910b", [0])


@pytest.mark.parametrize("data", [b"", b"\x00", b"hello", b"\xff" * 40, b"\x03abc\x05\x08\x01"])
def test_what_is_no_trace_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no nodes|no protobuf|ends in|wire"):
        read_chakra(data, "x.0.et")
