"""What every rank sends and computes in a step, held against tables written by hand."""

from __future__ import annotations

import pytest

from tests.ops_tables import (
    ASPECT_OF,
    ASPECTS,
    EXCHANGE,
    KIND_OF,
    SAME,
    SEND,
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
NOT_YET: dict[tuple[str, str], str] = {}  # layout and aspect: why, so far


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
        found = {r.inside for r in rows if KIND_OF.get(r.kind, r.kind) in (EXCHANGE, SEND)}
        assert found == {inside}
