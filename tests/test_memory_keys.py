"""Keys of a scenario that say how tensors are kept: what they change in memory and in time, refusals."""

from pathlib import Path

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import step_seconds

GOOD = """question: What?
model: llama2-7b
stack: megatron-core
cluster: {node: h800-8, nodes: 1}
training: {sequence_length: 4096, global_batch: 8}
parallel: {dp: 8, zero: 1, recompute: full}
"""


def load(folder: Path, *keys: str) -> Scenario:
    path = folder / "s.yaml"
    path.write_text(GOOD)
    return load_cases(path, keys)[0]


def parts(folder: Path, *keys: str) -> dict[str, float]:
    return dict(plan_memory(load(folder, *keys), advise=False).parts)


@pytest.mark.parametrize(
    ("keys", "state"),
    [((), 12), (("memory.moments=bf16",), 8), (("memory.moments=8-bit",), 6),
     (("memory.master_weights=none",), 8), (("memory.master_weights=none", "memory.moments=bf16"), 4),
     (("memory.optimizer_offload=0.5",), 6)],
)  # fmt: skip
def test_bytes_of_state(tmp_path: Path, keys: tuple[str, ...], state: float) -> None:
    """A master copy of 4 bytes and two moments of 4, 2 or 1; the host keeps its share."""
    weights = parts(tmp_path)["weights"] / 2
    assert parts(tmp_path, *keys)["optimizer"] == pytest.approx(state * weights / 8)


def test_fewer_bytes_of_state_are_fewer_bytes_moved(tmp_path: Path) -> None:
    """Eight bytes less of state are 16 less of 30 that the optimiser moves, in the same step."""
    whole, small = (
        load(tmp_path),
        load(tmp_path, "memory.master_weights=none", "memory.moments=bf16"),
    )
    assert whole.pools[0].stack.optimizer_bytes_per_param == 30
    assert small.pools[0].stack.optimizer_bytes_per_param == 14
    assert step_seconds(small) < step_seconds(whole)


def test_what_the_host_keeps_the_host_updates(tmp_path: Path) -> None:
    """30 bytes of an eighth of 6.7 G weights at 15 GB/s are 1.7 s, and the report says so."""
    whole, away = load(tmp_path), load(tmp_path, "memory.optimizer_offload=1")
    more = step_seconds(away) - step_seconds(whole)
    assert more == pytest.approx(30 * whole.model.params() / 8 / 15e9, rel=0.03)
    assert any("15 GB/s" in words for words in away.assumptions)


def test_loss_gradients_allocator_and_overhead(tmp_path: Path) -> None:
    """Four bytes a logit for eight; gradients of four bytes for two."""
    plain = load(tmp_path).pools[0].stack
    assert (plain.gradient_dtype, plain.loss_memory_bytes, plain.memory_fragmentation) == (
        "bf16",
        8,
        0.5,
    )
    stack = load(tmp_path, "memory.loss=fused", "memory.loss_chunks=4", "memory.gradients=fp32",
                 "memory.allocator=expandable", "memory.overhead=3 GiB").pools[0].stack  # fmt: skip
    assert (stack.loss_memory_bytes, stack.loss_chunks, stack.gradient_dtype) == (4, 4, "fp32")
    assert (stack.memory_fragmentation, stack.memory_overhead_bytes) == (0.05, 3 * 2**30)


def test_some_layers_are_computed_again(tmp_path: Path) -> None:
    """Of 32 layers 8 take a quarter of the time that all 32 take more than none; memory lies between."""
    ways = [("parallel.recompute=none",), ("parallel.recompute_layers=8",), ()]
    none, some, full = (load(tmp_path, *way) for way in ways)
    seconds = [step_seconds(way) for way in (none, some, full)]
    assert (seconds[1] - seconds[0]) / (seconds[2] - seconds[0]) == pytest.approx(0.25, abs=0.05)
    held = [plan_memory(way, advise=False).parts["activations"] for way in (none, some, full)]
    assert held[1] == pytest.approx(0.75 * held[0] + 0.25 * held[2])


@pytest.mark.parametrize(
    ("keys", "words"),
    [(("memory.frozen_weights=4-bit",), "memory.frozen_weights: '4-bit' - llama2-7b trains all of its"),
     (("memory.moments=fp64",), "memory.moments"), (("memory.optimizer_offload=2",), "optimizer_offload"),
     (("memory.weight_offload=1",), "memory.weight_offload"),
     (("parallel.recompute=none", "parallel.recompute_layers=2"), "belongs to recompute: selective or"),
     (("parallel.recompute=selective", "parallel.recompute_group=2"), "belongs to recompute: full")],
)  # fmt: skip
def test_refusals_name_the_key(tmp_path: Path, keys: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, *keys)
    assert any(words in str(problem) for problem in caught.value.problems)
