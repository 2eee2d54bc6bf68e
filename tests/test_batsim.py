"""The door for schedulers in processes of their own: what is said, what goes wrong, what is left."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.doors.batsim import BatsimScheduler
from ersatz.sim.fleet.doors.batsim_messages import ProtocolError, begins, decode, encode, submitted
from ersatz.sim.fleet.doors.peer import Peer
from ersatz.sim.fleet.engine.fleet import FleetSpec, RunEndedError, run_fleet
from ersatz.sim.fleet.engine.outages import Maintenance
from ersatz.sim.fleet.judge.logfile import log_text
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.log import Log
from ersatz.sim.fleet.policies.backfill import EasyScheduler
from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces import read_trace

pytest.importorskip("zmq", reason="pyzmq is not installed: pip install 'ersatz[schedulers]'")
ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "data" / "batsim"
EXAMPLE = f"{sys.executable} {ROOT}/scenarios/schedulers/easy.py {{endpoint}}"
TWO_NODES = make_cluster(make_pool("h800", 2))

# A scheduler whose answer to the n-th message is the function `answer(n, message)` of the test.
SCRIPT = """
import json, os, signal, sys, time, zmq
socket = zmq.Context().socket(zmq.REP)
def reply(now, *events):
    return json.dumps({"now": now, "events": [
        {"timestamp": now, "type": kind, "data": data} for kind, data in events]}).encode()
def execute(message, alloc):
    return reply(message["now"], *(("EXECUTE_JOB", {"job_id": e["data"]["job_id"], "alloc": alloc})
        for e in message["events"] if e["type"] == "JOB_SUBMITTED"))
{before}
socket.bind(sys.argv[1])
number = 0
while True:
    message = json.loads(socket.recv())
    number += 1
    if message["events"][-1:] and message["events"][-1]["type"] == "SIMULATION_ENDS":
        socket.send(reply(message["now"]))
        break
    {answer}
"""


def scheduler(tmp_path: Path, answer: str, before: str = "", **options: object) -> BatsimScheduler:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.replace("{before}", before).replace("{answer}", answer))
    return BatsimScheduler(Peer(f"{sys.executable} {script} {{endpoint}}", **options))  # type: ignore[arg-type]


def jobs(*sizes: int, walltime_s: float = 200.0) -> Workload:
    return Workload(tuple(Job(f"j{i}", 10.0 * i, n, 100.0, walltime_s=walltime_s)
                          for i, n in enumerate(sizes)))  # fmt: skip


def run(scheduler: BatsimScheduler, workload: Workload, **more: object) -> Log:
    return run_fleet(FleetSpec(TWO_NODES, workload, **more), scheduler)  # type: ignore[arg-type]


# -- messages ----------------------------------------------------------------------------------------


def test_a_fleet_is_told_device_by_device() -> None:
    data = begins(make_cluster(make_pool("h800", 1, 2), make_pool("ppu", 1, 1)))["data"]
    assert data["nb_compute_resources"] == data["nb_resources"] == 3
    assert [device["id"] for device in data["compute_resources"]] == [0, 1, 2]
    assert data["compute_resources"][2]["properties"] == {
        "type": "ppu", "node": "ppu-0", "leaf": "1", "pod": "1",
    }  # fmt: skip


def test_a_job_is_told_without_its_duration() -> None:
    job = Job("7", 5.0, 8, 123.456, tenant="a", types=("h800",))
    told = json.loads(encode(5.0, [submitted(5.0, "w0!7", job)]))["events"][0]["data"]
    assert told["job"] == {"id": "w0!7", "subtime": 5.0, "res": 8, "profile": "training",
                           "tenant": "a", "types": ["h800"]}  # fmt: skip
    assert "123" not in json.dumps(told)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"hello", "is no JSON"),
        (b"\x10\x00\x00\x00\x08\x00", "version 5"),
        (b"[1, 2]", "no list of events"),
        (b'{"now": 5}', "no list of events"),
        (b'{"now": "x", "events": []}', "no time"),
        (b'{"now": NaN, "events": []}', "no time"),
        (b'{"now": 4, "events": []}', "it is 5.0 s already"),
        (b'{"now": 5, "events": [7]}', "without a type"),
        (b'{"now": 5, "events": [{"type": "FLY", "timestamp": 5, "data": {}}]}', "unknown type"),
        (b'{"now": 5, "events": [{"type": "NOP", "timestamp": 5}]}', "version 1"),
        (b'{"now": 5, "events": [{"type": "REGISTER_JOB", "timestamp": 5}]}', "not enabled"),
        (b'{"now": 5, "events": [{"type": "EXECUTE_JOB", "timestamp": 5}]}', "'job_id'"),
        (b'{"now": 5, "events": [{"type": "CALL_ME_LATER", "timestamp": 4}]}', "from 5.0 s on"),
        (b'{"now": 4.999, "events": []}', "it is 5.0 s already"),
        (b'{"now": 5, "events": [{"type": "CALL_ME_LATER", "timestamp": 5,'
         b' "data": {"timestamp": Infinity}}]}', "timestamp = inf"),
    ],
)  # fmt: skip
def test_nonsense_is_named(reply: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        decode(reply, 5.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["now", "events", "type", "timestamp", "data", "job_id"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_message_or_a_protocol_error(reply: bytes) -> None:
    try:
        orders = decode(reply, 0.0)
    except ProtocolError:
        return
    assert all(order.at_s >= 0 and math.isfinite(order.at_s) for order in orders)


# -- a whole run -------------------------------------------------------------------------------------


def test_first_come_first_served_by_hand(tmp_path: Path) -> None:
    # 8 of 16 devices for j0 (0-100 s) and j1 (10-110 s): both start at once
    log = run(
        scheduler(
            tmp_path,
            'socket.send(execute(message, "0-7" if message["now"] < 10 else "8-15"))',
        ),
        jobs(8, 8),
    )
    starts = [(r.time_s, r.job, r.placement) for r in log.records if r.event == "start"]
    assert starts == [(0.0, "j0", ((0, 255),)), (10.0, "j1", ((1, 255),))]
    assert log.records[-1].detail == "all jobs are over"


def test_a_call_for_later_a_later_order_and_a_rejection(tmp_path: Path) -> None:
    # j0 comes at 0 s and is started by an order dated 30 s; at 50 s the call that was asked for
    # comes, and its answer rejects j1
    answer = """
    kinds = [e["type"] for e in message["events"]]
    if "REQUESTED_CALL" in kinds:
        out = reply(message["now"], ("REJECT_JOB", {"job_id": "w0!j1", "reason": "too late"}))
    elif message["now"] < 1 and "JOB_SUBMITTED" in kinds:
        out = json.dumps({"now": 0, "events": [
            {"timestamp": 0, "type": "CALL_ME_LATER", "data": {"timestamp": 50}},
            {"timestamp": 30, "type": "EXECUTE_JOB", "data": {"job_id": "w0!j0", "alloc": "0-7"}},
        ]}).encode()
    else:
        out = reply(message["now"])
    socket.send(out)"""
    log = run(scheduler(tmp_path, answer.strip()), jobs(8, 8))
    happened = [(r.time_s, r.event, r.job) for r in log.records if r.event != "submit"]
    assert happened == [(30.0, "start", "j0"), (50.0, "reject", "j1"), (130.0, "finish", "j0"),
                        (130.0, "end", "")]  # fmt: skip


def test_ids_that_are_no_numbers_are_told_as_numbers_and_time_begins_above_0(
    tmp_path: Path,
) -> None:
    """pybatsim's newer layer makes whole numbers of ids, and takes 0 for no time at all."""
    answer = """
    for e in message["events"]:
        if e["type"] == "JOB_SUBMITTED":
            data = e["data"]
            seen = [message["now"], e["timestamp"], int(data["job_id"][3:]), data["job"].get("name")]
            print(json.dumps(seen), file=open(sys.argv[0] + ".txt", "a"))
    socket.send(execute(message, "0-7"))"""
    two = Workload((Job("7", 0.0, 8, 10.0), Job("drawn-0", 60.0, 8, 10.0)))
    log = run(scheduler(tmp_path, answer.strip()), two)
    assert [(r.job, r.time_s) for r in log.records if r.event == "start"] == [
        ("7", 0.0),
        ("drawn-0", 60.0),
    ]
    told = [json.loads(line) for line in (tmp_path / "mine.py.txt").read_text().splitlines()]
    assert told == [[1e-6, 1e-6, 7, None], [60.0, 60.0, 10**9, "drawn-0"]]


def test_a_killed_job_comes_back_under_a_new_name(tmp_path: Path) -> None:
    # it is killed at the call at 40 s, starts over as w0!j0#1 and ends 100 s later
    answer = """
    now, out = message["now"], []
    for e in message["events"]:
        if e["type"] == "JOB_SUBMITTED":
            out.append(("EXECUTE_JOB", {"job_id": e["data"]["job_id"], "alloc": "0-7"}))
            if "#" not in e["data"]["job_id"]:
                out.append(("CALL_ME_LATER", {"timestamp": 40}))
        if e["type"] == "REQUESTED_CALL":
            out.append(("KILL_JOB", {"job_ids": ["w0!j0"]}))
        if e["type"] == "JOB_COMPLETED":
            print(e["data"]["job_id"], e["data"]["job_state"], file=open(sys.argv[0] + ".txt", "a"))
    socket.send(reply(now, *out))"""
    log = run(scheduler(tmp_path, answer.strip()), jobs(8))
    assert [(r.time_s, r.event) for r in log.records] == [
        (0.0, "submit"), (0.0, "start"), (40.0, "preempt"), (40.0, "start"), (140.0, "finish"),
        (140.0, "end"),
    ]  # fmt: skip
    told = (tmp_path / "mine.py.txt").read_text()
    assert told == "w0!1000000000 COMPLETED_KILLED\nw0!1000000000#1 COMPLETED_SUCCESSFULLY\n"


@pytest.mark.parametrize(("numbers", "kind"), [(False, "str"), (True, "int")])
def test_states_of_devices_are_told_as_text_or_as_numbers(
    numbers: bool, kind: str, tmp_path: Path
) -> None:
    answer = """
    for e in message["events"]:
        if e["type"] == "RESOURCE_STATE_CHANGED":
            data = e["data"]
            print(data["resources"], type(data["state"]).__name__, file=open(sys.argv[0] + ".txt", "a"))
    if any(e["type"] == "JOB_SUBMITTED" for e in message["events"]):
        job = message["events"][0]["data"]["job_id"]
        socket.send(reply(message["now"], ("EXECUTE_JOB", {"job_id": job, "alloc": "0-7"}),
            ("SET_RESOURCE_STATE", {"resources": "8-15", "state": "3"})))
    else:
        socket.send(reply(message["now"]))"""
    mine = scheduler(tmp_path, answer.strip())
    mine.state_numbers = numbers
    run(mine, jobs(8))
    assert (tmp_path / "mine.py.txt").read_text() == f"8-15 {kind}\n"


def test_the_example_stays_alive_when_nodes_fail() -> None:
    # node 0 is down from 50 to 500 s: its job fails, starts over on node 1 at 50 s and ends at 150 s
    outage = Maintenance(50.0, 450.0, nodes=(0,))
    log = run(BatsimScheduler(Peer(EXAMPLE)), jobs(8), outages=(outage,))
    assert [(r.time_s, r.event, r.placement) for r in log.records if r.job] == [
        (0.0, "submit", ()), (0.0, "start", ((0, 255),)), (50.0, "fail", ((0, 255),)),
        (50.0, "start", ((1, 255),)), (150.0, "finish", ((1, 255),)),
    ]  # fmt: skip


# -- what goes wrong -----------------------------------------------------------------------------------

WRONG = {
    "hangs": ("time.sleep(60)", "", "hangs: no answer in 0.5 s"),
    "never listens": ("pass", "time.sleep(60)", "hangs: no answer in 0.5 s"),
    "crashes": ("raise KeyError('queue')", "", "exited with status 1; it wrote: KeyError: 'queue'"),
    "exits at once": ("pass", "sys.exit(3)", "exited with status 3"),
    "is killed": ("os.kill(os.getpid(), signal.SIGKILL)", "", "was killed by SIGKILL"),
    "answers nonsense": ("socket.send(b'ok')", "", "answered nonsense: its reply is no JSON"),
    "speaks version 5": ("socket.send(bytes(20))", "", "ersatz speaks the JSON of versions 3 and 4"),
    "invents a job": ("socket.send(reply(message['now'], ('KILL_JOB', {'job_ids': ['w0!x']})))", "",
                      "never told of a job 'w0!x'"),
    "invents devices": ("socket.send(execute(message, '90-97'))", "", "outside 0..15"),
    "oversubscribes": ("socket.send(execute(message, '0-7'))", "", "has no free device"),
    "splits a gang": ("socket.send(execute(message, '0-3'))", "", "its gang takes 8"),
    "does nothing": ("socket.send(reply(message['now']))", "", "starts nothing"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_bad_scheduler_ends_the_run_with_the_reason_and_leaves_nothing(
    case: str, tmp_path: Path
) -> None:
    answer, before, words = WRONG[case]
    timeout_s = 0.5 if "0.5 s" in words else 10.0
    mine = scheduler(tmp_path, answer, before, timeout_s=timeout_s)
    with pytest.raises(RunEndedError) as caught:
        run(mine, jobs(8, 8, 8))
    assert words in str(caught.value)
    last = caught.value.log.records[-1]
    assert (last.event, last.detail) == ("end", str(caught.value))
    assert mine.peer.process is None
    assert mine.peer.folder is None
    mark = str(tmp_path / "mine.py").encode()
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if mark in _bytes(p)]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_scheduler_dies_with_ersatz(tmp_path: Path) -> None:
    # ersatz is killed while it waits for the first answer
    script = tmp_path / "mine.py"
    script.write_text("import time; time.sleep(600)")
    code = ("from ersatz.sim.fleet.doors.peer import Peer\n"
            f"peer = Peer('{sys.executable} {script} {{endpoint}}')\n"
            "peer.open(); print(peer.process.pid, flush=True); peer.ask(b'')")  # fmt: skip
    env = {
        **os.environ,
        "TMPDIR": "/var/tmp",
    }  # short: a socket has a path of 107 characters at most
    ersatz = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, env=env
    )
    assert ersatz.stdout is not None
    with ersatz.stdout:
        line = Path("/proc") / ersatz.stdout.readline().decode().strip() / "cmdline"
    assert str(script).encode() in _bytes(line)
    ersatz.kill()
    ersatz.wait()
    end = time.monotonic() + 5
    while str(script).encode() in _bytes(line) and time.monotonic() < end:
        time.sleep(0.01)
    assert str(script).encode() not in _bytes(line)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(RunEndedError, match="cannot be started: /no/such: No such file"):
        run(BatsimScheduler(Peer("/no/such {endpoint}")), jobs(8))


def test_peers_are_either_started_or_reached() -> None:
    for words in ({}, {"command": "a {endpoint}", "endpoint": "tcp://127.0.0.1:1"},
                  {"command": "python mine.py"}, *({"endpoint": address} for address in (
                      "nowhere", "inproc://x", "tcp://", "tcp://a", "tcp://:1", "tcp://a:0", "tcp://*:5",
                      "udp://a:1", "ipc://"))):  # fmt: skip
        with pytest.raises(ValueError, match="endpoint"):
            Peer(**words)
    assert Peer("python3 -u some/easy.py {endpoint}").name == "easy"
    with pytest.raises(RunEndedError, match="cannot be reached"):
        run(BatsimScheduler(Peer(endpoint="ipc://" + "x" * 200)), jobs(8))


def test_a_scheduler_that_the_user_started(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/socket"
    process = subprocess.Popen([sys.executable, ROOT / "scenarios/schedulers/easy.py", endpoint])
    try:
        log = run(BatsimScheduler(Peer(endpoint=endpoint)), jobs(8, 16, 8))
        assert sum(record.event == "finish" for record in log.records) == 3
        assert process.wait(10) == 0  # it was told that the simulation is over
    finally:
        process.kill()
        process.wait()


def test_two_runs_write_the_same_bytes() -> None:
    workload = jobs(8, 16, 4, 8, 2, 16, 1)
    first, second = (log_text(run(BatsimScheduler(Peer(EXAMPLE)), workload)) for _ in range(2))
    assert first == second


# -- unmodified schedulers of others -----------------------------------------------------------------

PYBATSIM = ("pyzmq", "procset", "sortedcontainers", "docopt", "setuptools<81")


@pytest.fixture(scope="module")
def pybatsim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pybatsim (LGPL) in an environment of its own; it pins an old pyzmq, which it does not need."""
    folder = tmp_path_factory.mktemp("pybatsim")
    pip = [folder / "bin" / "pip", "install", "-q"]
    for words in ([sys.executable, "-m", "venv", folder], [*pip, "--no-deps", "pybatsim==3.2.1"],
                  [*pip, *PYBATSIM]):  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"pybatsim cannot be installed: {done.stderr.strip()[-200:]}")
    return folder / "bin" / "pybatsim"


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "easyBackfill", "fillerSched", "fillerSchedWithEvents", "schedFcfs", "schedFiller",
    "schedEasySjfBackfill", "schedSendRecv", "fcfsSchedSleep",
])  # fmt: skip
def test_unmodified_pybatsim_schedulers_finish_batsims_own_workload(
    name: str, pybatsim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where it writes its events
    workload = read_trace(GOLDEN / "medium_late.json.gz")
    assert len(workload.jobs) == 801
    door = BatsimScheduler(Peer(f"{pybatsim} {name} -v error -s {{endpoint}}"), jobs=801,
                           state_numbers=name == "fcfsSchedSleep")  # fmt: skip
    log = run_fleet(FleetSpec(make_cluster(make_pool("cpu", 32, 1)), workload), door)
    assert sum(record.event == "finish" for record in log.records) == 801
    assert log.end_s == pytest.approx(
        16088.51, abs=0.1
    )  # the last job comes at 16,000 s, for 88.51 s


def test_the_example_and_the_built_in_easy_write_the_same_bytes() -> None:
    # Batsim's 801 jobs, a failing node, jobs that wait for their limits: the same decisions, the same
    # promises, so the same log
    cluster = make_cluster(make_pool("cpu", 32, 1))
    workload = read_trace(GOLDEN / "medium_late.json.gz")
    outages = (Maintenance(900.0, 300.0, nodes=(3, 4)),)
    for spec in (FleetSpec(cluster, workload), FleetSpec(cluster, workload, outages=outages)):
        inside = EasyScheduler()
        outside = BatsimScheduler(Peer(EXAMPLE), name=inside.name, claims=inside.claims, jobs=801)
        log, twin = run_fleet(spec, inside), run_fleet(spec, outside)
        assert log_text(log) == log_text(twin)
        verdict = judge(log, twin=twin)
        assert verdict.holds, verdict.first
        assert {f.number: f.status for f in verdict.findings}[13] == "holds"


def test_the_last_digits_of_a_clock_do_not_matter() -> None:
    """A reader of JSON that is not exact says 121.60939498711367 where it was told ...369."""
    now = 121.60939498711369
    order = {"timestamp": 121.60939498711367, "type": "CALL_ME_LATER", "data": {"timestamp": 130}}
    text = json.dumps({"now": 121.60939498711367, "events": [order]}).encode()
    assert [o.at_s for o in decode(text, now)] == [now]
