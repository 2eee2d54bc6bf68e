"""The head of a Slurm script: `#SBATCH` lines, and the variables that Slurm sets from them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

from ersatz.sim.importing.flags import Given, key_of, whole_number

_SHORT = {"-N": "nodes", "-n": "ntasks", "-G": "gpus", "-C": "constraint", "-p": "partition",
          "-t": "time", "-J": "job_name", "-A": "account", "-o": "output", "-e": "error",
          "-w": "nodelist", "-c": "cpus_per_task", "-q": "qos", "-D": "chdir"}  # fmt: skip


def slurm_head(text: str, line: int = 1) -> dict[str, Given]:
    """Return the options of `#SBATCH` lines by key: nodes, gres, gpus_per_node, ...

    Slurm reads no further than the first command. A job of several components differs in what they say.
    """
    parts: list[dict[str, Given]] = [{}]
    for i, row in enumerate(text.splitlines(), line):
        if row.strip() and not row.startswith("#"):
            break
        if not row.startswith("#SBATCH"):
            continue
        words = _words(row.removeprefix("#SBATCH"))
        if words[:1] in (["hetjob"], ["packjob"]):
            parts.append({})
            continue
        parts[-1] |= {given.key: given for given in _options(words, i)}
    return parts[0] if len(parts) == 1 else _either(parts)


def _words(body: str) -> list[str]:
    try:
        return shlex.split(body, comments=True)
    except ValueError:  # a quote that never ends
        return body.split()


def _options(words: list[str], line: int) -> Iterator[Given]:
    """Yield `--name=value`, `--name value`, `-N value`, `-N4`, and bare ones."""
    at = 0
    while at < len(words):
        word, at = words[at], at + 1
        if not word.startswith("-"):
            continue
        name, equals, value = word.partition("=")
        if not name.startswith("--") and len(name) > 2 and name[:2] in _SHORT:
            name, equals, value = name[:2], "=", name[2:] + equals + value
        if not equals and at < len(words) and not words[at].startswith("-"):
            value, at = words[at], at + 1
        key = _SHORT.get(name, key_of(name))
        yield Given(key, name, (value.strip("\"'"),) if value else (), line)


def _either(parts: list[dict[str, Given]]) -> dict[str, Given]:
    """Return the options of a job's components: one that differs is not known."""
    found: dict[str, Given] = {}
    for key in dict.fromkeys(key for part in parts for key in part):
        given = [part[key] for part in parts if key in part]
        choices = tuple(dict.fromkeys(one.value for one in given))
        alike = len(given) == len(parts) and len(choices) == 1
        reason = f"the job has {len(parts)} components (hetjob) that differ in it"
        found[key] = given[0] if alike else replace(given[0], unknown=reason, choices=choices)
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
    if given is None or given.unknown:
        return None
    first, _, last = given.value.partition("-")
    return whole_number(first) if not last or first == last else None


def devices_of(head: dict[str, Given]) -> int | None:
    """Return the devices of a node: `--gpus-per-node=[type:]n` or `--gres=gpu[:type]:n`."""
    for key in ("gpus_per_node", "gres"):
        given = head.get(key)
        named = given and (key == "gpus_per_node" or given.value.startswith(("gpu", "npu")))
        words = given.value.partition(",")[0] if given and named and not given.unknown else ""
        number = whole_number(words.partition("(")[0].rsplit(":", 1)[-1]) if words else None
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
