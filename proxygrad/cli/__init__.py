"""The `proxygrad` command and the subcommands of the science.

May import everything in `proxygrad`; other packages add subcommands by entry points. Read `main` first.
"""
