"""`python -m ersatz` is the same as `ersatz`."""

from ersatz.sim.__main__ import main

if __name__ == "__main__":
    main()
