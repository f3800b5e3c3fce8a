"""Feature visualization in one call, for a notebook: `proxygrad.maximize` and what it returns.

May import everything in `proxygrad` but `cli` and `training`. Read `ascent` first.
"""
