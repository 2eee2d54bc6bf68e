"""Schedulers of files: the same answers as in process, and what they cannot do to ersatz."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from fleet_cases import mixed_case

from ersatz.device_models.text.private import is_dead, private_folder
from ersatz.sim.errors import InputError
from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.doors import batsim
from ersatz.sim.fleet.doors.door import Door, run_at_door
from ersatz.sim.fleet.engine import patience
from ersatz.sim.fleet.engine.fleet import FleetSpec, RunEndedError, run_fleet
from ersatz.sim.fleet.engine.outages import Maintenance
from ersatz.sim.fleet.log import Rules
from ersatz.sim.fleet.policies.own import scheduler as own
from ersatz.sim.fleet.policies.own.kept import Kept
from ersatz.sim.fleet.policies.registry import POLICIES, make_scheduler
from ersatz.sim.fleet.workload.jobs import Job, Workload

ROOT = Path(__file__).resolve().parents[1]
START = "return [Start(j.id, ((i, 255),)) for i, j in enumerate(view.arrived)]"
JOBS = Workload((Job("a", 0, 8, 10), Job("b", 0, 8, 10)))
SPEC = FleetSpec(make_cluster(make_pool("h800", 2)), JOBS)
HEAD = """
import os, sys, time, signal, subprocess
from ersatz.sim.fleet.log import Claims
from ersatz.sim.fleet.protocol import *
"""
CLASS = """
class Scheduler:
    name, claims = "mine", Claims()
    def on_start(self, view): {start}
    def on_event(self, now, events, view): {event}
    def on_end(self, view): {end}
"""


def written(folder: Path, head: str = "", start: str = "pass", event: str = "return []",
            end: str = "pass") -> str:  # fmt: skip
    path = folder / "mine.py"
    path.write_text(HEAD + head + CLASS.format(start=start, event=event, end=end))
    return str(path)


def processes_of(mark: str) -> list[int]:
    """Processes in whose command line a word stands."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                if mark.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
            except OSError:
                continue
    return found


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"ersatz-scheduler-*.{os.getpid():x}-*"))


# -- the same protocol -------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [*POLICIES, "easy:leaf:any", "fair:fgd"])
def test_the_mirror_shows_what_the_fleet_shows(policy: str, tmp_path: Path) -> None:
    """Every built-in policy decides the same from the mirror: failures, drains, preemption, notices."""
    path = tmp_path / "mine.py"
    path.write_text("from ersatz.sim.fleet.policies.registry import make_scheduler\n"
                    f"def Scheduler(): return make_scheduler({policy!r})\n")  # fmt: skip
    spec = mixed_case(3, 60, grace_s=60.0, max_failures=3.0)
    drain = Maintenance(9000.0, 3000.0, (0, 5), drain_s=2000.0)
    spec = FleetSpec(spec.cluster, spec.workload, spec.rules, spec.speed, (*spec.outages, drain), 3)
    here, there = (
        run_fleet(spec, make_scheduler(policy)),
        run_fleet(spec, make_scheduler(str(path))),
    )
    assert there.records == here.records
    assert there.claims == here.claims
    assert not folders()


def test_the_view_is_the_same_in_every_field(tmp_path: Path) -> None:
    look = (
        "return print('\\nSEEN', now, [j.id for j in view.arrived], list(view.waiting), "
        "[(k, a.placement, a.rate, a.limit_s, a.number, a.done_s) for k, a in view.running.items()], "
        "view.progress, {k: n for k, n in view.used.items() if n}, view.free.masks, "
        "view.free.total, sorted(view.free.closed), "
        "[view.served_s(k) for k in view.running], [view.rate_on(j, 'h800') for j in view.waiting.values()], "
        "len(view.records), file=open(FILE, 'a')) or start(view)"
    )
    head = "def start(view):\n for j in list(view.waiting.values()):\n" \
           "  for n, m in enumerate(view.free.masks):\n" \
           "   if m == 255 and j.id in view.waiting: yield Start(j.id, ((n, 255),))\n"  # fmt: skip
    spec = FleetSpec(SPEC.cluster, Workload(tuple(Job(f"{i}", 7.0 * i, 8, 30.0, checkpoint_s=4.0,
                                                      walltime_s=60.0) for i in range(9))),
                     Rules(), outages=(Maintenance(40.0, 15.0, (0,), drain_s=9.0),))  # fmt: skip
    path = Path(written(tmp_path, f"FILE = {str(tmp_path / 'there')!r}\n" + head, event=look))
    run_fleet(spec, make_scheduler(str(path)))
    names: dict[str, object] = {}
    exec(path.read_text().replace("there'", "here'"), names)
    run_fleet(spec, names["Scheduler"]())  # type: ignore[operator]
    seen = (tmp_path / "there").read_text()
    assert seen.count("SEEN") > 15
    assert seen == (tmp_path / "here").read_text()


# -- what they cannot do -----------------------------------------------------------------------------

LOADING = [
    ("raise SystemExit(0)", "SystemExit: 0"),
    ("sys.exit()", "SystemExit"),
    ("os._exit(0)", "its process exited with status 0"),
    ("while True: pass", "hangs: no answer"),
    ("while True:\n  try:\n    while True: pass\n  except BaseException: pass", "hangs: no answer"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("1/0", "ZeroDivisionError"),
    ("def f(): f()\nf()", "RecursionError"),
    ("print('last words'); os.kill(os.getpid(), 9)", "was killed by SIGKILL; it wrote: last words"),
    ("x = '", "SyntaxError"),
]


@pytest.mark.parametrize(("head", "words"), LOADING)
def test_a_file_that_cannot_be_loaded_is_bad_input(
    head: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "LOAD_S", 3.0)
    path = written(tmp_path, head + "\n")
    with pytest.raises(InputError, match=words):
        make_scheduler(path)
    assert not processes_of(path)
    assert not folders()


def test_it_goes_without_a_word_when_ersatz_lets_go(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end of the channel is closed before its keeper ends it, however long that takes."""
    end = Kept.end
    monkeypatch.setattr(
        Kept, "end", lambda kept, **how: (kept.how_it_ended(20.0), end(kept, **how))
    )
    scheduler = make_scheduler(written(tmp_path))
    assert isinstance(scheduler, own.FileScheduler)
    scheduler.close()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("claims", ["7", "None", "Claims(max_wait_s='x')"])
def test_claims_that_are_none(claims: str, tmp_path: Path) -> None:
    path = Path(written(tmp_path))
    path.write_text(path.read_text().replace("Claims()", claims))
    with pytest.raises(InputError, match="claims what is no Claims"):
        make_scheduler(str(path))


MEANT = [
    ("raise SystemExit(0)", "crashed: SystemExit: 0"),
    ("os._exit(0)", "ended: its process exited with status 0"),
    ("os.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
    ("os.kill(0, 9)", "was killed by SIGKILL"),
    ("forever()", "hangs: no answer"),
    ("swallow()", "hangs: no answer"),
    ("time.sleep(99)", "hangs: no answer"),
    ("raise KeyError('lost')", "crashed: KeyError: 'lost'"),
    ("return 7", "crashed: TypeError"),
    ("return ['what']", "answered nonsense: 'what'"),
    ("return [Start(['a'], ())]", "is no decision"),
    ("return [Start('a', 7)]", "no list of"),
    ("return [Start('a', ((0, -1),))]", "no such devices"),
    ("return [Start('a', ((0, 1 << 99999),))]", "Exceeds the limit"),
    ("return [WakeAt('x')]", "is no decision"),
    ("return [WakeAt(float('nan'))]", "in the past"),
    ("return [WakeAt(10 ** 400)]", "is no decision"),
    ("return [Reserve('a', 5.0, ((9, 1),))]", "what is no placement"),
    ("return [Drain(10 ** 30)]", "is no decision"),
    ("return (WakeAt(now + 1e-7),)", "without letting time pass"),
    ("return (WakeAt(now + 1 + i) for i in range(200000))", "asked for more than 1,000 calls"),
    ("return view.speed(Job('zz', 0, 8, 1), 'h800', 8, 1, 1)", "asked nonsense"),
    ("view.progress['a'].kept_s = 1e5", "crashed: FrozenInstanceError"),
    ("view.records.append(view.records[0])", "crashed: AttributeError"),
    ("view._state", "crashed: AttributeError"),
    ("view._fleet", "crashed: AttributeError"),
    ("return os.write(FD, b'x' * 400) and forever()", "answered"),
]
HELP = """
FD = int(sys.argv[1]) if sys.argv[1].isdigit() else 2
def forever():
    while True: pass
def swallow():
    while True:
        try: forever()
        except BaseException: pass
"""


@pytest.mark.parametrize(("event", "words"), MEANT)
def test_what_it_does_ends_the_run_in_words(
    event: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "ANSWER_S", 2.0)
    monkeypatch.setattr(patience, "MOST_TIMERS", 1000)
    monkeypatch.setattr(patience, "MOST_CALLS", 1000)
    path = written(tmp_path, HELP, event=event)
    with pytest.raises(RunEndedError, match=words) as ended:
        run_fleet(SPEC, make_scheduler(path))
    assert ended.value.log.records[-1].event == "end"
    assert not processes_of(path)
    assert not folders()


@pytest.mark.parametrize("how", ["raise SystemExit(3)", "os._exit(0)", "forever()", "1/0"])
@pytest.mark.parametrize("where", ["start", "end"])
def test_the_first_and_last_call_are_watched_too(
    where: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "ANSWER_S", 2.0)
    monkeypatch.setattr(own, "FAREWELL_S", 1.0)
    path = written(tmp_path, HELP, event=START, **{where: how})
    with pytest.raises(RunEndedError, match=r"mine (crashed|ended|hangs)"):
        run_fleet(SPEC, make_scheduler(path))
    assert not processes_of(path)


def test_it_cannot_reach_the_fleet_or_the_log(tmp_path: Path) -> None:
    """What it writes into its view stays there; true run times are not to be found."""
    event = (
        "view.free.closed.add(0); view.rules.quotas.clear(); "
        "print(view.waiting, view.running, file=open(FILE, 'a')); " + START
    )
    path = written(tmp_path, f"FILE = {str(tmp_path / 'seen')!r}\n", event=event)
    log = run_fleet(SPEC, make_scheduler(path))
    assert [r.time_s for r in log.records if r.event == "finish"] == [10.0, 10.0]
    assert "duration_s=nan" in (tmp_path / "seen").read_text()
    assert "duration_s=10" not in (tmp_path / "seen").read_text()


def test_a_flood_of_output_fills_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    event = "os.write(1, b'x' * 50_000_000); " + START
    log = run_fleet(SPEC, make_scheduler(written(tmp_path, event=event)))
    assert log.records[-1].detail == "all jobs are over"
    shown = capfd.readouterr()
    assert shown.out == ""
    assert len(shown.err) == own.RELAY


ORPHANS = """
def orphans():
    for daemon in (False, True):
        if os.fork() == 0:
            if daemon:
                os.setsid()
                if os.fork(): os._exit(0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(99)", MARK])
orphans()
"""


@pytest.mark.parametrize("event", ["return []", "os._exit(0)", "time.sleep(99)"])
def test_what_it_starts_ends_with_it(
    event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "ANSWER_S", 1.0)
    mark = f"orphan-of-{tmp_path}"
    path = written(tmp_path, f"MARK = {mark!r}\n" + ORPHANS, event=event)
    scheduler = make_scheduler(path)
    end = time.monotonic() + 10
    while len(processes_of(mark)) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    with pytest.raises(RunEndedError):
        run_fleet(SPEC, scheduler)
    assert not processes_of(mark)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_ersatz_is_ended(number: int, tmp_path: Path) -> None:
    mark = f"orphan-of-{tmp_path}"
    path = written(tmp_path, f"MARK = {mark!r}\n" + ORPHANS, event="time.sleep(99)")
    (tmp_path / "f.yaml").write_text(
        "question: q\npools: [{name: h800, devices: 8, nodes: 2}]\n"
        "jobs: {drawn: [{name: j, count: 2, devices: 8, every: 1 s, median: 1 min}]}\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    # what runs in the background of a shell has a deaf ear for interrupts, and so would have its children
    ersatz = subprocess.Popen([sys.executable, "-m", "sim", "schedule", str(tmp_path / "f.yaml"),
                               "--policy", path], cwd=ROOT, env=env, stderr=subprocess.PIPE,
                              preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    end = time.monotonic() + 40
    while len(processes_of(mark)) < 2 or len(processes_of(path)) < 3:
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(1.0)
    ersatz.send_signal(number)
    ersatz.communicate(timeout=30)
    end = time.monotonic() + 15
    while processes_of(mark) or processes_of(path) or list(tmp_path.glob("ersatz-*")):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_command_line_tells_how_a_file_ended(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(
        "question: q\npools: [{name: h800, devices: 8, nodes: 2}]\n"
        "jobs: {drawn: [{name: j, count: 2, devices: 8, every: 1 s, median: 1 min}]}\n"
    )
    for head, event, status, words in (
        ("raise SystemExit(0)\n", "return []", 2, "cannot be loaded: it crashed: SystemExit: 0"),
        ("", "raise SystemExit(0)", 1, "mine crashed: SystemExit: 0"),
    ):
        path = written(tmp_path, head, event=event)
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-m", "sim", "schedule", str(tmp_path / "f.yaml"),
                               "--policy", path], cwd=ROOT, env=env, capture_output=True, text=True,
                              timeout=60)  # fmt: skip
        assert done.returncode == status
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_program_that_ends_at_once_is_seen_to_end(tmp_path: Path) -> None:
    """Its end once went to an object that was let go: half of such programs were waited for in vain."""
    for number in range(8):
        kept = Kept(["true"], tmp_path / str(number))
        try:
            assert kept.how_it_ended(10.0) == "exited with status 0"
        finally:
            kept.end()


# -- folders -----------------------------------------------------------------------------------------


def test_folders_of_the_dead_are_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = private_folder("slurm")
    assert mine.stat().st_mode & 0o777 == 0o700
    code = f"import tempfile; tempfile.tempdir = {str(tmp_path)!r}\n" \
           "from ersatz.device_models.text import private\n" \
           "print(private.private_folder('slurm'))"  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    dead = Path(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env,
                               check=True).stdout.strip())  # fmt: skip
    assert dead.exists()
    (dead / "munge").mkdir()
    (dead / "munge" / "key").write_text("secret")
    space = mine.name.split("-")[2].split(".")[0]
    other = tmp_path / f"ersatz-slurm-{int(space, 16) + 1:x}.1-abc"  # of another container
    foreign = tmp_path / "ersatz-slurm-notes"
    link = tmp_path / f"ersatz-slurm-{space}.{2**22:x}-abcdefgh"
    other.mkdir()
    foreign.mkdir()
    link.symlink_to(tmp_path / "ersatz-slurm-notes")
    assert [is_dead(p) for p in (mine, dead, other, foreign, link)] == [
        False, True, False, False, False,
    ]  # fmt: skip
    private_folder("slurm")
    assert not dead.exists()
    assert mine.exists()
    assert other.exists()
    assert foreign.exists()


# -- the door of Batsim ------------------------------------------------------------------------------

BATSIM = """
import json, os, sys, signal, time
import zmq
socket = zmq.Context().socket(zmq.REP)
socket.bind(sys.argv[-1])
{head}
while True:
    message = json.loads(socket.recv())
    now = message["now"]
    {answer}
"""
LATER = """socket.send(json.dumps({{"now": now, "events": [{{"timestamp": now, "type": "CALL_ME_LATER",
        "data": {{"timestamp": now + {}}}}} for i in range({})]}}).encode())"""
PEERS = [
    (LATER.format("1 + i", 20_000), "orders in line"),
    (LATER.format("1e-9", 1), "without letting time pass"),
    (LATER.format("1e-4", 1), "without letting time pass"),
    (LATER.format("1 + i", 900), "asked for more than"),
    ("socket.send(b'x' * (80 << 20))", "answered 83,886,080 bytes"),
    ("socket.send(b'[' * 100_000)", "is no JSON"),
    ("socket.send(b'{\"now\": 1' + b'0' * 400 + b', \"events\": []}')", "has no time"),
    ("socket.send(json.dumps({'version': '5.0.0', 'now': now, 'events': []}).encode())", "version '5.0.0'"),
    ("os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ("print('why'); sys.exit(3)", "exited with status 3; it wrote: why"),
    ("time.sleep(99)", "hangs: no answer in 2 s"),
    ("socket.close()", "hangs: no answer in 2 s|exited with status 1"),
    ("print('x' * 50_000_000); sys.exit(3)", "exited with status 3"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "words"), PEERS)
def test_a_peer_that_misbehaves_is_named_and_ended(
    answer: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zmq")
    monkeypatch.setattr(patience, "MOST_CALLS", 200)
    monkeypatch.setattr(batsim, "MOST_ORDERS", 2000)
    mark = f"orphan-of-{tmp_path}"
    path = tmp_path / "peer.py"
    path.write_text(BATSIM.format(head=f"MARK = {mark!r}" + ORPHANS, answer=answer))
    wait_s = 2.0 if "hangs" in words else 60.0  # what answers may be slow on a busy machine
    door = Door("batsim", scheduler=f"{sys.executable} {path} {{endpoint}}", timeout_s=wait_s)
    with pytest.raises(RunEndedError, match=words):
        run_at_door(SPEC, door)
    assert not processes_of(mark)
    assert not processes_of(str(path))
    assert not folders()
