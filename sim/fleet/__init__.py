"""Many jobs on one fleet, under schedulers that are judged."""
