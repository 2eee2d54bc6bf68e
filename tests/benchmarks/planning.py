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
from ersatz.sim.plan.memory.many import ManyPeaks  # noqa: E402
from ersatz.sim.plan.memory.peaks import stage_peaks  # noqa: E402
from ersatz.sim.scenario.scenario import Scenario  # noqa: E402
from ersatz.sim.search.best import search  # noqa: E402
from ersatz.sim.search.choices import choices_of, with_defaults  # noqa: E402
from ersatz.sim.search.least.bounds import Bounds  # noqa: E402
from ersatz.sim.search.pricing import memory_of  # noqa: E402
from ersatz.sim.search.space import layout_of, make_space  # noqa: E402
from ersatz.sim.step.step import step_seconds  # noqa: E402

# GPT-3 175B on 64 A100 over InfiniBand HDR, a space like Calculon's of the same: tp 1 to 64, cp 1 to 8, every
# pp and number of chunks to 16, 7 schedules, recomputation none, selective and full, sequence
# parallelism, ZeRO 0 to 3, over all replicas or those of a node, micro-batches to 4,096. Calculon's has the
# degrees, chunks, micro-batches and recomputation, too; instead of schedules, cp and ZeRO it has kinds of
# overlap of tensor, data and pipeline parallelism and offloading of weights, activations and optimiser.
WIDE = {"least_context_tokens": 256, "most_tensor": 64, "most_micro_batch": 4096}
A175 = {"model": "gpt3-175b", "stack": "megatron-core", "cluster.node": "a100-80-8", "cluster.nodes": 8,
        "cluster.network": "ib-hdr200-rail", "training.sequence_length": 2048, "job": "{}",
        "parallel": "{tp: 8, pp: 8}"}  # fmt: skip


def a175(batch: int) -> Scenario:
    """The space's scenario with so many sequences a step."""
    return opened(load("llama3-405b-h100", {**A175, "training.global_batch": batch})[0])


def opened(case: Scenario) -> Scenario:
    """A scenario whose layout is to be found, and what of it leaves for the host."""
    parallel = with_defaults(case.parallel, case.pools[0].stack)
    return replace(case, parallel=parallel, open=("parallel", "micro_batch", "offload"))


def steps(name: str) -> Iterator[str]:
    """The exact step and the verdict on memory, asked again."""
    case = load(name)[0]
    for what, run in (("exact step", step_seconds), ("memory", lambda c: list(stage_peaks(c)))):
        step = [timed(lambda run=run: run(case)) for _ in range(12)]
        yield f"{what} again: {1e3 * statistics.median(step[2:]):.1f} ms"


def verdicts(case: Scenario, everything: bool) -> Iterator[str]:
    """The memory of layouts of a search: the first time, with what layouts share, and asked again."""
    rows = make_space(case, choices_of(case, everything=everything)).rows
    some = rows[:: max(len(rows) // 3000, 1)].tolist()
    layouts = [layout_of(case, row) for row in some]

    def all_of(peaks: ManyPeaks) -> float:
        return (
            1e3 * timed(lambda: [memory_of(peaks, one, "fits") for one in layouts]) / len(layouts)
        )

    first = all_of(ManyPeaks(case.pools[0]))
    peaks = ManyPeaks(case.pools[0])
    yield (f"{len(layouts):,} of {len(rows):,} layouts: {first:.2f} ms each, {all_of(peaks):.2f} ms with"
           f" orders kept, {all_of(peaks):.2f} ms again")  # fmt: skip


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


def on_ray(case: Scenario, count: int = 816) -> Iterator[str]:
    """The first layouts by their bounds, priced by one and by two workers of a Ray cluster of its own."""
    try:
        import ray
    except ImportError:
        yield "needs Ray: pip install 'ersatz[dist]'"
        return
    from ersatz.sim.search.best import AGAIN, AHEAD, _order
    from ersatz.sim.search.remote import Remote, on_cluster

    layouts = make_space(case, choices_of(case, everything=True))
    order, _ = _order(layouts, Bounds(case), "fits")
    rows = [tuple(row) for row in layouts.rows[order[:count]].tolist()]
    others = [tuple(row) for row in layouts.rows[order[-4:]].tolist()]
    clock: dict[int, float] = {}
    for workers in (1, 2):
        with on_cluster("local", 2, lambda words: None):
            pricer = Remote(case, "fits", ray, workers, lambda words: None)
            pricer.expect(others)  # until the workers are there
            for row in others:
                pricer.price(row)
            begun = time.monotonic()
            for at in range(0, count, AGAIN):
                pricer.expect(rows[at : at + AHEAD])
                for row in rows[at : at + AGAIN]:
                    pricer.price(row)
            clock[workers] = time.monotonic() - begun
            pricer.close()
    yield (f"{count} layouts: one worker {clock[1]:.1f} s by the clock, two {clock[2]:.1f} s:"
           f" {clock[1] / clock[2]:.2f} times as fast")  # fmt: skip


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
    "memory of Llama 3 405B": lambda: verdicts(opened(load("llama3-405b-h100")[0]), False),
    "memory of DeepSeek-V3": lambda: verdicts(opened(load("deepseek-v3-h800")[0]), False),
    "plan of Llama 3 405B, 16,384 devices": lambda: space(
        opened(load("llama3-405b-h100")[0]), everything=False
    ),
    "plan of Llama 3 405B, any schedule and ZeRO": lambda: space(
        opened(load("llama3-405b-h100")[0]), everything=True
    ),
    "plan of 175B on 64, batch 3,072": lambda: space(a175(3072), everything=True, away=(), **WIDE),
    "plan of 175B on 64, batch 3,072, with offload": lambda: space(
        a175(3072), everything=True, **WIDE
    ),
    "plan of DeepSeek-V3 on 2,048, a million": lambda: space(
        opened(load("deepseek-v3-h800")[0]), everything=True, least_context_tokens=1024
    ),
    "405B on Ray": lambda: on_ray(opened(load("llama3-405b-h100")[0])),
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
