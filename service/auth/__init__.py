"""Who calls: API keys, callers and their rate limits.

May import `web` and `problems`, never `backend`. Read `keys` first.
"""
