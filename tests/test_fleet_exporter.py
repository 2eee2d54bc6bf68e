"""A simulated fleet as monitors see it: DCGM's metric names, the state of the run at every moment."""

import re
import threading
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from ersatz.device_models.catalog.power import device_power
from ersatz.device_models.catalog.reading import load_device
from ersatz.sim.errors import InputError
from ersatz.sim.fleet.cluster import Cluster, FleetNode
from ersatz.sim.fleet.doors.exporter import Moment, exporter
from ersatz.sim.fleet.log import Log, Record

FLEET = Cluster((FleetNode("a", "h800", 2), FleetNode("b", "made-up", 1)))
RUN = [
    Record(10.0, "start", 'job "one"', ((0, 0b10),)),
    Record(20.0, "down", node=1),
    Record(30.0, "finish", 'job "one"', ((0, 0b10),)),
    Record(40.0, "up", node=1),
]


def values(text: str, name: str) -> dict[tuple[str, str], float]:
    """Return the values of a metric by host and slot."""
    found = re.findall(rf'^{name}{{gpu="(\d)".*?Hostname="(\w+)".*}} ([\d.]+)$', text, re.MULTILINE)
    return {(host, slot): float(value) for slot, host, value in found}


def test_each_device_is_busy_while_its_job_runs_and_silent_while_its_node_is_down() -> None:
    """Slot 1 of a works from 10 to 30 s; b is away from 20 to 40 s."""
    moment = Moment(Log(FLEET, records=RUN))
    busy = [
        values(moment.metrics(now), "DCGM_FI_DEV_GPU_UTIL") for now in (5.0, 15.0, 25.0, 35.0, 45.0)
    ]
    assert [b["a", "1"] for b in busy] == [0, 100, 100, 0, 0]
    assert [b["a", "0"] for b in busy] == [0] * 5
    assert [("b", "0") in b for b in busy] == [True, True, False, False, True]


def test_power_is_the_catalogues_and_absent_for_what_it_does_not_know() -> None:
    power = values(Moment(Log(FLEET, records=RUN)).metrics(15.0), "DCGM_FI_DEV_POWER_USAGE")
    device = load_device("h800")
    assert power == pytest.approx(
        {("a", "0"): device_power(device, 0.0), ("a", "1"): device_power(device, 1.0)}, abs=0.05
    )


def test_labels_cannot_break_out_of_their_quotes() -> None:
    text = Moment(Log(FLEET, records=RUN)).metrics(15.0)
    assert r'pod="job \"one\""' in text
    assert all(re.fullmatch(r"#.*|\w+(\{.*\})? [\d.]+", line) for line in text.splitlines())


def test_a_scrape_gives_the_simulated_moment() -> None:
    """A clock that stands at 3 real seconds after the start, ten times as fast: 30 s, the job is over."""
    ticks = iter([100.0, 103.0])
    with exporter(Log(FLEET, records=RUN), 0, 10.0, lambda: next(ticks)) as server:
        thread = threading.Thread(target=lambda: [server.handle_request() for _ in range(2)])
        thread.start()
        place = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{place}/elsewhere", timeout=30)
        text = urlopen(f"{place}/metrics", timeout=30).read().decode()
        thread.join(30)
    assert "ersatz_simulated_seconds 30.000" in text
    assert values(text, "DCGM_FI_DEV_GPU_UTIL")["a", "1"] == 0


def test_a_port_that_cannot_be_had_is_said() -> None:
    with pytest.raises(InputError, match="cannot listen there"):
        exporter(Log(FLEET), 99_999, 1.0)
