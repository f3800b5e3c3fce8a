"""Recording: what a network computes for an input and for its reference, as steps on a tape.

May import `proxygrad.errors`, `proxygrad.torch_function` and torch. Read `tape` first, then `steps`, and
`adjoints` for the way back.
"""
