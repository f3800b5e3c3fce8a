"""Discovery: what layers a network has, where their units are, and which rectifiers make, take or miss them.

May import `proxygrad.networks.capture`, `backward` and everything below it. Read `layers` first.
"""
