"""Memory of a plan: what each rank holds, its peak over a step, the verdict, and what would help."""

from ersatz.sim.plan.memory.activations import repeated_modules
from ersatz.sim.plan.memory.advice import least_capacity, remedies
from ersatz.sim.plan.memory.plan import plan_memory

__all__ = ["least_capacity", "plan_memory", "remedies", "repeated_modules"]
