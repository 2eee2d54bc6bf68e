"""Which kernels to measure: those that the workload emits for models around the ones of interest.

A draw is a random model, micro-batch and shard; its kernels are exactly what the step engine would
ask for. Draws come in rounds, each round a few kernels of every operation, so that a calibration
that stops early still knows all of them.

On accelerators every second draw is a model that travels with ersatz; a CPU gets models that it can
run in milliseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ersatz.device_models.catalog.reading import load_stack
from ersatz.device_models.kernels.kernel import Kernel, memory_kernel
from ersatz.device_models.kernels.operations import is_product, operation_of
from ersatz.device_models.shipped import DATA
from ersatz.sim.workload.model import Experts, Model
from ersatz.sim.workload.model_file import load_model
from ersatz.sim.workload.ops import embedding_work, head_work, layer_work
from ersatz.sim.workload.pieces import PartWork, Shard

PER_ROUND = 2  # products of each operation in one round; one of everything else
NOT_OF_A_STEP = ("copy", "to device", "to host")  # beside those of a model
MOST_WEIGHTS = 5e8  # of one optimiser step that is measured


@dataclass(frozen=True, slots=True)
class Ranges:
    """From where to where sizes are drawn, evenly in their logarithm."""

    hidden: tuple[int, int]
    tokens: tuple[int, int]
    sequence: tuple[int, int]
    vocab: tuple[int, int]
    head_sizes: tuple[int, ...]
    expert_hidden: tuple[int, int]
    most_flop: float  # of one kernel
    most_bytes: float  # of one kernel's operands
    known_models: bool  # draw the models that travel with ersatz, too


SMALL = Ranges((128, 896), (64, 2048), (32, 1024), (512, 16384), (32, 64, 96, 128), (64, 512),
               8e9, 2e8, False)  # fmt: skip
# Of steps that stay in the cache of a host, where calls and not bytes decide.
TINY = Ranges((32, 192), (16, 128), (16, 64), (128, 1024), (16, 32), (16, 64), 8e9, 2e8, False)
MOST_LAYERS = 4  # of a small step that is run as a whole
SMALL_STEPS = 5  # drawn of each kind, gated and plain; every operation is fitted from as many
LARGE = Ranges((1024, 16384), (512, 16384), (512, 16384), (16384, 262144), (64, 128), (512, 4096),
               2e14, 1.5e10, True)  # fmt: skip


def ranges_of(backend: str) -> Ranges:
    """Return the sizes to measure on a backend."""
    return SMALL if backend == "cpu" else LARGE


def kernel_rounds(ranges: Ranges, dtypes: Sequence[str], seed: int) -> Iterator[list[Kernel]]:
    """Yield rounds of kernels without end; the same seed gives the same rounds."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(5,)))
    while True:
        for dtype in dtypes:
            yield _round(rng, ranges, dtype)


def small_steps(dtype: str, seed: int) -> list[Shard]:
    """Return a few drawn models, of one to four layers, whose steps stay in the cache."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(8, 1)))
    layers = rng.integers(1, MOST_LAYERS + 1, 2 * SMALL_STEPS).tolist()
    return [replace(shard, model=replace(shard.model, layers=count))
            for shard, count in zip(_small_shards(dtype, seed)[1], layers, strict=True)]  # fmt: skip


def _small_shards(dtype: str, seed: int) -> tuple[np.random.Generator, list[Shard]]:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(8,)))
    return rng, [_draw_shard(rng, TINY, dtype, gated=gated, moe=False)
                 for gated in (True, False) for _ in range(SMALL_STEPS)]  # fmt: skip


def small_kernels(dtype: str, seed: int) -> list[Kernel]:
    """Return the distinct kernels of a few drawn steps that stay in the cache, step by step."""
    rng, shards = _small_shards(dtype, seed)
    drawn = (k for shard in shards for k in _kernels(rng, shard, TINY))
    return list(dict.fromkeys(k for k in drawn if k.name not in NOT_OF_A_STEP))


def _round(rng: np.random.Generator, ranges: Ranges, dtype: str) -> list[Kernel]:
    """Return a few kernels of each operation, from several drawn models."""
    found: dict[str, list[Kernel]] = defaultdict(list)
    for gated, moe in ((True, False), (False, False), (True, True)):
        shard = _draw_shard(rng, ranges, dtype, gated=gated, moe=moe)
        for kernel in _kernels(rng, shard, ranges):
            if _affordable(kernel, ranges) and _asked(kernel, dtype):
                found[operation_of(kernel)].append(kernel)
    chosen = []
    for operation in sorted(found):
        count = PER_ROUND if is_product(operation) else 1
        places = rng.permutation(len(found[operation]))[:count]
        chosen += [found[operation][place] for place in places]
    return chosen


def _asked(kernel: Kernel, dtype: str) -> bool:
    """An 8-bit round measures products; everything else is wide and has its own round."""
    return kernel.dtype == dtype or (dtype == "fp16" and kernel.dtype == "bf16")


def _affordable(kernel: Kernel, ranges: Ranges) -> bool:
    size = 4.0 * kernel.groups * (kernel.m * kernel.k + kernel.k * kernel.n + kernel.m * kernel.n)
    return kernel.flop <= ranges.most_flop and max(kernel.nbytes, size) <= ranges.most_bytes


def _draw_shard(
    rng: np.random.Generator, ranges: Ranges, dtype: str, *, gated: bool, moe: bool
) -> Shard:
    """Return a random model's share on one rank."""
    known = _known_models() if ranges.known_models and rng.random() < 0.5 else ()
    model = known[int(rng.integers(len(known)))] if known else _draw_model(rng, ranges, gated, moe)
    tp = int(rng.choice([1, 2, 4, 8])) if ranges.known_models else 1
    tp = tp if model.heads % tp == 0 else 1
    sequence = _whole(rng, ranges.sequence, 32)
    tokens = max(_whole(rng, ranges.tokens, 32) // sequence, 1) * sequence
    ep = max(model.experts.routed // 8, 1) if model.experts else 1
    return Shard(
        model, load_stack("torch-eager"), float(tokens), sequence, dtype, tp, 1, ep, 1, False
    )


def _draw_model(rng: np.random.Generator, ranges: Ranges, gated: bool, moe: bool) -> Model:
    dim = int(rng.choice(ranges.head_sizes))
    heads = max(_whole(rng, ranges.hidden, 32) // dim, 1)
    kv = int(rng.choice([g for g in (1, 2, 4, 8) if heads % g == 0]))
    hidden = max(heads * dim, 32)
    inner = round(hidden * rng.uniform(2.0, 4.0) / 16) * 16
    experts = None
    if moe:
        experts = Experts(int(rng.choice([4, 8, 16])), 2, _whole(rng, ranges.expert_hidden, 16))
    return Model("drawn", 1, hidden, heads, heads // kv, dim, inner, _whole(rng, ranges.vocab, 64),
                 gated=gated, experts=experts)  # fmt: skip


def _whole(rng: np.random.Generator, bounds: tuple[int, int], step: int) -> int:
    """Draw a multiple of `step`, even in the logarithm."""
    low, high = np.log(bounds)
    return max(round(float(np.exp(rng.uniform(low, high))) / step), 1) * step


@lru_cache(maxsize=1)
def _known_models() -> tuple[Model, ...]:
    folder = DATA / "models"
    return tuple(load_model(path.stem) for path in sorted(folder.glob("*.yaml")))


def _kernels(rng: np.random.Generator, shard: Shard, ranges: Ranges) -> Iterator[Kernel]:
    """Yield the kernels of one layer, the vocabulary, the optimiser and copies of that size."""
    moe = shard.model.experts is not None
    for part in (layer_work(shard, moe=moe), embedding_work(shard), head_work(shard)):
        yield from part_kernels(part)
    wide = memory_kernel("copy", 2 * shard.element_bytes * shard.tokens * shard.model.hidden,
                         dtype=shard.wide, m=shard.tokens, n=shard.model.hidden)  # fmt: skip
    yield wide
    yield from (replace(wide, name=name) for name in ("to device", "to host"))
    weights = min(float(shard.model.layer_params(moe=moe)) * rng.integers(1, 6), MOST_WEIGHTS)
    stack = shard.stack.optimizer_bytes_per_param
    yield memory_kernel("optimizer", stack * weights, dtype=shard.wide, m=weights, n=1.0)


def part_kernels(part: PartWork) -> Iterator[Kernel]:
    """Yield the kernels among the pieces of a part, rounded to whole sizes."""
    for piece in (*part.forward, *part.input_grad, *part.weight_grad):
        if isinstance(piece, Kernel) and piece.m:
            yield piece
