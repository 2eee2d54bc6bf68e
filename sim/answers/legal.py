"""Law: which devices may be bought on which day."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from ersatz.device_models.catalog.export import knows_part
from ersatz.device_models.text.files import read_text_file
from ersatz.sim.answers.answer import Answer, by_name
from ersatz.sim.law.legal import LegalAnswer, LegalQuestion, answer, ask, load_questions
from ersatz.sim.law.rules import load_rules
from ersatz.sim.report.legal import legal_record, render_legal
from ersatz.sim.report.legal_sheet import legal_csv, watch_csv
from ersatz.sim.report.pictures.legal_map import heat_map
from ersatz.sim.scenario.shipped import look_up


def legal(
    *devices: str, dates: str | Sequence[str] = (), to: str = "China", buyer: str = "company",
    origin: str | None = None, rules: Path | str | None = None, changes: Sequence[str] = (),
    units: float | None = None, watching: bool = False,
) -> Answer[LegalAnswer]:  # fmt: skip
    """Say what export and import rules allow at dates, with rule ids and arithmetic.

    `devices` are names, paths, "all", or one file or shipped name of a legal question. Without a
    date it is about today. `buyer` is a kind or the name of a party, `units` how many devices are
    asked for, `watching` adds what is scheduled to change within a year. `rules` is a file or folder
    of your own rules,
    `changes` are texts like "rules.US-2025-04-H20.criterion.memory=4100"; with either, the answer
    is also given as it is. Raises `InputError` with every unknown name and day.
    """
    days = [dates] if isinstance(dates, str) else list(dates)
    questions = _of_file(devices, tuple(changes)) or _of_words(
        devices, days, to, buyer, origin, rules, tuple(changes), units
    )
    answers = [answer(question) for question in questions]
    return Answer(
        "legal", by_name((a.question.name, a) for a in answers),
        view=lambda: render_legal(answers, watching=watching), record=lambda: legal_record(answers),
        files=lambda: _files(answers, watching),
    )  # fmt: skip


def _files(answers: Sequence[LegalAnswer], watching: bool) -> Mapping[str, str]:
    """Return the picture and the sheets of each case."""
    alone = len(answers) == 1
    names = ["legal" if alone else f"legal-{a.question.name}" for a in answers]
    pairs = list(zip(names, answers, strict=True))
    return (
        {f"{n}.svg": heat_map(a) for n, a in pairs}
        | {f"{n}.csv": legal_csv(a) for n, a in pairs}
        | {f"{n}-watch.csv": watch_csv(a) for n, a in pairs if watching}
    )


def _of_file(words: Sequence[str], changes: tuple[str, ...]) -> tuple[LegalQuestion, ...]:
    """Return the questions of a scenario, or nothing where the words name devices."""
    if len(words) != 1 or knows_part(words[0]):
        return ()
    path = look_up(words[0])
    if path is None or not (os.path.isfile(path) and path.suffix in (".yaml", ".yml")):
        return ()
    text = read_text_file(path, "YAML")
    if not re.search(r"^(question|dates|devices|cases):", text, re.M):
        return ()  # the file of a device
    return load_questions(path, changes)


def _of_words(
    devices: Sequence[str], dates: Sequence[str], to: str, buyer: str, origin: str | None,
    rules: Path | str | None, changes: tuple[str, ...], units: float | None,
) -> tuple[LegalQuestion, ...]:  # fmt: skip
    """Return the question that the arguments ask; with changed rules, also as it is."""
    shipped = load_rules()
    known = load_rules(rules, changes) if rules or changes else shipped
    days = dates or [date.today().isoformat()]
    question = ask(devices, days, to, buyer, origin, known, units=units,
                   name="what-if" if known is not shipped else "legal")  # fmt: skip
    only_knowledge = not rules and all(text.startswith("knowledge.") for text in changes)
    if known is shipped or only_knowledge:
        return (question,)
    as_is = ask(devices, days, to, buyer, origin, shipped, name="as-it-is", units=units)
    return (as_is, question)
