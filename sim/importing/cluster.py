"""How many devices a launcher starts, on how many machines; and what is asked of the machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ersatz.device_models.text.digits import is_whole
from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import InputError
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Given, whole_number
from ersatz.sim.importing.shell.pieces import Value, text_of, unknown_of

PER_NODE = ("nproc_per_node", "gpus_per_node", "npus_per_node", "num_gpus", "local_worker_num",
            "ntasks_per_node")  # fmt: skip
NODES = ("nnodes", "num_nodes", "num_machines", "nodes")
TOTAL = ("num_processes", "worker_num", "gpus", "np")
_HOSTS = ("host", "hostfile", "exclude", "map_by")
_NOTED = frozenset({*PER_NODE, *NODES, *TOTAL, *_HOSTS, "gres", "include", "constraint", "ntasks"})
_PER_RESOURCE = re.compile(r"ppr:(\d+):node\b", re.I)


def read_machines(
    draft: Draft, *sources: Mapping[str, Given], written: Mapping[str, Value] | None = None
) -> None:
    """Put the machines of a launcher, or of the head of a batch script, into the draft.

    The first source that says a number wins: a launcher before the head. `written` are files that a
    script makes, of which one may list hosts.
    """
    nodes = _number(draft, "cluster.nodes", NODES, sources)
    if nodes is None and any("standalone" in source for source in sources):
        nodes = 1
    each = _number(draft, "devices_per_node", PER_NODE, sources)
    if each is None:
        each = _by_resource(draft, sources)
    elif (there := _by_resource(draft, sources)) and there > each and _idle(sources):
        words = f"so many tasks start on a machine of {there} devices: the others stand idle, unless the"
        draft.assume("devices of a machine", each, f"{words} program starts processes of its own")
    total = _number(draft, "devices", TOTAL, sources)
    if each is None:
        each = _mapped(sources)
    if (hosts := _included(sources)) and each is None and nodes is None:
        nodes, each = hosts
    nodes, each = _listed(draft, sources, written or {}, nodes, each, total)
    if nodes == 0 or each == 0:
        draft.contradict("the launcher starts no device")
        return
    _add_up(draft, nodes, each, total)
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


def _add_up(draft: Draft, nodes: int | None, each: int | None, total: int | None) -> None:
    """Note processes that are no whole number on each machine, or another number than machines hold."""
    if total and nodes and each is None and total % nodes:
        draft.contradict(f"{total} processes are no whole number on each of {nodes} machines")
    elif total and nodes is None and each and total % each and total > each:
        draft.contradict(f"{total} processes are no whole number of machines of {each}")
    elif total and nodes and each and total != nodes * each:
        draft.contradict(
            f"{nodes} machines of {each} devices start {nodes * each} processes, not {total}"
        )


def _idle(sources: tuple[Mapping[str, Given], ...]) -> bool:
    """Tell whether tasks of Slurm alone say how many devices of a machine are used."""
    named = {name for source in sources for name in PER_NODE if name in source}
    return named <= {"ntasks_per_node", "gpus_per_node"} and "ntasks_per_node" in named


def _mapped(sources: tuple[Mapping[str, Given], ...]) -> int | None:
    """Return the ranks of a machine of `--map-by ppr:8:node`."""
    found = [
        _PER_RESOURCE.search(source["map_by"].value) for source in sources if "map_by" in source
    ]
    return int(found[0][1]) if found and found[0] else None


def _listed(
    draft: Draft, sources: tuple[Mapping[str, Given], ...], written: Mapping[str, Value],
    nodes: int | None, each: int | None, total: int | None,
) -> tuple[int | None, int | None]:  # fmt: skip
    """Fill in machines and devices of each that hosts on the command line, or in a file, have."""
    given = {key: source[key] for source in reversed(sources) for key in _HOSTS if key in source}
    hosts: dict[str, int] = {}
    if "host" in given and not given["host"].unknown:
        hosts = _slots(given["host"].value.replace(",", "\n"))
    elif "hostfile" in given and not given["hostfile"].unknown:
        hosts = _slots(_host_file(draft, given["hostfile"].value, written))
    left_out = given.get("exclude")
    if not hosts or (nodes is not None and each is not None):
        if left_out is not None and nodes is not None:
            draft.ask("cluster.nodes", f"{left_out.shown} {left_out.value}: how many machines are left",
                      (), left_out.line)  # fmt: skip
            return None, each
        return nodes, each
    if left_out is not None:
        if ":" in left_out.value or left_out.unknown:
            words = f"{left_out.shown} {left_out.value}: devices are left out on some machines"
            draft.ask("cluster.nodes", words, (), left_out.line)
            return None, each
        hosts = {name: n for name, n in hosts.items() if name not in left_out.value.split("@")}
    slots = set(hosts.values())
    if len(slots) != 1 or (total is not None and any(slots) and total != sum(hosts.values())):
        draft.ask("cluster.nodes", f"hosts {', '.join(hosts)[:60]} with {sum(hosts.values())} slots in all:"
                  " how many devices of how many machines?")  # fmt: skip
        return nodes, each
    return len(hosts) if nodes is None else nodes, (slots.pop() or None) if each is None else each


def _slots(text: str) -> dict[str, int]:
    """Return hosts with their slots: `name slots=8`, `name:8`; 0 where they are not said."""
    found: dict[str, int] = {}
    for row in text.splitlines():
        words = row.partition("#")[0].replace("slots =", "slots=").split()
        if not words:
            continue
        name, _, number = words[0].partition(":")
        stated = next((w.partition("=")[2] for w in words[1:] if w.startswith("slots=")), number)
        found[name] = found.get(name, 0) + (int(stated) if is_whole(stated) else 0)
    return found


def _host_file(draft: Draft, named: str, written: Mapping[str, Value]) -> str:
    """Return the text of a list of hosts that lies beside the script, or that it writes; empty: none."""
    name = Path(named).name
    if name in written:
        return "" if unknown_of(written[name]) else text_of(written[name])
    try:
        return read_text_file(Path(draft.file).parent / name, "a list of hosts")
    except InputError:
        return ""


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
