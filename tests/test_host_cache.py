"""What a host's cache holds is measured: known answers of pretended hosts, and this one."""

from pathlib import Path
from typing import Any

import pytest

from ersatz.sim.hil.device import host_cache
from ersatz.sim.hil.device.host_cache import MIB, flush_bytes, held_bytes, told_bytes


def pretended(monkeypatch: pytest.MonkeyPatch, holds: int, near: float, far: float) -> None:
    """Put a host in place that reads up to `holds` bytes at the rate of its cache."""

    def seconds_per_byte(torch: Any, nbytes: int) -> float:
        return near if nbytes <= holds else far

    monkeypatch.setattr(host_cache, "_seconds_per_byte", seconds_per_byte)


@pytest.mark.parametrize("holds", [3 * MIB, 5 * MIB, 24 * MIB])
def test_the_largest_buffer_that_is_read_at_the_caches_rate_is_what_it_holds(
    holds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes grow by a quarter of a doubling, so what is found is at most 16 % below."""
    pretended(monkeypatch, holds, near=0.03e-9, far=0.09e-9)
    assert 2**-0.25 * holds <= held_bytes(None) <= holds


def test_a_cache_that_saves_nothing_holds_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is read as fast it does not matter what the cache holds."""
    pretended(monkeypatch, 4 * MIB, near=0.09e-9, far=0.1e-9)
    assert held_bytes(None) == float("inf")


def test_more_than_the_whole_cache_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB leave most of a cache of 256 MiB as it was: operands that should be far are near."""
    for told, expected in ((0, 64), (8 * MIB, 64), (256 * MIB, 512), (768 * MIB, 512)):
        monkeypatch.setattr(host_cache, "told_bytes", lambda told=told: told)
        assert flush_bytes() == expected * MIB


def test_the_system_tells_its_last_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest counts; a system that tells none, or in other words, counts as 0."""
    for level, words in enumerate(("32K\n", "512K\n", "8192K\n", "unknown\n")):
        (tmp_path / f"index{level}").mkdir()
        (tmp_path / f"index{level}" / "size").write_text(words)
    monkeypatch.setattr(host_cache, "TOLD", tmp_path)
    assert told_bytes() == 8 * MIB
    monkeypatch.setattr(host_cache, "TOLD", tmp_path / "none")
    assert told_bytes() == 0


def test_this_host_holds_something_and_not_more_than_is_written_over() -> None:
    """Measured, where PyTorch is at hand."""
    torch = pytest.importorskip("torch", reason="reads buffers of PyTorch")
    held = held_bytes(torch)
    assert MIB <= held <= flush_bytes() or held == float("inf")
