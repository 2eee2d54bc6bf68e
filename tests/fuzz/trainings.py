"""Kinds of input that are trainings of many parts: phases, adapters, narrow formats, pools with layouts of
their own; how they are drawn (timelines, pages); and the search for a layout."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ersatz.sim.scenario.schema import ScenarioFile

from . import seeds
from .draw import draw_section
from .judge import Input
from .mutate import mutated, mutated_bytes, to_yaml
from .orders import delivery, maybe, options, word

PHASES = """
question: How long, with a longer end?
model: {name: m, layers: 4, hidden: 512, heads: 8, vocab: 1000}
stack: megatron-core
cluster: {node: h100-8, nodes: 1}
parallel: {tp: 2, dp: 4, zero: 1}
training:
  sequence_length: 512
  global_batch: 32
  batch_ramp: {start: 8, increment: 8, sequences: 3000}
  phases:
    - {name: short, tokens: 800 M tokens}
    - {name: long, tokens: 150 M tokens, sequence_length: 2048, global_batch: 16,
       parallel: {cp: 2, dp: 2, recompute: full}}
    - {steps: 100, micro_batch: 2, document_tokens: 256}
job: {failures: {scale: 2}, replicas: 2, checkpoint: {interval: 1 h}}
cost: {rent: 20 CNY/h}
cases: {base: {}, other: {training: {phases: [{steps: 1000}]}}}
"""
SHARES = """
question: How long, by shares?
model: {name: m, layers: 4, hidden: 512, heads: 8, vocab: 1000}
cluster: {node: h800-8, nodes: 1}
training:
  sequence_length: 512
  global_batch: 32
  tokens: 1 B tokens
  phases: [{share: 80 %}, {name: end, share: 20 %, global_batch: 64}]
parallel: {pp: 2, schedule: zb-h1}
job: {replicas: 1}
"""
ADAPTERS = """
question: With adapters?
model: {name: m, layers: 4, hidden: 512, heads: 8, kv_heads: 2, vocab: 1000, lora_rank: 16,
  lora_targets: "q, k, v, o, gate"}
stack: megatron-core
cluster: {node: h100-8, nodes: 1}
parallel: {tp: 2, dp: 4, zero: 1}
memory: {frozen_weights: 4-bit, moments: 8-bit, optimizer_offload: 50 %, loss: fused}
training: {sequence_length: 512, global_batch: 32, steps: 1000}
job: {replicas: 1}
"""
EXPERTS_ADAPTED = """
question: With adapters of experts?
model: {name: moe, layers: 4, hidden: 256, heads: 4, vocab: 500, ffn_hidden: 512, lora_rank: 8,
  experts: {routed: 8, top_k: 2, hidden: 128, shared: 1, dense_layers: 1}}
stack: torchtitan
cluster: {node: h800-8, nodes: 1}
parallel: {ep: 4, zero: 2}
training: {sequence_length: 256, global_batch: 32, precision: bf16}
"""
NARROW = """
question: In how many bits?
model: {name: m, layers: 4, hidden: 512, heads: 8, vocab: 1000}
stack: megatron-core
cluster: {node: b200-8, nodes: 1}
parallel: {tp: 2, dp: 4}
training: {sequence_length: 512, global_batch: 32, precision: fp8, recipe: blockwise}
cases: {block: {}, delayed: {training: {recipe: delayed}}, four: {training: {precision: fp4, recipe: nvfp4}}}
"""
STAGES = """
question: Stages of two kinds?
model: {name: m, layers: 8, hidden: 512, heads: 8, vocab: 1000}
cluster:
  pools: [{name: h, node: h800-8, nodes: 1}, {name: a, node: ascend-910b2-8, nodes: 1}]
  joint: {path: host, node_bandwidth: 25 GB/s, bandwidth: 100 GB/s, latency: 100 us}
training: {sequence_length: 512, global_batch: 64, micro_batch: 1}
parallel:
  pp: 4
  stage_pools: [h, h, a, a]
  pools: {h: {tp: 2, recompute: full}, a: {tp: 4, micro_batch: 2, zero: 1}}
  chunk_layers: [3, 3, 1, 1]
"""
REPLICAS = """
question: Replicas of two kinds?
model: {name: m, layers: 8, hidden: 512, heads: 8, vocab: 1000}
cluster:
  pools: [{name: h, node: h800-8, nodes: 1}, {name: a, node: ascend-910b2-8, nodes: 1}]
training: {sequence_length: 512, global_batch: 64, tokens: 1 B tokens}
parallel:
  mixed: replicas
  batch_split: speed
  pools: {h: {tp: 2}, a: {pp: 2, micro_batch: 2, schedule: 1f1b}}
job: {replicas: 1, spare_nodes: {h: 0, a: 0}}
cost: {currency: CNY, rent: {h: 27 CNY/h, a: 7 CNY/h}}
"""
PLAN = """
question: Which layout?
model: {name: m, layers: 4, hidden: 256, heads: 4, vocab: 500}
cluster: {node: h800-8, nodes: 1}
training: {sequence_length: 256, global_batch: 16, tokens: 1 B tokens}
cost: {rent: 20 CNY/h}
job: {replicas: 1}
"""
MIX = """
question: Which of these train it best together?
model: {name: m, layers: 2, hidden: 256, heads: 4, vocab: 500}
cluster:
  pools: [{name: h, node: h800-8, nodes: 1}, {name: a, node: ascend-910b2-8, nodes: 1}]
training: {sequence_length: 256, global_batch: 16, tokens: 1 B tokens}
cost: {currency: CNY, rent: {h: 27.5 CNY/h, a: 7 CNY/h}}
job: {replicas: 1}
"""
SEEDS = {
    "phases": (PHASES, SHARES),
    "adapters": (ADAPTERS, EXPERTS_ADAPTED, NARROW),
    "own-layouts": (STAGES, REPLICAS),
}
NAMED = (
    "PHASES",
    "SHARES",
    "ADAPTERS",
    "EXPERTS_ADAPTED",
    "NARROW",
    "STAGES",
    "REPLICAS",
    "PLAN",
    "MIX",
)
NODES = ("h800", "h20", "910B2", "h800-8", "ascend-910b2-8", "a100-8", "cpu-1")


def _changed(texts: Sequence[str], rng: random.Random) -> bytes:
    """Return one of the files, changed by parts of the others and of one drawn from the schema."""
    trees = [seeds.tree(text) for text in texts]
    drawn = draw_section(ScenarioFile, rng)
    raw = to_yaml(mutated(rng.choice(trees), [*trees, *trees, drawn], rng))
    return mutated_bytes(raw, rng) if rng.random() < 0.03 else raw


def _run(kind: str) -> Callable[[random.Random], Input]:
    def make(rng: random.Random) -> Input:
        files = {"itself.yaml": _changed(SEEDS[kind], rng)}
        return Input(kind, files, ("run", "@/itself.yaml", *options(rng), *delivery(rng)))

    return make


def drawn_run(rng: random.Random) -> Input:
    """A scenario whose step is drawn: a timeline of chosen ranks, a page, operations."""
    texts = (seeds.RUN, seeds.EXPERTS, seeds.POOLS, PHASES, ADAPTERS, STAGES, REPLICAS)
    files = {"itself.yaml": _changed(texts, rng)}
    ranks = maybe(rng, 0.5, "--ranks", word(rng, ("0", "0,1", "7,3", "0,0", "15", "1,2,3")))
    more = rng.choice((("--trace", "@/o.trace.gz", *ranks), ("--trace", "@/o.trace.gz", *ranks),
                       ("--html", "@/o.html"), ("--ops",), ("--ops", "--json", "-"),
                       ("--html", "@/o.html", "--trace", "@/o.trace.gz"), ranks))  # fmt: skip
    return Input("drawn-run", files, ("run", "@/itself.yaml", *options(rng), *more))


def drawn_other(rng: random.Random) -> Input:
    """Another verb's answer as a page, a picture or a timeline."""
    verb, name, text = rng.choice((
        ("compare", "itself.yaml", seeds.RUN), ("buy", "itself.yaml", seeds.BUY),
        ("buy", "itself.yaml", seeds.OPTIONS), ("legal", "itself.yaml", seeds.LEGAL),
        ("schedule", "itself.yaml", seeds.FLEET), ("schedule", "itself.yaml", seeds.FLEET),
        ("fabric", "itself.yaml", seeds.FABRIC),
    ))  # fmt: skip
    files = {name: _changed_alone(text, rng), "data.yaml": seeds.RULES.encode()}
    fleet = rng.choice((("--html", "@/o.html"), ("--timeline", "@/o.trace.gz")))
    where = {"fabric": ("--svg", "@/o.svg"), "schedule": fleet}.get(verb, ("--html", "@/o.html"))
    more: tuple[str, ...] = ()
    if verb == "legal":
        more = (*maybe(rng, 0.3, "--watch"), *maybe(rng, 0.4, "--units", word(rng, ("8", "1000", "0", "-1"))),
                *maybe(rng, 0.2, "--from", word(rng, ("US", "China", "Japan", "Crimea"))))  # fmt: skip
    elif verb == "buy" and rng.random() < 0.4:
        files["prices.csv"] = seeds.PRICES.encode()
        more = ("--prices", "@/prices.csv")
    return Input("drawn-other", files, (verb, f"@/{name}", *options(rng), *more, *where))


def _changed_alone(text: str, rng: random.Random) -> bytes:
    tree = seeds.tree(text)
    return to_yaml(mutated(tree, [tree], rng))


def _wishes(rng: random.Random) -> tuple[str, ...]:
    """Return what is asked of a search."""
    found: list[str] = []
    for option, usual in (
        ("--for", ("time", "money", "energy", "devices")),
        ("--by", ("1", "0.1", "30", "1e-9")),
        ("--budget", ("1 M CNY", "20 USD", "1 CNY")),
        ("--keep", ("tp", "tp,schedule", "micro_batch", "tp,pp,dp")),
        ("--most", ("16", "8", "64")),
        ("--memory", ("fits", "tight")),
        ("--tokens", ("1 B tokens", "15 T tokens", "1 token")),
        ("--legal", ("2025-03-24", "2023-10-17")),
        ("--to", ("China", "US")),
        ("--shard", ("1/2", "2/2", "1/1")),
        ("--workers", ("1",)),
        ("--stack", ("megatron-core", "@/stack.yaml")),
    ):
        if rng.random() < 0.1:
            found += [option, word(rng, usual)]
    return (*found, *maybe(rng, 0.1, "--any"))


def plan(rng: random.Random) -> Input:
    """A job whose layout is looked for."""
    files = {"itself.yaml": _changed((PLAN, PLAN, PHASES, ADAPTERS), rng)}
    more = (*maybe(rng, 0.2, "--on", word(rng, (*NODES, "h800,h20", "910B2,h20-8"))),
            *maybe(rng, 0.2, "--devices", word(rng, ("8", "16", "8,16", "0", "x"))))  # fmt: skip
    if rng.random() < 0.1:
        files["book"] = mutated_bytes(b"SQLite format 3\0" + bytes(200), rng)
        more = (*more, "--journal", "@/absent", "--journal", "@/book")
    where = rng.choice((("--html", "@/o.html"), delivery(rng), delivery(rng)))
    return Input(
        "plan", files, ("plan", "@/itself.yaml", *more, *_wishes(rng), *options(rng), *where)
    )


def mix(rng: random.Random) -> Input:
    """A job to be shared between several kinds of node."""
    files = {"itself.yaml": _changed((MIX, MIX, REPLICAS, STAGES), rng)}
    more = maybe(
        rng, 0.3, "--mix", word(rng, ("h800:1,910B2:1", "h20:1,h800:2", "h800:1,h800:1", "a:1"))
    )
    more = (*more, *maybe(rng, 0.2, "--some"))
    where = rng.choice((("--html", "@/o.html"), delivery(rng), delivery(rng)))
    return Input(
        "mix", files, ("plan", "@/itself.yaml", *more, *_wishes(rng), *options(rng), *where)
    )


KINDS = {
    **{kind: _run(kind) for kind in SEEDS},
    "drawn-run": drawn_run,
    "drawn-other": drawn_other,
    "plan": plan,
    "mix": mix,
}
