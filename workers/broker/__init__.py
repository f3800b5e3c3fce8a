"""Redis: connections, key names, Lua scripts and pipelines.

May import `workers.errors` alone, and no torch. Read `pipeline`, then `scripts` first.
"""
