"""The answers behind the pages, as parts of HTML: what a worker process does with the values of a form."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from ersatz.device_models.text.units import format_bytes, format_duration, format_money
from ersatz.sim.errors import BrokenAnswerError, InfeasibleError, InputError
from ersatz.sim.report.page.law import law_facts
from ersatz.sim.report.page.markup import Fact, card, cards, paragraph, section, sentences
from ersatz.sim.serve.forms import SHRINKS
from ersatz.sim.serve.telling import Telling

Values = Mapping[str, str]
FOLDERS = re.compile(r"/(?:[^/\s:]+/)+(?=[\w.-]+)")  # of a file; here its name is enough
NAME = re.compile(r"[\w.-]{1,60}")


def answered(page: str, values: Values, exact: bool, folder: str) -> str:
    """Return the answer of a page as HTML; what is wrong with the input is an answer, too."""
    try:
        return _ASKS[page](values, exact, Path(folder))
    except InputError as error:
        return wrong(FOLDERS.sub("", str(problem)) for problem in error.problems)
    except InfeasibleError as error:
        return wrong(
            (f"infeasible: {line}" for line in str(error).splitlines()), "It cannot be run"
        )
    except BrokenAnswerError as error:
        return wrong(error.broken, "The answer is not shown, for it cannot be true")


def wrong(lines: Any, title: str = "This cannot be answered as it stands") -> str:
    """Return complaints as HTML."""
    return f'<div class="wrong" role="alert">{paragraph(title)}{sentences(lines, numbered=False)}</div>'


def overrides(values: Values) -> list[str]:
    """Return what a what-if changes, as after --set."""
    keys = {"model": "model", "node": "cluster.node", "nodes": "cluster.nodes", "network": "cluster.network",
            "stack": "stack", "tp": "parallel.tp", "pp": "parallel.pp", "ep": "parallel.ep",
            "micro": "training.micro_batch"}  # fmt: skip
    if values.get("second"):
        keys = {
            name: key
            for name, key in keys.items()
            if name not in ("node", "nodes", "network", "stack")
        }
    found = [f"{key}={values[name]}" for name, key in keys.items() if values.get(name)]
    if values.get("second"):
        found += _mix(values)
    if any(values.get(name) for name in ("nodes", "node", "tp", "pp", "second")):
        found.append("parallel.dp=null")  # what the devices leave
    if values.get("embargo"):
        found += [
            "job.spare_nodes=0",
            f"job.on_loss={'shrink' if values['embargo'] == SHRINKS else 'wait'}",
        ]
    if values.get("energy") and values.get("scenario"):
        found.append(f"cost.energy_price={values['energy']} {_currency(values['scenario'])}/kWh")
    return [*found, *_lines(values)]


def _mix(values: Values) -> list[str]:
    """Return two kinds of device in one job, each replica on one of them: the scenario's and a second."""
    node, nodes, stack = _first_pool(values["scenario"])
    network = f", network: {values['network']}" if values.get("network") else ""
    pools = [
        (
            "first",
            values.get("node") or node,
            values.get("nodes") or nodes,
            values.get("stack") or stack,
        ),
        (
            "second",
            values["second"],
            values.get("seconds") or nodes,
            values.get("second_stack") or stack,
        ),
    ]
    rows = [f"{{name: {name}, node: {kind}, nodes: {count}, stack: {soft}{network}}}"
            for name, kind, count, soft in pools]  # fmt: skip
    rent = (
        [] if values.get("rent") else ["cost.rent=null"]
    )  # the catalogue's: the file's may be by name
    return [f"cluster={{pools: [{', '.join(rows)}]}}", "parallel.mixed=replicas",
            f"parallel.pp={values.get('pp') or 1}", "job.spare_nodes=null", *rent]  # fmt: skip


@lru_cache(maxsize=256)
def _first_pool(scenario: str) -> tuple[str, int, str]:
    """Return the node of a shipped scenario's first pool, how many, and their software."""
    from ersatz.sim.answers.cases import load

    pool = load(scenario)[0].pools[0]
    return pool.node.name, pool.nodes, pool.stack.name


def _lines(values: Values) -> list[str]:
    return [line.strip() for line in values.get("set", "").splitlines() if line.strip()]


def _day(values: Values) -> date | None:
    return date.fromisoformat(values["date"]) if values.get("date") else None


@lru_cache(maxsize=256)
def _currency(scenario: str) -> str:
    """Return in which currency a shipped scenario counts."""
    from ersatz.sim.answers.cases import load

    return next((case.cost.currency for case in load(scenario) if case.cost), "CNY")


def _what_if(values: Values, exact: bool, folder: Path) -> str:
    if not exact:
        return _quick(values)
    from ersatz.sim.answers.cases import load, run

    changes = overrides(values)
    if values.get("rent"):
        changes.append(f"cost.rent={values['rent']} {_currency(values['scenario'])}/h")
    cases = load(values["scenario"], changes)[:1]
    asked = f"What if {', '.join(changes)}? (from {values['scenario']})" if changes else ""
    return _shown(run(cases), values, asked) + _command(values["scenario"], changes)


@lru_cache(maxsize=512)
def _stepped(scenario: str, changes: tuple[str, ...]) -> tuple[Any, float, float, float, Any]:
    """Return the case, its step with both ends of its interval, and its memory: no price moves them."""
    from ersatz.sim.answers.cases import load
    from ersatz.sim.plan.memory import plan_memory
    from ersatz.sim.step.step import step_seconds
    from ersatz.sim.uncertainty.intervals import interval80

    case = load(scenario, changes)[0]
    seconds = step_seconds(case)
    return case, seconds, *interval80(case, seconds), plan_memory(case, advise=False)


def _quick(values: Values) -> str:
    """Return what needs no draws: a step with its interval, the job without stops, memory, law."""
    from ersatz.sim.run import work_seconds

    case, seconds, low, high, memory = _stepped(values["scenario"], tuple(overrides(values)))
    t = case.training
    tokens = float(t.global_batch * t.sequence_length)
    facts = [Fact("step", format_duration(seconds), f"80 %: {format_duration(low)} – {format_duration(high)};"
                  f" {tokens / seconds / case.devices:,.0f} tokens/s per device")]  # fmt: skip
    if t.tokens:
        wall = work_seconds(case, seconds)
        facts.append(Fact("job, without stops", format_duration(wall)))
        if rent := _rented(case, wall, values):
            facts.append(Fact("money, without stops", rent))
    held = f"{format_bytes(memory.peak_bytes)} of {format_bytes(memory.capacity_bytes)}"
    mood = {"fits": "good", "tight": "doubtful"}.get(memory.verdict, "bad")
    facts.append(Fact("memory", f"{memory.verdict}: {held}", mood=mood))
    facts += law_facts([pool.node.device.name for pool in case.pools], _day(values), values["to"])
    return cards([card("while you choose", facts)])


def _rented(case: Any, wall: float, values: Values) -> str:
    """Return what the devices cost that long, where they are rented."""
    spec = case.cost
    if spec is None or spec.model != "rent":
        return ""
    given = float(values["rent"]) / 3600 if values.get("rent") else None
    rates = [
        spec.rent.get(pool.name, spec.rent.get("", 0.0)) if given is None else given
        for pool in case.pools
    ]
    total = sum(rate * pool.devices for pool, rate in zip(case.pools, rates, strict=True)) * wall
    return format_money(total, spec.currency)


def _shown(answer: Any, values: Values, question: str = "") -> str:
    """Return an answer as a page has it, its first screen first, under its own question or another."""
    from ersatz.sim.report.page.page import body

    material = replace(
        answer.material(_day(values), values.get("to", "China")), pictures=answer.pictures()
    )
    if question:
        material = replace(material, record={**material.record, "question": question})
    return body(material) + (wrong(answer.reasons, "But") if answer.reasons else "")


def _command(scenario: str, changes: list[str]) -> str:
    """Return the command line that says the same, and the scenario with the changes in it."""
    from shlex import join

    from ersatz.sim.scenario.case_file import read_cases
    from ersatz.sim.scenario.shipped import find_scenario

    line = join(["ersatz", "run", scenario, *(w for change in changes for w in ("--set", change))])
    text = _yaml(read_cases(find_scenario(scenario), changes)[0].data)
    return section(
        "Take it with you",
        _copied("as a command", line),
        _copied("as a scenario", text, "scenario.yaml"),
    )


def _yaml(data: Mapping[str, Any]) -> str:
    import yaml

    kept = {key: value for key, value in data.items() if key not in ("cases", "published")}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _copied(title: str, text: str, file: str = "") -> str:
    from ersatz.sim.report.page.markup import said

    name = f' data-file="{said(file)}"' if file else ""
    return (f'<div class="take"><button type="button" class="copy"{name}>{said(title)}: '
            f'{"save" if file else "copy"}</button><pre>{said(text)}</pre></div>')  # fmt: skip


def _own(values: Values, exact: bool, folder: Path) -> str:
    """Read what was pasted as a launch file, and simulate it."""
    from ersatz.sim.answers.cases import run
    from ersatz.sim.answers.importing import read_launch
    from ersatz.sim.importing.cases import load_any
    from ersatz.sim.report.tables.html import html

    name = values["file"]
    if not NAME.fullmatch(name) or name.startswith("."):
        return wrong([f"File name: {name[:60]!r} - expected letters, digits, '.', '-' and '_'"])
    if not values["text"].strip():
        return paragraph("Paste something, or drop a file on the text.", "soft")
    changes = [*([f"cluster.node={values['node']}"] if values["node"] else []), *_lines(values)]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file = Path(place) / name
        file.write_text(values["text"], "utf-8", "replace")
        from ersatz.sim.importing.formats import is_launch_file

        told, taken = "", ""
        if is_launch_file(file):
            found = read_launch(file, overrides=changes)
            told = section("What was read", html(found.view()))
            taken = section("Take it with you", *(_copied("as a scenario", text, "scenario.yaml")
                                                  for text in found.files().values() if isinstance(text, str)))  # fmt: skip
        try:
            answer = _shown(run(load_any(file, changes)), values)
        except InputError as error:
            answer = wrong(
                (str(p).replace(str(file), name) for p in error.problems), "Still to be said"
            )
    return (answer + told + taken).replace(place, "")


def _plan(values: Values, exact: bool, folder: Path) -> str:
    from ersatz.sim.answers.plan import plan

    counts = [word.strip() for word in values["devices"].split(",") if word.strip()]
    if not all(word.isdecimal() and 0 < int(word) <= 65_536 for word in counts):
        return wrong([f"Devices: {values['devices'][:40]!r} - expected numbers such as 512,1024"])
    on = [word for word in values["on"].split(",") if word]
    return _shown(
        plan(values["scenario"], _lines(values), on=on, devices=[int(word) for word in counts],
             by=values["by"] or None, objective=values["objective"] or None,
             legal_on=values["date"] if on and values["date"] else None, to=values["to"],
             seen=Telling(folder, f"plan of {values['scenario']}").priced),
        values,
    )  # fmt: skip


def _compare(values: Values, exact: bool, folder: Path) -> str:
    from ersatz.sim.answers.cases import compare

    return _shown(compare(values["one"], values["other"], overrides=_lines(values)), values)


def _law(values: Values, exact: bool, folder: Path) -> str:
    from ersatz.sim.answers.legal import legal

    devices = [d for d in values["devices"].split(",") if d]
    if not devices:
        return wrong(["Devices: choose at least one"])
    return _shown(
        legal(*devices, dates=values["date"], to=values["to"], buyer=values["buyer"]), values
    )


def _buy(values: Values, exact: bool, folder: Path) -> str:
    from ersatz.sim.answers.buy import buy

    told = Telling(folder, f"purchase of {values['scenario']}")
    return _shown(buy(values["scenario"], _lines(values), watch=told.watch), values)


def _fleet(values: Values, exact: bool, folder: Path) -> str:
    from ersatz.sim.answers.schedule import schedule

    names = [p for p in values["policies"].split(",") if p]
    if not names:  # those of the file might name files of their own
        return wrong(["Schedulers: choose at least one"])
    told = Telling(folder, f"fleet of {values['scenario']}")
    return _shown(schedule(values["scenario"], names, _lines(values), watch=told.watch), values)


_ASKS: dict[str, Callable[[Values, bool, Path], str]] = {
    "what-if": _what_if, "plan": _plan, "own": _own, "compare": _compare, "law": _law, "buy": _buy, "fleet": _fleet,
}  # fmt: skip


def ready(folders: list[str]) -> None:
    """Prepare a worker: it reads shipped files and its own folder, and nothing else."""
    import signal

    from ersatz.device_models.text.files import confine

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    confine(folders)


def warmed() -> Iterator[str]:
    """Answer once what takes long the first time: reading the catalogue and the rules."""
    from ersatz.sim.serve.forms import FORMS

    yield answered("what-if", FORMS["what-if"].values({}), False, "")


def warm() -> int:
    """Warm a worker up; returns how much was said."""
    return sum(map(len, warmed()))
