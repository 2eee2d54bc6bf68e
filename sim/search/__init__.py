"""The best layout of a job: every layout in bulk, a bound that never prunes what could win, exact prices."""
