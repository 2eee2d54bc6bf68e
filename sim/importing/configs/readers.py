"""The reader of each YAML format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.yamltext import YamlText, parse_yaml
from ersatz.sim.importing.configs.automodel import read_automodel
from ersatz.sim.importing.configs.detect import MARKS, yaml_format
from ersatz.sim.importing.configs.megatron import read_bridge, read_flagscale, read_test_case
from ersatz.sim.importing.configs.primus import read_primus
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.trainers.accelerate import read_accelerate
from ersatz.sim.importing.trainers.recipes import read_axolotl, read_llamafactory
from ersatz.sim.importing.trainers.trainer import REINFORCED

READERS: Mapping[str, Callable[[YamlText, Mapping[str, str]], Draft]] = {
    "primus-yaml": read_primus, "flagscale-yaml": read_flagscale, "bridge-yaml": read_bridge,
    "megatron-yaml": read_test_case, "automodel-yaml": read_automodel,
    "llamafactory-yaml": read_llamafactory, "axolotl-yaml": read_axolotl,
    "accelerate-yaml": read_accelerate,
}  # fmt: skip


def read_configuration(text: str, path: Path, defines: Mapping[str, str]) -> Draft:
    """Return the draft of a YAML configuration; raises `InputError` for one of no known format."""
    document = parse_yaml(text, str(path))
    tops = set(document.data) if isinstance(document.data, dict) else set()
    name = yaml_format(tops)
    if name == "verl-yaml":
        raise InputError([document.problem(("actor_rollout_ref",), None, REINFORCED, at_key=True)])
    if name is None or name not in READERS:
        known = ", ".join(dict.fromkeys(name for name, _ in MARKS))
        words = f"is no configuration that is known; expected one of {known}"
        raise InputError([Problem(str(path), 0, 0, "", "", words)])
    return READERS[name](document, defines)
