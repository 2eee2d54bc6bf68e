"""The host in the loop: a script emulated with its operators timed on this CPU, and really trained there."""

import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from test_emulate_torch import emulated

pytest.importorskip("torch", reason="the emulator runs scripts under PyTorch")

SCRIPT = Path(__file__).parent / "emulated" / "gpt.py"
REALLY = """
import runpy, sys, time
import torch
from ersatz.sim.hil.device.attached import keep_freed_memory
torch.set_num_threads(1)
keep_freed_memory()
time.time = time.process_time  # what others on this machine do does not count
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SHAPES = {
    "4 layers of 384": "--layers 4 --width 384 --heads 6 --batch 4 --block 256",
    "3 layers of 512": "--layers 3 --width 512 --heads 8 --batch 2 --block 192",
    "6 layers of 256": "--layers 6 --width 256 --heads 4 --batch 8 --block 128",
}
STEADY = 0.04  # two real runs that differ by more say nothing
ENOUGH, TRIES = 3, 6  # comparisons between steady runs, of which the middle counts


def really_trained(options: list[str]) -> float:
    """Return the median step of training on the CPU, in seconds."""
    words = [sys.executable, "-c", REALLY, str(SCRIPT), "--device", "cpu", "--iters", "7", *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=True)
    return statistics.median(
        float(t) / 1e3 for t in re.findall(r"time ([\d.]+) ms", done.stdout)[2:]
    )


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_live_emulation_is_within_8_percent_of_training(shape: str, tmp_path: Path) -> None:
    """Nothing is fitted. On a machine too busy to train twice alike there is nothing to hold it to."""
    options = SHAPES[shape].split()
    words = ["--node", "cpu-1", "--timer", "live"]
    shares: list[float] = []
    after = really_trained(options)
    for _ in range(TRIES):  # the training after one emulation is the one before the next
        before = after
        result, _ = emulated(tmp_path, words, [str(SCRIPT), *options])
        after = really_trained(options)
        if abs(after / before - 1) <= STEADY:
            shares.append(2 * result["step_s"] / (before + after))
        if len(shares) == ENOUGH:
            break
    if not shares:
        pytest.skip(f"this machine is too busy: {1e3 * before:.0f} and {1e3 * after:.0f} ms")
    assert statistics.median(shares) == pytest.approx(1.0, abs=0.08), shares
