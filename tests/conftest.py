"""Lets tests import the small modules beside them; random cases are the same in every run.

`pytest --hypothesis-profile explore` draws new ones each time.
"""

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("steady")

COUNTING = "COVERAGE_PROCESS_CONFIG"  # by it, processes that a test starts are counted
SHARED = ("judged", "memory")  # fixtures of minutes: made once, by one worker


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of an expensive fixture are slow, and stay on one worker (`--dist loadgroup`)."""
    for item in items:
        for name in SHARED:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(name))
                item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(1800))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Branches are not counted in heavy tests: that doubles their time, for lines that others take."""
    if not item.get_closest_marker("heavy"):
        return (yield)
    trace, counting = sys.gettrace(), os.environ.pop(COUNTING, None)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(trace)
        if counting is not None:
            os.environ[COUNTING] = counting


def pytest_addoption(parser):
    parser.addoption(
        "--kueue-cases", metavar="PATH", help="more situations for test_kueue_cases.py"
    )


def pytest_generate_tests(metafunc):
    if "kueue_case" in metafunc.fixturenames:
        from kueue_situations import read_cases

        given = metafunc.config.getoption("--kueue-cases")
        own = Path(__file__).parent / "data" / "kueue_cases.jsonl"
        cases = [*read_cases(own), *(read_cases(Path(given)) if given else ())]
        metafunc.parametrize("kueue_case", cases, ids=[c["id"] for c in cases])
