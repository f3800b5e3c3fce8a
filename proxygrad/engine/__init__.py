"""Continuous batching: many requests for images, optimized step by step as one batch per network and layer.

May import `networks`, `models` and everything below them. Read `engine`, then `group` first.
"""
