"""Speed of `ersatz plan`, in seconds of processor time; beside it Calculon, where a clone of it is at hand.

    .venv/bin/python tests/benchmarks/planning.py [name ...] [--calculon FOLDER]

Each figure is of one process with nothing kept from the one before, unless its name says "again".
Calculon (github.com/calculon-ai/calculon, Apache-2.0) is imported from a clone, never shipped.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from ersatz.sim.answers.cases import load  # noqa: E402
from ersatz.sim.plan.memory.peaks import stage_peaks  # noqa: E402
from ersatz.sim.scenario.scenario import Scenario  # noqa: E402
from ersatz.sim.search.best import search  # noqa: E402
from ersatz.sim.search.bounds import Bounds  # noqa: E402
from ersatz.sim.search.choices import choices_of, with_defaults  # noqa: E402
from ersatz.sim.search.space import make_space  # noqa: E402
from ersatz.sim.step.step import step_seconds  # noqa: E402

# GPT-3 175B on 64 A100 over InfiniBand HDR: every tp, cp to 8, pp, chunks, schedule, recomputation, sequence
# parallelism, ZeRO stage and micro-batch; more axes than Calculon has of layouts, fewer of overlap and
# offloading.
A175 = {"model": "gpt3-175b", "stack": "megatron-core", "cluster.node": "a100-80-8", "cluster.nodes": 8,
        "cluster.network": "ib-hdr200-rail", "training.sequence_length": 2048, "job": "{}",
        "parallel": "{tp: 8, pp: 8}"}  # fmt: skip


def a175(batch: int) -> Scenario:
    """The space's scenario with so many sequences a step."""
    return opened(load("llama3-405b-h100", {**A175, "training.global_batch": batch})[0])


def opened(case: Scenario) -> Scenario:
    """A scenario whose layout is to be found."""
    return replace(case, parallel=with_defaults(case.parallel, case.pools[0].stack))


def steps(name: str) -> Iterator[str]:
    """The exact step and the verdict on memory, asked again."""
    case = load(name)[0]
    for what, run in (("exact step", step_seconds), ("memory", lambda c: list(stage_peaks(c)))):
        step = [timed(lambda run=run: run(case)) for _ in range(12)]
        yield f"{what} again: {1e3 * statistics.median(step[2:]):.1f} ms"


def space(case: Scenario, *, everything: bool, **changes: Any) -> Iterator[str]:
    """A proved plan over a space: layouts, seconds of processor time, and the most memory so far."""
    begun = time.process_time()
    choices = replace(choices_of(case, everything=everything), **changes)
    found_space = make_space(case, choices)
    bounds = Bounds(case)
    bounds.bytes(found_space.rows)
    bounds.seconds(found_space.rows)
    bulk = time.process_time() - begun
    found = search(found_space, bounds, kinds=1)
    whole = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield (f"{found.layouts:,} layouts: made and bounded in {bulk:.1f} s, proved in {whole:.1f} s"
           f" ({found.timed:,} timed exactly), {peak:,.0f} MiB")  # fmt: skip


def calculon(folder: str, sample: int = 400) -> Iterator[str]:
    """Calculon's own space of the same model and devices: how many layouts, and seconds of some of them."""
    import logging
    import random

    sys.path.insert(0, folder)
    for name in ("psutil", "pandas"):  # which its command line alone needs
        sys.modules.setdefault(name, ModuleType(name))
    from calculon import io
    from calculon.llm.llm import Llm
    from calculon.llm.optimal_execution import OptimalExecution
    from calculon.system import System

    app = Llm.Application(io.read_json_file(f"{folder}/models/gpt3-175B.json"))
    machine = System(io.read_json_file(f"{folder}/systems/a100_80g.json"))
    quiet = logging.getLogger("calculon")
    quiet.setLevel(logging.CRITICAL)
    groups = []
    for tp in Llm.get_all_tensor_parallelisms(64, app.hidden, app.attn_heads):
        for pp in Llm.get_all_pipeline_parallelisms(64, tp, app.num_blocks):
            dp = Llm.get_data_parallelism(64, tp, pp)
            for chunks in Llm.get_valid_pipeline_interleavings(app.num_blocks, pp):
                batch = OptimalExecution.get_batch_size(dp, 3072)
                groups += [(tp, pp, dp, chunks, batch, again, sharded, kind)
                           for again in ("full", "attn_only", "none")
                           for sharded in ((True, False) if dp > 1 else (False,))
                           for kind in ("ar", "p2p_rs_ag", "rs_ag")
                           if batch]  # fmt: skip

    def run(debug: bool, group: tuple[Any, ...]) -> int:
        tp, pp, dp, chunks, batch, again, sharded, kind = group
        return int(OptimalExecution.search(debug, 1, False, 64, 3072, "float16", app, machine, tp, pp,
                   dp, chunks, batch, again, sharded, kind, "true", False, True, True)[1])  # fmt: skip

    total = sum(run(True, group) for group in groups)
    random.Random(1).shuffle(groups)
    done, begun = 0, time.process_time()
    for group in groups:
        done += run(False, group)
        if done >= sample:
            break
    each = (time.process_time() - begun) / done
    yield (f"Calculon: {total:,} layouts, {1e3 * each:.2f} ms each (of {done:,}, drawn by groups):"
           f" {total * each:,.0f} s for all")  # fmt: skip


def timed(run: Callable[[], object]) -> float:
    """Seconds of processor time."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


FIGURES: dict[str, Callable[[], Iterator[str]]] = {
    "step of Llama 3 405B, 16,384 devices": lambda: steps("llama3-405b-h100"),
    "step of DeepSeek-V3, 2,048 devices": lambda: steps("deepseek-v3-h800"),
    "plan of Llama 3 405B, 16,384 devices": lambda: space(
        opened(load("llama3-405b-h100")[0]), everything=False
    ),
    "plan of 175B on 64, batch 3,072": lambda: space(a175(3072), everything=True),
    "plan of 175B on 64, a million": lambda: space(
        a175(46_080), everything=True, most_micro_batch=256, least_context_tokens=256
    ),
}


def main(words: list[str]) -> None:
    """Print the figures that are named, or all."""
    folder = words.pop(words.index("--calculon") + 1) if "--calculon" in words else ""
    names = [word for word in words if not word.startswith("--")]
    for name, figure in FIGURES.items():
        if not names or any(word in name for word in names):
            for line in figure():
                print(f"{name}: {line}", flush=True)
    if folder:
        for line in calculon(folder):
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
