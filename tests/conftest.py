"""Lets tests import the small modules beside them; random cases are the same in every run.

`pytest --hypothesis-profile explore` draws new ones each time.
"""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("steady")
