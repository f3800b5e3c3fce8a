"""The asynchronous client.

May import `service.client`. Read `client` first.
"""
