"""The page: what-if, your own launch file, purchases, law and fleets in a browser, on this machine alone."""
