"""`ersatz fabric`: its report, its drawing, and what it says of networks that cannot be."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from ersatz.sim.cli.output import captured, explain
from ersatz.sim.errors import InputError
from ersatz.sim.report.fabric import fabric_record, infeasible, view_pools
from ersatz.sim.report.pictures.fabric_svg import drawings
from ersatz.sim.report.pictures.svg import BROKEN, JOB, folded
from ersatz.sim.scenario.fabric_file import describe_nodes, load_fabric_cases

ROOT = Path(__file__).resolve().parents[1]
MI300X = ROOT / "scenarios/llama3-70b-mi300x.yaml"
PLAIN = """# What joins them?
question: What joins them?
cluster: {node: h800-8, nodes: 4, network: NETWORK}
"""
OWN = "{based_on: hpn7, leaf_nodes: 2, uplinks: 4, pod_nodes: 2000}"


def file(folder: Path, network: str = OWN, more: str = "") -> Path:
    path = folder / "net.yaml"
    path.write_text(PLAIN.replace("NETWORK", network) + more)
    return path


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_fabric_cases(path, overrides)
    return [line.removeprefix(f"{path.parent}/") for line in explain(caught.value)[0]]


def test_the_answer_stands_in_the_first_five_lines(tmp_path: Path) -> None:
    """Four nodes on two leaves per rail and port: 2 x 8 x 2 = 32 leaves; 32 cards x 50 GB/s / 2."""
    text = captured(["fabric", str(file(tmp_path, OWN.replace("}", ", oversubscription: 1}")))])
    head = "\n".join(text.splitlines()[:5])
    assert "connected; bisection 800 GB/s (25 GB/s per device)" in head
    assert "no single switch cuts a card off" in head
    assert re.search(r"leaves +32 ", text)
    assert all(len(line) <= 100 for line in text.splitlines())


def test_groups_get_what_the_network_leaves_them() -> None:
    """Six nodes below a leaf of 3 : 1; data parallel over twelve leaves gets a third of a card.

    A card has 50 GB/s. Ranks 0, 8, 16, ... of a dp group sit on neighbouring nodes, so that only the
    ring's edges leave a leaf: one of six nodes' eight rings, 8 x 50 GB/s over 16 x 50 GB/s: no loss.
    Dealt over the leaves, all six nodes' rings leave it: 48 x 50 over 16 x 50 is a third each.
    """
    found = {}
    for placement in ("packed", "striped"):
        overrides = [
            "cluster.network=oversubscribed-3to1", "cluster.nodes=72", f"fabric.placement={placement}",
            "parallel.tp=8", "parallel.pp=1", "parallel.dp=72", "parallel.ep=1",
            "parallel.chunk_layers=[]", "parallel.vp=1", "parallel.schedule=1f1b",
            "training.global_batch=72",
        ]  # fmt: skip
        (case,) = load_fabric_cases(ROOT / "scenarios/llama3-405b-h100.yaml", overrides)
        (view,) = view_pools(case)
        found[placement] = {served.name: served for served in view.served}
    assert found["packed"]["tp"].place == "inside"
    assert found["packed"]["dp"].ring == pytest.approx(50e9)
    assert found["striped"]["dp"].ring == pytest.approx(50e9 / 3)
    assert found["striped"]["dp"].ideal == pytest.approx(50e9)
    assert found["striped"]["dp"].ring_link == "leaf 0 -> spines"


def test_json_counts_what_the_report_shows(tmp_path: Path) -> None:
    cases = load_fabric_cases(file(tmp_path))
    record = fabric_record(cases, [view_pools(case) for case in cases])
    network = record["pools"][0]["network"]
    assert network["counts"]["leaves"] == 32
    assert network["described"] is True
    assert record["pools"][0]["links"]["pair_bandwidth"] == 200e9
    assert json.loads(captured(["fabric", str(file(tmp_path)), "--json", "-"])) == record


@pytest.mark.parametrize(
    ("node", "nodes", "network", "fabric"),
    [
        ("h800-8", 256, "hpn7", "{faults: [{part: leaf, at: [3]}, {part: spine, at: [61]}]}"),
        ("h800-8", 5000, "hpn7", "{size: 6000}"),
        ("h800-8", 128, "ib-ndr400-rail", "{}"),
        ("h800-8", 24, "oversubscribed-3to1", "{size: 36, placement: striped}"),
        ("h800-8", 256, "multiplane-8", "{faults: [{part: uplink, at: [9, 7], left: 0.5}]}"),
        ("h800-8", 256, "two-sites-wan", "{faults: [{part: core, at: [1], left: 0.25}]}"),
        ("ascend-910c-8", 96, None, "{}"),
        ("ascend-910b2-8", 16, None, "{faults: [{part: card, at: [13, 2]}]}"),
        ("ascend-910a-8", 1, None, "{}"),
        ("gb200-nvl72", 4, None, "{}"),
        ("cpu-1", 1, None, "{}"),
    ],
)
def test_drawings_stay_inside_and_show_what_is_broken(
    node: str, nodes: int, network: str | None, fabric: str
) -> None:
    cases = describe_nodes(node, nodes, network, [f"fabric={fabric}"])
    (drawing,) = drawings(cases).values()
    root = ET.fromstring(drawing)
    width, height = (float(root.attrib[key]) for key in ("width", "height"))
    assert width == 1000
    name = "{http://www.w3.org/2000/svg}"
    for box in root.iter(f"{name}rect"):
        x, y, w, h = (float(box.attrib.get(key, 0)) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
    for word in root.iter(f"{name}text"):
        assert 0 <= float(word.attrib["x"]) <= width
        assert 0 <= float(word.attrib["y"]) <= height
    whole = "left" in fabric or "faults" not in fabric
    assert (BROKEN in drawing) == (not whole)
    assert JOB in drawing


def test_every_part_that_is_down_is_drawn() -> None:
    """However far away it is: a spine, a leaf and a card amid a thousand nodes."""
    whole = describe_nodes("h800-8", 1000, "ib-ndr400-rail")
    assert BROKEN not in next(iter(drawings(whole).values()))
    faults = "[{part: spine, at: [17]}, {part: leaf, at: [77]}, {part: card, at: [901, 3]}]"
    broken = describe_nodes("h800-8", 1000, "ib-ndr400-rail", [f"fabric.faults={faults}"])
    drawing = next(iter(drawings(broken).values()))
    for title in ("spine 17", "leaf 77", "node 901"):
        assert f"<title>{title}" in drawing


def test_folding_keeps_ends_and_what_matters() -> None:
    assert folded(3, 4) == [0, 1, 2]
    assert folded(100, 4) == [0, 1, 2, None, 99]
    assert folded(100, 4, [50]) == [0, 1, None, 50, None, 99]
    assert folded(4, 2, [2]) == [0, None, 2]


def test_infeasible_is_named_with_the_part(tmp_path: Path) -> None:
    path = file(tmp_path, "{based_on: ib-ndr400-rail, leaf_nodes: 2, uplinks: 1}")
    text = captured(["fabric", str(path), "--set", "fabric.faults=[{part: spine, at: [0]}]"])
    assert "INFEASIBLE: nodes 0-1 and nodes 2-3: no path between them (spine 0 is down)" in text
    assert text.endswith("exit status 1\n")
    assert "leaves" in text  # the whole report all the same
    cards = ", ".join(f"{{part: card, at: [1, {number}]}}" for number in range(8))
    cases = load_fabric_cases(MI300X, [f"fabric.faults=[{cards}]"])
    lines = infeasible(cases[0], view_pools(cases[0]))
    line = lines[-1]
    assert line.startswith(
        "infeasible: llama3-70b-mi300x: the network cuts off ranks of the groups dp"
    )
    assert "card 1 0 is down" in line


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("{based_on: hpn7, nic_bandwidth: 0 bit/s}", "network.nic_bandwidth: '0.0' - expected a value above"),
        ("{based_on: hpn7, nic_bandwidth: -1 Gbit/s}", "'-1 Gbit/s' - expected a value that is not negative"),
        ("{based_on: hpn7, nic_bandwidth: 100}", "'100' - has no unit"),
        ("{based_on: hpn7, leaf_node: 2}", "unknown key, did you mean 'leaf_nodes'?"),
        ("{based_on: hpn7, leaf_nodes: 0}", "cluster.network.leaf_nodes: '0' - expected a whole number"),
        ("{based_on: hpn7, oversubscription: 0.5}", "expected 1 (non-blocking) or more"),
        ("{based_on: hpn7, pod_nodes: 100}", "expected whole leaves of `leaf_nodes`"),
        ("{based_on: hpn8}", "cluster.network.based_on: 'hpn8' - no such name in the catalogue"),
        ("{kind: hypercube, based_on: hpn7}", "cluster.network.kind: 'hypercube' - expected one of rail"),
        ("hpn8", "did you mean 'hpn7'?"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be(tmp_path: Path, network: str, words: str) -> None:
    """Each fault with its line, its key and its value."""
    found = problems(file(tmp_path, network))
    assert len(found) == 1
    assert found[0].startswith("net.yaml:3:")
    assert words in found[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("fabric.size=2", "fabric.size: '2' - the job has 4 nodes"),
        ("fabric.placement=[0, 1, 2]", "3 different positions; expected one for each of 4 nodes"),
        ("fabric.placement=[0, 1, 2, 9]", "expected positions below 4"),
        ("fabric.placement=[0, 1, 2, 2]", "3 different positions"),
        ("fabric.placement=stacked", "expected packed, striped, scattered"),
        ("fabric.faults=[{part: leaf, at: [99]}]", "the fabric has (32,), from 0"),
        ("fabric.faults=[{part: leaf, at: [1, 2]}]", "expected [leaf]"),
        ("fabric.faults=[{part: tor, at: [1]}]", "fabric.faults[0].part: 'tor'"),
        ("cluster.nodes=0", "cluster.nodes: '0'"),
    ],
)
def test_places_and_parts_that_are_not_there(tmp_path: Path, override: str, words: str) -> None:
    more = "fabric: {size: 4}\n"
    assert any(words in line for line in problems(file(tmp_path, more=more), override))


def test_more_ranks_than_endpoints_is_named() -> None:
    with pytest.raises(InputError) as caught:
        load_fabric_cases(MI300X, ["parallel.dp=128"])
    assert "128 ranks do not make 64 devices" in str(caught.value)


def test_a_group_of_one_rank_needs_no_network() -> None:
    """One node alone with everything else down: nobody to talk to, nothing to cut off."""
    overrides = [
        "cluster.nodes=1",
        "parallel.dp=8",
        "training.global_batch=8",
        "fabric.faults=[{part: plane, at: [0]}]",
    ]
    (case,) = load_fabric_cases(MI300X, overrides)
    (view,) = view_pools(case)
    assert {served.place for served in view.served} == {"inside"}
    assert all(served.size > 1 for served in view.served)


def test_sites_share_the_line_between_them() -> None:
    """Two sites of 1,024 devices: 12.8 Tbit/s is 1.6 TB/s between the halves."""
    (case,) = describe_nodes("h800-8", 256, "two-sites-wan")
    (view,) = view_pools(case)
    assert view.network.bisection == pytest.approx(1.6e12)
    assert view.network.counts.core_switches == 0
    assert view.network.hops == (1, 3, 5)


def test_a_line_that_is_cut_parts_the_sites() -> None:
    cases = describe_nodes(
        "h800-8", 256, "two-sites-wan", ["fabric.faults=[{part: core, at: [1]}]"]
    )
    (line,) = infeasible(cases[0], view_pools(cases[0]))
    assert line.endswith("nodes 0-127 and nodes 128-255: no path between them (core 1 is down)")


def test_a_ring_inside_a_node(tmp_path: Path) -> None:
    """Links to the next device only: eight lines among eight discs."""
    node = tmp_path / "ring.yaml"
    node.write_text("based_on: h800-8\ntitle: Ring\nscale_up: ring-of-8\n")
    cases = describe_nodes(str(node), 2, None)
    drawing = next(iter(drawings(cases).values())).split("One node inside")[0]
    assert "a ring" in captured(["fabric", "--node", str(node), "--nodes", "2"])
    assert drawing.count("<circle") == 8
    assert drawing.split("<circle")[0].rsplit("<path", 1)[1].count("M") == 8
    links = "{value: 3, source: ASSUMED, date: 2026, confidence: assumed}"
    (tmp_path / "odd.yaml").write_text(f"based_on: ring-of-8\nlinks: {links}\n")
    other = tmp_path / "other.yaml"
    other.write_text("based_on: h800-8\nscale_up: odd.yaml\n")
    with pytest.raises(InputError, match="expected an even number"):
        describe_nodes(str(other), 2, None)


def test_a_torus_inside_a_supernode(tmp_path: Path) -> None:
    """One layer of 4 x 4 is drawn; sizes that do not multiply to the domain are named."""
    node = tmp_path / "torus.yaml"
    leaf = "{value: 64, source: S1, date: 2026, confidence: low}"
    node.write_text(f"based_on: h800-8\ndevices: {leaf}\nscale_up: torus-4x4x4\n")
    drawing = next(iter(drawings(describe_nodes(str(node), 2, None)).values()))
    assert drawing.count("<circle") == 16
    assert "one of 4 layers" in drawing
    dims = "{value: [4, 4, 2], source: ASSUMED, date: 2026, confidence: assumed}"
    (tmp_path / "odd.yaml").write_text(f"based_on: torus-4x4x4\ndims: {dims}\n")
    other = tmp_path / "other.yaml"
    other.write_text("based_on: h800-8\nscale_up: odd.yaml\n")
    with pytest.raises(InputError, match="multiply to the domain, 64"):
        describe_nodes(str(other), 2, None)
