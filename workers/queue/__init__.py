"""The queue: fair order, leases, and the janitor that takes jobs back from lost runs.

May import `broker` and `settings`; no torch. Read `leases`, then `fair_queue` first.
"""
