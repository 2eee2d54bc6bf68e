"""Max-min fair sharing: by hand, by its definition, against textbook filling and SimGrid's solver."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ersatz.device_models.networks.sharing import (
    NO_LINK,
    Rates,
    Routes,
    completion_times,
    max_min_rates,
)


def rates(routes: list[list[int]], capacity: list[float], **more: object) -> list[float]:
    """Return the rates of routes of any length."""
    hops = max(len(route) for route in routes)
    padded = np.array([[*route, *[NO_LINK] * (hops - len(route))] for route in routes])
    return max_min_rates(padded, np.array(capacity), **more).tolist()  # type: ignore[arg-type]


def test_two_flows_on_one_link_get_half_each() -> None:
    assert rates([[0], [0]], [10.0]) == [5.0, 5.0]


def test_what_a_narrow_link_leaves_goes_to_the_others() -> None:
    # Link 0 of 10 carries A, B and C; B also crosses link 1 of 2. B gets 2, A and C share 8.
    assert rates([[0], [0, 1], [0]], [10.0, 2.0]) == pytest.approx([4.0, 2.0, 4.0])


def test_bounds_and_uses() -> None:
    # A takes at most 1 of 10; B takes the other 9.
    assert rates([[0], [0]], [10.0], bounds=np.array([1.0, np.inf])) == pytest.approx([1.0, 9.0])
    # B needs 3 units of the link per unit of rate: equal rates of 10 / (1 + 3).
    assert rates([[0], [0]], [10.0], uses=np.array([[1.0], [3.0]])) == pytest.approx([2.5, 2.5])


def test_a_dead_link_stops_its_flows_only() -> None:
    assert rates([[0, 1], [1]], [0.0, 10.0]) == pytest.approx([0.0, 10.0])


def test_a_flow_that_crosses_nothing_is_not_bound() -> None:
    assert rates([[0], [NO_LINK]], [4.0]) == [4.0, np.inf]


def test_completions_by_hand() -> None:
    # Two flows share 10 B/s. The short one (10 B) ends at 2 s, the long one (30 B) has 20 B left for
    # the whole link: 4 s.
    ends = completion_times(np.array([[0], [0]]), np.array([10.0]), np.array([10.0, 30.0]))
    assert ends.tolist() == pytest.approx([2.0, 4.0])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: rates([[3]], [1.0]), "link 3: expected -1 or one of 1 links"),
        (lambda: rates([[0]], [-1.0]), "capacity -1.0: expected 0 or more"),
        (lambda: rates([[0]], [1.0], uses=np.array([[-1.0]])), "none negative"),
        (lambda: completion_times(np.array([[0]]), np.ones(1), np.ones(1), quantum=1.0), "quantum"),
    ],
)
def test_impossible_input_is_named(wrong: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wrong()  # type: ignore[operator]


def textbook(
    routes: Routes, capacity: Rates, bounds: Rates | None = None, uses: Rates | None = None
) -> Rates:
    """Raise all rates together until a link is full or a bound is met; freeze; go on."""
    flows, hops = routes.shape
    rate = np.zeros(flows)
    active = [bool((routes[f] >= 0).any()) or bounds is not None for f in range(flows)]
    rate[[not a for a in active]] = np.inf
    left = capacity.copy()

    def use(f: int, link: int) -> float:
        return sum(1.0 if uses is None else uses[f, h] for h in range(hops) if routes[f, h] == link)

    while any(active):
        steps = {}
        for link in range(len(capacity)):
            demand = sum(use(f, link) for f in range(flows) if active[f])
            if demand > 0:
                steps["link", link] = left[link] / demand
        for f in range(flows):
            if active[f] and bounds is not None:
                steps["flow", f] = bounds[f] - rate[f]
        step = min(steps.values())
        for f in range(flows):
            if active[f]:
                rate[f] += step
                for link in range(len(capacity)):
                    left[link] -= use(f, link) * step
        for (kind, number), value in steps.items():
            if value <= step * (1 + 1e-9):
                for f in range(flows):
                    if (kind == "flow" and f == number) or (kind == "link" and use(f, number) > 0):
                        active[f] = False
    return rate


@st.composite
def platforms(draw: st.DrawFn) -> tuple[Routes, Rates]:
    links, flows, hops = draw(st.integers(1, 8)), draw(st.integers(1, 12)), draw(st.integers(1, 4))
    capacity = np.array(draw(st.lists(st.integers(1, 20), min_size=links, max_size=links)), float)
    routes = np.full((flows, hops), NO_LINK)
    for f in range(flows):
        count = draw(st.integers(1, min(hops, links)))
        chosen = draw(st.permutations(range(links)))[:count]
        routes[f, :count] = chosen
    return routes, capacity


@settings(max_examples=200, deadline=None)
@given(platforms(), st.integers(0, 2**31))
def test_equals_textbook_filling_and_every_flow_has_a_bottleneck(
    platform: tuple[Routes, Rates], seed: int
) -> None:
    routes, capacity = platform
    rng = np.random.default_rng(seed)
    bounds = rng.choice([0.5, 1.0, 3.0, 100.0], routes.shape[0])
    uses = rng.choice([0.5, 1.0, 2.0], routes.shape)
    for more in ({}, {"bounds": bounds}, {"uses": uses}, {"bounds": bounds, "uses": uses}):
        found = max_min_rates(routes, capacity, **more)
        assert found == pytest.approx(textbook(routes, capacity, **more), rel=1e-9)
        share = np.where(routes >= 0, more.get("uses", np.ones(routes.shape)), 0.0)
        load = np.bincount(
            np.where(routes < 0, 0, routes).ravel(), (share * found[:, None]).ravel(), len(capacity)
        )
        assert (load <= capacity * (1 + 1e-9)).all()
        full = load >= capacity * (1 - 1e-9)
        for f, row in enumerate(routes):
            mine = row[row >= 0]
            at_bound = "bounds" in more and found[f] >= bounds[f] * (1 - 1e-9)
            fastest = [found[(routes == link).any(axis=1)].max() for link in mine if full[link]]
            assert at_bound or any(found[f] >= f_max * (1 - 1e-9) for f_max in fastest)


@settings(max_examples=30, deadline=None)
@given(platforms(), st.sampled_from([0.0, 0.01, 0.1]), st.integers(0, 2**31))
def test_a_quantum_moves_no_end_by_more_than_its_share(
    platform: tuple[Routes, Rates], quantum: float, seed: int
) -> None:
    routes, capacity = platform
    nbytes = np.random.default_rng(seed).integers(1, 100, routes.shape[0]).astype(float)
    exact = completion_times(routes, capacity, nbytes)
    found = completion_times(routes, capacity, nbytes, quantum=quantum)
    assert found == pytest.approx(exact, rel=max(4 * quantum, 1e-9))
    assert found.max() >= (nbytes / capacity.max()).max() * (1 - 1e-12)  # rounding


def simgrid_python() -> str | None:
    """Return an interpreter that has SimGrid: this one, or the system's."""
    for python in (sys.executable, shutil.which("python3", path=os.defpath)):
        asks = [python, "-c", "import simgrid"]
        if python and subprocess.run(asks, capture_output=True, check=False).returncode == 0:  # type: ignore[arg-type]
            return python
    return None


def test_equals_simgrid_on_random_platforms() -> None:
    python = simgrid_python()
    if python is None:
        pytest.skip("SimGrid's Python package (pip: simgrid, Debian: python3-simgrid) is missing")
    rng = np.random.default_rng(7)
    cases, mine = [], []
    for _ in range(200):
        links, flows = int(rng.integers(1, 10)), int(rng.integers(1, 16))
        capacity = rng.integers(1, 50, links).astype(float) * 1e6
        routes = np.full((flows, 4), NO_LINK)
        for f in range(flows):
            count = int(rng.integers(1, min(4, links) + 1))
            routes[f, :count] = rng.permutation(links)[:count]
        rows = [[int(i) for i in row if i >= 0] for row in routes]
        cases.append({"routes": rows, "capacity": capacity.tolist()})
        mine.append(max_min_rates(routes, capacity))
    program = Path(__file__).with_name("simgrid_rates.py")
    done = subprocess.run([python, str(program)], input=json.dumps(cases), text=True,
                          capture_output=True, timeout=120, check=True)  # fmt: skip
    for found, expected in zip(json.loads(done.stdout), mine, strict=True):
        assert found == pytest.approx(expected, rel=1e-6)
