"""HTTP mechanics without the domain: bodies, validation, conditional requests, negotiation, OpenAPI.

May import `proxygrad.protocol` and `problems`. Read `exception_handlers` first.
"""
