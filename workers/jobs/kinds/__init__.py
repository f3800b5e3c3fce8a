"""Job kinds: what distinguishes a visualization from another kind of job, one module per kind.

May import what `workers.jobs` may; no torch. `workers.execution.kinds` has the computations. Read `base`,
then `visualization`.
"""
