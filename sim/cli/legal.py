"""`ersatz legal`: which devices may be bought, when and where, and why."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ersatz.sim.cli.app import JsonOption, OutOption, app
from ersatz.sim.cli.cases import look_up
from ersatz.sim.cli.output import deliver

if TYPE_CHECKING:
    from ersatz.sim.law.legal import LegalQuestion


@app.command(
    epilog="Example: ersatz legal h20 h800 ascend-910b2 --date 2025-03-24 --date 2025-04-23"
)
def legal(
    devices: Annotated[
        list[str], typer.Argument(help="Devices, `all`, or one scenario file or shipped name.")
    ],
    date: Annotated[
        list[str] | None, typer.Option("--date", metavar="DAY", help="Day of export (today); repeatable.")
    ] = None,
    to: Annotated[str, typer.Option("--to", metavar="PLACE", help="Destination.")] = "China",
    buyer: Annotated[
        str, typer.Option("--buyer", metavar="KIND", help="Kind of buyer, or a party by its name.")
    ] = "company",
    units: Annotated[
        float | None, typer.Option("--units", metavar="N", help="How many devices are asked for.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Say what changes within 12 months after the day.")
    ] = False,
    origin: Annotated[
        str | None, typer.Option("--from", metavar="PLACE", help="Where it is shipped from.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", metavar="PATH", help="File or folder of your own rules.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a rule: rules.ID.criterion.NAME=4100."),
    ] = None,
    json: JsonOption = None, out: OutOption = None,
) -> None:  # fmt: skip
    """Say what export and import rules allow at a date, with rule ids and arithmetic."""
    from ersatz.sim.law.legal import answer
    from ersatz.sim.report.legal import legal_record, render_legal
    from ersatz.sim.report.legal_sheet import legal_csv
    from ersatz.sim.report.pictures.legal_map import heat_map

    changes = tuple(set_ or ())
    questions = _of_file(devices, changes) or _of_words(
        devices, date, to, buyer, origin, rules, changes, units
    )
    answers = [answer(question) for question in questions]
    names = ["legal"] if len(answers) == 1 else [f"legal-{q.name}" for q in questions]
    pictures = {f"{name}.svg": heat_map(a) for name, a in zip(names, answers, strict=True)}
    sheets = {f"{name}.csv": legal_csv(a) for name, a in zip(names, answers, strict=True)}
    deliver("legal", legal_record(answers), render_legal(answers, watching=watch), json, out,
            pictures | sheets)  # fmt: skip


def _of_file(words: list[str], changes: tuple[str, ...]) -> tuple[LegalQuestion, ...]:
    """Return the questions of a scenario, or nothing where the words name devices."""
    from ersatz.device_models.catalog.export import knows_part
    from ersatz.device_models.text.files import read_text_file
    from ersatz.sim.law.legal import load_questions

    path = look_up(words[0])
    if path is None:
        return ()
    is_file = os.path.isfile(path) and path.suffix in (".yaml", ".yml") and not knows_part(words[0])
    if len(words) != 1 or not is_file:
        return ()
    text = read_text_file(path, "YAML")
    if not re.search(r"^(question|dates|devices|cases):", text, re.M):
        return ()  # the file of a device
    return load_questions(path, changes)


def _of_words(
    devices: list[str], dates: list[str] | None, to: str, buyer: str, origin: str | None,
    rules: Path | None, changes: tuple[str, ...], units: float | None,
) -> tuple[LegalQuestion, ...]:  # fmt: skip
    """Return the question that the options ask; with changed rules, also as it is.

    Without a date it is about today.
    """
    from datetime import date

    from ersatz.sim.law.legal import ask
    from ersatz.sim.law.rules import load_rules

    shipped = load_rules()
    known = load_rules(rules, changes) if rules or changes else shipped
    days = dates or [date.today().isoformat()]
    question = ask(devices, days, to, buyer, origin, known, units=units,
                   name="what-if" if known is not shipped else "legal")  # fmt: skip
    if known is shipped or (
        all(change.startswith("knowledge.") for change in changes) and not rules
    ):
        return (question,)
    as_is = ask(devices, days, to, buyer, origin, shipped, name="as-it-is", units=units)
    return (as_is, question)
