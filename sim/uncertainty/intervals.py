"""The 80 % interval of a predicted step time, and what makes it wide.

The half width, as a logarithm, is the root of a sum of squares over what is uncertain about a run:

    cluster         no cluster is as the catalogue's: what lineages of published runs differ by
    stack           the software is not recognised
    device          the device, in this number format and kind of model, was never measured
    few             ... or in one or two published runs only
    early           software of before 2023
    short           layers so short that launches and waiting set the pace, which no data sheet tells
    unmeasured      of the device no run at all was published: an assumption, for no data can show it
    experts, adapters, long sequence       what is predicted less well wherever it was measured
    what is left open                      readings that a row or a scenario does not decide between

Their sizes are fitted to the errors of whole lineages left out (data/intervals.yaml, written by
`python -m ersatz.sim.validation.errors.widths`), where coverage is measured, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ersatz.device_models.kernels.kernel import sixteen_bit_peak
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import parse_yaml
from ersatz.sim.records import StepResult
from ersatz.sim.scenario.scenario import Pool, Scenario

BINS = ("ascend-910b",)  # families whose bin a publication seldom tells
GENERIC = frozenset({"generic", "generic-2023"})  # stacks that stand for an unknown one


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that makes an interval wide: its name in data/intervals.yaml, words, log half width."""

    name: str
    words: str
    width: float


@lru_cache(maxsize=1)
def _data() -> Mapping[str, Any]:
    source = DATA / "intervals.yaml"
    found: Mapping[str, Any] = parse_yaml(source.read_text("utf-8"), "intervals.yaml").data
    return found


@lru_cache(maxsize=1)
def causes() -> Mapping[str, float]:
    """Return from where on a cause counts (data/causes.yaml)."""
    text = parse_yaml((DATA / "causes.yaml").read_text("utf-8"), "causes.yaml").data
    return {key: float(leaf["value"]) for key, leaf in text.items() if key != "sources"}


def components() -> dict[str, float]:
    """Return the log half width of each component."""
    return {name: float(leaf["value"]) for name, leaf in _data()["components"].items()}


def common_shares() -> dict[str, float]:
    """Return by which shares squared errors belong to software, to it on a device, and to a run alone."""
    return {name: float(leaf["value"]) for name, leaf in _data()["common"].items()}


def published_runs() -> Mapping[str, int]:
    """Return how many published configurations there are of each kind, as `kind_of` names it."""
    found: Mapping[str, int] = _data()["runs"]
    return found


def family_of(pool: Pool) -> str:
    """Return a pool's device, or the family of its bins where publications seldom tell which."""
    device = pool.node.device.name
    return next((name for name in BINS if device.startswith(name)), device)


def kind_of(scenario: Scenario, pool: Pool) -> str:
    """Return what is alike: device (bins of one die together), number format, kind of model."""
    model = (
        "adapters" if scenario.model.lora_rank else "experts" if scenario.model.experts else "dense"
    )
    return f"{family_of(pool)}/{scenario.training.precision}/{model}"


def is_measured(pool: Pool) -> bool:
    """Tell whether any training run on the pool's device was published."""
    return any(kind.split("/")[0] == family_of(pool) for kind in published_runs())


def layer_seconds(scenario: Scenario, pool: Pool) -> float:
    """Return how long products of a layer's forward pass take on a pool, in seconds, were that all."""
    model, training, parallel = scenario.model, scenario.training, scenario.parallel
    forward = model.flop_per_token(training.sequence_length, causal=True) / 3 / model.layers
    tokens = training.micro_batch * training.sequence_length / (parallel.tp * parallel.cp)
    return forward * tokens / (causes()["reached"] * sixteen_bit_peak(pool.node.device))


def features(scenario: Scenario, pool: Pool, *, runs: int | None = None) -> Iterator[str]:
    """Name the components that concern a pool of a scenario.

    `runs` is how many configurations of its kind are known, where it is not the number published.
    """
    yield "cluster"
    stack = pool.stack.anchor.base if pool.stack.anchor else pool.stack.name
    if stack in GENERIC:
        yield "stack"
    if runs is None:
        runs = published_runs().get(kind_of(scenario, pool), 0)
    if runs == 0:
        yield "device"
        if not is_measured(pool):
            yield "unmeasured"
    elif runs <= causes()["few_runs"]:
        yield "few"
    if pool.stack.released and pool.stack.released < f"{causes()['early_software']:.0f}":
        yield "early"
    if layer_seconds(scenario, pool) < causes()["short_layer_s"]:
        yield "short"
    if scenario.model.lora_rank:
        yield "adapters"
    elif scenario.model.experts:
        yield "experts"
    if scenario.training.sequence_length > causes()["long_sequence"]:
        yield "long"


def reasons(scenario: Scenario) -> tuple[Reason, ...]:
    """Return what makes the interval of a scenario wide, the widest first, for its least known pool."""
    found = _pool_reasons(scenario, widest_pool(scenario))
    return tuple(sorted(found, key=lambda reason: -reason.width))


def widest_pool(scenario: Scenario) -> Pool:
    """Return the pool whose step is least known."""
    return max(scenario.pools, key=lambda pool: total(_pool_reasons(scenario, pool)))


def _pool_reasons(scenario: Scenario, pool: Pool) -> tuple[Reason, ...]:
    known = components()
    return tuple(_reason(name, scenario, pool, known[name]) for name in features(scenario, pool))


def total(found: Sequence[Reason]) -> float:
    """Return the log half width of independent reasons together."""
    return math.hypot(*(reason.width for reason in found))


def half_width(scenario: Scenario) -> float:
    """Return the relative half width of a scenario's step time: a factor minus one."""
    return math.expm1(total(reasons(scenario)))


def interval80(scenario: Scenario, seconds: float) -> tuple[float, float]:
    """Return the (low, high) ends of the 80 % interval of a step time."""
    factor = 1.0 + half_width(scenario)
    return seconds / factor, seconds * factor


def with_interval(scenario: Scenario, step: StepResult, width: float | None = None) -> StepResult:
    """Return a step with its 80 % interval: of relative half width `width` if given, else as known."""
    if width is None:
        low, high = interval80(scenario, step.duration_s)
    else:
        low, high = step.duration_s / (1.0 + width), step.duration_s * (1.0 + width)
    return replace(step, low80_s=low, high80_s=high)


def why_wide(scenario: Scenario) -> str:
    """Say in one line what makes an interval wide, each reason with its share.

    Shares are of the squares and add up to the width: 34 %: stack 22, device 12. What is worth less
    than half a percent is left out.
    """
    found = reasons(scenario)
    width = half_width(scenario)
    squares = math.fsum(reason.width**2 for reason in found)
    worth = [(r.words, 100 * width * r.width**2 / squares) for r in found]
    shares = ", ".join(f"{words} {share:.0f}" for words, share in worth if share >= 0.5)
    return f"step +-{100 * width:.0f} %: {shares}"


def _reason(name: str, scenario: Scenario, pool: Pool, width: float) -> Reason:
    device = pool.node.device.title
    kind = kind_of(scenario, pool)
    runs = published_runs().get(kind, 0)
    of = {"dense": "dense models", "experts": "mixtures of experts", "adapters": "adapters"}
    asked = f"{of[kind.split('/')[2]]} in {scenario.training.precision} on {device}"
    words = {
        "cluster": "no cluster is like another",
        "stack": f"stack {pool.stack.name} not recognised",
        "device": f"{asked} never published",
        "few": f"{asked} published {runs} times",
        "early": f"software of {pool.stack.released[:4]}",
        "short": f"layers of {1e3 * layer_seconds(scenario, pool):.1g} ms, which hosts hold up",
        "unmeasured": f"no measured training run of {device} was published",
        "experts": "mixtures of experts",
        "adapters": "adapters",
        "long": f"sequences of {scenario.training.sequence_length:,}",
    }[name]
    return Reason(name, words, width)
