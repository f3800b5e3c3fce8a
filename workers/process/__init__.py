"""The worker process: startup, slots, heartbeat, periodic threads, shutdown.

May import every package of `workers`; nothing imports it. Read `main`, then `dispatcher` first.
"""
