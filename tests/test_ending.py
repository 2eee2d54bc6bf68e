"""How a run ends: words that cannot be used, streams that are closed, text that a terminal would obey."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import ROOT, SMALL, ersatz

from ersatz.device_models.text.visible import is_plain, json_escaped, stripped, visible
from ersatz.sim.errors import BrokenAnswerError
from ersatz.sim.report.json_out import to_text

VERBS = ("run", "compare", "fabric", "buy", "legal", "schedule", "devices", "validate")


def shell(line: str) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "E": f"{sys.executable} -m sim"}
    return subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, cwd=ROOT,
                          env=env, timeout=120, check=False)  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "name"),
    [*((verb, "/no/such/file.yaml") for verb in VERBS), ("run", "x" * 300), ("run", "**"), ("run", "*"),
     ("legal", "x" * 300), ("devices", "x" * 3000), ("report", "x" * 300), ("run", "scenarios/" + "x" * 300)],
)  # fmt: skip
def test_a_name_that_means_nothing_is_said_in_words(verb: str, name: str) -> None:
    done = ersatz(verb, name)
    assert done.returncode == 2
    assert name[:50] in done.stderr
    assert "Traceback" not in done.stderr
    assert "please report" not in done.stderr
    if name.startswith("/"):
        assert "cannot be read" in done.stderr
        assert "no such file" in done.stderr.lower()


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("verb", "name", "near"),
    [("run", "ling-plus-substitutoin", "ling-plus-substitution"), ("buy", "embargo-stroy", "embargo-story"),
     ("schedule", "four-pool", "four-pools"), ("devices", "h80", "h800"), ("legal", "h2O", "h20")],
)  # fmt: skip
def test_near_names_are_proposed(verb: str, name: str, near: str) -> None:
    done = ersatz(verb, name)
    assert done.returncode == 2
    assert f"did you mean {near!r}" in done.stderr


@pytest.mark.parametrize("line", [
    "$E run ling-plus-substitution --json ''", "$E run ling-plus-substitution --out ''",
    "$E run ling-plus-substitution --json=", "$E run ''", "$E devices --json ''",
    "$E run ling-plus-substitution --set $'question=\\xff'", "$E run $'\\xff'",
])  # fmt: skip
def test_words_that_are_empty_or_no_text_are_refused(line: str) -> None:
    done = shell(line)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"is empty" in done.stderr or b"no UTF-8" in done.stderr


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("$E devices > /dev/full", 3, "standard output: cannot be written: No space left"),
        ("$E devices --json - > /dev/full", 3, "standard output: cannot be written: No space left"),
        ("$E --help > /dev/full", 3, "standard output: cannot be written: No space left"),
        ("$E devices >&-", 3, "standard output: cannot be written: it is closed"),
        ("$E devices | head -c0", 141, ""),
        ("$E --help | head -c0", 141, ""),
        ("$E devices nowhere 2>&-", 2, ""),
        ("$E devices <&- > /dev/null", 0, ""),
    ],
)
def test_streams_that_cannot_be_written(line: str, status: int, words: str) -> None:
    done = shell(line)
    assert done.returncode == status
    assert done.stderr.decode().strip().startswith(words)
    assert len(done.stderr.splitlines()) <= 1


def test_a_closed_output_loses_no_file(tmp_path: Path) -> None:
    for closed in (">&-", "> /dev/full", "| head -c0"):
        target = tmp_path / "d.json"
        assert shell(f"$E devices --json {target} {closed}").returncode in (3, 141)
        assert json.loads(target.read_text())
        target.unlink()


def test_an_unwritable_place_has_its_own_status(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for option, target in (("--out", "file"), ("--out", "file/x"), ("--json", "missing/x.json")):
        done = ersatz("legal", "h20", option, str(tmp_path / target)) if option == "--out" else \
            ersatz("devices", "h20", option, str(tmp_path / target))  # fmt: skip
        assert done.returncode == 3
        assert "cannot be written" in done.stderr
        assert "h20" in done.stdout.lower()


@given(st.text())
def test_nothing_that_is_shown_is_obeyed(text: str) -> None:
    for shown in (stripped(text), visible(text), json_escaped(text)):
        assert is_plain(shown)
        assert "\x1b" not in shown
    data = json.loads(json_escaped(json.dumps(text, ensure_ascii=False)))
    assert data == text


EVIL = "\\e]0;owned\\a\\e[31m\\e]8;;http://x\\e\\\\ \\u202e\\x9b2J"


def test_escapes_of_a_scenario_reach_no_terminal_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SMALL.replace("question: How long?", f'question: "Why{EVIL}"')
                    + f'published: [{{metric: step.mfu, value: 0.5, source: "here{EVIL}"}}]\n')  # fmt: skip
    done = ersatz("run", str(path), "--out", str(tmp_path / "o"))
    seen = done.stdout + done.stderr + ersatz("run", str(path), "--json", "-").stdout
    seen += ersatz("run", str(path), "--set", f"model.{EVIL}=1").stderr
    seen += ersatz("run", "\x1b[2J\u202e").stderr + ersatz("\x1b[2J").stderr
    seen += "".join(p.read_text() for p in (tmp_path / "o").iterdir() if p.name != "scenario.yaml"
                    ) if (tmp_path / "o").exists() else ""  # fmt: skip
    assert is_plain(seen)


def test_json_holds_no_nan_and_no_infinity() -> None:
    with pytest.raises(BrokenAnswerError, match=r"cases\.a\[1\] is nan"):
        to_text({"cases": {"a": [1.0, float("nan")]}})
    with pytest.raises(BrokenAnswerError, match="total is inf"):
        to_text({"total": float("inf")})


def test_help_and_readme_name_every_status() -> None:
    told = " ".join(ersatz("--help").stdout.split())
    readme = (ROOT / "README.md").read_text()
    for status in ("0", "1", "2", "3", "70", "130", "141", "143"):
        assert f" {status}" in told
        assert f" {status}" in " ".join(readme.split())


def of_helpers(code: str) -> subprocess.Popen[str]:
    """Start a program that has helpers."""
    head = "import os, signal, time\nfrom ersatz.sim.processes import side_by_side\n"
    return subprocess.Popen([sys.executable, "-c", head + code], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE)  # fmt: skip


def test_helpers_of_a_run_can_always_be_ended() -> None:
    # with the parent's deaf ear for SIGTERM the end of the pool would wait for its workers for ever
    code = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for n in side_by_side(abs, [-1, 2, -3]):
    print(n)
    if n == 2:
        raise SystemExit
"""
    assert of_helpers(code).communicate(timeout=60)[0] == "1\n2\n"


def test_what_a_killed_helper_had_is_done_again() -> None:
    code = """
me = os.getpid()
def work(n):
    if n == 5 and os.getpid() != me:
        os.kill(os.getpid(), signal.SIGKILL)
    return n * n
print(list(side_by_side(work, range(12), 2)))
"""
    told = of_helpers(code).communicate(timeout=60)[0]
    assert told == f"{[n * n for n in range(12)]}\n"


def lives(pid: int) -> bool:
    """Tell whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_helpers_end_with_their_parent() -> None:
    code = """
def work(n):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(300)
list(side_by_side(work, [0, 1]))
"""
    parent = of_helpers(code)
    assert parent.stdout
    helpers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    assert parent.wait(60) == -signal.SIGKILL
    assert parent.stdout.read() == ""  # both have let go of it
    end = time.monotonic() + 15
    while any(map(lives, helpers)):
        assert time.monotonic() < end
        time.sleep(0.05)
