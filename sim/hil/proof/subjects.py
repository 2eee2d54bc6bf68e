"""The models of the proof: small transformers whose shapes no calibration has drawn, as scenarios."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ersatz.device_models.calibration.measured import Calibration, calibrated_device
from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import list_nodes, load_device, load_node, load_stack
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario, Training
from ersatz.sim.workload.model import Experts, Model


@dataclass(frozen=True, slots=True)
class Subject:
    """One model to be trained for some steps."""

    model: Model
    batch: int
    sequence: int
    precision: str = ""  # that of the proof on the backend where it is empty

    @property
    def name(self) -> str:
        """What a table calls it."""
        return f"{self.model.name} {self.batch} x {self.sequence}"


def _gpt(hidden: int, layers: int, heads: int, vocab: int) -> Model:
    return Model(f"gpt-{hidden}-{layers}", layers, hidden, heads, heads, hidden // heads, 4 * hidden,
                 vocab, gated=False)  # fmt: skip


def _llama(hidden: int, layers: int, heads: int, kv: int, inner: int, vocab: int) -> Model:
    return Model(
        f"llama-{hidden}-{layers}", layers, hidden, heads, kv, hidden // heads, inner, vocab
    )


def _moe(hidden: int, layers: int, heads: int, kv: int, vocab: int, experts: Experts) -> Model:
    return Model(f"moe-{hidden}-{layers}", layers, hidden, heads, kv, hidden // heads, 0, vocab,
                 experts=experts)  # fmt: skip


# Shapes of no calibration: they were written down, not drawn. The first two stay in a host's cache:
# what it needs to call each operation bounds their steps.
SMALL = (
    Subject(_gpt(64, 2, 2, 256), 1, 16), Subject(_llama(96, 3, 3, 3, 256, 512), 1, 24),
    Subject(_gpt(192, 3, 6, 2048), 4, 128), Subject(_gpt(256, 4, 4, 5000), 2, 256),
    Subject(_gpt(384, 4, 6, 4096), 3, 160), Subject(_gpt(448, 3, 7, 8000), 1, 512),
    Subject(_gpt(512, 3, 8, 8192), 4, 128), Subject(_gpt(640, 2, 10, 3000), 2, 192),
    Subject(_gpt(320, 6, 5, 1000), 16, 32), Subject(_llama(192, 5, 6, 6, 512, 6000), 8, 64),
    Subject(_llama(256, 4, 8, 4, 688, 4096), 4, 128), Subject(_llama(384, 3, 6, 2, 1024, 8000), 2, 256),
    Subject(_llama(512, 4, 8, 8, 1376, 4096), 1, 512), Subject(_llama(320, 5, 5, 5, 864, 6000), 6, 96),
    Subject(_llama(768, 2, 12, 4, 2048, 2000), 1, 384), Subject(_llama(576, 3, 9, 3, 1536, 7000), 3, 128),
    Subject(_moe(256, 3, 4, 4, 4096, Experts(8, 2, 352)), 4, 128),
    Subject(_moe(384, 2, 6, 3, 3000, Experts(16, 4, 192, shared=1)), 2, 256),
)  # fmt: skip
SMALLEST = (
    2  # of either list whose steps are bound by launches; of LARGE they keep no accelerator busy
)
LARGE = (
    Subject(_gpt(256, 6, 4, 8192), 2, 128), Subject(_llama(512, 8, 8, 8, 1376, 16000), 1, 256),
    Subject(_gpt(1024, 12, 16, 50304), 16, 1024), Subject(_gpt(2048, 8, 16, 50304), 8, 1024),
    Subject(_gpt(2560, 8, 20, 50304), 4, 2048), Subject(_gpt(4096, 4, 32, 50304), 4, 2048),
    Subject(_gpt(6144, 2, 48, 50304), 2, 2048), Subject(_llama(1536, 12, 12, 4, 4096, 32000), 16, 1024),
    Subject(_llama(2048, 8, 16, 8, 5632, 32000), 8, 2048),
    Subject(_llama(3072, 6, 24, 8, 8192, 32000), 4, 2048),
    Subject(_llama(4096, 4, 32, 32, 11008, 32000), 4, 2048),
    Subject(_llama(4096, 4, 32, 8, 14336, 128256), 1, 8192),
    Subject(_llama(5120, 3, 40, 8, 13824, 32000), 2, 4096),
    Subject(_llama(8192, 2, 64, 8, 28672, 32000), 1, 4096),
    Subject(_moe(2048, 4, 16, 16, 102400, Experts(64, 6, 1408, shared=2)), 2, 4096),
)  # fmt: skip


def subjects_of(backend: str) -> tuple[Subject, ...]:
    """Return the models of the proof on a backend."""
    return SMALL if backend == "cpu" else LARGE


def precision_of(backend: str) -> str:
    """Return the precision in which the proof trains."""
    return "fp32" if backend == "cpu" else "bf16"


def some_subjects(backend: str, count: int) -> tuple[Subject, ...]:
    """Return `count` models of the proof: the two small ones first, the others spread over the rest."""
    known = subjects_of(backend)
    if count >= len(known):
        return known
    first = min(SMALLEST if count > SMALLEST else 1, count)
    small, rest = known[:first], known[first:]
    left = count - first
    places = {round(i * (len(rest) - 1) / max(left - 1, 1)) for i in range(left)}
    return (*small, *(rest[place] for place in sorted(places)))


def single_node(calibration: Calibration) -> Node:
    """Return a node with one device, the calibrated one."""
    name = calibration.origin.device
    device = calibrated_device(load_device(name), calibration)
    nodes = (load_node(node) for node in list_nodes())
    node = next((n for n in nodes if n.device.name == name), load_node("cpu-1"))
    return replace(node, device=device, devices=1, nics=min(node.nics, 1))


def scenario_of(subject: Subject, node: Node, precision: str) -> Scenario:
    """Return the step study of one subject on one device."""
    return Scenario(
        subject.name, "", 0, subject.model, (Pool("", node, 1, load_stack("torch-eager")),),
        Training(subject.sequence, subject.batch, subject.batch, precision),  # type: ignore[arg-type]
        Parallel(zero=0, sequence_parallel=False),
    )  # fmt: skip
