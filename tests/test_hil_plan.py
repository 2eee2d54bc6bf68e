"""`ersatz plan` on a Ray cluster: the same answer, and what a worker that dies leaves is priced again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("ray")

from test_plan import FEW, SMALL

from ersatz.sim.answers.plan import plan
from ersatz.sim.search.choices import choices_of, with_defaults
from ersatz.sim.search.pricing import InPlace
from ersatz.sim.search.reading import at, read_question
from ersatz.sim.search.remote import on_cluster
from ersatz.sim.search.space import make_space


def test_a_ray_cluster_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    told: list[str] = []
    answer = plan(path, ray="local", workers=2, keep=FEW, tell=told.append)
    assert answer.to_json() == plan(path, keep=FEW).to_json()
    assert not told


def test_a_worker_that_dies_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    base = at(read_question(str(path), keep=FEW), None, None)
    rows = [tuple(row) for row in make_space(base, choices_of(base), {}).rows[:12].tolist()]
    assert with_defaults(base.parallel, base.pools[0].stack) == base.parallel
    with on_cluster("local", 2, print) as make:
        pricer = make(base, "fits")
        pricer.expect(rows)
        first = pricer.price(rows[0])
        import ray

        pids = ray.get([actor.__ray_call__.remote(lambda self: os.getpid())
                        for actor in pricer._actors])  # type: ignore[attr-defined]  # fmt: skip
        os.kill(pids[0], signal.SIGKILL)
        found = [first, *(pricer.price(row) for row in rows[1:])]
        pricer.close()
    here = InPlace(base)
    assert found == [here.price(row) for row in rows]
