"""ASGI middleware: authentication, allowed hosts, request limits, instrumentation, the public address.

May import `backend`, `auth`, `web` and `problems`. Read `authentication` first.
"""
