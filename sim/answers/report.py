"""Results of earlier runs as one page: `report`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import in_words
from ersatz.sim.answers.answer import Answer
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.law.places import find_date, find_place
from ersatz.sim.report.artefacts import MANIFEST, written_files
from ersatz.sim.report.page.material import Material, verb_of
from ersatz.sim.report.page.page import PAGES, whole_page
from ersatz.sim.report.page.pictures import checked

MOST_PICTURES = 200  # of a folder
MOST_BYTES = 64 * 2**20  # of a record
FILES = {"run": "result", "compare": "result", "validate": "validation"}  # verb -> its record


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and the answers that stand in it."""

    html: str
    answers: tuple[str, ...]  # their questions


def report(*results: str | Path | Answer[Any], date: str = "", to: str = "China") -> Page:
    """Return one self-contained HTML page of results, in the order given.

    A result is a file that `--json` wrote, a folder that `--out` filled, or an answer. `date` and `to`
    are when and whereto devices would go, for what the law says of them; by default the last day on
    which the rules are known, and China. Raises `InputError` with every file that is no result.
    """
    day = find_date(date) if date else None
    find_place(to)
    materials: list[Material] = []
    problems: list[Problem] = []
    for result in results:
        try:
            if isinstance(result, Answer):
                found = result.material(day, to)
                materials.append(
                    Material(found.verb, found.record, result.pictures(), found.words, day, to)
                )
            else:
                materials.append(_read(Path(result), day, to))
        except InputError as error:
            problems += error.problems
    if problems or not materials:
        raise InputError(
            problems or [Problem("report", 0, 0, "", "", "expected at least one result")]
        )
    return Page(
        _whole(materials, results), tuple(str(m.record.get("question", "")) for m in materials)
    )


def _whole(materials: list[Material], results: tuple[Any, ...]) -> str:
    """Lay out the page; a file that says otherwise than ersatz writes is named."""
    for material, result in zip(materials, results, strict=True):
        try:
            whole_page([material])
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            IndexError,
            StopIteration,
            ArithmeticError,
        ) as error:
            if isinstance(result, Answer):
                raise
            words = f"is no whole result of ersatz: {in_words(error)}"
            raise InputError([Problem(str(result), 0, 0, "", "", words)]) from error
    return whole_page(materials)


def _read(path: Path, day: date | None, place: str) -> Material:
    if not os.path.isdir(path):  # bears a name that is too long
        return _material(path, "", {}, "", day, place)
    try:
        known = written_files(path)
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        verb, arguments = str(manifest["verb"]), [str(a) for a in manifest["arguments"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        words = f"expected a folder that --out wrote, with its {MANIFEST}: {error}"
        raise InputError([Problem(str(path), 0, 0, "", "", words)]) from error
    pictures = {}
    for name in [n for n in known if n.endswith(".svg")][:MOST_PICTURES]:
        if svg := checked(read_text_file(path / known[name], "SVG")):
            pictures[name] = svg
    words = ""
    if "report.txt" in known and (path / "report.txt").is_file():
        words = f"<pre>{escape(read_text_file(path / 'report.txt', 'text'))}</pre>"
    file = path / f"{FILES.get(verb, verb)}.json"
    return _material(
        file, verb, pictures, words, day, place, " ".join(["ersatz", verb, *arguments])
    )


def _material(
    file: Path, verb: str, pictures: Mapping[str, str], words: str, day: date | None, place: str,
    command: str = "",
) -> Material:  # fmt: skip
    try:
        record = json.loads(read_text_file(file, "JSON", MOST_BYTES))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            [Problem(str(file), 0, 0, "", "", f"is no JSON: {str(error)[:80]}")]
        ) from error
    found = verb_of(record) if isinstance(record, Mapping) else ""
    if found not in PAGES:
        words = (
            "expected a result that --json wrote, of run, compare, buy, legal, schedule or validate"
        )
        raise InputError([Problem(str(file), 0, 0, "", "", words)])
    return Material(found, record, pictures, words, day, place, command)
