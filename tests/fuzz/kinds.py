"""The kinds of input: each is a function from a random generator to an `Input`."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

from ersatz.sim.fleet.schema import FleetFile
from ersatz.sim.law.legal import LegalFile
from ersatz.sim.purchase.reading import schema as buying
from ersatz.sim.scenario.fabric_file import FabricFile
from ersatz.sim.scenario.schema import ScenarioFile

from . import launches, logs, pages, readers, recorded, seeds, trainings
from .draw import draw_section
from .judge import Input
from .mutate import deep, mutated, mutated_bytes, mutated_rows, to_json, to_yaml
from .orders import delivery, options, setting
from .words import NUMBERS, TEXTS

Make = Callable[[random.Random], Input]
LARGEST = 6 * 2**20  # bytes of an input: somewhat more than the program takes
MAIN = "itself.yaml"


# -- scenario-like files -----------------------------------------------------------------------------


@cache
def _trees(*texts: str) -> tuple[Any, ...]:
    return tuple(seeds.tree(text) for text in texts)


def _written(tree: Any, rng: random.Random) -> bytes:
    """Write a tree; now and then its text is changed as well."""
    raw = to_yaml(tree)[:LARGEST]
    return mutated_bytes(raw, rng) if rng.random() < 0.06 else raw


def _changed(
    texts: Sequence[str], schema: type[BaseModel] | None, more: Sequence[Any], rng: random.Random
) -> bytes:
    """Return a mutated file: one of the small seeds, seldom a shipped one or one drawn from the schema."""
    small = _trees(*texts)
    drawn = [draw_section(schema, rng)] if schema and rng.random() < 0.6 else []
    chance = rng.random()
    tree = rng.choice(small)
    if more and chance < 0.04:
        tree = rng.choice(more)
    elif drawn and chance < 0.10:
        tree = drawn[0]
    return _written(mutated(tree, [*small, *more[:6], *drawn, *drawn], rng), rng)


def _file_kind(
    name: str, verb: Sequence[str], texts: Sequence[str], schema: type[BaseModel] | None,
    rooms: Sequence[str] = (), beside: Mapping[str, str] | None = None,
) -> Make:  # fmt: skip
    """Return the maker of a kind that is one file of a verb."""

    def make(rng: random.Random) -> Input:
        files = {key: text.encode() for key, text in (beside or {}).items()}
        files[MAIN] = _changed(texts, schema, seeds.shipped(*rooms) if rooms else (), rng)
        return Input(name, files, (*verb, f"@/{MAIN}", *options(rng), *delivery(rng)))

    return make


def _compare(rng: random.Random) -> Input:
    texts = (seeds.RUN, seeds.EXPERTS, seeds.POOLS)
    files = {name: _changed(texts, ScenarioFile, (), rng) for name in (MAIN, "data.yaml")}
    return Input(
        "compare", files, ("compare", f"@/{MAIN}", "@/data.yaml", *options(rng), *delivery(rng))
    )


def _rules(rng: random.Random) -> Input:
    files = {"data.yaml": _changed((seeds.RULES,), None, seeds.shipped("policy/rules"), rng)}
    dates = ("--date", rng.choice(("2025-04-15", "2023-10-17", "2026-06-01")))
    return Input("rules", files, ("legal", "h20", "h800", "--rules", "@/data.yaml", *dates, *options(rng),
                                  *delivery(rng)))  # fmt: skip


# -- files that a scenario names -----------------------------------------------------------------------


def _named(kind: str, room: str, key: tuple[str, ...], names: Sequence[str]) -> Make:
    """Return the maker of a catalogue file that is named by a scenario or read by itself."""

    def make(rng: random.Random) -> Input:
        trees = [seeds.tree(seeds.path_of(room, name).read_text("utf-8")) for name in names]
        files = {"data.yaml": _written(mutated(rng.choice(trees), trees, rng), rng)}
        return Input(kind, *_scenario_with(files, key, rng))

    return make


def _scenario_with(
    files: dict[str, bytes], key: tuple[str, ...], rng: random.Random, name: str = "data.yaml"
) -> tuple[dict[str, bytes], tuple[str, ...]]:  # fmt: skip
    """Return files and words of a run whose `key` is the file `name`."""
    scenario = dict(seeds.tree(seeds.NAMED))
    if len(key) == 2:
        scenario[key[0]] = {**scenario[key[0]], key[1]: f"./{name}"}
    else:
        scenario[key[0]] = f"./{name}"
    verb = ("fabric",) if key[-1] == "network" and rng.random() < 0.4 else ("run",)
    return {**files, MAIN: to_yaml(scenario)}, (*verb, f"@/{MAIN}", *delivery(rng))


def _device(rng: random.Random) -> Input:
    """A device file: shown by itself, asked about by law, or under the node of a scenario."""
    names = ("h800", "ascend-910b2", "mi300x", "cpu")
    trees = [seeds.tree(seeds.path_of("devices", name).read_text("utf-8")) for name in names]
    files = {"data.yaml": _written(mutated(rng.choice(trees), trees, rng), rng)}
    chance = rng.random()
    if chance < 0.3:
        return Input("device", files, ("devices", "@/data.yaml", *delivery(rng)[:2]))
    if chance < 0.45:
        return Input("device", files, ("legal", "@/data.yaml", "h20", *delivery(rng)))
    node = seeds.tree(seeds.path_of("nodes", "h800-8").read_text("utf-8")) | {
        "device": "./data.yaml"
    }
    files["node.yaml"] = to_yaml(node)
    return Input("device", *_scenario_with(files, ("cluster", "node"), rng, "node.yaml"))


def _hugging_face(rng: random.Random) -> Input:
    tree = mutated(rng.choice(seeds.HUGGING_FACE), seeds.HUGGING_FACE, rng)
    raw = to_json(tree)
    files = {"config.json": mutated_bytes(raw, rng) if rng.random() < 0.1 else raw}
    return Input("hugging-face", *_scenario_with(files, ("model",), rng, "config.json"))


def _calibration(rng: random.Random) -> Input:
    tree = dict(seeds.calibration())
    if rng.random() < 0.4:
        tree["points"] = mutated_rows(str(tree["points"]), rng)
    if tree == seeds.calibration() or rng.random() < 0.5:
        tree = mutated(tree, [seeds.calibration()], rng)
    files = {"data.yaml": _written(tree, rng), MAIN: seeds.CALIBRATED.encode()}
    if rng.random() < 0.25:
        return Input("calibration", files, ("calibrate", "--from", "@/data.yaml", "--as", "h800",
                                            "--out", "@/o.yaml", "--json", "@/o.json"))  # fmt: skip
    timer = rng.choice(("table", "calibrated", "table", "roofline"))
    return Input("calibration", files, ("run", f"@/{MAIN}", "--timer", timer, "--calibration", "@/data.yaml",
                                        *delivery(rng)))  # fmt: skip


# -- tables --------------------------------------------------------------------------------------------


def _trace(kind: str) -> Make:
    """Return the maker of traces of one reader."""
    name, text, beside = seeds.TRACES[kind]
    reader = kind.partition("-")[0]

    def make(rng: random.Random) -> Input:
        files = {key: value.encode() for key, value in beside.items()}
        victim = rng.choice(sorted({*files, *([name] if text else [])}))
        raw = _changed_trace(files.get(victim, text.encode()).decode(), rng)
        files |= {name: text.encode()} if text else {}
        files[victim] = raw
        path = name
        if text and rng.random() < 0.1:
            packed = gzip.compress(raw, mtime=0)
            files[path := f"{name}.gz"] = (
                mutated_bytes(packed, rng) if rng.random() < 0.5 else packed
            )
        fleet = seeds.tree(seeds.TRACED) | ({"policies": ["gavel"]} if rng.random() < 0.1 else {})
        files[MAIN] = to_yaml(fleet)
        word = f"@/{path}" if rng.random() < 0.2 else f"{reader}:@/{path}"
        return Input(
            f"trace-{kind}", files, ("schedule", f"@/{MAIN}", "--trace", word, *delivery(rng))
        )

    return make


def _changed_trace(text: str, rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        return mutated_bytes(text.encode(), rng)
    if text.startswith(("{", "[")):
        tree = seeds.tree(text)
        return to_json(mutated(tree, [tree], rng))
    separator = "\t" if "\t" in text else "," if "," in text else " "
    return mutated_rows(text, rng, separator).encode("utf-8", "replace")


def _table(head: str, lines: Sequence[str], rng: random.Random) -> bytes:
    chosen = [rng.choice(lines) for _ in range(rng.choice((1, 1, 2)))]
    text = "\n".join([head, *chosen, ""])
    if rng.random() < 0.1:
        return mutated_bytes(text.encode(), rng)
    return mutated_rows(text, rng).encode("utf-8", "replace")


def _runs_table(rng: random.Random) -> Input:
    head, lines = seeds.rows("training_runs.csv", 120)
    files = {"itself.csv": _table(head, lines, rng)}
    more = rng.choice(((), (), ("--oddities",), ("--held-out",)))
    return Input("runs-table", files, ("validate", "@/itself.csv", *more, *delivery(rng)))


def _memory_table(rng: random.Random) -> Input:
    head, lines = seeds.rows("out_of_memory_h100_nanotron.csv", 40)
    return Input(
        "memory-table", {"itself.csv": _table(head, lines, rng)}, call=readers.memory_table
    )


def _prices(rng: random.Random) -> Input:
    raw = mutated_rows(seeds.PRICES, rng).encode("utf-8", "replace")
    raw = mutated_bytes(raw, rng) if rng.random() < 0.1 else raw
    return Input("prices", {"itself.csv": raw}, call=readers.prices)


def _slurm(rng: random.Random) -> Input:
    separator = rng.choice((" ", "=", "\n"))
    files = {
        "completions": mutated_rows(seeds.SLURM, rng, separator).encode("utf-8", "replace"),
        "taken": mutated_rows(seeds.TAKEN, rng, rng.choice((" ", ":", ","))).encode(
            "utf-8", "replace"
        ),
    }
    return Input("slurm-records", files, call=readers.slurm_records)


# -- small languages -----------------------------------------------------------------------------------


def _small(kind: str, call: Callable[..., None], make: Callable[[random.Random], bytes]) -> Make:
    return lambda rng: Input(kind, {"text": make(rng)}, call=call)


def _yaml_text(rng: random.Random) -> bytes:
    text = rng.choice((seeds.RUN, seeds.RULES, seeds.FLEET, seeds.BUY)).encode()
    at = rng.randrange(len(text))
    return mutated_bytes(text[at : at + rng.choice((40, 200, 1000))], rng)


# -- command lines ---------------------------------------------------------------------------------------


def _command_line(rng: random.Random) -> Input:
    """Words of a verb, some of them wrong; nothing here names a program to start or a file to write to."""
    verbs = (
        "run",
        "compare",
        "fabric",
        "buy",
        "legal",
        "schedule",
        "validate",
        "calibrate",
        "devices",
        "list",
        "show",
    )
    files = {MAIN: seeds.NAMED.encode(), "fleet.yaml": seeds.TRACED.encode(), "buy.yaml": seeds.RAMP.encode(),
             "legal.yaml": seeds.LEGAL.encode(), "data.yaml": seeds.RULES.encode(),
             "itself.csv": seeds.TRACES["csv"][1].encode(), "prices.csv": seeds.PRICES.encode()}  # fmt: skip
    names = {"run": MAIN, "compare": MAIN, "fabric": MAIN, "buy": "buy.yaml", "legal": "legal.yaml",
             "schedule": "fleet.yaml", "validate": "itself.csv", "devices": "data.yaml",
             "show": "data.yaml"}  # fmt: skip
    verb = rng.choice(verbs)
    argv = [verb, *([f"@/{names[verb]}"] if verb in names else _LEADS[verb])]
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        at = rng.choice((1, len(argv), len(argv)))
        argv[at:at] = _words_of(verb, rng)
    if rng.random() < 0.15 and verb not in (
        "validate",
        "calibrate",
    ):  # whose default is minutes of work
        del argv[rng.randrange(len(argv))]
    return Input("command-line", files, tuple(argv))


_LEADS = {"calibrate": ("--minutes", "0.01"), "list": ()}
_KINDS_OF_NAMES = ("models", "scenarios", "rules", "devices", "parts", "nodes", "networks", "stacks",
                   "prices", "schedulers")  # fmt: skip
_OPTIONS: dict[str, tuple[str, ...]] = {
    "run": ("--timer", "--calibration", "--attach"),
    "fabric": ("--node", "--nodes", "--network"),
    "legal": ("--date", "--to", "--buyer", "--from", "--rules"),
    "compare": (),
    "buy": ("--prices",),
    "devices": (),
    "list": (),
    "show": ("--kind",),
    "schedule": (
        "--policy",
        "--trace",
        "--door",
        "--speed",
        "--twice",
        "--endpoint",
        "--scheduler",
    ),
    "validate": ("--oddities", "--memory"),
    "calibrate": ("--device", "--as", "--minutes", "--dtype", "--from"),
}
_VALUES = (
    "roofline",
    "table",
    "live",
    "cpu",
    "h800-8",
    "hpn7",
    "16",
    "1000000",
    "2025-03-24",
    "China",
    "company",
    "fifo,easy:leaf",
    "easy,,",
    "process",
    "batsim",
    "nan",
    "inf",
    "1e9",
    "csv:@/itself.csv",
    "@/itself.yaml",
    "@/data.yaml",
    "@/prices.csv",
    "@/folder",
    "@/pipe",
    "fp8",
    "h800",
    "llama3-70b-mi300x",
    "domestic-ramp",
    *_KINDS_OF_NAMES,
)
_PROGRAMS = (
    "true {endpoint}",
    "false {endpoint}",
    "/nonexistent {endpoint}",
    "true",
    "",
    '"',
    "sleep 0 {endpoint}",
)


def _words_of(verb: str, rng: random.Random) -> list[str]:
    """Return an option with its value, or a word that stands alone."""
    value = rng.choice((rng.choice(_VALUES), rng.choice(_VALUES), rng.choice(TEXTS), str(rng.choice(NUMBERS)),
                        "\udcff"))  # fmt: skip
    value = (
        "x" if "calibration" in value or "\x00" in value else value
    )  # a word of a command line has no NUL
    kind = rng.random()
    if kind < 0.35:
        return ["--set", setting(rng).replace("\x00", "")]
    if kind < 0.75 and _OPTIONS[verb]:
        option = rng.choice(_OPTIONS[verb])
        if option == "--scheduler":
            return ["--door", "batsim", option, rng.choice(_PROGRAMS)]
        if option == "--endpoint":
            return [
                "--door",
                "batsim",
                option,
                rng.choice(
                    (
                        "x",
                        "",
                        "tcp://",
                        "tcp://:0",
                        "tcp://*:1",
                        "udp://a:1",
                        "inproc://x",
                        "ipc://",
                    )
                ),
            ]
        return [option] if option in ("--twice", "--oddities") else [option, value]
    if kind < 0.85:
        return [*rng.choice((("--json", "-"), ("--json", "@/o.json"), ("--json", ""), ("--json", "@/folder"),
                             ("--out", "@/o"), ("--out", ""), ("--out", f"@/{MAIN}"), ("--seed", value),
                             ("--help",), ("--version",), ("--debugg",), ("-x",)))]  # fmt: skip
    return [value]


KINDS: Mapping[str, Make] = {
    "run": _file_kind(
        "run",
        ("run",),
        (seeds.RUN, seeds.RUN, seeds.EXPERTS, seeds.POOLS, seeds.ORDERS),
        ScenarioFile,
        (".",),
    ),
    "compare": _compare,
    "fabric": _file_kind(
        "fabric",
        ("fabric",),
        (seeds.FABRIC, seeds.FABRIC, seeds.RUN),
        FabricFile,
        ("fabric", "network"),
    ),
    "buy": _file_kind(
        "buy",
        ("buy",),
        (seeds.BUY, seeds.BUY, seeds.PLANNED),
        buying.BuyFile,
        ("market",),
        {"plans.yaml": seeds.NAMED},
    ),
    "options": _file_kind("options", ("buy",), (seeds.OPTIONS,), buying.BuyFile),
    "stockpile": _file_kind("stockpile", ("buy",), (seeds.STOCKPILE,), buying.BuyFile),
    "ramp": _file_kind("ramp", ("buy",), (seeds.RAMP,), buying.BuyFile),
    "legal": _file_kind(
        "legal", ("legal",), (seeds.LEGAL,), LegalFile, ("legal",), {"data.yaml": seeds.RULES}
    ),
    "rules": _rules,
    "fleet": _file_kind(
        "fleet",
        ("schedule",),
        (seeds.FLEET, seeds.FLEET, seeds.STEPS, seeds.TRACED),
        FleetFile,
        (),
        {"itself.csv": seeds.TRACES["csv"][1]},
    ),
    "device": _device,
    "node": _named(
        "node", "nodes", ("cluster", "node"), ("h800-8", "ascend-910b2-8", "gb200-nvl72", "cpu-1")
    ),
    "network": _named(
        "network",
        "fabrics",
        ("cluster", "network"),
        ("ib-ndr400-rail", "hpn7", "torus-4x4x4", "oversubscribed-3to1", "two-sites-wan", "none"),
    ),
    "stack": _named(
        "stack",
        "stacks",
        ("stack",),
        ("megatron-core", "deepseek", "fsdp", "mindspeed", "torch-eager"),
    ),
    "model": _named(
        "model", "models", ("model",), ("ling-lite", "deepseek-v3", "llama2-7b", "mixtral-8x7b")
    ),
    "hugging-face": _hugging_face,
    "calibration": _calibration,
    **{f"trace-{kind}": _trace(kind) for kind in seeds.TRACES},
    "runs-table": _runs_table,
    "memory-table": _memory_table,
    "prices": _prices,
    "slurm-records": _slurm,
    "batsim": lambda rng: Input("batsim", {"text": readers.batsim_plan(rng)}, call=readers.batsim),
    "units": _small("units", readers.units, readers.unit_text),
    "expression": _small("expression", readers.expression, readers.expression_text),
    "yaml": _small("yaml", readers.yaml_text, _yaml_text),
    "command-line": _command_line,
    **launches.KINDS,
    **recorded.KINDS,
    **trainings.KINDS,
    **logs.KINDS,
    **pages.KINDS,
}


CALLS: dict[str, Callable[..., None]] = {
    "memory-table": readers.memory_table,
    "prices": readers.prices,
    "slurm-records": readers.slurm_records,
    "batsim": readers.batsim,
    "units": readers.units,
    "expression": readers.expression,
    "yaml": readers.yaml_text,
    **launches.CALLS,
    **logs.CALLS,
    **pages.CALLS,
}  # kinds that no verb reads
WEIGHTS = {
    "run": 4,
    **launches.WEIGHTS,
    **logs.WEIGHTS,
    **pages.WEIGHTS,
    "fleet": 3,
    "command-line": 4,
    "batsim": 3,
    "options": 2,
    "legal": 2,
    "fabric": 2,
}


def make(kind: str, seed: int, number: int) -> Input:
    """Return the input of a kind with this number in the series of the seed."""
    with deep():
        return KINDS[kind](random.Random(f"{seed} {kind} {number}"))
