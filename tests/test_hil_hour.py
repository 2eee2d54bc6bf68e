"""docs/hour.sh: one command for somebody's device, which goes on where it was killed or failed."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STUB = """#!/usr/bin/env bash
# Stands for python: notes what it is asked for, and fails at what FAIL names.
if [ "$1" = -c ]; then echo "$DEVICES"; exit 0; fi
echo "$*" >> "$LOG"
case "$*" in *"$FAIL"*) echo "went wrong"; exit 2;; esac
echo "went well"
"""


@pytest.fixture
def hour(tmp_path: Path):  # type: ignore[no-untyped-def]
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    log = tmp_path / "log"

    def run(*, fail: str = "nothing fails", devices: int = 1) -> tuple[int, str, list[str]]:
        log.write_text("")
        done = subprocess.run(
            ["bash", str(ROOT / "docs" / "hour.sh"), "auto", str(tmp_path / "back")],
            capture_output=True, text=True, timeout=60,
            env={**os.environ, "PYTHON": str(stub), "LOG": str(log), "FAIL": fail,
                 "DEVICES": str(devices)},
        )  # fmt: skip
        return done.returncode, done.stdout, log.read_text().splitlines()

    return run


def test_one_command_calibrates_and_proves_on_six_models(hour, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    status, said, asked = hour()
    assert status == 0
    assert len(asked) == 2
    assert "--prove --models 6" in asked[1]
    assert all("--json" in line for line in asked)
    assert "Send back the folder" in said
    assert (tmp_path / "back" / "proof.txt").read_text() == "went well\n"


def test_links_are_timed_where_there_are_several_devices(hour) -> None:  # type: ignore[no-untyped-def]
    _, _, asked = hour(devices=8)
    assert "--nproc-per-node 8 -m ersatz.sim calibrate --links" in asked[2]


def test_what_is_done_is_not_done_again(hour) -> None:  # type: ignore[no-untyped-def]
    status, said, asked = hour(fail="--prove")
    assert status == 2
    assert len(asked) == 2
    assert "tries the rest again" in said
    status, said, asked = hour()
    assert status == 0
    assert "kernels: done before" in said
    assert len(asked) == 1
    assert "--prove" in asked[0]
    status, _, asked = hour()
    assert (status, asked) == (0, [])


def test_links_that_fail_lose_no_proof(hour) -> None:  # type: ignore[no-untyped-def]
    status, _, asked = hour(fail="--links", devices=2)
    assert status == 2
    assert any("--prove" in line for line in asked)
    status, _, asked = hour(devices=2)
    assert status == 0
    assert len(asked) == 1


def test_without_a_calibration_nothing_else_is_tried(hour) -> None:  # type: ignore[no-untyped-def]
    status, _, asked = hour(fail="calibrate")
    assert status == 2
    assert len(asked) == 1
