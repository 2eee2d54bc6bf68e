"""How many devices a launcher starts, on how many machines; and what is asked of the machines."""

from __future__ import annotations

from collections.abc import Mapping

from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Given, whole_number

PER_NODE = ("nproc_per_node", "gpus_per_node", "npus_per_node", "num_gpus", "ntasks_per_node")
NODES = ("nnodes", "num_nodes", "num_machines", "nodes")
TOTAL = ("num_processes", "gpus", "np")
_NOTED = frozenset({*PER_NODE, *NODES, *TOTAL, "gres", "include", "constraint", "ntasks"})


def read_machines(draft: Draft, *sources: Mapping[str, Given]) -> None:
    """Put the machines of a launcher, or of the head of a batch script, into the draft.

    The first source that says a number wins: a launcher before the head.
    """
    nodes = _number(draft, "cluster.nodes", NODES, sources)
    each = _number(draft, "devices_per_node", PER_NODE, sources)
    if each is None:
        each = _by_resource(draft, sources)
    total = _number(draft, "devices", TOTAL, sources)
    if (hosts := _included(sources)) and each is None and nodes is None:
        nodes, each = hosts
    if nodes == 0 or each == 0:
        draft.contradict("the launcher starts no device")
        return
    if nodes is None and total and each:
        nodes = -(-total // each)
    if each is None and total and nodes:
        each = total // nodes
    draft.devices_per_node = each
    draft.devices = nodes * each if nodes and each else total
    draft.put("cluster.nodes", nodes)
    _ignore_rest(draft, sources)


def _number(
    draft: Draft, key: str, names: tuple[str, ...], sources: tuple[Mapping[str, Given], ...]
) -> int | None:
    for source in sources:
        for name in names:
            given = source.get(name)
            if given is None:
                continue
            at = key if key.startswith("cluster") else "cluster.nodes"
            draft.note(at, given.shown, given.value, given.line, given.file)
            words = given.value.rsplit(":", 1)[-1] if name == "gpus_per_node" else given.value
            number = None if given.unknown else whole_number(words)
            if number is not None:
                return number
            why = given.unknown or f"{given.value!r} is decided when the job starts"
            draft.ask(at, f"{given.shown}: {why}", given.choices, given.line)
    return None


def _included(sources: tuple[Mapping[str, Given], ...]) -> tuple[int, int] | None:
    """Return machines and devices of each that DeepSpeed's `--include host:0,1@other:0,1` names."""
    given = next((source["include"] for source in sources if "include" in source), None)
    if given is None or given.unknown or not given.value:
        return None
    each = {len(host.partition(":")[2].split(",")) for host in given.value.split("@")}
    named = all(":" in host for host in given.value.split("@"))
    return (len(given.value.split("@")), each.pop()) if named and len(each) == 1 else None


def _by_resource(draft: Draft, sources: tuple[Mapping[str, Given], ...]) -> int | None:
    from ersatz.sim.importing.shell.slurm import devices_of

    for source in sources:
        if number := devices_of(dict(source)):
            return number
    return None


def _ignore_rest(draft: Draft, sources: tuple[Mapping[str, Given], ...]) -> None:
    """What else a launcher is told: addresses, ports, names, times."""
    noted = {(read.flag, read.line) for read in draft.read}
    for source in sources:
        for key, given in source.items():
            if (given.shown, given.line) in noted:
                continue
            if key in _NOTED:
                draft.note("cluster.nodes", given.shown, given.value, given.line, given.file)
            else:
                draft.ignore(given.shown, given.line, given.file)
