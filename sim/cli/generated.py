"""Text that is generated: stored outputs of the scenarios, and the pages of keys and columns.

python -m ersatz.sim.cli.generated     writes scenarios/*.out and docs/{scenario,outputs,purchase-file}.md
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from ersatz.device_models.text.units import BASE_UNITS, UNITS
from ersatz.device_models.text.whole import write_all_whole
from ersatz.sim import records
from ersatz.sim.cli.output import captured
from ersatz.sim.records import columns
from ersatz.sim.report.pictures.fabric_svg import drawings
from ersatz.sim.scenario.fabric_file import load_fabric_cases
from ersatz.sim.scenario.schema import ScenarioFile

ROOT = Path(__file__).resolve().parents[2]


def scenario_output(path: Path) -> str:
    """Return the report of a scenario as stored beside it."""
    return captured(scenario_command(path))


def scenario_files(folder: Path = ROOT) -> list[Path]:
    """Return the shipped scenarios of all kinds."""
    return sorted((folder / "scenarios").rglob("*.yaml"))


def scenario_command(path: Path) -> list[str]:
    """Return the words after `ersatz` that answer a scenario: its line `# $ ersatz ...`, or run.

    The scenario's own name among them is replaced by its path.
    """
    given = re.search(r"^# \$ ersatz (.+)$", path.read_text("utf-8"), re.M)
    words = shlex.split(given[1]) if given else ["run", path.stem]
    return [str(path) if word == path.stem else word for word in words]


def scenario_drawings(path: Path) -> dict[Path, str]:
    """Return the drawings stored beside a scenario, of the cases in its line `# drawn: CASE, CASE`."""
    given = re.search(r"^# drawn: (.+)$", path.read_text("utf-8"), re.M)
    wanted = [name.strip() for name in given[1].split(",")] if given else []
    drawn = drawings(load_fabric_cases(path)) if wanted else {}
    return {path.with_name(f"{path.stem}-{name}.svg"): drawn[f"fabric-{name}"] for name in wanted}


def outputs_markdown() -> str:
    """Return docs/outputs.md: every record with its columns."""
    lines = [
        "# Outputs",
        "",
        "Generated from `sim/records.py`. `--json` gives the records nested as below, the baseline's at",
        "the top and all cases under `cases`; `--out DIR` writes the same as CSV, one file per record.",
    ]
    named = {"published": "Comparison", "operations.collectives": "CollectiveRow",
             "operations.flops": "FlopRow"}  # fmt: skip
    for name in ("step", "memory", "job", "cost", "energy", "operations", *named):
        record = named.get(name, f"{name.capitalize()}Result")
        kind = getattr(records, record)
        lines += ["", f"## {name}", "", str(kind.__doc__).splitlines()[0], ""]
        lines += ["| column | unit | meaning |", "|---|---|---|"]
        lines += [f"| `{column}` | {unit} | {meaning} |" for column, unit, meaning in columns(kind)]
    lines += [
        "",
        "Besides: `question`, `name`, `assumptions` (sentences) and `sources` (citations).",
        "",
    ]
    return "\n".join(lines)


def scenario_markdown() -> str:
    """Return docs/scenario.md: every key of a scenario file."""
    lines = [
        "# Scenario files",
        "",
        "Generated from `sim/scenario/schema.py`. A scenario is a YAML file; quantities are text with a",
        "unit. A file of a node, network, stack or model may be named by path, relative to the scenario.",
        "What is left open is listed as an assumption in the output. Copy one of `scenarios/` to begin.",
    ]
    lines += _keys(ScenarioFile)
    lines += ["", "## Units", "", "| kind | base unit | units |", "|---|---|---|"]
    for dimension, units in UNITS.items():
        names = ", ".join(f"`{name}`" for name in list(units)[:40] if name)
        lines.append(f"| {dimension} | {BASE_UNITS[dimension]} | {names} |")
    return "\n".join([*lines, ""])


def purchase_markdown() -> str:
    """Return docs/purchase-file.md: every key of a file of `ersatz buy`, events, inputs, options."""
    from ersatz.sim.options.option import FIELDS
    from ersatz.sim.purchase.events import INPUTS, KINDS
    from ersatz.sim.purchase.reading.schema import BuyFile

    lines = [
        "# Files of `ersatz buy`",
        "",
        "Generated from `sim/purchase/reading/schema.py`. Quantities are text with a unit, see",
        "[the units](scenario.md). What is left open is listed as an assumption in the output. Copy one of",
        "`scenarios/market/` to begin.",
        *_keys(BuyFile),
    ]
    lines += ["", "## Values of events", "", "| kind | needs | may have |", "|---|---|---|"]
    for kind, values in KINDS.items():
        names = [(key.removesuffix("_days"), default) for key, default in values.items()]
        needs = ", ".join(f"`{key}`" for key, default in names if default is None)
        lines.append(
            f"| {kind} | {needs} | {', '.join(f'`{k}`' for k, d in names if d is not None)} |"
        )
    lines += ["", "## Uncertain inputs", "", "| input | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in INPUTS.items()]
    lines += ["", "## Fields of an option", "", "| field | kind | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {meaning} |" for name, (kind, _, meaning) in FIELDS.items()]
    return "\n".join([*lines, ""])


def _keys(schema: type[BaseModel]) -> Iterator[str]:
    """Yield a table of keys for each section of a schema, the top level first."""
    for path, section in _sections("", schema):
        yield from ("", f"## {path or 'top level'}", "", str(section.__doc__).splitlines()[0], "")
        yield from ("| key | kind | default | meaning |", "|---|---|---|---|")
        for key, field in section.model_fields.items():
            default = "required" if field.is_required() else _default(field.default)
            yield f"| `{key}` | {_kind(field)} | {default} | {field.description} |"


def _sections(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for key, field in model.model_fields.items():
        for inner in _models(field.annotation):
            yield from _sections(f"{path}.{key}".strip("."), inner)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _default(value: object) -> str:
    if value is None:
        return "open"
    if isinstance(value, BaseModel):
        return "see its section"
    if value in ((), {}, ""):
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _kind(field: Any) -> str:
    unit = _unit_of(field)
    if unit:
        return str(unit)
    text = str(field.annotation)
    for word, kind in (("Section", "section"), ("Literal", _literals(field.annotation)),
                       ("bool", "true or false"), ("float", "number"), ("int", "whole number"),
                       ("dict", "mapping"), ("str", "text")):  # fmt: skip
        if word in text and kind:
            return kind
    return "text"


def _literals(annotation: Any) -> str:
    found: list[str] = []

    def collect(part: Any) -> None:
        for arg in get_args(part):
            if isinstance(arg, str | int) and not isinstance(arg, bool):
                found.append(str(arg))
            collect(arg)

    collect(annotation)
    return ", ".join(found)


def _unit_of(field: Any) -> object:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "unit" in extra:
        return extra["unit"]
    for part in get_args(field.annotation):
        for meta in getattr(part, "__metadata__", ()):
            inner = getattr(meta, "json_schema_extra", None)
            if isinstance(inner, dict) and "unit" in inner:
                return inner["unit"]
    return None


def write_all(folder: Path = ROOT, only: Sequence[str] = ()) -> None:
    """Write every generated file below `folder`."""
    docs = folder / "docs"
    write_all_whole({docs / "outputs.md": outputs_markdown(), docs / "scenario.md": scenario_markdown(),
                     docs / "purchase-file.md": purchase_markdown()})  # fmt: skip
    for path in scenario_files(folder):
        if not only or path.stem in only:
            write_all_whole(
                {path.with_suffix(".out"): scenario_output(path), **scenario_drawings(path)}
            )


if __name__ == "__main__":
    write_all()
