"""Computations: how a job of each kind is computed, one module per kind.

May import what `workers.execution` may; `workers.jobs.kinds` has what needs no torch. Read `base`, then
`visualization`.
"""
