"""Job kinds as resources of HTTP: what a caller may do with jobs of a kind, one module per kind.

May import what `service.backend` may, and `service.backend` itself. Read `base`, then `session` first.
"""
