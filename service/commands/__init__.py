"""Subcommands of `proxygrad` that need the service. Light to import: `proxygrad` imports all of them."""
