"""The end of a step: what follows the last gradient of a stage, up to the next step's first layer.

Gradients that are not reduced by then are, those of weights that stand twice are summed, their norm
is taken, the optimiser updates what is this rank's own, weights are gathered where that is not left to
the next forward pass, and gradients that have a buffer of their own are set to zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.kernels.kernel import Kernel, memory_kernel
from ersatz.sim.plan.layout import Chunk, chunk_params, chunk_whole_params, copies_table
from ersatz.sim.plan.memory.state import gradients_kept, held_of
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.assemble import Assembler
from ersatz.sim.step.bench import Bench
from ersatz.sim.step.program import Block
from ersatz.sim.step.traffic.offload import HostCopies
from ersatz.sim.step.traffic.weights import Bucket
from ersatz.sim.workload.adapters import trained_share
from ersatz.sim.workload.model import Model


@dataclass(frozen=True, slots=True)
class StepEnd:
    """Builds what follows the last gradient of the stages that run on one pool."""

    scenario: Scenario
    bench: Bench
    copies: HostCopies

    def block(self, held: Sequence[Chunk]) -> Block:
        """Return the end of a stage that holds these chunks."""
        bench, traffic = self.bench, self.bench.traffic
        make = Assembler(bench.times, phase="optimizer")
        parallel, stack = self.scenario.parallel, bench.pool.stack
        parts = [chunk_params(self.scenario.model, chunk, parallel) for chunk in held]
        dense, expert = math.fsum(d for d, _ in parts), math.fsum(e for _, e in parts)
        make.compute(0.0, "launch", stack.step_host_s)
        whole = [Bucket("dp", dense, False, 0, 0), Bucket("edp", expert, False, 0, 0)]
        if traffic.reduces_at_end:
            for group, moved in (move for bucket in whole for move in traffic.reduce(bucket)):
                make.blocking("reduce", "data parallel", moved, self._sync(group))
        self._sum_copies(make, held)
        if self.bench.times.communicators["world"].group.size > 1:
            norm = self.bench.times.collective("all_reduce", 4.0, "world")
            make.blocking("norm", "optimizer", norm, self._sync("world"))
        nbytes = stack.optimizer_bytes_per_param * self._own_params(dense, expert)
        update = memory_kernel("optimizer", nbytes, dtype=self.bench.shard.wide,
                               m=self._own_params(dense, expert), n=1.0)  # fmt: skip
        self._update(make, nbytes, update, self._own_params(dense, expert))
        if traffic.gathers_at_end:
            for group, moved in (move for bucket in whole for move in traffic.gather(bucket)):
                make.blocking("gather", "data parallel", moved, self._sync(group))
        if stack.zeroes_gradients:
            self._clear(make, held)
        return make.block()

    def _clear(self, make: Assembler, held: Sequence[Chunk]) -> None:
        """Fill the sum of gradients with zeros, into which the next step's are added."""
        weights = held_of(self.scenario, held)
        nbytes = gradients_kept(self.scenario, self.bench.pool.stack, weights)
        zeros = memory_kernel("gradient zeros", nbytes, dtype=self.bench.shard.wide,
                              m=weights.dense + weights.expert, n=1.0)  # fmt: skip
        make.compute(self.bench.times.kernel(zeros), "optimizer", kernel=zeros)

    def _update(self, make: Assembler, nbytes: float, update: Kernel, params: float) -> None:
        """Update the weights: on the device, and on the host what is kept there unless it comes back."""
        away = self.bench.pool.stack.optimizer_offload
        if away and self.bench.pool.stack.updates_on_device:
            make.compute(self.bench.times.kernel(update), "optimizer", kernel=update)
            make.compute(self.copies.state(params), "optimizer")
            return
        if away < 1:
            make.compute((1 - away) * self.bench.times.kernel(update), "optimizer",
                         kernel=None if away else update)  # fmt: skip
        if away:
            make.compute(away * nbytes / self.bench.pool.stack.optimizer_bandwidth, "optimizer")

    def _sum_copies(self, make: Assembler, held: Sequence[Chunk]) -> None:
        """Sum gradients of weights that stand twice: over the tensor group, and of the vocabulary.

        With sequence parallelism the ranks of a tensor group see different rows of the weights that
        each holds whole. An embedding that the last stage has a copy of is summed over both ends.
        """
        model, parallel = self.scenario.model, self.scenario.parallel
        size = DTYPE_BYTES[self.bench.pool.stack.gradient_dtype]
        if not self.bench.shard.trains:
            return
        if self.bench.shard.sequence_parallel:
            nbytes = size * math.fsum(chunk_whole_params(model, chunk) for chunk in held)
            moved = self.bench.times.collective("all_reduce", nbytes, "tp")
            make.blocking("whole weights", "tensor parallel", moved, self._sync("tp"), "tp")
        ends = any(chunk.embedding or chunk.head for chunk in held)
        if ends and copies_table(model, parallel):
            nbytes = size * model.hidden * model.vocab / parallel.tp
            moved = self.bench.times.collective("all_reduce", nbytes, "ends")
            make.blocking("embedding sum", "pipeline", moved, ())

    def _own_params(self, dense: float, expert: float) -> float:
        """Weights that this rank's optimiser updates."""
        model: Model = self.scenario.model
        if model.lora_rank:
            return trained_share(model) * (dense + expert)
        if self.scenario.parallel.zero == 0:
            return dense + expert
        groups = self.bench.times.communicators
        return dense / groups["dp"].group.size + expert / groups["edp"].group.size

    def _sync(self, group: str) -> tuple[int, ...]:
        return self.bench.times.communicators[group].sync
