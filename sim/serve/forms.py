"""What each page asks, as data: fields with their names, kinds and choices; and the values of a request.

The form in the browser, the query in the address and the check on this side are all made from here. A choice
is one of those listed, a number lies within its ends; nothing else comes through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache

MOST_TEXT = 20_000  # letters of a text field
MOST_CHOSEN = 40  # of several


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that a page asks. `kind`: choice, several, number, range, date, text, file, lines."""

    name: str
    label: str
    kind: str
    default: str = ""
    choices: Callable[[], Sequence[str]] = tuple
    ends: tuple[float, float] = (0, 0)
    help: str = ""
    empty: str = "as in the scenario"  # what no choice means

    def checked(self, text: str) -> str:
        """Return a value as it may be used; raises `ValueError` in words."""
        if not text:
            return self.default
        if self.kind == "choice" and text not in self.choices():
            raise ValueError(f"{self.label}: {text[:40]!r} - expected one of those listed")
        if self.kind == "several":
            words = [w for w in text.split(",") if w]
            if len(words) > MOST_CHOSEN or any(w not in self.choices() for w in words):
                raise ValueError(f"{self.label}: expected up to {MOST_CHOSEN} of those listed")
            return ",".join(words)
        if self.kind in ("number", "range"):
            return self._number(text)
        if self.kind == "date":
            try:
                date.fromisoformat(text)
            except ValueError:
                raise ValueError(
                    f"{self.label}: {text[:40]!r} - expected a day such as 2025-03-24"
                ) from None
        if len(text) > MOST_TEXT:
            raise ValueError(f"{self.label}: {len(text):,} letters; expected at most {MOST_TEXT:,}")
        return text

    def _number(self, text: str) -> str:
        if (
            not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text)
            or not self.ends[0] <= float(text) <= self.ends[1]
        ):
            raise ValueError(
                f"{self.label}: {text[:40]!r} - expected {self.ends[0]:g} to {self.ends[1]:g}"
            )
        return text


@dataclass(frozen=True, slots=True)
class Form:
    """A page: its title, what it asks, and what it says of itself."""

    name: str
    title: str
    words: str
    fields: tuple[Field, ...]
    sliding: bool = False  # it has a quick answer for every move
    button: str = ""  # it answers when asked to, not at every change

    def values(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the checked values of a request; raises `ValueError` with every fault, a line each."""
        found, faults = {}, []
        for field in self.fields:
            try:
                found[field.name] = field.checked(given.get(field.name, ""))
            except ValueError as error:
                faults.append(str(error))
        if faults:
            raise ValueError("\n".join(faults))
        return found


def shipped(*sections: str) -> Callable[[], tuple[str, ...]]:
    """Return what lists the shipped scenarios that have one of these keys at the top."""

    @cache
    def names() -> tuple[str, ...]:
        from ersatz.sim.scenario.shipped import shipped_scenarios

        wanted = re.compile(rf"^({'|'.join(sections)}):", re.M)
        return tuple(
            n for n, path in shipped_scenarios().items() if wanted.search(path.read_text("utf-8"))
        )

    return names


def catalogue(kind: str) -> Callable[[], tuple[str, ...]]:
    """Return what lists a kind of the catalogue."""

    @cache
    def names() -> tuple[str, ...]:
        from ersatz.sim.finding.shelves import SHELVES

        return tuple(SHELVES[kind].names())

    return names


@cache
def places() -> tuple[str, ...]:
    """Return the places that rules know."""
    from ersatz.sim.law.places import load_places

    return tuple(sorted(load_places().names.values()))


@cache
def buyers() -> tuple[str, ...]:
    """Return the kinds of buyer that rules know."""
    from ersatz.sim.law.places import load_buyers

    return tuple(load_buyers())


@cache
def policies() -> tuple[str, ...]:
    """Return the schedulers."""
    from ersatz.sim.fleet.policies.registry import POLICIES

    return tuple(POLICIES)


NO_SPARES, SHRINKS = "no spares: the job waits for repairs", "no spares: the job goes on with less"
EMBARGOES = (NO_SPARES, SHRINKS)
SET = "a KEY=VALUE per line, as after --set"
LAW = (Field("date", "Date", "date", help="of the start, and for the law"),
       Field("to", "Place", "choice", "China", places))  # fmt: skip
RUNS = shipped("training")
FORMS: dict[str, Form] = {form.name: form for form in (
    Form("what-if", "What if", "Begin with a shipped scenario, then change what you like.", (
        Field("scenario", "Scenario", "choice", "ling-plus-substitution", RUNS),
        Field("model", "Model", "choice", "", catalogue("models")),
        Field("node", "Devices", "choice", "", catalogue("nodes")),
        Field("nodes", "Nodes", "range", "", ends=(1, 2048), help="drag; empty: the scenario's"),
        Field("second", "Second kind of devices", "choice", "", catalogue("nodes"), help="the batch is split by speed", empty="none"),
        Field("seconds", "Nodes of the second kind", "range", "", ends=(1, 2048)),
        Field("second_stack", "Software of the second kind", "choice", "", catalogue("stacks")),
        Field("network", "Network", "choice", "", catalogue("networks")),
        Field("stack", "Software", "choice", "", catalogue("stacks")),
        Field("tp", "Tensor parallel", "number", "", ends=(1, 128)),
        Field("pp", "Pipeline stages", "number", "", ends=(1, 256)),
        Field("ep", "Expert parallel", "number", "", ends=(1, 1024)),
        Field("micro", "Micro-batch", "number", "", ends=(1, 1024)),
        Field("rent", "Rent per device and hour", "number", "", ends=(0.01, 1000), help="in the scenario's currency"),
        Field("energy", "Price of a kWh", "number", "", ends=(0.001, 10), help="where rent does not include it"),
        Field("embargo", "Embargo", "choice", "", lambda: EMBARGOES, help="what happens when a node fails"),
        *LAW, Field("set", "More", "lines", help=SET)), sliding=True),
    Form("plan", "Plan", "The fastest layout of a job, or the devices that it takes; every layout is bounded.", (
        Field("scenario", "Job", "choice", "llama3-70b-mi300x", RUNS),
        Field("on", "On nodes", "several", "", catalogue("nodes"), help="none: the scenario's"),
        Field("devices", "Devices", "text", "", help="how many, such as 512,1024; empty: the scenario's"),
        Field("by", "Done within days", "number", "", ends=(0.01, 10000), help="then the fewest devices"),
        Field("objective", "Best for", "choice", "", lambda: ("time", "money", "energy", "devices")),
        *LAW, Field("set", "More", "lines", help=SET)), button="Search"),
    Form("own", "Bring your own", "Paste a launch script, a configuration or a log; nothing of it is run.", (
        Field("file", "File name", "text", "pretrain.sh", help="its end says what it is: .sh .yaml .toml .json .log"),
        Field("text", "Script, configuration or log", "file"),
        Field("node", "Devices", "choice", "", catalogue("nodes")), *LAW,
        Field("set", "More", "lines", help=SET)), button="Read and simulate"),
    Form("compare", "Compare", "Two scenarios side by side, and what each saves.", (
        Field("one", "First", "choice", "deepseek-v3-h800", RUNS),
        Field("other", "Second", "choice", "pangu-ultra-moe-910b", RUNS), *LAW,
        Field("set", "For both", "lines", help=SET)), button="Compare"),
    Form("law", "Law", "What may be bought on a day, by which rule, and when that changes.", (
        Field("devices", "Devices", "several", "h20,h800,ascend-910b2", catalogue("devices")),
        Field("date", "Date", "date", "2025-03-24"), Field("to", "Place", "choice", "China", places),
        Field("buyer", "Buyer", "choice", "company", buyers))),
    Form("buy", "Buy", "What to buy, when and where, under rules, budgets and lead times.", (
        Field("scenario", "Question", "choice", "embargo-story", shipped("purchase", "compare", "stockpile", "ramp")),
        Field("set", "Changes", "lines", help=SET)), button="Plan the purchase"),
    Form("fleet", "Fleet", "Schedulers side by side on the same jobs and failures.", (
        Field("scenario", "Fleet", "choice", "four-pools", shipped("policies")),
        Field("policies", "Schedulers", "several", "fifo,easy", policies),
        Field("set", "Changes", "lines", "draws=1", help=SET)), button="Run the fleet"),
)}  # fmt: skip
