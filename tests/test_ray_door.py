"""A Ray that ersatz starts is heard on loopback alone, and by nobody without its token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Prints whoever listens among the processes that carry the token, the cluster's address, and waits.
STARTED = """
import os, sys
from pathlib import Path
from ersatz.sim.hil.actors import _import_ray, _join_or_start
ray = _import_ray()
_join_or_start(ray)
assert ray.get(ray.remote(lambda: 7).remote()) == 7
listening = {}
for table in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
        cells = line.split()
        if cells[3] == "0A":
            listening[f"socket:[{cells[9]}]"] = cells[1].split(":")[0]
token = os.environ["RAY_AUTH_TOKEN"].encode()
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if int(pid) == os.getpid() or token in Path(f"/proc/{pid}/environ").read_bytes():
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if (found := listening.get(os.readlink(f"/proc/{pid}/fd/{fd}"))):
                    print("LISTENS", found)
    except OSError:
        continue
print("AT", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""
STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("IN", ray.get(ray.remote(lambda: 7).remote()))
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's tables of sockets")
def test_only_the_owner_reaches_a_ray_of_ours() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra [dist])")
    bare = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    ours = subprocess.Popen([sys.executable, "-c", STARTED], env={**bare, "PYTHONPATH": str(ROOT)},
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert ours.stdout is not None
    listening, address = [], ""
    for line in ours.stdout:
        if line.startswith("LISTENS"):
            listening.append(line.split()[1])
        if line.startswith("AT"):
            address = line.split()[1]
            break
    try:
        assert len(listening) > 3
        assert set(listening) <= LOOPBACK
        assert address.startswith("127.0.0.1:")
        with subprocess.Popen(
            [sys.executable, "-c", STRANGER, address], env=bare, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        ) as stranger:  # fmt: skip
            try:
                heard = stranger.communicate(timeout=20)[0]
            except subprocess.TimeoutExpired:
                stranger.kill()
                heard = stranger.communicate()[0]
        assert "IN" not in heard
    finally:
        ours.communicate(timeout=60)
