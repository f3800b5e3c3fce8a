"""Langevin dynamics activation maximization: the discriminator that regularizes its samples.

May import `errors`, `spec` and torch, never `networks` or `engine`. Read `discriminator` first.
"""
