"""What the JSON of responses looks like.

May import `problems`; domain types of `workers` and `proxygrad.spec`. Read `visualizations` first.
"""
