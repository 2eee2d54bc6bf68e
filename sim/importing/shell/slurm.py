"""The head of a Slurm script: `#SBATCH` lines, and the variables that Slurm sets from them."""

from __future__ import annotations

import re

from ersatz.sim.importing.flags import Given, key_of, whole_number

_SHORT = {"-N": "nodes", "-n": "ntasks", "-G": "gpus", "-C": "constraint", "-p": "partition",
          "-t": "time", "-J": "job_name", "-A": "account", "-o": "output", "-e": "error",
          "-w": "nodelist", "-c": "cpus_per_task", "-q": "qos", "-D": "chdir"}  # fmt: skip


def slurm_head(text: str, line: int = 1) -> dict[str, Given]:
    """Return the options of `#SBATCH` lines by key: nodes, gres, gpus_per_node, ..."""
    found: dict[str, Given] = {}
    for i, row in enumerate(text.splitlines(), line):
        if not row.startswith("#SBATCH"):
            continue
        body = re.split(r"\s#", row.removeprefix("#SBATCH"), maxsplit=1)[0]
        for name, value in re.findall(r"(--?[A-Za-z][\w-]*)(?:[= ]+([^-\s][^\s]*))?", body):
            key = _SHORT.get(name, key_of(name))
            found[key] = Given(key, name, (value.strip("\"'"),) if value else (), i)
    return found


def slurm_variables(head: dict[str, Given]) -> dict[str, str]:
    """Return the variables that Slurm sets in a job with this head."""
    nodes = _number(head, "nodes")
    tasks = _number(head, "ntasks_per_node")
    devices = devices_of(head)
    known = {
        "SLURM_NNODES": nodes, "SLURM_JOB_NUM_NODES": nodes, "SLURM_NTASKS_PER_NODE": tasks,
        "SLURM_TASKS_PER_NODE": tasks, "SLURM_GPUS_PER_NODE": devices, "SLURM_GPUS_ON_NODE": devices,
        "SLURM_NTASKS": _number(head, "ntasks") or (nodes * tasks if nodes and tasks else None),
        "SLURM_NPROCS": _number(head, "ntasks") or (nodes * tasks if nodes and tasks else None),
    }  # fmt: skip
    return {name: str(value) for name, value in known.items() if value}


def _number(head: dict[str, Given], key: str) -> int | None:
    given = head.get(key)
    return whole_number(given.value.partition("-")[0]) if given else None


def devices_of(head: dict[str, Given]) -> int | None:
    """Return the devices of a node: `--gpus-per-node=[type:]n` or `--gres=gpu[:type]:n`."""
    for key in ("gpus_per_node", "gres"):
        given = head.get(key)
        named = given and (key == "gpus_per_node" or given.value.startswith(("gpu", "npu")))
        number = whole_number(given.value.rsplit(":", 1)[-1]) if given and named else None
        if number is not None:
            return number
    return None


def device_type(head: dict[str, Given]) -> str:
    """Return the kind of device that a head asks for: `--gres=gpu:h100:8`, `--constraint=a100`."""
    for key, at in (("gpus_per_node", 0), ("gres", 1), ("gpus", 0)):
        given = head.get(key)
        parts = given.value.split(":") if given else []
        if len(parts) > at + 1:
            return parts[at].lower()
    given = head.get("constraint")
    return given.value.lower() if given else ""
