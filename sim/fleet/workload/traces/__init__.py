"""Traces of real clusters and of simulators, read into workloads: a function per family in `READERS`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.sim.fleet.workload.jobs import Workload
from ersatz.sim.fleet.workload.traces.alibaba import read_dlrm, read_openb, read_pai
from ersatz.sim.fleet.workload.traces.batsim import read_batsim
from ersatz.sim.fleet.workload.traces.clusters import read_acme, read_helios
from ersatz.sim.fleet.workload.traces.own import read_own
from ersatz.sim.fleet.workload.traces.philly import read_philly
from ersatz.sim.fleet.workload.traces.profiled import read_gavel, read_sia
from ersatz.sim.fleet.workload.traces.rows import open_text
from ersatz.sim.fleet.workload.traces.swf import read_swf
from ersatz.sim.fleet.workload.traces.tiresias import read_tiresias

__all__ = ["READERS", "kind_of", "read_trace"]

READERS: dict[str, Callable[[Path], Workload]] = {
    "csv": read_own, "philly": read_philly, "pai": read_pai, "openb": read_openb,
    "dlrm": read_dlrm,
    "helios": read_helios, "acme": read_acme, "sia": read_sia, "gavel": read_gavel,
    "tiresias": read_tiresias, "swf": read_swf, "batsim": read_batsim,
}  # fmt: skip
# Columns by which a CSV is known, those of the longest match.
_KNOWN = {
    "csv": {"id", "submit_s", "devices", "duration_s"},
    "philly": {"timestamp", "num_gpus", "cluster"},
    "openb": {"name", "num_gpu", "gpu_milli"},
    "dlrm": {"instance_sn", "app_name", "gpu_request"},
    "helios": {"job_id", "vc", "gpu_num"},
    "acme": {"job_id", "gpu_num", "type"},
    "sia": {"application", "num_replicas"},
    "tiresias": {"job_id", "num_gpu", "submit_time"},
}


def read_trace(path: Path | str, kind: str = "") -> Workload:
    """Read a trace of a kind in `READERS`, or of the kind that its name and head tell.

    Raises `InputError` with file and line of everything that cannot be read.
    """
    path = Path(path)
    kind = kind or kind_of(path)
    if kind not in READERS:
        raise InputError([Problem(str(path), 0, 0, "", kind, "is no kind of trace; expected one of"
                                  f" {', '.join(READERS)}{did_you_mean(kind, READERS)}")])  # fmt: skip
    return READERS[kind](path)


def kind_of(path: Path) -> str:
    """Return the kind of a trace by its name and first line; raises `InputError` if that is open."""
    name = path.name.removesuffix(".gz")
    if os.path.isdir(path) or name.startswith("pai_"):
        return "pai"
    if name.startswith("cluster_job_log"):
        return "philly"
    for suffix, kind in ((".swf", "swf"), (".trace", "gavel"), (".json", "batsim")):
        if name.endswith(suffix):
            return kind
    head = open_text(path).partition("\n")[0]
    columns = set(head.strip().split(","))
    matches = [kind for kind, known in _KNOWN.items() if known <= columns]
    if matches:
        return matches[0]
    raise InputError([Problem(str(path), 1, 1, "", head[:60], "does not tell which trace this is;"
                              f" put its kind before the path: {', '.join(READERS)}")])  # fmt: skip
