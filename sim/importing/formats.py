"""Which format a file is of, told from its content; and the one way in: `import_file`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ersatz.device_models.text.files import MAX_TABLE_BYTES, read_text_file
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.finish import finish
from ersatz.sim.importing.record import Imported


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is read, and what its user says of the script's surroundings."""

    path: Path
    text: str
    defines: Mapping[str, str]
    arguments: Sequence[str] | None


Reader = Callable[[Source], Draft]
NetworkReader = Callable[[Source, Sequence[str]], Imported]


def import_file(
    path: Path | str, overrides: Sequence[str] = (), defines: Mapping[str, str] | None = None,
    arguments: Sequence[str] | None = None,
) -> Imported:  # fmt: skip
    """Read a launch file, configuration or log as a scenario. Nothing of it is run.

    `defines` are variables of its environment, `arguments` its positional parameters, `overrides` texts
    like `cluster.node=h100-8` that win over what is read. Raises `InputError` for what is of no known
    format, and for values that cannot be read.
    """
    source = Source(Path(path), read_text_file(path, "a launch file", MAX_TABLE_BYTES),
                    defines or {}, arguments)  # fmt: skip
    if network := network_reader_of(source):
        return network(source, overrides)
    reader = reader_of(source)
    if reader is None:
        words = "is of no known format: expected a launch script, its log, or a framework's configuration"
        raise InputError([Problem(str(path), 0, 0, "", "", words)])
    return finish(reader(source), overrides)


def is_launch_file(path: Path) -> bool:
    """Tell whether a file is one to import, and no scenario."""
    if path.suffix in (".sh", ".bash", ".sbatch", ".slurm", ".toml", ".log"):
        return True
    try:
        text = read_text_file(path, "a scenario", MAX_TABLE_BYTES)
    except InputError:
        return False
    if path.suffix == ".json" and '"cluster"' in text and '"training"' in text:
        return False  # a scenario: JSON is YAML
    if path.suffix not in (".yaml", ".yml"):
        return reader_of(Source(path, text, {}, None)) is not None
    return _not_a_scenario(text)


def _not_a_scenario(text: str) -> bool:
    """A scenario has sections of its own; a configuration of a framework has other keys on top."""
    from ersatz.sim.importing.configs.detect import yaml_format

    tops = {row.split(":", 1)[0].strip("\"'") for row in text.splitlines()
            if ":" in row and row[:1].strip() and not row.startswith("#")}  # fmt: skip
    return not tops & {"cluster", "question"} and yaml_format(tops) is not None


def reader_of(source: Source) -> Reader | None:
    """Return what reads a file, by its content."""
    begin, suffix = source.text[:200_000], source.path.suffix
    if "--- arguments ---" in begin or any(mark in begin for mark in _LOG_MARKS):
        return _log
    if suffix not in (".yaml", ".yml", ".toml", ".sh") and _rates(begin):
        return _rate_log
    if begin.startswith("#!") and "sh" in begin.split("\n", 1)[0]:
        return _script
    if suffix in (".sh", ".bash", ".sbatch", ".slurm") or "#SBATCH" in begin:
        return _script
    if suffix == ".toml":
        return _toml
    if suffix in (".yaml", ".yml"):
        return _yaml
    return _json if begin.lstrip().startswith("{") else None


# Words that only the lines of steps in a log have.
_LOG_MARKS = ("elapsed time per iteration", "time_per_iteration_ms", "train_step_timing in s",
              "'train_speed(s/it)'", "Step Time :")  # fmt: skip


def _script(source: Source) -> Draft:
    from ersatz.sim.importing.script import read_script

    return read_script(source.path, source.text, source.defines, source.arguments)


def _log(source: Source) -> Draft:
    from ersatz.sim.importing.logs.megatron import read_log

    return read_log(source.path, source.text)


def _rates(text: str) -> str | None:
    from ersatz.sim.importing.logs.others import log_kind

    return log_kind(text)


def _rate_log(source: Source) -> Draft:
    from ersatz.sim.importing.logs.others import read_rates

    return read_rates(source.path, source.text, _rates(source.text[:200_000]) or "")


def _toml(source: Source) -> Draft:
    from ersatz.sim.importing.configs.torchtitan import read_toml

    return read_toml(source.text, str(source.path))


def _json(source: Source) -> Draft:
    from ersatz.sim.importing.configs.torchtitan import is_dump, read_dump
    from ersatz.sim.importing.flat import flat_json
    from ersatz.sim.importing.trainers.recipes import read_settings

    if is_dump(flat_json(source.text, str(source.path))):
        return read_dump(source.text, str(source.path))
    return read_settings(source.text, str(source.path))


def _yaml(source: Source) -> Draft:
    from ersatz.sim.importing.configs.readers import read_configuration

    return read_configuration(source.text, source.path, source.defines)


def network_reader_of(source: Source) -> NetworkReader | None:
    """Return what reads a table or a description of a network, by its content."""
    from ersatz.sim.importing.networks.tables import HCCL_MARK, NCCL_MARK
    from ersatz.sim.importing.networks.topology import INFRAGRAPH_MARK, TOPO_MARK, XML_MARK

    marks = ((NCCL_MARK, _nccl), (HCCL_MARK, _hccl), (TOPO_MARK, _topo), (XML_MARK, _xml))
    begin = source.text[:200_000]
    for mark, reader in marks:
        if mark.search(begin):
            return reader
    if source.path.suffix in (".yaml", ".yml") and INFRAGRAPH_MARK.search(begin):
        return _infragraph
    return None


def _nccl(source: Source, overrides: Sequence[str]) -> Imported:
    from ersatz.sim.importing.networks.found import answers_of
    from ersatz.sim.importing.networks.tables import read_nccl

    return read_nccl(source.text, str(source.path), answers_of(overrides, source.defines))


def _hccl(source: Source, overrides: Sequence[str]) -> Imported:
    from ersatz.sim.importing.networks.found import answers_of
    from ersatz.sim.importing.networks.tables import read_hccl

    return read_hccl(source.text, str(source.path), answers_of(overrides, source.defines))


def _topo(source: Source, overrides: Sequence[str]) -> Imported:
    from ersatz.sim.importing.networks.found import answers_of
    from ersatz.sim.importing.networks.topology import read_topo

    return read_topo(source.text, str(source.path), answers_of(overrides, source.defines))


def _xml(source: Source, overrides: Sequence[str]) -> Imported:
    from ersatz.sim.importing.networks.found import answers_of
    from ersatz.sim.importing.networks.topology import read_xml

    return read_xml(source.text, str(source.path), answers_of(overrides, source.defines))


def _infragraph(source: Source, overrides: Sequence[str]) -> Imported:
    from ersatz.device_models.text.yamltext import parse_yaml
    from ersatz.sim.importing.networks.found import answers_of
    from ersatz.sim.importing.networks.topology import read_infragraph

    text = parse_yaml(source.text, str(source.path))
    return read_infragraph(text, answers_of(overrides, source.defines))
