"""Trace readers on small hand-made files, what malformed ones are told, and our own CSV and evalys'."""

import gzip
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ersatz.device_models.text.names import NAME
from ersatz.device_models.text.problems import InputError
from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.doors.evalys import jobs_text
from ersatz.sim.fleet.engine.fleet import FleetSpec, run_fleet
from ersatz.sim.fleet.foreign import read_fleet
from ersatz.sim.fleet.policies.queue import QueueScheduler
from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces import READERS, kind_of, read_trace
from ersatz.sim.fleet.workload.traces.own import workload_text
from ersatz.sim.fleet.workload.traces.profiled import (
    find_throughputs,
    gavel_speed,
    read_throughputs,
)
from ersatz.sim.fleet.workload.traces.rows import FOREVER_S
from ersatz.sim.fleet.workload.traces.tiresias import read_tiresias_cluster

PHILLY = """timestamp,duration,num_gpus,gpu_time,cluster
2017-10-09 07:01:55,66.0,1,66.0,11cb48
2017-10-09 07:01:25,30.5,16,488.0,6214e9
2017-10-09 07:02:00,30.5,0,0.0,6214e9
"""
PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
pod-0,12000,16384,1,460,,LS,Running,10,100,30
pod-1,6000,12288,8,1000,V100M16|V100M32,BE,Pending,40,90,
"""  # noqa: E501
HELIOS = """job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue
11,uX,vcA,1,1,1,COMPLETED,2020-06-09 18:41:01,2020-06-09 18:41:01,2020-06-10 04:55:09,36848,0
12,uV,vcB,4,16,1,FAILED,2020-06-09 18:41:27,2020-06-09 18:41:27,2020-06-09 18:45:36,249,0
13,uV,vcB,0,16,1,FAILED,2020-06-09 18:41:28,2020-06-09 18:41:28,2020-06-09 18:45:36,248,0
"""
ACME = """job_id,user,node_num,gpu_num,cpu_num,type,state,submit_time,start_time,end_time,duration,queue,gpu_time
7,u5,1,8,128,Other,FAILED,2023-03-01 00:18:22+08:00,2023-03-01 00:18:54+08:00,,117,32,936.0
8,u5,128,1024,128,Pretrain,COMPLETED,2023-02-28 16:23:58+00:00,,,2693,13,21544.0
"""  # noqa: E501
SIA = """name,time,application,num_replicas,batch_size
cifar10-0,107,cifar10,2,2048
bert-1,110,bert,4,320
"""
TIRESIAS = """job_id,num_gpu,submit_time,iterations,model_name,duration,interval
0,1,0,606,vgg19,164,30
1,8,30,133,vgg11,147,23
"""
SWF = """; Version: 2.2
; UnixStartTime: 0

  1   5 10  100  -1 -1 -1  16  300 -1 1 3 1 -1 -1 1 -1 -1
  2   7 10   50   4 -1 -1  16   -1 -1 1 -1 1 -1 -1 1 -1 -1 {more} fields
  3   8 10   -1   4 -1 -1  16   -1 -1 0 3 1 -1 -1 1 -1 -1
"""
OWN = """id,submit_s,devices,duration_s,tenant,types,priority,walltime_s,mixed
a,0,8,100,t1,h800|h20,-2,200,yes
b,5,16,50,,,,,no
"""
BATSIM = json.dumps({
    "nb_res": 4,
    "jobs": [{"id": 1, "subtime": 2.5, "walltime": 20, "res": 2, "profile": "d"},
             {"id": "two", "subtime": 4.5, "res": 1, "profile": "d"}],
    "profiles": {"d": {"type": "delay", "delay": 10.5}},
})  # fmt: skip
PHILLY_JSON = json.dumps([
    {"status": "Pass", "vc": "ee9e8c", "jobid": "app_1", "user": "c",
     "submitted_time": "2017-10-07 01:11:39",
     "attempts": [
         {"start_time": "2017-10-07 01:12:00", "end_time": "2017-10-07 01:13:00",
          "detail": [{"ip": "m1", "gpus": ["gpu0", "gpu1"]}, {"ip": "m2", "gpus": ["gpu0"]}]},
         {"start_time": "2017-10-07 01:14:00", "end_time": "2017-10-07 01:14:30",
          "detail": [{"ip": "m1", "gpus": ["gpu0", "gpu1"]}, {"ip": "m2", "gpus": ["gpu0"]}]},
         {"start_time": "2017-10-07 01:15:00", "end_time": "None", "detail": []},
     ]},
    {"status": "Killed", "vc": "x", "jobid": "app_2", "submitted_time": "2017-10-07 01:11:39",
     "attempts": []},
])  # fmt: skip
GAVEL = "LM (batch size 5)\tpython3 x\t-n\t1\t600\t{}\t2\nLM (batch size 5)\tx\t-n\t1\t600\t9\t7\n"
RATES = {"v100": {"('LM (batch size 5)', 2)": {"null": 3.0}, "('LM (batch size 5)', 1)": {"null": 2.0}},
         "k80": {"('LM (batch size 5)', 2)": {"null": 1.5}},
         "k80_unconsolidated": {"('LM (batch size 5)', 2)": {"null": 0.75}}}  # fmt: skip


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def jobs(path: Path) -> list[tuple[object, ...]]:
    """Return what matters of each job: id, submission, devices, run time, tenant."""
    return [(j.id, j.submit_s, j.devices, j.duration_s, j.tenant) for j in read_trace(path).jobs]


def test_philly_csv(tmp_path: Path) -> None:
    # sorted by submission, the first at 0; the job without a device is left out, and that is said
    path = write(tmp_path, "philly.csv", PHILLY)
    assert jobs(path) == [("2", 0.0, 16, 30.5, "6214e9"), ("1", 30.0, 1, 66.0, "11cb48")]
    assert "1 rows left out" in read_trace(path).source


def test_philly_json_adds_its_attempts_up(tmp_path: Path) -> None:
    # 60 s and 30 s on 3 devices; the attempt without an end and the job without attempts do not count
    assert jobs(write(tmp_path, "cluster_job_log", PHILLY_JSON)) == [
        ("app_1", 0.0, 3, 90.0, "ee9e8c")
    ]


def test_openb_pods(tmp_path: Path) -> None:
    # it ran from 30 to 100 s; the one that never ran counts from its creation to its end
    first, second = read_trace(write(tmp_path, "pods.csv", PODS)).jobs
    assert (first.submit_s, first.duration_s, first.milli) == (0.0, 70.0, 460)
    assert (first.cpu_milli, first.memory_mib, first.types) == (12000, 16384, ())
    assert (second.submit_s, second.duration_s, second.devices) == (30.0, 50.0, 8)
    assert (second.milli, second.types) == (1000, ("V100M16", "V100M32"))


def test_openb_pods_without_times_stay_for_ever(tmp_path: Path) -> None:
    text = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,2,1,1000\nb,1,2,1,500\n"
    first, second = read_trace(write(tmp_path, "pods.csv", text)).jobs
    assert (first.submit_s, second.submit_s, second.duration_s) == (0.0, 1.0, FOREVER_S)


def test_pai_joins_its_tables(tmp_path: Path) -> None:
    # j1: 2 workers of half a device each take two whole ones, from 5 to 65 s; its ps has none.
    # j2 asks for a quarter of one; j3 has no task with a device
    write(
        tmp_path,
        "pai_job_table.csv",
        "j1,i,u1,Terminated,100.0,170.0\nj2,i,u2,Failed,90.0,99\nj3,i,u2,Failed,90.0,99\n",
    )
    write(
        tmp_path, "pai_task_table.csv",
        "j1,ps,1.0,Terminated,104,165,600.0,29.3,,\nj1,worker,2.0,Terminated,105,165,600,29.3,50,T4\n"
        "j2,tf,1.0,Failed,90,99,400.0,8.0,25.0,MISC\nj3,tf,1.0,Failed,90,99,400.0,8.0,,\n",
    )  # fmt: skip
    second, first = read_trace(tmp_path).jobs
    assert (first.id, first.submit_s, first.devices, first.duration_s) == ("j1", 10.0, 2, 60.0)
    assert (first.tenant, first.types, first.milli) == ("u1", ("T4",), 1000)
    assert (second.devices, second.milli, second.types, second.duration_s) == (1, 250, (), 9.0)
    assert (second.cpu_milli, second.memory_mib) == (4000, 8192)


def test_helios_and_acme(tmp_path: Path) -> None:
    assert jobs(write(tmp_path, "cluster_log.csv", HELIOS)) == [
        ("11", 0.0, 1, 36848.0, "vcA"), ("12", 26.0, 4, 249.0, "vcB"),
    ]  # fmt: skip
    # 16:23:58 UTC is 00:23:58 in Shanghai: 336 s after 00:18:22
    path = write(tmp_path, "trace_seren.csv", ACME)
    assert jobs(path) == [("7", 0.0, 8, 117.0, "u5"), ("8", 336.0, 1024, 2693.0, "u5")]
    assert [job.model for job in read_trace(path).jobs] == ["Other", "Pretrain"]


def test_sia_takes_work_from_the_class(tmp_path: Path) -> None:
    # small: 0.316 device-hours on 2 devices; medium: 3.16 on 4
    found = jobs(write(tmp_path, "workload-1.csv", SIA))
    assert [(i, s, n) for i, s, n, _, _ in found] == [("cifar10-0", 0.0, 2), ("bert-1", 3.0, 4)]
    assert found[0][3] == pytest.approx(0.316 * 3600 / 2)
    assert found[1][3] == pytest.approx(3.16 * 3600 / 4)
    assert "assumed" in read_trace(tmp_path / "workload-1.csv").source


def test_gavel_steps_become_seconds_of_the_reference(tmp_path: Path) -> None:
    # 600 steps at 3 a second; seven devices were never measured
    write(tmp_path, "simulation_throughputs.json", json.dumps(RATES))
    (tmp_path / "msr").mkdir()
    path = write(tmp_path / "msr", "a.trace", GAVEL.format(5.5))
    workload = read_trace(path)
    assert [(j.id, j.submit_s, j.devices, j.duration_s) for j in workload.jobs] == [
        ("1", 0.0, 2, 200.0)
    ]
    speed = gavel_speed(read_throughputs(find_throughputs(path)))
    job = workload.jobs[0]
    assert speed(job, "v100", 2, 1, 1) == 1.0
    assert speed(job, "k80", 2, 1, 1) == 0.5
    assert speed(job, "k80", 2, 2, 1) == 0.25  # apart
    assert speed(job, "p100", 2, 1, 1) == 0.0  # not measured


def test_gavel_without_its_table_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs simulation_throughputs\.json"):
        read_trace(write(tmp_path, "a.trace", GAVEL.format(5.5)))


def test_tiresias(tmp_path: Path) -> None:
    path = write(tmp_path, "60_job.csv", TIRESIAS)
    assert jobs(path) == [("0", 0.0, 1, 164.0, ""), ("1", 30.0, 8, 147.0, "")]
    spec = write(tmp_path, "n32g4.csv", "num_switch,num_node_p_switch,num_gpu_p_node,num_cpu_p_node,"
                 "mem_p_node\n2,3,4,128,256")  # fmt: skip
    cluster = read_tiresias_cluster(spec)
    assert (len(cluster.nodes), cluster.devices, cluster.leaves) == (6, 24, 2)
    assert [node.leaf for node in cluster.nodes] == [0, 0, 0, 1, 1, 1]


def test_swf(tmp_path: Path) -> None:
    # processors asked for where none are given; a limit of -1 is none; the one that never ran is out
    path = write(tmp_path, "log.swf", SWF)
    assert jobs(path) == [("1", 0.0, 16, 100.0, "user-3"), ("2", 2.0, 4, 50.0, "")]
    assert [job.walltime_s for job in read_trace(path).jobs] == [300.0, math.inf]


def test_batsim_and_gzip(tmp_path: Path) -> None:
    path = tmp_path / "w.json.gz"
    path.write_bytes(gzip.compress(BATSIM.encode()))
    assert jobs(path) == [("1", 0.0, 2, 10.5, ""), ("two", 2.0, 1, 10.5, "")]
    assert [job.walltime_s for job in read_trace(path).jobs] == [20.0, math.inf]


def test_our_own_csv(tmp_path: Path) -> None:
    assert read_trace(write(tmp_path, "mine.csv", OWN)).jobs == (
        Job("a", 0.0, 8, 100.0, tenant="t1", types=("h800", "h20"), priority=-2, walltime_s=200.0,
            mixed=True),
        Job("b", 5.0, 16, 50.0),
    )  # fmt: skip


def test_node_lists(tmp_path: Path) -> None:
    openb = write(tmp_path, "nodes.csv", "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\n"
                  "n1,96000,786432,0,\n")  # fmt: skip
    cluster = read_fleet(openb)
    assert (cluster.types, cluster.devices, cluster.nodes[1].type) == (("P100", "cpu"), 2, "cpu")
    assert cluster.nodes[0].memory_mib == 262144
    spot = write(
        tmp_path, "spot.csv", "gpu_model,gpu_capacity_num,cpu_num,node_name\nH800,8,192,7\n"
    )
    assert (read_fleet(spot).devices_of("H800"), read_fleet(spot).nodes[0].cpu_milli) == (8, 192000)
    with pytest.raises(InputError, match=r"nodes.csv:2:17: gpu: 'x' - expected a number"):
        read_fleet(
            write(tmp_path, "nodes.csv", "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,x,P\n")
        )


# -- malformed files ----------------------------------------------------------------------------------

BROKEN = {
    "a word for a number": (PHILLY.replace("66.0,1", "x,1"), r":2:21: duration: 'x' - expected a number"),
    "a negative time": (PHILLY.replace("66.0,1", "-5,1"), r":2:21: duration: '-5' - expected a number"),
    "no date": (PHILLY.replace("2017-10-09 07:01:25", "9.10."), r":3:1: timestamp: '9.10.'.*a date"),
    "a missing cell": (PHILLY.replace(",11cb48", ""), r":2:1: has 4 cells; expected 5"),
    "a missing column": (PHILLY.replace("duration", "durations"), r"duration: column is missing, did"),
    "half a device": (PHILLY.replace("66.0,1,", "66.0,1.5,"), r":2:26: num_gpus: '1.5' - expected a whole"),
    "nothing": ("", "does not tell which trace"),
    "no rows": (PHILLY.splitlines()[0] + "\n", "has no job that ran"),
    "twice the id": (TIRESIAS.replace("\n1,8", "\n0,8"), "job id '0' stands twice"),
    "an unknown model": (SIA.replace("bert,4", "gpt,4"), r":3:12: application: 'gpt' - expected one of"),
    "too few fields": (SWF.replace(" -1 -1 1 -1 -1\n  2", "\n  2"), "fields; expected 18"),
    "no profile": (BATSIM.replace('"profile": "d"', '"profile": "e"'), r":1:1: profile: 'e'"),
    "no JSON": ("{" + BATSIM, "is no JSON"),
    "a foreign column": (OWN.replace("mixed", "colour"), "columns that no job has: colour"),
    "neither yes nor no": (OWN.replace("yes", "perhaps"), r":2:30: mixed: 'perhaps' - expected yes or no"),
    "an impossible job": (OWN.replace("200,yes", "0,yes"), r":2:1: job a: expected a limit above 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_malformed_trace_is_named_with_its_line(case: str, tmp_path: Path) -> None:
    text, words = BROKEN[case]
    suffix = {"too few fields": "swf", "no profile": "json", "no JSON": "json"}.get(case, "csv")
    path = write(tmp_path, f"t.{suffix}", text)
    with pytest.raises(InputError, match=words) as caught:
        read_trace(path)
    assert str(caught.value).startswith(str(path))


def test_all_bad_rows_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", PHILLY.replace("66.0", "x").replace("30.5,16", "y,16"))
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert [problem.line for problem in caught.value.problems] == [2, 3]


def test_a_row_of_another_length_hides_no_other_fault(tmp_path: Path) -> None:
    """Five faults in five rows: each with its line and its column."""
    path = write(tmp_path, "p.csv", "id,submit_s,devices,duration_s\na,0,1\nb,x,1,5\nc,0,1.5,5\n"
                 "d,0,1,-5\na,0,0,5,9\n")  # fmt: skip
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert [(p.line, p.column) for p in caught.value.problems] == [
        (2, 1),
        (3, 3),
        (4, 5),
        (5, 7),
        (6, 1),
    ]


def test_a_log_in_latin_1_is_read_and_keeps_dependencies(tmp_path: Path) -> None:
    """Job 2 comes after job 1 (field 17); job 4 after a job that the log does not have."""
    row = "{} {} 0 60 4 -1 -1 4 {} -1 1 1 1 1 1 1 {} 0"
    lines = [row.format(1, 0, 100, -1), row.format(2, 10, 30, 1), row.format(4, 20, 100, 3)]
    path = tmp_path / "t.swf"
    path.write_bytes("; Computer: Universit\u00e9\n".encode("latin-1") + "\n".join(lines).encode())
    workload = read_trace(path)
    assert [job.after for job in workload.jobs] == [(), ("1",), ()]
    assert "1 jobs ran beyond their limits" in workload.source
    path.write_text(path.read_text("latin-1").replace(" 60 4 ", " x 4 ", 1))
    with pytest.raises(InputError, match=r"t.swf:2:7: run: 'x' - expected a number"):
        read_trace(path)


def test_what_a_log_says_of_ends_and_predecessors_is_told(tmp_path: Path) -> None:
    """Job 1 failed, job 2 was cancelled; job 3 thinks for 9 s after job 2, job 4 waits for nobody known."""
    row = "{} {} 0 60 4 -1 -1 4 100 -1 {} 1 1 1 1 1 {} {}"
    lines = [row.format(1, 0, 0, -1, -1), row.format(2, 1, 5, -1, -1), row.format(3, 2, 1, 2, 9),
             row.format(4, 3, 1, 77, 0)]  # fmt: skip
    path = tmp_path / "t.swf"
    path.write_text("\n".join(lines))
    source = read_trace(path).source
    assert "2 jobs failed or were cancelled and count for as long as they ran" in source
    assert "1 jobs name a preceding job that did not run before: they wait for none" in source
    assert "1 jobs have a think time after the preceding job" in source


def test_rows_that_are_left_out_say_why(tmp_path: Path) -> None:
    head = "instance_sn,app_name,gpu_request,creation_time,scheduled_time,deletion_time\n"
    path = write(tmp_path, "d.csv", head + "i0,app,1,,,\ni1,app,0,5,6,9\ni2,app,2,5,6,9\n")
    workload = read_trace(path)  # known by its head
    assert [(j.devices, j.submit_s, j.duration_s) for j in workload.jobs][1] == (2, 5.0, 3.0)
    assert "1 rows left out: no accelerator" in workload.source


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "b.csv").write_bytes(gzip.compress(b"hello, hello, hello")[:-12])
    for path, words in (
        (tmp_path / "a.csv", "no UTF-8"), (tmp_path / "b.csv", "broken gzip"),
        (tmp_path / "c.csv", "cannot be read"), (tmp_path / "pai_job_table.csv", "is missing"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            read_trace(path)
    with pytest.raises(InputError, match="did you mean 'philly'"):
        read_trace(tmp_path / "a.csv", "phily")


@given(st.sampled_from(sorted(set(READERS) - {"pai", "gavel"})), st.text(max_size=80))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_trace_or_bad_input(kind: str, text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError):
            read_trace(path, kind)


ENTRIES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(
        ["jobs", "profiles", "d", "type", "delay", "jobid", "vc", "attempts", "detail", "gpus",
         "submitted_time", "start_time", "id", "res", "profile"]), inner, max_size=4),
)  # fmt: skip


@given(st.sampled_from(["philly", "batsim"]), ENTRIES)
@settings(max_examples=150, deadline=None)
def test_any_json_is_a_trace_or_bad_input(kind: str, data: object) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write(
            Path(folder), "cluster_job_log" if kind == "philly" else "w.json", json.dumps(data)
        )
        with pytest.raises(InputError):
            read_trace(path, kind)


# -- writing -------------------------------------------------------------------------------------------

WORDS = st.text(
    st.characters(whitelist_categories=["Lu", "Ll", "Nd"], whitelist_characters="-_, "),
    min_size=1, max_size=8,
).map(str.strip).filter(bool)  # fmt: skip
NAMES = st.from_regex(NAME, fullmatch=True)
SECONDS = st.floats(0.0, 1e9)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    made = []
    for number in range(draw(st.integers(1, 5))):
        devices = draw(st.integers(1, 9000))
        made.append(
            Job(f"j{number}", draw(SECONDS), devices, draw(SECONDS), tenant=draw(NAMES | st.just("")),
                priority=draw(st.integers(-9, 9)), walltime_s=draw(st.floats(1.0, 1e9) | st.just(math.inf)),
                types=tuple(draw(st.lists(st.sampled_from(["h800", "ppu", "910b"]), unique=True))),
                mixed=draw(st.booleans()), max_leaves=draw(st.integers(0, 3)), model=draw(WORDS),
                min_devices=draw(st.integers(0, devices)))
        )  # fmt: skip
    made[0] = Job("first", 0.0, 1, 1.0)  # a workload that is read begins at 0
    return Workload(tuple(made))


@given(workloads())
@settings(max_examples=60, deadline=None)
def test_our_csv_gives_a_workload_back(workload: Workload) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "w.csv", workload_text(workload))
        assert kind_of(path) == "csv"
        assert read_trace(path).jobs == workload.jobs


def test_evalys_columns(tmp_path: Path) -> None:
    # a runs 0-100 s on all 16; b came at 5 s, waits for it and runs 100-150 s
    workload = read_trace(write(tmp_path, "mine.csv", "id,submit_s,devices,duration_s\n"
                                "a,0,16,100\nb,5,8,50\n"))  # fmt: skip
    log = run_fleet(FleetSpec(make_cluster(make_pool("h800", 2)), workload), QueueScheduler())
    rows = [line.split(",") for line in jobs_text(log).splitlines()]
    found = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [
        (r["job_id"], r["starting_time"], r["waiting_time"], r["finish_time"]) for r in found
    ] == [
        ("a", "0.0", "0.0", "100.0"), ("b", "100.0", "95.0", "150.0")
    ]  # fmt: skip
    assert found[1]["allocated_resources"] == "0-7"
    assert float(found[1]["stretch"]) == pytest.approx(145 / 50)


def test_deadlines_go_along_with_submissions(tmp_path: Path) -> None:
    """300 s from submission to the deadline stay 300 s when the first job is moved to 0."""
    workload = Workload((Job("a", 100, 8, 50, deadline_s=400), Job("b", 110, 8, 50)))
    jobs = read_trace(write(tmp_path, "w.csv", workload_text(workload))).by_id
    assert (jobs["a"].submit_s, jobs["a"].deadline_s) == (0, 300)
    assert (jobs["b"].submit_s, jobs["b"].deadline_s) == (10, math.inf)
