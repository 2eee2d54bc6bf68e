"""Copies between a device and its host: activations that leave between their passes, weights on call.

Copies of a stage move in turn, on a stream of their own beside the compute stream. A link to the host could
carry both directions at once; but where a backward pass follows its own forward pass, as on the last
stage of a pipeline, it needs what has just left, and the other stages wait for that one. An activation
leaves when its layer's forward pass has ended, and comes back while the layer that is worked on before it
runs backward, as saved tensors that are prefetched do; a weight's shard comes before ZeRO 3 gathers it.
Nothing holds the step up until a copy is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ersatz.sim.plan.layout import weight_spread
from ersatz.sim.plan.memory import kept_bytes, layer_kept
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.step.assemble import Assembler, Transfer
from ersatz.sim.step.program import COPY, INPUT
from ersatz.sim.step.traffic.weights import Bucket, Part

CATEGORY = "host copy"


@dataclass(frozen=True, slots=True)
class HostCopies:
    """What a stage's layers exchange with the host on one pool."""

    scenario: Scenario
    pool: Pool

    @property
    def there(self) -> bool:
        """Tell whether layers exchange anything with the host."""
        stack = self.pool.stack
        return bool(stack.activation_offload or stack.weights_offload)

    @property
    def _rate(self) -> float:
        return self.pool.stack.host_bandwidth

    def leaving(self, part: Part, layer: int) -> Transfer | None:
        """Return the copy of what a part leaves with the host; `layer` counts within the chunk."""
        share = self.pool.stack.activation_offload
        if not share or part.kind is None:
            return None
        parallel = self.scenario.parallel
        again = not 0 < parallel.recompute_layers <= layer
        kept = layer_kept(self.scenario, self.pool, part.kind, again=again)
        return Transfer(share * kept / self._rate)

    def leave(self, make: Assembler, part: Part, layer: int) -> None:
        """Send what a part has kept away, once its forward pass has ended."""
        if moved := self.leaving(part, layer):
            make.beside("leave", COPY, CATEGORY, moved, (), make.flush())

    def fetched(
        self, make: Assembler, parts: Sequence[Part], places: Iterable[int]
    ) -> Iterator[int]:
        """Yield the places of a backward pass; each finds its activations on the device."""
        order = range(len(parts) - 1, -1, -1)
        first = bool(parts) and not parts[0].is_layer  # a stage may be left without any
        moves = {place: moved for place in order
                 if (moved := self.leaving(parts[place], place - first))}  # fmt: skip
        waits: dict[int, int] = {}

        def start(number: int, after: int | None) -> None:
            if number < len(order) and (moved := moves.get(order[number])):
                waits[order[number]] = make.beside("fetch", COPY, CATEGORY, moved, (), after)

        start(0, INPUT)
        end: int | None = INPUT
        for number, place in enumerate(places):
            start(number + 1, end)
            if place in waits:
                make.join(waits[place])
            yield place
            end = make.flush()

    def shards(self, buckets: Sequence[Bucket]) -> Transfer | None:
        """Return the copy of this rank's shards of some buckets from the host."""
        share = self.pool.stack.weights_offload
        if not share:
            return None
        dense, expert = weight_spread(self.scenario.parallel)
        ways = {"dp": dense.shard, "edp": expert.shard}
        each = share * kept_bytes(self.scenario, self.pool.stack)
        return Transfer(each * sum(b.params / ways[b.group] for b in buckets) / self._rate)

    def state(self, params: float) -> float:
        """Return seconds in which the state of so many weights comes and goes, both at once."""
        stack = self.pool.stack
        return stack.optimizer_offload * stack.optimizer_state_bytes * params / self._rate
