"""Jobs: records, submission, cancellation, status queries, events and results.

May import `queue`, `storage` and `broker`; no torch. Read `repository` first.
"""
