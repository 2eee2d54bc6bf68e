"""Measured and described networks: a table made with the product's own model is found again."""

from pathlib import Path

import pytest

from ersatz.device_models.catalog.reading import load_node, load_scale_out, load_scale_up
from ersatz.device_models.networks.collectives import bus_bandwidth, collective_time
from ersatz.device_models.networks.group import group_of
from ersatz.sim.errors import InputError
from ersatz.sim.importing.formats import import_file

H100 = load_node("h100-8")


def nccl(path: Path, devices: int, slower: float, later: float, *, root: bool = True) -> Path:
    """A table of all-reduces on H100 whose large sizes take `slower`, small ones `later` times as long."""
    rows = ["# nThread 1 nGpus 1 minBytes 1024 maxBytes 8589934592", "# Using devices"]
    rows += [f"#  Rank {r:2} Group  0 Pid   {r} on host{r // 8} device  {r % 8} [0000:0f:00]"
             " NVIDIA H100 80GB HBM3"
             for r in range(devices)]  # fmt: skip
    group = group_of(H100, 1, devices)
    for power in range(10, 34):
        size = 2.0**power
        took = collective_time("all_reduce", size, group, H100).seconds * (
            slower if power > 22 else later
        )
        rate, bus = size / took / 1e9, bus_bandwidth("all_reduce", size, devices, took) / 1e9
        column = "-1  " if root else ""
        one = f"{took * 1e6:.2f} {rate:.3f} {bus:.3f} 0"
        rows.append(f"{int(size):12} {int(size / 4):10} float sum {column}{one} {one}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("root", [True, False])
def test_a_table_inside_a_node_gives_its_links(tmp_path: Path, root: bool) -> None:
    """Twice as slow at large sizes: the switch's share of the rate is half of the catalogue's."""
    found = import_file(nccl(tmp_path / "in.txt", 8, 2.0, 1.0, root=root))
    assert (found.devices, found.devices_per_node, found.format) == (8, 8, "nccl-tests")
    assert not found.questions
    (tmp_path / "links.yaml").write_text(found.text)
    links = load_scale_up(str(tmp_path / "links.yaml"))
    assert links.in_switch == pytest.approx(H100.scale_up.in_switch / 2, rel=0.02)
    assert links.latency_s == pytest.approx(H100.scale_up.latency_s, rel=0.1)
    assert "MEASURED" in links.facts["in_switch"].source


def test_a_table_over_nodes_gives_their_network(tmp_path: Path) -> None:
    """Large sizes 1.25 times as long: 0.94 / 1.25 of the cards; small ones 1.5 times as long."""
    found = import_file(nccl(tmp_path / "out.txt", 16, 1.25, 1.5))
    (tmp_path / "net.yaml").write_text(found.text)
    network = load_scale_out(str(tmp_path / "net.yaml"))
    assert network.efficiency == pytest.approx(H100.scale_out.efficiency / 1.25, rel=0.03)
    assert network.latency_s / H100.scale_out.latency_s == pytest.approx(1.5, rel=0.3)
    scenario = tmp_path / "s.yaml"
    scenario.write_text(
        "question: q\nmodel: llama3-8b\ncluster: {node: h100-8, nodes: 2, network: net.yaml}\n"
        "training: {sequence_length: 8192, global_batch: 64}\nparallel: {zero: 3}\n"
    )
    from ersatz.sim.scenario.file import load_cases

    (case,) = load_cases(scenario)
    assert case.pools[0].node.scale_out.efficiency == network.efficiency


def test_a_table_faster_than_its_machine_is_another_machine(tmp_path: Path) -> None:
    found = import_file(nccl(tmp_path / "in.txt", 8, 0.5, 1.0))
    assert any("another machine than h100-8" in words for words in found.wrong)
    assert not found.text


def test_what_a_table_does_not_say_is_asked(tmp_path: Path) -> None:
    path = nccl(tmp_path / "in.txt", 8, 1.0, 1.0)
    path.write_text(path.read_text().replace("NVIDIA H100 80GB HBM3", "Some Chip"))
    assert {q.key for q in import_file(path).questions} == {"cluster.node"}
    assert not import_file(path, ["cluster.node=h100-8"]).questions


def test_hccl_tables_lack_ranks_and_collective(tmp_path: Path) -> None:
    node = load_node("ascend-910b2-8")
    group = group_of(node, 1, 8)
    rows = ["the minbytes is 1024, maxbytes is 1073741824, iters is 20, warmup_iters is 5",
            "data_size(Bytes): | aveg_time(us): | alg_bandwidth(GB/s): | check_result:"]  # fmt: skip
    for power in range(14, 31, 2):
        took = collective_time("all_reduce", 2.0**power, group, node).seconds
        rows.append(f"{2**power} | {took * 1e6:.2f} | {2**power / took / 1e9:.3f} | success")
    path = tmp_path / "h.txt"
    path.write_text("\n".join(rows))
    assert {q.key for q in import_file(path).questions} == {
        "cluster.node",
        "cluster.devices",
        "COLLECTIVE",
    }
    found = import_file(path, ["cluster.node=ascend-910b2-8", "cluster.devices=8"],
                        {"COLLECTIVE": "all_reduce"})  # fmt: skip
    (tmp_path / "hccs.yaml").write_text(found.text)
    links = load_scale_up(str(tmp_path / "hccs.yaml"))
    assert links.efficiency == pytest.approx(node.scale_up.efficiency, rel=0.02)


def topo(links: str, cards: int = 8) -> str:
    names = [f"GPU{i}" for i in range(8)] + [f"NIC{i}" for i in range(cards)]
    rows = ["\t" + "\t".join([*names, "CPU Affinity", "NUMA Affinity"])]
    for i, name in enumerate(names):
        cells = [
            "X" if a == name else links if a[:3] == name[:3] == "GPU" else "SYS" for a in names
        ]
        rows.append("\t".join([name, *cells, "0-47" if i < 8 else "", "0" if i < 8 else ""]))
    return "\n".join(rows) + "\n\nLegend:\n  X = Self\n"


def test_topo_is_held_against_the_machine(tmp_path: Path) -> None:
    """18 links between any two are an H100's; 8 an H800's."""
    path = tmp_path / "topo.txt"
    path.write_text(topo("NV18"))
    assert {q.key for q in import_file(path).questions} == {"cluster.node"}
    found = import_file(path, ["cluster.node=h100-8"])
    (tmp_path / "node.yaml").write_text(found.text)
    node = load_node(str(tmp_path / "node.yaml"))
    assert (node.devices, node.nics, node.device.name) == (8, 8, "h100")
    assert any(
        "h800-8 has 8" in words for words in import_file(path, ["cluster.node=h800-8"]).wrong
    )


XML = """<system version="1"><cpu numaid="0">
 <pci busid="0000:0f:00.0" class="0x030200" device="0x2330" link_speed="32.0 GT/s PCIe" link_width="16">
  <gpu dev="0" sm="90" rank="0" gdr="1">\
<nvlink target="0000:01:00.0" count="18" tclass="0x068000"/></gpu></pci>
 <nic><net name="mlx5_0" dev="0" speed="400000" latency="0.0" gdr="1"/></nic></cpu></system>
"""


def test_nccl_xml_counts_devices_links_and_cards(tmp_path: Path) -> None:
    path = tmp_path / "t.xml"
    gpu, net = XML.split(" <nic>")
    head, one = gpu.split("\n", 1)
    more = "".join(one.replace('dev="0"', f'dev="{i}"') for i in range(8))
    path.write_text(
        f"{head}{more}{''.join(' <nic>' + net.split('</cpu>')[0] for _ in range(8))}</cpu></system>"
    )
    found = import_file(path)
    assert found.devices == 8
    assert "nics: {value: 8" in import_file(path, ["cluster.node=h100-8"]).text


@pytest.mark.parametrize(
    "head",
    ['<!DOCTYPE x [<!ENTITY a "b">]>', '<!DOCTYPE x SYSTEM "file:///etc/passwd">'],
)
def test_entities_are_refused(tmp_path: Path, head: str) -> None:
    path = tmp_path / "t.xml"
    path.write_text(head + XML)
    with pytest.raises(InputError, match="never opened"):
        import_file(path)


def test_infragraph_counts_a_host(tmp_path: Path) -> None:
    path = tmp_path / "i.yaml"
    path.write_text(
        "devices:\n- name: host\n  components:\n  - {name: xpu, type: xpu, count: 8}\n"
        "  - {name: nic, type: nic, count: 8}\n"
        "- name: switch\n  components: [{name: port, type: custom, count: 64}]\n"
        "instances:\n- {name: hosts, device: host, count: 16}\n"
        "links:\n- {name: eth, bandwidth: {giga_bits_per_second: 400}}\n"
    )
    assert import_file(path).devices == 128
    found = import_file(path, ["cluster.node=h100-8"])
    assert "nics: {value: 8" in found.text
    assert "nodes: 16" in found.text
