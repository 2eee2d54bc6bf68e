"""What a fleet file, a trace or a scheduler must not be able to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from ersatz.device_models.text.names import is_name
from ersatz.sim.errors import InputError
from ersatz.sim.fleet.cluster import Cluster, FleetNode, make_cluster, make_pool
from ersatz.sim.fleet.doors.slurm.config import Site, config_files, sbatch_arguments
from ersatz.sim.fleet.doors.slurm.strikes import Strike
from ersatz.sim.fleet.file import load_contest
from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces import read_trace

FILE = """question: Who wins?
pools:
  - {name: h800, devices: 8, nodes: 2}
tenants: {team-a: {share: 8}}
jobs:
  drawn:
    - {name: j, count: 3, devices: 8, every: 5 min, median: 20 min, tenants: {team-a: 1}}
"""
EVIL = ["h800\nSlurmctldPrimaryOnProg=/evil.sh\n#", "a b", "a=b", "#x", "-x", ".x", "", "a/b", "../x",
        "a\\b", "a\tb", "\x1b[2J", "٣", "é", "x" * 61, "a,b", "[0-9]",
        "a:b", "a;b", "$(x)", "a\n"]  # fmt: skip


def write(folder: Path, text: str, name: str = "fleet.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def faults(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_contest(path, overrides)
    return str(caught.value)


# -- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVIL)
def test_a_name_is_a_name(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ValueError, match="expected a name"):
        Job(name, 0.0, 1, 1.0)
    for fields in ({"tenant": name or " "}, {"types": (name,)}, {"after": (name,)}):
        with pytest.raises(ValueError, match="expected a name"):
            Job("a", 0.0, 1, 1.0, **fields)  # type: ignore[arg-type]


PLACES = [
    ("name: h800", "name: {}", "pools[0].name"),
    ("tenants: {team-a: {", "tenants: {{{}: {{", "tenants"),
    ("name: j,", "name: {},", "jobs.drawn[0].name"),
    ("tenants: {team-a: 1}", "tenants: {{{}: 1}}", "jobs.drawn[0].tenants"),
    ("every:", "types: [{}], every:", "jobs.drawn[0].types[0]"),
    ("every:", "rates: {{{}: 1}}, every:", "jobs.drawn[0].rates"),
    ("jobs:", "maintenance: [{{start: 0 s, duration: 1 h, nodes: [{}]}}]\njobs:", "maintenance[0].nodes[0]"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "key"), PLACES)
def test_every_name_of_a_fleet_file_is_checked_at_its_place(
    old: str, new: str, key: str, tmp_path: Path
) -> None:
    text = FILE.replace(old, new.format('"h800\\nProlog=/evil.sh\\n#"'))
    path = write(tmp_path, text)
    found = faults(path)
    line = 1 + text[: text.index("Prolog")].count("\n")
    assert f"{path}:{line}:" in found
    assert key in found
    assert "expected a name of letters, digits" in found


def test_slurms_files_refuse_what_is_no_name() -> None:
    """The writers look again: a fleet need not come from a file."""
    site = Site(Path("x"), 20000, "host", "me")
    job = Job("a", 0.0, 8, 1.0)
    for name in EVIL:
        fleet = Cluster((FleetNode("n", name, 8),))
        with pytest.raises(InputError, match="expected a name"):
            config_files(site, fleet, Workload((job,)))
        with pytest.raises(InputError, match="expected a name"):
            sbatch_arguments(site, fleet, job)
        with pytest.raises(InputError, match="expected a name"):
            Strike(0.0, "down", 0, name).orders()
    for bad in (Site(Path("x\nProlog=/evil.sh"), 20000, "host", "me"),
                Site(Path("x"), 20000, "host\nProlog=/evil.sh", "me"),
                Site(Path("x"), 20000, "host", "me #")):  # fmt: skip
        with pytest.raises(InputError, match="cannot stand in a line"):
            config_files(bad, make_cluster(make_pool("h800", 1)), Workload((job,)))


@pytest.mark.parametrize("cell", ['"a\nProlog=/evil.sh"', "a b", "--wrap=x", "=x", "../a"])
@pytest.mark.parametrize("row", ["{},0,8,100,t,h800", "a,0,8,100,{},h800", "a,0,8,100,t,{}"])
def test_names_of_traces_are_checked(cell: str, row: str, tmp_path: Path) -> None:
    text = "id,submit_s,devices,duration_s,tenant,types\nok,0,8,100,t,h800\n" + row.format(cell)
    path = write(tmp_path, text, "t.csv")
    with pytest.raises(InputError, match="expected a name") as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}:{3 + cell.count(chr(10))}:1: job")


# -- policies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["evil.py", "./evil.py:Name", "/x/evil.py", "evil.py:"])
def test_a_fleet_file_runs_no_python(name: str, tmp_path: Path) -> None:
    write(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')", "evil.py")
    path = write(tmp_path, FILE + f"policies: [fifo, {name!r}]\n")
    found = faults(path)
    assert f"{path}:8:18: policies[1]: {name!r}" in found
    assert f"--policy {name}" in found
    assert not (tmp_path / "ran").exists()
    assert "--policy" in faults(write(tmp_path, FILE), f"policies=['{name}']")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("policies: []", "policies"),
        ("policies: [fiffo]", "8:12: policies[0]: 'fiffo' - 'fiffo' is unknown, did you mean 'fifo'"),
        ("policies: ['easy:leaf:any:more']", "expected policy[:placement[:types]]"),
    ],
)  # fmt: skip
def test_policies_of_a_file_are_placed(line: str, words: str, tmp_path: Path) -> None:
    assert words in faults(write(tmp_path, FILE + line + "\n"))


# -- bounds ------------------------------------------------------------------------------------------------

DRAWN = "jobs.drawn[0]."
BOUNDS = [
    (f"{DRAWN}limit=[7, 2]", "expected two factors, the lower one first"),
    ("jobs.trace_limit=[7, 2]", "expected two factors, the lower one first"),
    (f"{DRAWN}sigma=8e5", "less than or equal to 10"),
    (f"{DRAWN}count=1000000000", "less than or equal to 1000000"),
    (f"{DRAWN}devices={{}}", "at least 1"),
    (f"{DRAWN}devices={{8: 0}}", "expected a weight above 0"),
    (f"{DRAWN}tenants={{a: 0}}", "expected a weight above 0"),
    (f"{DRAWN}min_devices=9", "expected from 9 (min_devices) to 8 (max_devices)"),
    (f"{DRAWN}max_devices=7", "expected from 8 (min_devices) to 7 (max_devices)"),
    (f"{DRAWN}every=1e30 days", "expected at most 100 years"),
    (f"{DRAWN}median=0 s", "expected from 1 ms"),
    (f"{DRAWN}priority=1{'0' * 30}", "less than or equal to"),
    ("pools[0].nodes=1000000", "less than or equal to 100000"),
    ("pools[0].devices=100000", "less than or equal to 1024"),
    ("draws=100000000", "less than or equal to 1000"),
    ("failures={slow_rate: 1 /day, slow_factor: 0 %}", "expected a share from 0.1 % to 100 %"),
    ("failures={node_rate: 100 /s}", "expected at most one failure a minute"),
    ("failures={node_rate: 1 /day, scale: 1e6}", "expected at most 1"),
    ("failures={repair: 0 s}", "expected from 1 s"),
    ("until=1e300 days", "expected at most 100 years"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "words"), BOUNDS)
def test_quantities_of_a_fleet_have_bounds(override: str, words: str, tmp_path: Path) -> None:
    assert words in faults(write(tmp_path, FILE), override)


def test_a_load_needs_time(tmp_path: Path) -> None:
    path = write(tmp_path, FILE.replace("every: 5 min", "every: 0 s"))
    assert "it has no load per second" in faults(path, "jobs.load=0.5")


def test_two_classes_of_one_name(tmp_path: Path) -> None:
    row = FILE.splitlines()[-1]
    assert "job id 'j-0' stands twice" in faults(write(tmp_path, FILE + row + "\n"))
