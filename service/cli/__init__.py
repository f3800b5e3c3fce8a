"""Subcommands of `proxygrad` that need the service: `serve`, `demo`, `keys`.

May import everything in `service`. Read `serve` first.
"""
