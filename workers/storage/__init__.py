"""The artifact store: images and results, deletion locks and pins, garbage collection.

May import `broker` and `settings`; no torch. Read `store` first.
"""
