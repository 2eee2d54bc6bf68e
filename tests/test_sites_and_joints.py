"""Jobs over sites, supernodes and pools of several vendors: bytes, latencies and seats by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_cases import known_case

from ersatz.device_models.catalog.reading import load_node
from ersatz.device_models.kernels.kernel import calibrated_time
from ersatz.device_models.networks.fabric import Fault
from ersatz.device_models.networks.group import thin_copies
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.fleet.engine.speeds import StepSpeed
from ersatz.sim.fleet.workload.jobs import trace_speed
from ersatz.sim.job.conditions import plan_conditions
from ersatz.sim.plan.borders import schedule_steps, stage_borders
from ersatz.sim.plan.layout import share_of
from ersatz.sim.plan.network import placed_communicators, served_communicators
from ersatz.sim.plan.remarks import network_remarks
from ersatz.sim.plan.schedules import make_schedule
from ersatz.sim.run import run_case
from ersatz.sim.scenario.scenario import FabricSpec, Joint, Scenario
from ersatz.sim.step.bench import Bench
from ersatz.sim.step.build import stage_pools
from ersatz.sim.step.coupled import coupled_step
from ersatz.sim.step.step import job_programs, simulate_step, split_replicas, step_seconds
from ersatz.sim.step.traffic.weights import Bucket

MESSAGE = 4096 * 8192 * 2 / 8  # bytes of a micro-batch's activations on one of eight tensor ranks


def two_sites(pp: int, line: str = "12.8 Tbit/s", latency: str = "1 ms", **keys: Any) -> Scenario:
    """256 nodes, 128 a site, in a pipeline of `pp` stages (1: replicas on both sites)."""
    network = {"based_on": "two-sites-wan", "core_bandwidth": line, "core_latency_s": latency}
    cluster = {"node": "h100-8", "nodes": 256, "network": network}
    return known_case(
        256, cluster=cluster, parallel={"pp": pp}, training={"global_batch": 1024}, **keys
    )


@pytest.mark.parametrize("fabric", [None, {}])
def test_bytes_of_a_pipeline_fit_through_the_line(fabric: dict[str, Any] | None) -> None:
    # Stages 1-4 on one site, 5-8 on the other: 32 x 8 replicas' ranks send 32 micro-batches of 8.4 MB each
    # way over 100 Gbit/s. 68.7 GB take 5.5 s; 12.8 Tbit/s carry them in 43 ms.
    keys = {} if fabric is None else {"fabric": fabric}
    slow = step_seconds(two_sites(8, "100 Gbit/s", **keys))
    fast = step_seconds(two_sites(8, **keys))
    assert slow >= 256 * 32 * MESSAGE / 12.5e9
    assert fast < 3.6


@given(st.sampled_from(["50 Gbit/s", "200 Gbit/s", "1.6 Tbit/s"]), st.sampled_from([2, 4, 8]),
       st.sampled_from(["1f1b", "interleaved", "zb-v"]))  # fmt: skip
@settings(max_examples=8, deadline=None)
def test_no_line_carries_more_than_it_can(line: str, pp: int, schedule: str) -> None:
    # Each way over the middle of the pipeline: every micro-batch of every replica, for each time that
    # its chunks pass it. With interleaving the way back to the first stage passes it, too.
    case = two_sites(pp, line)
    vp = {"interleaved": 2}.get(schedule, 1)
    case = replace(case, parallel=replace(case.parallel, schedule=schedule, vp=vp))
    passes = {"1f1b": 1, "zb-v": 2, "interleaved": 2 * vp - 1}[schedule]
    rate = {"50 Gbit/s": 6.25e9, "200 Gbit/s": 25e9, "1.6 Tbit/s": 200e9}[line]
    assert step_seconds(case) >= 1024 * 8 * passes * MESSAGE / rate


def test_the_line_is_there_without_a_fabric_section_and_is_told() -> None:
    # Replicas on both sites: a ring passes the line there and back, 1 ms each, for each collective.
    near, far = step_seconds(two_sites(1, latency="0 ms")), step_seconds(two_sites(1))
    assert near < far < 4.0
    assert far == pytest.approx(step_seconds(two_sites(1, fabric={})))
    done = run_case(two_sites(1))
    assert any("the job spans 2 sites" in line and "dp" in line for line in done.assumptions)
    assert not any("sites" in line for line in run_case(known_case(4)).assumptions)


def test_a_ring_passes_the_line_twice_and_a_pipeline_at_one_border() -> None:
    case = two_sites(1)
    group = placed_communicators(case.parallel, case.pools[0], 256, None, 0)["dp"].group
    assert (group.size, group.crossings) == (256, 2)
    piped = two_sites(8, latency="10 ms")
    schedule = make_schedule("1f1b", 8, 32, 1, ())
    borders = stage_borders(piped, stage_pools(piped), schedule_steps(schedule.places))
    assert [borders[stage, stage + 1].flight_s for stage in range(7)] == [0, 0, 0, 0.01, 0, 0, 0]
    # Four micro-batches are in flight behind the border: each of 8 rounds of 32 waits 10 ms there and back,
    # and the ramp two such ways. At every border and as busy time it was 0.54 s.
    none = step_seconds(two_sites(8, latency="0 ms"))
    assert step_seconds(piped) - none == pytest.approx(8 * 0.02 + 0.04, abs=0.03)


def test_stages_on_leaves_share_the_uplinks() -> None:
    # A stage for each leaf of six nodes: 48 ranks send 8.4 MB over uplinks of 48 x 50 GB/s / 3, / 16, / 64.
    def message_s(factor: float) -> float:
        network = {"based_on": "oversubscribed-3to1", "oversubscription": factor}
        cluster = {"node": "h100-8", "nodes": 24, "network": network}
        case = known_case(24, cluster=cluster, parallel={"pp": 4}, training={"global_batch": 96})
        return MESSAGE / stage_borders(case, stage_pools(case), [(1, 2)])[1, 2].rate

    for factor in (4, 16, 64):
        assert message_s(factor) == pytest.approx(MESSAGE * factor / 50e9 / 0.94)


def rack(ep: int, **keys: Any) -> Scenario:
    """DeepSeek-V3 on eight racks of 72."""
    return known_case(8, "gb200-nvl72", model="deepseek-v3", stack="megatron-core-2025",
                      parallel={"tp": 1, "ep": ep}, training={"global_batch": 1152}, **keys)  # fmt: skip


def test_groups_that_straddle_a_rack_pay_the_network_and_are_named() -> None:
    straddling = rack(64)
    groups = placed_communicators(straddling.parallel, straddling.pools[0], 576, None, 0)
    assert (groups["ep"].group.per_node, groups["ep"].group.nodes) == (8, 2)
    # A token of the 56 in the other rack has an expert among the 8 with 1 - (7/8)^8 = 0.66: their cards
    # take in 7 x 0.66 = 4.6 copies for each of their own tokens.
    assert thin_copies(64, 8, 8) == pytest.approx(7 * (1 - (7 / 8) ** 8))
    assert step_seconds(straddling) > 1.4 * step_seconds(rack(8))
    told = [line for line in run_case(straddling).assumptions if "lie across" in line]
    assert told
    assert "64 of 72 devices" in told[0]


@given(
    st.sampled_from([("gb200-nvl72", 8), ("h100-8", 12), ("ascend-910c-8", 96), ("ascend-910a-8", 6)]),
    st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from([1, 2, 3]),
    st.sampled_from(["packed", "striped", "scattered"]), st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_run_and_fabric_name_the_same_groups(
    machines: tuple[str, int], tp: int, pp: int, cp: int, placement: str, section: bool
) -> None:
    name, nodes = machines
    devices = nodes * load_node(name).devices
    if devices % (tp * pp * cp):
        return
    spec = FabricSpec(size=nodes + 4, placement=placement) if section else None
    case = known_case(2)
    pool = replace(case.pools[0], node=load_node(name), nodes=nodes)
    layout = replace(case.parallel, tp=tp, pp=pp, cp=cp, dp=devices // (tp * pp * cp))
    run = placed_communicators(layout, pool, layout.dp, spec, 0)
    for served in served_communicators(layout, pool, layout.dp, spec, 0):
        group = run[served.name].group
        inside = group.size if group.nodes == 1 else group.per_node
        assert (served.size, served.per_domain) == (group.size, inside), served.name


def cloud(placement: str, size: int = 480) -> Scenario:
    """48 servers of a CloudMatrix, of which the fabric holds ten."""
    return known_case(48, "ascend-910c-8", stack="mindspeed", training={"global_batch": 192},
                      fabric={"size": size, "placement": placement})  # fmt: skip


def test_scattered_servers_leave_their_supernode() -> None:
    packed, scattered = cloud("packed"), cloud("scattered")
    group = placed_communicators(scattered.parallel, scattered.pools[0], 48, scattered.fabric, 0)[
        "dp"
    ].group
    assert group.nodes > 5
    assert step_seconds(scattered) > step_seconds(packed)


@given(st.sampled_from(["h100-8", "ascend-910c-8", "ascend-910b2-8"]), st.sampled_from([8, 24, 48]),
       st.integers(0, 5), st.sampled_from([1, 2]))  # fmt: skip
@settings(max_examples=8, deadline=None)
def test_scattering_is_never_faster(name: str, nodes: int, seed: int, pp: int) -> None:
    usual = known_case(nodes, name, parallel={"pp": pp}, seed=seed)
    steps = [
        step_seconds(replace(usual, fabric=FabricSpec(size=8 * nodes, placement=placement)))
        for placement in ("packed", "scattered")
    ]
    assert steps[0] <= steps[1] * (1 + 1e-12)


def leaf_of_four(placement: str, faults: list[dict[str, Any]]) -> Scenario:
    """Eight nodes on rails of leaves for four nodes with two uplinks each."""
    network = {"based_on": "ib-ndr400-rail", "leaf_nodes": 4, "uplinks": 2}
    return known_case(8, cluster={"node": "h100-8", "nodes": 8, "network": network},
                      fabric={"placement": placement, "faults": faults})  # fmt: skip


@pytest.mark.parametrize("placement", ["packed", "striped"])
@pytest.mark.parametrize("routing", ["spread", "hashed"])
@pytest.mark.parametrize(
    "faults",
    [
        [{"part": "uplink", "at": [0, n]} for n in (0, 1)],
        [{"part": "spine", "at": [n]} for n in (0, 1)],
    ],
)
def test_all_uplinks_down_is_a_cut(
    placement: str, routing: str, faults: list[dict[str, Any]]
) -> None:
    case = leaf_of_four(placement, faults)
    assert case.fabric
    with pytest.raises(InfeasibleError, match="cuts off a rank of the dp groups"):
        step_seconds(replace(case, fabric=replace(case.fabric, routing=routing)))  # type: ignore[arg-type]


def test_a_dead_card_is_a_restart_and_a_shared_neighbour() -> None:
    # One card of two nodes' sixteen: two ranks at half the rate, hardly a difference for 70 B weights.
    card = {"name": "card", "rate": "2 /day", "duration": "6 h",
            "faults": [{"part": "card", "at": [0, 0]}]}  # fmt: skip
    case = known_case(2, job={"conditions": [card]})
    whole = step_seconds(case)
    (plan,) = plan_conditions(case, whole, step_seconds)
    assert plan.restarts
    assert plan.interrupts
    assert 1.0 <= plan.slowdown < 1.3
    broken = replace(case, fabric=FabricSpec(faults=(Fault("card", (0, 0)),)))
    assert any(
        "1 network card without a live port" in line for line in run_case(broken).assumptions
    )


def pools(first: str, second: str, mixed: str = "stages", **keys: Any) -> Scenario:
    """Eight nodes of each of two kinds, as stages of one pipeline or as replicas."""
    stacks = {"ascend": "mindspeed"}
    rows = [
        {"name": name, "node": node, "nodes": 8, "stack": stacks.get(node[:6], "megatron-core")}
        for name, node in (("a", first), ("b", second))
    ]
    layout: dict[str, Any] = {"pp": 4, "stage_pools": ["a", "a", "b", "b"]}
    if mixed == "replicas":
        layout = {"tp": 1, "mixed": "replicas"}
    model = "llama3-70b" if mixed == "stages" else "llama2-7b"
    return known_case(16, cluster={"pools": rows, **keys}, parallel=layout, model=model,
                      training={"global_batch": 256})  # fmt: skip


@pytest.mark.parametrize("second", ["ascend-910b2-8", "ascend-910c-8"])
def test_a_message_between_pools_takes_the_slower_end_both_ways(second: str) -> None:
    # 8.4 MB over a card of 200 Gbit/s at 0.8 (910B), or of 400 at 0.8 (910C): never over the Unified Bus.
    case = pools("h800-8", second, joint={"path": "direct"})
    border = stage_borders(case, stage_pools(case), [(1, 2)])[1, 2]
    assert border.rate == pytest.approx({"ascend-910b2-8": 20e9, "ascend-910c-8": 40e9}[second])
    assert not border.inside
    turned = pools(second, "h800-8", joint={"path": "direct"})
    assert stage_borders(turned, stage_pools(turned), [(1, 2)])[1, 2].rate == border.rate


def test_a_joint_through_the_hosts_by_hand() -> None:
    # Eight ranks over 100 Gbit/s of a host: 1.56 GB/s each, 5.4 ms for 8.4 MB, and two copies at 20 GB/s.
    given_ = {
        "path": "host",
        "node_bandwidth": "100 Gbit/s",
        "copy_bandwidth": "20 GB/s",
        "latency": "0 s",
    }
    case = pools("h800-8", "ascend-910b2-8", joint=given_)
    border = stage_borders(case, stage_pools(case), [(1, 2)])[1, 2]
    assert MESSAGE / border.rate == pytest.approx(5.37e-3 + 2 * 0.42e-3, rel=0.01)
    # All of the joint: 4 replicas x 8 ranks share 80 Gbit/s
    narrow = pools("h800-8", "ascend-910b2-8", joint={"path": "direct", "bandwidth": "80 Gbit/s"})
    assert stage_borders(narrow, stage_pools(narrow), [(1, 2)])[1, 2].rate == pytest.approx(
        10e9 / 32
    )


def test_a_joint_that_is_not_given_is_assumed_in_words_with_its_worth() -> None:
    case = pools("h800-8", "ascend-910b2-8")
    assert case.joint
    assert case.joint.path == "host"
    said = run_case(case).assumptions
    assert any("cluster.joint.path is not given: host" in line for line in said)
    assert any("cluster.joint.path direct instead of host: a step of" in line for line in said)
    same = pools("h800-8", "h100-8")
    assert same.joint == Joint(assumed=True)
    hosts, direct = (
        stage_borders(job, stage_pools(job), [(1, 2)])[1, 2].rate
        for job in (case, replace(case, joint=Joint()))
    )
    assert hosts < direct / 10
    assert step_seconds(case) >= step_seconds(replace(case, joint=Joint()))


def test_replicas_meet_before_they_reduce() -> None:
    # The slower pool's gradients and then the slowest exchange, never each pool's own sum.
    case = pools("h800-8", "ascend-910b2-8", "replicas", joint={"path": "direct"})
    shares, programs, _ = job_programs(case, calibrated_time)
    builders = [Bench(s, s.pools[0], calibrated_time, tuple(shares)) for s in shares]
    bucket = Bucket("dp", 1e9, False, 0, 0)
    exchanges = [b.traffic.reduce(bucket)[0][1].seconds for b in builders]
    assert exchanges[0] == exchanges[1]  # the slowest network counts for all
    alone = Bench(shares[0], shares[0].pools[0], calibrated_time).traffic.reduce(bucket)
    assert exchanges[0] > alone[0][1].seconds
    times = simulate_step(case)
    bodies = [max(sum(causes.values()) for causes in times.by_stage)]
    assert times.duration_s == pytest.approx(bodies[0]) == step_seconds(case)
    narrow = replace(case, joint=Joint("direct", bandwidth=1e9))
    assert step_seconds(narrow) > step_seconds(case)
    assert len(programs) == 2


def test_an_uplink_that_is_full_is_shared() -> None:
    # Uplinks at a quarter of the cards: alone each collective fills them; together they take longer.
    network = {"based_on": "ib-ndr400-rail", "leaf_nodes": 4, "uplinks": 4, "oversubscription": 4}
    case = known_case(
        16, cluster={"node": "h100-8", "nodes": 16, "network": network}, model="qwen3-30b-a3b",
        stack="fsdp", parallel={"tp": 1, "ep": 32, "zero": 3}, training={"global_batch": 512},
        fabric={"placement": "striped", "contention": True},
    )  # fmt: skip
    _, (program,), _ = job_programs(case, calibrated_time)
    # Rings of replicas four nodes apart stay below a leaf; those of the weights cross at every hop.
    used = {
        kind: max((share for block in program.blocks.values() for op in block.ops
                   for link, share in op.uses if link == kind), default=0.0)
        for kind in ("above",)
    }  # fmt: skip
    assert used["above"] > 0.9
    alone = step_seconds(replace(case, fabric=replace(case.fabric, contention=False)))  # type: ignore[type-var]
    assert coupled_step(program) > 1.01 * alone


@pytest.mark.parametrize("name", ["h100-8", "h800-8", "ascend-910b2-8"])
def test_a_job_over_leaves_gets_less_of_a_described_network(name: str) -> None:
    # Without a section of its own the job stands side by side, where no uplink binds: the factor has to
    # act on the network's rate. Exchanged gradients of replicas on 8 nodes at a quarter of the rate.
    case = known_case(8, name, model="llama2-7b", parallel={"tp": 1, "zero": 3},
                      training={"global_batch": 64})  # fmt: skip
    assert case.pools[0].node.scale_out.leaf_nodes
    speed = StepSpeed({"m": lambda kind, devices: case}, {"m": name}, 4.0, trace_speed, {})
    assert speed.seconds("m", name, 64, spread=True) > 1.05 * speed.seconds(
        "m", name, 64, spread=False
    )


def test_replicas_of_three_pools_fill_their_own() -> None:
    # Three pools of 64 devices with 8 replicas of 8 ranks each: a group of all 24 replicas has 8 members
    # on a pool, with a stride of tp = 8; 24 x 8 ranks would not fill 64. Equal pools share equally.
    rows = [
        {"name": name, "node": "h800-8", "nodes": 8, "stack": "megatron-core"} for name in "abc"
    ]
    layout = {"tp": 8, "pp": 1, "mixed": "replicas"}
    case = known_case(24, cluster={"pools": rows}, parallel=layout, model="llama2-7b",
                      training={"global_batch": 192}, fabric={})  # fmt: skip
    assert not list(network_remarks(case))
    for pool in case.pools:
        own = share_of(case.parallel, pool, case.pools)
        served = served_communicators(own, pool, case.parallel.dp, FabricSpec(), case.seed)
        assert own.dp == {s.name: s.size for s in served}["dp"] == 8
    assert [share.training.global_batch for share in split_replicas(case)] == [64, 64, 64]
