"""Steps that other tools recorded: read to the microsecond, beside a prediction, and run elsewhere."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import ersatz
from ersatz.sim.answers.emulate import replay
from ersatz.sim.answers.steps import classed, read_steps
from ersatz.sim.cli.output import captured
from ersatz.sim.emulate.foreign.names import category_of, cause_of, collective_of
from ersatz.sim.emulate.foreign.reading import is_trace, read_step
from ersatz.sim.emulate.foreign.shapes import kernel_of
from ersatz.sim.emulate.trace import Ranks
from ersatz.sim.errors import InputError
from ersatz.sim.step.program import COMPUTE, STREAMS
from ersatz.sim.step.ranks.timeline import step_timeline
from ersatz.sim.step.ranks.writer import WAIT
from ersatz.sim.step.step import simulate_step

BEGIN = 5_000_000.0  # us


def event(
    name: str, cat: str, start: float, dur: float, tid: object = 1, **args: Any
) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": name,
        "cat": cat,
        "pid": 0,
        "tid": tid,
        "ts": BEGIN + start,
        "dur": dur,
        "args": args,
    }


GROUP = {"Collective name": "allreduce", "In msg nelems": 1_000_000, "Out msg nelems": 1_000_000,
         "dtype": "BFloat16", "Group size": 8, "Process Group Ranks": "[0, 1, 2, 3, 4, 5, 6, 7]",
         "Process Group Description": "DATA_PARALLEL_GROUP"}  # fmt: skip
KINETO = {
    "deviceProperties": [{"id": 0, "name": "NVIDIA H800"}],
    "distributedInfo": {"backend": "nccl", "rank": 3, "world_size": 8},
    "traceEvents": [
        event("ProfilerStep#1", "user_annotation", -1000, 1000),
        event("ProfilerStep#2", "user_annotation", 0, 1000),
        event("ProfilerStep#2", "gpu_user_annotation", 50, 900, 7),
        event("aten::mm", "cpu_op", 5, 12, **{"External id": 1, "Input Dims": [[4096, 8192], [8192, 1024]],
                                              "Input type": ["c10::BFloat16", "c10::BFloat16"]}),
        event("aten::gelu", "cpu_op", 24, 4, **{"External id": 3, "Input Dims": [[4096, 1024]],
                                                "Input type": ["c10::BFloat16"]}),
        event("cudaLaunchKernel", "cuda_runtime", 10, 5, correlation=11),
        event("cudaLaunchKernelExC", "cuda_runtime", 17, 3, correlation=12),
        event("cudaLaunchKernel", "cuda_runtime", 25, 5, correlation=13),
        event("cudaLaunchKernel", "cuda_runtime", 35, 5, correlation=14),
        event("sm90_xmma_gemm_bf16", "kernel", 50, 300, 7, correlation=11, stream=7, **{"External id": 1}),
        event("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", "kernel", 350, 400, 20, correlation=12, stream=20,
              **GROUP),
        event("vectorized_elementwise_kernel<4, GeluFunctor>", "kernel", 400, 100, 7, correlation=13,
              stream=7, **{"External id": 3}),
        event("multi_tensor_apply_kernel<adam>", "kernel", 750, 200, 7, correlation=14, stream=7),
        event("of the step before", "kernel", 20, 10, 7, correlation=10, stream=7),
        event("cudaLaunchKernel", "cuda_runtime", -20, 5, correlation=10),
        event("aten::mm", "cpu_op", -900, 1, **{"External id": 1}) | {"ph": "i"},
        {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "python"}}, {"ph": "s", "ts": "x"}, 7,
    ],
}  # fmt: skip


def written(folder: Path, data: object, name: str = "trace.json") -> Path:
    text = json.dumps(data).encode()
    (folder / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    return folder / name


@pytest.mark.parametrize("name", ["trace.json", "rank3.pt.trace.json.gz"])
def test_a_step_of_kineto_in_words(tmp_path: Path, name: str) -> None:
    """300 us of a product, 100 of an activation beside an all-reduce of 400, 200 of Adam, in a step of 1,000.

    The all-reduce runs alone for 50 and 250 us: so much of it is exposed. 100 us nothing runs. What was
    launched in the step before is none of it. Replayed, nothing keeps the product from beginning when
    it is launched, at 15 us: it ends at 315, the all-reduce at 715, Adam at 915.
    """
    file = written(tmp_path, KINETO, name)
    assert is_trace(file)
    step = read_step(file)
    assert (step.format, step.trace.rank, step.world, step.device) == (
        "Kineto",
        3,
        8,
        "NVIDIA H800",
    )
    assert step.measured_s == pytest.approx(1e-3)
    us = {cause: 1e6 * seconds for cause, seconds in step.causes.items()}
    assert us == pytest.approx(
        {"matrix": 300, "elementwise": 100, "optimizer": 200, "data parallel": 300, "idle": 100}
    )
    assert step.trace.step_s[-1] == pytest.approx(915e-6)
    tasks = {t.category: t for t in step.trace.table}
    product, summed = tasks["matrix"].kernel, tasks["data parallel"]
    assert product is not None
    assert (product.m, product.k, product.n, product.dtype) == (4096, 8192, 1024, "bf16")
    assert (summed.collective, summed.nbytes, summed.ranks) == ("all_reduce", 2e6, Ranks(0, 1, 8))
    assert tasks["elementwise"].kernel.nbytes == 2 * 2 * 4096 * 1024  # type: ignore[union-attr]
    assert "0.2 ms a step have no shapes" in step.said[0]  # Adam, whose lists of tensors have none


def test_what_a_collective_does_not_tell_is_said(tmp_path: Path) -> None:
    """A list of ranks that Kineto cut, an element of no known type, a name that tells no kind."""
    data = json.loads(json.dumps(KINETO))
    summed = next(e for e in data["traceEvents"] if isinstance(e, dict) and "AllReduce" in str(e))
    summed["name"] = "ncclDevKernel_New"
    summed["args"] |= {
        "Process Group Ranks": "[0, 1, ...]",
        "dtype": "Posit8",
        "Collective name": "",
    }
    step = read_step(written(tmp_path, data, "trace.json"))
    assert step.said[-3:] == (
        "1 collectives have a name that tells no kind: taken as messages between two ranks",
        "1 collectives do not say the type of what they send: taken as 16 bits each",
        "1 collectives say how many ranks talk, not which: taken as neighbours",
    )


ASCEND = [
    {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "Python"}},
    {"ph": "M", "name": "process_name", "pid": 2, "args": {"name": "Ascend Hardware"}},
    {"ph": "M", "name": "process_name", "pid": 3, "args": {"name": "HCCL"}},
    {"ph": "M", "name": "process_name", "pid": 4, "args": {"name": "Overlap Analysis"}},
    {"ph": "M", "name": "thread_name", "pid": 3, "tid": 0, "args": {"name": "Group 0 Communication"}},
    {"ph": "M", "name": "thread_name", "pid": 3, "tid": 1, "args": {"name": "Plane 0"}},
    {"ph": "X", "name": "ProfilerStep#9", "pid": 1, "tid": 1, "ts": "1000000.000", "dur": 1000.0},
    {"ph": "X", "name": "MatMulV2", "pid": 2, "tid": 2, "ts": "1000000.000", "dur": 400.0,
     "args": {"Task Type": "AI_CORE", "Physic Stream Id": 2}},
    {"ph": "X", "name": "FlashAttentionScore", "pid": 2, "tid": 2, "ts": "1000400.000", "dur": 200.0,
     "args": {"Task Type": "MIX_AIC", "Physic Stream Id": 2}},
    {"ph": "X", "name": "EVENT_WAIT", "pid": 2, "tid": 2, "ts": "1000600.000", "dur": 300.0,
     "args": {"Task Type": "EVENT_WAIT", "Physic Stream Id": 2}},
    {"ph": "X", "name": "hcom_allGather__731_0_1", "pid": 3, "tid": 0, "ts": "1000500.000", "dur": 400.0,
     "args": {"size(Byte)": 1048576}},
    {"ph": "X", "name": "Memcpy", "pid": 3, "tid": 1, "ts": "1000500.000", "dur": 350.0,
     "args": {"size(Byte)": 99}},
    {"ph": "X", "name": "Communication(Not Overlapped)", "pid": 4, "tid": 2, "ts": "1000600.000", "dur": 300.0},
]  # fmt: skip


def test_a_step_of_msprof_in_words(tmp_path: Path) -> None:
    """400 us of a product, 200 of attention; an all-gather from 500 to 900: 300 exposed, as Ascend says, too."""
    step = read_step(written(tmp_path, ASCEND, "trace_view.json"), {16: "tensor parallel"})
    us = {cause: 1e6 * seconds for cause, seconds in step.causes.items()}
    assert us == pytest.approx({"matrix": 400, "attention": 200, "all_gather": 300, "idle": 100})
    assert step.format == "msprof"
    assert any("take as long elsewhere" in words for words in step.said)


def test_a_step_on_a_cpu_is_its_innermost_operators(tmp_path: Path) -> None:
    data = {"traceEvents": [
        event("aten::linear", "cpu_op", 0, 100, **{"Input Dims": [[8, 16], [4, 16]], "Input type": ["float", "float"]}),
        event("aten::t", "cpu_op", 5, 5), event("aten::addmm", "cpu_op", 20, 70, **{
            "Input Dims": [[4], [8, 16], [16, 4]], "Input type": ["float", "float", "float"]}),
        event("aten::relu", "cpu_op", 120, 30),
    ]}  # fmt: skip
    step = read_step(written(tmp_path, data))
    us = {cause: 1e6 * seconds for cause, seconds in step.causes.items()}
    assert us == pytest.approx({"elementwise": 35, "matrix": 70, "idle": 40})  # from 5 on
    product = next(t.kernel for t in step.trace.table if t.category == "matrix")
    assert product is not None
    assert (product.m, product.n, product.k, product.dtype) == (8, 4, 16, "fp32")


NAMES = {"matrix": "gemm", "attention": "flash_fwd", "experts": "grouped_gemm", "permute": "permute", "cast": "cast",
         "vocabulary": "cross_entropy", "optimizer": "adam", "elementwise": "add", "contention": "add"}  # fmt: skip


def test_a_simulated_step_told_as_kineto_is_its_own_prediction(tmp_path: Path) -> None:
    """What the timeline of a predicted rank holds, in Kineto's words, gives back the step's breakdown."""
    case = ersatz.load("qwen2.5-72b-16x80")[0]
    [line] = step_timeline(case, [5]).lines
    step = simulate_step(case)
    events = [event("ProfilerStep#1", "user_annotation", 0, 1e6 * step.duration_s)]
    for piece in line.pieces:
        if piece.seconds <= 0 or piece.phase == WAIT or piece.stream == 0:
            continue
        sent = piece.work.sent if piece.work else None
        said = {"Collective name": sent.kind, "Group size": sent.group.size,
                "Process Group Description": piece.category, "dtype": "byte", "In msg nelems": sent.nbytes} if sent else {}  # fmt: skip
        name = f"ncclDevKernel_{sent.kind}" if sent else NAMES[piece.category]
        events.append(event(name, "kernel", 1e6 * piece.start_s, 1e6 * piece.seconds, stream=STREAMS[piece.stream],
                            **said))  # fmt: skip
        assert piece.stream == COMPUTE or sent
    file = written(
        tmp_path, {"traceEvents": events, "distributedInfo": {"rank": 5, "world_size": 16}}
    )
    answer = read_steps(file, against=case)
    beside = answer.to_dict()["against"]
    assert beside["measured_s"] == pytest.approx(beside["predicted_s"], rel=1e-9)
    for row in beside["rows"]:
        assert row["measured_s"] == pytest.approx(row["predicted_s"], abs=2e-4 * step.duration_s), (
            row
        )
    told = captured(["import", str(file), "--against", "qwen2.5-72b-16x80"])
    took = f"{step.duration_s:.2f} s"
    assert f"predicted {took}, +0.0 % against the measured {took}" in " ".join(
        told.splitlines()[:3]
    )
    assert max(map(len, told.splitlines())) <= 100


def test_a_recorded_step_runs_on_other_devices(tmp_path: Path) -> None:
    file = written(tmp_path, KINETO)
    out = tmp_path / "mine.yaml"
    assert "--node: expected where it was measured" in captured(
        ["import", str(file), "--out", str(out)]
    )
    captured(["import", str(file), "--node", "h800-8", "--out", str(out)])
    (here,) = replay(out).values()
    (there,) = replay(out, {"cluster.node": "h20-8"}).values()
    assert here.step.world == 8
    # the product of 2 x 4096 x 8192 x 1024 FLOPs takes longer on a device with a sixth of them a second
    assert there.step.breakdown["matrix"] > 4 * here.step.breakdown["matrix"]


def test_names_of_kernels_and_groups() -> None:
    for name, category in {
        "nvjet_tst_128x256_64x4_2x1": "matrix", "Cijk_Ailk_Bljk_BBS": "matrix", "GroupedMatmul": "experts",
        "flash_fwd_kernel": "attention", "FusedAdamW": "optimizer", "MoeTokenPermute": "permute",
        "rmsnorm_fwd": "elementwise", "Cast": "cast", "_cross_entropy_kernel": "vocabulary",
    }.items():  # fmt: skip
        assert category_of(name) == category, name
    for name, kind in {
        "ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL": "reduce_scatter", "_allgather_base": "all_gather",
        "hcom_alltoallv_": "all_to_all", "ncclDevKernel_SendRecv": "send", "allreduce_coalesced": "all_reduce",
    }.items():  # fmt: skip
        assert collective_of(name) == kind, name
    assert cause_of("all_reduce", "TENSOR_MODEL_PARALLEL_GROUP", 8, {}) == "tensor parallel"
    assert cause_of("all_gather", "DATA_PARALLEL_GROUP_WITH_CP", 8, {}) == "data parallel"
    assert cause_of("all_to_all", "EXPERT_MODEL_PARALLEL_GROUP", 8, {}) == "expert parallel"
    assert cause_of("all_reduce", "EXPERT_DATA_PARALLEL_GROUP", 8, {}) == "data parallel"
    assert cause_of("all_gather", "", 64, {64: "data parallel"}) == "data parallel"
    assert cause_of("all_gather", "", 64, {}) == "all_gather among 64"  # not guessed
    assert classed({"matrix": 1.0, "experts": 2.0, "cast": 3.0, "all_gather among 64": 4.0}) == {
        "products and vocabulary": 3.0, "other kernels": 3.0, "all_gather among 64": 4.0,
    }  # fmt: skip


def test_shapes_of_operators() -> None:
    """Attention of 2 x 32 heads over 4,096 tokens of 128: 2 products, halved, of 2 FLOPs: 2 x 2 x 32 x 4096^2 x 128."""
    half = kernel_of(
        "aten::_scaled_dot_product_flash_attention", [[2, 32, 4096, 128]] * 3, ["c10::Half"] * 3
    )
    assert half is not None
    assert (half.kind, half.flop, half.dtype) == ("attention", 2.0 * 2 * 32 * 4096**2 * 128, "fp16")
    turned = kernel_of(
        "aten::_flash_attention_forward", [[2, 4096, 32, 128]] * 3, ["c10::Half"] * 3
    )
    assert turned is not None
    assert turned.flop == half.flop
    many = kernel_of("aten::bmm", [[6, 10, 20], [6, 20, 30]], ["c10::BFloat16"] * 2)
    assert many is not None
    assert (many.groups, many.m, many.n, many.k) == (6, 10, 30, 20)
    assert kernel_of("aten::relu", None, None) is None
    assert kernel_of("aten::relu", [[-1]], []) is None
    empty = kernel_of("aten::addmm", [[4], [3, 0], [0, 4]], ["float"] * 3)  # a product of nothing
    assert empty is not None
    assert (empty.kind, empty.flop, empty.nbytes) == ("memory", 0.0, 32.0)
    for nobody in (10**30, 10**400):
        assert kernel_of("aten::mm", [[nobody, 2], [2, nobody]], ["float"] * 2) is None


BAD: dict[str, Any] = {
    "nothing": {"traceEvents": []}, "no list": {"traceEvents": 3}, "no times": {"traceEvents": [
        {"ph": "X", "name": "k", "cat": "kernel", "ts": "soon", "dur": 1}]},
    "for ever": {"traceEvents": [{"ph": "X", "name": "k", "cat": "kernel", "ts": 1, "dur": -5}]},
    "ours": {"traceEvents": [{"ph": "X"}], "otherData": {"made_by": "ersatz"}},
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_step_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ersatz.InputError, match="expected a trace of PyTorch's profiler"):
        read_step(written(tmp_path, BAD[name]))


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    file = written(tmp_path, KINETO)
    with pytest.raises(ersatz.InputError, match="rank 3 twice"):
        read_steps(file, file)
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b'{"traceEvents": [')[:-9])
    with pytest.raises(ersatz.InputError, match="expected a trace"):
        read_step(tmp_path / "cut.json.gz")
    assert not is_trace(tmp_path / "missing.json")
    script = tmp_path / "x.sh"
    script.write_text("torchrun x.py")
    assert "--against: expected with a recorded step" in captured(
        ["import", str(script), "--against", "x"]
    )


def test_a_trace_of_more_ranks_than_there_can_be_is_refused(tmp_path: Path) -> None:
    """What is read is what a recording can hold: a group told of rank 1e308, and the copy was none."""
    event = {"ph": "X", "name": "ncclDevKernel_AllReduce", "cat": "kernel", "ts": 5.0, "dur": 1.0,
             "args": {"Process Group Ranks": "[2, 1e+308]"}}  # fmt: skip
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": [event]}))
    with pytest.raises(InputError, match="expected a number of ranks"):
        read_step(path)
