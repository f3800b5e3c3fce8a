"""Subcommands of `proxygrad` that need the service: `serve`, `demo`, `submit`, `batch`, `keys`.

May import everything in `service`. Read `serve` first.
"""
