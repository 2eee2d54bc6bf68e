"""Models, scenarios and rules: plain YAML files, of which every value and its line is shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from ersatz.device_models.text.units import format_count
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.finding.entry import Entry, Shelf, facts_of_text
from ersatz.sim.law.places import POLICY
from ersatz.sim.law.rule import Rule
from ersatz.sim.law.rulebook import load_rules
from ersatz.sim.scenario.shipped import find_scenario, shipped_scenarios
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.model_file import MODELS, list_models, load_model


def _size(model: Model) -> str:
    active = model.params(active=True)
    some = f", {format_count(active)} active per token" if active != model.params() else ""
    return f"{format_count(model.params())} parameters{some}"


def _model_line(name: str) -> str:
    model = load_model(name)
    kind = "mixture of experts" if model.experts else "dense"
    return f"{_size(model)}; {kind}, {model.layers} layers of {model.hidden}"


def _model_entry(name: str) -> Entry:
    model = load_model(name)
    path = Path(name) if "/" in name or name.endswith((".json", ".yaml", ".yml")) else None
    text = None if path and path.suffix == ".json" else read_yaml(path or MODELS / f"{name}.yaml")
    facts = tuple(facts_of_text(text)) if text else ()
    notes = ("every key of a model file: docs/model-file.md",)
    sources = {"source": model.source} if model.source else {}
    return Entry("models", model.name, f"{model.name}: {_size(model)}", facts, "", notes, sources)


def question_of(path: Path) -> str:
    """Return the question that a scenario answers; empty where it states none."""
    return str(read_yaml(path).data.get("question", ""))


def scenario_words(path: Path) -> list[str]:
    """Return the words after `ersatz` that answer a scenario: its line `# $ ersatz ...`, or run."""
    given = re.search(r"^# \$ ersatz (.+)$", path.read_text("utf-8"), re.M)
    return shlex.split(given[1]) if given else ["run", path.stem]


def _scenario_entry(name: str) -> Entry:
    path = find_scenario(name)
    facts = tuple(facts_of_text(read_yaml(path)))
    command = shlex.join(scenario_words(path))
    notes = (f"ersatz {command}",)
    return Entry("scenarios", path.stem, question_of(path), facts, "", notes, {})


def _rule(name: str) -> Rule:
    return load_rules().rules[name]


def _rule_line(name: str) -> str:
    rule = _rule(name)
    binds = str(rule.binds) if rule.binds else f"a {rule.status}, not binding"
    return f"{rule.title} ({rule.issuer}, {binds}{f' to {rule.ends}' if rule.ends else ''})"


def _rule_entry(name: str) -> Entry:
    rule = _rule(name)
    own = POLICY / "rules" / f"{name}.yaml"
    party = "" if own.exists() else f".{name.rsplit('-EL-', 1)[-1].lower()}."  # of an entity list
    text = read_yaml(POLICY / "parties.yaml" if party else own)
    facts = tuple(f for f in facts_of_text(text)
                  if f.key != "source" and party in f".{f.key}.")  # fmt: skip
    notes = ("ersatz legal DEVICE --set rules.ID.criterion.NAME=VALUE asks what if",)
    return Entry("rules", name, f"{rule.title} ({name})", facts, "", notes, {"source": rule.source})


TEXTS = (
    Shelf("models", "what is trained", list_models, _model_line, _model_entry, by_path=True),
    Shelf("scenarios", "ready questions", lambda: list(shipped_scenarios()),
          lambda name: question_of(shipped_scenarios()[name]), _scenario_entry, by_path=True),
    Shelf("rules", "export and import rules, and bills", lambda: sorted(load_rules().rules),
          _rule_line, _rule_entry),
)  # fmt: skip
