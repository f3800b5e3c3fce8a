"""Batches: one template for many units, expanded into jobs a few at a time.

May import `jobs`, `queue`, `storage` and `broker`; no torch. Read `repository`, then `expander` first.
"""
