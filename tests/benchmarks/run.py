"""Speed of ersatz, in seconds and as a ratio to a plain Python loop on the same machine.

    .venv/bin/python tests/benchmarks/run.py [name ...]

The ratio travels between machines; the seconds are this machine's. Each figure is the least of
three runs, in seconds of processor time of this process and its children.
"""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from ersatz.device_models.catalog.reading import load_node  # noqa: E402
from ersatz.device_models.networks.collectives import collective_time  # noqa: E402
from ersatz.device_models.networks.fabric import bisection, build_fabric  # noqa: E402
from ersatz.device_models.networks.group import Group  # noqa: E402
from ersatz.device_models.networks.sharing import max_min_rates  # noqa: E402
from ersatz.device_models.networks.traffic import Members, ring_share  # noqa: E402
from ersatz.sim.importing.shell.machine import follow  # noqa: E402
from ersatz.sim.law.legal import answer, ask  # noqa: E402
from ersatz.sim.law.rules import load_rules  # noqa: E402
from ersatz.sim.plan.schedules import make_schedule  # noqa: E402
from ersatz.sim.step.coupled import coupled_step  # noqa: E402
from ersatz.sim.step.folded import folded_step  # noqa: E402
from ersatz.sim.step.program import (  # noqa: E402
    COMPUTE,
    INPUT,
    PIPE,
    REDUCE,
    TP,
    Block,
    Program,
    Work,
    make_op,
    ticks,
)
from ersatz.sim.step.vector import vector_step  # noqa: E402


def calibration_loop() -> None:
    """A fixed amount of plain Python work: the unit of the ratios."""
    total = 0
    for i in range(10_000_000):
        total += i


def layered_program(tp: int, dp: int, p: int = 16, m: int = 128, layers: int = 96) -> Program:
    """1F1B; per layer and direction: compute, tensor all-reduce, compute, tensor all-reduce."""
    schedule = make_schedule("1f1b", p, m)

    def block(factor: float) -> Block:
        compute = make_op("c", COMPUTE, [Work(ticks(1e-5), ticks(1e-3 * factor), "matrix")])
        first = make_op("c", COMPUTE, list(compute.work), after=(INPUT,))
        reduce = make_op("r", COMPUTE, [Work(ticks(1e-5), ticks(1e-4), "tensor parallel")],
                         sync=(TP,), scales=False)  # fmt: skip
        ops = (first, reduce, *(compute, reduce) * (2 * layers // p - 1))
        return Block(ops, ((len(ops) - 1, 0),))

    phases = {"F": block(1.0), "B": block(2.0)}
    blocks = {(v.stage, v.block): phases[v.block[0][0]] for v in schedule.walk}
    return Program(schedule, (tp, 1, 1, dp), blocks, tuple(Block(()) for _ in range(p)))


def each_rank_different(program: Program) -> list[np.ndarray]:
    """Every rank has a speed of its own."""
    rng = np.random.default_rng(0)
    return [1.0 + 0.05 * rng.random(program.shape) for _ in range(program.stages)]


def vector(tp: int, dp: int) -> Callable[[], None]:
    """L2: every op on every rank."""
    program = layered_program(tp, dp)
    slowness = each_rank_different(program)
    return lambda: discard(vector_step(program, slowness))


def folded() -> Callable[[], None]:
    """L1 of the same step."""
    program = layered_program(8, 128)
    return lambda: discard(folded_step(program))


def coupled() -> Callable[[], None]:
    """L3 of the same step: its messages and a reduction per stage meet on the cards."""
    program = layered_program(8, 128)

    def shared(block: Block, name: str) -> Block:
        last = len(block.ops) - 1
        send = make_op("send", PIPE, [Work(0.0, ticks(2e-4), "pipeline")], after=(last,),
                       scales=False, uses=(("out", 1.0), ("in", 1.0)),
                       to=1 if name == "F" else -1)  # fmt: skip
        reduce = make_op("g", REDUCE, [Work(0.0, ticks(1e-3), "data parallel")], after=(last,),
                         scales=False, uses=(("out", 1.0), ("in", 1.0)))  # fmt: skip
        return Block((*block.ops, send, reduce), ((last + 1, 0),))

    made = {name: shared(block, name) for (_, ((name, *_),)), block in program.blocks.items()}
    blocks = {(stage, key): made[key[0][0]] for stage, key in program.blocks}
    moving = replace(program, blocks=blocks)
    return lambda: discard(coupled_step(moving))


def sharing(flows: int) -> Callable[[], None]:
    """Max-min rates of a random permutation on 16,384 endpoints, 64 below each leaf, 64 spines."""
    rng = np.random.default_rng(1)
    ends, leaves, spines = 16_384, 256, 64
    source = rng.integers(ends, size=flows) if flows > ends else np.arange(ends)
    target = rng.integers(ends, size=flows) if flows > ends else rng.permutation(ends)
    spine, first = rng.integers(spines, size=flows), 2 * ends
    up = first + source // 64 * spines + spine
    down = first + leaves * spines + target // 64 * spines + spine
    routes = np.stack([source, up, down, ends + target], axis=1)
    capacity = np.ones(first + 2 * leaves * spines)
    return lambda: discard(max_min_rates(routes, capacity))


def big_fabric() -> Callable[[], None]:
    """A rail-optimised fabric of 98,304 endpoints, links and bisection."""
    node = load_node("h800-8")
    return lambda: discard(bisection(build_fabric(node, 12_288, hashed=True)))


def ring(ranks: int) -> Callable[[], None]:
    """A ring all-reduce over so many ranks: its flows, their shares, its time."""
    node = load_node("h800-8")
    fabric, places = build_fabric(node, ranks // 8), np.arange(ranks)[None, :]
    members = Members(places // 8, places // 8, places % 8)

    def run() -> None:
        ring_share(fabric, members)
        collective_time("all_reduce", 1e9, Group(ranks, 8, 1), node, algorithm="ring")

    return run


def verdicts() -> Callable[[], None]:
    """Forty devices on four days, from the reading of the rules to the arithmetic."""
    with (ROOT / "tests/known_verdicts.csv").open(encoding="utf-8") as file:
        names = [row["device"] for row in csv.DictReader(file)]
    days = ("2022-10-21", "2023-11-17", "2025-04-15", "2026-01-15")
    return lambda: discard(answer(ask(names, days, rules=load_rules())))


def discard(_: object) -> None:
    """Take a result that nobody looks at."""


def purchase(jobs: int, sites: int = 3) -> Callable[[], None]:
    """A purchase plan of 36 months, 12 devices and 3 sites or 6, solved to 1 %."""
    from dataclasses import replace

    from market import free, large_buildout

    from ersatz.sim.purchase.buildout import purchase_problem
    from ersatz.sim.purchase.purchase import cheapest

    buildout = large_buildout()
    third = replace(buildout.jobs[0], name="three", tokens=5e12, deadline=25.0)
    more = [
        replace(s, name=f"{s.name}2", energy_price=1.1 * s.energy_price) for s in buildout.sites
    ]
    built = replace(buildout, jobs=(*buildout.jobs, third)[:jobs],
                    sites=(*buildout.sites, *more)[:sites])  # fmt: skip
    problem = purchase_problem(built, free)
    return lambda: print(end=str(cheapest(problem, 0.01))[:0])


def lives() -> Callable[[], None]:
    """A thousand lives of a three-year build-out with an embargo and three uncertain inputs."""
    from market import free, large_buildout

    from ersatz.sim.purchase.buildout import purchase_problem
    from ersatz.sim.purchase.events import Event
    from ersatz.sim.purchase.life.chance import Uncertain, live_often
    from ersatz.sim.purchase.purchase import cheapest

    buildout = large_buildout()
    plan = cheapest(purchase_problem(buildout, free), 0.01)
    assert plan is not None
    embargo = Event(
        "embargo", 200.0, {"grace_days": 0.0, "months": float("inf")}, ("d0", "d1", "d2")
    )
    inputs = [Uncertain("lead_time", 0.8, 1.0, 1.6), Uncertain("failure_rate", 0.5, 1.0, 2.0),
              Uncertain("throughput", 0.8, 1.0, 1.25, "interval")]  # fmt: skip
    return lambda: print(end=str(live_often(buildout, plan, free, [embargo], inputs, 1000, 1))[:0])


def command(*arguments: str) -> Callable[[], None]:
    """A whole command, from the start of the process to its end."""
    ersatz = [sys.executable, "-m", "ersatz", *arguments]
    return lambda: subprocess.run(ersatz, check=True, stdout=subprocess.DEVNULL, cwd=ROOT) and None


def fabric() -> Callable[[], None]:
    """A described and checked network of 98,304 endpoints, as `ersatz fabric` needs it."""
    from ersatz.device_models.catalog.reading import load_node
    from ersatz.device_models.networks.facts import fabric_facts

    node = load_node("h100-8")
    return lambda: print(end=str(fabric_facts(node, 12288).devices)[:0])


def exact_step(name: str) -> Callable[[], None]:
    """The duration of one step of a shipped scenario, asked again."""
    from ersatz.sim.answers.cases import load
    from ersatz.sim.step.step import step_seconds

    case = load(name)[0]
    step_seconds(case)
    return lambda: discard(step_seconds(case))


def layouts(name: str, overrides: dict[str, object], **changes: Any) -> Callable[[], None]:
    """A proved plan over all layouts of a space: bulk bounds, exact steps, nothing kept before."""
    from ersatz.sim.answers.cases import load
    from ersatz.sim.kept import Kept
    from ersatz.sim.search.best import search
    from ersatz.sim.search.choices import choices_of, with_defaults
    from ersatz.sim.search.space import make_space
    from ersatz.sim.step import bench

    case = load(name, overrides)[0]
    case = replace(case, parallel=with_defaults(case.parallel, case.pools[0].stack))
    everything = changes.pop("everything", False)

    def run() -> None:
        bench._BENCHES = Kept(bench.MOST_BENCHES)  # nothing is kept from the run before
        space = make_space(case, replace(choices_of(case, everything=everything), **changes))
        search(space, kinds=1)

    return run


# The space of GPT-3 175B on 64 A100: every tp, cp to 8, pp, chunks, schedule, recomputation, sequence
# parallelism and ZeRO stage; batches of 64 and 3,072 sequences of 2,048 tokens.
A175 = {"model": "gpt3-175b", "stack": "megatron-core", "cluster.node": "a100-80-8", "cluster.nodes": 8,
        "cluster.network": "ib-hdr200-rail", "training.sequence_length": 2048, "job": "{}",
        "parallel": "{tp: 8, pp: 8, dp: 1}", "published": "[]"}  # fmt: skip
WIDE = {"everything": True, "least_context_tokens": 256, "most_tensor": 32}


def processor_seconds() -> float:
    """Processor time of this process and its finished children."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def best_of(run: Callable[[], None], times: int = 3) -> float:
    """Least processor time of several runs."""
    seconds = []
    for _ in range(times):
        start = processor_seconds()
        run()
        seconds.append(processor_seconds() - start)
    return min(seconds)


def fleets() -> Any:
    """The benchmarks of fleets, imported when one of them is run."""
    import fleets as found

    return found


def launch_script() -> Callable[[], None]:
    """A launch script of 500 lines, followed to what it starts."""
    from test_shell import long_script

    script = long_script(500)

    def read() -> None:
        follow(script, "s.sh", {}, None)

    return read


def what_ifs() -> Callable[[], None]:
    """150 quick answers of `ersatz serve`, none asked before: 50 people moving a slider three times."""
    from ersatz.sim.serve.asks import _stepped, answered
    from ersatz.sim.serve.forms import FORMS

    counts = {"ling-plus-substitution": (64, 128, 256), "llama3-70b-mi300x": (8, 16, 32),
              "deepseek-v3-h800": (128, 256, 512)}  # fmt: skip
    asked = [
        FORMS["what-if"].values({"scenario": name, "nodes": str(nodes),
                                 "set": f"training.sequence_length={4096 + 64 * person}"})
        for person in range(50) for name in [list(counts)[person % 3]] for nodes in counts[name]
    ]  # fmt: skip

    def answer_all() -> None:
        _stepped.cache_clear()
        for values in asked:
            assert "<dt>step</dt>" in answered("what-if", values, False, "")

    return answer_all


BENCHMARKS: dict[str, tuple[Callable[[], Callable[[], None]], float]] = {
    "step: 16,384 ranks, p=16 m=128 96 layers, every op": (lambda: vector(8, 128), 0.5),
    "step: 102,400 ranks, the same": (lambda: vector(8, 800), 2.5),
    "step, folded (L1)": (folded, 0.05),
    "step, links shared (L3)": (coupled, 0.5),
    "max-min rates, 16,384 flows": (lambda: sharing(16_384), 0.01),
    "max-min rates, 100,000 flows": (lambda: sharing(100_000), 0.1),
    "fabric of 98,304 endpoints": (big_fabric, 1.0),
    "ring all-reduce, 1,024 ranks": (lambda: ring(1_024), 0.001),
    "ring all-reduce, 100,000 ranks": (lambda: ring(100_000), 0.05),
    "40 x 4 verdicts of ersatz legal": (verdicts, 1.0),
    "fabric: 98,304 endpoints, graph and checks": (fabric, 1.0),
    "fleet: 82,247 jobs like Philly's, fifo": (lambda: fleets().scheduled("fifo"), 10.0),
    "fleet: 82,247 jobs like Philly's, easy": (lambda: fleets().scheduled("easy"), 30.0),
    "fleet: 12,500 nodes, a year of failures": (lambda: fleets().big_fleet(0), 0.5),
    "fleet: the same with 10,000 jobs": (lambda: fleets().big_fleet(10_000), 20.0),
    "fleet: a log of 1,000,000 events judged": (lambda: fleets().million_events(), 10.0),
    "exact step: llama3-405b-h100": (lambda: exact_step("llama3-405b-h100"), 0.004),
    "exact step: deepseek-v3-h800": (lambda: exact_step("deepseek-v3-h800"), 0.008),
    "plan: 405B on 16,384, what its stack runs": (lambda: layouts("llama3-405b-h100", {}), 5.0),
    "plan: 175B on 64, batch 64": (
        lambda: layouts("llama3-405b-h100", {**A175, "training.global_batch": 64}, **WIDE),
        10.0,
    ),
    "plan: 175B on 64, batch 3,072": (
        lambda: layouts("llama3-405b-h100", {**A175, "training.global_batch": 3072}, **WIDE),
        60.0,
    ),
    "serve: 150 quick what-ifs, none asked before": (what_ifs, 12.0),
    "a launch script of 500 lines": (launch_script, 0.05),
    "ersatz --help": (lambda: command("--help"), 0.3),
    "ersatz run ling-plus-substitution": (lambda: command("run", "ling-plus-substitution"), 1.5),
    "purchase: 36 months, 12 devices, 3 sites, to 1 %": (lambda: purchase(1), 10.0),
    "purchase: the same with two jobs": (lambda: purchase(2), 10.0),
    "purchase: 36 months, 12 devices, 6 sites, three jobs, to 1 %": (lambda: purchase(3, 6), 30.0),
    "purchase: 1,000 lives of three years": (lives, 20.0),
    "ersatz buy embargo-story": (lambda: command("buy", "embargo-story"), 5.0),
}


def main(names: list[str]) -> None:
    """Print every benchmark, or those whose name holds one of `names`."""
    unit = best_of(calibration_loop)
    start = time.strftime("%Y-%m-%d")
    print(f"{start}, calibration loop {unit:.3f} s")
    print(f"{'benchmark':54} {'seconds':>8} {'target':>7} {'ratio':>7} {'peak MiB':>9}")
    for name, (prepare, target) in BENCHMARKS.items():
        if names and not any(part in name for part in names):
            continue
        seconds = best_of(prepare())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name:54} {seconds:8.4f} {target:7.3f} {seconds / unit:7.3f} {peak:9.0f}")


if __name__ == "__main__":
    main(sys.argv[1:])
