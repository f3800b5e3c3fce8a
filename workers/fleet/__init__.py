"""What live workers publish: their models, and statistics of queue and workers.

May import `queue`, `storage` and `broker`; no torch. Read `catalog` first.
"""
