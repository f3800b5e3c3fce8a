"""ASGI middleware: authentication, allowed hosts, request limits, instrumentation.

May import `backend`, `auth`, `web` and `problems`. Read `authentication` first.
"""
