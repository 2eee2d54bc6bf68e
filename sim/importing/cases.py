"""Scenarios of any file that says what is trained: of a scenario, or of a launch file without questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.yamltext import Key, YamlText
from ersatz.sim.importing.draft import shown
from ersatz.sim.importing.formats import import_file, is_launch_file
from ersatz.sim.importing.record import Imported
from ersatz.sim.scenario.file import cases_of_text, load_cases
from ersatz.sim.scenario.scenario import Scenario


def load_any(
    path: Path, overrides: Sequence[str] = (), seed: int | None = None, *, plans: bool = False
) -> tuple[Scenario, ...]:
    """Return the cases of a scenario file, or the one case of a launch file.

    `plans` as in `load_cases`. Raises `InputError` for every fault; for a launch file these are also
    the questions that are open.
    """
    if not is_launch_file(path):
        return load_cases(path, overrides, seed, plans=plans)
    found = import_file(path, overrides)
    problems = open_questions(found)
    if not found.scenario and not problems:
        words = "is of a network, and no training: import it, and name it in a scenario"
        problems = [Problem(found.file, 0, 0, "", "", words)]
    if problems:
        raise InputError(problems)
    scenarios = cases_of_text(text_of(found), overrides, seed)
    said = tuple(import_words(found))
    return tuple(replace(s, assumptions=(*said, *s.assumptions)) for s in scenarios)


def open_questions(found: Imported) -> list[Problem]:
    """Return what a user must still say, and what cannot be true, as faults of the file."""
    asked = [
        Problem(found.file, q.line, 1 if q.line else 0, q.key, "",
                f"{q.why}; answer it: --set {q.key}={q.choices[0] if q.choices else '...'}"
                + (f" (or {', '.join(q.choices[1:])})" if q.choices[1:] else ""))
        for q in found.questions
    ]  # fmt: skip
    return [*asked, *(Problem(found.file, 0, 0, "", "", words) for words in found.wrong)]


def text_of(found: Imported) -> YamlText:
    """Return the scenario as if it had been read, each value placed where the file says it."""
    places: dict[Key, tuple[int, int]] = {}
    for key, (file, line, _) in found.origins.items():
        if line and file == found.file:
            places[tuple(key.split("."))] = (line, 1)
    return YamlText(found.file, dict(found.scenario), places, dict(places))


def import_words(found: Imported) -> list[str]:
    """Return what an answer must say of its import: what was assumed, and what is left out."""
    words = [f"{a.key} is taken as {a.value}: {a.why}" for a in found.assumed]
    words += [f"{n.flag} {n.value}".rstrip() + f" (line {n.line}) is not modelled: {n.effect}"
              for n in found.not_modelled]  # fmt: skip
    return words


__all__ = ["import_words", "load_any", "open_questions", "shown", "text_of"]
