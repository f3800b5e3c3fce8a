"""Image conversion and the contact sheets of batches. Needs Pillow.

May import `web`, `schemas` and `problems`. Read `conversion` first.
"""
