"""How weights and their gradients travel between the ranks that hold the same ones.

With ZeRO 0-2 consecutive parts of a chunk share a collective (a bucket) of at least so many weights
as the stack says; with ZeRO 3 each part travels alone. A bucket's gradients leave when the last of
them is there, and its weights are needed by the first of its parts. Sharded gradients are summed
over the groups of replicas that hold the same shards.

Not modelled: that a bucket may end inside a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.plan.borders import Border
from ersatz.sim.plan.memory.state import sums_runs
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.assemble import Times, Transfer
from ersatz.sim.workload.layer import Layer
from ersatz.sim.workload.pieces import PartWork


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a chunk with the weights that one rank holds of it."""

    work: PartWork
    dense: float
    expert: float
    is_layer: bool
    moe: bool = False
    kind: Layer | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    """Weights of consecutive parts that travel together."""

    group: str  # dp or edp
    params: float
    narrow: bool  # layers only, whose weights may travel in 8 bits
    first: int  # place of its first part in the order of the model
    last: int


Moves = list[tuple[str, Transfer]]  # by communicator, one after the other


@dataclass(slots=True)
class WeightTraffic:
    """Collectives for the weights of the stages that run on one pool."""

    scenario: Scenario
    stack: Stack
    times: Times
    elsewhere: tuple[Times, ...] = ()  # on the other pools of a job whose replicas run on several
    joint: Border | None = None  # between these pools

    @property
    def mixed(self) -> bool:
        """Replicas on several kinds of device exchange gradients only at the end."""
        return bool(self.elsewhere)

    @property
    def zero(self) -> int:
        """ZeRO stage."""
        return self.scenario.parallel.zero

    @property
    def reduces_each_time(self) -> bool:
        """Gradients are reduced after the backward pass of every micro-batch."""
        each = self.zero >= 2 and not sums_runs(self.scenario.parallel, self.stack)
        return each and (self.zero == 3 or not self.mixed)

    def reduces_after(self, edge: str) -> bool:
        """Tell whether gradients are reduced in a backward pass at that edge of its chunk."""
        if self.mixed and self.zero < 3:
            return False
        runs = self.zero == 2 and self.stack.zero2_reduce == "run"
        at_end = edge == "last" or (edge == "run" and runs)
        return self.reduces_each_time or (at_end and self.stack.overlap_grad_reduce)

    def gathers_forward(self, edge: str) -> bool:
        """Tell whether weights are gathered beside a forward pass."""
        if self.zero == 3 or self.gathers_shards:
            return True
        trained = not self.scenario.model.lora_rank
        return edge == "first" and self.zero > 0 and self.stack.overlap_param_gather and trained

    @property
    def gathers_shards(self) -> bool:
        """ZeRO 2 of a stack that keeps only shards of the weights between micro-batches."""
        return self.zero == 2 and self.stack.zero2_gather == "micro-batch"

    @property
    def gathers_at_end(self) -> bool:
        """Tell whether updated weights are gathered after the optimiser."""
        late = 0 < self.zero < 3 and not self.stack.overlap_param_gather
        return late and not self.gathers_shards and not self.scenario.model.lora_rank

    @property
    def reduces_at_end(self) -> bool:
        """Tell whether gradients are reduced after all backward passes."""
        if self.reduces_each_time:
            return False
        return self.mixed or not self.stack.overlap_grad_reduce

    def buckets(self, parts: Sequence[Part], *, first_chunk: bool) -> list[Bucket]:
        """Cut a chunk's parts into buckets, filled in the order in which gradients appear."""
        least = self._least(first_chunk=first_chunk)
        return [*self._cut(parts, "dp", least), *self._cut(parts, "edp", least)]

    def _least(self, *, first_chunk: bool) -> float:
        """Weights that a bucket holds at least."""
        stack = self.stack
        if self.zero == 3 or not stack.bucket_params:
            return 0.0
        if stack.bucket_first_chunk_only and not first_chunk:
            return float("inf")
        ranks = self.times.communicators["dp"].group.size
        return max(stack.bucket_params, stack.bucket_params_per_rank * ranks)

    def _cut(self, parts: Sequence[Part], group: str, least: float) -> list[Bucket]:
        found: list[Bucket] = []
        params, narrow, last = 0.0, True, len(parts) - 1
        for place in range(len(parts) - 1, -1, -1):
            part = parts[place]
            params += part.dense if group == "dp" else part.expert
            narrow &= part.is_layer
            if params > 0 and (params >= least or place == 0):
                found.append(Bucket(group, params, narrow, place, last))
                params, narrow, last = 0.0, True, place - 1
        return found

    def reduce(self, bucket: Bucket) -> Moves:
        """Sum the gradients of a bucket over its ranks, and its shards over the other groups."""
        if self.scenario.model.lora_rank:
            return []  # adapters are too small to count
        stacks = [self.stack, *(times.stack for times in self.elsewhere)]
        nbytes = bucket.params * max(DTYPE_BYTES[stack.gradient_dtype] for stack in stacks)
        return self._sum(nbytes, bucket.group)

    def _sum(self, nbytes: float, group: str) -> Moves:
        kind = {0: "all_reduce", 3: "reduce_scatter"}.get(self.zero, self.stack.zero_sum)
        shard = nbytes / self.times.communicators[group].group.size
        other = {"dp": "rep", "edp": "erep"}[group]
        return self._moves((kind, nbytes, group), ("all_reduce", shard, other))

    def gather(self, bucket: Bucket) -> Moves:
        """Gather the weights of a bucket."""
        size = self.scenario.training.operand_bytes
        narrow = bucket.narrow and self.stack.narrow_weight_gather
        each = size if narrow else max(size, 2.0)
        return self._moves(("all_gather", bucket.params * each, bucket.group))

    def _moves(self, *collectives: tuple[str, float, str]) -> Moves:
        found = [(group, self._slowest(kind, nbytes, group)) for kind, nbytes, group in collectives]
        return [(group, moved) for group, moved in found if moved.seconds > 0]

    def _slowest(self, kind: str, nbytes: float, group: str) -> Transfer:
        """Return a collective of replicas: on several pools the slowest network counts.

        Then it goes around one ring through all pools, or by levels, whichever is quicker: inside each
        pool, and between the pools with what each member holds of it.
        """
        if self.scenario.parallel.own:
            return self._apart(kind, nbytes, group)
        everywhere = (self.times, *self.elsewhere)
        flat = max((times.collective(kind, nbytes, group) for times in everywhere),
                   key=lambda moved: moved.seconds)  # fmt: skip
        own = f"own {group}"
        if self.joint is None or own not in self.times.communicators:
            return flat
        inside = max(times.collective(kind, nbytes, own).seconds for times in everywhere)
        fewest = min(times.communicators[own].group.size for times in everywhere)
        pools = len(everywhere)
        crossing = 2.0 * (pools - 1) / pools * nbytes / fewest
        levels = inside + self.joint.latency_s + crossing / self.joint.rate
        return flat._replace(seconds=levels) if levels < flat.seconds else flat

    def _apart(self, kind: str, nbytes: float, group: str) -> Transfer:
        """Return a collective of a pool whose layout is its own: by levels, for shards are not alike.

        Gradients are summed inside the pool, then each rank exchanges what it holds of the sum with the
        other pools; weights are gathered inside alone.
        """
        own = self.times.collective(kind, nbytes, group)
        if self.joint is None or kind == "all_gather" or group not in ("dp", "edp"):
            return own
        groups = self.times.communicators
        copies = groups[{"dp": "rep", "edp": "erep"}[group]].group.size
        pools = 1 + len(self.elsewhere)
        held = nbytes / (groups[group].group.size * copies)
        crossing = 2.0 * (pools - 1) / pools * held
        between = self.joint.latency_s + crossing / self.joint.rate
        return own._replace(seconds=own.seconds + between)
