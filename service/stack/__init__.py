"""`proxygrad serve`: gateway, workers and an embedded Valkey under one supervisor.

May import `server` and everything below it. Read `supervisor` first.
"""
