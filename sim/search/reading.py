"""What is to be planned: a scenario with its layout left open, or a model's name; and on which devices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import (
    aliases,
    list_devices,
    list_nodes,
    load_device,
    load_node,
)
from ersatz.device_models.shipped import SCENARIOS
from ersatz.device_models.text.files import MAX_TABLE_BYTES, read_text_file
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.device_models.text.yamltext import Key, YamlText, read_yaml
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.importing.cases import open_questions, text_of
from ersatz.sim.importing.formats import import_file, is_launch_file
from ersatz.sim.scenario.case_file import Case, cases_of, validated
from ersatz.sim.scenario.file import scenario_of
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.scenario.sections.layout import ParallelSection
from ersatz.sim.scenario.sections.machines import ClusterSection
from ersatz.sim.scenario.shipped import look_up, shipped_scenarios
from ersatz.sim.search.choices import AXES, usual, with_defaults
from ersatz.sim.workload.model_file import list_models, load_model

MOST_DEVICES = 1_000_000
SIZES = {"num_hidden_layers", "hidden_size", "model_type", "text_config"}  # keys of a config.json
OF_A_CLUSTER = (("job", "spare_nodes"), ("job", "failures", "software_rate"),
                ("job", "failures", "switch_rate"))  # fmt: skip


@dataclass(slots=True)
class Question:
    """One case whose layout is to be found, and where it may run."""

    case: Case
    folder: Path
    held: dict[str, object] = field(default_factory=dict)  # axes that stay as the file has them
    nodes: tuple[Node, ...] = ()  # kinds of node that were asked for; none: the file's own
    notes: tuple[str, ...] = ()
    given: Scenario | None = None  # with the layout of the file, where it has one that can be run

    @property
    def own_node(self) -> str | None:
        """The node that the file names."""
        cluster = self.case.data.get("cluster")
        node = cluster.get("node") if isinstance(cluster, dict) else None
        return str(node) if node else None


def read_question(
    name: str, overrides: Sequence[str] = (), seed: int | None = None, *,
    on: Sequence[str] = (), keep: Sequence[str] = (), tokens: str | None = None,
    placed_later: bool = False,
) -> Question:  # fmt: skip
    """Return the question that a scenario, a launch file or a model's name asks; the first case counts.

    `on` names nodes or devices, `keep` axes of the layout (`AXES`) that the file fixes; a question that is
    `placed_later` need not say where it runs. Raises
    `InputError` with everything that is wrong.
    """
    nodes = tuple(find_node(one) for one in on)
    text, notes = _text(name, overrides, nodes)
    case = cases_of(text, overrides, seed)[0]
    if tokens is not None:
        training = _section(case, "training")
        training.pop("steps", None)
        case.data["training"] = training | {"tokens": tokens}
    question = Question(case, Path(text.file).parent, nodes=nodes, notes=tuple(notes))  # fmt: skip
    if case.data.get("parallel"):
        own = Case(case.name, case.text, dict(case.data), case.overridden)
        question.given = scenario_of(own, question.folder) if _whole(own) else None
    _one_phase(question.case)
    _check_machines(question.case)
    _open(question, keep)
    if not question.nodes and not case.data.get("cluster") and not placed_later:
        words = "which devices? say --on NODE (ersatz list nodes) and --devices N, --by DAYS or --budget"
        raise InputError([Problem(name, 0, 0, "cluster", "", words)])
    return question


def _one_phase(case: Case) -> None:
    """A plan is one layout for all steps; raises `InputError` for a job in phases."""
    for key in ("phases", "batch_ramp"):
        training = case.data.get("training")
        if isinstance(training, dict) and training.get(key):
            words = ("a plan is one layout for steps that are alike: plan one phase as a scenario of its own;"
                     " ersatz run finds a layout for each phase where parallel is left out")  # fmt: skip
            raise InputError([case.place(("training", key), None, words, at_key=True)])


class _Machines(BaseModel):
    """What a search reads of a file before it is resolved."""

    cluster: ClusterSection | None = None
    parallel: ParallelSection | None = None


def _check_machines(case: Case) -> None:
    """Raises `InputError` where machines are no cluster, or the layout beside them none that is known."""
    if validated(case, _Machines) is None:
        raise InputError(case.problems)


def _whole(case: Case) -> bool:
    """Tell whether a case says where it runs."""
    return bool(case.data.get("cluster"))


def _text(name: str, overrides: Sequence[str], nodes: Sequence[Node]) -> tuple[YamlText, list[str]]:
    """Return the text of a scenario or launch file, or one made for a model's name or config.json.

    A launch file that names no machine is read as one for the first of `nodes`.
    """
    path = look_up(name)
    if path is not None:
        if _is_config(path):
            return _of_model(str(path.absolute()))
        if not is_launch_file(path):
            return read_yaml(path), []
        found = import_file(path, overrides)
        if nodes and "cluster.node" in {question.key for question in found.questions}:
            found = import_file(path, [*overrides, f"cluster.node={nodes[0].name}"])
        if problems := open_questions(found):
            raise InputError(problems)
        return text_of(found), []
    if name.lower() not in list_models() and ("/" in name or Path(name).suffix):
        raise InputError([Problem(name, 0, 0, "", "", "cannot be read: there is no such file")])
    if name.lower() not in list_models():
        near = did_you_mean(name, [*shipped_scenarios(), *list_models()])
        words = f"no such file, nor a shipped scenario or a model of the catalogue{near}"
        raise InputError([Problem(name[:60], 0, 0, "", "", words)])
    return _of_model(name.lower())


def _is_config(path: Path) -> bool:
    """Tell whether a file is a Hugging Face configuration: the sizes of a model, and no training."""
    if path.suffix != ".json":
        return False
    try:
        data = json.loads(read_text_file(path, "a model", MAX_TABLE_BYTES))
    except ValueError:
        return False
    return isinstance(data, dict) and bool(SIZES & data.keys())


def _of_model(name: str) -> tuple[YamlText, list[str]]:
    """Return the text of a scenario of a model: trained as a shipped one does it, or as is usual."""
    for path in sorted(SCENARIOS.glob("*.yaml")):
        data: Any = read_yaml(path).data
        if isinstance(data, dict) and data.get("model") == name and data.get("training"):
            training = {k: v for k, v in data["training"].items() if k != "micro_batch"}
            made = {"question": f"How is {name} trained?", "model": name, "training": training}
            note = (
                f"batch, sequence, tokens and number format as in the shipped scenario {path.stem}"
            )
            return YamlText(name, made, {}, {}), [note]
    model = load_model(name)
    shown = model.name if name.endswith(".json") else name
    sequence, batch, per_weight = (
        usual(k) for k in ("sequence", "batch_tokens", "tokens_per_weight")
    )
    tokens, rows = per_weight * model.params(active=True), int(batch // sequence)
    training = {"sequence_length": int(sequence), "global_batch": rows,
                "tokens": f"{tokens / 1e12:.4g} T tokens"}  # fmt: skip
    notes = [
        f"sequence {sequence:,.0f} and a batch of {rows:,} are not given: as is usual",
        f"{tokens / 1e12:.3g} T tokens: {per_weight:g} for each active weight (Hoffmann et al. 2022)",
    ]  # fmt: skip
    made = {"question": f"How is {shown} trained?", "model": name, "training": training}
    return YamlText(name, made, {}, {}), notes


def _open(question: Question, keep: Sequence[str]) -> None:
    """Take the layout out of a case, but for the axes that stay."""
    data, problems = question.case.data, []
    given = _section(question.case, "parallel")
    data.pop("parallel", None)
    training = _section(question.case, "training")
    given["micro_batch"] = training.pop("micro_batch", 1)
    data["training"] = training
    data.pop("published", None)
    for axis in keep:
        if axis not in (*AXES, "dp"):
            words = f"is no axis of a layout{did_you_mean(axis, AXES)}; expected one of {', '.join(AXES)}"
            problems.append(Problem("--keep", 0, 0, "", axis[:40], words))
        elif axis not in given:
            problems.append(
                Problem("--keep", 0, 0, "", axis, "stands nowhere in the scenario; set it")
            )
        else:
            question.held[axis] = given[axis]
    if problems:
        raise InputError(problems)


def _section(case: Case, key: str) -> dict[str, Any]:
    """Return a copy of a section, empty where there is none; raises `InputError` for what is none."""
    found = case.data.get(key)
    if found is not None and not isinstance(found, dict):
        raise InputError([case.place((key,), str(found)[:60], "expected a section of keys")])
    return dict(found or {})


def find_node(name: str) -> Node:
    """Return a node by its name, or the node of a device; raises `InputError`."""
    wanted = name.strip().lower()
    if (
        wanted in list_nodes()
        or wanted in aliases("nodes")
        or "/" in name
        or name.endswith(".yaml")
    ):
        return load_node(name)
    known = [*list_devices(), *aliases("devices")]
    ends = [one for one in list_devices() if one.endswith(f"-{wanted}")]
    if wanted not in known and len(ends) != 1:
        near = did_you_mean(wanted, [*list_nodes(), *known])
        words = f"is neither a node nor a device of the catalogue{near}; see ersatz list nodes"
        raise InputError([Problem("--on", 0, 0, "", name[:60], words)])
    device = load_device(wanted if wanted in known else ends[0]).name
    nodes = [node for one in list_nodes() if (node := load_node(one)).device.name == device]
    if not nodes:
        words = "has no node in the catalogue: name a node's file of your own"
        raise InputError([Problem("--on", 0, 0, "", name[:60], words)])
    return nodes[0]


def at(question: Question, node: Node | None, nodes: int | None) -> Scenario:
    """Return the open scenario on so many nodes of a kind; see `placed`."""
    return placed(question, node, nodes)[0]


def placed(
    question: Question, node: Node | None, nodes: int | None
) -> tuple[Scenario, dict[str, Any]]:
    """Return the open scenario on so many nodes of a kind, and its data; None: as the file has it.

    What belongs to another machine or another number of them (its network, prices, rates, spares) is
    left to defaults, and said. Raises `InputError`, and `InfeasibleError` where a device cannot train.
    """
    case = question.case
    data = dict(case.data)
    notes = list(question.notes)
    if node is not None or nodes is not None:
        _move(data, node, nodes, notes, case.overridden)
    if node is not None and not node.device.trains:
        raise InfeasibleError(f"{node.device.title} cannot train: {node.device.why_not}")
    moved = Case(case.name, case.text, data, {*case.overridden, ("cluster",)})
    found = scenario_of(moved, question.folder, plans=True)
    if found is None and _only_prices(moved) and node is not None:
        data.pop("cost")
        notes.append(f"cost is not counted: {moved.problems[0].expected}")
        moved = Case(case.name, case.text, data, {*case.overridden, ("cluster",)})
        found = scenario_of(moved, question.folder, plans=True)
    if found is None:
        raise InputError(moved.problems)
    if len(found.pools) > 1:
        words = "a layout over several pools is not searched: name one kind of node by --on"
        raise InputError([case.place(("cluster", "pools"), None, words)])
    parallel = with_defaults(found.parallel, found.pools[0].stack)
    away = ("offload",) if "offload" in found.open else ()
    scenario = replace(found, parallel=parallel, open=("parallel", "micro_batch", *away),
                       assumptions=(*notes, *found.assumptions))  # fmt: skip
    return scenario, data


def _only_prices(case: Case) -> bool:
    """Tell whether all that is wrong is that the catalogue has no price."""
    return bool(case.problems) and all("catalogue has none in" in p.expected for p in case.problems)


def _move(
    data: dict[str, Any], node: Node | None, nodes: int | None, notes: list[str], said: set[Key]
) -> None:
    """Put a case on other devices; what belonged to the old ones goes, but for what was `said` now."""
    cluster = dict(data.get("cluster") or {})
    same = node is None or node.name == cluster.get("node")
    kept = {"network": cluster["network"]} if same and cluster.get("network") else {}
    name = cluster.get("node") if node is None else node.name
    many = nodes if nodes is not None else cluster.get("nodes") or 1
    data["cluster"] = {"node": name, "nodes": many, **kept}
    gone = [
        key for key in ("fabric", "stragglers") if not _said((key,), said) and data.pop(key, None)
    ]
    notes += [f"{key} of the file belongs to its cluster and is left out" for key in gone]
    for *path, key in OF_A_CLUSTER:
        _without(data, path, key, notes, said)
    if same or node is None:
        return
    for key in ("rent", "server_price"):
        _without(data, ("cost",), key, notes, said)
    if not _said(("stack",), said) and data.pop("stack", None):
        notes.append(
            "stack of the file belongs to its devices: the usual one of the vendor is taken"
        )
    training = dict(data.get("training") or {})
    precision = training.get("precision")
    said_so = _said(("training", "precision"), said)  # then it is refused by name
    if precision and not said_so and not node.device.supports(str(precision)):
        training.pop("precision")
        words = f"training.precision {precision} is not had on {node.device.title}"
        notes.append(f"{words}: the usual one is taken")
        data["training"] = training


def without_cluster(question: Question, pools: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a cluster of these pools; what of the case belongs to another goes, but for what was said."""
    data, said = question.case.data, question.case.overridden
    notes = list(question.notes)
    given = data.get("cluster")
    joint = given.get("joint") if isinstance(given, dict) else None
    notes += [f"{key} of the file belongs to its cluster and is left out"
              for key in ("fabric", "stragglers", "stack")
              if not _said((key,), said) and data.pop(key, None)]  # fmt: skip
    for *path, key in (*OF_A_CLUSTER, ("cost", "rent"), ("cost", "server_price")):
        _without(data, path, key, notes, said)
    question.notes = tuple(notes)
    return {"pools": pools, **({"joint": joint} if joint else {})}


def _said(path: Key, said: set[Key]) -> bool:
    """Tell whether an override says a value, something in it, or what it is a part of."""
    return any(one[: len(path)] == path[: len(one)] for one in said)


def _without(
    data: dict[str, Any], path: Sequence[str], key: str, notes: list[str], said: set[Key]
) -> None:
    """Take a key out of a section, which is copied, and say so."""
    if _said((*path, key), said):
        return
    inside: Any = data
    for part in path:
        if not isinstance(inside.get(part), dict):
            return
        inside[part] = dict(inside[part])
        inside = inside[part]
    if inside.pop(key, None) is not None:
        notes.append(
            f"{'.'.join((*path, key))} of the file belongs to its cluster: the default is taken"
        )


def own_devices(question: Question) -> int | None:
    """Return how many devices the file has, of whatever kind."""
    cluster = question.case.data.get("cluster")
    if not isinstance(cluster, dict) or "pools" in cluster or not cluster.get("node"):
        return None
    if cluster.get("devices"):
        return int(cluster["devices"])
    try:
        each = load_node(str(cluster["node"])).devices
    except InputError:
        return None  # told where the case is resolved
    return int(cluster.get("nodes") or 1) * each
