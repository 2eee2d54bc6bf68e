"""How far off predictions are: of steps, jobs, memory, kernels, collectives."""
