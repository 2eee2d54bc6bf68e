"""`python -m ersatz.sim.validation.fit [RUNS.csv] [--dry | --check]`: fit, and write what was fitted."""

import sys

from ersatz.sim.validation.fit.search import main

main(sys.argv[1:])
