"""`python -m ersatz.sim.validation.fit [RUNS.csv] [--dry | --check | --only PATTERN]`: fit, and write it."""

import sys

from ersatz.sim.validation.fit.partial import main_part
from ersatz.sim.validation.fit.search import main

if "--only" in sys.argv:
    main_part(sys.argv[1:])
else:
    main(sys.argv[1:])
