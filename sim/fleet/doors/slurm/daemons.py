"""Real Slurm on this machine: what it needs, its start, its end.

One slurmctld and a slurmd per emulated node, all in the foreground of processes that ersatz starts,
with a munge daemon and key of their own, on loopback, in a folder that is removed afterwards. The
traps that the order here avoids are in docs/models/doors.md.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ersatz.device_models.text.private import private_folder
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.doors.slurm import base
from ersatz.sim.fleet.doors.slurm.accounts import Accounts
from ersatz.sim.fleet.doors.slurm.config import Site, config_files, node_name
from ersatz.sim.fleet.doors.slurm.given import Given
from ersatz.sim.fleet.workload.jobs import Workload

NEEDED = {
    "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client",
    "scontrol": "slurm-client", "munged": "munge",
}  # fmt: skip
PATHS = "/usr/sbin:/sbin:/usr/local/sbin"
START_S = 60.0  # real seconds, for the controller and for all nodes
EPOCH = "2026-01-01 00:00:00"  # where the fast clock begins; any date does


class SlurmError(InfeasibleError):
    """Slurm does not work as it must; the message quotes what it wrote."""


def search_path() -> str:
    """Return the folders to find daemons in."""
    return f"{os.environ.get('PATH', '')}:{PATHS}"


def missing(speed: float = 1.0, *, accounts: bool = False) -> str:
    """Return why Slurm cannot be run here, with the Debian packages that help; empty if it can.

    `accounts`: its data base is needed, too.
    """
    needed = NEEDED | ({"faketime": "faketime"} if speed != 1 else {})
    needed |= base.NEEDED if accounts else {}
    lacking = {p: d for p, d in needed.items() if not shutil.which(p, path=search_path())}
    if not lacking:
        return ""
    plugins = {"slurm-wlm-basic-plugins", *([base.PLUGIN] if accounts else [])}
    packages = " ".join(sorted({*plugins, *lacking.values()}))
    return (f"{', '.join(lacking)} not found; on Debian: apt-get install --no-install-recommends"
            f" {packages}")  # fmt: skip


@dataclass(slots=True)
class Running:
    """A Slurm that is up. `origin` is the virtual time, in seconds, that counts as 0."""

    site: Site
    environment: dict[str, str]
    started: list[subprocess.Popen[bytes]]
    real_s: float = 0.0  # the monotonic clock ...
    virtual_s: float = 0.0  # ... and the fast one, at the same moment
    origin: float = 0.0
    complaint: str = ""  # of the last call that failed

    def now(self) -> float:
        """Return the virtual time since the origin."""
        return self._virtual() - self.origin

    def _virtual(self) -> float:
        return self.virtual_s + (time.monotonic() - self.real_s) * self.site.speed

    def begin(self) -> None:
        """Let the virtual time of this moment be 0; Slurm's records are of whole seconds."""
        self.origin = float(int(self._virtual()) + 1)

    def call(self, *words: str, limit_s: float = 30.0) -> str:
        """Return what a client prints; raises `SlurmError` with its complaint."""
        try:
            done = subprocess.run(words, env=self.environment, capture_output=True, text=True,
                                  timeout=limit_s, stdin=subprocess.DEVNULL)  # fmt: skip
        except subprocess.TimeoutExpired:
            raise SlurmError(f"{words[0]} does not answer within {limit_s:g} s") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            self.complaint = "; ".join(lines[-3:])
            raise SlurmError(f"{words[0]}: {lines[-1]}")
        return done.stdout

    def check(self) -> None:
        """Raise `SlurmError` when a daemon has ended."""
        for process in self.started:
            if process.poll() is not None:
                name = " ".join(map(str, process.args))  # type: ignore[arg-type]
                raise SlurmError(f"{name} ended with status {process.returncode}{self._last()}")

    def _last(self) -> str:
        """Return the last complaint in the controller's log."""
        try:
            lines = (self.site.folder / "slurmctld.log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        found = [line for line in lines if "fatal" in line] or lines[-1:]
        return f": {found[-1]}" if found else ""


@contextmanager
def running(
    cluster: Cluster,
    workload: Workload,
    *,
    speed: float = 1.0,
    preempt: bool = False,
    given: Given | None = None,
    accounts: Accounts | None = None,
) -> Iterator[Running]:
    """Bring a Slurm up that emulates a cluster, and take it down whatever happens.

    Raises `SlurmError` where it is missing or does not come up.
    """
    reason = missing(speed, accounts=accounts is not None)
    if reason:
        raise SlurmError(reason)
    folder = private_folder("slurm")
    nodes = len(cluster.nodes)
    site = Site(folder, free_ports(nodes + 2), socket.gethostname().split(".")[0],
                pwd.getpwuid(os.geteuid()).pw_name, speed, preempt, given, accounts, nodes,
                cluster.types)  # fmt: skip
    guard = None
    try:
        _write_files(site, cluster, workload)
        guard, slurm = _start_clock(site)
        _start(slurm, cluster)
        yield slurm
    finally:
        _end(guard, folder)


def free_ports(count: int) -> int:
    """Return the first of `count` neighbouring ports of loopback that are free."""
    for first in range(20_000 + os.getpid() % 500 * 10, 60_000 - count, 97):
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise SlurmError(f"no {count} neighbouring ports are free on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write_files(site: Site, cluster: Cluster, workload: Workload) -> None:
    folder = site.folder  # nobody else enters it: without munge's socket no other user is heard
    for name in ("state", "spool", "dev", "taken", "munge", "seconds"):
        (folder / name).mkdir()
    for name, text in config_files(site, cluster, workload).items():
        (folder / name).write_text(text)
    if site.accounts:
        (folder / "slurmdbd.conf").touch(0o600)
        (folder / "slurmdbd.conf").write_text(base.slurmdbd_conf(site))
        (folder / "accounts").write_text(site.accounts.dump(site.user))
    for slot in range(max(node.devices for node in cluster.nodes)):
        (folder / "dev" / f"gpu{slot}").touch()
    key = folder / "munge" / "key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))


def _start_clock(site: Site) -> tuple[subprocess.Popen[bytes], Running]:
    """Start the guard under the fast clock; it tells what others need to share that clock."""
    guard = [sys.executable, str(Path(__file__).with_name("guard.py")), str(site.folder),
             str(site.speed)]  # fmt: skip
    environment = {key: value for key, value in os.environ.items()
                   if not key.startswith(("SLURM", "SBATCH", "FAKETIME"))}  # fmt: skip
    environment |= {"TZ": "UTC", "LC_ALL": "C", "PATH": search_path()}
    if site.speed != 1:
        guard = ["faketime", "-f", f"@{EPOCH} x{site.speed:g}", *guard]
        environment["FAKETIME_DONT_RESET"] = "1"  # else each process starts at the epoch again
    process = subprocess.Popen(guard, env=environment, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, start_new_session=True)  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    now = time.monotonic()
    if not line:
        raise SlurmError("the fast clock does not start: faketime ended at once")
    told = json.loads(line)
    shared = environment | told["environment"] | {"SLURM_CONF": str(site.conf)}
    return process, Running(site, shared, [], now, told["now"])


def _start(slurm: Running, cluster: Cluster) -> None:
    """Start munge in real time, the controller, then the nodes, and wait until all are idle."""
    munge = slurm.site.folder / "munge"
    real = {key: value for key, value in slurm.environment.items()
            if key != "LD_PRELOAD" and not key.startswith("FAKETIME")}  # fmt: skip
    _spawn(slurm, ["munged", "--foreground", "--force", f"--socket={munge}/socket",
                   f"--key-file={munge}/key", f"--pid-file={munge}/pid",
                   f"--log-file={munge}/log", f"--seed-file={munge}/seed"], real)  # fmt: skip
    _wait_until(slurm, (munge / "socket").exists, "munged opens its socket")
    if slurm.site.accounts:
        _start_base(slurm, real)
    # Daemons are started by these names: under any other Slurm drops every device silently.
    _spawn(slurm, ["slurmctld", "-D", "-c"], slurm.environment)
    _wait_until(slurm, lambda: _answers(slurm), "slurmctld answers")
    if slurm.site.accounts:  # only now are devices known as something to limit
        for words in base.orders(slurm.site.accounts, f"{slurm.site.folder}/accounts"):
            slurm.call(*words)
    for index in range(len(cluster.nodes)):
        (slurm.site.folder / "spool" / node_name(index)).mkdir()
        _spawn(slurm, ["slurmd", "-D", "-N", node_name(index)], slurm.environment)
    _wait_until(slurm, lambda: _idle(slurm) == len(cluster.nodes), "every node is idle")


def _start_base(slurm: Running, real: dict[str, str]) -> None:
    """Start the data base, in real time, and slurmdbd, under the fast clock."""
    complaint = base.install(slurm.site, real)
    if complaint:
        raise SlurmError(complaint)
    _spawn(slurm, base.mariadb(slurm.site), real)
    where = slurm.site.folder / "base.socket"
    _wait_until(slurm, where.exists, "mariadbd opens its socket")
    _spawn(slurm, ["slurmdbd", "-D"], slurm.environment | {"MYSQL_UNIX_PORT": str(where)})
    _wait_until(slurm, lambda: _knows_cluster(slurm), "slurmdbd answers")


def _knows_cluster(slurm: Running) -> bool:
    try:
        if "ersatz" not in slurm.call("sacctmgr", "-nP", "show", "cluster", "format=cluster"):
            slurm.call("sacctmgr", "-i", "add", "cluster", "ersatz")
        return True
    except SlurmError:
        return False


def _spawn(slurm: Running, command: Sequence[str], environment: dict[str, str]) -> None:
    output = subprocess.DEVNULL
    slurm.started.append(
        subprocess.Popen(command, env=environment, stdin=output, stdout=output, stderr=output,
                         start_new_session=True)  # an interrupt is for ersatz, not for them
    )  # fmt: skip


def _wait_until(slurm: Running, happened: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + START_S
    while not happened():
        slurm.check()
        if time.monotonic() > end:
            why = f": {slurm.complaint}" if slurm.complaint else slurm._last()
            raise SlurmError(f"waited {START_S:g} s in vain until {what}{why}")
        time.sleep(0.1)


def _answers(slurm: Running) -> bool:
    try:
        return "UP" in slurm.call("scontrol", "ping")
    except SlurmError:
        return False


def _idle(slurm: Running) -> int:
    states = slurm.call("sinfo", "--noheader", "--Node", "--partition=" + _any_partition(slurm),
                        "--format=%T")  # fmt: skip
    return sum(state == "idle" for state in states.split())


def _any_partition(slurm: Running) -> str:
    for line in slurm.site.conf.read_text().splitlines():
        if line.startswith("PartitionName="):
            return line.split()[0].split("=")[1]
    raise SlurmError("no partition is configured")


def _end(guard: subprocess.Popen[bytes] | None, folder: Path) -> None:
    """Let the guard clear up; where there is none yet, only the folder is there."""
    if guard is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(timeout=60)
    finally:
        if guard.stdout is not None:
            guard.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)
