"""The blocking client.

May import `service.client`. Read `client` first.
"""
