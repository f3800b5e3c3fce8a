"""The asynchronous client, from which `tools/unasync.py` generates the blocking one.

May import the modules of `proxygrad.client` and `proxygrad.protocol`. Read `client` first.
"""
