"""Langevin dynamics activation maximization: how chains move, what tells how they mix, the discriminator.

May import `errors`, `spec`, `optim` and `parameterizations`, never `networks` or `engine`. Read `rules`
first.
"""
