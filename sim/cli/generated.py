"""Text that is generated: stored outputs of the scenarios, and the pages of keys and columns.

python -m ersatz.sim.cli.generated     writes scenarios/*.out and the pages of `pages`
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ersatz.device_models.text.whole import write_all_whole
from ersatz.sim import records
from ersatz.sim.cli.output import captured
from ersatz.sim.cli.pages.gallery import gallery_markdown, picture_file, picture_name
from ersatz.sim.cli.pages.keys import key_tables, spoken, unit_table
from ersatz.sim.cli.pages.model import model_markdown
from ersatz.sim.cli.pages.tours import refreshed, run_pages
from ersatz.sim.finding.texts import scenario_words
from ersatz.sim.records import columns
from ersatz.sim.report.pictures.fabric_svg import drawings
from ersatz.sim.scenario.fabric_file import load_fabric_cases
from ersatz.sim.scenario.schema import ScenarioFile

ROOT = Path(__file__).resolve().parents[2]


def scenario_output(path: Path) -> tuple[str, str]:
    """Return the report of a scenario as stored beside it, and its picture for the gallery."""
    words, name = scenario_command(path), picture_name(path)
    if not name:
        return captured(words), ""
    with TemporaryDirectory() as out:
        report = captured([*words, "--out", out])
        return report, (Path(out) / f"{name}.svg").read_text("utf-8")


def scenario_files(folder: Path = ROOT) -> list[Path]:
    """Return the shipped scenarios of all kinds."""
    return sorted((folder / "scenarios").rglob("*.yaml"))


def scenario_command(path: Path) -> list[str]:
    """Return the words after `ersatz` that answer a scenario: its line `# $ ersatz ...`, or run.

    The scenario's own name among them is replaced by its path.
    """
    return [str(path) if word == path.stem else word for word in scenario_words(path)]


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
    named = {"phases": "PhaseResult", "published": "Comparison", "operations.collectives": "CollectiveRow",
             "operations.flops": "FlopRow"}  # fmt: skip
    for name in ("step", "memory", "job", "cost", "energy", "operations", *named):
        record = named.get(name, f"{name.capitalize()}Result")
        kind = getattr(records, record)
        lines += ["", f"## {name}", "", str(kind.__doc__).splitlines()[0], ""]
        lines += ["| column | unit | meaning |", "|---|---|---|"]
        lines += [f"| `{column}` | {unit} | {meaning} |" for column, unit, meaning in columns(kind)]
    lines += [
        "",
        "Besides: `question`, `name`, `setting` (model, layout, batch, pools), `assumptions` (sentences) and",
        "`sources` (citations).",
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
    lines += key_tables(ScenarioFile)
    lines += ["", "## Units", "", *unit_table()]
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
        *key_tables(BuyFile),
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
    lines += [
        f"| `{name}` | {spoken(kind)} | {meaning} |" for name, (kind, _, meaning) in FIELDS.items()
    ]
    return "\n".join([*lines, ""])


def pages() -> dict[str, str]:
    """Return the generated pages of docs/ by file name."""
    return {
        "scenario.md": scenario_markdown(),
        "outputs.md": outputs_markdown(),
        "purchase-file.md": purchase_markdown(),
        "model-file.md": model_markdown(),
        "gallery.md": gallery_markdown(ROOT),
    }


def sampled(readme: str, folder: Path = ROOT) -> str:
    """Return the README with its sample filled in: the table of answers of its first command."""
    report = (folder / "scenarios" / "ling-plus-substitution.out").read_text("utf-8")
    table = report.split("\n\n")[1]
    block = re.compile(r"(?<=<!-- sample -->\n```text\n).*?(?=```)", re.S)
    return block.sub(lambda _: f"{table}\n", readme)


def write_all(folder: Path = ROOT, only: Sequence[str] = ()) -> None:
    """Write every generated file below `folder`."""
    for path in scenario_files(folder):
        if not only or path.stem in only:
            report, picture = scenario_output(path)
            drawn = {picture_file(path, folder): picture} if picture else {}
            write_all_whole({path.with_suffix(".out"): report, **drawn, **scenario_drawings(path)})
    docs = folder / "docs"
    write_all_whole({tour: refreshed(tour.read_text("utf-8")) for tour in run_pages(docs)})
    readme = folder / "README.md"
    write_all_whole({readme: sampled(readme.read_text("utf-8"), folder)})
    write_all_whole({docs / name: text for name, text in pages().items()})


if __name__ == "__main__":
    write_all()
