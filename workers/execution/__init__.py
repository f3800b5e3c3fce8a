"""One run of one job: from RQ's task to the stored result.

May import every package of `workers` but `process`. Read `task`, then `compute` first.
"""
