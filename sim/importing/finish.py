"""The end of an import: machines, stack, contradictions, and the questions that are left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import list_nodes, load_node
from ersatz.device_models.text.problems import InputError
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.record import Imported
from ersatz.sim.scenario.case_file import apply_overrides

HOME = {"huawei": "mindspeed", "amd": "primus"}  # the port of Megatron on a vendor's devices
MEGATRON = {"megatron-core", "mindspeed", "mindspeed-mc2", "primus", "primus-deepep", "primus-sync-free",
            "megatron-core-graphs"}  # fmt: skip
MOST_CHOICES = 12


def finish(draft: Draft, overrides: Sequence[str]) -> Imported:
    """Return what was imported, with the user's own values over it.

    Raises `InputError` for values that cannot be read and for overrides that have no place.
    """
    if draft.problems:
        raise InputError(draft.problems)
    given: dict[str, Any] = {}
    changed = apply_overrides(given, overrides)
    answered = {".".join(map(str, path)) for path in changed}
    node = _node(given)
    _machines(draft, given, answered, node)
    _stack(draft, node)
    for key in [k for k in draft.questions if _answered(k, answered)]:
        draft.questions.pop(key)
    if "model" in answered:
        draft.drop("model")
    scenario = {"question": question_of(draft), **draft.scenario()}
    if draft.measured_step_s is not None:
        source = f"{Path(draft.file).name}: {draft.measured_from}"
        scenario["published"] = [
            {
                "metric": "step.duration_s",
                "value": round(draft.measured_step_s, 6),
                "source": source,
            }
        ]
    apply_overrides(scenario, overrides)
    _check(draft, scenario)
    return _imported(draft, scenario)


def _answered(key: str, answered: set[str]) -> bool:
    return any(
        key == one or key.startswith(f"{one}.") or one.startswith(f"{key}.") for one in answered
    )


def question_of(draft: Draft) -> str:
    """Return the question of the scenario."""
    name = "".join(c for c in Path(draft.file).name if c.isprintable())
    return f"How long does the training of {name} take, and does it fit?"


def _node(given: Mapping[str, Any]) -> Node | None:
    name = (
        (given.get("cluster") or {}).get("node") if isinstance(given.get("cluster"), dict) else None
    )
    if not isinstance(name, str):
        return None
    try:
        return load_node(name)
    except InputError:
        return None  # it is said where the scenario is read


def _machines(
    draft: Draft, given: Mapping[str, Any], answered: set[str], node: Node | None
) -> None:
    """Fit the number of machines to what a machine of the user's choice holds."""
    cluster = given.get("cluster") or {}
    if "pools" in cluster:
        draft.drop("cluster")
        draft.questions.pop("cluster.nodes", None)
        return
    if "cluster.nodes" in answered or "cluster.devices" in answered:
        nodes = cluster.get("nodes")
        if node and isinstance(nodes, int):
            draft.devices, draft.devices_per_node = nodes * node.devices, node.devices
        draft.drop("cluster.nodes")
        draft.drop("cluster.devices")
    elif node and draft.devices:
        _on_this_node(draft, node)
    elif node and draft.values.get("cluster.nodes"):  # every device of each
        draft.devices, draft.devices_per_node = (
            draft.values["cluster.nodes"] * node.devices,
            node.devices,
        )
    elif "cluster.nodes" not in draft.values:
        total = f"{draft.devices} devices in all; " if draft.devices else ""
        draft.ask("cluster.nodes", f"{total}the file does not say on how many machines")
        if draft.devices:
            draft.put("cluster.devices", draft.devices)
    if "cluster.node" not in answered and not draft.values.get("cluster.node"):
        each = f" of {draft.devices_per_node} devices" if draft.devices_per_node else ""
        hint = f"; it names {draft.device_hint}" if draft.device_hint else ""
        draft.ask("cluster.node", f"the file does not name a machine{each}{hint}", _choices(draft))


def _on_this_node(draft: Draft, node: Node) -> None:
    total, each = draft.devices or 0, node.devices
    draft.drop("cluster.devices")
    draft.questions.pop("cluster.nodes", None)
    if total % each:
        draft.drop("cluster.nodes")
        draft.ask(
            "cluster.nodes", f"{total} devices of the file are no whole number of nodes of {each}"
        )
        return
    if draft.values.get("cluster.nodes") != total // each:
        draft.assume(
            "cluster.nodes", total // each, f"{total} devices as in the file, in nodes of {each}"
        )
    draft.put("cluster.nodes", total // each)


def _choices(draft: Draft) -> list[str]:
    """Return machines that could be meant: by the device that the file names, or of so many devices."""
    hint = "".join(c for c in draft.device_hint.lower() if c.isalnum())
    names = list_nodes()
    if hint:
        named = [
            n for n in names if hint in n.replace("-", "") or n.replace("-", "").startswith(hint)
        ]
        if named:
            return named[:MOST_CHOICES]
    each = draft.devices_per_node
    fitting = [name for name in names if not each or name.endswith(f"-{each}")]
    return fitting[:MOST_CHOICES]


def _stack(draft: Draft, node: Node | None) -> None:
    """On another vendor's devices the script runs in that vendor's port of the framework."""
    stack = draft.values.get("stack")
    if node is None or stack not in MEGATRON:
        return
    vendor = node.device.vendor
    port = HOME.get(vendor, "megatron-core")
    family = {"mindspeed-mc2": "mindspeed", "megatron-core-graphs": "megatron-core"}.get(
        str(stack), str(stack).partition("-deepep")[0].partition("-sync")[0])  # fmt: skip
    if family != port:
        draft.put("stack", port)
        draft.assume("stack", port, f"the file is of {stack}; {vendor} devices run its port {port}")


def _check(draft: Draft, scenario: Mapping[str, Any]) -> None:
    """Note degrees and batches that cannot be true together."""
    parallel = scenario.get("parallel") or {}
    training = scenario.get("training") or {}
    tp, pp, cp = (parallel.get(key, 1) for key in ("tp", "pp", "cp"))
    devices = draft.devices
    if not devices or not all(isinstance(n, int) and n > 0 for n in (tp, pp, cp)):
        return
    if devices % (tp * pp * cp):
        draft.contradict(f"{devices} devices are no multiple of tp {tp} x pp {pp} x cp {cp} ="
                         f" {tp * pp * cp}")  # fmt: skip
        draft.ask("cluster.nodes", f"the {devices} devices of the file cannot hold tp {tp} x pp {pp} x"
                  f" cp {cp}")  # fmt: skip
        return
    dp = devices // (tp * pp * cp)
    batch, micro = training.get("global_batch"), training.get("micro_batch")
    if isinstance(batch, int) and isinstance(micro, int) and micro > 0 and batch % (micro * dp):
        draft.contradict(f"global batch {batch} is no multiple of micro-batch {micro} x dp {dp}")
    ep, etp = parallel.get("ep", 1), parallel.get("etp", 1)
    if isinstance(ep, int) and isinstance(etp, int) and ep * etp and devices % (ep * etp * pp):
        draft.contradict(f"{devices} devices are no multiple of etp {etp} x ep {ep} x pp {pp}")


def _imported(draft: Draft, scenario: dict[str, Any]) -> Imported:
    return Imported(
        file=draft.file, format=draft.format, version=draft.version, scenario=scenario,
        origins=dict(draft.origins), devices=draft.devices, devices_per_node=draft.devices_per_node,
        measured_step_s=draft.measured_step_s, measured_from=draft.measured_from,
        read=tuple(draft.read), assumed=tuple(draft.assumed.values()),
        not_modelled=tuple(draft.not_modelled), ignored=tuple(draft.ignored),
        questions=tuple(draft.questions.values()), wrong=tuple(draft.wrong),
    )  # fmt: skip
