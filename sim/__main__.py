"""`ersatz`, `python -m ersatz` and `python -m sim`: an interrupt is answered from the first line on."""

import gc

from ersatz.sim.signals import leave_on_signals

# Answers make many objects and few circles: with the usual thresholds a tenth of their time is looking.
SELDOM = 50_000, 20, 20


def main() -> None:
    """Run the command line; its imports alone take longer than an impatient person."""
    leave_on_signals()
    gc.set_threshold(*SELDOM)
    from ersatz.sim.cli import main as answer

    answer()


if __name__ == "__main__":
    main()
