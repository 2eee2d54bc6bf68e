"""`ersatz`, `python -m ersatz` and `python -m sim`: an interrupt is answered from the first line on."""

from ersatz.sim.signals import leave_on_signals


def main() -> None:
    """Run the command line; its imports alone take longer than an impatient person."""
    leave_on_signals()
    from ersatz.sim.cli import main as answer

    answer()


if __name__ == "__main__":
    main()
