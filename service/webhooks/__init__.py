"""Webhook delivery: URLs, signatures, sending and the dispatcher.

May import `web`, `schemas`, `addresses` and `workers`. Read `dispatcher` first.
"""
