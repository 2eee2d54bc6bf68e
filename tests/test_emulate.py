"""The emulator's parts that need no PyTorch: allocator, clock, traces, the command line, what is refused."""

import random
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ersatz.device_models.catalog.reading import list_devices, load_device
from ersatz.device_models.kernels.kernel import matmul, memory_kernel
from ersatz.sim.cli.output import captured
from ersatz.sim.emulate.allocator import (
    MIB,
    CachingAllocator,
    Full,
    configured,
    rounded,
    segment_size,
)
from ersatz.sim.emulate.clock import Clock
from ersatz.sim.emulate.emulate import Request, emulate, seats_of
from ersatz.sim.emulate.network import Network
from ersatz.sim.emulate.properties import Properties, known_properties
from ersatz.sim.emulate.replaying.export import perfetto_text
from ersatz.sim.emulate.replaying.program import program_of
from ersatz.sim.emulate.starting.command import parse_command
from ersatz.sim.emulate.starting.smi import write_tools
from ersatz.sim.emulate.trace import Ranks, Recorder, Task, Trace, load, ranks_of, save
from ersatz.sim.emulate.virtual_device import Seat, host_defaults, seated_node, shown_as
from ersatz.sim.errors import InputError
from ersatz.sim.step.program import ticks
from ersatz.sim.step.vector import vector_step

GIB = 2**30


# ---- memory


def test_segments_are_those_of_the_caching_allocator() -> None:
    """1 B takes 512 B of a 2 MiB segment; 1 MiB + 1 of one of 20 MiB; 10 MiB + 1 one of 12 MiB."""
    assert [rounded(n) for n in (0, 1, 512, 513)] == [512, 512, 512, 1024]
    assert segment_size(MIB) == 2 * MIB
    assert segment_size(rounded(MIB + 1)) == 20 * MIB
    assert segment_size(rounded(10 * MIB + 1)) == 12 * MIB


def test_a_freed_block_is_used_again_and_the_rest_split_off() -> None:
    """5 and 4 MiB share a segment of 20; freed, the first serves 3 MiB: nothing more is reserved."""
    memory = CachingAllocator(GIB)
    first, second = memory.allocate(5 * MIB), memory.allocate(4 * MIB)
    assert second == first + 5 * MIB
    assert memory.reserved == 20 * MIB
    memory.free(first)
    assert memory.allocate(3 * MIB) == first
    assert memory.reserved == 20 * MIB
    assert memory.allocated == 7 * MIB


def test_fragments_can_fill_a_device_that_has_room() -> None:
    """Two free blocks of 12 MiB do not serve 24 until their segments are given back."""
    memory = CachingAllocator(24 * MIB)
    blocks = [memory.allocate(12 * MIB) for _ in range(2)]
    memory.free(blocks[0])
    with pytest.raises(Full):
        memory.allocate(24 * MIB)
    memory.free(blocks[1])
    memory.allocate(24 * MIB)  # the two are free and are given back first
    assert memory.retries == 2
    assert memory.ooms == 1


def test_expandable_segments_lose_nothing_between() -> None:
    """Growing buffers of 30, 40 and 50 MiB: one segment of 60, not one for each."""
    plain, grows = CachingAllocator(GIB), CachingAllocator(GIB, expandable=True)
    for memory in (plain, grows):
        block = memory.allocate(30 * MIB)
        for nbytes in (40 * MIB, 50 * MIB):
            memory.free(block)
            block = memory.allocate(nbytes)
    assert plain.reserved == (30 + 40 + 50) * MIB
    assert grows.reserved == 60 * MIB


def test_options_of_the_allocator_are_read_and_others_named() -> None:
    """Beyond 32 MiB nothing is split: of a freed block of 60, 40 MiB are not taken."""
    memory, left = configured(GIB, "max_split_size_mb:32, roundup_power2_divisions:4")
    assert left == ["roundup_power2_divisions"]
    memory.free(memory.allocate(60 * MIB))
    memory.allocate(31 * MIB)
    assert memory.reserved == (60 + 32) * MIB
    assert configured(GIB, "expandable_segments:True")[0].expandable


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=60, deadline=None)
def test_blocks_never_overlap_and_all_memory_comes_back(seed: int, expandable: bool) -> None:
    draw = random.Random(seed)
    memory = CachingAllocator(2 * GIB, expandable)
    held: dict[int, int] = {}
    for _ in range(draw.randrange(1, 120)):
        if held and draw.random() < 0.5:
            address = draw.choice(list(held))
            del held[address]
            memory.free(address)
        else:
            nbytes = int(2 ** draw.uniform(0, 26))
            held[memory.allocate(nbytes, draw.randrange(2))] = rounded(nbytes)
        places = sorted(held.items())
        assert all(a + n <= b for (a, n), (b, _) in pairwise(places))
        assert sum(held.values()) <= memory.allocated <= memory.reserved
        assert memory.reserved == sum(memory.segments.values())
    for address in list(held):
        memory.free(address)
    memory.empty_cache()
    assert memory.allocated == 0
    assert memory.reserved == sum(memory.segments.values())
    assert expandable or memory.reserved == 0


# ---- clock and step engine: two ways to one number


def test_the_host_leads_until_it_waits() -> None:
    """Two kernels of 10 s launched at 1 and 2 s end at 11 and 21; a third beside waits for the first."""
    clock = Clock()
    first = clock.run(0, 0, 10.0, 1.0)
    clock.run(0, 0, 10.0, 1.0)
    beside = clock.run(1, 0, 5.0, 1.0, [first])
    assert clock.ends == [11.0, 21.0, 16.0]
    clock.wait_on_host([beside])
    assert clock.host == 16.0
    assert clock.drained == 21.0


def test_kernels_know_how_long_a_collective_ran_beside_them() -> None:
    """A sum from 2 to 6 s beside kernels from 0 to 5 and 5 to 10: 3 and 1 s, charged when it has ended."""
    clock = Clock()
    before = clock.run(0, 0, 2.0, 0.0)
    clock.run(1, 1, 4.0, 0.0, [before], talks=True)
    clock.run(0, 0, 3.0, 0.0)
    assert (clock.beside_s, clock.ended) == (3.0, False)
    clock.run(0, 0, 5.0, 0.0)
    assert clock.ended
    assert clock.charged() == 4.0
    clock.run(0, 0, 5.0, 0.0)
    assert clock.charged() == 0.0


def random_trace(seed: int) -> Trace:
    """Return a step of kernels and collectives on three streams with waits at random."""
    draw, recorder = random.Random(seed), Recorder()
    clock = recorder.clock
    recorder.end_step()
    for i in range(draw.randrange(1, 60)):
        seconds, host = draw.uniform(0, 1e-3), draw.choice([0.0, 5e-6, 2e-3])
        kind, stream = draw.choice(["", "", "", "all_reduce"]), draw.choice([0, 0, 0, 1, 2])
        kernel = None if kind else memory_kernel("k", 1.0)
        number = recorder.number(i, Task("x", "x", seconds, kernel, kind, 8.0, Ranks(0, 1, 2)))
        past = draw.sample(
            range(len(clock.entries)), min(len(clock.entries), draw.choice([0, 0, 1, 2]))
        )
        clock.run(stream, number, seconds, host, past)
        if draw.random() < 0.1:
            clock.spend(draw.uniform(0, 1e-3))
        if draw.random() < 0.1:
            clock.wait_on_host(clock.mark(stream))
    recorder.end_step()
    return Trace(0, tuple(recorder.table), tuple(clock.entries), tuple(recorder.marks),
                 (clock.drained,), {0: "compute", 1: "a", 2: "b"}, {}, {})  # fmt: skip


@given(st.integers(0, 100_000))
@settings(max_examples=150, deadline=None)
def test_the_live_clock_and_the_step_engine_agree(seed: int) -> None:
    trace = random_trace(seed)
    assert vector_step(program_of(trace)) == pytest.approx(trace.step_s[0], abs=2**-38)


def test_a_trace_comes_back_from_its_file_and_is_a_timeline(tmp_path: Path) -> None:
    trace = random_trace(7)
    save(trace, tmp_path / "trace.json")
    assert load(tmp_path / "trace.json") == trace
    text = perfetto_text([trace])
    assert text.count('"ph":"X"') == sum(e.work >= 0 for e in trace.last_step())


# ---- what a rank is told


def test_every_device_that_trains_is_shown_or_refused_by_name() -> None:
    for name in list_devices():
        device = load_device(name)
        shown = shown_as(device)
        assert shown.surface == ("npu" if device.vendor == "huawei" else "cuda")
        assert shown.name
    with pytest.raises(InputError, match="device x: vendor: 'moore'"):
        shown_as(replace(load_device("h800"), name="x", vendor="moore"))


def test_products_have_a_peak_in_every_format() -> None:
    for node in ("ascend-910b2-8", "mi300x-8", "h800-8", "ppu-810e-16"):
        device = seated_node(node, 1, "torch-eager")[0].device
        assert set(device.matrix_peak) >= {"fp32", "tf32", "bf16", "fp16", "fp8"}


def test_a_seat_survives_its_way_to_the_process() -> None:
    seats, _ = seats_of(Request("h800-8", ("torchrun", __file__), nodes=2, ranks="0,9"))
    assert [s.rank for s in seats] == [0, 9]
    assert seats[1].world == 16
    assert Seat.of_json(seats[1].to_json()) == seats[1]


def test_members_that_stand_evenly_need_no_list() -> None:
    assert ranks_of([3, 11, 19]) == Ranks(3, 8, 3)
    assert ranks_of([5]) == Ranks(5, 1, 1)
    assert ranks_of([0, 1, 3]).irregular == (0, 1, 3)


def test_a_collective_inside_a_node_beats_one_across() -> None:
    node, stack = seated_node("h800-8", 8, "torch-eager")
    network = Network(node, stack, 64)
    inside, across = Ranks(0, 1, 8), Ranks(0, 8, 8)
    assert network.seconds("all_reduce", 1e9, inside) < network.seconds("all_reduce", 1e9, across)
    assert network.seconds("all_reduce", 1e9, Ranks(4, 1, 1)) == 0.0


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("{}", ("", 0, 0)),
        ("python -u {}", ("", 0, 0)),
        ("torchrun --nproc-per-node=8 --nnodes 2 {} --lr 1", ("torchrun", 8, 2)),
        ("torchrun --standalone --nproc_per_node gpu {}", ("torchrun", 0, 0)),
        ("python3 -m torch.distributed.run --nproc-per-node 4 {}", ("torchrun", 4, 0)),
        ("accelerate launch --num_processes 16 --num_machines 2 {}", ("accelerate", 8, 2)),
        ("deepspeed --num_gpus 8 {}", ("deepspeed", 8, 0)),
    ],
)
def test_launchers_are_understood(words: str, found: tuple[str, int, int]) -> None:
    command = parse_command(words.format(__file__).split())
    assert (command.launcher, command.per_node, command.nodes) == found
    assert command.words[0] == __file__


def test_a_module_is_kept_with_its_flag() -> None:
    command = parse_command(
        ["torchrun", "--nproc-per-node", "8", "-m", "package.train", "--steps", "3"]
    )
    assert command.words == ("-m", "package.train", "--steps", "3")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request("h800-8", ()), "expected the script"),
        (Request("h800-8", ("nowhere.py",)), "is no file"),
        (
            Request("h800-8", ("torchrun", "--nproc-per-node", "16", __file__)),
            "at most the 8 devices",
        ),
        (Request("h800-8", ("torchrun", "--nnodes", "4", __file__)), "expected the 1 of --nodes"),
        (Request("h800-8", (__file__,), ranks="9"), "below 1"),
        (Request("h800-8", (__file__,), ranks="first"), "numbers by comma"),
        (Request("h800-8", (__file__,), nodes=8, ranks="all"), "at most 32 processes"),
        (Request("h800-8", (__file__,), timer="sundial"), "expected one of calibrated"),
        (Request("h800-8", (__file__,), timer="table"), "--calibration"),
        (Request("hanguang-9", (__file__,)), "hanguang-9"),
        (Request("hanguang-800-8", (__file__,)), "hanguang-800"),
    ],
)
def test_what_cannot_be_emulated_is_refused_with_a_sentence(request_: Request, words: str) -> None:
    with pytest.raises(InputError, match=words):
        seats_of(request_)


def test_without_torch_the_verb_says_what_to_install() -> None:
    code = (
        "import sys, importlib.metadata as m; real = m.version\n"
        "def version(name):\n"
        "    if name == 'torch': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version; sys.argv = ['ersatz', 'emulate', '--node', 'h800-8', '--', sys.argv[1]]\n"
        "from ersatz.sim.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, __file__], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'ersatz[emulate]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed")
def test_the_python_door_says_it_too() -> None:
    with pytest.raises(InputError, match="PyTorch"):
        emulate(Request("h800-8", (__file__,)))


def test_the_tools_of_vendors_answer_scripts(tmp_path: Path) -> None:
    device = seated_node("h800-8", 1, "torch-eager")[0].device
    write_tools(tmp_path, device, shown_as(device), 8)
    words = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(
        [tmp_path / "nvidia-smi", *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["NVIDIA H800, 81920"] * 8


def test_ticks_are_what_both_clocks_count_in() -> None:
    clock = Clock()
    clock.run(0, 0, 1e-6, 3e-6)
    assert clock.ends[0] == ticks(1e-6) + ticks(3e-6)
    assert matmul("x", 2, 3, 4, "bf16").flop == 48


def test_a_rank_whose_asker_was_killed_ends_without_a_word() -> None:
    code = """
import os
from ersatz.sim.emulate.starting.nursery import _tell
heard, news = os.pipe()
_tell(news, 7)
print(os.read(heard, 9))
os.close(heard)
_tell(news, 8)
print("goes on")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "goes on" not in done.stdout


def test_properties_follow_the_architecture_and_none_is_made_up() -> None:
    """Every NVIDIA device has threads, registers and shared memory of its capability; nothing has a bus."""
    shared, known = {}, {}
    for name in list_devices():
        device = load_device(name)
        if device.vendor in ("nvidia", "amd", "huawei", "alibaba"):
            known[name] = known_properties(device, shown_as(device))
            shared[name] = known[name].values.get("shared_memory_per_block_optin")
    assert (shared["a100-80"], shared["h800"], shared["b300"]) == (
        163 * 1024,
        227 * 1024,
        227 * 1024,
    )
    assert shared["mi355x"] is None
    assert known["mi355x"].values["shared_memory_per_block"] == 160 * 1024
    nvidia = [name for name in known if load_device(name).vendor == "nvidia"]
    assert all(shared[name] for name in nvidia)
    assert all(known[name].values["regs_per_multiprocessor"] == 65536 for name in nvidia)
    assert known["ascend-910b3"].values["vector_core_num"] == 2 * 20  # two for each cube core
    assert "vector_core_num" not in known["ascend-910a"].values
    assert not any("memory_bus_width" in one.values for one in known.values())
    assert known["h20"].assumed["clock_rate"] == "not published"
    told: list[str] = []
    ppu = Properties("PPU", "cuda", known["ppu-810e"], told.append)
    assert ppu.multi_processor_count == load_device("ppu-810e").compute_units
    assert told
    with pytest.raises(AttributeError, match="max_threads_per_block of PPU is not known"):
        _ = ppu.max_threads_per_block
    assert not hasattr(ppu, "vector_core_num")


def test_the_host_waits_for_the_launch_that_a_full_queue_lets_go() -> None:
    """As many launches as the driver takes are ahead (`emulate.yaml`); one more waits for the first."""
    deep = host_defaults().launch_queue
    assert deep == 1024
    for queue in (deep, 2):
        clock = Clock(queue=queue)
        for _ in range(queue):
            clock.run(0, 0, 1.0, 0.0)
        assert clock.host == 0.0
        clock.run(0, 0, 1.0, 0.0)
        assert clock.host == 1.0


def test_a_script_that_is_not_there_is_named_with_or_without_pytorch() -> None:
    with pytest.raises(InputError, match="is no file"):
        captured(["emulate", "--node", "h800-8", "/no/such.py"])
