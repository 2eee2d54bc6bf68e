"""Kinds of input that are recorded steps: timelines of profilers, execution traces, recordings to replay.

An execution trace is mutated as a tree and then written in protobuf's wire format, by an own writer: what
cannot be said there is said in another field or type, as other writers might.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Mapping
from functools import cache
from struct import pack
from typing import Any

from ersatz.sim.emulate.foreign.chakra import read_chakra
from ersatz.sim.emulate.replaying.replay import ReplayFile, recording_text

from . import seeds
from .draw import draw_section
from .judge import Input
from .mutate import get, mutated, mutated_bytes, places, put, to_json, to_yaml
from .orders import delivery, maybe, options, word

NODES = ("h800-8", "h20-8", "ascend-910b2-8", "gb200-nvl72")
KERNEL = {"name": "mm", "category": "matrix", "kind": "matmul", "dtype": "bf16", "flop": 2e9,
          "nbytes": 4e6, "m": 1000.0, "n": 1000.0, "k": 1000.0}  # fmt: skip


# -- timelines -----------------------------------------------------------------------------------------


def _event(name: str, cat: str, start: float, dur: float, tid: int = 1, **args: Any) -> Any:
    return {"ph": "X", "name": name, "cat": cat, "pid": 0, "tid": tid, "ts": 5e6 + start, "dur": dur,
            "args": args}  # fmt: skip


KINETO: Any = {
    "deviceProperties": [{"id": 0, "name": "NVIDIA H800"}],
    "distributedInfo": {"backend": "nccl", "rank": 3, "world_size": 8},
    "traceEvents": [
        _event("ProfilerStep#2", "user_annotation", 0, 1000),
        _event("aten::mm", "cpu_op", 5, 12, **{
            "External id": 1, "Input Dims": [[4096, 8192], [8192, 1024]],
            "Input type": ["c10::BFloat16", "c10::BFloat16"]}),
        _event("cudaLaunchKernel", "cuda_runtime", 10, 5, correlation=11),
        _event("cudaDeviceSynchronize", "cuda_runtime", 800, 50),
        _event("sm90_xmma_gemm_bf16", "kernel", 50, 300, 7, correlation=11, stream=7, **{"External id": 1}),
        _event("flash_fwd_kernel", "kernel", 352, 20, 7, stream=7, **{"External id": 2}),
        _event("Memcpy DtoD (Device -> Device)", "gpu_memcpy", 375, 5, 7, stream=7, bytes=4096),
        _event("aten::scaled_dot_product_attention", "cpu_op", 20, 3, **{
            "External id": 2, "Input Dims": [[1, 16, 512, 64], [1, 16, 512, 64], [1, 16, 512, 64]],
            "Input type": ["c10::BFloat16", "c10::BFloat16", "c10::BFloat16"]}),
        _event("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", "kernel", 350, 400, 20, stream=20, **{
            "correlation": 12, "Collective name": "allreduce", "In msg nelems": 1000000,
            "Out msg nelems": 1000000, "dtype": "BFloat16", "Group size": 8,
            "Process Group Ranks": "[0, 1, 2, 3, 4, 5, 6, 7]",
            "Process Group Description": "DATA_PARALLEL_GROUP"}),
        _event("ncclDevKernel_SendRecv", "kernel", 760, 4, 21, stream=21, **{
            "Group size": 2, "Process Group Ranks": "[3, 7]", "In msg nelems": 1000, "dtype": "Float"}),
        {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "python"}},
    ],
}  # fmt: skip
PROCESSOR: Any = {"traceEvents": [  # no device at all
    _event("aten::linear", "cpu_op", 0, 100, **{
        "Input Dims": [[8, 16], [4, 16]], "Input type": ["float", "float"]}),
    _event("aten::addmm", "cpu_op", 20, 70, **{
        "Input Dims": [[4], [8, 16], [16, 4]], "Input type": ["float", "float", "float"]}),
    _event("aten::relu", "cpu_op", 120, 30),
]}  # fmt: skip


def _named(what: str, pid: int, name: str, **more: Any) -> Any:
    return {"ph": "M", "name": what, "pid": pid, "args": {"name": name}, **more}


def _task(name: str, pid: int, tid: int, start: str, dur: float, **args: Any) -> Any:
    return {"ph": "X", "name": name, "pid": pid, "tid": tid, "ts": start, "dur": dur, "args": args}


MSPROF: Any = [
    _named("process_name", 1, "Python"),
    _named("process_name", 2, "Ascend Hardware"),
    _named("process_name", 3, "HCCL"),
    _named("thread_name", 3, "Group 0 Communication", tid=0),
    _named("thread_name", 3, "Plane 0", tid=1),
    _task("ProfilerStep#9", 1, 1, "1000000.000", 1000.0),
    _task("MatMulV2", 2, 2, "1000000.000", 400.0, **{"Task Type": "AI_CORE", "Physic Stream Id": 2}),
    _task("FlashAttentionScore", 2, 2, "1000400.000", 200.0, **{"Task Type": "MIX_AIC", "Stream Id": 2}),
    _task("EVENT_WAIT", 2, 2, "1000600.000", 300.0, **{"Task Type": "EVENT_WAIT"}),
    _task("hcom_allGather__731_0_1", 3, 0, "1000500.000", 400.0, **{
        "size(Byte)": 1048576, "rank_size": 8, "rank_id": 2}),
    _task("Memcpy", 3, 1, "1000500.000", 350.0, **{"size(Byte)": 99}),
]  # fmt: skip


# -- execution traces -----------------------------------------------------------------------------------


def _node(number: int, name: str, kind: int, deps: list[int], micros: int, **attrs: Any) -> Any:
    return {"id": number, "name": name, "kind": kind, "deps": deps, "start": 100 * number,
            "micros": micros, "attrs": attrs}  # fmt: skip


_GROUPS = '{"1": [0, 1, 2, 3], "2": [0, 1, 3]}'
OURS: Any = {"version": "0.0.4", "about": {"rank": 1, "groups": _GROUPS}, "nodes": [
    _node(0, "mm", 4, [], 100, is_cpu_op=False, stream=0, duration_ns=100000, launch_ns=5000, work=0,
          num_ops=2 * 10**9, tensor_size=4 * 10**6, category="matrix", kernel=json.dumps(KERNEL)),
    _node(1, "all_reduce", 7, [0], 50, is_cpu_op=False, stream=1, duration_ns=50000, launch_ns=5000,
          work=1, comm_type=0, comm_size=2000000, pg_name="1", category="data parallel"),
    _node(2, "all_gather", 7, [], 50, is_cpu_op=False, stream=1, duration_ns=50000, launch_ns=5000,
          work=2, comm_type=2, comm_size=2000, pg_name="2", category="tensor parallel"),
    _node(3, "send", 5, [0], 20, is_cpu_op=False, stream=2, duration_ns=20000, launch_ns=5000, work=3,
          comm_src=1, comm_dst=3, comm_size=1000, comm_tag=1, category="pipeline"),
    _node(4, "recv", 6, [], 20, is_cpu_op=False, stream=2, duration_ns=20000, launch_ns=5000, work=4,
          comm_src=3, comm_dst=1, comm_size=1000, comm_tag=1, category="bubble"),
    _node(5, "mm", 4, [1], 100, is_cpu_op=False, stream=0, duration_ns=100000, launch_ns=5000, work=0,
          num_ops=2 * 10**9, tensor_size=4 * 10**6, host="[[[1], 2000, true]]"),
    _node(6, "copy", 4, [5], 7, is_cpu_op=False, stream=3, duration_ns=7000, launch_ns=5000, work=5,
          tensor_size=1000, category="copy"),
]}  # fmt: skip
THEIRS: Any = {"version": "0.0.4", "about": {"schema": "1.1.1-chakra.0.0.4"}, "nodes": [
    {"id": 1, "name": "## process_group:init ##", "kind": 1, "inputs":
     "['[{\"pg_name\": \"0\", \"pg_desc\": \"default_pg\", \"ranks\": [0, 1], \"group_size\": 2}]']"},
    _node(2, "aten::mm", 4, [1], 8, is_cpu_op=True),
    _node(3, "gemm", 4, [2], 100, is_cpu_op=False, num_ops=2 * 10**9, tensor_size=4 * 10**6, stream=7),
    _node(4, "ncclDevKernel_AllReduce", 7, [3], 50, is_cpu_op=False, comm_type=0,
          comm_size=2000000, pg_name="0"),
    _node(5, "memory", 2, [3], 3),
]}  # fmt: skip
FIELDS = {
    "id": 1,
    "name": 2,
    "kind": 3,
    "deps": 5,
    "start": 6,
    "micros": 7,
    "inputs": 8,
    "attrs": 10,
}


def et_bytes(tree: Any) -> bytes:
    """Write a tree as an execution trace: a message for what it says of itself, and one per node."""
    tree = tree if isinstance(tree, dict) else {"nodes": tree}
    nodes = tree.get("nodes")
    parts = [_field(1, str(tree.get("version", ""))), *_attrs(2, tree.get("about"))]
    found = [_framed(b"".join(parts))]
    for node in nodes if isinstance(nodes, list) else [nodes]:
        rows = node.items() if isinstance(node, dict) else [("name", node)]
        said = [_attrs(10, v) if k == "attrs" else [_known(k, v)] for k, v in rows]
        found.append(_framed(b"".join(part for row in said for part in row)))
    return b"".join(found)


def _known(key: Any, value: Any) -> bytes:
    number = FIELDS.get(str(key), 15)
    return _message(8, _field(1, value)) if number == 8 else _field(number, value)


def _attrs(number: int, attrs: Any) -> list[bytes]:
    """Return the attributes of a message, each of the type that its value has."""
    rows = attrs.items() if isinstance(attrs, dict) else [("", attrs)] if attrs is not None else []
    of = {bool: 27, int: 9, float: 7, str: 29}
    return [
        _message(number, _field(1, str(k)) + _field(of.get(type(v), 30), v)) for k, v in rows
    ]  # a list is of another type yet


def _field(number: int, value: Any) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(int(value))
    if isinstance(value, float):
        return _varint(number << 3 | 1) + pack("<d", value)
    if isinstance(value, list) and all(isinstance(v, int) for v in value):
        return _message(number, b"".join(map(_varint, value)))
    text = value if isinstance(value, str) else to_json(value).decode()[:5000]
    return _message(number, text.encode("utf-8", "replace"))


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _framed(content: bytes) -> bytes:
    return _varint(len(content)) + content


# -- changes --------------------------------------------------------------------------------------------


def changed(tree: Any, rng: random.Random) -> Any:
    """Change a tree, or what a text in it says as JSON."""
    if rng.random() < 0.2:
        inner = [
            p
            for p in places(tree)
            if isinstance(v := get(tree, p), str) and v[:1] in "[{" and len(v) > 2
        ]
        if inner:
            tree = json.loads(json.dumps(tree))
            path = rng.choice(inner)
            try:
                row = json.loads(get(tree, path))
                put(tree, path, to_json(mutated(row, [row], rng)).decode())
            except ValueError:  # in Python's notation
                put(
                    tree,
                    path,
                    mutated_bytes(get(tree, path).encode(), rng).decode("utf-8", "replace"),
                )
            return tree
    return mutated(tree, [tree], rng)


def _json_file(tree: Any, rng: random.Random, files: dict[str, bytes], stem: str) -> str:
    """Add a file of a timeline, packed now and then; returns its name."""
    raw = to_json(tree)
    raw = mutated_bytes(raw, rng) if rng.random() < 0.05 else raw
    if rng.random() < 0.85:
        files[f"{stem}.json"] = raw
        return f"{stem}.json"
    packed = gzip.compress(raw, mtime=0)
    files[f"{stem}.json.gz"] = mutated_bytes(packed, rng) if rng.random() < 0.3 else packed
    return f"{stem}.json.gz"


def _imported(kind: str, files: dict[str, bytes], names: list[str], rng: random.Random) -> Input:
    more = maybe(rng, 0.5, "--node", word(rng, NODES, 0.05))
    if rng.random() < 0.4:
        files["other.yaml"] = seeds.BESIDE.encode()
        more = (*more, "--against", "@/other.yaml")
    where = rng.choice((("--json", "-"), ("--json", "@/o.json"), ("--out", "@/o.yaml"), ()))
    return Input(kind, files, ("import", *(f"@/{name}" for name in names), *more, *where))


def kineto(rng: random.Random) -> Input:
    """A timeline of PyTorch's profiler."""
    files: dict[str, bytes] = {}
    tree = changed(rng.choice((KINETO, KINETO, KINETO, PROCESSOR)), rng)
    names = [_json_file(tree, rng, files, "itself")]
    if rng.random() < 0.1:
        names.append(_json_file(KINETO, rng, files, "second"))
    return _imported("kineto", files, names, rng)


def msprof(rng: random.Random) -> Input:
    """A timeline of Ascend's profiler."""
    files: dict[str, bytes] = {}
    return _imported("msprof", files, [_json_file(changed(MSPROF, rng), rng, files, "itself")], rng)


def chakra(rng: random.Random) -> Input:
    """An execution trace, ours or another's."""
    raw = et_bytes(changed(rng.choice((OURS, OURS, THEIRS)), rng))
    files = {"itself.1.et": mutated_bytes(raw, rng) if rng.random() < 0.15 else raw}
    if rng.random() < 0.15:
        tree = mutated(OURS, [OURS], rng) | {"about": {"rank": 3, "groups": "{}"}}
        files["itself.3.et"] = et_bytes(tree)
    return _imported("chakra", files, sorted(files), rng)


# -- recordings ------------------------------------------------------------------------------------------

REPLAY = """
question: How long elsewhere?
emulated: ranks.json
stack: torch-eager
cluster: {node: h800-8, nodes: 1}
training: {tokens_per_step: 65536, tokens: 1 B tokens, parameters: 1000000}
job: {replicas: 2}
cost: {rent: 20 CNY/h}
cases: {base: {}, other: {cluster: {node: h20-8}}}
"""


@cache
def recorded() -> Any:
    """Return a recording of two ranks that send each other something."""
    ranks = []
    for rank in (1, 3):
        tree = json.loads(json.dumps(OURS))
        tree["about"]["rank"] = rank
        for node in tree["nodes"]:
            if rank == 3 and node["kind"] in (5, 6):  # what one sends the other receives
                node["kind"] = 11 - node["kind"]
        ranks.append(read_chakra(et_bytes(tree), f"x.{rank}.et").trace)
    return json.loads(recording_text("train.py", 4, ranks))


def recording(rng: random.Random) -> Input:
    """What an emulation recorded, and the file that replays it elsewhere."""
    tree, data = seeds.tree(REPLAY), recorded()
    if rng.random() < 0.5:
        drawn = draw_section(ReplayFile, rng)
        tree = mutated(tree, [tree, drawn], rng)
    else:
        data = mutated(data, [data], rng)
    files = {"itself.yaml": to_yaml(tree), "ranks.json": to_json(data)}
    return Input("recording", files, ("run", "@/itself.yaml", *options(rng), *delivery(rng)))


def exported(rng: random.Random) -> Input:
    """A scenario, changed, whose step is written as execution traces."""
    trees = [seeds.tree(text) for text in (seeds.RUN, seeds.EXPERTS, seeds.BESIDE, seeds.ORDERS)]
    files = {"itself.yaml": to_yaml(mutated(rng.choice(trees), trees, rng))}
    ranks = maybe(rng, 0.7, "--ranks", word(rng, ("0", "0,1", "3", "7,0", "1,1")))
    where = rng.choice(
        (("--out", "@/o"), ("--out", "@/o"), ("--json", "@/o.json"), ("--json", "-"), ())
    )
    return Input(
        "export-chakra", files, ("export", "@/itself.yaml", "--as", "chakra", *ranks, *where)
    )


KINDS = {
    "kineto": kineto,
    "msprof": msprof,
    "chakra": chakra,
    "recording": recording,
    "export-chakra": exported,
}
SEEDS: Mapping[str, Mapping[str, bytes]] = {  # sound files, and how each is read
    "kineto": {"itself.json": to_json(KINETO)},
    "processor": {"itself.json": to_json(PROCESSOR)},
    "msprof": {"itself.json": to_json(MSPROF)},
    "ours": {"itself.1.et": et_bytes(OURS)},
    "theirs": {"itself.1.et": et_bytes(THEIRS)},
}
