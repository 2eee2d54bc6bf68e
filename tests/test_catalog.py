"""The catalogue: every file loads, identities hold, and each broken one is named with its place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ersatz.device_models.catalog.device import Device, Node
from ersatz.device_models.catalog.identities import device_tpp
from ersatz.device_models.catalog.reading import (
    list_devices,
    list_fabrics,
    list_nodes,
    list_stacks,
    load_device,
    load_node,
    load_scale_out,
    load_scale_up,
    load_stack,
)
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.problems import InputError
from ersatz.device_models.text.yamltext import read_yaml


@pytest.mark.parametrize("name", list_nodes())
def test_every_node_loads(name: str) -> None:
    node = load_node(name)
    assert node.devices >= 1
    assert node.device.matrix_peak


@pytest.mark.parametrize("name", list_devices())
def test_every_value_has_a_source_a_date_and_a_confidence(name: str) -> None:
    device = load_device(name)
    for fact in device.facts.values():
        assert fact.source in device.sources
        assert fact.date
        assert fact.confidence in ("high", "medium", "low", "assumed")
    assert all(fact.note for fact in device.facts.values() if fact.confidence == "assumed" and
               fact.key.startswith(("matrix_ceiling", "power", "failure")))  # fmt: skip


def test_every_stack_loads() -> None:
    assert {load_stack(name).name for name in list_stacks()} == set(list_stacks())


def test_every_fabric_is_one_of_two_kinds() -> None:
    for name in list_fabrics():
        text = (DATA / "fabrics" / f"{name}.yaml").read_text()
        load = load_scale_out if "nic_bandwidth:" in text else load_scale_up
        assert load(name).name == name


def test_all_accelerators_of_the_design_are_there() -> None:
    named = {
        "h100", "h800", "h20", "h200", "a100-40", "a100-80", "a800", "b200", "gb200", "gb300",
        "ascend-910a", "ascend-910b1", "ascend-910b2", "ascend-910b3", "ascend-910b4",
        "ascend-910c", "ascend-910c-die", "ascend-950pr", "ascend-950dt", "ppu-810e",
        "ppu-810e-197", "hanguang-800", "mi210", "mi250x", "mi250x-gcd", "mi300x", "mi308x",
        "mi325x", "mi355x", "cpu"
    }  # fmt: skip
    assert named <= set(list_devices())


@pytest.mark.parametrize(
    ("name", "tpp"),
    [("a100-80", 4992), ("h100", 15832), ("h20", 2368), ("h200", 15832), ("b200", 36000),
     ("ascend-910b3", 5008), ("ascend-910c", 12032), ("ppu-810e", 1899.2), ("mi250x", 6128),
     ("mi300x", 20918),
     # cube and vector units added, as the data sheet does: 16 x 425 and 16 x 486
     ("ascend-950pr", 6800), ("ascend-950dt", 7776)],
)  # fmt: skip
def test_tpp_follows_from_the_peaks(name: str, tpp: float) -> None:
    # TPP is the largest over formats of bit length x dense tera-operations per second
    assert device_tpp(load_device(name)) == pytest.approx(tpp, rel=0.002)


def test_traps_of_the_data_sheets() -> None:
    # Huawei adds cube and vector units on the 950; matrix products see the cube alone
    assert load_device("ascend-950pr").matrix_peak["bf16"] == pytest.approx(378.5e12)
    # the PPU's disputed peak is 120 by default and 197 as a variant
    assert load_device("ppu-810e").matrix_peak["bf16"] == 120e12
    assert load_device("ppu-810e-197").matrix_peak["bf16"] == 197e12
    # the H800 keeps the matrix units of the H100 but hardly any double precision
    h800, h100 = load_device("h800"), load_device("h100")
    assert h800.matrix_peak == h100.matrix_peak
    assert (h800.vector_peak["fp64"], h100.vector_peak["fp64"]) == (1e12, 33.5e12)
    # two dies make a package
    package, die = load_device("ascend-910c"), load_device("ascend-910c-die")
    assert package.matrix_peak["bf16"] == 2 * die.matrix_peak["bf16"]
    assert package.memory_bytes == 2 * die.memory_bytes
    assert package.cache_bytes == 2 * die.cache_bytes
    # a rack of 72 has nine times the cards and hosts of a server of eight that can fail
    assert load_node("gb200-nvl72").failure_rate == pytest.approx(
        9 * load_node("b200-8").failure_rate
    )
    # the H800 is an H100 with fewer links
    assert load_node("h800-8").scale_up.bandwidth == 200e9
    assert load_node("h100-8").scale_up.bandwidth == 450e9
    # one link per pair on the 910B
    assert load_node("ascend-910b2-8").scale_up.kind == "mesh"
    assert load_node("ascend-910b2-8").scale_up.link_bandwidth == 28e9


def test_hanguang_says_why_it_cannot_train() -> None:
    device = load_device("hanguang-800")
    assert not device.trains
    assert "inference" in device.why_not


def test_names_and_aliases() -> None:
    assert load_device("H100-SXM-80GB") is load_device("h100")
    with pytest.raises(InputError, match="did you mean 'h800'"):
        load_device("h80o")


def changed(tmp_path: Path, room: str, name: str, old: str, new: str) -> Path:
    """Write a catalogue file with one line changed."""
    text = (DATA / room / f"{name}.yaml").read_text()
    assert old in text
    path = tmp_path / f"{name}.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


def faults(load, path: Path) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError) as caught:
        load(str(path))
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("memory_bandwidth:", "memory_bandwith:", "unknown key, did you mean 'memory_bandwidth'"),
        ("value: 3350 GB/s", "value: 3350", "has no unit"),
        ("value: 3350 GB/s", "value: fast", "expected a bandwidth"),
        ("value: 80 GiB", "value: 0 GiB", "above 0"),
        ("memory_efficiency: {value: 0.85", "memory_efficiency: {value: 1.2", "at most 1"),
        ("tpp: {value: 15832.0", "tpp: {value: 31664.0", "the peaks give"),
        ("confidence: high", "confidence: sure", "expected one of high"),
        ("source: S1", "source: S999", "expected a key of `sources`"),
        ("power_idle_w: {value: 105 W", "power_idle_w: {value: 900 W", "less than power_max_w"),
        ("matrix_ceiling:\n  bf16", "matrix_ceiling:\n  bf15", "has no matrix_peak"),
        ("matrix_ceiling:\n  bf16", "matrix_ceiling:\n  bf15", "has no matrix_ceiling"),
        ("bf16: {value: 989.4 TFLOP/s", "bf16: {value: 0 TFLOP/s", "a peak above 0"),
        ("fp32: {value: 66.9", "fp23: {value: 66.9", "expected one of fp64, fp32"),
        ("units: {value: 132", "units: {value: .nan", "not a finite number"),
        ("units: {value: 132", "units: {value: 0", "a whole number of at least 1"),
        ("[128, 128, 64]", "[a, 128, 64]", "three whole numbers"),
        ("clock_hz: {value: 1830", "clock_hz: {value: 0", "above 0"),
        ("power_max_w: {value: 700 W", "power_max_w: {value: -700 W", "not negative"),
        (", date: 2022-09, confidence: high}", ", confidence: high}", "needs its date"),
        ("trains: true", "trains: maybe", "expected true or false"),
        ("trains: true", "trains: false", "needs `why_not`"),
        ("trains: true", "trains: true\nnics: 8", "unknown key"),
        ("trains: true", "trains: true\nbased_on: h10o", "did you mean 'h100'"),
        ('"30000 USD"', '"30000 XYZ"', "unknown unit"),
        ('"30000 USD"', '"-30000 USD"', "an amount above 0"),
        ("source: S41", "source: S42", "expected a key of `sources`"),
        ("region: US", "regoin: US", "did you mean 'region'"),
    ],
)
def test_a_broken_device_is_named_with_its_place(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = changed(tmp_path, "devices", "h100", old, new)
    fault = next(line for line in faults(load_device, path).splitlines() if words in line)
    # the place is the first line that differs; a second line is one that the change added
    before = (DATA / "devices/h100.yaml").read_text().splitlines()
    after = path.read_text().splitlines()
    line = next(i for i, text in enumerate(after, 1) if text not in before)
    if "has no matrix_ceiling" in words:  # said at the peak that is left alone
        line = next(i for i, text in enumerate(after, 1) if text.startswith("  bf16:"))
    assert fault.startswith(f"{path}:{line}:")


def test_a_fault_names_file_line_column_key_value_and_what_was_expected(tmp_path: Path) -> None:
    path = changed(tmp_path, "devices", "h100", "value: 3350 GB/s", "value: 3350 GHz")
    line = 1 + path.read_text().splitlines().index(
        "memory_bandwidth: {value: 3350 GHz, source: S1, date: 2022-09, confidence: high}"
    )
    # the value stands after "memory_bandwidth: {value: ", which has 26 characters
    assert faults(load_device, path) == (
        f"{path}:{line}:27: memory_bandwidth.value: '3350 GHz' - unknown unit 'GHz';"
        " expected a bandwidth with its unit, like '400 Gbit/s' or '50 GB/s'"
    )


@pytest.mark.parametrize("text", ["prices: 5\n", "matrix_peak: 5\n", "matrix_peak: {}\n",
                                  "sources: [S1]\n", "aliases: h\n", "- h100\n"])  # fmt: skip
def test_a_value_of_the_wrong_shape_is_a_fault_and_no_crash(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text if text.startswith("-") else f"based_on: h100\n{text}")
    assert "expected" in faults(load_device, path)


def test_files_based_on_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("based_on: b.yaml\n")
    (tmp_path / "b.yaml").write_text("based_on: a.yaml\n")
    text = faults(load_device, tmp_path / "a.yaml")
    assert text == f"{tmp_path / 'b.yaml'}:1:11: based_on: 'a.yaml' - leads back to this file"


@pytest.mark.parametrize(
    ("room", "name", "old", "new", "words"),
    [
        ("fabrics", "nvlink4", "kind: switched", "kind: swiched", "one of switched, mesh"),
        ("fabrics", "nvlink4", "in_switch: {value: 0.69", "in_switch: {value: 1.3", "at most 1"),
        ("fabrics", "nvlink4", "efficiency: {value: 0.82", "efficiency: {value: 0", "above 0"),
        ("fabrics", "ib-ndr400-rail", "subscription: {value: 1", "subscription: {value: 0.5",
         "1 (non-blocking) or more"),
        ("nodes", "h100-8", "device: h100", "device: h10o", "did you mean 'h100'"),
        ("nodes", "h100-8", "device: h100\n", "", "key is missing"),
        ("nodes", "h100-8", "nics: {value: 8", "nics: {value: 0", "at least 1"),
        # eight devices to a switch: four or twelve leave a group that is not whole
        ("nodes", "h100-8", "devices: {value: 8", "devices: {value: 4", "no whole groups"),
        ("nodes", "h100-8", "devices: {value: 8", "devices: {value: 12", "no whole groups"),
        ("nodes", "gb200-nvl72", "devices: {value: 72", "devices: {value: 73", "joins only 72"),
    ],
)  # fmt: skip
def test_broken_fabrics_and_nodes(
    tmp_path: Path, room: str, name: str, old: str, new: str, words: str
) -> None:
    network = "nic_bandwidth" in (DATA / room / f"{name}.yaml").read_text()
    load = load_node if room == "nodes" else load_scale_out if network else load_scale_up
    text = faults(load, changed(tmp_path, room, name, old, new))
    assert words in text
    assert f"{name}.yaml:" in text


def test_a_broken_fabric(tmp_path: Path) -> None:
    path = changed(tmp_path, "fabrics", "hccs-910b", "links: {value: 7", "links: {value: 5")
    text = faults(load_scale_up, path)
    assert "links x link_bandwidth" in text
    assert "a mesh of 8 needs 7 links" in text  # both at once


def test_a_user_s_own_device_by_path(tmp_path: Path) -> None:
    path = tmp_path / "my-h100.yaml"
    path.write_text(
        "based_on: h100\ntitle: Mine\nsources: {ME: own measurement}\n"
        "memory_bandwidth: {value: 3000 GB/s, source: ME, date: 2026-11, confidence: high}\n"
    )
    device = load_device(str(path))
    assert (device.name, device.title) == ("my-h100", "Mine")
    assert device.memory_bandwidth == 3e12
    assert device.matrix_peak == load_device("h100").matrix_peak


def test_a_user_s_own_node_finds_its_parts_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("based_on: h100\ntitle: Mine\n")
    (tmp_path / "node.yaml").write_text("based_on: h100-8\ndevice: mine.yaml\n")
    node = load_node(str(tmp_path / "node.yaml"))
    assert node.device.title == "Mine"
    assert node.scale_up is load_node("h100-8").scale_up
    (tmp_path / "mine.yaml").unlink()
    (tmp_path / "other.yaml").write_text("based_on: h100-8\ndevice: mine.yaml\n")
    assert "other.yaml:2:9: device" in faults(load_node, tmp_path / "other.yaml")


def test_a_stack_whose_defaults_are_no_mapping(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("based_on: megatron-core\ndefaults: 5\n")
    assert "mine.yaml:2:11: defaults: '5' - expected keys" in faults(load_stack, path)


def test_a_based_on_device_keeps_the_prices_and_drops_the_aliases(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("based_on: h100\n")
    assert load_device(str(path)).prices == load_device("h100").prices
    with pytest.raises(InputError, match="no such name"):
        load_device("mine")


@pytest.mark.parametrize(
    ("room", "load"), [("devices", load_device), ("nodes", load_node), ("stacks", load_stack)]
)
def test_each_alias_means_one_file(room: str, load: Callable[[str], Device | Node | Stack]) -> None:
    said: dict[str, str] = {path.stem: path.stem for path in (DATA / room).glob("*.yaml")}
    for path in (DATA / room).glob("*.yaml"):
        for alias in read_yaml(path).data.get("aliases", []):
            assert said.setdefault(alias.lower(), path.stem) == path.stem
            assert load(alias).name == path.stem
