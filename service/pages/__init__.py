"""Pages for people: the first one, the API reference.

May import what `api` may import. Read `reference` first.
"""
