"""Subcommands of ``proxygrad`` that need no service; each is named in the entry-point group."""
