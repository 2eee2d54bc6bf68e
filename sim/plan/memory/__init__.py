"""Memory of a plan: what each rank holds, its peak over a step, the verdict, and what would help."""

from ersatz.sim.plan.memory.activations import layer_kept, repeated_modules
from ersatz.sim.plan.memory.advice import least_capacity, remedies
from ersatz.sim.plan.memory.plan import plan_memory
from ersatz.sim.plan.memory.state import kept_bytes

__all__ = [
    "kept_bytes",
    "layer_kept",
    "least_capacity",
    "plan_memory",
    "remedies",
    "repeated_modules",
]
