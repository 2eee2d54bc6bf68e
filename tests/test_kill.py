"""Runs that are stopped at random moments: what was finished is whole, the next run tidies up."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli import ROOT, SMALL

from ersatz.device_models.text.whole import PART, write_all_whole
from ersatz.sim.report.artefacts import MANIFEST

ASKED = {
    "run": ("run", "{scenario}", "--out", "{out}"),
    "buy": ("buy", "stockpile", "--out", "{out}"),
    "legal": ("legal", "h20", "h800", "--out", "{out}"),
    "schedule": ("schedule", "four-pools", "--policy", "fifo", "--out", "{out}"),
    "validate": ("validate", "{table}", "--out", "{out}"),
}


def begin(verb: str, folder: Path) -> "subprocess.Popen[str]":
    scenario, table = folder / "s.yaml", folder / "runs.csv"
    scenario.write_text(SMALL)
    shipped = (ROOT / "device_models/data/measured/training_runs.csv").read_text().splitlines()
    table.write_text("\n".join(shipped[:30]) + "\n")
    words = [w.format(scenario=scenario, out=folder / "o", table=table) for w in ASKED[verb]]
    uncounted = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}  # as at home
    return subprocess.Popen([sys.executable, "-m", "ersatz", *words], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, cwd=folder,
                            env={**uncounted, "PYTHONPATH": str(ROOT)}, preexec_fn=heard)  # fmt: skip


def heard() -> None:
    """Let SIGINT through: what a shell began in the background ignores it, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def assert_whole(out: Path) -> None:
    """The folder holds no half of a file: what a manifest lists is as it says."""
    if not (out / MANIFEST).exists():
        return
    for entry in json.loads((out / MANIFEST).read_text())["files"]:
        path = out / entry["name"]
        if path.exists():
            assert path.stat().st_size == entry["bytes"]


@pytest.mark.heavy
@pytest.mark.parametrize("verb", list(ASKED))
def test_kill_9_leaves_whole_files_and_the_next_run_clears_up(verb: str, tmp_path: Path) -> None:
    start = time.monotonic()
    first = begin(verb, tmp_path)
    first.communicate(timeout=100)
    assert first.returncode == 0
    spent, draw = time.monotonic() - start, random.Random(verb)
    for _ in range(2):
        run = begin(verb, tmp_path)
        time.sleep(draw.uniform(0.5, 1.0) * spent)
        run.kill()
        run.communicate(timeout=60)
        assert_whole(tmp_path / "o")
    last = begin(verb, tmp_path)
    last.communicate(timeout=100)
    assert last.returncode == 0
    assert not [p for p in tmp_path.rglob(".*") if "ersatz" in p.name]
    listed = {e["name"] for e in json.loads((tmp_path / "o" / MANIFEST).read_text())["files"]}
    assert {p.name for p in (tmp_path / "o").iterdir()} == {*listed, MANIFEST}


def await_handlers(run: "subprocess.Popen[str]") -> None:
    """Wait until the program answers signals itself: before that the interpreter starts, however slowly.

    SIGTERM is the last of the two, and Python does not catch it by itself.
    """
    status, wanted = Path(f"/proc/{run.pid}/status"), 1 << (signal.SIGTERM - 1)
    while run.poll() is None:
        caught = next(
            line.split()[1] for line in status.read_text().splitlines() if "SigCgt" in line
        )
        if int(caught, 16) & wanted:
            return
        time.sleep(0.001)


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_any_moment_is_answered_in_one_sentence(
    number: signal.Signals, tmp_path: Path
) -> None:
    draw = random.Random(int(number))
    for moment in (0.0, *(draw.uniform(0.0, 0.7) for _ in range(7))):
        run = begin("run", tmp_path)
        await_handlers(run)
        time.sleep(moment)
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
        if run.returncode == 0:  # it had answered already
            assert said == ""
        else:
            assert said == f"interrupted by {number.name}: what was finished is whole\n"
            assert run.returncode == 128 + number
        assert_whole(tmp_path / "o")


@pytest.mark.parametrize("swallowed", ["raise RuntimeError('a name')", "sys.exit(1)"])
def test_an_interrupt_that_a_library_takes_for_a_fault_of_its_own_is_still_one(
    swallowed: str,
) -> None:
    """A class body, say: until Python 3.12 it puts RuntimeError in the place of what is raised."""
    code = f"""
import os, signal, sys
import ersatz.sim.cli as cli
def verb(words):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        {swallowed}
cli.invoke = verb
sys.argv = ["ersatz", "devices"]
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stderr == "interrupted by SIGTERM: what was finished is whole\n"
    assert done.returncode == 143


def test_an_interrupt_that_the_interpreter_drops_is_still_one() -> None:
    """In a callback of a weak reference, as imports have them, nothing that is raised goes anywhere."""
    code = """
import os, signal, sys, weakref
import ersatz.sim.cli as cli
class Thing: pass
def verb(words):
    thing = Thing()
    kept = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del thing
cli.invoke = verb
sys.argv = ["ersatz", "devices"]
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stderr == "interrupted by SIGTERM: what was finished is whole\n"
    assert done.returncode == 143


def test_files_of_a_fit_are_all_new_or_all_old(tmp_path: Path) -> None:
    """As the fit writes: many files in several folders. A kill while they are brought to the disk."""
    code = """
import os, signal, sys
from pathlib import Path
from ersatz.device_models.text.whole import write_all_whole
real, left = os.fsync, [int(sys.argv[2])]
def sync(n):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(n)
os.fsync = sync
write_all_whole({Path(sys.argv[1]) / f"{i % 2}" / f"{i}.yaml": "new" for i in range(6)})
"""
    paths = [tmp_path / f"{i % 2}" / f"{i}.yaml" for i in range(6)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
    for moment in (1, 3, 6):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(moment)], check=False,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
        assert done.returncode == -signal.SIGKILL
        assert {p.read_text() for p in paths} == {"old"}
        assert list(tmp_path.rglob(f".*{PART}"))
    write_all_whole(dict.fromkeys(paths, "new"))
    assert {p.read_text() for p in paths} == {"new"}
    assert not list(tmp_path.rglob(f".*{PART}"))
