"""Logs of schedulers and lists of nodes made elsewhere, read into ours: a function per kind in `LOGS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ersatz.device_models.text.files import is_there
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.foreign.batsim import read_batsim_jobs
from ersatz.sim.fleet.foreign.kubernetes import read_kubernetes
from ersatz.sim.fleet.foreign.nodes import NODE_LISTS, read_fleet
from ersatz.sim.fleet.foreign.sacct import read_sacct
from ersatz.sim.fleet.foreign.stories import Foreign
from ersatz.sim.fleet.judge.logfile import read_log
from ersatz.sim.fleet.workload.traces.rows import open_text

__all__ = ["LOGS", "NODE_LISTS", "Foreign", "parted", "read_any_log", "read_fleet"]

LOGS: dict[str, Callable[[Path, Cluster | None], Foreign]] = {
    "ersatz": lambda path, _: Foreign(read_log(path), ()),
    "sacct": read_sacct,
    "batsim": read_batsim_jobs,
    "kubernetes": read_kubernetes,
}


def parted(text: str) -> tuple[str, Path]:
    """Return kind and path of KIND:PATH; the kind is empty where there is none or the path has a colon."""
    kind, colon, path = text.partition(":")
    known = colon and (kind in LOGS or kind in NODE_LISTS) and not is_there(text)
    return (kind, Path(path)) if known else ("", Path(text))


def read_any_log(path: Path, kind: str = "", fleet: Cluster | None = None) -> Foreign:
    """Read a log of a kind in `LOGS`, or of the one that it looks like, on a fleet if one is given.

    Raises `InputError` with every row that cannot be read.
    """
    kind = kind or _kind_of(path)
    if kind not in LOGS:
        raise InputError([Problem(str(path), 0, 0, "", kind, "is no kind of log; expected one of"
                                  f" {', '.join(LOGS)}{did_you_mean(kind, LOGS)}")])  # fmt: skip
    if kind == "ersatz" and fleet is not None:
        raise InputError([Problem(str(path), 0, 0, "", "", "holds its own fleet; --fleet is for logs"
                                  " made elsewhere")])  # fmt: skip
    return LOGS[kind](path, fleet)


def _kind_of(path: Path) -> str:
    head = open_text(path).lstrip().partition("\n")[0]
    if "|" in head and "JobID" in head.split("|"):
        return "sacct"
    if {"job_id", "submission_time"} <= set(head.split(",")):
        return "batsim"
    ours = head.startswith('{"time_s"') or '"event":"begin"' in head.replace(" ", "")
    return "kubernetes" if head.startswith(("{", "[")) and not ours else "ersatz"
