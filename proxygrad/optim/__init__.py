"""Gradient ascent on images: update rules, gradient activation functions, regularizers.

May import `proxygrad.spec` and `proxygrad.errors`. Read `update_rules` first.
"""
