"""Webhook delivery: URLs, signatures, sending and the dispatcher.

May import `web`, `proxygrad.protocol`, `addresses` and `workers`. Read `dispatcher` first.
"""
