"""Objectives: the scalar of a network's activations that an image maximizes.

May import `proxygrad.spec` and `proxygrad.errors`. Read `base` first.
"""
