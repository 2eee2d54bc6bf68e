"""A whole training job: failures, checkpoints, time, energy and money."""
