"""Recorded steps: ranks side by side, other devices and networks, and files that cannot be believed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ersatz.device_models.kernels.kernel import calibrated_time, matmul
from ersatz.sim.answers.emulate import replay
from ersatz.sim.emulate.network import Network
from ersatz.sim.emulate.replaying.chakra import chakra_files
from ersatz.sim.emulate.replaying.replay import recording_text
from ersatz.sim.emulate.replaying.together import together
from ersatz.sim.emulate.trace import Ranks, Recorder, Task, Trace
from ersatz.sim.emulate.virtual_device import seated_node
from ersatz.sim.errors import InputError

MEMORY = {"peak_allocated": 2**30, "peak_reserved": 2**30, "capacity": 2**36, "ooms": 0}
FACTS = {"policies": {}, "reads": {}, "notes": [], "steps": 2, "cpu_s": 0.0, "rss_bytes": 0.0,
         "surface_assumed": "", "unknown": {}, "parameters": 1000}  # fmt: skip
Row = tuple[str, float]  # "work", "meet", "send 1", "recv 0", and seconds


def trace_of(rank: int, rows: Sequence[Row], group: Ranks = Ranks(0, 1, 2)) -> Trace:  # noqa: B008
    """Return a step of work, meetings of a group, and messages, one after the other."""
    recorder = Recorder()
    recorder.end_step()
    for i, (words, seconds) in enumerate(rows):
        kind, _, peer = words.partition(" ")
        if kind == "work":
            task = Task("mm", "matrix", seconds, matmul("mm", 1024, 1024, 1024, "bf16"))
        elif kind == "meet":
            task = Task("all_reduce", "all_reduce", seconds, None, "all_reduce", 1e8, group)
        else:
            pair = Ranks(min(rank, int(peer)), abs(rank - int(peer)), 2)
            task = Task(kind, "send", seconds, None, "send", 1e6, pair, int(peer))
        recorder.clock.run(0, recorder.number(i, task), seconds, 0.0)
    recorder.end_step()
    return Trace(rank, tuple(recorder.table), tuple(recorder.clock.entries), tuple(recorder.marks),
                 (recorder.clock.drained,), {0: "compute"}, MEMORY, FACTS)  # fmt: skip


def test_a_collective_begins_with_the_last_of_its_ranks() -> None:
    """1 s and 3 s of work, then 2 s together: both end at 5 s, and the first has waited 2 s."""
    fast = trace_of(0, [("work", 1.0), ("meet", 2.0)])
    slow = trace_of(1, [("work", 3.0), ("meet", 2.0)])
    fast, slow = together([fast, slow], 0.0)
    assert (fast.step_s, slow.step_s) == ((5.0,), (5.0,))
    assert [t.waited for t in fast.table] == [0.0, 0.0, 2.0]
    assert not any(t.waited for t in slow.table)


def test_a_message_has_come_when_it_was_sent() -> None:
    """Rank 0 works 4 s and sends for 1: rank 1 gets it at 5, works 2 and answers; rank 0 ends at 8."""
    first = trace_of(0, [("work", 4.0), ("send 1", 1.0), ("recv 1", 1.0)])
    second = trace_of(1, [("recv 0", 1.0), ("work", 2.0), ("send 0", 1.0)])
    one, other = together([first, second], 0.0)
    assert (one.step_s, other.step_s) == ((8.0,), (8.0,))
    assert [t.step_s for t in together([one, other], 0.0)] == [(8.0,), (8.0,)]  # waits are not kept


def test_groups_met_in_other_orders_and_messages_never_sent_end_all_the_same() -> None:
    one = trace_of(0, [("meet", 1.0), ("recv 1", 1.0), ("work", 1.0)])
    other = trace_of(1, [("work", 1.0), ("work", 1.0)])
    assert [t.step_s[0] for t in together([one, other], 0.0)] == [3.0, 2.0]


def written(folder: Path, world: int = 16, **changes: object) -> Path:
    """Write a recording of one rank, and a file that replays it."""
    trace = trace_of(0, [("work", 1.0), ("meet", 1.0)], Ranks(0, 1, world))
    (folder / "ranks.json").write_text(recording_text("train.py", world, [trace]))
    data = {"question": "How long?", "emulated": "ranks.json", "stack": "torch-eager",
            "cluster": {"node": "h800-8", "nodes": 2}, **changes}  # fmt: skip
    (folder / "replay.yaml").write_text(yaml.safe_dump(data))
    return folder / "replay.yaml"


@pytest.mark.parametrize("node", ["h800-8", "ascend-910b2-8", "mi300x-8"])
def test_a_step_elsewhere_is_its_kernels_and_collectives_there(node: str, tmp_path: Path) -> None:
    found, stack = seated_node(node, 2, "torch-eager")
    kernel = calibrated_time(found.device, matmul("mm", 1024, 1024, 1024, "bf16"))
    summed = Network(found, stack, 16).seconds("all_reduce", 1e8, Ranks(0, 1, 16))
    (result,) = replay(written(tmp_path), {"cluster.node": node}).values()
    assert result.step.step_s == pytest.approx(kernel + summed, rel=1e-6)
    assert result.job is None


def test_a_job_of_recorded_steps_costs_what_its_devices_do(tmp_path: Path) -> None:
    """1e9 tokens in steps of 1e4 are 100,000 steps; nothing fails, and each device-hour is 2 USD."""
    training = {"tokens_per_step": 10_000, "tokens": "1e9 tokens", "parameters": 1000}
    job = {"failures": {"scale": 0}, "spare_nodes": 0}
    cost = {"model": "rent", "currency": "USD", "rent": "2 USD/h"}
    path = written(tmp_path, training=training, job=job, cost=cost)
    (result,) = replay(path).values()
    assert result.job.steps == 100_000
    assert result.job.productive_s == pytest.approx(100_000 * result.step.step_s)
    assert result.cost.total == pytest.approx(2 * 16 * result.job.wall_s / 3600)


def test_cases_stand_side_by_side_and_two_replays_are_the_same_bytes(tmp_path: Path) -> None:
    path = written(tmp_path, cases={"here": {}, "there": {"cluster": {"node": "mi300x-8"}}})
    one, two = replay(path), replay(path)
    assert list(one) == ["here", "there"]
    assert one.to_json() == two.to_json()
    assert "there" in str(one)


def test_devices_with_less_memory_are_infeasible(tmp_path: Path) -> None:
    path = written(tmp_path)
    data = json.loads((tmp_path / "ranks.json").read_text())
    data["ranks"][0]["memory"]["peak_allocated"] = 100 * 2**30
    (tmp_path / "ranks.json").write_text(json.dumps(data))
    found = replay(path)
    assert not found.feasible
    assert "100.0 GiB" in found.reasons[0]


WRONG = {
    "too few devices": (
        {"cluster": {"node": "h800-8", "nodes": 1}},
        "expected at least 2: 16 ranks",
    ),
    "no training": ({"training": {"tokens": "1 T tokens"}}, "tokens_per_step and parameters"),
    "too large": (
        {"training": {"tokens_per_step": 10**40, "parameters": 10**400}},
        "less than or equal",
    ),
    "no file": ({"emulated": "elsewhere.json"}, "elsewhere.json"),
    "a key": ({"parallel": {"tp": 2}}, "parallel"),
    "inference": ({"cluster": {"node": "hanguang-800-8", "nodes": 2}}, "inference chip"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_files_that_cannot_be_replayed_are_refused(case: str, tmp_path: Path) -> None:
    changes, words = WRONG[case]
    with pytest.raises(InputError, match=words):
        replay(written(tmp_path, **changes))


def product_of(data: dict[str, Any]) -> dict[str, Any]:
    """Return the kernel of the first product in a table of work."""
    kernels = (task["kernel"] for task in data["ranks"][0]["table"])
    return next(kernel for kernel in kernels if kernel and kernel["kind"] == "matmul")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("ranks"),
        lambda d: d.update(ersatz_recording=9),
        lambda d: d.update(ranks=[]),
        lambda d: d["ranks"][0]["entries"][1].__setitem__(1, 77),
        lambda d: d["ranks"][0]["entries"][1].__setitem__(2, [1]),
        lambda d: d["ranks"][0]["table"][0].update(seconds=-1.0),
        lambda d: d["ranks"][0].update(marks=[0]),
        lambda d: d["ranks"][0]["table"][0].update(colour="red"),
        lambda d: d["ranks"][0]["facts"].update(cpu_s="3.5"),
        lambda d: d.update(world=10**400),
        lambda d: d.update(world=float(d["world"])),
        lambda d: product_of(d).update(n=1e-300),
        lambda d: product_of(d).update(slowdown=1e-300),
    ],
)
def test_recordings_that_cannot_be_believed_are_refused(change, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = written(tmp_path)
    data = json.loads((tmp_path / "ranks.json").read_text())
    change(data)
    (tmp_path / "ranks.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="is no recording of ersatz emulate"):
        replay(path)


@pytest.mark.parametrize(("node", "dtype"), [("h800-8", "fp4"), ("ascend-910b2-8", "fp8")])
def test_a_format_that_a_device_lacks_is_multiplied_after_a_conversion(
    node: str, dtype: str, tmp_path: Path
) -> None:
    path = written(tmp_path, cluster={"node": node, "nodes": 2})
    data = json.loads((tmp_path / "ranks.json").read_text())
    product_of(data).update(dtype=dtype)
    (tmp_path / "ranks.json").write_text(json.dumps(data))
    (result,) = replay(path).values()
    assert any(line.startswith(f"products in {dtype}") for line in result.step.assumptions)


def test_a_live_timer_has_nothing_to_time(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no operands"):
        replay(written(tmp_path), timer="live")


Fields = dict[int, list[int | bytes]]


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of protobuf's wire format, and where the next begins."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> Fields:
    """Return the fields of a message by number."""
    found: Fields = {}
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        value, at = varint(data, at)
        if key & 7 == 2:
            found.setdefault(key >> 3, []).append(data[at : at + value])
            at += value
        else:
            assert key & 7 == 0
            found.setdefault(key >> 3, []).append(value)
    return found


def nodes_of(data: bytes) -> list[Fields]:
    """Return the messages of a trace without its metadata."""
    found, at = [], 0
    while at < len(data):
        size, at = varint(data, at)
        found.append(fields(data[at : at + size]))
        at += size
    assert found[0][1] == [b"0.0.4"]
    return found[1:]


def attributes(node: Fields) -> dict[str, int | bytes]:
    """Return the attributes of a node by name, whatever their kind."""
    rows = [fields(a) for a in node[10] if isinstance(a, bytes)]
    return {row[1][0].decode(): next(v[0] for k, v in row.items() if k > 2) for row in rows}  # type: ignore[union-attr]


def test_chakra_traces_hold_every_piece_of_work_with_its_dependencies() -> None:
    """Work, a sum over two ranks, a message there and one back: types 4, 7, 5, 6 by MLCommons' schema."""
    trace = trace_of(0, [("work", 1.0), ("meet", 2.0), ("send 1", 1.0), ("recv 1", 1.0)])
    nodes = nodes_of(chakra_files([trace])[0])
    assert [n[3] for n in nodes] == [[4], [7], [5], [6]]
    assert [n[1] for n in nodes] == [[0], [1], [2], [3]]
    assert [n.get(5) for n in nodes] == [None, [b"\0"], [b"\1"], [b"\2"]]  # one stream, in order
    assert [(n[6], n[7]) for n in nodes] == [
        ([0], [1_000_000]),
        ([1_000_000], [2_000_000]),
        ([3_000_000], [1_000_000]),
        ([4_000_000], [1_000_000]),
    ]
    work, summed, sent, came = map(attributes, nodes)
    assert work["num_ops"] == 2 * 1024**3
    assert (summed["comm_type"], summed["comm_size"]) == (0, 100_000_000)
    assert (sent["comm_src"], sent["comm_dst"], sent["comm_size"]) == (0, 1, 1_000_000)
    assert (came["comm_src"], came["comm_dst"]) == (1, 0)
