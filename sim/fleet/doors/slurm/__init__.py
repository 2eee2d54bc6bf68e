"""The third door: real Slurm on emulated nodes, under a fast clock.

`config` writes its files from a cluster, `daemons` starts and ends it, `replay` submits a workload and
waits, `records` turns what Slurm wrote down into the one event log.
"""
