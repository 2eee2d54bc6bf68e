"""What a fleet file, a trace or a scheduler must not be able to do."""

from __future__ import annotations

import gzip
import os
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from ersatz.device_models.text.names import is_name
from ersatz.sim.errors import InputError
from ersatz.sim.fleet.cluster import Cluster, FleetNode, make_cluster, make_pool
from ersatz.sim.fleet.doors.slurm.config import Site, config_files
from ersatz.sim.fleet.doors.slurm.daemons import missing, running
from ersatz.sim.fleet.doors.slurm.strikes import Strike
from ersatz.sim.fleet.doors.slurm.submit import sbatch_arguments
from ersatz.sim.fleet.engine.fleet import FleetSpec, RunEndedError, run_fleet
from ersatz.sim.fleet.engine.outages import Failures
from ersatz.sim.fleet.judge.logfile import read_log
from ersatz.sim.fleet.policies.registry import make_scheduler
from ersatz.sim.fleet.reading.contest import load_contest
from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces import read_trace, rows
from tests.pace import within

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
    assert found.count("expected") == 1


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("name: h800", "name: {}", "pools[0].name"),
        ("name: j,", "name: {},", "jobs.drawn[0].name"),
    ],
)
def test_a_name_behind_which_a_number_is_set_leaves_room_for_it(
    old: str, new: str, key: str, tmp_path: Path
) -> None:
    most = load_contest(write(tmp_path, FILE.replace(old, new.format("x" * 50)))).specs[0]
    assert all(is_name(job.id) for job in most.workload.jobs)
    assert all(is_name(node.name) for node in most.cluster.nodes)
    found = faults(write(tmp_path, FILE.replace(old, new.format("x" * 51))))
    assert key in found
    assert "at most 50 letters: a number is set behind it" in found


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


@pytest.mark.skipif(bool(missing(200.0)), reason=missing(200.0))
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try as somebody else")
def test_an_emulated_slurm_hears_its_owner_alone() -> None:
    """Another user of the host finds neither its socket nor its files, and cannot submit."""
    fleet = make_cluster(make_pool("h800", 1))
    job = Job("a", 0.0, 8, 1.0)
    with running(fleet, Workload((job,)), speed=200.0) as slurm:
        folder = slurm.site.folder
        assert folder.stat().st_mode & 0o777 == 0o700
        assert slurm.call("sbatch", *sbatch_arguments(slurm.site, fleet, job)).strip() == "1"
        conf = folder.parent / f"{folder.name}.conf"  # even if he guesses what it holds
        conf.write_text(slurm.site.conf.read_text())
        try:
            told = {**slurm.environment, "SLURM_CONF": str(conf)}
            for words in (
                ["sbatch", "--wrap=true"],
                ["scontrol", "show", "job"],
                ["cat", f"{folder}/munge/key"],
            ):
                done = subprocess.run(words, env=told, user="nobody", group="nogroup", cwd="/",
                                      capture_output=True, text=True, timeout=60)  # fmt: skip
                assert done.returncode, done.stdout
        finally:
            conf.unlink()
    assert not folder.exists()


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
        ("policies: []", "8:11: policies: expected at least one"),
        ("policies: [fiffo]", "8:12: policies[0]: 'fiffo' - 'fiffo' is unknown, did you mean 'fifo'"),
        ("policies: ['easy:leaf:any:more']", "expected policy[:placement[:types]]"),
    ],
)  # fmt: skip
def test_policies_of_a_file_are_placed(line: str, words: str, tmp_path: Path) -> None:
    assert words in faults(write(tmp_path, FILE + line + "\n"))


# -- files ----------------------------------------------------------------------------------------------

HEAD = "id,submit_s,devices,duration_s\n"


def refused(path: Path, kind: str = "") -> str:
    with pytest.raises(InputError) as caught:
        read_trace(path, kind)
    return str(caught.value)


def test_a_pipe_a_device_and_a_folder_are_no_traces(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert "is no regular file" in refused(path)
        assert "is no regular file" in refused(path, "swf")
        with pytest.raises(InputError, match="is no regular file"):
            read_log(path)
    assert "Is a directory" in refused(tmp_path, "csv")


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """300 MB of one letter in 300 kB: the ratio is seen after 16 MiB, and no more is held."""
    path = tmp_path / "bomb.csv.gz"
    packed = gzip.compress(b"x" * 10_000_000)
    path.write_bytes(gzip.compress(HEAD.encode()) + 30 * packed)
    tracemalloc.start()
    assert "unpacks to more than 200 times its size" in refused(path)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 64 * 2**20


def test_a_trace_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_BYTES", 2**20)
    path = write(tmp_path, HEAD + "x" * 2**21, "t.csv")
    assert "is more than 1,048,576 bytes" in refused(path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert "unpacks to more than 1,048,576 bytes" in refused(path)


@pytest.mark.parametrize("name", ["cluster_job_log", "w.json", "simulation_throughputs.json"])
@pytest.mark.parametrize("depth", [200, 900, 985, 995, 5000, 100_000])
def test_deep_json_is_told_in_words(name: str, depth: int, tmp_path: Path) -> None:
    if name.startswith("sim"):
        write(tmp_path, "a\tb\tc\td\te\t0\t1\n", "a.trace")
    for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        path = write(tmp_path, text, name)
        assert refused(tmp_path / "a.trace" if name.startswith("sim") else path)
        for inner in (
            f'[{{"jobid": {text}, "submitted_time": {text}, "attempts": []}}]',
            f'{{"jobs": [{{"id": {text}, "profile": {text}}}], "profiles": {{"d": {text}}}}}',
        ):
            write(tmp_path, inner, name)
            assert refused(tmp_path / "a.trace" if name.startswith("sim") else path)


def test_an_id_that_stands_twice_is_named_with_both_lines_at_once(tmp_path: Path) -> None:
    """40,000 rows took 10 s, in the square of their number."""
    text = HEAD + "".join(f"{i},0,1,1\n" for i in range(40_000)) + "39999,0,1,1\n7,0,1,1\n"
    path = write(tmp_path, text, "t.csv")
    with within(3.0):
        assert refused(path).splitlines() == [
            f"{path}:40002:1: job id '39999' stands twice; first in line 40001",
            f"{path}:40003:1: job id '7' stands twice; first in line 9",
        ]
    many = tuple(Job(f"{i}", 0.0, 1, 1.0) for i in range(40_000))
    with within(2.0), pytest.raises(ValueError, match="'39999' stands twice"):
        Workload((*many, many[-1]))


@pytest.mark.parametrize(
    "cell", ["\u0663", "\u00b2", "1_000", "1e16", "nan", "inf", "-1", "9" * 400, "0x10"]
)
def test_numbers_of_traces_are_plain(cell: str, tmp_path: Path) -> None:
    for row in (f"a,{cell},1,1", f"a,0,{cell},1", f"a,0,1,{cell}"):
        assert "expected a" in refused(write(tmp_path, HEAD + row, "t.csv"))


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "a,0,1\nb,x,1,1\nb c,0,1,1\nd,0,1,1,9\n", "t.csv")
    found = refused(path).splitlines()
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in found] == ["2", "3", "4", "5"]
    assert "has 3 cells; expected 4" in found[0]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A header of an SWF log may be in any encoding; elsewhere the line is named."""
    path = tmp_path / "t.csv"
    path.write_bytes(HEAD.encode() + b"a,0,1,1\nUniversit\xe9,0,1,1\n")
    assert f"{path}:3:1: is no UTF-8 text" in refused(path)
    log = tmp_path / "t.swf"
    row = b"1 0 0 100 8 -1 -1 8 200 -1 1 3 -1 -1 -1 -1 -1 -1\n"
    log.write_bytes(b"; Universit\xe9\n" + row)
    assert [job.id for job in read_trace(log).jobs] == ["1"]
    log.write_bytes(row + row.replace(b"1 0", b"\xe9 0", 1))
    assert f"{log}:2:1: job" in refused(log)


def test_dates_beyond_the_calendar(tmp_path: Path) -> None:
    head = "timestamp,duration,num_gpus,cluster\n"
    for cell in ("0001-01-01T00:00:00+23:59", "0000-01-01", "10000-01-01", "x", "\u0663"):
        assert "t.csv:2:1: " in refused(write(tmp_path, head + f"{cell},1,1,c\n", "t.csv"))


# -- bounds ------------------------------------------------------------------------------------------------

DRAWN = "jobs.drawn[0]."
BOUNDS = [
    (f"{DRAWN}limit=[7, 2]", "expected two factors, the lower one first"),
    ("jobs.trace_limit=[7, 2]", "expected two factors, the lower one first"),
    (f"{DRAWN}sigma=8e5", "less than or equal to 10"),
    (f"{DRAWN}count=1000000000", "less than or equal to 1000000"),
    (f"{DRAWN}devices={{}}", "expected at least one"),
    ("pools=[]", "expected either pools or a list of nodes"),
    (f"{DRAWN}devices={{8: 0}}", "expected a weight above 0"),
    (f"{DRAWN}tenants={{a: 0}}", "expected a weight above 0"),
    (f"{DRAWN}min_devices=9", "expected from 9 (min_devices) to 8 (max_devices)"),
    (f"{DRAWN}max_devices=7", "expected from 8 (min_devices) to 7 (max_devices)"),
    (f"{DRAWN}every=200 years", "expected at most 100 years"),
    (f"{DRAWN}median=0 s", "expected from 1 ms"),
    (f"{DRAWN}priority=1{'0' * 30}", "less than or equal to"),
    ("pools[0].nodes=1000000", "less than or equal to 100000"),
    ("pools[0].devices=100000", "less than or equal to 1024"),
    ("draws=100000000", "less than or equal to 1000"),
    ("failures={slow_rate: 1 /day, slow_factor: 0 %}", "expected a share from 0.1 % to 100 %"),
    ("failures={node_rate: 100 /s}", "expected at most one failure a minute"),
    ("failures={node_rate: 1 /day, scale: 1e6}", "expected at most 1"),
    ("failures={repair: 0 s}", "expected from 1 s"),
    ("until=200 years", "expected at most 100 years"),
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


def test_a_job_that_fails_for_ever_does_not_run_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 nodes fail once a minute: 20 h on all of them are never done."""
    monkeypatch.setattr("ersatz.sim.fleet.engine.patience.MOST_STRIKES", 1000)
    fleet = make_cluster(make_pool("h800", 16))
    work = Workload((Job("big", 0.0, 128, 72_000.0),))
    for failures in (Failures("node", 1 / 960, 1.0), Failures("node", 1 / 960, 1e6)):
        with pytest.raises(
            RunEndedError, match=r"1,000 failures came while no job ended \(job big"
        ):
            run_fleet(FleetSpec(fleet, work, outages=(failures,)), make_scheduler("fifo"))


def test_a_run_has_as_many_failures_as_can_be_walked(tmp_path: Path) -> None:
    path = write(tmp_path, FILE)
    for failures in ("{node_rate: 1 /h}", "{slow_rate: 1 /h, slow_factor: 50 %}"):
        words = faults(path, f"failures={failures}", "until=99 years", "pools[0].nodes=16")
        assert "expected at most 100,000" in words
        assert "until: the fleet fails" in words
