"""What PyTorch's own sharding and pipelines hold, by hand for the round model of `tests/test_memory.py`.

Eight layers of 16.002 M weights and two tables of 10 M; a micro-batch is 1,000 tokens, whose logits are
20 MB in 16 bits. Four replicas of two stages run eight micro-batches each where nothing else is said.
"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.plan.memory.many import ManyPeaks
from ersatz.sim.plan.memory.moments import BACKWARD, JOIN, KINDS, alive, stage_moments
from ersatz.sim.plan.memory.peaks import held_stages, stage_peaks
from ersatz.sim.plan.memory.timeline import stage_timelines
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import step_seconds
from tests.test_memory import WEIGHTS, of, planned

LAYERS, TABLE = 16.002e6, 10e6
TORCH = {"zero2_reduce": "step", "gradient_buffer": False, "master_is_weight": True,
         "pipeline_buffers": True, "keeps_results": True, "memory_fragmentation": 0.5}  # fmt: skip
VP = {"pp": 2, "vp": 2, "dp": 4, "zero": 2, "schedule": "interleaved"}


def torch(
    *, batch: int = 32, stack: dict[str, object] | None = None, **parallel: object
) -> Scenario:
    how = {"pp": 2, "dp": 4, "zero": 2} | parallel
    return planned(stack=TORCH | (stack or {}), batch=batch, **how)  # type: ignore[arg-type]


def held(scenario: Scenario, stage: int, kind: str, what: int | None = None) -> np.ndarray:
    """Bytes of a kind in all moments of a stage, or in those of one sort."""
    moments = stage_moments(scenario, stage, whole=True)
    found = alive(moments, list(held_stages(scenario))[stage][2])[:, KINDS.index(kind)]
    return found if what is None else found[moments.what == what]


def test_whole_gradients_of_a_chunk_come_with_its_first_backward_pass_and_go_with_its_last() -> (
    None
):
    """The second stage has layers 3 and 4, then 7 and 8 with the head. Its last chunk's gradients are
    first to come and first to go; both chunks' stand between, and none before the first loss."""
    first, last = 4 * 2 * LAYERS, 4 * (2 * LAYERS + TABLE)
    found = held(torch(**VP), 1, "whole gradients")
    steps = [found[0], *(b for a, b in pairwise(found) if a != b)]
    assert steps[0] == 0
    assert steps[1] == pytest.approx(last)
    assert max(steps) == pytest.approx(first + last)
    assert steps[-2] == pytest.approx(first)
    assert steps[-1] == 0


def test_they_stand_at_the_loss_of_the_second_micro_batch() -> None:
    """Gradients in fp32 of the last stage's four layers and table, and no shard of them yet."""
    found = plan_memory(torch(stack={"loss_memory_bytes": 40.0}), advise=False)
    assert found.moment.startswith("the loss, stage 1")
    assert found.parts["whole gradients"] == pytest.approx(4 * (4 * LAYERS + TABLE))
    assert found.parts["gradients"] == 0


def test_shards_and_16_bits_take_turns() -> None:
    """Whole weights of 16 bits go with the last gradients, whose shards of a quarter then stand; a
    framework whose weights are not shards of fp32 keeps them."""
    own = 4 * LAYERS + TABLE
    plan = torch()
    assert held(plan, 1, "weights")[0] == pytest.approx(2 * own)
    assert held(plan, 1, "weights", JOIN) == 0
    assert held(plan, 1, "gradients")[0] == 0
    assert held(plan, 1, "gradients", JOIN) == pytest.approx(4 * own / 4)
    assert held(torch(stack={"master_is_weight": False}), 1, "weights", JOIN) > 0


def test_results_are_joined_in_one_block_that_no_freed_one_can_serve() -> None:
    """Eight micro-batches of 20 MB are 160 MB at the end of the last stage's step: all of it more than
    the peak where the allocator caches, a tenth where segments expand."""
    assert held(torch(), 1, "joined results", JOIN) == pytest.approx(160e6)
    assert held(torch(), 0, "joined results", JOIN) == 0
    for share, lost in ((0.5, 1.0), (0.05, 0.1)):
        with_, without = (
            list(stage_peaks(torch(stack={"keeps_results": kept, "memory_fragmentation": share})))[1]
            for kept in (True, False)
        )  # fmt: skip
        moved = 0.04 * (with_.parts["activations"] - without.parts["activations"])
        more = with_.parts["fragmentation"] - without.parts["fragmentation"] - moved
        assert more == pytest.approx(lost * 160e6, rel=0.02)


def test_many_micro_batches_make_the_joining_the_peak() -> None:
    """64 of them: 1.28 GB of results, and as much where they are joined."""
    found = plan_memory(torch(batch=256), advise=False)
    assert found.moment.startswith("the joining of results, stage 1")
    assert found.parts["joined results"] == pytest.approx(64 * 20e6)


def test_gradients_of_a_layer_stand_beside_the_buffer_of_the_one_before() -> None:
    """Of the table, the largest unit, 4 bytes in the buffer that is scattered and 2 of autograd's."""
    plain, copied = (
        of(stack={"loss_memory_bytes": 1.0, "scatters_copies": copies}, zero=3).parts["whole gradients"]
        for copies in (False, True)
    )  # fmt: skip
    assert plain == pytest.approx(4 * LAYERS)
    assert copied == pytest.approx(6 * LAYERS)


def test_beside_sums_of_a_pipeline_stand_the_gradients_of_one_layer() -> None:
    assert held(torch(), 0, "fresh gradients", BACKWARD).max() == pytest.approx(2 * LAYERS)


def test_a_pipeline_sums_whole_gradients_with_zero_3_too() -> None:
    """As much as with ZeRO 2, and a stage's weights stand whole in 16 bits beside shards in fp32."""
    two, three = torch(), torch(zero=3)
    assert held(three, 1, "whole gradients").max() == held(two, 1, "whole gradients").max()
    own = 4 * LAYERS + TABLE
    assert held(three, 1, "weights")[0] == pytest.approx(4 * own / 4)
    assert held(three, 1, "gathered weights")[0] == pytest.approx(2 * own)
    each = replace(three, pools=torch(stack={"zero2_reduce": "micro-batch"}).pools)
    assert step_seconds(three) < step_seconds(each)


def test_without_a_pipeline_every_micro_batch_scatters() -> None:
    """Nothing sums to the end of the step there: no more than a layer's gradients stand whole, and a
    step of eight micro-batches reduces eight times."""
    alone = torch(pp=1, dp=8, batch=64)
    assert held(alone, 0, "whole gradients").max() == pytest.approx(4 * LAYERS)
    assert 8 * held(alone, 0, "whole gradients").max() < 4 * WEIGHTS
    each = replace(alone, pools=torch(pp=1, dp=8, stack={"zero2_reduce": "micro-batch"}).pools)
    assert step_seconds(alone) == step_seconds(each)


@pytest.mark.parametrize("how", [{}, VP, VP | {"schedule": "zb-v"}, {"schedule": "gpipe"}])
def test_many_layouts_at_once_say_the_same(how: dict[str, object]) -> None:
    plan = torch(**how)
    assert ManyPeaks(plan.pools[0]).of(plan) == [peak.total for peak in stage_peaks(plan)]


def test_a_timeline_ends_with_the_joining() -> None:
    assert stage_timelines(torch(), [1])[0].words[-2].startswith("the joining of results")


def test_pools_of_captured_graphs_hold_a_share_of_the_most_activations() -> None:
    """Two micro-batches of four layers of 40 MB in flight: a fifth of 320 MB, all through the step; a
    pool of a stated size stands instead."""
    for stack, pool in (
        ({"graph_share": 0.2}, 64e6),
        ({"graph_share": 0.2, "graph_pool_bytes": 5e6}, 5e6),
    ):
        scenario = torch(stack=stack)
        assert held(scenario, 0, "graphs") == pytest.approx(pool)
        assert ManyPeaks(scenario.pools[0]).of(scenario) == [p.total for p in stage_peaks(scenario)]


def test_deepspeed_has_one_bucket_that_stands_and_copies_into_it() -> None:
    """A bucket of 50 M in 16 bits beside an eighth of the gradients, and at work those of one matrix."""
    how = {"bucket_params": 50e6, "live_params": 1.0, "loss_memory_bytes": 1.0}
    apart, standing = (of(stack=how | {"bucket_stands": s}, zero=3).parts for s in (False, True))
    assert standing["gradients"] - apart["gradients"] == pytest.approx(100e6)
    assert apart["whole gradients"] == pytest.approx(100e6)
    assert standing["whole gradients"] == pytest.approx(2 * 10e6)  # of a table, the largest matrix
    assert of(stack=how | {"bucket_stands": True}, zero=0).parts["gradients"] == 4 * WEIGHTS


def test_gradients_follow_the_state_to_the_host_that_updates() -> None:
    """Half of the state with the host is half of the shards of gradients, from ZeRO 2 on; not where the
    state comes back for the update, nor where a framework copies its gradients in the end."""
    half = {"optimizer_offload": 0.5, "gradients_follow": True}
    shard = 4 * WEIGHTS / 8
    assert of(stack=half, zero=2).parts["gradients"] == pytest.approx(shard / 2)
    assert of(stack=half, zero=1).parts["gradients"] == pytest.approx(8 * shard)
    for other in ({"updates_on_device": True}, {"gradients_follow": False}):
        assert of(stack=half | other, zero=2).parts["gradients"] == pytest.approx(shard)


def test_results_may_be_dropped_and_that_is_advised(tmp_path: Path) -> None:
    """Llama 3 8B in four stages of torchtitan: logits of 16 micro-batches of 8,192 tokens are 2.1 GB each."""
    path = tmp_path / "s.yaml"
    path.write_text("""question: What?
model: llama3-8b
stack: torchtitan
cluster: {node: h100-8, nodes: 2}
training: {sequence_length: 8192, global_batch: 64}
parallel: {pp: 4, dp: 4, zero: 2, recompute: full}
""")
    kept, dropped = (load_cases(path, keys)[0] for keys in ((), ("memory.results=dropped",)))
    assert any("memory.results is not given" in words for words in kept.assumptions)
    assert not any("memory.results" in words for words in dropped.assumptions)
    logits = 16 * 8192 * 128256 * 2
    assert plan_memory(kept, advise=False).parts["joined results"] == logits
    assert plan_memory(kept).advice[0].startswith("memory.results: dropped")
    found = plan_memory(dropped, advise=False)
    assert found.parts["joined results"] == 0
    assert found.verdict == "fits"
