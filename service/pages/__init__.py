"""HTML pages: the API reference.

May import what `api` may import. Read `reference` first.
"""
