"""Doors for schedulers outside: Batsim's protocol, real Slurm."""
