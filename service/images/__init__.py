"""Image conversion and the contact sheets of batches. Needs Pillow.

May import `web`, `proxygrad.protocol` and `problems`. Read `conversion` first.
"""
