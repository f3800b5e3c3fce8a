"""Job kinds: what distinguishes a visualization from another kind of job, one module per kind.

Torch-free; `workers.execution.kinds` has the computations. Read `base`, then `visualization` first.
"""
