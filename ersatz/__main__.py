"""`python -m ersatz` is the same as `ersatz`."""

from ersatz.sim.cli import main

if __name__ == "__main__":
    main()
