"""What every rank sends and computes in a step, held against tables written by hand."""

from __future__ import annotations

import pytest

from tests.ops_tables import (
    ASPECT_OF,
    ASPECTS,
    SAME,
    Layout,
    found_flops,
    found_rows,
    in_all,
    merged,
    operations,
)
from tests.ops_tables_dense import DENSE
from tests.ops_tables_experts import EXPERT_LAYOUTS

LAYOUTS = {layout.name: layout for layout in (make() for make in (*DENSE, *EXPERT_LAYOUTS))}
AGAIN = "sequence parallelism's second gather of inputs"
BUCKETS = "buckets of gradients and weights"
RING = "ring attention by messages from neighbour to neighbour"
KEPT = "what is kept from the forward pass for the backward pass that follows at once"
SHARED = "tied vocabulary once on one stage, and summed between two"
NOT_YET = {
    ("megatron tp sp", "tensor"): AGAIN,
    ("megatron tp sp", "weights"): BUCKETS,
    ("megatron ring", "context"): RING,
    ("deepspeed ulysses", "context"): "Ulysses",
    ("deepspeed ulysses", "weights"): f"DeepSpeed's all-reduce; {SHARED}",
    ("megatron mla", "tensor"): f"latents are gathered; {AGAIN}",
    ("megatron mla", "weights"): "down-projections are whole on each rank",
    ("megatron mla", "flops"): "down-projections run on the rank's own tokens",
    ("megatron 1f1b", "tensor"): AGAIN,
    ("megatron 1f1b", "weights"): SHARED,
    ("megatron interleaved", "weights"): BUCKETS,
    ("megatron interleaved", "pipeline"): "messages are whole without sequence parallelism",
    ("fsdp2", "weights"): KEPT,
    ("hsdp", "weights"): f"the reduction over replicas; {KEPT}",
    ("deepspeed zero 1", "weights"): f"DeepSpeed's all-reduce; {SHARED}",
    ("deepspeed zero 2", "weights"): f"reduced every micro-batch; DeepSpeed's all-reduce; {SHARED}",
    ("deepspeed zero 3", "weights"): f"{KEPT}; {SHARED}",
    ("maxtext", "weights"): KEPT,
    ("mindspeed", "tensor"): AGAIN,
    ("mindspeed", "context"): RING,
    ("mindspeed", "weights"): f"{BUCKETS}; {SHARED}",
    ("lora zero 3", "weights"): f"frozen weights are gathered; {KEPT}",
    ("megatron ep folded", "tensor"): AGAIN,
    ("megatron ep folded", "weights"): BUCKETS,
    ("megatron etp", "tensor"): AGAIN,
    ("megatron etp", "experts"): "gather and scatter over the experts' tensor group",
    ("megatron etp", "weights"): BUCKETS,
    ("megatron etp", "flops"): "the router runs on the rank's own tokens",
    ("megatron ep strided", "tensor"): AGAIN,
    ("megatron ep strided", "context"): RING,
    ("megatron ep strided", "experts"): "gather and scatter over the experts' tensor group",
    ("megatron ep strided", "weights"): BUCKETS,
    ("megatron ep strided", "flops"): "the router runs on the rank's own tokens",
    ("megatron ep strided", "inside"): "expert groups that are not folded",
    ("hsdp experts", "weights"): f"experts know `shard`; the reduction over replicas; {KEPT}",
    ("dualpipe", "experts"): "the fullest rank receives more",
    ("dualpipe", "weights"): "both copies of a position are reduced together",
    ("two vendors", "tensor"): AGAIN,
    ("two vendors", "weights"): BUCKETS,
}


def cases(aspects: tuple[str, ...]) -> list[object]:
    """Every layout and aspect; those that the engine does not do yet must fail."""
    unknown = {name for name, _ in NOT_YET} - LAYOUTS.keys()
    assert not unknown
    marks = {key: pytest.mark.xfail(strict=True, reason=why) for key, why in NOT_YET.items()}
    return [pytest.param(layout, aspect, id=f"{name}-{aspect}", marks=marks.get((name, aspect), ()))
            for name, layout in LAYOUTS.items() for aspect in aspects]  # fmt: skip


@pytest.mark.parametrize(("layout", "aspect"), cases(ASPECTS))
def test_every_rank_sends_what_the_table_says(layout: Layout, aspect: str) -> None:
    for stage in range(layout.scenario.parallel.pp):
        expected = layout.sends.get(aspect, {}).get(stage, [])
        found = found_rows(layout, aspect, stage)
        if aspect in layout.in_sum:
            assert in_all(found) == pytest.approx(in_all(expected), rel=SAME), f"stage {stage}"
            continue
        want, have = list(merged(expected)), list(merged(found))
        assert [row[:4] for row in have] == [row[:4] for row in want], f"stage {stage}"
        assert [r.each for r in have] == pytest.approx([r.each for r in want], rel=SAME)


@pytest.mark.parametrize(("layout", "aspect"), cases(("flops",)))
def test_every_rank_computes_what_the_table_says(layout: Layout, aspect: str) -> None:
    for stage, expected in layout.flops.items():
        found = found_flops(layout, stage)
        assert found.keys() == expected.keys()
        for kind, flop in expected.items():
            assert found[kind] == pytest.approx(flop, rel=1e-6, abs=1.0), f"stage {stage}: {kind}"


@pytest.mark.parametrize(("layout", "aspect"), cases(("inside",)))
def test_groups_lie_where_the_table_says(layout: Layout, aspect: str) -> None:
    for kind, inside in layout.inside.items():
        rows = [r for r in operations(layout).collectives if ASPECT_OF.get(r.group) == kind]
        assert {r.inside for r in rows if r.size == max(x.size for x in rows)} == {inside}
