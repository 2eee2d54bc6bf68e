"""Logs and lists of nodes that others made: read as they are, judged like ours, faults named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ersatz.sim.answers.schedule import judge_answer
from ersatz.sim.errors import InputError
from ersatz.sim.fleet.foreign import parted, read_any_log, read_fleet
from ersatz.sim.fleet.foreign.hostlist import expand
from ersatz.sim.fleet.judge.claimed import read_claims
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.log import Claims, Log
from ersatz.sim.fleet.reading.contest import load_contest

DATA = Path(__file__).parent / "data" / "batsim"
SACCT = """\
JobID|Account|Partition|Submit|Eligible|Start|End|State|Timelimit|AllocTRES|NodeList
1|a|train|D00:00:00|D00:00:00|D00:00:10|D01:00:10|COMPLETED|02:00:00|cpu=16,gres/gpu:h800=16,gres/gpu=16,node=2|n[0-1]
1.batch|a||D00:00:10|D00:00:10|D00:00:10|D01:00:10|COMPLETED||cpu=16|n0
2|b|train|D00:01:00|D00:01:00|D00:02:00|D00:12:00|NODE_FAIL|1-00:00:00|gres/gpu=8|n2
2|b|train|D00:01:00|D00:12:30|D01:00:10|D02:00:00|COMPLETED|1-00:00:00|gres/gpu=8|n2
3|b|train|D00:05:00|D00:05:00|Unknown|D00:06:00|CANCELLED|10:00|gres/gpu=4|None assigned
4|b|train|D02:00:00|D02:00:00|D02:00:01|Unknown|RUNNING|UNLIMITED|gres/gpu=4|n0
""".replace("D0", "2026-01-01T0")
SINFO = "NODELIST|CPUS|MEMORY|GRES|PARTITION\nn[0-2]|128|1000000|gpu:h800:8(S:0-1)|train*\n"


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def starts(log: Log) -> list[tuple[str, float, tuple[tuple[int, int], ...]]]:
    return [(r.job, r.time_s, r.placement) for r in log.records if r.event == "start"]


def convicted(log: Log) -> set[int]:
    return {f.number for f in judge(log).findings if f.convicts}


def test_host_lists() -> None:
    assert expand("n[08-10,12],m1") == ["n08", "n09", "n10", "n12", "m1"]
    assert expand("r[1-2]n[1-2]") == ["r1n1", "r1n2", "r2n1", "r2n2"]
    for text in ("n[3-1]", "n[a]", "n[1-9999999]", "n[1"):
        with pytest.raises(ValueError, match=r"list of nodes|more than"):
            expand(text)


def test_what_sacct_says_of_three_nodes_is_judged(tmp_path: Path) -> None:
    """Steps are no jobs, a requeued job has two attempts, a cancelled one never ran, one runs on."""
    fleet = read_fleet(write(tmp_path, "sinfo.txt", SINFO))
    assert [(n.name, n.type, n.devices) for n in fleet.nodes] == [
        (f"n{i}", "h800", 8) for i in range(3)
    ]
    found = read_any_log(write(tmp_path, "sacct.txt", SACCT), fleet=fleet)
    whole = (1 << 8) - 1
    assert starts(found.log) == [("1", 10, ((0, whole), (1, whole))), ("2", 120, ((2, whole),)),
                                 ("2", 3610, ((2, whole),)), ("4", 7201, ((0, 15),))]  # fmt: skip
    assert [(r.job, r.event) for r in found.log.records if r.event in ("fail", "abandon", "finish")] == [
        ("3", "abandon"), ("2", "fail"), ("1", "finish"), ("2", "finish")]  # fmt: skip
    assert found.log.jobs["3"].walltime_s == 600
    assert found.log.jobs["2"].walltime_s == 86400
    assert not convicted(found.log)
    assert any("checkpoints" in note for note in found.notes)


def test_an_oversubscribed_device_in_sacct_is_caught(tmp_path: Path) -> None:
    """Job 4 is moved to 00:30 on n0, of which job 1 holds all eight devices until 01:00."""
    text = SACCT.replace("4|b|train|2026-01-01T02:00:00|2026-01-01T02:00:00|2026-01-01T02:00:01",
                         "4|b|train|2026-01-01T00:20:00|2026-01-01T00:20:00|2026-01-01T00:30:00")  # fmt: skip
    path, nodes = write(tmp_path, "sacct.txt", text), write(tmp_path, "sinfo.txt", SINFO)
    answer = judge_answer(path, str(nodes))
    assert answer.reasons == ("slurm breaks the rules",)
    assert convicted(read_any_log(path, fleet=read_fleet(nodes)).log) == {1}
    # without a list of nodes n0 is as large as what it held: nothing can be said, and that is told
    found = read_any_log(path)
    assert not convicted(found.log)
    assert any("--fleet" in note for note in found.notes)


def test_attempts_of_one_job_that_overlap_are_judged_not_refused(tmp_path: Path) -> None:
    """Job 2 begins its second attempt at 00:10, while the first holds n2 until 00:12: both run at once."""
    text = SACCT.replace(
        "2026-01-01T01:00:10|2026-01-01T02:00:00", "2026-01-01T00:10:00|2026-01-01T02:00:00"
    )
    found = read_any_log(write(tmp_path, "sacct.txt", text))
    assert [(r.event, r.time_s) for r in found.log.records if r.job == "2"] == [
        ("submit", 60), ("start", 120), ("start", 600), ("fail", 720), ("finish", 7200)]  # fmt: skip
    assert convicted(found.log)


def test_every_fault_of_an_accounting_is_named_with_line_and_column(tmp_path: Path) -> None:
    text = SACCT.replace("COMPLETED|02:00:00", "DONE|02:00:00").replace(
        "10:00|gres/gpu=4", "soon|gres/gpu=4"
    )
    with pytest.raises(InputError) as caught:
        read_any_log(write(tmp_path, "sacct.txt", text))
    assert [(p.line, p.column, p.key) for p in caught.value.problems] == [
        (2, 91, "State"), (6, 89, "Timelimit")]  # fmt: skip
    with pytest.raises(InputError, match=r"n2.*is no node of the fleet"):
        read_any_log(write(tmp_path, "sacct.txt", SACCT), fleet=read_fleet(write(
            tmp_path, "sinfo.txt", SINFO.replace("n[0-2]", "n[0-1]"))))  # fmt: skip


@pytest.mark.parametrize("policy", ["easy", "conservative"])
def test_what_batsim_wrote_keeps_the_rules(policy: str) -> None:
    found = read_any_log(DATA / f"{policy}_out_jobs.csv.gz")
    assert len(starts(found.log)) == 801
    assert found.log.cluster.devices == 32
    assert not convicted(found.log)


def test_a_machine_that_batsim_gave_twice_is_caught(tmp_path: Path) -> None:
    text = gzip.decompress((DATA / "easy_out_jobs.csv.gz").read_bytes()).decode()
    rows = text.splitlines()
    rows[2] = (
        rows[2].rpartition(",")[0] + ",0-1"
    )  # machine 0 is held by the first job until 88.51 s
    assert rows[1].endswith(",0")
    assert float(rows[2].split(",")[7]) < 88
    assert convicted(read_any_log(write(tmp_path, "jobs.csv", "\n".join(rows))).log) == {1}


def pod(name: str, gpus: int, created: str, bound: str, node: str, ended: str = "", group: str = "",
        phase: str = "Succeeded") -> dict[str, object]:  # fmt: skip
    day = "2026-01-01T{}Z"
    status: dict[str, object] = {"phase": phase if ended else "Running" if bound else "Pending"}
    if bound:
        status["conditions"] = [{"type": "PodScheduled", "status": "True",
                                 "lastTransitionTime": day.format(bound)}]  # fmt: skip
    if ended:
        status["containerStatuses"] = [{"state": {"terminated": {"finishedAt": day.format(ended)}}}]
    return {"kind": "Pod", "metadata": {
        "name": name, "namespace": "team", "creationTimestamp": day.format(created),
        "labels": {"volcano.sh/job-name": group} if group else {}},
        "spec": {"nodeName": node, "containers": [{"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}]},
        "status": status}  # fmt: skip


def node(name: str, gpus: int) -> dict[str, object]:
    labels = {"nvidia.com/gpu.product": "NVIDIA-H800", "topology.kubernetes.io/zone": "z"}
    return {"kind": "Node", "metadata": {"name": name, "labels": labels},
            "status": {"allocatable": {"nvidia.com/gpu": str(gpus), "cpu": "128"}}}  # fmt: skip


def listed(folder: Path, *items: dict[str, object]) -> Path:
    return write(folder, "k8s.json", json.dumps({"kind": "List", "items": items}))


def test_pods_are_jobs_and_gangs_are_whole(tmp_path: Path) -> None:
    path = listed(
        tmp_path, node("k0", 8), node("k1", 8),
        pod("w-0", 8, "00:00:00", "00:00:05", "k0", "01:00:00", "w"),
        pod("w-1", 8, "00:00:00", "00:00:06", "k1", "01:00:00", "w"),
        pod("solo", 4, "00:10:00", "01:00:10", "k0"), pod("web", 0, "00:00:00", "00:00:01", "k0"),
    )  # fmt: skip
    found = read_any_log(path)
    assert starts(found.log) == [
        ("team.w", 6, ((0, 255), (1, 255))),
        ("team.solo", 3610, ((0, 15),)),
    ]
    assert found.log.jobs["team.w"].tenant == "team"
    assert found.log.cluster.types == ("NVIDIA-H800",)
    assert not convicted(found.log)
    assert "1 pods without devices are left out" in found.notes


def test_half_a_gang_and_a_device_given_twice_are_caught(tmp_path: Path) -> None:
    half = listed(tmp_path, node("k0", 8), node("k1", 8),
                  pod("w-0", 8, "00:00:00", "00:00:05", "k0", "02:00:00", "w"),
                  pod("w-1", 8, "00:00:00", "01:00:00", "k1", "02:00:00", "w"))  # fmt: skip
    assert convicted(read_any_log(half).log) == {2}
    twice = listed(tmp_path, node("k0", 8), pod("a", 8, "00:00:00", "00:00:05", "k0"),
                   pod("b", 1, "00:00:00", "00:30:00", "k0"))  # fmt: skip
    assert convicted(read_any_log(twice).log) == {1}


def test_an_audit_log_tells_the_same(tmp_path: Path) -> None:
    def line(at: str, verb: str, sub: str, asked: object, name: str = "a") -> dict[str, object]:
        return {"kind": "Event", "auditID": at, "stage": "ResponseComplete", "verb": verb,
                "objectRef": {"resource": "pods", "namespace": "team", "name": name, "subresource": sub},
                "requestReceivedTimestamp": f"2026-01-01T{at}.000000Z", "requestObject": asked,
                "responseStatus": {"code": 201}}  # fmt: skip

    whole = pod("a", 8, "00:00:00", "", "")
    lines = [line("00:00:00", "create", "", whole),
             line("00:00:07", "create", "binding", {"target": {"name": "k0"}}),
             line("00:30:00", "patch", "status", {"status": {"phase": "Succeeded"}})]  # fmt: skip
    path = write(tmp_path, "audit.log", "\n".join(json.dumps(one) for one in lines))
    found = read_any_log(path, fleet=read_fleet(listed(tmp_path, node("k0", 8))))
    assert starts(found.log) == [("team.a", 7, ((0, 255),))]
    assert found.log.records[-2][:2] == (1800, "finish")


def test_events_alone_do_not_say_what_pods_ask_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tells of no pod"):
        read_any_log(listed(tmp_path, {"kind": "Event", "reason": "Scheduled"}))
    with pytest.raises(InputError, match="asks for devices"):
        read_any_log(listed(tmp_path, pod("web", 0, "00:00:00", "00:00:01", "k0")))


@pytest.mark.parametrize("kind", ["sacct", "batsim", "kubernetes"])
@pytest.mark.parametrize(
    "text", ["", "{", "a|b\n1|2\n", "[[[]]]", '{"items": [1, {"kind": "Pod"}]}', "x,y\n1\n"]
)
def test_any_text_is_a_log_or_bad_input(kind: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_any_log(write(tmp_path, "log", text), kind)


def test_lists_of_nodes(tmp_path: Path) -> None:
    one = "NodeName=n0 CPUTot=128 RealMemory=1000 Gres=gpu:8 State=IDLE\nNodeName=n1 CPUTot=8 Gres=(null)\n"
    assert [n.devices for n in read_fleet(write(tmp_path, "scontrol.txt", one)).nodes] == [8, 0]
    blanks = "NODELIST CPUS MEMORY GRES\nn0 4 10+ (null)\nn1 2 10 (null)\n"
    assert read_fleet(write(tmp_path, "sinfo.txt", blanks)).devices == 6  # no GPUs: processors
    assert parted("sinfo:a:b") == ("sinfo", Path("a:b"))
    assert parted("a:b") == ("", Path("a:b"))
    for text, words in ((SINFO.replace("128", "x"), r":2:8: cpu: 'x'"), ("", "does not tell"),
                        (SINFO + "n9|1\n", r":3:1: has 2 cells; expected 5")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            read_fleet(write(tmp_path, "bad.txt", text))
    with pytest.raises(InputError, match="did you mean 'sinfo'"):
        read_fleet(tmp_path / "bad.txt", "sinf")


def test_a_scenario_runs_on_a_list_of_nodes(tmp_path: Path) -> None:
    write(tmp_path, "sinfo.txt", SINFO)
    drawn = "{{name: j, count: 3, devices: 24, every: 1 h, median: 1 h}}"
    text = "question: which?\n{}jobs: {{drawn: [" + drawn + "]}}\n"
    file = write(tmp_path, "f.yaml", text.format("nodes: sinfo:sinfo.txt\n"))
    cluster = load_contest(file).specs[0].cluster
    assert (cluster.devices, cluster.types) == (24, ("h800",))
    for nodes in ("", "nodes: sinfo.txt\npools: [{name: a, nodes: 1, devices: 8}]\n"):
        with pytest.raises(InputError, match="either pools or a list of nodes"):
            load_contest(write(tmp_path, "f.yaml", text.format(nodes)))
    with pytest.raises(InputError, match="cannot be read"):
        load_contest(write(tmp_path, "f.yaml", text.format("nodes: nowhere.txt\n")))


def test_claims_hold_a_log_to_what_its_scheduler_promises(tmp_path: Path) -> None:
    """In the log of three nodes job 2 waits from 00:01 to 00:02 for a whole idle node."""
    assert read_claims("easy, preempts=lower,wait=1 h,reclaim=10 min,conserving") == Claims(
        "easy", "lower", True, 3600.0, 600.0)  # fmt: skip
    path, nodes = write(tmp_path, "sacct.txt", SACCT), write(tmp_path, "sinfo.txt", SINFO)
    assert not judge_answer(path, str(nodes), "wait=1 h").reasons
    assert judge_answer(path, str(nodes), "wait=30 s").reasons == ("slurm breaks the rules",)
    with pytest.raises(InputError) as caught:
        read_claims("esy,wait=soon,preempts=all,easy=1")
    assert [p.expected.partition(" ")[0] for p in caught.value.problems] == ["is"] + [
        "expected"
    ] * 3


def test_a_job_of_one_partition_does_not_count_as_fitting_on_nodes_of_another(
    tmp_path: Path,
) -> None:
    """n1 idles for three hours while a job of train waits for n0: only spot was seen on n1."""
    rows = ["JobID|Account|Partition|Submit|Start|End|State|AllocTRES|NodeList",
            "1|a@x|train|D00:00:00|D00:00:00|D04:00:00|COMPLETED|gres/gpu=8|n0",
            "2_[1-3]|a@x|train|D00:10:00|D04:00:00|D05:00:00|COMPLETED|gres/gpu=8|n0",
            "3|b|spot|D00:00:00|D00:00:00|D00:30:00|COMPLETED|gres/gpu=8|n1",
            "4|b|spot|D05:00:00|D05:00:00|D05:30:00|COMPLETED|gres/gpu=8|n1"]  # fmt: skip
    found = read_any_log(
        write(tmp_path, "sacct.txt", "\n".join(rows).replace("D0", "2026-01-01T0"))
    )
    assert {job.types for job in found.log.jobs.values()} == {("node.train",), ("node.spot",)}
    assert [job.tenant for job in found.log.jobs.values()] == ["a_x", "a_x", "b", "b"]
    assert "2__1-3_" in found.log.jobs
    findings = {f.number: f.severity for f in judge(found.log).findings}
    assert findings[15] == ""  # not even worth a remark
