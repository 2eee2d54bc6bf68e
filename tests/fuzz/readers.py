"""Readers that no verb reaches, or not deeply: each reads a folder's files and may only refuse in words."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.units import UNITS, UnitError, parse_money, parse_quantity
from ersatz.device_models.text.yamltext import parse_yaml
from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.doors.batsim import BatsimScheduler
from ersatz.sim.fleet.doors.slurm.records import Submission, make_log, parse_taken, read_completions
from ersatz.sim.fleet.engine.fleet import FleetSpec, run_fleet
from ersatz.sim.fleet.engine.outages import Maintenance
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.law.expression import ExpressionError, parse_expression
from ersatz.sim.law.rule import ATTRIBUTES
from ersatz.sim.market.items import items
from ersatz.sim.market.prices import load_prices
from ersatz.sim.validation.errors.memory_table import judge_memory

from . import seeds
from .mutate import deep, mutated, mutated_bytes, to_json
from .words import NUMBERS, TEXTS, odd_value, quantity


def refuse(error: Exception) -> InputError:
    """Return a reader's own complaint as the command line's."""
    return InputError([Problem("text", 0, 0, "", "", str(error))])


# -- tables ----------------------------------------------------------------------------------------------


@cache
def _swept() -> str:
    """Return a table of runs of nanotron, small enough to judge crashes against in no time."""
    head, lines = seeds.rows("training_runs.csv", 30, "nanotron")
    return "\n".join([head, *lines, ""])


def memory_table(folder: Path) -> None:
    """Judge crashes against a few runs."""
    with TemporaryDirectory(dir=folder) as own:
        runs = Path(own) / "runs.csv"
        runs.write_text(_swept(), "utf-8")
        judge_memory(folder / "itself.csv", runs)


def prices(folder: Path) -> None:
    """Read a price table and ask it for everything it may know."""
    read = load_prices(folder / "itself.csv")
    for item in items():
        try:
            found = read.quote(item, "h800", "CN", date(2025, 3, 24))
        except InputError:
            continue
        assert 0 <= found.low <= found.mid <= found.high < math.inf, f"{item}: {found}"


def slurm_records(folder: Path) -> None:
    """Turn records of Slurm into a log, and judge it."""
    cluster = make_cluster(make_pool("h800", 2))
    work = Workload((Job("a", 0.0, 8, 100.0, walltime_s=120.0), Job("b", 5.0, 16, 50.0)))
    completions = read_completions(folder / "completions", 1735689600.0)
    text = (folder / "taken").read_text("utf-8")
    parse_taken(text)
    submissions = [Submission(job, job.submit_s, i + 1) for i, job in enumerate(work.jobs)]
    with TemporaryDirectory(dir=folder) as own:
        for number in ("1.0", "2.0", "2.1"):
            (Path(own) / number).write_text(text, "utf-8")
        judge(make_log(cluster, submissions, completions, Path(own), {"policy": "slurm"}))


# -- a Batsim scheduler that goes wrong ------------------------------------------------------------------


class _Scripted:
    """A peer in this process: first come, first served; its replies are changed as the plan says."""

    name = "scripted"

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan, self.number = plan, 0
        self.waiting: list[tuple[str, int]] = []
        self.down: set[int] = set()
        self.held: dict[str, list[int]] = {}

    def open(self) -> None:
        """Nothing is to be started."""

    def close(self, farewell: bytes = b"") -> None:
        """Nothing is to be ended."""

    def ask(self, message: bytes) -> bytes:
        """Return the reply to a message."""
        told = json.loads(message)
        reply = {"now": told["now"], "events": self._decided(told)}
        self.number += 1
        seed = self.plan["at"].get(str(self.number))
        if seed is None:
            return json.dumps(reply).encode()
        rng = random.Random(seed)
        if rng.random() < 0.1:
            return mutated_bytes(json.dumps(reply).encode(), rng)
        with deep():
            return to_json(mutated(reply, [reply, self._all_words(told["now"])], rng))

    def _decided(self, told: dict[str, Any]) -> list[Any]:
        for event in told["events"]:
            data = event["data"]
            if event["type"] == "JOB_SUBMITTED":
                self.waiting.append((data["job_id"], data["job"]["res"]))
            elif event["type"] == "JOB_COMPLETED":
                self.held.pop(data["job_id"], None)
            elif data.get("type") in ("event_machine_unavailable", "event_machine_available"):
                first, _, last = data["resources"].partition("-")
                devices = set(range(int(first), int(last or first) + 1))
                self.down = self.down - devices
                self.down |= devices if data["type"] == "event_machine_unavailable" else set()
        events = []
        while self.waiting and self.waiting[0][1] <= len(self._free()):
            name, count = self.waiting.pop(0)
            self.held[name] = taken = self._free()[:count]
            alloc = " ".join(map(str, taken))
            events.append(_event(told["now"], "EXECUTE_JOB", job_id=name, alloc=alloc))
        return events

    def _free(self) -> list[int]:
        taken = {device for held in self.held.values() for device in held}
        return sorted(set(range(16)) - taken - self.down)

    def _all_words(self, now: float) -> dict[str, Any]:
        """Return a reply with everything that a scheduler may say."""
        job = next(iter(self.held), "w0!a")
        return {
            "now": now + 1,
            "events": [
                _event(now, "EXECUTE_JOB", job_id=job, alloc="0-7"),
                _event(now, "REJECT_JOB", job_id=job),
                _event(now, "KILL_JOB", job_ids=[job, "w0!x"]),
                _event(now + 5, "CALL_ME_LATER", timestamp=now + 5),
                _event(now, "RESERVE", job_id=job, at=now + 9, alloc="8-15"),
                _event(now, "NOTIFY", type="x"),
                _event(now, "SET_RESOURCE_STATE", resources="0-3", state="1"),
                _event(now, "QUERY", requests={}),
            ],
        }


def _event(now: float, kind: str, **data: Any) -> dict[str, Any]:
    return {"timestamp": now, "type": kind, "data": data}


def batsim_plan(rng: random.Random) -> bytes:
    """Return at which replies a scheduler goes wrong, and the seed of how."""
    count = rng.choice((1, 1, 1, 2, 3))
    return json.dumps(
        {"at": {str(rng.randrange(1, 14)): rng.randrange(10**9) for _ in range(count)}}
    ).encode()


def batsim(folder: Path) -> None:
    """Run a small fleet under the scheduler; what it says wrongly ends the run with a reason."""
    plan = json.loads((folder / "text").read_text("utf-8"))
    sizes = (8, 16, 4, 2, 8, 16, 1)
    names = "abcdefg"
    jobs = tuple(
        Job(names[i], 30.0 * i, n, 100.0 + 7 * i, walltime_s=200.0) for i, n in enumerate(sizes)
    )
    outages = (Maintenance(150.0, 100.0, (1,), 20.0),)
    peer: Any = _Scripted(plan)
    log = run_fleet(
        FleetSpec(make_cluster(make_pool("h800", 2)), Workload(jobs), outages=outages, until_s=1e6),
        BatsimScheduler(peer, jobs=len(jobs), forward=True),
    )  # fmt: skip
    judge(log)


# -- small languages -------------------------------------------------------------------------------------


def unit_text(rng: random.Random) -> bytes:
    """Return a text that may be a quantity."""
    number, unit = (
        str(rng.choice(NUMBERS)),
        rng.choice([u for units in UNITS.values() for u in units]),
    )
    text = rng.choice((
        quantity(rng, rng.choice(list(UNITS)), odd=True), f"{number} {unit}", f"{number}{unit}", number,
        f"{rng.choice(TEXTS)[:80]}{unit}", f"{number} {rng.choice(TEXTS)[:80]}", str(odd_value(rng))[:80],
    ))  # fmt: skip
    raw = text.encode("utf-8", "replace")
    return mutated_bytes(raw, rng) if rng.random() < 0.2 else raw


def units(folder: Path) -> None:
    """Read a text as every dimension: a finite number, or an error in words; whole numbers as well."""
    text = (folder / "text").read_bytes().decode("utf-8", "replace")
    refused: Exception | None = None
    values: list[object] = [text]
    with suppress(ValueError):
        values.append(int(text))
    for dimension in UNITS:
        for value in values:
            try:
                assert math.isfinite(parse_quantity(value, dimension)), f"{value} as {dimension}"
                if dimension.startswith(("money", "energy_price")):
                    parse_money(value, dimension)
            except UnitError as error:
                refused = error
    if refused:
        raise refuse(refused)


def expression_text(rng: random.Random) -> bytes:
    """Return a text that may be a criterion: words in any order, or a changed one."""
    words = (
        *ATTRIBUTES,
        "tpp",
        "and",
        "or",
        "not",
        "in",
        "==",
        "<",
        ">=",
        "!=",
        "+",
        "-",
        "*",
        "/",
        "**",
        "(",
        ")",
        "[",
        "]",
        ",",
        "1",
        "0",
        "1e308",
        "'h20'",
        "None",
        "True",
        "lambda",
        "x.y",
        "f()",
        "if",
        "else",
        ":=",
        "//",
    )
    if rng.random() < 0.4:
        return " ".join(rng.choice(words) for _ in range(rng.randrange(1, 14))).encode()
    parts = rng.choice(seeds.CRITERIA).split(" ")
    for _ in range(rng.choice((1, 1, 2, 3))):
        parts[rng.randrange(len(parts)) :][:1] = [rng.choice((*words, rng.choice(TEXTS)[:50]))]
        at = rng.randrange(len(parts))
        parts[at : at + rng.choice((0, 1))] = [
            rng.choice((*words, *(w for w in words if len(w) < 3)))
        ]
    if rng.random() < 0.05:
        parts = ["(" * (n := rng.choice((5, 60, 90, 200, 490))), *parts, ")" * n]
    raw = " ".join(parts).encode("utf-8", "replace")
    return mutated_bytes(raw, rng) if rng.random() < 0.2 else raw


def expression(folder: Path) -> None:
    """Read a criterion, evaluate it for several values, and explain it."""
    text = (folder / "text").read_bytes().decode("utf-8", "replace")
    kinds: dict[str, Any] = {name: kind for name, (kind, _) in ATTRIBUTES.items()} | {
        "tpp": "number"
    }
    try:
        read = parse_expression(text, kinds)
    except ExpressionError as error:
        raise refuse(error) from error
    samples: dict[str, Sequence[Any]] = {
        "number": (0.0, 4800.0, None, 1e308), "text": ("h20", "", None), "truth": (True, None), "list": ((),),
    }  # fmt: skip
    for number in range(4):
        values = {name: samples[kind][number % len(samples[kind])] for name, kind in kinds.items()}
        assert read.evaluate(values) in (True, False, None), text
        read.explain(values)


def yaml_text(folder: Path) -> None:
    """Parse a text as YAML: plain data whose places are known, each after the line of its parent."""
    text = (folder / "text").read_bytes().decode("utf-8", "replace")
    read = parse_yaml(text, "text")
    lines = (
        text.count("\n")
        + text.count("\r")
        + text.count("\x85")
        + text.count("\u2028")
        + text.count("\u2029")
        + 2
    )
    assert all(1 <= line <= lines and column >= 1 for line, column in read.values.values()), (
        "a place is outside"
    )
    assert all(
        a in read.values
        for path in read.values
        for a, _ in pairwise(path[:n] for n in range(len(path) + 1))
    )
