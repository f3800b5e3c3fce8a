"""HTTP mechanics without the domain: bodies, validation, conditional requests, negotiation, OpenAPI.

May import `schemas` and `problems`. Read `exception_handlers` first.
"""
